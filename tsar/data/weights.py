"""Weights of rows: how much an error at each of them counts in a training."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tsar.data.frames import Rows
from tsar.exceptions import DataError

__all__ = ["EQUAL_SERIES", "read_weight"]

EQUAL_SERIES = "equal_series"
SHOWN = 5


def read_weight(weight: Any, rows: Rows) -> np.ndarray:
    """Check weights, and bring them to the rows of a frame.

    Parameters
    ----------
    weight : array-like of shape (rows of the frame,), dict or "equal_series"
        By row in the order of the frame, or by id (by variate there is none), or so that the rows
        of each series have the same sum.
    rows : Rows
        The frame.

    Returns
    -------
    float64 array of shape (rows,)

    Raises
    ------
    DataError
        They are not finite numbers from 0 on, of which one is above 0; there is none for some row,
        or one for an id that the frame does not have.
    """
    if isinstance(weight, str):
        return _equal_series(weight, rows)
    if isinstance(weight, Mapping):
        by_row = _by_id(weight, rows)
    else:
        held = weight.to_numpy() if hasattr(weight, "to_numpy") else np.asarray(weight)
        if held.shape != (len(rows.codes),):
            raise DataError(
                f"sample_weight must have one number for each of the {len(rows.codes)} rows of df, "
                f"or be a dict by id, got the shape {held.shape}; pass df['a column'], for example"
            )
        by_row = _numbers(held)
    wrong = ~(np.isfinite(by_row) & (by_row >= 0))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"sample_weight must be finite numbers from 0 on, got {by_row[row]:g} for row {row} "
            f"and {int(wrong.sum()) - 1} others; fill or clip them"
        )
    if not by_row.any():
        raise DataError(
            "sample_weight is 0 everywhere, so there is nothing to learn from; leave it out"
        )
    return by_row


def _equal_series(weight: str, rows: Rows) -> np.ndarray:
    if weight != EQUAL_SERIES:
        raise DataError(
            f"sample_weight must be a number for each row, a dict by id or {EQUAL_SERIES!r}, got "
            f"{weight!r}; pass df[{weight!r}] if it is a column"
        )
    # A row without an id is a fault that is told later.
    series = np.maximum(rows.codes, 0)
    counts = np.bincount(series)
    return np.asarray(counts.mean() / counts[series])


def _by_id(weight: Mapping[Any, Any], rows: Rows) -> np.ndarray:
    if not rows.form.has_ids:
        raise DataError(
            f"sample_weight is a dict, but {rows.form.word} has no ids; pass one number for each "
            f"row"
        )
    ids = rows.ids.tolist()
    missing = [label for label in ids if label not in weight]
    unknown = [label for label in weight if label not in set(ids)]
    if missing or unknown:
        raise DataError(
            f"sample_weight must have a weight for each id, got none for "
            f"{_listed(missing)} and unknown ids {_listed(unknown)}; complete it, for example "
            f"with dict.fromkeys(ids, 1.0) | weights"
        )
    by_series = _numbers(np.array([weight[label] for label in ids]))
    # A row without an id is a fault that is told later.
    return by_series[np.maximum(rows.codes, 0)]


def _numbers(held: np.ndarray) -> np.ndarray:
    try:
        return held.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"sample_weight must be numbers, got dtype {held.dtype}; convert with astype(float)"
        ) from None


def _listed(labels: list[Any]) -> str:
    shown = ", ".join(map(repr, labels[:SHOWN]))
    return f"[{shown}, ...]" if len(labels) > SHOWN else f"[{shown}]"
