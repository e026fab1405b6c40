"""Figures of forecasts and backtests."""

import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd

from tsar.data.libraries import as_pandas
from tsar.exceptions import DataError
from tsar.params.constraints import check_count
from tsar.plot.axes import axes_or_new, page, share_times
from tsar.plot.drawing import (
    OBSERVED,
    add_legend,
    add_page_legend,
    draw_line,
    placeable,
    shade,
    written,
)
from tsar.plot.reading import (
    ReadForecast,
    axis_of,
    chosen_models,
    chosen_panels,
    names_of,
    one_series,
    one_tested,
    only_series,
    read_forecast,
)

__all__ = ["backtest", "forecast", "forecasts"]

# Letters of a title that lie above a panel of a page, and not above the next one.
TITLE_WIDTH = 36
# Notes of what is not drawn.
NOTE = {"fontsize": "small", "color": "0.4"}


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
        How many of the last rows of the history to draw; None draws all. What is left out
        is said below the axes.
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
    _check_rows(owner, rows)
    predicted, history = as_pandas(predicted), as_pandas(history)
    columns = names_of(predicted, id_column, time_column)
    steps = read_forecast(owner, predicted, id, variate, columns, history)
    shown = None
    if history is not None:
        past = _read_history(owner, history, id, steps, columns)
        shown = past if rows is None else past.iloc[-rows:]
        if len(shown) < len(past):
            ax.set_xlabel(f"last {len(shown):,} of {len(past):,} rows", loc="left", **NOTE)
    _draw_forecast(ax, steps, shown, color)
    ax.set_ylabel(written(steps.name))
    if steps.id is not None:
        ax.set_title(str(steps.id), loc="left", parse_math=False)
    add_legend(ax)
    return ax


def forecasts(
    df: Any,
    forecast: Any,
    *,
    ids: Any = None,
    variate: Any = None,
    n: int = 12,
    rows: int | None = 100,
    id_column: Any = None,
    time_column: Any = None,
    color: str = "C0",
) -> Any:
    """Draw the forecasts of many series on a page, each after the history it continues.

    There is a panel for each series, and for each column of a wide frame; one legend
    explains all, and a line below says what is left out.

    Parameters
    ----------
    df : DataFrame or Series
        The data that were fitted; they may go on over the forecast.
    forecast : DataFrame or Series
        What ``predict`` returned, in the same form.
    ids : label or sequence of labels, optional
        Which series, in this order; None draws those that come first.
    variate : label or sequence of labels, optional
        Which columns; None draws all.
    n : int, default 12
        How many panels at most.
    rows : int or None, default 100
        How many of the last rows of each history to draw; None draws all.
    id_column, time_column : label, optional
        Columns of a long frame; None takes those of the forecast (its ``attrs["reading"]``),
        else finds ``unique_id`` and ``ds``.
    color : str, default "C0"
        Of the forecasts, as matplotlib names colours.

    Returns
    -------
    array of matplotlib Axes
        One for each panel, on a new figure: ``axes[0].figure``.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError, DataError
        There is no such series or column, or the two frames are in the other order.

    Examples
    --------
    >>> import tsar
    >>> from tsar import plot
    >>> economy = tsar.load_dataset("macrodata")[["realgdp", "unemp", "infl"]]
    >>> model = tsar.Theta(horizon=8).fit(economy)
    >>> axes = plot.forecasts(economy, model.predict(), rows=40)
    >>> [ax.get_title(loc="left") for ax in axes]
    ['realgdp', 'unemp', 'infl']
    """
    owner = "plot.forecasts"
    _check_rows(owner, rows)
    check_count(owner, "n", n)
    df, forecast = as_pandas(df), as_pandas(forecast)
    columns = names_of(forecast, id_column, time_column)
    panels, n_there = chosen_panels(owner, forecast, ids, variate, n, columns)
    ids, names = (list(dict.fromkeys(labels)) for labels in zip(*panels, strict=True))
    # Every panel reads its series anew: of thousands, only those that are drawn.
    forecast = only_series(owner, forecast, ids, names, columns)
    df = only_series(owner, df, ids, names, columns)
    axes = page(owner, len(panels))
    spans, is_cut = set(), False
    for ax, (id, name) in zip(axes, panels, strict=True):
        steps = read_forecast(owner, forecast, id, name, columns, df)
        past = _read_history(owner, df, id, steps, columns)
        shown = past if rows is None else past.iloc[-rows:]
        _draw_forecast(ax, steps, shown, color)
        spans.add((shown.index[0], steps.times[-1]))
        is_cut |= len(shown) < len(past)
        labels = [] if steps.id is None else [str(steps.id)]
        labels += [str(steps.name)] if len(names) > 1 or not labels else []
        title = ", ".join(labels)
        if len(title) > TITLE_WIDTH:
            title = textwrap.fill(title, TITLE_WIDTH)
        ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
    if len(spans) == 1:
        share_times(axes)
    if len(names) == 1 and steps.id is not None:
        axes[0].figure.supylabel(written(steps.name), fontsize="medium")
    add_page_legend(axes)
    cut = [f"{len(panels):,} of {n_there:,} series"] if len(panels) < n_there else []
    cut += [f"the last {rows:,} observed rows of each"] if is_cut else []
    axes[0].figure.supxlabel("; ".join(cut), **NOTE)
    return axes


def _check_rows(owner: str, rows: Any) -> None:
    if rows is not None:
        check_count(owner, "rows", rows)


def _read_history(
    owner: str, history: Any, id: Any, steps: ReadForecast, columns: dict[str, Any]
) -> pd.Series:
    target = None if isinstance(history, pd.Series) else steps.name
    past = one_series(owner, history, id, target, columns).iloc[:, 0]
    if len(past) and len(steps.times) and past.index[0] > steps.times[0]:
        raise DataError(
            f"{owner}: the history begins at {past.index[0]}, after the forecast, which begins at "
            f"{steps.times[0]}; is one passed in place of the other?"
        )
    return past


def _draw_forecast(ax: Any, steps: ReadForecast, past: pd.Series | None, color: str) -> None:
    if past is not None:
        draw_line(ax, past.index, past, color=OBSERVED, label="observed")
    shade(ax, steps.times, steps.intervals, color)
    inside = ~steps.rolled
    draw_line(ax, steps.times[inside], steps.point[inside], color=color, label="forecast")
    if steps.rolled.any():
        # From the last step that was learned, so that the line does not break.
        begin = max(int(steps.rolled.argmax()) - 1, 0)
        after, times = steps.point[begin:], steps.times[begin:]
        draw_line(ax, times, after, color=color, style="--", label="rolled forward")


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
    tested, history = as_pandas(tested), as_pandas(history)
    if history is not None and not isinstance(history, pd.DataFrame | pd.Series):
        raise DataError(
            f"{owner}: history must be a DataFrame or Series, got {type(history).__name__}"
        )
    reading, columns = getattr(tested, "attrs", {}).get("reading", {}), names_of(tested)
    like = axis_of(history, reading.get("target"), columns)
    rows = one_tested(owner, tested, id, variate, like)
    models = chosen_models(owner, rows, model)
    truth = rows.drop_duplicates("time").set_index("time")["y"].sort_index()
    if history is not None:
        if isinstance(history, pd.DataFrame):
            target = rows["variate"].iloc[0] if "variate" in rows else variate
            target = reading.get("target") if target is None else target
            history = one_series(owner, history, id, target, columns).iloc[:, 0]
        before = history.set_axis(placeable(history.index))
        truth = pd.concat([before[~before.index.isin(truth.index)], truth]).sort_index()
    draw_line(ax, truth.index, truth, color=OBSERVED, label="observed")
    for place, (name, forecasts) in enumerate(models.items()):
        label: str | None = written(name)
        for _, window in rows.groupby("cutoff", sort=True):
            color, times = f"C{place}", pd.Index(window["time"])
            chosen = rows.index.get_indexer(window.index)
            if len(models) == 1:
                inside = {
                    percentage: (low[chosen], high[chosen])
                    for percentage, (low, high) in forecasts.intervals.items()
                }
                shade(ax, times, inside, color, label=label is not None)
            draw_line(ax, times, forecasts.point[chosen], color=color, label=label)
            label = None
    if tested["id"].nunique() > 1:
        ax.set_title(str(rows["id"].iloc[0]), loc="left", parse_math=False)
    if "variate" in rows:
        ax.set_ylabel(written(rows["variate"].iloc[0]))
    add_legend(ax)
    return ax
