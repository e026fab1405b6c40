"""Forecasts as arrays, written in the form of the frame they continue.

Dimension letters: S series, H horizon, C variates, Q quantiles.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.panel import Panel
from tsar.exceptions import ParameterError

__all__ = ["check_quantile_labels", "forecast_frame", "short_histories"]


def forecast_frame(
    panel: Panel,
    variates: pd.Index,
    point: np.ndarray,
    quantiles: Mapping[float, np.ndarray],
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
    quantiles : mapping of level to array of shape (S, H, C)
        Written to columns ``<variate>_q<level>``.
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
        A quantile column would have the name of a variate.
    """
    columns: dict[Any, Any] = {}
    held = dict(zip(panel.variates, panel.form.dtypes, strict=True))
    for place, name in enumerate(variates):
        dtype: Any = _float_dtype(held[name])
        columns[name] = pd.array(point[:, :, place].reshape(-1), dtype=dtype, copy=False)
        for level, values in quantiles.items():
            label = _quantile_label(name, level, variates)
            columns[label] = pd.array(values[:, :, place].reshape(-1), dtype=dtype, copy=False)
    horizon = point.shape[1]
    marks = {}
    if horizon > fitted_horizon:
        marks["extrapolated"] = np.tile(np.arange(horizon) >= fitted_horizon, panel.n_series)
    written = panel.write(horizon, columns, marks)
    written.attrs["extrapolated_after"] = fitted_horizon if marks else None
    return written


def check_quantile_labels(variates: pd.Index, levels: Iterable[float]) -> None:
    """Raise a :class:`ParameterError` if a quantile column would have the name of a variate."""
    for level in levels:
        for name in variates:
            _quantile_label(name, level, variates)


def _quantile_label(name: Any, level: float, variates: pd.Index) -> str:
    label = f"{name}_q{float(level)}"
    if label in variates:
        raise ParameterError(
            f"the column {label!r} would hold a quantile of {name!r}, but is the name of a "
            f"variate; rename the variate"
        )
    return label


def short_histories(panel: Panel, variates: pd.Index, context_rows: int) -> list[Any]:
    """Return the ids (of one wide frame: the variates) observed for less than a context."""
    short = panel.history_lengths() < context_rows
    if panel.form.has_ids or panel.form.squeeze:
        return list(panel.ids[np.flatnonzero(short.any(axis=1))])
    return [name for name in variates if short[0, panel.variates.get_loc(name)]]


def _float_dtype(dtype: str) -> str:
    """Return the floating dtype in which a forecast of such a column is given."""
    kept = dtype.lower().startswith("float") and dtype != "float16"
    return dtype if kept else "float64"
