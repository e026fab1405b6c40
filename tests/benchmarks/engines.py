"""Time and peak memory of forecasting a file of many series by each engine.

    python tests/benchmarks/engines.py --series 100000 --engines local ray dask

The file holds daily random walks with a weekly wave. Each engine forecasts it 28 days ahead in a
process of its own, with the start and the end of its cluster: the engines take turns, `--repeats`
times. Times are medians, with the ratio to the first engine. Peak memory is that of the process
and of all that it starts, in which memory that several share counts once. Whether the file of an
engine is that of the first one to the bit is said as well.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
from batch import HORIZON, write

# Seconds between two looks at the memory.
EVERY = 0.5


def forecast(path: Path, out: Path, engine: str, model: str, block_rows: int) -> None:
    """Forecast the file and print the seconds that it took."""
    from tsar.batch import forecast as batch_forecast

    options = {"horizon": HORIZON, "engine": engine, "block_rows": block_rows}
    params = {"max_steps": 50, "random_state": 0} if model == "PatchTST" else {}
    report = batch_forecast(path, model=model, params=params, out=out, **options)
    print(json.dumps({"seconds": report.seconds, "failed": report.n_failed}))


def measured(command: list[str]) -> tuple[dict[str, float], float]:
    """Run a command; return what it prints, and the peak of its memory in MB."""
    peak = 0
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(command, stdout=output)
        while process.poll() is None:
            peak = max(peak, memory(process))
            time.sleep(EVERY)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        output.seek(0)
        return json.loads(output.read().splitlines()[-1]), peak / 1e6


def memory(process: psutil.Process) -> int:
    """Return the bytes of a process and of all that it started; shared pages count once."""
    total = 0
    try:
        running = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for one in running:
        try:
            total += one.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--engines", nargs="+", default=["local", "ray", "dask"])
    parser.add_argument("--model", default="SeasonalNaive")
    parser.add_argument("--block-rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--forecast", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.forecast:
        path, out, engine = options.forecast
        forecast(Path(path), Path(out), engine, options.model, options.block_rows)
        return
    print(f"{options.model}, {options.series} series x {options.rows} rows", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "panel.parquet"
        write(path, options.series, options.rows)
        outs = {engine: Path(folder) / f"{engine}.parquet" for engine in options.engines}
        seconds = {engine: [] for engine in options.engines}
        peaks = {engine: [] for engine in options.engines}
        for _ in range(options.repeats):
            for engine, out in outs.items():
                command = [sys.executable, __file__, "--forecast", str(path), str(out), engine]
                command += ["--model", options.model, "--block-rows", str(options.block_rows)]
                result, peak = measured(command)
                seconds[engine].append(result["seconds"])
                peaks[engine].append(peak)
        first = options.engines[0]
        expected = pd.read_parquet(outs[first])
        for engine, out in outs.items():
            took = statistics.median(seconds[engine])
            line = {
                "engine": engine,
                "seconds": round(took, 1),
                "all_seconds": [round(one, 1) for one in seconds[engine]],
                "ratio": round(took / statistics.median(seconds[first]), 2),
                "peak_mb": round(max(peaks[engine])),
                "same": pd.read_parquet(out).equals(expected),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
