"""Compare every forecaster on a frame of seven variates, at small settings.

    python tests/benchmarks/all_models.py

Printed are the leaderboard of a backtest, with the seconds of each, and those that failed.
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd

from tsar.checks import small_forecaster
from tsar.evaluation import compare
from tsar.forecasting.registry import forecaster_class, forecaster_names


def frame(n_rows: int) -> pd.DataFrame:
    """Return seven columns of hours: a day, a trend, steps that wander, and noise."""
    rng = np.random.default_rng(0)
    steps = np.arange(n_rows)[:, None]
    day = np.sin(2 * np.pi * (steps / 24 + rng.random(7)))
    wandering = rng.normal(size=(n_rows, 7)).cumsum(axis=0) * 0.05
    values = 10 + 3 * day + 0.002 * steps + wandering + 0.3 * rng.normal(size=(n_rows, 7))
    times = pd.date_range("2024-01-01", periods=n_rows, freq="h")
    return pd.DataFrame(values, index=times, columns=list("abcdefg"))


def main() -> None:
    """Print the leaderboard."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--horizon", type=int, default=12)
    parser.add_argument("--windows", type=int, default=5)
    options = parser.parse_args()
    settings = {"context_length": 48, "horizon": options.horizon, "season_length": 24, "n_jobs": 1}
    models = {}
    for name in forecaster_names():
        cls = forecaster_class(name)
        taken = {key: value for key, value in settings.items() if key in cls().get_params()}
        models[name] = small_forecaster(cls, **taken)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        board = compare(models, frame(options.rows), windows=options.windows, verbose=1)
    print(board.frame.to_string())
    print(f"{len(models)} models in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
