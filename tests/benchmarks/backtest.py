"""What a backtest of 500 windows costs beside predicting 500 series of the same context.

python tests/benchmarks/backtest.py [rounds]
"""

import sys
import time

import numpy as np
import pandas as pd
from sklearn.base import clone

import tsar
from tsar.evaluation import backtest

WINDOWS, CONTEXT, HORIZON = 500, 96, 24


def main() -> None:
    """Time both by turns and print the ratio of their medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    rng = np.random.default_rng(0)
    n_rows = 2000 + WINDOWS + HORIZON
    index = pd.date_range("2020-01-01", periods=n_rows, freq="h")
    series = pd.Series(np.sin(np.arange(n_rows) / 4) + rng.normal(0, 0.1, n_rows), index=index)
    panel = pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(WINDOWS), CONTEXT),
            "ds": np.tile(index[:CONTEXT], WINDOWS),
            "y": np.concatenate([series.to_numpy()[k : k + CONTEXT] for k in range(WINDOWS)]),
        }
    )
    print("model          500 series  500 windows  ratio")
    for name in ("NLinear", "PatchTST", "iTransformer"):
        model = getattr(tsar, name)(
            context_length=CONTEXT, horizon=HORIZON, max_steps=5, max_epochs=1, random_state=0
        )
        one = pd.DataFrame({"unique_id": -1, "ds": index, "y": series.to_numpy()})[:2000]
        other = clone(model).fit(one)
        model.fit(series[:2000])
        jobs = {
            "predict 500 series": lambda model=other: model.predict(df=panel),
            "backtest 500 windows": lambda model=model: backtest(
                model, series, windows=WINDOWS, step=1
            ),
        }
        taken: dict[str, list[float]] = {job: [] for job in jobs}
        for turn in range(rounds + 1):
            for job, call in jobs.items():
                begun = time.perf_counter()
                call()
                if turn:
                    taken[job].append(time.perf_counter() - begun)
        predict, tested = (np.median(seconds) for seconds in taken.values())
        print(f"{name:14s} {1e3 * predict:7.0f} ms {1e3 * tested:9.0f} ms  {tested / predict:.2f}")


if __name__ == "__main__":
    main()
