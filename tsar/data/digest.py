"""Tell data from others, however their rows are ordered, stored and handed over.

Dimension letters: S series.
"""

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.panel import Panel
from tsar.data.timeaxis import UNIT

__all__ = ["data_digest"]

# Odd, so that no bit of what is multiplied is lost.
FIRST, LAST = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
# Rows hashed at a time: what is made of them stays in the cache of a core.
ROWS = 50_000


def data_digest(panel: Panel) -> str:
    """Return a short digest of the series that a panel holds.

    It depends on ids, times, and the names and values of targets, covariates and weights. It
    does not depend on the order of rows, series and columns, on the resolution of times, or on
    whether a number is stored as an integer, in 32 or in 64 bits, if its value is the same.

    Parameters
    ----------
    panel : Panel
        Its covariates not yet coded.

    Returns
    -------
    str
        Sixteen hexadecimal digits.

    Notes
    -----
    Values are hashed one by one, weighted by odd numbers that grow along each series, and
    summed; sums of columns are added to the hash of a series, and the sorted hashes of all
    series give the digest.
    """
    unit = np.uint64(UNIT[panel.axis.unit] if panel.axis.kind == "timestamp" else 1)
    first, last = (stamps.astype(np.uint64) * unit for stamps in (panel.first, panel.last))
    series = _hashes(_texts(panel.ids)) + _hashes(first * FIRST + last * LAST)
    columns: dict[str, np.ndarray] = {
        f"target {name}": panel.values[:, place] for place, name in enumerate(panel.variates)
    }
    columns |= {f"past {name}": column for name, column in panel.past.items()}
    columns |= {f"future {name}": column for name, column in panel.future.items()}
    if panel.weight is not None:
        columns["weight"] = panel.weight
    starts = np.repeat(panel.offsets[:-1], panel.lengths)
    position = 2 * (np.arange(len(starts)) - starts).astype(np.uint64) + np.uint64(1)
    for name, column in columns.items():
        sums = np.zeros(len(position) + 1, dtype=np.uint64)
        for begin in range(0, len(position), ROWS):
            rows = slice(begin, begin + ROWS)
            np.multiply(_hashes(column[rows]), position[rows], out=sums[1:][rows])
        # They wrap around, and so do their differences.
        np.cumsum(sums, out=sums)
        own = sums[panel.offsets[1:]] - sums[panel.offsets[:-1]]
        series += _hashes(own ^ _hash_of(name))
    for name, column in panel.static.items():
        series += _hashes(_hashes(column) ^ _hash_of(f"static {name}"))
    told = f"{panel.axis.kind} {len(panel.ids)} {len(panel.values)} "
    return hashlib.sha256(told.encode() + np.sort(series).tobytes()).hexdigest()[:16]


def _hashes(values: Any) -> np.ndarray:
    """Return a uint64 hash of every value, the same for equal numbers of any dtype."""
    array = np.asarray(values)
    if array.dtype == np.uint64:
        return np.asarray(pd.util.hash_array(array))
    if array.dtype.kind in "iufb":
        # -0.0 is 0.0, and there is one NaN.
        numbers = array.astype(np.float64) + 0.0
        numbers[np.isnan(numbers)] = np.nan
        return np.asarray(pd.util.hash_array(numbers))
    return np.asarray(pd.util.hash_array(array.astype(object)))


def _texts(labels: pd.Index) -> np.ndarray:
    """Return labels as they are written: whether an id is 1 or "1" says nothing about data."""
    return np.array(
        ["\0".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in labels],
        dtype=object,
    )


def _hash_of(text: str) -> np.uint64:
    return np.uint64(_hashes(np.array([text], dtype=object))[0])
