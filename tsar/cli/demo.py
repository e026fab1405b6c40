"""The demonstration behind ``tsar demo``: a real series, three models, an honest end.

Monthly sea temperatures off Peru. The last ten years are held out; each model is fitted
once on what came before, and forecasts twelve months from every month of those years.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsar import plot
from tsar.data.datasets import load_card, load_dataset
from tsar.data.tables import check_writable, write_table
from tsar.evaluation.backtesting import backtest
from tsar.evaluation.metrics import mae, mase, rmse
from tsar.exceptions import MissingExtraError
from tsar.forecasting import NLinear, PatchTST, SeasonalNaive
from tsar.forecasting.base import Forecaster
from tsar.plot.axes import axes_or_new

__all__ = ["run_demo"]

DATASET = "elnino"
HORIZON = SEASON = 12
HELD_OUT = 120
# Eight years of context, a year per patch.
CONTEXT: dict[str, Any] = {"context_length": 96}
PATCHES: dict[str, Any] = {"patch_length": 12, "stride": 6}
TRAINING: dict[str, Any] = {"random_state": 0, "device": "cpu"}


def run_demo(folder: Path, say: Callable[[str], Any] = print) -> pd.DataFrame:
    """Compare PatchTST with two baselines on a bundled data set, and forecast with it.

    Writes ``forecast.csv`` and, where matplotlib is installed, ``forecast.png``.

    Parameters
    ----------
    folder : pathlib.Path
        Where to write; made if need be.
    say : callable
        What each line of the report is given to.

    Returns
    -------
    pandas.DataFrame
        MASE, MAE and RMSE by model.

    Raises
    ------
    DataError
        The folder cannot be written to; found out before any training.
    """
    check_writable(folder / "forecast.csv")
    card, frame = load_card(DATASET), load_dataset(DATASET)
    say(f"{card.title}: {len(frame)} months, {frame.index[0]:%Y-%m} to {frame.index[-1]:%Y-%m}")
    say(f"Held out: the last {HELD_OUT} months, forecast {HORIZON} months ahead from each month")
    models: dict[str, Forecaster] = {
        "PatchTST": PatchTST(horizon=HORIZON, **CONTEXT, **PATCHES, **TRAINING),
        "NLinear": NLinear(horizon=HORIZON, **CONTEXT, **TRAINING),
        "SeasonalNaive": SeasonalNaive(horizon=HORIZON, season_length=SEASON),
    }
    scores = pd.DataFrame(
        {name: _score(model, frame) for name, model in models.items()}
    ).T.rename_axis("model")
    say("")
    say(scores.to_string(float_format="{:.3f}".format))
    forecast = models["PatchTST"].predict(df=frame)
    say(f"\nPatchTST's forecast of the {HORIZON} months after the data:")
    say(forecast.head().to_string(float_format="{:.2f}".format) + "\n...")
    path = folder / "forecast.csv"
    write_table(forecast.rename_axis("month").reset_index(), path)
    say(f"\nWrote {path}")
    _plot(models["PatchTST"], frame, forecast, folder / "forecast.png", say)
    return scores


def _score(model: Forecaster, frame: pd.DataFrame) -> dict[str, float]:
    """Fit on what precedes the held-out end; measure every window within it."""
    history = frame.iloc[:-HELD_OUT]
    started = time.perf_counter()
    model.fit(history)
    seconds = time.perf_counter() - started
    cutoffs = np.arange(len(history), len(frame) - HORIZON + 1)
    truth = frame.to_numpy()[cutoffs[:, None] + np.arange(HORIZON)].ravel()
    forecast = model.forecast_windows(frame, cutoffs, HORIZON).ravel()
    return {
        "MASE": mase(truth, forecast, history.to_numpy().ravel(), SEASON),
        "MAE": mae(truth, forecast),
        "RMSE": rmse(truth, forecast),
        "seconds to fit": seconds,
    }


def _plot(
    model: Forecaster,
    frame: pd.DataFrame,
    forecast: pd.DataFrame,
    path: Path,
    say: Callable[[str], Any],
) -> None:
    """Draw the held-out years with the forecast of each, made at its beginning."""
    try:
        ax = axes_or_new("tsar demo", None, size=(10, 4))
    except MissingExtraError:
        say("No plot: it needs matplotlib, pip install 'tsar[plot]'")
        return
    (name,) = frame.columns
    years = backtest(model, frame, windows=HELD_OUT // HORIZON)
    before = frame.iloc[-HELD_OUT - HORIZON : -HELD_OUT]
    plot.backtest(years, history=before[name], ax=ax)
    plot.forecast(forecast, color="C3", ax=ax)
    ax.set_title(f"{type(model).__name__} on {DATASET}: a year ahead, and the year to come")
    ax.set_ylabel("degrees Celsius")
    ax.figure.savefig(path, dpi=120)
    say(f"Wrote {path}")
