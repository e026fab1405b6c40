"""Times that stand in several columns of a file, such as a date and a clock."""

import datetime
from collections.abc import Sequence
from typing import Any

import pandas as pd

__all__ = ["joined_times", "parted_times"]


def joined_times(frame: pd.DataFrame, names: Sequence[Any]) -> pd.Series:
    """Return the time of each row as one text, a space between its parts.

    Parameters
    ----------
    frame : DataFrame
    names : sequence of labels
        The columns of the time, as they are to be read: the date before the clock.

    Returns
    -------
    Series of str
        None where a part is missing.
    """
    first, *others = (frame[name].map(_spelt, na_action="ignore") for name in names)
    whole = frame[list(names)].notna().all(axis=1)
    return first.astype(object).str.cat(others, sep=" ").where(whole, None)


def parted_times(texts: pd.Series, like: pd.DataFrame) -> dict[Any, pd.Series]:
    """Return the columns of times, the inverse of :func:`joined_times`.

    Parameters
    ----------
    texts : Series of str
        Spelt as those that were joined; missing where there is no time.
    like : DataFrame
        Rows of the columns of the time that were joined.

    Returns
    -------
    dict of label to Series
        With the dtypes of these.
    """
    words = texts.astype(object).str.split(" ")
    parts: dict[Any, pd.Series] = {}
    begin = 0
    for name, column in like.items():
        # All dates of a column have as many words, and so have all clocks.
        example = column.dropna().iloc[0]
        end = begin + len(_spelt(example).split(" "))
        part = words.str[begin:end].str.join(" ")
        parts[name], begin = _like(part, example, column.dtype), end
    return parts


def _spelt(cell: Any) -> str:
    """Return a part of a time as text: what is text already stays."""
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    is_part = isinstance(cell, datetime.date | datetime.time)
    return cell.isoformat() if is_part else str(cell)


def _like(part: pd.Series, example: Any, dtype: Any) -> pd.Series:
    """Return the text of a part as what the column held."""
    kinds = (pd.Timestamp, datetime.datetime, datetime.date, datetime.time, int)
    kind = next((kind for kind in kinds if isinstance(example, kind)), None)
    if kind in (datetime.date, datetime.time):
        return part.map(kind.fromisoformat, na_action="ignore")
    if kind is None and not pd.api.types.is_integer_dtype(dtype):
        return part
    return pd.to_datetime(part).astype(dtype) if kind in kinds[:2] else part.astype(dtype)
