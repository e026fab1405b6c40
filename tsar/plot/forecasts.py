"""Figures of forecasts and backtests."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tsar.exceptions import DataError, ParameterError
from tsar.plot.axes import axes_or_new
from tsar.plot.drawing import OBSERVED, draw_line, placeable, shade, widest_first, written
from tsar.plot.reading import (
    axis_of,
    chosen_models,
    names_of,
    one_series,
    one_tested,
    read_forecast,
)

__all__ = ["backtest", "forecast"]


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
        Columns of a long frame; None takes those of the forecast (its ``attrs["reading"]``),
        else finds ``unique_id`` and ``ds``.
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
    columns = names_of(predicted, id_column, time_column)
    steps = read_forecast(owner, predicted, id, variate, columns, history)
    if history is not None:
        target = None if isinstance(history, pd.Series) else steps.name
        known = one_series(owner, history, id, target, columns).iloc[-(rows or 0) :, 0]
        draw_line(ax, known.index, known, color=OBSERVED, label="observed")
    for percentage, low, high in widest_first(steps.intervals):
        shade(ax, steps.times, low, high, percentage, len(steps.intervals), color)
    inside = ~steps.rolled
    draw_line(ax, steps.times[inside], steps.point[inside], color=color, label="forecast")
    if steps.rolled.any():
        # From the last step that was learned, so that the line does not break.
        begin = max(int(steps.rolled.argmax()) - 1, 0)
        after, times = steps.point[begin:], steps.times[begin:]
        draw_line(ax, times, after, color=color, style="--", label="rolled forward")
    ax.set_ylabel(written(steps.name))
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
    history : DataFrame or Series, optional
        What was observed before: the data of the backtest, or a Series with a time index.
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
    if history is not None and not isinstance(history, pd.DataFrame | pd.Series):
        raise DataError(
            f"{owner}: history must be a DataFrame or Series, got {type(history).__name__}"
        )
    known, columns = getattr(tested, "attrs", {}).get("reading", {}), names_of(tested)
    like = axis_of(history, known.get("target"), columns)
    rows = one_tested(owner, tested, id, variate, like)
    models = chosen_models(owner, rows, model)
    truth = rows.drop_duplicates("time").set_index("time")["y"].sort_index()
    if history is not None:
        if isinstance(history, pd.DataFrame):
            target = rows["variate"].iloc[0] if "variate" in rows else variate
            target = known.get("target") if target is None else target
            history = one_series(owner, history, id, target, columns).iloc[:, 0]
        before = history.set_axis(placeable(history.index))
        truth = pd.concat([before[~before.index.isin(truth.index)], truth]).sort_index()
    draw_line(ax, truth.index, truth, color=OBSERVED, label="observed")
    for place, (name, found) in enumerate(models.items()):
        label: str | None = written(name)
        for _, window in rows.groupby("cutoff", sort=True):
            color, times = f"C{place}", pd.Index(window["time"])
            chosen = rows.index.get_indexer(window.index)
            if len(models) == 1:
                for percentage, low, high in widest_first(found.intervals):
                    shown = percentage if label else None
                    count = len(found.intervals)
                    shade(ax, times, low[chosen], high[chosen], shown, count, color)
            # A window of one step is a point.
            marker = "o" if len(window) == 1 else None
            draw_line(ax, times, found.point[chosen], color=color, label=label, marker=marker)
            label = None
    ax.legend()
    return ax
