"""Processor time of reading and checking a long frame of a million rows.

python tests/benchmarks/frames.py [rounds]
"""

import sys
import time
import warnings

import numpy as np
import pandas as pd

from tsar.data.panel import Panel
from tsar.exceptions import DataError

SERIES, ROWS = 1000, 1000


def clean() -> pd.DataFrame:
    """Return hourly series, sorted by id and time."""
    stamps = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(SERIES), ROWS),
            "ds": np.tile(stamps, SERIES),
            "y": np.random.default_rng(0).normal(size=SERIES * ROWS),
        }
    )


def faulty(frame: pd.DataFrame) -> pd.DataFrame:
    """Return it with ten series of each kind of fault that leaves columns what they are."""
    faults = frame.astype({"unique_id": float})
    begins = np.random.default_rng(1).choice(SERIES, size=(7, 10), replace=False) * ROWS
    infinite, unread, twice, slower, shifted, gap, nameless = begins
    faults.loc[infinite + 11, "y"] = np.inf
    faults.loc[unread + 5, "ds"] = pd.NaT
    faults.loc[shifted + 50, "ds"] += pd.Timedelta(minutes=7)
    faults.loc[nameless + 3, "unique_id"] = np.nan
    for begin in slower:
        stamps = pd.date_range("2024-01-01", periods=ROWS, freq="2h")
        faults.loc[begin : begin + ROWS - 1, "ds"] = stamps
    doubled = faults.loc[twice + 7]
    return pd.concat([faults.drop(index=gap + 500), doubled], ignore_index=True)


def read(frame: pd.DataFrame) -> str:
    """Read a frame; return the kinds of faults that were named."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Panel.from_frame(frame)
        except DataError as error:
            return "" if error.faults is None else ", ".join(sorted(set(error.faults["kind"])))
    return "none"


def main() -> None:
    """Print the median for each frame, and which faults were found."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    good = clean()
    bad = faulty(good)
    shuffled = bad.sample(frac=1, random_state=0, ignore_index=True)
    frames = {
        "clean": good,
        "clean, shuffled": good.sample(frac=1, random_state=0, ignore_index=True),
        "clean, text dates": good.assign(ds=good["ds"].astype(str)),
        "faulty": bad,
        "faulty, shuffled": shuffled,
        "faulty, text dates": shuffled.assign(ds=shuffled["ds"].astype(object).astype(str)),
    }
    for name, frame in frames.items():
        found = read(frame)
        taken = []
        for _ in range(rounds):
            begun = time.process_time()
            read(frame)
            taken.append(time.process_time() - begun)
        print(f"{name:20s} {np.median(taken):6.2f} s (least {min(taken):.2f})  faults: {found}")


if __name__ == "__main__":
    main()
