"""Forecasts of many windows of given series: backtests, scores and fitted values.

A window is a series and a row, its cutoff: the rows before the cutoff are known, those from
it on are forecast. Nothing at or after the cutoff reaches the forecast, except future
covariates of the steps that are forecast.

Dimension letters: S series, W windows, H horizon, C variates, Q quantiles.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.matching import in_order
from tsar.data.panel import Panel
from tsar.data.windows import number_windows
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.fitted.contract import FittedForecaster

__all__ = [
    "KEYS",
    "after_fitted",
    "are_ends",
    "first_cutoffs",
    "fitted_values",
    "forecast_windows",
    "in_window_order",
    "score",
    "window_histories",
    "window_keys",
]

# What frames of windows begin with; forecasts follow.
KEYS = ("id", "variate", "cutoff", "time", "step", "y")
# Values of history copied at a time, where every window is scaled by its own.
COPIED_VALUES = 2_000_000


def window_histories(
    panel: Panel, owners: np.ndarray, rows: np.ndarray, chosen: np.ndarray
) -> Iterator[tuple[np.ndarray, Panel]]:
    """Make a series of each window: the rows before its cutoff.

    Where the windows are the ends of all series, that is the panel as it is.

    Parameters
    ----------
    panel : Panel
    owners, rows : int64 arrays of shape (W,)
        Series and cutoff of each window.
    chosen : int64 array of shape (n,)
        Which windows to take.

    Yields
    ------
    chosen : int64 array
        Some of them, as many as fit into memory.
    histories : Panel
        With one series for each.
    """
    if are_ends(panel, owners, rows) and len(chosen) == panel.n_series:
        yield chosen, panel
    elif len(chosen):
        held = np.cumsum(rows[chosen] - panel.offsets[owners[chosen]]) * panel.n_variates
        for part in np.split(chosen, np.flatnonzero(np.diff(held // COPIED_VALUES)) + 1):
            yield part, _histories(panel, owners[part], rows[part])


def are_ends(panel: Panel, owners: np.ndarray, rows: np.ndarray) -> bool:
    """Whether windows are the ends of all series of a panel, in their order."""
    return np.array_equal(owners, np.arange(panel.n_series)) and np.array_equal(
        rows, panel.offsets[1:]
    )


def after_fitted(
    panel: Panel, owners: np.ndarray, rows: np.ndarray, fitted: Panel
) -> tuple[Panel, np.ndarray]:
    """Put the fitted rows before the series of a panel that continue them.

    Parameters
    ----------
    panel : Panel
    owners, rows : int64 arrays of shape (W,)
        Windows of it.
    fitted : Panel
        The end of the fitted series.

    Returns
    -------
    joined : Panel
    rows : int64 array of shape (W,)
        The same cutoffs in it.
    """
    joined = panel.after(fitted)
    return joined, rows + (joined.offsets[1:] - panel.offsets[1:])[owners]


def _histories(panel: Panel, owners: np.ndarray, rows: np.ndarray) -> Panel:
    """Return a panel with a series for every window, which holds the rows before its cutoff.

    Its last stamps stay those of the whole series.
    """
    begins = panel.offsets[owners]
    lengths = rows - begins
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    keep = np.repeat(begins - offsets[:-1], lengths) + np.arange(offsets[-1])
    covariates = panel.covariates
    if covariates is not None:
        covariates = replace(covariates.take(keep), static=covariates.static[owners])
    return replace(
        panel,
        values=panel.values[keep],
        offsets=offsets,
        ids=panel.ids[owners],
        first=panel.first[owners],
        last=panel.last[owners],
        covariates=covariates,
    )


def forecast_windows(model: FittedForecaster, df: Any, cutoffs: Any, horizon: int) -> np.ndarray:
    """Forecast windows of one wide frame, see ``Forecaster.forecast_windows``."""
    panel = model.read_new(df, allow_new_variates=False)
    if panel.n_series != 1:
        raise DataError(f"{model.name}: forecast_windows takes one series, got {panel.n_series}")
    rows = np.asarray(cutoffs)
    if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
        raise ParameterError(
            f"{model.name}: cutoffs must be a list or 1-D array of integers, got {cutoffs!r}"
        )
    rows = rows.astype(np.int64)
    if len(rows) and (rows.min() < 1 or rows.max() > len(panel.values)):
        raise DataError(
            f"{model.name}: cutoffs must lie in [1, {len(panel.values)}], "
            f"got {rows.min()} to {rows.max()}"
        )
    if not len(rows):
        return np.empty((0, horizon, panel.n_variates))
    fitted = in_order(panel, model.end_.variates)
    forecast = model.forecast(fitted, np.zeros_like(rows), rows, horizon).point
    return np.asarray(forecast[:, :, fitted.variates.get_indexer(panel.variates)])


def first_cutoffs(model: FittedForecaster, panel: Panel, joined: Panel) -> np.ndarray:
    """Return how many rows of each series of ``joined`` are no more than context.

    A series with a history of its own gives every row of ``panel`` as a cutoff; any other
    one keeps up to half of its rows as context.

    Parameters
    ----------
    model : Forecaster
        Fitted.
    panel : Panel
        The rows that are given.
    joined : Panel
        The same, after the fitted rows where those adjoin.

    Returns
    -------
    int64 array of shape (S,)
    """
    rows_before = joined.lengths - panel.lengths
    return np.where(
        rows_before > 0, rows_before, np.minimum(model.context_rows, panel.lengths // 2)
    )


def in_window_order(values: np.ndarray, owners: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Flatten forecasts (W, H, C) into the order of :func:`window_keys`, shape (W * C * H,)."""
    window, variate = _order(owners, rows, values.shape[2])
    return values[window, :, variate].reshape(-1)


def _order(owners: np.ndarray, rows: np.ndarray, n_variates: int) -> tuple[np.ndarray, np.ndarray]:
    """Return window and variate of each block of rows: series, variates, windows."""
    blocks = np.arange(len(rows) * n_variates)
    window, variate = blocks // n_variates, blocks % n_variates
    order = np.lexsort((rows[window], variate, owners[window]))
    return window[order], variate[order]


def window_keys(panel: Panel, owners: np.ndarray, rows: np.ndarray, horizon: int) -> pd.DataFrame:
    """Say what windows forecast, and the truth.

    Parameters
    ----------
    panel : Panel
        Of which the stamps are known.
    owners, rows : int64 arrays of shape (W,)
        Series of each window, and the row of ``panel.values`` that is its cutoff.
    horizon : int
        H; what is said of steps beyond the end of the panel means nothing.

    Returns
    -------
    DataFrame
        A row for each series, variate, cutoff and step, in this order: the columns
        :data:`KEYS`, without ``variate`` where there is one. Without ids, the id is 0.
    """
    stamps = panel.stamps()
    window, variate = _order(owners, rows, panel.n_variates)
    steps = np.minimum(rows[window, None] + np.arange(horizon), len(stamps) - 1)
    ids = pd.Index([0]) if panel.ids[0] is None else panel.ids
    content: dict[str, Any] = {
        "id": ids.take(owners[window]).repeat(horizon),
        "variate": panel.variates.take(variate).repeat(horizon),
        "cutoff": panel.axis.index(stamps[rows[window]]).repeat(horizon),
        "time": panel.axis.index(stamps[steps].reshape(-1)),
        "step": np.tile(np.arange(1, horizon + 1), len(window)),
        "y": panel.values[steps, variate[:, None]].reshape(-1).astype(np.float64),
    }
    if panel.n_variates == 1:
        del content["variate"]
    return pd.DataFrame(content)


def fitted_values(model: FittedForecaster, df: Any, horizon: int) -> pd.DataFrame:
    """Forecast every row of a frame, see ``Forecaster.fitted_values``."""
    panel = in_order(model.read_new(df, allow_new_variates=False), model.end_.variates)
    joined = panel.after(model.end_)
    rows_before = joined.lengths - panel.lengths
    begins = np.where(rows_before > 0, rows_before, max(model.context_rows, 1))
    counts = np.maximum(joined.lengths - begins, 0)
    if not counts.any():
        raise DataError(
            f"{model.name}: fitted_values needs {max(model.context_rows, 1) + 1} rows of a "
            f"series, {model.context_rows} of them as history; the longest has "
            f"{panel.lengths.max()}"
        )
    owners, numbers = number_windows(counts)
    rows = (panel.offsets[:-1] - rows_before + begins)[owners] + numbers
    forecast = model.forecast(panel, owners, rows, horizon, after_fitted=True).point
    frame = window_keys(panel, owners, rows, horizon)
    frame["forecast"] = in_window_order(forecast, owners, rows)
    room = (panel.offsets[1:][owners] - rows)[:, None, None]
    inside = np.broadcast_to(np.arange(horizon)[:, None] < room, forecast.shape)
    return frame[in_window_order(inside, owners, rows)].reset_index(drop=True)


def score(model: FittedForecaster, df: Any) -> float:
    """Return the negative mean absolute error over a frame, see ``Forecaster.score``."""
    panel = in_order(model.read_new(df, allow_new_variates=False), model.end_.variates)
    joined = panel.after(model.end_)
    rows_before = joined.lengths - panel.lengths
    begins = np.maximum(first_cutoffs(model, panel, joined), 1) - rows_before
    cutoffs, series = [], []
    for owner, begin in enumerate(begins):
        origins = np.arange(begin, panel.lengths[owner], model.horizon_)
        cutoffs.append(origins + panel.offsets[owner])
        series.append(np.full(len(origins), owner))
    rows, owners = np.concatenate(cutoffs), np.concatenate(series)
    if not len(rows):
        raise DataError(f"{model.name}: score needs at least 2 rows of a series, or its history")
    forecast = model.forecast(panel, owners, rows, model.horizon_, after_fitted=True).point
    steps = rows[:, None] + np.arange(model.horizon_)
    inside = steps < panel.offsets[owners + 1][:, None]
    truth = panel.values[np.minimum(steps, len(panel.values) - 1)]
    errors = np.abs(forecast - truth)[inside & ~np.isnan(truth).all(axis=-1)]
    if np.isnan(errors).all():
        raise DataError(f"{model.name}: score needs observed values, all are missing")
    return -float(np.nanmean(errors))
