"""Frames made fit to be read: doubled rows, missing rows, series that ended, and broken ones.

Nothing is repaired that was not asked for, and what was repaired is listed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from tsar.data.future import read_future
from tsar.data.libraries import as_pandas, library_of
from tsar.data.longtable import Columns, End, LongTable
from tsar.data.quarantine import Bad
from tsar.data.timeaxis import TimeAxis
from tsar.exceptions import DataError, ParameterError
from tsar.params.arguments import column_labels
from tsar.params.constraints import check_choice, check_count

__all__ = ["NOTES", "POLICIES", "Policies", "Tidied", "tidied", "tidy"]

POLICIES = {
    "duplicates": ("raise", "sum", "mean", "first", "last"),
    "gaps": ("raise", "mask", "zero"),
    "ended": ("forecast", "skip", "extend"),
    "trailing": ("keep", "future"),
    "on_error": ("raise", "quarantine"),
}
NOTES = ["id", "kind", "count", "first", "handling"]


@dataclass(frozen=True)
class Policies:
    """What becomes of rows and series that a forecaster does not read; see :func:`tidy`."""

    duplicates: str = "raise"
    gaps: str = "raise"
    ended: str = "forecast"
    ended_after: int = 1
    trailing: str = "keep"
    on_error: str = "raise"

    def check(self, owner: str) -> None:
        """Raise a :class:`ParameterError` where one is not known, or two do not go together."""
        for name, choices in POLICIES.items():
            check_choice(owner, name, getattr(self, name), choices)
        check_count(owner, "ended_after", self.ended_after)
        adds = self.ended == "extend" or self.ended_after > 1
        if adds and self.gaps == "raise":
            policy = "ended='extend'" if self.ended == "extend" else "ended_after"
            raise ParameterError(
                f"{owner}: {policy} adds the rows that a series lacks at its end, so gaps "
                f"must say what they hold, 'zero' or 'mask', got 'raise'"
            )

    @property
    def change_rows(self) -> bool:
        """Whether there is anything to do that reading a frame does not do."""
        return self != replace(Policies(), gaps=self.gaps, on_error=self.on_error)


@dataclass(frozen=True)
class Tidied:
    """A frame that is fit to be read, and what was done for that.

    Attributes
    ----------
    frame : DataFrame or Series
        In the form of the data, with what was asked for put right.
    future : DataFrame or None
        The rows to forecast, with their covariates: those at the end without a target
        (``trailing="future"``) and those that were given.
    status : DataFrame
        ``id``, ``status`` and ``reason`` of every series that was left out: "ended", or
        the kind of its fault.
    notes : DataFrame
        What was changed or is worth knowing, by series: ``id``, ``kind`` ("duplicate", "gap",
        "ended", "trailing"), ``count`` of rows, the time of the ``first``, and the
        ``handling``: the policy that was followed.
    """

    frame: Any
    future: Any
    status: pd.DataFrame
    notes: pd.DataFrame


def tidy(
    df: Any,
    *,
    id_column: Any = None,
    time_column: Any = None,
    target: Any = None,
    freq: Any = None,
    duplicates: str = "raise",
    gaps: str = "raise",
    ended: str = "forecast",
    ended_after: int = 1,
    trailing: str = "keep",
    on_error: str = "raise",
    future: Any = None,
    future_covariates: Any = None,
    horizon: int | None = None,
) -> Tidied:
    """Make a frame fit for ``fit`` and ``predict``, and say what was done.

    Parameters
    ----------
    df : DataFrame or Series
        In any of the forms that a forecaster reads, and of any library: what comes back is of
        the same one. It is left as it is.
    id_column, time_column, target, freq
        As a forecaster takes them.
    duplicates : {"raise", "sum", "mean", "first", "last"}
        What becomes of rows of one series with the same time. "first" and "last" keep one
        row whole. "sum" and "mean" make one row of them: the target is added up (missing
        values are left out), or averaged; of the other columns, numbers are averaged, and
        of text, categories and booleans the first one stays.
    gaps : {"raise", "mask", "zero"}
        What becomes of rows that are missing between others: an error, rows with a missing
        target, or with a target of 0, where no row means that nothing was sold. Their other
        columns are missing.
    ended : {"forecast", "skip", "extend"}
        What becomes of a series that ends before the last time of the frame: it is forecast
        from its own end, at other dates than the others; left out; or continued to the last
        time with the rows that ``gaps`` says.
    ended_after : int
        How many of the last steps a series must lack to have ended. One that lacks fewer,
        such as a product that happened not to sell on the last day, is continued by ``gaps``.
    trailing : {"keep", "future"}
        What becomes of rows after the last observed target of a series: missing values as
        others, or the rows to forecast, whose covariates are those of the future.
    on_error : {"raise", "quarantine"}
        Whether a broken series is an error, or is left out and listed. A frame without ids
        is one series, whose faults are errors.
    future : DataFrame, optional
        Future covariates, checked to be complete for every series.
    future_covariates : label or sequence of labels, optional
        The columns of ``future`` that are needed.
    horizon : int, optional
        The steps of ``future`` that are needed.

    Returns
    -------
    Tidied

    Raises
    ------
    ParameterError
        A policy is not known.
    DataError
        The frame has faults for which no policy was given, or no series is left.

    Examples
    --------
    >>> import pandas as pd
    >>> import tsar
    >>> sold = pd.DataFrame({"unique_id": "tea", "ds": ["2024-03-01"] * 2, "y": [2, 3]})
    >>> sold = pd.concat([sold, sold.assign(ds=["2024-03-02", "2024-03-05"])], ignore_index=True)
    >>> clean = tsar.tidy(sold, freq="D", duplicates="sum", gaps="zero")
    >>> clean.frame["y"].tolist()
    [5, 2, 0, 0, 3]
    >>> clean.notes[["kind", "count", "first", "handling"]]
            kind  count       first handling
    0  duplicate      1  2024-03-01      sum
    1        gap      2  2024-03-03     zero
    """
    policies = Policies(duplicates, gaps, ended, ended_after, trailing, on_error)
    policies.check("tidy")
    columns = Columns(id_column, time_column, target, freq)
    names = column_labels(future_covariates)
    if bool(names) != (horizon is not None):
        raise ParameterError(
            f"tidy: future_covariates and horizon, the steps to forecast, go together, got "
            f"future_covariates={future_covariates!r} and horizon={horizon!r}"
        )
    if names and future is None and trailing != "future":
        raise ParameterError(
            f"tidy: future_covariates={future_covariates!r} are looked for in future=, or in the "
            f"rows at the end without a target (trailing='future'), and neither was passed"
        )

    def check(frame: Any, rows: pd.DataFrame | None, axis: TimeAxis) -> None:
        panel = replace(columns, like=axis).panel(frame, "raise" if gaps == "raise" else "mask")
        if names and horizon is not None and rows is not None:
            read_future(rows, panel, names, horizon)

    done = tidied(as_pandas(df), columns, policies, check, as_pandas(future))
    if not len(done.frame):
        first = done.status.iloc[0]
        raise DataError(
            f"none of {len(done.status)} series is left; the first, {first['id']!r}: "
            f"{first['reason']}"
        )
    library = library_of(df)
    rows = None if done.future is None else library.restored(done.future)
    return replace(done, frame=library.restored(done.frame), future=rows)


def tidied(
    df: Any,
    columns: Columns,
    policies: Policies,
    check: Callable[[Any, pd.DataFrame | None, TimeAxis], None],
    future: pd.DataFrame | None = None,
    end: End | None = None,
) -> Tidied:
    """Do what :func:`tidy` does; there may be no series left.

    Parameters
    ----------
    df : DataFrame or Series
    columns : Columns
    policies : Policies
        That were checked.
    check : callable
        Raises a :class:`DataError` for a frame, and future covariates, with faults that no
        policy is for. It is given the axis of all rows as well, to read few ones like them.
    future : DataFrame, optional
    end : End, optional
        The last time, where the frame is a part of the data.
    """
    table = LongTable.of(df, columns)
    axis = table.axis
    bad: Bad = {}
    if policies.on_error == "quarantine" and table.has_ids:
        table, bad = table.without_text()
    if not table.numeric:
        # Nothing can be added up.
        check(table.written(), future, axis)
    if policies.duplicates != "raise":
        table = table.merged(policies.duplicates)
    if policies.trailing == "future":
        table, rows = table.parted()
        long = table.form.kind == "long"
        future = rows if future is None else pd.concat([future, rows], ignore_index=long)
    if policies.on_error == "quarantine" and table.has_ids:
        table, broken = table.set_aside(lambda frame: check(frame, future, axis))
        bad = bad | broken
    else:
        check(table.written(), future, axis)
    if len(table.frame):
        table, left = table.on_grid(policies.gaps, policies.ended, policies.ended_after, end)
        bad = bad | left
    status = [(name, *why) for name, why in bad.items()]
    return Tidied(
        table.written(),
        future,
        pd.DataFrame(status, columns=["id", "status", "reason"]),
        pd.DataFrame(table.notes, columns=NOTES),
    )
