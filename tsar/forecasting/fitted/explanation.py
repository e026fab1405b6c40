"""What moves a forecast: by hiding inputs one after the other, or by gradients through it.

Dimension letters: S series, W windows, H horizon, C variates.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.matching import in_order
from tsar.data.panel import Panel
from tsar.data.windows import number_windows
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.fitted.attribution import Effect
from tsar.forecasting.fitted.contract import FittedForecaster
from tsar.forecasting.fitted.gradients import GradientAttribution
from tsar.forecasting.fitted.masking import MaskAttribution
from tsar.params.constraints import check_choice, check_count
from tsar.progress import progress
from tsar.training.learned_masks import LearnedMask

__all__ = ["explain"]

METHODS = ("occlusion", "learned_mask", "gradients")
ROLES = ("past", "future", "static")


def explain(
    model: FittedForecaster,
    df: Any,
    horizon: int,
    method: str | LearnedMask,
    windows: int,
    verbose: int,
) -> pd.DataFrame:
    """Say how much each input moves the forecast, see ``Forecaster.explain``."""
    name = model.name
    _check_method(model, method)
    check_count(name, "windows", windows)
    read = model.read_as_fitted(df)
    panel = in_order(model.matched(read, allow_new_variates=False), model.end_.variates)
    read = in_order(read, model.end_.variates)
    owners, rows = _cutoffs(model, panel, horizon, windows)
    truth = panel.values[rows[:, None] + np.arange(horizon)]
    effects: Iterable[Effect]
    if method == "occlusion":
        effects = _occluded(model, read, panel, owners, rows, truth, verbose)
    elif method == "gradients":
        effects = GradientAttribution(model, panel, owners, rows, truth).effects(verbose)
    else:
        learned_mask = method if isinstance(method, LearnedMask) else LearnedMask()
        attribution = MaskAttribution(learned_mask, model, panel, owners, rows, truth)
        effects = attribution.effects(verbose)
    tables = []
    for role, label, moved, importance, mae_increase in effects:
        change = _by_series(importance, owners, panel.n_series)
        worse = _by_series(mae_increase, owners, panel.n_series)
        for variate in moved:
            own = panel.variates[variate] if label is None else label
            tables.append((variate, role, own, change[:, variate], worse[:, variate]))
    return _frame(panel, np.unique(owners), tables)


def _check_method(model: FittedForecaster, method: str | LearnedMask) -> None:
    """Refuse a way to explain that there is not, or that this model has not."""
    if not isinstance(method, LearnedMask):
        check_choice(model.name, "method", method, METHODS)
    if method != "occlusion" and not model.lets_gradients_through:
        by = "gradients" if method == "gradients" else "learned masks"
        raise ParameterError(
            f"{model.name}: explain by {by} needs a trained network that lets gradients "
            f"through, got {type(model).__name__}; take method='occlusion'"
        )


def _occluded(
    model: FittedForecaster,
    read: Panel,
    panel: Panel,
    owners: np.ndarray,
    rows: np.ndarray,
    truth: np.ndarray,
    verbose: int,
) -> Iterator[Effect]:
    """Yield what the forecasts of windows are without one input after the other."""
    whole = model.forecast(panel, owners, rows, truth.shape[1]).point
    error = np.abs(whole - truth)
    hidden = list(_hidden(read, model.forecasts_variates_alone))
    with progress(shown=verbose >= 1, total=len(hidden), desc=model.name, unit="input") as bar:
        for role, label, moved, without in hidden:
            part = in_order(model.matched(without(), allow_new_variates=False), model.end_.variates)
            forecast = model.forecast(part, owners, rows, truth.shape[1]).point
            change, worse = np.abs(forecast - whole), np.abs(forecast - truth) - error
            yield Effect(role, label, moved, change, worse)
            bar.update()


def _cutoffs(
    model: FittedForecaster, panel: Panel, horizon: int, windows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the series and the row of cutoffs that are evenly spread over each series."""
    context = max(model.context_rows, 1)
    room = panel.lengths - context - horizon + 1
    counts = np.clip(room, 0, windows)
    if not counts.any():
        raise DataError(
            f"{model.name}: explain needs {context + horizon} rows of a series, {context} of them "
            f"as history, the longest has {panel.lengths.max()}; pass a shorter horizon=, or more "
            f"rows"
        )
    owners, numbers = number_windows(counts)
    # The last cutoff is followed by the last horizon.
    spread = (numbers + 1) * room[owners] // counts[owners] - 1
    return owners, panel.offsets[owners] + context + spread


def _by_series(errors: np.ndarray, owners: np.ndarray, n_series: int) -> np.ndarray:
    """Return the mean of errors (W, H, C) over windows and steps, NaN left out, (S, C)."""
    seen = ~np.isnan(errors)
    total, number = np.zeros((2, n_series, errors.shape[2]))
    np.add.at(total, owners, np.where(seen, errors, 0.0).sum(axis=1))
    np.add.at(number, owners, seen.sum(axis=1))
    with np.errstate(invalid="ignore"):
        return np.asarray(total / number)


def _hidden(panel: Panel, independent: bool) -> Iterator[tuple[str, Any, list[int], Any]]:
    """Yield role, label, the variates that are moved, and a function that hides the input.

    Without a label it is the histories of all variates, each of which moves only itself.
    """
    every = list(range(panel.n_variates))
    if independent:
        yield "history", None, every, partial(_without_history, panel, every)
    else:
        for variate, label in enumerate(panel.variates):
            yield "history", label, every, partial(_without_history, panel, [variate])
    for role in ROLES:
        for label in getattr(panel, role):
            yield role, label, every, partial(_without_column, panel, role, label)
    if panel.calendar is not None:
        plain = np.zeros_like(panel.calendar)
        yield "calendar", "calendar", every, partial(replace, panel, calendar=plain)


def _without_history(panel: Panel, variates: list[int]) -> Panel:
    """Replace what was observed of some variates by the mean of the series."""
    values = panel.values.astype(np.float64)
    owner = np.repeat(np.arange(panel.n_series), panel.lengths)
    for variate in variates:
        column = values[:, variate]
        seen = ~np.isnan(column)
        total = np.bincount(owner[seen], column[seen], minlength=panel.n_series)
        mean = total / np.maximum(np.bincount(owner[seen], minlength=panel.n_series), 1)
        values[seen, variate] = mean[owner[seen]]
    return panel.with_values(values, panel.variates)


def _without_column(panel: Panel, role: str, name: Any) -> Panel:
    """Replace a covariate by its mean, or by its most frequent category."""
    column = getattr(panel, role)[name]
    if column.dtype.kind in "fiub":
        seen = column[~np.isnan(column.astype(np.float64))].astype(np.float64)
        plain = np.full(len(column), seen.mean() if len(seen) else np.nan)
    else:
        seen = pd.Series(column[~pd.isna(column)])
        plain = np.empty(len(column), dtype=object)
        plain[:] = seen.value_counts(sort=True).index[0] if len(seen) else None
    return replace(panel, **{role: getattr(panel, role) | {name: plain}})


def _frame(panel: Panel, explained: np.ndarray, tables: list[Any]) -> pd.DataFrame:
    """Write one row for each input of each variate of each series, the largest first."""
    ids = pd.Index([0]) if panel.ids[0] is None else panel.ids
    parts = [
        pd.DataFrame(
            {
                "place": explained,
                "column": variate,
                "role": role,
                "input": pd.Series([label] * len(explained), dtype=object),
                "importance": change[explained],
                "mae_increase": worse[explained],
            }
        )
        for variate, role, label, change, worse in tables
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.sort_values(
        ["place", "column", "importance"], ascending=[True, True, False], kind="stable"
    ).reset_index(drop=True)
    whole = frame.groupby(["place", "column"])["importance"].transform("sum")
    place, column = (frame[name].to_numpy() for name in ("place", "column"))
    content = {
        "id": ids.take(place),
        "variate": panel.variates.take(column),
        "role": frame["role"],
        "input": frame["input"],
        "importance": frame["importance"],
        # Of a forecast that nothing moves, every input has a share of nothing.
        "share": (frame["importance"] / whole.where(whole > 0)).fillna(0.0),
        "mae_increase": frame["mae_increase"],
    }
    if panel.n_variates == 1:
        del content["variate"]
    return pd.DataFrame(content)
