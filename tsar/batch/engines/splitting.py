"""Rows in parts that hold whole series."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.idcolumns import labels_of

__all__ = ["BUCKET", "rows_of_series", "whole_series", "with_bucket"]

# A column that says in which part a series is.
BUCKET = "part_of_series"


def with_bucket(frame: pd.DataFrame, ids: list[Any], n_buckets: int) -> pd.DataFrame:
    """Add the number of a part to each row, the same for all rows of a series.

    Parameters
    ----------
    frame : DataFrame
    ids : list of labels
        The columns of the id.
    n_buckets : int
    """
    codes = pd.util.hash_pandas_object(frame[ids], index=False).to_numpy()
    return frame.assign(**{BUCKET: (codes % np.uint64(n_buckets)).astype(np.int64)})


def rows_of_series(frame: pd.DataFrame, series: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of some series, whose ids are the rows of another frame."""
    return frame.merge(series, on=list(series.columns), how="inner")


def whole_series(
    frames: Iterable[pd.DataFrame], id_column: Any, rows: int
) -> Iterator[pd.DataFrame]:
    """Put pieces together until they hold so many rows, and cut between two series.

    Parameters
    ----------
    frames : iterable of DataFrame
        The rows of a series lie together, perhaps in several pieces.
    id_column : label or list of labels
    rows : int
        Rows of a part; one that is a single series may have more.
    """
    held: list[pd.DataFrame] = []
    n_held = 0
    for frame in frames:
        held.append(frame)
        n_held += len(frame)
        if n_held < rows:
            continue
        whole = pd.concat(held, ignore_index=True)
        last = labels_of(whole.iloc[-1:], id_column).iloc[0]
        begins = int((labels_of(whole, id_column) != last).sum())
        if begins:
            yield whole.iloc[:begins]
        held, n_held = [whole.iloc[begins:]], len(whole) - begins
    if n_held:
        yield pd.concat(held, ignore_index=True)
