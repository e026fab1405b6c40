"""Time fits, predictions and backtests here and in another checkout of tsar, side by side.

    git worktree add ../before REVISION
    python tests/benchmarks/other_checkout.py ../before

Both sides do the same jobs through the public interface, in the same environment; the two processes
take turns, and the ratio (the other one's time divided by ours) is the median over turns: above 1,
this checkout is faster.
"""

import argparse
import atexit
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from side_by_side import ROOT, answer, take_turns

N_ROWS = 4000


def _wide() -> pd.DataFrame:
    """Return hourly noise of seven variates."""
    index = pd.date_range("2020-01-01", periods=N_ROWS, freq="h")
    return pd.DataFrame(np.random.default_rng(0).normal(size=(N_ROWS, 7)), index=index)


def _long(n_series: int, rows: int) -> pd.DataFrame:
    """Return daily noise of many series."""
    days = pd.date_range("2020-01-01", periods=rows)
    draw = np.random.default_rng(1).normal(size=n_series * rows)
    ids = np.repeat([f"s{number:05d}" for number in range(n_series)], rows)
    return pd.DataFrame({"unique_id": ids, "ds": np.tile(days, n_series), "y": draw})


def fit_patchtst() -> Callable[[], object]:
    """Make 8 steps of the official setting of PatchTST on ETTh1."""
    import tsar

    sizes = {"d_model": 16, "n_heads": 4, "d_ff": 128, "batch_size": 128, "context_length": 336}
    model = tsar.PatchTST(**sizes, horizon=96, max_steps=8, early_stopping=False, random_state=0)
    wide = _wide()
    return lambda: model.fit(wide)


def fit_itransformer() -> Callable[[], object]:
    """Make 60 steps of iTransformer."""
    import tsar

    model = tsar.iTransformer(
        context_length=96, horizon=96, max_steps=60, early_stopping=False, random_state=0
    )
    wide = _wide()
    return lambda: model.fit(wide)


def fit_nlinear() -> Callable[[], object]:
    """Make 400 steps of NLinear."""
    import tsar

    model = tsar.NLinear(
        context_length=336, horizon=96, max_steps=400, early_stopping=False, random_state=0
    )
    wide = _wide()
    return lambda: model.fit(wide)


def predict_patchtst() -> Callable[[], object]:
    """Forecast 300 series, of which each brings its own scale."""
    import tsar

    model = tsar.PatchTST(context_length=96, horizon=24, max_steps=2, random_state=0)
    long = _long(300, 150)
    model.fit(long)
    new = long.assign(unique_id="n" + long["unique_id"])
    return lambda: model.predict(df=new)


def predict_one() -> Callable[[], object]:
    """Forecast one series, a hundred times."""
    import tsar

    model = tsar.NLinear(context_length=96, horizon=24, max_steps=2, random_state=0)
    wide = _wide()[[0]]
    model.fit(wide)
    return lambda: [model.predict() for _ in range(100)]


def predict_naive() -> Callable[[], object]:
    """Forecast 5000 series with the seasonal naive."""
    import tsar

    long = _long(5000, 60)
    model = tsar.SeasonalNaive(horizon=14).fit(long)
    return lambda: model.predict(df=long)


def backtest_network() -> Callable[[], object]:
    """Forecast 500 windows of seven variates."""
    import tsar
    from tsar.evaluation import backtest

    wide = _wide()
    model = tsar.NLinear(context_length=96, horizon=24, max_steps=2, random_state=0)
    model.fit(wide[:2000])
    return lambda: backtest(model, wide, windows=500, step=3)


def backtest_series() -> Callable[[], object]:
    """Forecast 5 windows of 1000 series that were not fitted, with intervals."""
    import tsar
    from tsar.evaluation import backtest

    long = _long(1000, 120)
    model = tsar.SeasonalNaive(horizon=7).fit(long).calibrate(long)
    new = long.assign(unique_id="n" + long["unique_id"])
    return lambda: backtest(model, new, windows=5, level=80)


def fit_long() -> Callable[[], object]:
    """Read and check a long frame of a million rows, and fit the naive on it."""
    import tsar

    long = _long(5000, 200)
    return lambda: tsar.Naive(horizon=7).fit(long)


def fit_autoreg() -> Callable[[], object]:
    """Fit and forecast 300 series by AutoReg."""
    import tsar

    long = _long(300, 120)
    return lambda: tsar.AutoReg(horizon=7, lags=14).fit(long).predict()


def _batch(ending: str, level: float | None = None) -> Callable[[], object]:
    """Return the forecasts of a file of 4000 series of 100 rows, by the seasonal naive."""
    from tsar.batch import forecast

    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    source, out = folder / f"panel{ending}", folder / f"forecast{ending}"
    long = _long(4000, 100)
    long.to_csv(source, index=False) if ending == ".csv" else long.to_parquet(source, index=False)
    return lambda: forecast(source, model="SeasonalNaive", horizon=14, level=level, out=out)


def batch_csv() -> Callable[[], object]:
    """Forecast a CSV of 4000 series."""
    return _batch(".csv")


def batch_parquet() -> Callable[[], object]:
    """Forecast a Parquet file of 4000 series, with intervals."""
    return _batch(".parquet", 80)


JOBS = {
    job.__name__: job
    for job in (
        fit_patchtst,
        fit_itransformer,
        fit_nlinear,
        predict_patchtst,
        predict_one,
        predict_naive,
        backtest_network,
        backtest_series,
        fit_long,
        fit_autoreg,
        batch_csv,
        batch_parquet,
    )
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("other", help="folder of the other checkout")
    parser.add_argument("--job", choices=JOBS, help="only this one")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        warnings.simplefilter("ignore")
        answer(JOBS[arguments.job]())
    else:
        for name in [arguments.job] if arguments.job else JOBS:
            command = [sys.executable, __file__, arguments.other, "--job", name, "--worker"]
            take_turns(
                {"other": (command, Path(arguments.other).resolve()), "this": (command, ROOT)},
                warmup=1,
                repeats=arguments.repeats,
                what=f"{name}: {JOBS[name].__doc__}",
            )
