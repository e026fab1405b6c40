"""Figures of forecasts, backtests, errors and training.

Every function draws on the axes it is given, or on those of a new figure, and returns them.
Nothing is shown and nothing is saved: ``ax.figure.savefig("forecast.png")`` does that, and a
notebook shows a figure that is the last value of a cell.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tsar.axes import axes_or_new, grid_or_new
from tsar.data.frames import read_rows
from tsar.evaluation.figures import leaderboard
from tsar.evaluation.measuring import BESIDE, Forecasts, measure
from tsar.exceptions import DataError, ParameterError
from tsar.params import check_choice

__all__ = [
    "backtest",
    "error_by_step",
    "forecast",
    "leaderboard",
    "learning_curve",
    "reliability",
    "residuals",
]

OBSERVED = "0.55"
# The narrowest interval is this dark, wider ones are lighter.
DARKEST = 0.35
# A bell curve of 95 %.
WIDTH = 1.96
NAMES_SHOWN = 5


def forecast(
    predicted: Any,
    history: Any = None,
    *,
    id: Any = None,
    variate: Any = None,
    rows: int | None = None,
    id_column: Any = None,
    time_column: Any = None,
    color: str = "C0",
    ax: Any = None,
) -> Any:
    """Draw a forecast with its intervals, after the history it continues.

    Parameters
    ----------
    predicted : DataFrame or Series
        What ``predict`` returned. Columns of intervals (``level=``) and pairs of quantiles
        are shaded, steps beyond the fitted horizon are dashed.
    history : DataFrame or Series, optional
        The data, in the same form; it may go on over the forecast.
    id : label, optional
        Which series; needed where there are several.
    variate : label, optional
        Which column; needed where there are several.
    rows : int, optional
        How many of the last rows of the history to draw; None draws all.
    id_column, time_column : label, optional
        Columns of a long frame; None finds ``unique_id`` and ``ds``.
    color : str, default "C0"
        Of the forecast, as matplotlib names colours.
    ax : matplotlib Axes, optional
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError, DataError
        There is no such series or column, or several and none is named.

    Examples
    --------
    >>> import tsar
    >>> from tsar import plot
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.SeasonalNaive(horizon=12).fit(sea)
    >>> ax = plot.forecast(model.predict(), sea, rows=48)
    >>> [line.get_label() for line in ax.get_lines()]
    ['observed', 'forecast']
    """
    owner = "plot.forecast"
    ax = axes_or_new(owner, ax)
    if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
        raise ParameterError(f"{owner}: rows must be an integer in [1, inf), got {rows!r}")
    columns = {"id_column": id_column, "time_column": time_column}
    steps = _read_forecast(owner, predicted, id, variate, columns)
    if history is not None:
        target = None if isinstance(history, pd.Series) else steps.name
        known = _one_series(owner, history, id, target, columns).iloc[-(rows or 0) :, 0]
        _line(ax, known.index, known, color=OBSERVED, label="observed")
    for percentage, low, high in _widest_first(steps.intervals):
        _shade(ax, steps.times, low, high, percentage, len(steps.intervals), color)
    inside = ~steps.rolled
    _line(ax, steps.times[inside], steps.point[inside], color=color, label="forecast")
    if steps.rolled.any():
        # From the last step that was learned, so that the line does not break.
        begin = max(int(steps.rolled.argmax()) - 1, 0)
        after, times = steps.point[begin:], steps.times[begin:]
        _line(ax, times, after, color=color, style="--", label="rolled forward")
    ax.set_ylabel(str(steps.name))
    ax.legend()
    return ax


def backtest(
    tested: pd.DataFrame,
    *,
    model: str | Sequence[str] | None = None,
    id: Any = None,
    variate: Any = None,
    history: Any = None,
    ax: Any = None,
) -> Any:
    """Draw the truth, and the forecast from every cutoff.

    Parameters
    ----------
    tested : DataFrame
        What :func:`tsar.evaluation.backtest` returned.
    model : str or sequence of str, optional
        Which models; None draws all. The intervals of a single one are shaded.
    id, variate : label, optional
        Which series; needed where there are several.
    history : Series, optional
        What was observed before, with a time index.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError, DataError
        There is no such series or model, or several series and none is named.
    """
    owner = "plot.backtest"
    ax = axes_or_new(owner, ax)
    rows = _one_tested(owner, tested, id, variate)
    models = _models(owner, rows, model)
    truth = rows.drop_duplicates("time").set_index("time")["y"].sort_index()
    if history is not None:
        if not isinstance(history, pd.Series):
            raise DataError(f"{owner}: history must be a Series, got {type(history).__name__}")
        truth = pd.concat([history[~history.index.isin(truth.index)], truth]).sort_index()
    _line(ax, truth.index, truth, color=OBSERVED, label="observed")
    for place, (name, found) in enumerate(models.items()):
        label: str | None = name
        for _, window in rows.groupby("cutoff", sort=True):
            color, times = f"C{place}", pd.Index(window["time"])
            chosen = rows.index.get_indexer(window.index)
            if len(models) == 1:
                for percentage, low, high in _widest_first(found.intervals):
                    shown = percentage if label else None
                    count = len(found.intervals)
                    _shade(ax, times, low[chosen], high[chosen], shown, count, color)
            # A window of one step is a point.
            marker = "o" if len(window) == 1 else None
            _line(ax, times, found.point[chosen], color=color, label=label, marker=marker)
            label = None
    ax.legend()
    return ax


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
            ax.plot(rows["step"], rows[column], marker="o", markersize=3, label=label)
    ax.set_xlabel("step")
    ax.set_ylabel(metric)
    ax.legend()
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
    models = _models(owner, tested, model)
    truth = tested["y"].to_numpy(np.float64)
    ax.plot([0, 1], [0, 1], color=OBSERVED, linewidth=0.8, label="reliable")
    drawn = False
    for place, (name, found) in enumerate(models.items()):
        quantiles = dict(zip(found.levels.tolist(), found.quantiles.T, strict=True))
        for percentage, (low, high) in found.intervals.items():
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
        ax.plot(levels, shares, "o-", color=f"C{place}", label=name)
    if not drawn:
        raise DataError(
            f"{owner}: the backtest holds no quantiles; ask for some, backtest(..., level=[50, 80])"
        )
    ax.set_xlabel("level of the quantile")
    ax.set_ylabel("share of the truth below it")
    ax.set_aspect("equal")
    ax.legend()
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
    rows = _one_tested(owner, tested, id, variate)
    models = _models(owner, rows, model)
    if len(models) > 1:
        raise ParameterError(f"{owner}: model must be one of {_listed(models)}, got {model!r}")
    ((name, found),) = models.items()
    left = pd.Series(rows["y"].to_numpy(np.float64) - found.point, index=pd.Index(rows["time"]))
    left = left[(rows["step"] == step).to_numpy()].dropna().sort_index()
    if len(left) < 3:
        raise DataError(
            f"{owner}: step={step} of {name} has {len(left)} residuals, 3 are needed; "
            f"backtest with more windows"
        )
    _draw_residuals(axes, left)
    axes[0, 0].figure.suptitle(f"residuals of {name}, step {step}")
    return axes


def _draw_residuals(axes: Any, left: pd.Series) -> None:
    from scipy import stats
    from statsmodels.tsa.stattools import acf

    values = left.to_numpy()
    (over_time, histogram), (correlation, quantiles) = axes
    over_time.axhline(0.0, color=OBSERVED, linewidth=0.8)
    _line(over_time, left.index, values, color="C0", label="residual")
    over_time.set_title("over time")
    histogram.hist(values, bins="auto", density=True, color="C0", alpha=0.5)
    mean, deviation = values.mean(), values.std()
    if deviation > 0:
        grid = np.linspace(values.min(), values.max(), 200)
        histogram.plot(grid, stats.norm.pdf(grid, mean, deviation), color="C1", label="normal")
    histogram.set_title("histogram")
    n_lags = min(len(values) - 1, max(10, len(values) // 4), 40)
    if deviation > 0:
        found = acf(values, nlags=n_lags, fft=True)[1:]
        lags = np.arange(1, len(found) + 1)
        correlation.vlines(lags, 0.0, found, color="C0")
        correlation.plot(lags, found, "o", color="C0", markersize=3, label="autocorrelation")
    band = WIDTH / np.sqrt(len(values))
    correlation.axhspan(-band, band, color="C0", alpha=0.15)
    correlation.axhline(0.0, color=OBSERVED, linewidth=0.8)
    correlation.set_title("autocorrelation by lag")
    (expected, ordered), (slope, start, _) = stats.probplot(values)
    quantiles.plot(expected, ordered, "o", color="C0", markersize=3, label="residual")
    quantiles.plot(expected, start + slope * expected, color="C1", label="normal")
    quantiles.set_title("quantiles against normal ones")


def learning_curve(model: Any, *, ax: Any = None) -> Any:
    """Draw the training and validation loss by epoch, and the epoch whose weights are kept.

    Parameters
    ----------
    model : forecaster
        Fitted, one that is trained.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError
        The model has no ``history_``.
    """
    owner = "plot.learning_curve"
    ax = axes_or_new(owner, ax)
    history = getattr(model, "history_", None)
    if not history:
        raise ParameterError(
            f"{owner}: model must be a fitted forecaster that is trained, got "
            f"{type(model).__name__} without history_"
        )
    names = {"train_loss": "training", "val_loss": "validation"}
    for place, (key, label) in enumerate(names.items()):
        losses = np.asarray(history.get(key, ()), dtype=np.float64)
        if len(losses) and not np.isnan(losses).all():
            epochs = np.arange(1, len(losses) + 1)
            ax.plot(epochs, losses, marker="o", markersize=3, color=f"C{place}", label=label)
    best = model.best_epoch_
    ax.axvline(best, color=OBSERVED, linewidth=0.8, zorder=0, label=f"kept: epoch {best}")
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss, in standardised units")
    ax.legend()
    return ax


# ------------------------------------------------------------------- reading


class _Forecast(NamedTuple):
    """The forecast of one variate of one series, and whether steps were rolled forward."""

    name: Any
    times: pd.Index
    point: np.ndarray
    intervals: dict[float, tuple[np.ndarray, np.ndarray]]
    rolled: np.ndarray


def _read_forecast(
    owner: str, predicted: Any, id: Any, variate: Any, columns: dict[str, Any]
) -> _Forecast:
    """Read what ``predict`` returned."""
    if isinstance(predicted, pd.Series):
        steps = _one_series(owner, predicted, id, None, columns).iloc[:, 0]
        after = predicted.attrs.get("extrapolated_after")
        rolled = np.arange(len(steps)) >= (len(steps) if after is None else after)
        name = "value" if predicted.name is None else predicted.name
        return _Forecast(name, steps.index, steps.to_numpy(), {}, rolled)
    if not isinstance(predicted, pd.DataFrame):
        raise DataError(
            f"{owner}: predicted must be what predict returned, got {type(predicted).__name__}"
        )
    others = {columns["id_column"], columns["time_column"], "unique_id", "ds", "extrapolated"}
    held = [name for name in predicted.columns if name not in others]
    name = _only(owner, "variate", [one for one in held if not _is_beside(one, held)], variate)
    beside = {
        label: f"point_{str(label).removeprefix(f'{name}_')}"
        for label in held
        if (found := BESIDE.fullmatch(str(label))) and found[1] == str(name)
    }
    whole = _one_series(owner, predicted, id, [name, *beside], columns)
    # Under a name that no column of a backtest has.
    forecasts = Forecasts.of(whole.rename(columns={name: "point", **beside}))["point"]
    rolled = np.zeros(len(whole), dtype=bool)
    if "extrapolated" in predicted.columns:
        # The same steps of every series.
        rolled = predicted["extrapolated"].to_numpy(dtype=bool)[: len(whole)]
    return _Forecast(name, whole.index, forecasts.point, forecasts.intervals, rolled)


def _is_beside(name: Any, held: list[Any]) -> bool:
    """Whether a column is a quantile or the end of an interval of another one."""
    found = BESIDE.fullmatch(str(name))
    return found is not None and found[1] in map(str, held)


def _one_series(
    owner: str, frame: Any, id: Any, target: Any, columns: dict[str, Any]
) -> pd.DataFrame:
    """Return the rows of one series by time."""
    rows = read_rows(frame, target=target, **columns)
    if rows.form.squeeze and rows.form.kind == "wide":
        chosen = rows.ids[0]
    else:
        chosen = _only(owner, "id", list(rows.ids), id)
    inside = rows.codes == rows.ids.get_loc(chosen)
    content = pd.DataFrame(rows.values[inside], columns=rows.variates)
    return content.set_index(_times(rows.times[inside])).sort_index()


def _times(times: pd.Index) -> pd.Index:
    """Return times as matplotlib can place them."""
    if isinstance(times, pd.PeriodIndex):
        return times.to_timestamp()
    if times.dtype.kind in "iufM" or isinstance(times, pd.DatetimeIndex):
        return times
    return pd.DatetimeIndex(pd.to_datetime(times))


def _one_tested(owner: str, tested: pd.DataFrame, id: Any, variate: Any) -> pd.DataFrame:
    """Return the rows of a backtest that belong to one variate of one series."""
    lacking = {"id", "cutoff", "time", "step", "y"} - set(getattr(tested, "columns", ()))
    if lacking:
        raise DataError(
            f"{owner}: tested must be a frame of tsar.evaluation.backtest, it has no column "
            f"{sorted(lacking)[0]!r}"
        )
    rows = tested[(tested["id"] == _only(owner, "id", list(tested["id"].unique()), id))]
    if "variate" in rows:
        one = _only(owner, "variate", list(rows["variate"].unique()), variate)
        rows = rows[rows["variate"] == one]
    return rows.reset_index(drop=True)


def _models(owner: str, rows: pd.DataFrame, model: Any) -> dict[str, Forecasts]:
    found = Forecasts.of(rows)
    if model is None:
        return found
    names = [model] if isinstance(model, str) else list(model)
    for name in names:
        check_choice(owner, "model", name, found)
    return {name: found[name] for name in names}


def _only(owner: str, word: str, held: list[Any], asked: Any) -> Any:
    """Return what is asked for, or the only one there is."""
    if asked is None and len(held) == 1:
        return held[0]
    if asked is None or asked not in held:
        raise ParameterError(f"{owner}: {word} must be one of {_listed(held)}, got {asked!r}")
    return asked


def _listed(names: Any) -> str:
    shown = [repr(name) for name in names]
    return ", ".join([*shown[:NAMES_SHOWN], "..."] if len(shown) > NAMES_SHOWN else shown)


# ------------------------------------------------------------------- drawing


def _widest_first(
    intervals: dict[float, tuple[np.ndarray, np.ndarray]],
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    for percentage in sorted(intervals, reverse=True):
        yield percentage, *intervals[percentage]


def _shade(
    ax: Any,
    times: pd.Index,
    low: np.ndarray,
    high: np.ndarray,
    percentage: float | None,
    count: int,
    color: str,
) -> None:
    label = None if percentage is None else f"{percentage:g} %"
    x = _positions(ax, times)
    ax.fill_between(x, low, high, color=color, alpha=DARKEST / count, linewidth=0, label=label)


def _line(
    ax: Any,
    times: pd.Index,
    values: Any,
    *,
    color: str,
    label: str | None,
    style: str = "-",
    marker: str | None = None,
) -> None:
    x = _positions(ax, times)
    label = "_nolegend_" if label is None else label
    ax.plot(x, np.asarray(values), style, color=color, label=label, marker=marker, markersize=3)


def _positions(ax: Any, times: pd.Index) -> np.ndarray:
    """Return where to draw; times of a zone are labelled as its clocks show them."""
    times = _times(times)
    if isinstance(times, pd.DatetimeIndex) and times.tz is not None:
        ax.xaxis.axis_date(times.tz)
        return times.tz_convert("UTC").tz_localize(None).to_numpy()
    return times.to_numpy()
