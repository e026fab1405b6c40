"""How long a forecast without a fit takes.

    OMP_NUM_THREADS=1 python tests/benchmarks/zero_shot.py [--series 10000] [--wide]

forecasts random walks of 120 days, 24 steps on, by ``tsar.load_pretrained("tiny")``; ``--wide`` has
a column for each series in the place of rows with ids. Seconds are those of the processor, the
least of three calls.
"""

import argparse
import time

import numpy as np
import pandas as pd

import tsar

ROWS, HORIZON = 120, 24


def walks(n_series: int, wide: bool) -> pd.DataFrame:
    """Return random walks over days."""
    days = pd.date_range("2024-01-01", periods=ROWS)
    values = np.random.default_rng(0).normal(size=(n_series, ROWS)).cumsum(axis=1)
    if wide:
        return pd.DataFrame(values.T, index=days, columns=[f"s{n}" for n in range(n_series)])
    ids = np.repeat(np.arange(n_series), ROWS)
    return pd.DataFrame({"unique_id": ids, "ds": np.tile(days, n_series), "y": values.reshape(-1)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--wide", action="store_true")
    options = parser.parse_args()
    model, frame = tsar.load_pretrained("tiny"), walks(options.series, options.wide)
    model.predict(HORIZON, df=walks(10, options.wide))
    seconds = []
    for _ in range(3):
        begun = time.process_time()
        model.predict(HORIZON, df=frame)
        seconds.append(time.process_time() - begun)
    print(f"{options.series} series: {min(seconds):.2f} s")


if __name__ == "__main__":
    main()
