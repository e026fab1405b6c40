"""Time and peak memory of forecasting a file of many series by each engine.

    python tests/benchmarks/engines.py --series 100000 --engines local ray dask

The file holds daily random walks with a weekly wave. Each engine forecasts it 28 days ahead in a
process of its own, with the start and the end of its cluster: the engines take turns, `--repeats`
times. Times are medians, with the ratio to the first engine: of the whole call, and of what comes
after the first block, which is what grows with the number of series. Peak memory and the seconds
of processors are those of the process and of all that it starts; memory that several share counts
once. Whether the file of an engine is that of the first one to the bit is said as well.
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

# Seconds between two looks at the processes.
EVERY = 0.5
TIMES = ("seconds", "after_first", "cpu_seconds")


def forecast(path: Path, out: Path, engine: str, model: str, block_rows: int) -> None:
    """Forecast the file and print the seconds that it took."""
    from tsar.batch import forecast as batch_forecast

    options = {"horizon": HORIZON, "engine": engine, "block_rows": block_rows}
    params = {"max_steps": 50, "random_state": 0} if model == "PatchTST" else {}
    marks = []

    def note(done: int, n_series: int) -> None:
        marks.append(time.perf_counter())

    report = batch_forecast(path, model=model, params=params, out=out, on_progress=note, **options)
    # The first mark is before the first block.
    after_first = time.perf_counter() - marks[1]
    print(json.dumps({"seconds": report.seconds, "after_first": after_first}))


def measured(command: list[str]) -> dict[str, float]:
    """Run a command; return what it prints, the peak of its memory in MB, and its CPU seconds."""
    peak, cpu = 0, {}
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(command, stdout=output)
        while process.poll() is None:
            peak = max(peak, looked_at(process, cpu))
            time.sleep(EVERY)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        output.seek(0)
        result = json.loads(output.read().splitlines()[-1])
    return {**result, "peak_mb": peak / 1e6, "cpu_seconds": sum(cpu.values())}


def looked_at(process: psutil.Process, cpu: dict[int, float]) -> int:
    """Return the bytes of a process and of all that it started, and note their CPU seconds."""
    total = 0
    try:
        running = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for one in running:
        try:
            total += one.memory_full_info().pss
            times = one.cpu_times()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        cpu[one.pid] = times.user + times.system
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
        results = {engine: [] for engine in options.engines}
        for _ in range(options.repeats):
            for engine, out in outs.items():
                command = [sys.executable, __file__, "--forecast", str(path), str(out), engine]
                command += ["--model", options.model, "--block-rows", str(options.block_rows)]
                results[engine].append(measured(command))
        first = options.engines[0]
        expected = pd.read_parquet(outs[first])
        base = medians(results[first])
        for engine, out in outs.items():
            found = medians(results[engine])
            ratios = {f"{what}_ratio": found[what] / base[what] for what in TIMES}
            rounded = {name: round(value, 2) for name, value in {**found, **ratios}.items()}
            same = pd.read_parquet(out).equals(expected)
            print(json.dumps({"engine": engine, **rounded, "same": same}), flush=True)


def medians(results: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in results) for name in results[0]}


if __name__ == "__main__":
    main()
