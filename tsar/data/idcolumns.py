"""The ids of series: a column of a frame, or several whose values are one id together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.dtypes import dtype_called
from tsar.exceptions import DataError, ParameterError

__all__ = ["factorized", "key_columns", "labels_of", "named_parts", "parts_of"]


# What to leave out where there is nothing to name.
LEFT_OUT = {"id_column": "there is one series", "time_column": "it is to be found"}


def key_columns(name: Any, parameter: str = "id_column") -> list[Any]:
    """Return the columns of the id: none, one, or those of a list, which names some once.

    Parameters
    ----------
    name : label, list of labels or None
    parameter : {"id_column", "time_column"}
        What is named.
    """
    if name is None:
        return []
    names = list(name) if isinstance(name, list) else [name]
    if not names or len(set(names)) < len(names):
        raise ParameterError(
            f"{parameter} must be a column, or a list that names each column once, got {name!r}; "
            f"leave it out where {LEFT_OUT[parameter]}"
        )
    return names


def labels_of(df: pd.DataFrame, id_name: Any) -> Any:
    """Return the id of each row: a column, or tuples of several; None where a part is missing."""
    if not isinstance(id_name, list):
        return df[id_name]
    parts = df[id_name]
    whole = parts.notna().all(axis=1).to_numpy()
    labels = np.full(len(df), None, dtype=object)
    if not whole.any():
        return pd.Series(labels, index=df.index, dtype=object)
    # Distinct ids are few: one tuple is made of each.
    codes, distinct = pd.factorize(pd.MultiIndex.from_frame(parts[whole]))
    tuples = np.empty(len(distinct), dtype=object)
    tuples[:] = list(distinct)
    labels[whole] = tuples[codes]
    return pd.Series(labels, index=df.index, dtype=object)


def factorized(ids: Any) -> tuple[pd.Index, np.ndarray]:
    """Return the distinct ids in the order of first appearance, and the number of each row.

    Parameters
    ----------
    ids : Series or Index of shape (rows,)
        As :func:`labels_of` gives them.

    Returns
    -------
    ids : Index of shape (S,)
    codes : int64 array of shape (rows,)
        -1 where an id is missing.

    Raises
    ------
    DataError
        They cannot be told apart, as lists cannot.
    """
    try:
        codes, distinct = pd.factorize(ids)
    except TypeError as error:
        raise DataError(f"the ids cannot be told apart: {error}; use text or numbers") from None
    # Without its dtype, pandas 2 looks for another one.
    held = pd.Index(distinct, dtype=distinct.dtype, tupleize_cols=False)
    return held, codes.astype(np.int64, copy=False)


def named_parts(label: Any, id_name: Any) -> dict[Any, Any]:
    """Return what one id has in each column of the id."""
    parts = label if isinstance(id_name, list) else [label]
    return dict(zip(key_columns(id_name), parts, strict=True))


def parts_of(ids: pd.Index, names: Sequence[Any], dtypes: Sequence[str]) -> dict[Any, pd.Index]:
    """Return the columns of ids that are tuples, by name; the inverse of :func:`labels_of`."""
    parts = zip(*ids, strict=True) if len(ids) else ([] for _ in names)
    return {
        name: pd.Index(list(part), dtype=object).astype(dtype_called(dtype))
        for name, part, dtype in zip(names, parts, dtypes, strict=True)
    }
