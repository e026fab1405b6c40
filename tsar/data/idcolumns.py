"""The ids of series: a column of a frame, or several whose values are one id together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.dtypes import dtype_called
from tsar.exceptions import ParameterError

__all__ = ["key_columns", "labels_of", "parts_of"]


def key_columns(id_name: Any) -> list[Any]:
    """Return the columns of the id: none, one, or those of a list, which names some once."""
    if id_name is None:
        return []
    names = list(id_name) if isinstance(id_name, list) else [id_name]
    if not names or len(set(names)) < len(names):
        raise ParameterError(
            f"id_column must be a column, or a list that names each column of the id once, got "
            f"{id_name!r}; leave it out where there is one series"
        )
    return names


def labels_of(df: pd.DataFrame, id_name: Any) -> Any:
    """Return the id of each row: a column, or tuples of several; None where a part is missing."""
    if not isinstance(id_name, list):
        return df[id_name]
    parts = df[id_name]
    whole = parts.notna().all(axis=1).to_numpy()
    labels = np.full(len(df), None, dtype=object)
    # Distinct ids are few: one tuple is made of each.
    codes, distinct = pd.factorize(pd.MultiIndex.from_frame(parts[whole]))
    tuples = np.empty(len(distinct), dtype=object)
    tuples[:] = list(distinct)
    labels[whole] = tuples[codes]
    return pd.Series(labels, index=df.index, dtype=object)


def parts_of(ids: pd.Index, names: Sequence[Any], dtypes: Sequence[str]) -> dict[Any, pd.Index]:
    """Return the columns of ids that are tuples, by name; the inverse of :func:`labels_of`."""
    parts = zip(*ids, strict=True) if len(ids) else ([] for _ in names)
    return {
        name: pd.Index(list(part), dtype=object).astype(dtype_called(dtype))
        for name, part, dtype in zip(names, parts, dtypes, strict=True)
    }
