"""How many steps a day, a week and a year have: the cycles that a season can be.

A step has the cycles that it divides. A year is no whole number of days: it counts as 365 of them,
or as 52 weeks.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.timeaxis import DAY, UNIT

__all__ = ["WEEK", "cycles_of_length", "cycles_of_months", "cycles_of_offset", "cycles_of_week"]

WEEK, YEAR, WEEKS_OF_A_YEAR = 7 * DAY, 365 * DAY, 52
HOUR, MINUTE, SECOND = DAY // 24, DAY // 1440, UNIT["s"]
# Cycles of the clock, for steps that are shorter than a minute only: nothing else is looked at by
# the minute.
OF_THE_CLOCK = (UNIT["us"], UNIT["ms"], SECOND, MINUTE, HOUR)
# Years in which the stamps of an offset are counted.
COUNTED_YEARS = 12
# Of the stamps of a year, what holidays and leap years may take or add on the average.
UNEVEN = 0.1


def cycles_of_length(nanoseconds: int) -> tuple[int, ...]:
    """Return the cycles of a step that is a length of time, the shortest first.

    Parameters
    ----------
    nanoseconds : int

    Returns
    -------
    tuple of int
        Steps in a day, a week and a year, those that are whole and more than one. Steps shorter
        than a minute have a second, a minute and an hour as well.
    """
    clock = OF_THE_CLOCK if nanoseconds < MINUTE else ()
    cycles = _whole((*clock, DAY, WEEK), nanoseconds)
    weeks, rest = divmod(nanoseconds, WEEK)
    yearly = _whole([YEAR], nanoseconds) if rest else _whole([WEEKS_OF_A_YEAR], weeks)
    return (*cycles, *yearly)


def cycles_of_months(months: int) -> tuple[int, ...]:
    """Return the cycles of a step of months: those in a year, where they are whole."""
    return _whole([12], months)


def cycles_of_offset(offset: Any) -> tuple[int, ...]:
    """Return the cycles of a pandas offset that is no length of time and counts no months.

    Business hours are counted by their opening times, business days by the week, and others (the
    quarters of a 52-53 week year, the third Friday of a month) by how many of them a year has.
    A year of business days has no length of its own: it depends on the holidays.

    Parameters
    ----------
    offset : pandas offset
    """
    n = int(offset.n)
    if isinstance(offset, pd.offsets.BusinessHour):
        return _whole(_business_hours(offset), n)
    if isinstance(offset, pd.offsets.BusinessDay):
        return _whole([_open_days(offset)], n)
    return _whole([_stamps_of_a_year(offset.base)], n)


def cycles_of_week(slots: Sequence[int]) -> tuple[int, ...]:
    """Return the cycles of the opening hours of a week: a day, where all are as long, and a week.

    Parameters
    ----------
    slots : sequence of int
        The stamps of a week, in nanoseconds from Monday's midnight.
    """
    _, counts = np.unique(np.asarray(slots) // DAY, return_counts=True)
    daily = [int(counts[0])] if (counts == counts[0]).all() else []
    return tuple(dict.fromkeys(_whole([*daily, len(slots)], 1)))


def _whole(cycles: Iterable[int], step: int) -> tuple[int, ...]:
    return tuple(c // step for c in cycles if c % step == 0 and c > step)


def _business_hours(offset: Any) -> tuple[int, ...]:
    """Return how many hours a day and a week of an offset have, where they are whole."""
    open_for = sum(_length(*times) for times in zip(offset.start, offset.end, strict=True))
    hours, rest = divmod(open_for, HOUR)
    return () if rest else (hours, hours * _open_days(offset))


def _length(start: Any, end: Any) -> int:
    """Return the nanoseconds from one time of the day to another; some close after midnight."""
    opening, closing = (
        pd.Timedelta(f"{time:%H:%M:%S}").as_unit("ns").value for time in (start, end)
    )
    return (closing - opening) % DAY or DAY


def _open_days(offset: Any) -> int:
    """Return on how many days of a week an offset has stamps."""
    calendar = getattr(offset, "calendar", None)
    return 5 if calendar is None else int(np.sum(calendar.weekmask))


@functools.lru_cache(maxsize=100)
def _stamps_of_a_year(base: Any) -> int:
    """Return how many stamps of an offset a year has, 0 where that is not about a whole number."""
    start = pd.Timestamp("1990-01-01")
    stamps = pd.date_range(start, start + pd.DateOffset(years=COUNTED_YEARS), freq=base)
    mean = len(stamps) / COUNTED_YEARS
    return round(mean) if abs(mean - round(mean)) < UNEVEN else 0
