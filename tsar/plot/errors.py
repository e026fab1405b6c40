"""Figures of what backtests missed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.libraries import as_pandas
from tsar.evaluation.measuring import measure
from tsar.exceptions import DataError, ParameterError
from tsar.plot.axes import axes_or_new, grid_or_new
from tsar.plot.drawing import OBSERVED, add_legend, draw_line, written
from tsar.plot.reading import (
    chosen_models,
    listed,
    one_tested,
)

__all__ = ["error_by_step", "reliability", "residuals"]

# A bell curve of 95 %.
WIDTH = 1.96


def error_by_step(
    tested: pd.DataFrame, metric: str = "mae", *, history: Any = None, ax: Any = None
) -> Any:
    """Draw how the error grows with the step, a line for each model.

    Parameters
    ----------
    tested : DataFrame
        What :func:`tsar.evaluation.backtest` returned.
    metric : str
        As :func:`tsar.evaluation.measure` takes it.
    history : DataFrame or Series, optional
        For metrics in units of a series, such as ``"mase"``.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError, DataError
        The metric is not known, or is none of these forecasts.
    """
    ax = axes_or_new("plot.error_by_step", ax)
    table = measure(tested, metric, by="step", history=history)
    for name, rows in table.groupby("model", sort=False):
        # A metric of intervals has a column for each percentage.
        for column in rows.columns.drop(["model", "step"]):
            label = str(name) if column == metric else f"{name}, {column}"
            ax.plot(rows["step"], rows[column], marker="o", markersize=3, label=written(label))
    ax.set_xlabel("step")
    ax.set_ylabel(written(metric))
    add_legend(ax)
    return ax


def reliability(
    tested: pd.DataFrame, *, model: str | Sequence[str] | None = None, ax: Any = None
) -> Any:
    """Draw how often the truth lies below each quantile, over how often it should.

    On the diagonal, quantiles are what they are called. Ends of intervals are quantiles.

    Parameters
    ----------
    tested : DataFrame
        What :func:`tsar.evaluation.backtest` returned with ``quantiles=`` or ``level=``.
    model : str or sequence of str, optional
        Which models; None draws all that have quantiles.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError, DataError
        There is no such model, or none has quantiles.
    """
    owner = "plot.reliability"
    ax = axes_or_new(owner, ax, size=(5, 5))
    tested = as_pandas(tested)
    models = chosen_models(owner, tested, model)
    truth = tested["y"].to_numpy(np.float64)
    ax.plot([0, 1], [0, 1], color=OBSERVED, linewidth=0.8, label="reliable")
    drawn = False
    for place, (name, forecasts) in enumerate(models.items()):
        quantiles = dict(zip(forecasts.levels.tolist(), forecasts.quantiles.T, strict=True))
        for percentage, (low, high) in forecasts.intervals.items():
            tail = round(0.5 - percentage / 200, 9)
            quantiles = {tail: low, round(1 - tail, 9): high} | quantiles
        if not quantiles:
            continue
        drawn = True
        levels = sorted(quantiles)
        shares = []
        for level in levels:
            seen = ~np.isnan(truth + quantiles[level])
            below = truth[seen] <= quantiles[level][seen]
            shares.append(float(below.mean()) if seen.any() else np.nan)
        ax.plot(levels, shares, "o-", color=f"C{place}", label=written(name))
    if not drawn:
        raise DataError(
            f"{owner}: the backtest holds no quantiles; ask for some, backtest(..., level=[50, 80])"
        )
    ax.set_xlabel("level of the quantile")
    ax.set_ylabel("share of the truth below it")
    ax.set_aspect("equal")
    add_legend(ax)
    return ax


def residuals(
    tested: pd.DataFrame,
    *,
    model: str | None = None,
    id: Any = None,
    variate: Any = None,
    step: int = 1,
    axes: Any = None,
) -> Any:
    """Draw what is left of a series when its forecast is taken off, in four ways.

    Over time, as a histogram with the normal curve of the same mean and deviation, the
    autocorrelation with its 95 % band for noise, and quantiles against those of the normal
    curve. What still has a pattern was not forecast.

    Parameters
    ----------
    tested : DataFrame
        What :func:`tsar.evaluation.backtest` returned; ``step=1`` there gives a residual
        for each row.
    model : str, optional
        Which model; needed where there are several.
    id, variate : label, optional
        Which series; needed where there are several.
    step : int
        How many steps ahead.
    axes : sequence of four matplotlib Axes, optional

    Returns
    -------
    array of matplotlib Axes of shape (2, 2)

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError, DataError
        There is no such series, model or step, or fewer than 3 residuals.
    """
    owner = "plot.residuals"
    axes = grid_or_new(owner, axes, (2, 2))
    rows = one_tested(owner, as_pandas(tested), id, variate)
    models = chosen_models(owner, rows, model)
    if len(models) > 1:
        raise ParameterError(f"{owner}: model must be one of {listed(models)}, got {model!r}")
    ((name, forecasts),) = models.items()
    left = pd.Series(rows["y"].to_numpy(np.float64) - forecasts.point, index=pd.Index(rows["time"]))
    left = left[(rows["step"] == step).to_numpy()].dropna().sort_index()
    if len(left) < 3:
        raise DataError(
            f"{owner}: step={step} of {name} has {len(left)} residuals, 3 are needed; "
            f"backtest with more windows"
        )
    _draw_residuals(axes, left)
    axes[0, 0].figure.suptitle(f"residuals of {written(name)}, step {step}")
    return axes


def _draw_residuals(axes: Any, left: pd.Series) -> None:
    from scipy import stats
    from statsmodels.tsa.stattools import acf

    values = left.to_numpy()
    (over_time, histogram), (correlation, quantiles) = axes
    over_time.axhline(0.0, color=OBSERVED, linewidth=0.8)
    draw_line(over_time, left.index, values, color="C0", label="residual")
    over_time.set_title("over time")
    histogram.hist(values, bins="auto", density=True, color="C0", alpha=0.5)
    mean, deviation = values.mean(), values.std()
    if deviation > 0:
        grid = np.linspace(values.min(), values.max(), 200)
        histogram.plot(grid, stats.norm.pdf(grid, mean, deviation), color="C1", label="normal")
    histogram.set_title("histogram")
    n_lags = min(len(values) - 1, max(10, len(values) // 4), 40)
    if deviation > 0:
        correlations = acf(values, nlags=n_lags, fft=True)[1:]
        lags = np.arange(1, len(correlations) + 1)
        correlation.vlines(lags, 0.0, correlations, color="C0")
        correlation.plot(lags, correlations, "o", color="C0", markersize=3, label="autocorrelation")
    band = WIDTH / np.sqrt(len(values))
    correlation.axhspan(-band, band, color="C0", alpha=0.15)
    correlation.axhline(0.0, color=OBSERVED, linewidth=0.8)
    correlation.set_title("autocorrelation by lag")
    (expected, ordered), (slope, start, _) = stats.probplot(values)
    quantiles.plot(expected, ordered, "o", color="C0", markersize=3, label="residual")
    quantiles.plot(expected, start + slope * expected, color="C1", label="normal")
    quantiles.set_title("quantiles against normal ones")
