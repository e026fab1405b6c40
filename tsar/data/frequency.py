"""Frequencies: positions on a regular grid of time, and the stamps that follow.

Steps shorter than a day are lengths of time, so an hourly series has 23 or 25 rows on the
days of a clock change; steps of days, weeks and months belong to the local calendar, so a
daily series stays at local midnight across such a change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast

import numpy as np
import pandas as pd

from tsar.data.cycles import (
    WEEK,
    cycles_of_length,
    cycles_of_months,
    cycles_of_offset,
    cycles_of_week,
)
from tsar.data.offsets import describe_offset, parse_offset, rebuild_offset
from tsar.data.timeaxis import DAY, UNIT, TimeAxis, Unit
from tsar.exceptions import DataError
from tsar.params.constraints import Interval
from tsar.params.records import Length

__all__ = ["MONDAY", "Frequency", "FrequencyRecord", "month_day"]

# Months from one stamp to the next of the offsets that count months.
MONTH_STEPS = {
    **{"MonthBegin": 1, "MonthEnd": 1, "QuarterBegin": 3, "QuarterEnd": 3},
    **{"HalfYearBegin": 6, "HalfYearEnd": 6, "YearBegin": 12, "YearEnd": 12},
}
# Days from a Monday to the first day of the epoch, a Thursday.
MONDAY = 3
LENGTHS = {"hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds"}


class FrequencyRecord(TypedDict):
    """A :class:`Frequency` as JSON; earlier versions had the first of the cycles alone."""

    name: str
    rule: Literal["fixed", "months", "offset", "steps", "week"]
    step: Annotated[int, Interval(1, 2**63 - 1)]
    local: bool
    day: Annotated[int, Interval(0, 31)] | None
    phase: Annotated[int, Interval(-(2**63), 2**63 - 1)] | None
    offset: dict[str, Any] | None
    cycles: NotRequired[list[Length]]
    inexact: NotRequired[bool]
    season_length: NotRequired[Length]
    slots: NotRequired[list[Annotated[int, Interval(0, WEEK - 1)]]]


@dataclass(frozen=True)
class Frequency:
    """The step from one stamp to the next.

    Parameters
    ----------
    name : str
        The pandas alias, or a description where pandas has none.
    rule : {"fixed", "months", "offset", "steps", "week"}
        A length of time; calendar months; any other pandas offset; integers or periods; a length
        of time in the opening hours of a week.
    step : int
        Nanoseconds, months, or integers from one stamp to the next.
    local : bool
        Whether a fixed step is counted on the local wall clock (days and weeks).
    day : int or None
        Day of the month for ``rule="months"``, 0 for the last one; None until
        :meth:`settle` takes it from the data.
    phase : int or None
        Remainder that every stamp must have (a weekday, the month of a quarter); None
        leaves it to each series.
    offset : pandas offset or None
        The offset of ``rule="offset"``.
    cycles : tuple of int
        Steps in a day, a week and a year, those that are whole, the shortest first; see
        :mod:`tsar.data.cycles`.
    inexact : bool
        Whether the first of them is a year of days or weeks, which is no whole number of them.
    slots : tuple of int
        The stamps of a week, in nanoseconds from Monday's midnight, for ``rule="week"``.
    """

    name: str
    rule: Literal["fixed", "months", "offset", "steps", "week"]
    step: int = 1
    local: bool = False
    day: int | None = 1
    phase: int | None = None
    offset: Any = None
    cycles: tuple[int, ...] = ()
    inexact: bool = False
    slots: tuple[int, ...] = ()

    # --------------------------------------------------------------- made from

    @classmethod
    def parse(cls, freq: Any, axis: TimeAxis) -> "Frequency":
        """Read a frequency that the user gave.

        Parameters
        ----------
        freq : str, pandas offset, timedelta or int
            An alias (old and new spellings), an offset object, a length (whole days are
            days of the calendar), or the step of an integer axis.
        axis : TimeAxis
            The axis it is meant for.

        Raises
        ------
        DataError
            The alias is unknown, or does not fit the kind of axis.
        """
        number = isinstance(freq, int | np.integer) and not isinstance(freq, bool | np.timedelta64)
        if (axis.kind == "integer") != number:
            held = f"{axis.kind}s"
            wanted = "an integer step" if axis.kind == "integer" else "a pandas alias such as 'h'"
            raise DataError(
                f"freq must be {wanted} because the time column holds {held}, got {freq!r}"
            )
        if number:
            if freq < 1:
                raise DataError(f"freq must be at least 1, got {freq}; use a positive step")
            return cls.steps(int(freq))
        frequency = cls.of_offset(parse_offset(freq))
        if axis.kind != "period":
            return frequency
        own = cls.of_periods(axis)
        of_periods = cls.of_offset(axis.period_offset)
        if (frequency.rule, frequency.step) != (of_periods.rule, of_periods.step):
            raise DataError(
                f"freq must be that of the periods, {own.name!r}, got {freq!r}; leave it out, or "
                f"convert the time column with .asfreq"
            )
        return own

    @classmethod
    def steps(cls, step: int) -> "Frequency":
        """Return the frequency of integers ``step`` apart."""
        return cls(str(step), "steps", step=step)

    @classmethod
    def of_periods(cls, axis: TimeAxis) -> "Frequency":
        """Return the frequency of an axis of periods, whose stamps are their ordinals."""
        offset = axis.period_offset
        of = cls.of_offset(offset)
        alias, step = axis.period_alias, int(offset.n)
        return cls(alias, "steps", step=step, cycles=of.cycles, inexact=of.inexact)

    @classmethod
    def of_days(cls, name: str, days: int, phase: int | None = None) -> "Frequency":
        """Return a step of calendar days."""
        return replace(cls.of_length(name, days * DAY), local=True, phase=phase)

    @classmethod
    def of_length(cls, name: str, nanoseconds: int) -> "Frequency":
        """Return a step that is a length of time."""
        cycles = cycles_of_length(nanoseconds)
        inexact = bool(cycles) and nanoseconds * cycles[0] > WEEK
        return cls(name, "fixed", step=nanoseconds, cycles=cycles, inexact=inexact)

    @classmethod
    def of_week(cls, name: str, nanoseconds: int, slots: Sequence[int]) -> "Frequency":
        """Return a step in the opening hours of a week, whose stamps are given."""
        cycles = cycles_of_week(slots)
        return cls(name, "week", step=nanoseconds, cycles=cycles, slots=tuple(slots))

    @classmethod
    def of_months(
        cls, name: str, months: int, day: int | None, phase: int | None = None
    ) -> "Frequency":
        """Return a step of calendar months; ``day`` is 0 for the last day of the month."""
        cycles = cycles_of_months(months)
        return cls(name, "months", months, day=day, phase=phase, cycles=cycles)

    @classmethod
    def of_offset(cls, offset: Any) -> "Frequency":
        """Return the frequency of a pandas offset."""
        name, n, kind = offset.freqstr, int(offset.n), type(offset).__name__
        if isinstance(offset, pd.offsets.Day):
            return cls.of_days(name, n)
        if isinstance(offset, pd.offsets.Tick):
            return cls.of_length(name, pd.Timedelta(offset).as_unit("ns").value)
        if isinstance(offset, pd.offsets.Week):
            # Day 0 of the epoch was a Thursday.
            weekday = getattr(offset, "weekday", None)
            phase = None if weekday is None or n > 1 else (weekday - 3) % 7
            return cls.of_days(name, 7 * n, phase)
        if kind in MONTH_STEPS:
            months = MONTH_STEPS[kind] * n
            first = getattr(offset, "startingMonth", getattr(offset, "month", 1))
            phase = (first - 1) % months if n == 1 else None
            return cls.of_months(name, months, int(kind.endswith("Begin")), phase)
        if type(offset) is pd.DateOffset:
            return cls._of_date_offset(name, offset)
        return cls(name, "offset", offset=offset, cycles=cycles_of_offset(offset))

    @classmethod
    def _of_date_offset(cls, name: str, offset: Any) -> "Frequency":
        parts: dict[str, int] = {part: int(count) for part, count in offset.kwds.items()}
        if not parts:
            return cls.of_days(f"{offset.n}D", offset.n)
        if set(parts) <= {"months", "years"}:
            months = offset.n * (parts.get("months", 0) + 12 * parts.get("years", 0))
            return cls.of_months(name, months, day=None)
        if set(parts) <= {"days", "weeks"}:
            days = offset.n * (parts.get("days", 0) + 7 * parts.get("weeks", 0))
            return cls.of_days(f"{days}D", days)
        if set(parts) <= LENGTHS:
            return cls.of_length(
                name, int(pd.Timedelta(**cast(Any, parts)).as_unit("ns").value) * offset.n
            )
        raise DataError(
            f"freq={offset!r} does not step by months, days or lengths of time alone; use one of "
            f"them, or an anchored offset such as pd.offsets.MonthBegin()"
        )

    def settle(self, stamps: np.ndarray, axis: TimeAxis) -> "Frequency":
        """Take from the data what an alias leaves open: the day of ``DateOffset(months=1)``."""
        if self.day is not None:
            return self
        day, _ = month_day((axis.local(stamps) // axis.per_day).view("M8[D]"))
        return self.of_months(self.name, self.step, day)

    # ------------------------------------------------------------------- used

    @property
    def season_length(self) -> int:
        """The cycle one would look for first, 1 where there is none: a day of hours."""
        return self.cycles[0] if self.cycles else 1

    def season_of(self, n_rows: int) -> int:
        """Return the season of data whose longest series has so many rows.

        It is the first of the cycles. A year of days or weeks, which is no whole number of them,
        counts where two of them are there, and is no season of shorter data.

        Parameters
        ----------
        n_rows : int
        """
        short = self.inexact and n_rows < 2 * self.season_length
        return 1 if short else self.season_length

    def length(self, axis: TimeAxis) -> int:
        """Return a fixed step in the unit of an axis."""
        if self.step % UNIT[axis.unit]:
            raise DataError(
                f"freq={self.name!r} is finer than the {axis.unit!r} resolution of the "
                f"timestamps; pass a coarser freq, or convert the time column"
            )
        return self.step // UNIT[axis.unit]

    @property
    def _on_the_wall(self) -> bool:
        """Whether the steps are those of a wall clock."""
        return self.rule in ("months", "offset", "week") or self.local

    def moved(self, stamps: np.ndarray, offsets: np.ndarray, axis: TimeAxis) -> np.ndarray | None:
        """Return how far clock changes moved the stamps, see :meth:`TimeAxis.moved`."""
        if not self._on_the_wall:
            return None
        return axis.moved(stamps, offsets, self.length(axis) if self.rule == "fixed" else None)

    def _left_out(self, local: np.ndarray, axis: TimeAxis) -> np.ndarray:
        """Return the days that a zone left out, and that are no steps: longer ones move instead."""
        days = self.rule == "fixed" and self.local and self.step == DAY
        if days or self.rule == "week" or (self.rule == "offset" and int(self.offset.n) == 1):
            return axis.skipped_days(local)
        return np.zeros(0, dtype=np.int64)

    def _steps_on(self, day: int, axis: TimeAxis) -> int:
        """Return how many steps a day would have had."""
        ends, _ = self._places(np.array([day, day + 1]) * axis.per_day, axis)
        return int(ends[1] - ends[0])

    def positions(
        self, stamps: np.ndarray, offsets: np.ndarray, axis: TimeAxis
    ) -> tuple[np.ndarray, np.ndarray]:
        """Place stamps on the grid.

        Parameters
        ----------
        stamps : int64 array of shape (rows,)
            In the unit of ``axis``, sorted within each series.
        offsets : int64 array of shape (S + 1,)
            Row ranges of the series.
        axis : TimeAxis
            Where they come from.

        Returns
        -------
        positions : int64 array of shape (rows,)
            One apart for neighbours on the grid; only their differences have a meaning.
        phases : int64 array of shape (rows,)
            Equal for all stamps on one grid.
        """
        if self.rule == "steps":
            return stamps // self.step, stamps % self.step
        times = stamps
        if self._on_the_wall:
            moved = self.moved(stamps, offsets, axis)
            times = axis.local(stamps)
            times = times if moved is None else times - moved
        if self.rule == "months":
            return self._month_positions(times // axis.per_day, times % axis.per_day, axis)
        places, phases = self._places(times, axis)
        for day in self._left_out(times, axis):
            places = places - (times >= (day + 1) * axis.per_day) * self._steps_on(day, axis)
        return places, phases

    def _places(self, times: np.ndarray, axis: TimeAxis) -> tuple[np.ndarray, np.ndarray]:
        """Place the times of a wall clock on the grid, whether there are such times or not."""
        if self.rule == "fixed":
            step = self.length(axis)
            return times // step, times % step
        if self.rule == "week":
            return self._week_positions(times, axis)
        if isinstance(self.offset, pd.offsets.BusinessHour):
            return self._hour_positions(times, axis.unit)
        return self._offset_positions(times // axis.per_day, times % axis.per_day)

    def on_grid(self, phases: np.ndarray, axis: TimeAxis) -> np.ndarray:
        """Return which phases this frequency admits at all, whatever the series.

        ``freq="MS"`` does not admit the 15th, however regular it is.
        """
        if self.rule == "months":
            wanted = True if self.phase is None else phases % self.step == self.phase
            return (phases // self.step % 32 == 0) & wanted
        if self.rule in ("offset", "week"):
            return phases % 2 == 0
        if self.phase is None:
            return np.ones(len(phases), dtype=bool)
        return phases // axis.per_day == self.phase

    def _month_positions(
        self, dates: np.ndarray, clock: np.ndarray, axis: TimeAxis
    ) -> tuple[np.ndarray, np.ndarray]:
        days = dates.view("M8[D]")
        day, length = _day_and_length(days)
        wanted = self._day_of(dates - day + 1, length, axis)
        number = days.astype("M8[M]").astype(np.int64)
        # A phase is the month, the day (0 where it is the right one) and the time of day:
        # 09:00 and 10:00 are two grids.
        phase = number % self.step + self.step * (np.where(day == wanted, 0, day) + 32 * clock)
        return number // self.step, phase

    def _day_of(self, starts: np.ndarray, length: np.ndarray, axis: TimeAxis) -> np.ndarray:
        """Return the day of months that begin on some days and have a length.

        It is the one before where a zone left it out: 1994 ended on 30 December in Kiritimati.
        """
        day = length if self.day == 0 else np.minimum(self.day or 1, length)
        skipped = axis.skipped_days(np.stack([starts, starts + length]) * axis.per_day)
        return cast(np.ndarray, day - np.isin(starts + day - 1, skipped))

    def _week_positions(self, times: np.ndarray, axis: TimeAxis) -> tuple[np.ndarray, np.ndarray]:
        slots = self._slots(axis)
        week, clock = np.divmod(times + MONDAY * axis.per_day, 7 * axis.per_day)
        place, on_grid = _search(slots, clock)
        return week * len(slots) + place, (~on_grid).astype(np.int64)

    def _slots(self, axis: TimeAxis) -> np.ndarray:
        """Return the stamps of a week in the unit of an axis."""
        slots, unit = np.array(self.slots, dtype=np.int64), UNIT[axis.unit]
        if (slots % unit).any():
            raise DataError(
                f"freq={self.name!r} is finer than the {axis.unit!r} resolution of the "
                f"timestamps; convert the time column"
            )
        return slots // unit

    def _offset_positions(
        self, dates: np.ndarray, clock: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        days, n = dates.view("M8[D]"), int(self.offset.n)
        if isinstance(self.offset, pd.offsets.BusinessDay):
            options = self._business_calendar
            count = np.busday_count(np.datetime64(0, "D"), days, **options)
            on_grid = np.is_busday(days, **options)
        else:
            grid = pd.date_range(days.min(), days.max(), freq=self.offset.base)
            count, on_grid = _search(grid.to_numpy().astype("M8[D]"), days)
        count = count.astype(np.int64)
        return count // n, ~on_grid + 2 * (count % n + n * clock)

    def _hour_positions(self, times: np.ndarray, unit: Unit) -> tuple[np.ndarray, np.ndarray]:
        first, last = (pd.Timestamp(int(end), unit=unit) for end in (times.min(), times.max()))
        grid = pd.date_range(first, last, freq=self.offset.base)
        count, on_grid = _search(np.asarray(grid.as_unit(unit).asi8), times)
        n = int(self.offset.n)
        # Minutes past the hour need no phase: only whole steps from the opening are found.
        return count // n, ~on_grid + 2 * (count % n)

    @property
    def _business_calendar(self) -> dict[str, Any]:
        calendar = getattr(self.offset, "calendar", None)
        return {} if calendar is None else {"busdaycal": calendar}

    def future(
        self,
        last: np.ndarray,
        horizon: int,
        axis: TimeAxis,
        moved: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the stamps that follow.

        Parameters
        ----------
        last : int64 array of shape (S,)
            The last stamp of each series.
        horizon : int
            How many stamps to return.
        axis : TimeAxis
            Where ``last`` comes from.
        moved : int64 array of shape (S,), optional
            How far a clock change moved the last stamps, see :meth:`TimeAxis.moved`.

        Returns
        -------
        int64 array of shape (S, horizon)

        Raises
        ------
        DataError
            They lie beyond what 64 bits hold: nanoseconds end in the year 2262.
        """
        try:
            stamps = self._following(last, horizon, axis, moved)
            if not len(stamps) or (stamps.min(axis=1) > last).all():
                return stamps
        except (pd.errors.OutOfBoundsDatetime, OverflowError):
            pass
        raise DataError(
            f"the stamps that follow {axis.show(int(last.max()))} do not fit into the time "
            f"column (unit {axis.unit!r}); convert it to a coarser unit, or shorten the horizon"
        )

    def _following(
        self, last: np.ndarray, horizon: int, axis: TimeAxis, moved: np.ndarray | None
    ) -> np.ndarray:
        ahead = np.arange(1, horizon + 1, dtype=np.int64)
        if self.rule == "steps":
            return last[:, None] + ahead * self.step
        if self.rule == "fixed" and not (self.local and axis.tz is not None):
            return last[:, None] + ahead * self.length(axis)
        local = axis.local(last)
        local = local if moved is None else local - moved
        # Series usually end together: each distinct end is computed once.
        ends, owner = np.unique(local, return_inverse=True)
        stamps = self._ahead(ends, ahead, axis)
        left_out = self._left_out(stamps, axis)
        if len(left_out):
            lost = sum(self._steps_on(day, axis) for day in left_out)
            more = self._ahead(ends, np.arange(1, horizon + lost + 1, dtype=np.int64), axis)
            there = ~np.isin(more // axis.per_day, left_out)
            stamps = np.array([row[rows][:horizon] for row, rows in zip(more, there, strict=True)])
        return axis.universal(stamps)[owner]

    def _ahead(self, ends: np.ndarray, ahead: np.ndarray, axis: TimeAxis) -> np.ndarray:
        """Return what a wall clock shows some steps after each of some ends."""
        if self.rule == "fixed":
            return cast(np.ndarray, ends[:, None] + ahead * self.length(axis))
        if self.rule == "months":
            return self._future_months(ends, ahead, axis)
        if self.rule == "week":
            place, _ = self._week_positions(ends, axis)
            slots = self._slots(axis)
            week, number = np.divmod(place[:, None] + ahead, len(slots))
            return cast(np.ndarray, (7 * week - MONDAY) * axis.per_day + slots[number])
        if isinstance(self.offset, pd.offsets.BusinessDay):
            days = (ends // axis.per_day).view("M8[D]")[:, None]
            following = np.busday_offset(
                days, ahead * self.offset.n, roll="backward", **self._business_calendar
            )
            clock = ends[:, None] % axis.per_day
            return cast(np.ndarray, following.astype(np.int64) * axis.per_day + clock)
        following = [self._future_offsets(end, len(ahead), axis.unit) for end in ends]
        return np.array(following, dtype=np.int64).reshape(len(ends), len(ahead))

    def _future_months(self, local: np.ndarray, ahead: np.ndarray, axis: TimeAxis) -> np.ndarray:
        per_day = axis.per_day
        dates, clock = local // per_day, local % per_day
        months = dates.view("M8[D]").astype("M8[M]")[:, None] + ahead * self.step
        starts = months.astype("M8[D]").astype(np.int64)
        length = (months + 1).astype("M8[D]").astype(np.int64) - starts
        day = self._day_of(starts, length, axis)
        return cast(np.ndarray, (starts + day - 1) * per_day + clock[:, None])

    def _future_offsets(self, end: int, horizon: int, unit: Unit) -> np.ndarray:
        start = pd.Timestamp(int(end), unit=unit)
        # The end itself is left out by position: some offsets roll it forward first.
        stamps = pd.date_range(start, periods=horizon + 1, freq=self.offset)
        stamps = stamps[stamps > start][:horizon]
        return np.asarray(stamps.as_unit(unit).asi8)

    # ---------------------------------------------------------------- stored

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        described = None if self.offset is None else describe_offset(self.offset)
        lists = {"cycles": list(self.cycles), "slots": list(self.slots)}
        return {**self.__dict__, "offset": described, **lists}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Frequency":
        """Rebuild a frequency from :meth:`to_dict`."""
        described = fields["offset"]
        offset = None if described is None else rebuild_offset(described)
        fields = dict(fields)
        # Models saved before there were cycles have the first of them.
        first = fields.pop("season_length", 1)
        cycles = fields.get("cycles", [first] if first > 1 else [])
        slots = tuple(fields.get("slots", ()))
        return cls(**{**fields, "offset": offset, "cycles": tuple(cycles), "slots": slots})


def _search(grid: np.ndarray, stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where stamps lie in a sorted grid, and which of them are on it."""
    count = np.searchsorted(grid, stamps)
    if not len(grid):
        return count, np.zeros(len(stamps), dtype=bool)
    return count, grid[np.minimum(count, len(grid) - 1)] == stamps


def _day_and_length(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the day of the month (from 1) and the length of the month."""
    months = days.astype("M8[M]")
    starts = months.astype("M8[D]")
    day = (days - starts).astype(np.int64) + 1
    return day, ((months + 1).astype("M8[D]") - starts).astype(np.int64)


def month_day(days: np.ndarray) -> tuple[int, float]:
    """Return the day of the month that most dates share, and the share of the dates.

    The day is 0 for the last one. Where a month is too short for the day, its last one
    counts as the day.
    """
    day, length = _day_and_length(days)
    distinct, counts = np.unique(day, return_counts=True)
    # The 30th becomes the 28th in February, so that late days need not be the most frequent.
    candidates = {int(distinct[counts.argmax()]), *distinct[distinct > 28].tolist()}
    shares = {0: float((day == length).mean())}
    for candidate in sorted(candidates, reverse=True):
        shares[candidate] = float((day == np.minimum(candidate, length)).mean())
    return max(shares.items(), key=lambda item: item[1])
