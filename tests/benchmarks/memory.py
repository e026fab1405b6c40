"""Peak memory that fitting one long series adds.

Each fit runs in a process of its own: memory before the fit is subtracted from its peak.
What the training steps themselves need does not depend on the length, so it is measured
on a short series and shown apart. It differs from run to run, so figures are medians.

    python tests/benchmarks/memory.py
"""

import argparse
import resource
import statistics
import subprocess
import sys

import numpy as np
import pandas as pd

SHORT = 4_000


def added_by_fit(rows: int) -> float:
    """Fit one series and return the bytes that the fit added to peak memory."""
    import tsar

    stamps = pd.date_range("2000-01-01", periods=rows, freq="min")
    series = pd.Series(np.random.default_rng(0).normal(size=rows), index=stamps)
    model = tsar.PatchTST(
        context_length=512, horizon=96, max_steps=20, early_stopping=2000, random_state=0
    )
    before = _resident()
    model.fit(series)
    return _peak() - before


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _resident() -> float:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * float(resource.getpagesize())


def main() -> None:
    """Run both fits in processes of their own and print what they added."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--single", type=int, help="fit one series of so many rows here")
    options = parser.parse_args()
    if options.single:
        print(added_by_fit(options.single))
        return
    added = {}
    for rows in (SHORT, options.rows):
        command = [sys.executable, __file__, "--single", str(rows)]
        added[rows] = statistics.median(
            float(subprocess.check_output(command, text=True)) for _ in range(options.repeats)
        )
    raw = options.rows * 8
    growth = added[options.rows] - added[SHORT]
    print(f"raw array                      {raw / 1e6:8.1f} MB  ({options.rows} float64 values)")
    print(f"added by a fit on {SHORT} rows   {added[SHORT] / 1e6:8.1f} MB  (steps, libraries)")
    print(f"added by a fit on all rows     {added[options.rows] / 1e6:8.1f} MB")
    print(f"growth with the length         {growth / 1e6:8.1f} MB  = {growth / raw:.2f} x raw")


if __name__ == "__main__":
    main()
