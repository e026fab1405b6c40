"""Forecasts as arrays, written in the form of the frame they continue.

Dimension letters: S series, H horizon, C variates, Q quantiles.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.dtypes import float_dtype
from tsar.data.panel import Panel
from tsar.exceptions import ParameterError

__all__ = [
    "by_series_or_variate",
    "check_quantile_labels",
    "forecast_frame",
    "interval_keys",
    "plain_label",
    "quantile_key",
    "sample_frame",
    "short_histories",
]


def forecast_frame(
    panel: Panel,
    variates: pd.Index,
    point: np.ndarray,
    beside: Mapping[str, np.ndarray],
    fitted_horizon: int,
) -> Any:
    """Write a forecast of the steps after a panel.

    Parameters
    ----------
    panel : Panel
        The series that are continued.
    variates : Index of shape (C,)
        Names of the columns to write.
    point : float array of shape (S, H, C)
    beside : mapping of str to array of shape (S, H, C)
        What else to write of each variate, to columns ``<variate>_<key>``.
    fitted_horizon : int
        Later steps are marked in a column ``extrapolated``.

    Returns
    -------
    DataFrame or Series
        ``attrs["extrapolated_after"]`` is the fitted horizon, or None where no step
        lies beyond it.

    Raises
    ------
    ParameterError
        A column would have the name of a variate.
    """
    if beside:
        _check_spellings(variates)
    columns: dict[Any, Any] = {}
    held = dict(zip(panel.variates, panel.form.dtypes, strict=True))
    for place, name in enumerate(variates):
        dtype = float_dtype(held[name])
        columns[name] = pd.array(point[:, :, place].reshape(-1), dtype=dtype, copy=False)
        for key, values in beside.items():
            label = _label(name, key, variates)
            columns[label] = pd.array(values[:, :, place].reshape(-1), dtype=dtype, copy=False)
    horizon = point.shape[1]
    marks = {}
    if horizon > fitted_horizon:
        marks["extrapolated"] = np.tile(np.arange(horizon) >= fitted_horizon, panel.n_series)
    written = panel.write(horizon, columns, marks)
    written.attrs["extrapolated_after"] = fitted_horizon if marks else None
    return written


def sample_frame(panel: Panel, variates: pd.Index, samples: np.ndarray, fitted_horizon: int) -> Any:
    """Write samples of the steps after a panel.

    Parameters
    ----------
    panel : Panel
        The series that are continued.
    variates : Index of shape (C,)
        Names of the columns to write.
    samples : float array of shape (S, N, H, C)
    fitted_horizon : int
        Later steps are marked in a column ``extrapolated``.

    Returns
    -------
    DataFrame
        Path by path, the number of which is in a column ``sample``.
    """
    _, n_samples, horizon, _ = samples.shape
    held = dict(zip(panel.variates, panel.form.dtypes, strict=True))
    columns: dict[Any, Any] = {}
    for place, name in enumerate(variates):
        dtype = float_dtype(held[name])
        columns[name] = pd.array(samples[..., place].reshape(-1), dtype=dtype, copy=False)
    marks = {"sample": np.tile(np.repeat(np.arange(n_samples), horizon), panel.n_series)}
    if horizon > fitted_horizon:
        marks["extrapolated"] = np.tile(
            np.arange(horizon) >= fitted_horizon, panel.n_series * n_samples
        )
    written = panel.write(horizon, columns, marks, repeats=n_samples)
    written.attrs["extrapolated_after"] = fitted_horizon if horizon > fitted_horizon else None
    return written


def check_quantile_labels(variates: pd.Index, levels: Iterable[float]) -> None:
    """Raise a :class:`ParameterError` if a quantile column would have the name of a variate."""
    levels = list(levels)
    if levels:
        _check_spellings(variates)
    for level in levels:
        for name in variates:
            _label(name, quantile_key(level), variates)


def quantile_key(level: float) -> str:
    """Return how the column of a quantile ends, after the variate and an underscore."""
    return f"q{float(level)}"


def interval_keys(level: float) -> tuple[str, str]:
    """Return how the columns of an interval end, whose level is in percent."""
    # Six digits, the default, would make 100 of 99.99999.
    return f"lo{level:.12g}", f"hi{level:.12g}"


def _label(name: Any, key: str, variates: pd.Index) -> str:
    label = f"{name}_{key}"
    if label in variates:
        raise ParameterError(
            f"the column {label!r} would hold a quantile of {name!r}, but is the name of a "
            f"variate; rename the variate"
        )
    return label


def _check_spellings(variates: pd.Index) -> None:
    """Raise a :class:`ParameterError` if quantiles of two variates would have the same name."""
    spelled = pd.Series([str(name) for name in variates])
    again = spelled.duplicated()
    if again.any():
        twice = spelled[int(again.argmax())]
        raise ParameterError(
            f"two variates are both written {twice!r}, and so "
            f"are the columns of their quantiles; rename one of them"
        )


def plain_label(label: Any) -> Any:
    """Return an id or a name as files can hold it among the attributes of a frame (as JSON).

    Text, numbers and truth values stay what they are, anything else becomes text.
    """
    if isinstance(label, np.generic) and not isinstance(label, np.datetime64 | np.timedelta64):
        label = label.item()
    if isinstance(label, tuple):
        return tuple(plain_label(part) for part in label)
    return label if label is None or type(label) in (bool, int, float, str) else str(label)


def short_histories(panel: Panel, variates: pd.Index, context_rows: int) -> list[Any]:
    """Return the ids (of one wide frame: the variates) observed for less than a context.

    They are labels as :func:`plain_label` gives them.
    """
    short = panel.history_lengths() < context_rows
    if panel.form.has_ids or panel.form.squeeze:
        return [plain_label(name) for name in panel.ids[np.flatnonzero(short.any(axis=1))]]
    return [plain_label(name) for name in variates if short[0, panel.variates.get_loc(name)]]


def by_series_or_variate(panel: Panel, notes: Mapping[tuple[int, int], str]) -> dict[Any, str]:
    """Return notes on series and variates by id, of one wide frame by variate.

    Parameters
    ----------
    panel : Panel
    notes : dict of pair of int to str
        Of several on one series, the first is kept.

    Returns
    -------
    dict
        By labels as :func:`plain_label` gives them.
    """
    if not notes:
        return {}
    if panel.form.has_ids or panel.form.squeeze:
        names, place = panel.ids.tolist(), 0
    else:
        names, place = panel.variates.tolist(), 1
    reasons: dict[Any, str] = {}
    for pair, note in notes.items():
        reasons.setdefault(plain_label(names[pair[place]]), note)
    return reasons
