"""Time and peak memory of forecasting a file of many series.

    python tests/benchmarks/batch.py --series 100000 --rows 200 --format parquet

The file is written first, a block at a time, by another process; it holds daily random walks with a
weekly wave. Then `tsar.batch.forecast` runs in a process of its own: the model is fitted on a
sample of a million rows, for a few steps, and forecasts all series 28 days ahead. Peak memory
is that of this process, the libraries included. `--threads` sets the threads of torch, and
`--level 80` asks for intervals.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

HORIZON = 28
SERIES_AT_ONCE = 2_000


def write(path: Path, n_series: int, rows: int) -> None:
    """Write a file of n_series series of so many rows, sorted by id."""
    random = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=rows)
    wave = 3 * np.sin(2 * np.pi * np.arange(rows) / 7)
    writer, header = None, True
    for begin in range(0, n_series, SERIES_AT_ONCE):
        n = min(SERIES_AT_ONCE, n_series - begin)
        names = np.array([f"series_{begin + k:07d}" for k in range(n)], dtype=object)
        frame = pd.DataFrame(
            {
                "unique_id": names.repeat(rows),
                "ds": np.tile(days, n),
                "y": (random.normal(size=(n, rows)).cumsum(axis=1) + wave).ravel(),
            }
        )
        if path.suffix == ".csv":
            frame.to_csv(path, index=False, mode="w" if header else "a", header=header)
            header = False
            continue
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def measure(path: Path, model: str, level: float | None) -> None:
    """Forecast the file and print what it took, as JSON."""
    from tsar.batch import forecast

    params = {"max_steps": 50, "random_state": 0} if model == "PatchTST" else {}
    begun, marks = time.perf_counter(), []

    def note(done: int, n_series: int) -> None:
        marks.append((time.perf_counter() - begun, done))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report = forecast(
        path,
        model=model,
        params=params,
        horizon=HORIZON,
        level=level,
        out=path.with_name(f"forecast{path.suffix}"),
        on_progress=note,
    )
    found = {
        "series": report.n_series,
        "failed": report.n_failed,
        "seconds": round(report.seconds, 1),
        "until_fitted": round(marks[0][0], 1),
        "imports_mb": round(before),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--format", choices=["csv", "parquet"], default="parquet")
    parser.add_argument("--models", nargs="+", default=["SeasonalNaive", "PatchTST"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--level", type=float)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(Path(given.measure[0]), given.measure[1], given.level)
        return
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"panel.{given.format}"
        write(path, given.series, given.rows)
        size = path.stat().st_size / 1e6
        print(f"{given.series} series x {given.rows} rows, {given.format}, {size:.0f} MB")
        for model in given.models:
            command = [sys.executable, __file__, "--measure", str(path), model]
            command += [] if given.level is None else ["--level", str(given.level)]
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False
            )
            print(model, done.stdout.strip() or done.stderr.strip())


if __name__ == "__main__":
    main()
