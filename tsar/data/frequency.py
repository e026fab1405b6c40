"""Time axes and their frequencies: inference, positions on the grid, future stamps.

Stamps are int64 counts of the axis's own unit (pandas 2 uses nanoseconds, pandas 3
microseconds), UTC for time-zone-aware axes. Steps shorter than a day are lengths of
time, so an hourly series has 23 or 25 rows on the days of a clock change; steps of
days, weeks and months belong to the local calendar, so a daily series stays at local
midnight across such a change.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from tsar.exceptions import DataError

__all__ = ["Frequency", "TimeAxis", "describe_offset", "rebuild_offset"]

DAY = 86_400_000_000_000
UNIT = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
# Inference looks at this many evenly spread steps at most: the majority of a large
# panel is known long before all of it was read.
SAMPLED_STEPS = 100_000
# pandas 3 dropped the spellings on the left, which many scripts still use.
OLD_ALIASES = {
    **{"H": "h", "BH": "bh", "T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns"},
    **{"M": "ME", "BM": "BME", "SM": "SME", "CBM": "CBME"},
    **{"Q": "QE", "BQ": "BQE", "A": "YE", "Y": "YE", "BA": "BYE", "BY": "BYE"},
    **{"AS": "YS", "BAS": "BYS"},
}
# What inference tries where neither days nor months explain the steps.
UNEVEN_ALIASES = (
    *("BME", "BMS", "SME", "SMS"),
    *("BQE-OCT", "BQE-NOV", "BQE-DEC", "BQS-OCT", "BQS-NOV", "BQS-DEC"),
)
OFFSET_SEASONS = {"B": 5, "C": 5, "BME": 12, "BMS": 12, "SME": 24, "SMS": 24, "BQE": 4, "BQS": 4}


@dataclass(frozen=True)
class TimeAxis:
    """What the time column of a frame looks like, so that a forecast can look the same.

    Parameters
    ----------
    kind : {"timestamp", "period", "integer"}
        What a stamp is.
    unit : {"s", "ms", "us", "ns"}
        Unit of a timestamp.
    tz : tzinfo or None
        Time zone of an aware axis.
    text : str or None
        ``strftime`` format where the frame held strings.
    dtype : str
        The dtype to give back: of the integers, or of the periods.
    """

    kind: Literal["timestamp", "period", "integer"] = "timestamp"
    unit: str = "ns"
    tz: Any = None
    text: str | None = None
    dtype: str = ""

    def index(self, stamps: np.ndarray) -> pd.Index:
        """Return stamps of shape (n,) as an index in the form the frame had."""
        if self.kind == "integer":
            return pd.Index(stamps.astype(self.dtype))
        if self.kind == "period":
            return pd.PeriodIndex.from_ordinals(stamps, freq=self.dtype[len("period[") : -1])
        index = pd.DatetimeIndex(stamps.view(f"M8[{self.unit}]"))
        if self.tz is not None:
            index = index.tz_localize("UTC").tz_convert(self.tz)
        return index if self.text is None else pd.Index(index.strftime(self.text))

    def show(self, stamp: int) -> str:
        """Return one stamp as text, for messages."""
        return str(self.index(np.array([stamp], dtype=np.int64))[0])

    def local(self, stamps: np.ndarray) -> np.ndarray:
        """Return what a wall clock shows at the UTC stamps."""
        if self.tz is None or self.kind != "timestamp":
            return stamps
        index = pd.DatetimeIndex(stamps.view(f"M8[{self.unit}]")).tz_localize("UTC")
        return np.asarray(index.tz_convert(self.tz).tz_localize(None).asi8)

    def universal(self, local: np.ndarray) -> np.ndarray:
        """Return the UTC stamps at which a wall clock shows ``local``.

        A time that a clock change skips moves forward to the first one that exists; of
        a time that occurs twice, the first is taken.
        """
        if self.tz is None or self.kind != "timestamp":
            return local
        index = pd.DatetimeIndex(local.reshape(-1).view(f"M8[{self.unit}]"))
        aware = index.tz_localize(
            self.tz, ambiguous=np.ones(len(index), dtype=bool), nonexistent="shift_forward"
        )
        return np.asarray(aware.tz_convert("UTC").as_unit(self.unit).asi8).reshape(local.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        tz = None if self.tz is None else str(self.tz)
        return {**self.__dict__, "tz": tz}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TimeAxis":
        """Rebuild an axis from :meth:`to_dict`."""
        tz = fields["tz"]
        # A DatetimeIndex reads every spelling of a zone, fixed offsets included.
        parsed = None if tz is None else pd.DatetimeIndex([], tz=tz).tz
        return cls(**{**fields, "tz": parsed})


@dataclass(frozen=True)
class Frequency:
    """The step from one stamp to the next.

    Parameters
    ----------
    name : str
        The pandas alias, or a description where pandas has none.
    rule : {"fixed", "months", "offset", "steps"}
        A length of time; calendar months; any other pandas offset; integers.
    step : int
        Nanoseconds, months, or integers from one stamp to the next.
    local : bool
        Whether a fixed step is counted on the local wall clock (days and weeks).
    day : int
        Day of the month for ``rule="months"``, 0 for the last one.
    phase : int or None
        Remainder that every stamp must have (a weekday, the month of a quarter); None
        leaves it to each series.
    offset : pandas offset or None
        The offset of ``rule="offset"``.
    """

    name: str
    rule: Literal["fixed", "months", "offset", "steps"]
    step: int = 1
    local: bool = False
    day: int = 1
    phase: int | None = None
    offset: Any = None

    @property
    def season_length(self) -> int:
        """Steps in the cycle one would look for first: a day of hours, a year of months."""
        if self.rule == "months":
            return max(12 // self.step, 1)
        if self.rule == "fixed" and self.step < DAY:
            return max(DAY // self.step, 1) if self.step >= UNIT["s"] * 60 else 60
        if self.rule == "fixed":
            days = self.step // DAY
            return {1: 7, 7: 52}.get(days, max(round(365.25 / days), 1))
        if self.rule == "offset":
            return OFFSET_SEASONS.get(re.split(r"[-\d]", self.name)[0], 1)
        return 1

    def length(self, axis: TimeAxis) -> int:
        """Return a fixed step in the unit of an axis."""
        if self.step % UNIT[axis.unit]:
            raise DataError(
                f"freq={self.name!r} is finer than the {axis.unit!r} resolution of the "
                f"timestamps; pass a coarser freq, or convert the time column"
            )
        return self.step // UNIT[axis.unit]

    def positions(self, stamps: np.ndarray, axis: TimeAxis) -> tuple[np.ndarray, np.ndarray]:
        """Place stamps on the grid.

        Parameters
        ----------
        stamps : int64 array of shape (n,)
            In the unit of ``axis``.
        axis : TimeAxis
            Where they come from.

        Returns
        -------
        positions : int64 array of shape (n,)
            One apart for neighbours on the grid.
        phases : int64 array of shape (n,)
            Equal for all stamps on one grid.
        """
        if self.rule == "steps":
            return stamps // self.step, stamps % self.step
        if self.rule == "fixed":
            times = _local_times(stamps, axis) if self.local else stamps
            step = self.length(axis)
            return times // step, times % step
        times = _local_times(stamps, axis)
        per_day = DAY // UNIT[axis.unit]
        dates, clock = times // per_day, times % per_day
        if self.rule == "months":
            return self._month_positions(dates, clock)
        return self._offset_positions(dates, clock)

    def on_grid(self, phases: np.ndarray, axis: TimeAxis) -> np.ndarray:
        """Return which phases this frequency admits at all, whatever the series.

        ``freq="MS"`` does not admit the 15th, however regular it is.
        """
        if self.rule == "months":
            # positions() writes the month in the units, the day in the hundreds.
            within = phases % 10_000
            wanted = True if self.phase is None else within % 100 == self.phase
            return (within < 100) & wanted
        if self.rule == "offset":
            return phases % 2 == 0
        if self.phase is None:
            return np.ones(len(phases), dtype=bool)
        return phases // (DAY // UNIT[axis.unit]) == self.phase

    def _month_positions(
        self, dates: np.ndarray, clock: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        days = dates.view("M8[D]")
        months = days.astype("M8[M]")
        day = (days - months.astype("M8[D]")).astype(np.int64) + 1
        length = ((months + 1).astype("M8[D]") - months.astype("M8[D]")).astype(np.int64)
        wanted = length if self.day == 0 else np.minimum(self.day, length)
        number = months.astype(np.int64)
        phase = number % self.step + np.where(day == wanted, 0, 100 * day)
        # The time of day is part of the phase: 09:00 and 10:00 are two grids.
        return number // self.step, phase + 10_000 * clock

    def _offset_positions(
        self, dates: np.ndarray, clock: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        days = dates.view("M8[D]")
        if isinstance(self.offset, pd.offsets.BusinessDay) and self.offset.n == 1:
            calendar = getattr(self.offset, "calendar", None)
            options = {} if calendar is None else {"busdaycal": calendar}
            count = np.busday_count(np.datetime64(0, "D"), days, **options)
            off_grid = ~np.is_busday(days, **options)
            return count.astype(np.int64), off_grid + 2 * clock
        grid = pd.date_range(days.min(), days.max(), freq=self.offset)
        grid_days = grid.to_numpy().astype("M8[D]")
        count = np.searchsorted(grid_days, days)
        if not len(grid_days):
            return count, np.ones_like(dates)
        found = grid_days[np.minimum(count, len(grid_days) - 1)] == days
        return count.astype(np.int64), ~found + 2 * clock

    def future(self, last: np.ndarray, horizon: int, axis: TimeAxis) -> np.ndarray:
        """Return the stamps that follow.

        Parameters
        ----------
        last : int64 array of shape (S,)
            The last stamp of each series.
        horizon : int
            How many stamps to return.
        axis : TimeAxis
            Where ``last`` comes from.

        Returns
        -------
        int64 array of shape (S, horizon)
        """
        ahead = np.arange(1, horizon + 1, dtype=np.int64)
        if self.rule == "steps":
            return last[:, None] + ahead * self.step
        if self.rule == "fixed":
            steps = ahead * self.length(axis)
            if not self.local or axis.tz is None:
                return last[:, None] + steps
            return axis.universal(axis.local(last)[:, None] + steps)
        # Series usually end together: each distinct end is computed once.
        ends, owner = np.unique(last, return_inverse=True)
        local = axis.local(ends)
        if self.rule == "months":
            stamps = self._future_months(local, ahead, DAY // UNIT[axis.unit])
        else:
            stamps = np.stack([self._future_offsets(end, horizon, axis.unit) for end in local])
        return axis.universal(stamps)[owner]

    def _future_months(self, local: np.ndarray, ahead: np.ndarray, per_day: int) -> np.ndarray:
        dates, clock = local // per_day, local % per_day
        months = dates.view("M8[D]").astype("M8[M]")[:, None] + ahead * self.step
        starts = months.astype("M8[D]").astype(np.int64)
        length = (months + 1).astype("M8[D]").astype(np.int64) - starts
        day = length if self.day == 0 else np.minimum(self.day, length)
        return cast(np.ndarray, (starts + day - 1) * per_day + clock[:, None])

    def _future_offsets(self, end: int, horizon: int, unit: str) -> np.ndarray:
        start = pd.Timestamp(np.datetime64(int(end), unit))
        # The end itself is left out by position: some offsets roll it forward first.
        stamps = pd.date_range(start, periods=horizon + 1, freq=self.offset)
        stamps = stamps[stamps > start][:horizon]
        return np.asarray(stamps.as_unit(unit).asi8)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        described = None if self.offset is None else describe_offset(self.offset)
        return {**self.__dict__, "offset": described}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Frequency":
        """Rebuild a frequency from :meth:`to_dict`."""
        described = fields["offset"]
        offset = None if described is None else rebuild_offset(described)
        return cls(**{**fields, "offset": offset})

    @classmethod
    def parse(cls, freq: Any, axis: TimeAxis) -> "Frequency":
        """Read a frequency that the user gave.

        Parameters
        ----------
        freq : str, pandas offset, timedelta or int
            An alias (old and new spellings), an offset object, or the step of an
            integer axis.
        axis : TimeAxis
            The axis it is meant for.

        Raises
        ------
        DataError
            The alias is unknown, or does not fit the kind of axis.
        """
        number = isinstance(freq, int | np.integer) and not isinstance(freq, bool)
        if (axis.kind == "integer") != number:
            held = "integers" if axis.kind == "integer" else "timestamps"
            wanted = "an integer step" if axis.kind == "integer" else "a pandas alias such as 'h'"
            raise DataError(f"freq must be {wanted} because the time column holds {held}, got {freq!r}")
        if number:
            if freq < 1:
                raise DataError(f"freq must be at least 1, got {freq}")
            return cls(str(freq), "steps", step=int(freq))
        try:
            offset = to_offset(_modern(freq) if isinstance(freq, str) else freq)
        except (ValueError, TypeError):
            offset = None
        if offset is None:
            raise DataError(
                f"freq must be a pandas alias such as 'h', '15min', 'D', 'B', 'W-WED' or 'MS', "
                f"or an offset object, got {freq!r}"
            )
        if offset.n < 1:
            raise DataError(f"freq must point forward in time, got {freq!r}")
        return cls._from_offset(offset)

    @classmethod
    def _from_offset(cls, offset: Any) -> "Frequency":
        name, n = offset.freqstr, offset.n
        if isinstance(offset, pd.offsets.Day):
            return cls(name, "fixed", step=n * DAY, local=True)
        if isinstance(offset, pd.offsets.Tick):
            return cls(name, "fixed", step=pd.Timedelta(offset).as_unit("ns").value)
        if isinstance(offset, pd.offsets.Week):
            # Day 0 of the epoch was a Thursday.
            phase = None if offset.weekday is None or n > 1 else (offset.weekday - 3) % 7
            return cls(name, "fixed", step=7 * n * DAY, local=True, phase=phase)
        months = {"MonthBegin": 1, "MonthEnd": 1, "QuarterBegin": 3, "QuarterEnd": 3}
        months |= {"YearBegin": 12, "YearEnd": 12, "HalfYearBegin": 6, "HalfYearEnd": 6}
        kind = type(offset).__name__
        if kind in months:
            step = months[kind] * n
            first = getattr(offset, "startingMonth", getattr(offset, "month", 1))
            phase = (first - 1) % step if n == 1 else None
            return cls(name, "months", step=step, day=int(kind.endswith("Begin")), phase=phase)
        if type(offset) is pd.DateOffset and set(offset.kwds) <= {"months", "years"} and offset.kwds:
            step = n * (offset.kwds.get("months", 0) + 12 * offset.kwds.get("years", 0))
            # The day of the month is that of the data and is filled in by `settle`.
            return cls(name, "months", step=step, day=-1)
        return cls(name, "offset", offset=offset)

    def settle(self, stamps: np.ndarray, axis: TimeAxis) -> "Frequency":
        """Take from the data what an alias leaves open: the day of ``DateOffset(months=1)``."""
        if self.day != -1:
            return self
        days = (axis.local(stamps) // (DAY // UNIT[axis.unit])).view("M8[D]")
        day = _month_day(days)
        return Frequency(self.name, "months", step=self.step, day=1 if day is None else day)

    @classmethod
    def infer(cls, stamps: np.ndarray, offsets: np.ndarray, axis: TimeAxis) -> "Frequency":
        """Find the frequency that most of a panel has.

        Parameters
        ----------
        stamps : int64 array of shape (rows,)
            Sorted within each series.
        offsets : int64 array of shape (S + 1,)
            Row ranges of the series.
        axis : TimeAxis
            Where the stamps come from.

        Raises
        ------
        DataError
            No series has three rows, so that there is nothing to infer from.
        """
        if axis.kind == "period":
            alias = axis.dtype[len("period[") : -1]
            return cls(alias, "steps", step=int(to_offset(alias).n))
        if not len(offsets) or np.diff(offsets).max(initial=0) < 3:
            raise DataError(
                "freq cannot be inferred because no series has 3 rows; pass it to the "
                "estimator, for example freq='h' or freq='D'"
            )
        before, after = _sampled_pairs(stamps, offsets)
        step = _mode(after - before)
        if axis.kind == "integer":
            return cls(str(step), "steps", step=step)
        scale = UNIT[axis.unit]
        if step * scale >= 23 * 3600 * UNIT["s"]:
            before, after = axis.local(before), axis.local(after)
            step = _mode(after - before)
        nanoseconds = step * scale
        if nanoseconds % DAY or nanoseconds == 0:
            return cls(_fixed_name(nanoseconds), "fixed", step=nanoseconds)
        found = cls._infer_days(before // (DAY // scale), after // (DAY // scale))
        if found.step < 13 * DAY or found.rule != "fixed":
            return found
        # Days in the teens or months that no rule above explains: the last business day
        # of a month, or its 15th and last.
        longest = int(np.diff(offsets).argmax())
        rows = axis.local(stamps[offsets[longest] : offsets[longest + 1]][:1000])
        index = pd.DatetimeIndex(rows.view(f"M8[{axis.unit}]"))
        for alias in UNEVEN_ALIASES:
            if pd.date_range(index[0], index[-1], freq=alias).equals(index):
                return cls._from_offset(to_offset(alias))
        return found

    @classmethod
    def _infer_days(cls, before: np.ndarray, after: np.ndarray) -> "Frequency":
        """Choose between days, business days, weeks and months from pairs of dates."""
        step = _mode(after - before)
        first, second = before.view("M8[D]"), after.view("M8[D]")
        months = round(step / (365.25 / 12))
        if months and abs(step - months * 365.25 / 12) < 2.5:
            crossed = (second.astype("M8[M]") - first.astype("M8[M]")).astype(np.int64)
            day = _month_day(np.concatenate([first, second[-1:]]))
            if day is not None and _mode(crossed) == months:
                phase = None
                return cls(_month_name(months, day), "months", step=months, day=day, phase=phase)
        if step == 1:
            weekday = (before + 3) % 7
            weekend = (weekday > 4).any() or (((after + 3) % 7) > 4).any()
            if not weekend and ((weekday == 4) & (after - before == 3)).any():
                return cls("B", "offset", offset=pd.offsets.BDay())
        name = {1: "D", 7: f"W-{WEEKDAYS[int((before[-1] + 3) % 7)]}"}.get(step, f"{step}D")
        return cls(name, "fixed", step=step * DAY, local=True)


def describe_offset(offset: Any) -> dict[str, Any]:
    """Return a JSON-able description of a pandas offset, its holidays included."""
    if type(offset) is pd.DateOffset:
        return {"n": offset.n, "kwds": {name: int(value) for name, value in offset.kwds.items()}}
    calendar = getattr(offset, "calendar", None)
    if calendar is None:
        return {"freq": offset.freqstr}
    mask = offset.weekmask
    if not isinstance(mask, str):
        mask = "".join(str(int(open_day)) for open_day in calendar.weekmask)
    return {"n": offset.n, "weekmask": mask, "holidays": [str(day) for day in calendar.holidays]}


def rebuild_offset(described: dict[str, Any]) -> Any:
    """Undo :func:`describe_offset`."""
    if "freq" in described:
        return to_offset(described["freq"])
    if "kwds" in described:
        return pd.DateOffset(n=described["n"], **described["kwds"])
    return pd.offsets.CustomBusinessDay(
        n=described["n"], weekmask=described["weekmask"], holidays=described["holidays"]
    )


def _modern(alias: str) -> str:
    """Replace the alias spellings that pandas 3 dropped."""
    match = re.fullmatch(r"\s*(\d*)\s*([A-Za-z]+)(-[A-Za-z]+)?\s*", alias)
    if match is None:
        return alias
    count, word, anchor = match.groups()
    return f"{count}{OLD_ALIASES.get(word, word)}{anchor or ''}"


def _local_times(stamps: np.ndarray, axis: TimeAxis) -> np.ndarray:
    """Return wall-clock times, with those that a clock change moved put back.

    Where midnight does not exist, a series of local midnights has one stamp at 01:00; it
    is on the grid all the same.
    """
    local = axis.local(stamps)
    if axis.tz is None or not len(local):
        return local
    per_day = DAY // UNIT[axis.unit]
    clock = local % per_day
    usual = _mode(clock[:SAMPLED_STEPS])
    moved = np.flatnonzero(clock != usual)
    if not len(moved):
        return local
    meant = local[moved] - clock[moved] + usual
    local = local.copy()
    local[moved] = np.where(axis.universal(meant) == stamps[moved], meant, local[moved])
    return local


def _sampled_pairs(stamps: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return evenly spread neighbouring stamps (before, after) inside series."""
    stride = max((len(stamps) - 1) // SAMPLED_STEPS, 1)
    rows = np.arange(0, len(stamps) - 1, stride)
    series_end = offsets[np.searchsorted(offsets, rows, side="right")]
    rows = rows[rows + 1 < series_end]
    before, after = stamps[rows], stamps[rows + 1]
    forward = after > before
    if not forward.any():
        raise DataError("freq cannot be inferred because every timestamp is repeated; pass freq=")
    return before[forward], after[forward]


def _mode(values: np.ndarray) -> int:
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])


def _month_day(days: np.ndarray) -> int | None:
    """Return the day of the month that nine in ten dates share, 0 for the last, or None."""
    months = days.astype("M8[M]")
    day = (days - months.astype("M8[D]")).astype(np.int64) + 1
    length = ((months + 1).astype("M8[D]") - months.astype("M8[D]")).astype(np.int64)
    if (day == length).mean() >= 0.9:
        return 0
    # The largest of the frequent days: the 30th becomes the 28th in February.
    common = int(day.max()) if (day >= 28).all() else _mode(day)
    return common if (day == np.minimum(common, length)).mean() >= 0.9 else None


def _month_name(months: int, day: int) -> str:
    if day in (0, 1):
        letter = "E" if day == 0 else "S"
        for unit, word in ((12, "Y"), (3, "Q"), (1, "M")):
            if months % unit == 0:
                count = months // unit
                return f"{count if count > 1 else ''}{word}{letter}"
    return f"{months} month{'s' if months > 1 else ''} (day {day})"


def _fixed_name(nanoseconds: int) -> str:
    for name, size in (("h", 3600 * UNIT["s"]), ("min", 60 * UNIT["s"]), *UNIT.items()):
        if nanoseconds % size == 0:
            count = nanoseconds // size
            return f"{count if count > 1 else ''}{name}"
    raise AssertionError("a nanosecond divides everything")
