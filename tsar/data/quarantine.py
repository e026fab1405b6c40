"""Bad series set aside, so that they cost the others nothing."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.faults import as_python, repairs
from tsar.data.idcolumns import labels_of
from tsar.exceptions import DataError

__all__ = ["Bad", "all_bad", "read_numbers", "set_aside"]

# By id: what is wrong in a word, and in a sentence.
Bad = dict[Any, tuple[str, str]]


def set_aside(
    frame: pd.DataFrame,
    id_column: Any,
    targets: Iterable[Any],
    check: Callable[[pd.DataFrame], Any],
) -> tuple[pd.DataFrame, Bad]:
    """Part the series that can be read from those that cannot.

    Parameters
    ----------
    frame : DataFrame
        Long.
    id_column : label or list of labels
        A list where several columns are one id, whose values are tuples.
    targets : iterable of labels
        Columns to forecast; a series without any observation is bad.
    check : callable
        Raises a :class:`DataError` for a frame that cannot be read or forecast.

    Returns
    -------
    frame : DataFrame
        The rows of the good series, none if there are none.
    bad : dict
        Kind of fault and reason by id.
    """
    present = [name for name in targets if name in frame.columns]
    frame, bad = read_numbers(frame, id_column, present)
    if present and len(frame):
        observed, ids = frame[present].notna().any(axis=1), labels_of(frame, id_column)
        # Few files have rows without a value, so that few ids are looked at.
        lacking = pd.Index(ids[~observed].dropna().unique(), tupleize_cols=False)
        seen = ids[observed & ids.isin(lacking)].unique()
        empty = lacking[~lacking.isin(seen)]
        bad |= {series: ("no values", "no value is observed") for series in empty}
        frame = _without(frame, id_column, {series: bad[series] for series in empty})
    while len(frame):
        try:
            check(frame)
            break
        except DataError as error:
            blamed = _blamed(error, frame, id_column) or _searched(error, frame, id_column, check)
        bad |= blamed
        frame = _without(frame, id_column, blamed)
    return frame, bad


def read_numbers(
    frame: pd.DataFrame, id_column: Any, names: Iterable[Any]
) -> tuple[pd.DataFrame, Bad]:
    """Read columns that are text because some of their cells are no numbers.

    Parameters
    ----------
    frame : DataFrame
        Long.
    id_column : label or list of labels
    names : iterable of labels
        Of the frame.

    Returns
    -------
    frame : DataFrame
        The rows of the other series, these columns as numbers.
    bad : dict
        Kind of fault and reason by id, of the series with such cells.
    """
    bad: Bad = {}
    for name in names:
        frame = _numeric(frame, id_column, name, bad)
    return _without(frame, id_column, bad), bad


def _numeric(frame: pd.DataFrame, id_column: Any, name: Any, bad: Bad) -> pd.DataFrame:
    """Read a column that is text because some of its cells are no numbers."""
    column = frame[name]
    if pd.api.types.is_numeric_dtype(column.dtype):
        return frame
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = numbers.isna() & column.notna()
    for series, cells in column[wrong].groupby(labels_of(frame[wrong], id_column), sort=False):
        reason = f"column {name!r} holds {cells.iloc[0]!r}, which is no number"
        bad.setdefault(series, ("non-numeric", reason))
    return frame.assign(**{name: numbers})


def _without(frame: pd.DataFrame, id_column: Any, bad: Bad) -> pd.DataFrame:
    return frame[~labels_of(frame, id_column).isin(list(bad))] if bad else frame


def _blamed(error: DataError, frame: pd.DataFrame, id_column: Any) -> Bad:
    """Return the series that an error names, none where it does not."""
    if error.faults is None:
        return {}
    bad: Bad = {}
    ids = set(labels_of(frame, id_column).unique())
    for fault in error.faults.itertuples():
        if fault.id in ids:
            reason = f"{fault.kind}, count {fault.count}, first at {fault.first}"
            bad.setdefault(fault.id, (str(fault.kind), reason))
    return bad


def _searched(
    error: DataError, frame: pd.DataFrame, id_column: Any, check: Callable[[pd.DataFrame], Any]
) -> Bad:
    """Find by halving which series an error is about."""
    owners = labels_of(frame, id_column)
    ids = owners.unique()
    if len(ids) == 1:
        return {ids[0]: ("unusable", str(error).partition("\n")[0])}
    bad: Bad = {}
    for half in np.array_split(np.arange(len(ids)), 2):
        rows = frame[owners.isin(ids[half])]
        try:
            check(rows)
        except DataError as inner:
            bad |= _blamed(inner, rows, id_column) or _searched(inner, rows, id_column, check)
    # Together they fail, and each half does not: then it is about no series.
    if not bad:
        raise error
    return bad


def all_bad(bad: Bad) -> DataError:
    """Return the error where no series is left, with how to repair the kinds of faults."""
    name, (_, reason) = next(iter(bad.items()))
    rows = [(series, kind, 1, why, None) for series, (kind, why) in bad.items()]
    faults = pd.DataFrame(rows, columns=["id", "kind", "count", "first", "column"])
    message = (
        f"none of {len(bad)} series can be forecast; the first one, {as_python(name)!r}: {reason}"
    )
    return DataError("\n".join([message, *repairs(faults["kind"])]), faults)
