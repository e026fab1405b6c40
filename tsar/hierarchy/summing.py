"""Which series are sums of which others.

Letters: n nodes, b of them at the bottom, u above it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.frames import ID, TIME, require_columns
from tsar.data.libraries import as_pandas, library_of
from tsar.exceptions import DataError, ParameterError

__all__ = ["SEPARATOR", "TOTAL", "Hierarchy", "aggregate", "check_groups", "ids_of", "levels_of"]

# What stands in a group column where a series is the sum over it, and between the labels of an id.
TOTAL, SEPARATOR = "total", "/"


@dataclass(frozen=True)
class Hierarchy:
    """Series by the labels of their groups.

    A series is the sum of all those at the bottom that have its labels, whatever they have
    where its own label is :data:`TOTAL`.

    Attributes
    ----------
    labels : DataFrame of shape (n, n_groups)
        A row for each series, a column for each group.
    summing : float64 array of shape (n, b)
        Which series at the bottom each series is the sum of, one or zero.
    bottom : int64 array of shape (b,)
        The places of those at the bottom among all.
    """

    labels: pd.DataFrame
    summing: np.ndarray
    bottom: np.ndarray

    @classmethod
    def of(cls, owner: str, labels: pd.DataFrame) -> "Hierarchy":
        """Find out what is the sum of what.

        Parameters
        ----------
        owner : str
            Who asks, for messages.
        labels : DataFrame of shape (n, n_groups)
            Of series that all differ, in any order.

        Raises
        ------
        DataError
            A series is the sum of none of the others, or nothing is to be summed.
        """
        labels = labels.reset_index(drop=True)
        summed = (labels == TOTAL).to_numpy()
        bottom = np.flatnonzero(~summed.any(axis=1))
        summing = np.ones((len(labels), len(bottom)), dtype=bool)
        for number, column in enumerate(labels):
            codes = pd.factorize(labels[column])[0]
            own = codes[:, None] == codes[bottom]
            summing &= own | summed[:, number, None]
        hierarchy = cls(labels, summing.astype(np.float64), bottom)
        empty = np.flatnonzero(~summing.any(axis=1))
        if len(empty):
            raise DataError(
                f"{owner}: {hierarchy.ids[empty[0]]!r} is the sum of no series that is there; "
                f"every series needs those of the lowest level below it, which have no label "
                f"{TOTAL!r}"
            )
        return hierarchy

    @property
    def ids(self) -> pd.Index:
        """The labels of each series in one text, such as ``"Victoria/Melbourne"``."""
        return ids_of(self.labels)

    @property
    def upper(self) -> np.ndarray:
        """The places of the series above the bottom, int64 of shape (u,)."""
        return np.setdiff1d(np.arange(len(self.labels)), self.bottom)


def ids_of(labels: pd.DataFrame) -> pd.Index:
    """Join the labels of each row in one text, without the totals at its end."""
    ids = []
    for row in zip(*(labels[column].tolist() for column in labels), strict=True):
        parts = [str(label) for label in row]
        while len(parts) > 1 and parts[-1] == TOTAL:
            parts.pop()
        ids.append(SEPARATOR.join(parts))
    return pd.Index(ids, dtype=object)


def check_groups(owner: str, groups: Any) -> list[Any]:
    """Return the group columns, the highest first.

    Raises
    ------
    ParameterError
        They are none, or named twice.
    """
    if not isinstance(groups, list | tuple) or not groups:
        raise ParameterError(
            f"{owner}: groups must be a list of columns, the highest group first, such as "
            f"['state', 'region'], or a list of such lists, one for each level, got {groups!r}"
        )
    nested = [isinstance(entry, list | tuple) for entry in groups]
    if any(nested) and not all(nested):
        raise ParameterError(
            f"{owner}: groups must be all columns, or all lists of columns, got {groups!r}"
        )
    named = [name for level in groups for name in level] if all(nested) else list(groups)
    columns = list(dict.fromkeys(named))
    if not columns:
        raise ParameterError(f"{owner}: groups must name a column, got {groups!r}")
    if not all(nested) and len(columns) < len(named):
        raise ParameterError(f"{owner}: groups must name each column once, got {groups!r}")
    return columns


def levels_of(owner: str, groups: Any) -> list[list[Any]]:
    """Return the columns of each level, from the total down to all of them.

    Raises
    ------
    ParameterError
        The groups are none, or no level has all columns.
    """
    columns = check_groups(owner, groups)
    if not isinstance(groups[0], list | tuple):
        return [columns[:depth] for depth in range(len(columns) + 1)]
    levels = [list(level) for level in groups]
    if not any(set(level) == set(columns) for level in levels):
        raise ParameterError(
            f"{owner}: groups must have a level of all columns, {columns}, the series that the "
            f"others are sums of, got {groups!r}"
        )
    # The bottom goes last, whatever the order of the levels.
    return sorted(levels, key=lambda level: set(level) == set(columns))


def aggregate(
    df: Any,
    groups: Sequence[Any],
    *,
    time_column: Any = None,
    target: Any = None,
) -> Any:
    """Add up series by groups, to a long frame with a series for every sum.

    Parameters
    ----------
    df : DataFrame
        Long, a row for each time of each series; a series is what has the same labels in
        all group columns.
    groups : list of column labels, or list of such lists
        ``["state", "region"]`` is the total, the states, and the regions of each state. For
        groups that cross each other, a list for each level:
        ``[[], ["state"], ["purpose"], ["state", "purpose"]]``.
    time_column : label or None
        None takes ``ds``.
    target : label or None
        What is added up; None takes ``y``.

    Returns
    -------
    DataFrame
        The group columns, with ``"total"`` where a series is the sum over one; ``unique_id``,
        their labels in one text; the times and the sums. The highest level comes first. Where
        a part was not observed, the sum is not either.

    Raises
    ------
    ParameterError, DataError
        The groups or the frame are not usable: a column is missing, a label is missing or
        cannot be one, a series has a time twice, or times that the others do not have.

    Examples
    --------
    >>> import pandas as pd
    >>> from tsar.hierarchy import aggregate
    >>> sold = pd.DataFrame({"shop": ["a", "b"] * 2, "ds": [1, 1, 2, 2], "y": [3.0, 4, 5, 6]})
    >>> aggregate(sold, ["shop"])
        shop unique_id  ds     y
    0  total     total   1   7.0
    1  total     total   2  11.0
    2      a         a   1   3.0
    3      a         a   2   5.0
    4      b         b   1   4.0
    5      b         b   2   6.0
    """
    levels = levels_of("aggregate", groups)
    columns = check_groups("aggregate", groups)
    time, target = TIME if time_column is None else time_column, "y" if target is None else target
    bottom, times, values = _bottom(as_pandas(df), columns, time, target)
    parts = []
    for level in levels:
        shown = bottom.copy()
        shown[[name for name in columns if name not in level]] = TOTAL
        parts.append(shown.drop_duplicates())
    hierarchy = Hierarchy.of("aggregate", pd.concat(parts).drop_duplicates())
    # A sum, not a product: what is not observed does not reach the sums without it.
    summed = np.stack([values[row > 0].sum(axis=0) for row in hierarchy.summing])
    total = hierarchy.labels.loc[hierarchy.labels.index.repeat(len(times))].reset_index(drop=True)
    total[ID] = hierarchy.ids.repeat(len(times))
    total[time] = times.take(np.tile(np.arange(len(times)), len(hierarchy.labels)))
    total[target] = summed.reshape(-1)
    return library_of(df, (*columns, time)).restored(total)


def _bottom(
    df: Any, columns: list[Any], time: Any, target: Any
) -> tuple[pd.DataFrame, pd.Index, np.ndarray]:
    """Return the labels of the series, their times, and their values by both, (b, T)."""
    if not isinstance(df, pd.DataFrame):
        raise DataError(f"aggregate: df must be a long DataFrame, got {type(df).__name__}")
    for parameter, names in (("groups", columns), ("time_column", [time]), ("target", [target])):
        require_columns(df, names, parameter)
    if len({*columns, time, target}) < len(columns) + 2 or ID in (time, target):
        raise ParameterError(
            f"aggregate: groups, time_column and target must be different columns, and no other "
            f"than a group {ID!r}, got {columns}, {time!r} and {target!r}"
        )
    if not len(df):
        raise DataError("aggregate: the frame has no rows; pass at least one observation")
    if not pd.api.types.is_numeric_dtype(df[target]):
        raise DataError(
            f"aggregate: {target!r} must be numbers, got {df[target].dtype}; use pd.to_numeric"
        )
    labels = df[columns].astype(object)
    for column in columns:
        _check_labels(labels[column])
    codes = labels.groupby(columns, sort=False, observed=True).ngroup().to_numpy()
    moments, times = pd.factorize(df[time], sort=True)
    first = labels[~pd.Series(codes).duplicated().to_numpy()].reset_index(drop=True)
    shown = ids_of(first)
    if (moments < 0).any():
        raise DataError(f"aggregate: {time!r} must not be missing; drop these rows or fill them")
    cells = codes * len(times) + moments
    twice = pd.Series(cells).duplicated().to_numpy()
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        raise DataError(
            f"aggregate: {shown[codes[row]]!r} has the time {times[moments[row]]} twice; a series "
            f"is what has the same labels in {columns}: name all columns that tell series apart, "
            f"or add these rows up"
        )
    counts = np.bincount(codes)
    if (counts < len(times)).any():
        short, n_short = int(counts.argmin()), int((counts < len(times)).sum())
        there = np.isin(np.arange(len(times)), moments[codes == short])
        raise DataError(
            f"aggregate: every series needs a row for every time, {n_short} have fewer: "
            f"{shown[short]!r} has none for {times[int((~there).argmax())]}; add these "
            f"rows, with 0 where nothing was there, and NaN where it is not known"
        )
    values = np.empty((len(first), len(times)))
    values[codes, moments] = df[target].to_numpy(np.float64, na_value=np.nan)
    return first, pd.Index(times, name=time), values


def _check_labels(labels: pd.Series) -> None:
    """Raise a DataError where a label is missing, or would be read as something else."""
    if labels.isna().any():
        raise DataError(
            f"aggregate: {labels.name!r} must not be missing, {int(labels.isna().sum())} rows "
            f"have no label; give them one, such as 'other'"
        )
    distinct = pd.Series(labels.unique())
    texts = distinct.astype(str)
    for wrong, why in (
        (texts == TOTAL, f"is what sums over {labels.name!r} are called"),
        (texts.str.contains(SEPARATOR, regex=False), f"has a {SEPARATOR!r}, which parts labels"),
        (texts.duplicated(), "is the text of two labels"),
    ):
        if wrong.any():
            raise DataError(
                f"aggregate: {texts[wrong].iloc[0]!r} in {labels.name!r} {why}; rename it"
            )
