"""Forecast a file, and kill a worker of the engine, or its cluster, after the second block.

    python tests/engines/ending.py ENGINE worker|cluster

Prints the name of the error, or the number of series, and how many processes were killed.
"""

import sys

import psutil

from tsar.batch import forecast
from tsar.exceptions import EngineError

OPTIONS = {
    "model": "NLinear",
    "horizon": 3,
    "params": {"context_length": 12, "max_epochs": 1, "random_state": 0},
    "block_rows": 120,
}


def is_meant(process: psutil.Process, engine: str, what: str) -> bool:
    command = " ".join(process.cmdline())
    parent = process.parent()
    of = "" if parent is None else " ".join(parent.cmdline())
    if engine == "ray":
        # Other processes of that name are agents, without which Ray ends.
        worker = command.startswith(("ray::_run", "ray::IDLE"))
        return worker if what == "worker" else "raylet/raylet" in command
    if engine == "dask":
        return "spawn_main" in command
    if what == "worker":
        return "pyspark.daemon" in command and "pyspark.daemon" in of
    return "java" in command.split(" ")[0]


def main() -> None:
    engine, what = sys.argv[1:]
    progress, killed = [], []

    def kill(done: int, n_series: int) -> None:
        progress.append(done)
        if len(progress) != 3:
            return
        for process in psutil.Process().children(recursive=True):
            try:
                if is_meant(process, engine, what) and (what == "cluster" or not killed):
                    process.kill()
                    killed.append(process.pid)
            except psutil.NoSuchProcess:
                continue

    try:
        report = forecast(
            "in.parquet", engine=engine, on_progress=kill, out="out.parquet", **OPTIONS
        )
        print("series", report.n_series, "killed", len(killed), flush=True)
    except EngineError as error:
        print("EngineError", "killed", len(killed), error, flush=True)


if __name__ == "__main__":
    main()
