"""Time columns: read into integer stamps, and written again as they were.

Stamps are int64 counts of the column's own unit (pandas 2 uses nanoseconds, pandas 3
microseconds), UTC where the column has a time zone.
"""

import datetime
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, cast

import numpy as np
import pandas as pd
from pandas.api import types as dtypes

from tsar.data.dtypes import dtype_called, dtype_name
from tsar.data.timestyle import (
    guess_style,
    month_first,
    other_month_names,
    parse_text,
    plain,
    spelling,
    write_text,
)
from tsar.exceptions import DataError, PersistenceError

__all__ = [
    "AmbiguousDates",
    "DAY",
    "UNIT",
    "TimeAxis",
    "Times",
    "Unit",
    "read_times",
    "same_zone",
    "zone_name",
]

Unit = Literal["s", "ms", "us", "ns"]

DAY = 86_400_000_000_000
UNIT: dict[Unit, int] = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
LARGEST = 2**63 - 1
# The format of text is taken from the first text that has one, looking at this many.
LOOKED_AT = 100
OFFSET = re.compile(r"(?:[Zz]|[+-]\d{2}(?::?\d{2})?)$")
ZONE_STYLE = re.compile(r"(?:Z|%[:#]?z)$")


class AmbiguousDates(DataError):
    """Dates that can be read with the day or with the month first."""


class AxisRecord(TypedDict):
    """A :class:`TimeAxis` as JSON."""

    kind: Literal["timestamp", "period", "integer"]
    unit: Unit
    tz: str | None
    style: str | None
    dtype: str


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
    style : str or None
        How timestamps are written where the column is not of a datetime dtype: a style of
        :mod:`tsar.data.timestyle` for text, or "date", "datetime" or "Timestamp" for objects.
    dtype : str
        The dtype to give back, where it is not a datetime dtype.
    """

    kind: Literal["timestamp", "period", "integer"] = "timestamp"
    unit: Unit = "ns"
    tz: Any = None
    style: str | None = None
    dtype: str = ""

    def times(self, stamps: np.ndarray) -> pd.Index:
        """Return stamps of shape (n,) as a DatetimeIndex, a PeriodIndex or integers."""
        if self.kind == "integer":
            return pd.Index(stamps)
        if self.kind == "period":
            # The stubs of pandas do not know this constructor.
            return cast(Any, pd.PeriodIndex).from_ordinals(stamps, freq=self.period_alias)
        index = pd.DatetimeIndex(stamps.view(f"M8[{self.unit}]"))
        return index if self.tz is None else index.tz_localize("UTC").tz_convert(self.tz)

    def index(self, stamps: np.ndarray) -> pd.Index:
        """Return stamps of shape (n,) as an index in the form the frame had."""
        if self.kind == "integer":
            limits = np.iinfo(self.dtype.lower())
            inside = not len(stamps) or limits.min <= stamps.min() <= stamps.max() <= limits.max
            return pd.Index(stamps, dtype=self.dtype if inside else "int64")
        if self.kind == "period" or (self.style is None and not self.dtype):
            return self.times(stamps)
        # Series usually end together: each distinct time is written once.
        distinct, place = np.unique(stamps, return_inverse=True)
        times = cast(pd.DatetimeIndex, self.times(distinct))
        if self.style is None or self.style == "Timestamp":
            written = times.astype(object)
        elif self.style == "datetime":
            written = pd.Index(times.to_pydatetime(), dtype=object)
        elif self.style == "date":
            written = pd.Index(times.date, dtype=object)
        else:
            written = pd.Index(write_text(times, self.style), dtype=object)
        return written.take(place).astype(dtype_called(self.dtype))

    def show(self, stamp: int) -> str:
        """Return one stamp as text, for messages."""
        return str(self.index(np.array([stamp], dtype=np.int64))[0])

    @property
    def period_alias(self) -> str:
        """The alias of a period dtype: "M" of ``period[M]``."""
        return self.dtype[len("period[") : -1]

    @property
    def period_offset(self) -> Any:
        """The pandas offset from one period to the next."""
        return cast(pd.PeriodIndex, self.times(np.zeros(1, dtype=np.int64))).freq

    @property
    def per_day(self) -> int:
        """Stamps in a day."""
        return DAY // UNIT[self.unit]

    def stamps_of(self, stamps: np.ndarray, axis: "TimeAxis") -> np.ndarray:
        """Return stamps of another axis as stamps of this one, of the same kind.

        Frames of different resolution then say what both can; what is finer is rounded down.
        """
        if self.kind != "timestamp":
            return stamps
        own, other = UNIT[self.unit], UNIT[axis.unit]
        return stamps * (other // own) if other >= own else stamps // (own // other)

    def local(self, stamps: np.ndarray) -> np.ndarray:
        """Return what a wall clock shows at the UTC stamps."""
        if self.tz is None or self.kind != "timestamp":
            return stamps
        times = cast(pd.DatetimeIndex, self.times(stamps))
        return np.asarray(times.tz_localize(None).asi8)

    def universal(self, local: np.ndarray) -> np.ndarray:
        """Return the UTC stamps at which a wall clock shows ``local``.

        A time that a clock change skips moves forward to the first one that exists, over the
        whole day where a zone went to the other side of the date line; of a time that occurs
        twice, the first is taken.
        """
        if self.tz is None or self.kind != "timestamp":
            return local
        index = pd.DatetimeIndex(local.reshape(-1).view(f"M8[{self.unit}]"))
        aware = index.tz_localize(
            self.tz, ambiguous=np.ones(len(index), dtype=bool), nonexistent="shift_forward"
        )
        stamps = np.array(aware.tz_convert("UTC").as_unit(self.unit).asi8)
        if not _left_out_days(self.tz):
            return stamps.reshape(local.shape)
        # pandas knows no skips of a day: it returns to the day before, or goes on for too long.
        day = local.reshape(-1) // self.per_day
        skipped = self.local(stamps) // self.per_day != day
        if skipped.any():
            stamps[skipped] = self.universal((day[skipped] + 1) * self.per_day)
        return stamps.reshape(local.shape)

    def skipped_days(self, local: np.ndarray) -> np.ndarray:
        """Return the days that the zone left out altogether, from the first to the last of some.

        Samoa had no 30 December 2011.

        Parameters
        ----------
        local : int64 array
            What a wall clock shows, or would show.

        Returns
        -------
        int64 array
            Days since 1970, sorted.
        """
        if self.tz is None or self.kind != "timestamp" or not local.size:
            return np.zeros(0, dtype=np.int64)
        first, last = int(local.min()) // self.per_day, int(local.max()) // self.per_day
        begin, end = self.universal(np.array([first, last + 1]) * self.per_day)
        if (last + 1 - first) * self.per_day - (int(end) - int(begin)) < self.per_day // 2:
            return np.zeros(0, dtype=np.int64)
        days = np.arange(first, last + 2)
        return days[:-1][np.diff(self.universal(days * self.per_day)) == 0]

    def moved(
        self, stamps: np.ndarray, offsets: np.ndarray, cycle: int | None = None
    ) -> np.ndarray | None:
        """Return how far a clock change moved each stamp from the hour its series keeps.

        Where midnight does not exist, a series of local midnights has one stamp at 01:00. Where a
        Friday does not exist, a series of Fridays has one stamp on a Saturday.

        Parameters
        ----------
        stamps : int64 array of shape (rows,)
            UTC, sorted within each series.
        offsets : int64 array of shape (S + 1,)
            Row ranges of the series.
        cycle : int or None
            After so many units the clock is the same again; None is a day.

        Returns
        -------
        int64 array of shape (rows,) or None
            Wall-clock time minus the time that was meant; None where nothing moved.
        """
        if self.tz is None or self.kind != "timestamp" or len(stamps) < 2:
            return None
        local = self.local(stamps)
        cycle = self.per_day if cycle is None else cycle
        clock = local % cycle
        odd = np.flatnonzero(clock[1:] != clock[:-1])
        odd = np.union1d(odd, odd + 1)
        # Nothing but the end of a skipped hour is moved: the instant before it on the
        # clock does not exist, and leads to the same time.
        odd = odd[self.universal(local[odd] - 1) == stamps[odd]]
        if not len(odd):
            return None
        gap = (clock[odd] - _usual_nearby(clock, odd, offsets)) % cycle
        gap[self.universal(local[odd] - gap) != stamps[odd]] = 0
        if not gap.any():
            return None
        moved = np.zeros(len(stamps), dtype=np.int64)
        moved[odd] = gap
        return moved

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description, an :class:`AxisRecord`."""
        return {**self.__dict__, "tz": None if self.tz is None else zone_name(self.tz)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TimeAxis":
        """Rebuild an axis from :meth:`to_dict`."""
        tz = fields["tz"]
        return cls(**{**fields, "tz": None if tz is None else _zone_called(tz)})


@functools.lru_cache(maxsize=64)
def _left_out_days(zone: Any) -> bool:
    """Whether a zone ever went to the other side of the date line by leaving out a day."""
    instants = pd.date_range("1840-01-01", "2040-01-01", freq="D", tz="UTC", unit="s")
    clocks = instants.tz_convert(zone).tz_localize(None).asi8
    # A change of the clock for the summer is one of two hours at most.
    return bool((np.diff(clocks) > 1.5 * 86_400).any())


def zone_name(zone: datetime.tzinfo) -> str:
    """Return the name of a time zone: a key such as "Europe/Berlin", or an offset from UTC.

    Raises
    ------
    PersistenceError
        The zone has no name that means the same on another machine.
    """
    # What dateutil makes of a key is the path of a file of this machine.
    path = str(getattr(zone, "_filename", ""))
    try:
        offset = zone.utcoffset(None)
        if "zoneinfo/" in path:
            name = path.rpartition("zoneinfo/")[2]
        else:
            name = str(zone if offset is None else datetime.timezone(offset))
        # The local zone is another one elsewhere.
        if type(zone).__name__ != "tzlocal" and same_zone(_zone_called(name), zone):
            return name
    except (KeyError, ValueError, NotImplementedError):
        pass
    raise PersistenceError(
        f"save: the time zone {zone!r} cannot be stored; convert the data to a zone with a "
        f"name, for example tz_convert('Europe/Berlin')"
    )


def _zone_called(name: str) -> Any:
    # A DatetimeIndex reads every spelling of a zone, fixed offsets included.
    return pd.DatetimeIndex([], tz=name).tz


def same_zone(one: Any, other: Any) -> bool:
    """Return whether two time zones, or None, show the same time from 1970 to 2037.

    UTC and Etc/UTC do, and so do the classes of zoneinfo, pytz and dateutil for one key.
    """
    if one is None or other is None:
        return one is other
    if str(one) == str(other):
        return True
    # Before, the libraries disagree on one and the same zone; after, some know no rules.
    instants = pd.date_range("1970-01-01", "2037-12-31", freq="24h", tz="UTC")
    clocks = (instants.tz_convert(zone).tz_localize(None) for zone in (one, other))
    return next(clocks).equals(next(clocks))


def _usual_nearby(clock: np.ndarray, rows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the median clock of the rows around each row, or its own where it is alone."""
    series = np.searchsorted(offsets, rows, side="right") - 1
    around = rows[:, None] + np.array([-3, -2, -1, 1, 2, 3])
    inside = (around >= offsets[series][:, None]) & (around < offsets[series + 1][:, None])
    # What lies outside of the series is sorted to the end.
    clocks = np.where(inside, clock[np.clip(around, 0, len(clock) - 1)], np.iinfo(np.int64).max)
    clocks.sort(axis=1)
    count = inside.sum(axis=1)
    median = np.take_along_axis(clocks, np.maximum(count - 1, 0)[:, None] // 2, axis=1)[:, 0]
    return np.where(count > 0, median, clock[rows])


@dataclass(frozen=True)
class Times:
    """A time column, read.

    Parameters
    ----------
    stamps : int64 array of shape (rows,)
        In the unit of the axis.
    axis : TimeAxis
        How to write such times again.
    faults : dict of kind to bool array of shape (rows,)
        "timestamp" where there is no time, "time zone" where it is not that of the
        other rows.
    """

    stamps: np.ndarray
    axis: TimeAxis
    faults: dict[str, np.ndarray] = field(default_factory=dict)


def read_times(times: pd.Index, like: TimeAxis | None = None) -> Times:
    """Read a time column.

    Parameters
    ----------
    times : Index of shape (rows,)
        Timestamps of any resolution and zone, periods, integers, text, or Python objects.
    like : TimeAxis or None
        How times were written that these go on with. It settles what text leaves open:
        whether the day or the month comes first, and whether numbers are padded.

    Returns
    -------
    Times

    Raises
    ------
    DataError
        The column holds something else.
    """
    dtype = times.dtype
    if isinstance(times, pd.CategoricalIndex):
        return _read_categories(times, like)
    if isinstance(times, pd.PeriodIndex):
        axis = TimeAxis("period", dtype=f"period[{times.freqstr}]")
        return Times(np.asarray(times.asi8), axis, _faults(timestamp=times.isna()))
    if isinstance(times, pd.DatetimeIndex):
        axis = TimeAxis("timestamp", times.unit, times.tz)
        return Times(np.asarray(times.asi8), axis, _faults(timestamp=times.isna()))
    if dtypes.is_integer_dtype(dtype):
        missing = np.asarray(times.isna())
        _check_size(times)
        plain = times if isinstance(dtype, np.dtype) else times.array.to_numpy(object)
        stamps = np.where(missing, 0, plain).astype(np.int64) if missing.any() else plain
        stamps = np.asarray(stamps).astype(np.int64, copy=False)
        # Arrow integers come back as the plain ones.
        original = str(dtype) if not isinstance(dtype, pd.ArrowDtype) else "int64"
        return Times(stamps, TimeAxis("integer", dtype=original), _faults(timestamp=missing))
    if dtypes.is_datetime64_any_dtype(dtype):
        # A pyarrow column of timestamps.
        read = read_times(pd.DatetimeIndex(times.astype(object)))
        return Times(read.stamps, _with(read.axis, dtype=dtype_name(dtype)), read.faults)
    if dtypes.is_object_dtype(dtype) or dtypes.is_string_dtype(dtype):
        return _read_objects(times, like)
    raise DataError(
        f"the time column must hold timestamps, periods, integers or text, got dtype {dtype}; "
        f"convert it with pd.to_datetime, or to integers with .astype(int)"
    )


def _check_size(times: pd.Index) -> None:
    largest = times.max()
    if largest is not pd.NA and largest > LARGEST:
        raise DataError(
            f"the time column holds the integer {largest}, times are at most {LARGEST}; subtract "
            f"the first of them, or count in larger steps"
        )


def _with(axis: TimeAxis, **changes: Any) -> TimeAxis:
    return TimeAxis(**{**axis.__dict__, **changes})


def _faults(**masks: Any) -> dict[str, np.ndarray]:
    named = {kind.replace("_", " "): np.asarray(mask) for kind, mask in masks.items()}
    return {kind: mask for kind, mask in named.items() if mask.any()}


def _read_categories(times: pd.CategoricalIndex, like: TimeAxis | None) -> Times:
    """Read each category once."""
    read = read_times(times.categories, like)
    codes = np.asarray(times.codes)
    faults = {kind: mask[codes] & (codes >= 0) for kind, mask in read.faults.items()}
    unparsable = faults.pop("timestamp", False) | (codes < 0)
    return Times(read.stamps[codes], read.axis, _faults(timestamp=unparsable) | faults)


NO_TIMES = "the time column holds no times; fill it in, or name another one by time_column="


def _read_objects(times: pd.Index, like: TimeAxis | None) -> Times:
    """Read text, or Python objects of one kind or several."""
    held = dtypes.infer_dtype(times, skipna=True)
    if held == "string":
        return _read_text(times, like)
    if held == "period":
        return read_times(pd.PeriodIndex(times))
    if held == "integer":
        _check_size(times)
        return read_times(pd.Index(times.to_series().astype("Int64")))
    values = times.to_numpy(dtype=object)
    kinds = datetime.date | np.datetime64
    is_time = np.array([isinstance(v, kinds) and v == v for v in values], dtype=bool)
    if not is_time.any():
        example = next((v for v in values if not pd.isna(v)), None)
        if example is None:
            raise DataError(NO_TIMES)
        raise DataError(
            f"the time column must hold timestamps, periods, integers or text, got for example "
            f"{example!r} of type {type(example).__name__}; convert it with pd.to_datetime"
        )
    zones = np.array([str(getattr(v, "tzinfo", None)) for v in values], dtype=object)
    wanted = _most_common(zones[is_time])
    alike = is_time & (zones == wanted)
    first = values[int(alike.argmax())]
    parsed = pd.DatetimeIndex(pd.to_datetime(values[alike], utc=True, errors="coerce"))
    style = type(first).__name__ if type(first) in (datetime.date, datetime.datetime) else ""
    tz = getattr(first, "tzinfo", None)
    axis = TimeAxis("timestamp", parsed.unit, tz, style or "Timestamp", "object")
    stamps = np.zeros(len(values), dtype=np.int64)
    stamps[alike] = parsed.asi8
    # pandas 2 has no time before 1677.
    unparsable = ~is_time
    unparsable[alike] = parsed.isna()
    return Times(stamps, axis, _faults(timestamp=unparsable, time_zone=is_time & ~alike))


def _most_common(labels: Sequence[Any] | np.ndarray) -> Any:
    codes, distinct = pd.factorize(np.asarray(labels, dtype=object))
    return distinct[int(np.bincount(codes).argmax())]


def _read_text(times: pd.Index, like: TimeAxis | None) -> Times:
    texts = times[:LOOKED_AT].dropna().astype(object)
    if not len(texts):
        texts = times.dropna()[:1].astype(object)
    if not len(texts):
        raise DataError(NO_TIMES)
    style_before = "" if like is None or like.style is None else ZONE_STYLE.sub("%z", like.style)
    example, style = next(
        ((text, guessed) for text in texts if (guessed := guess_style(text)) is not None),
        (texts[0], None),
    )
    if style is None:
        raise DataError(
            f"the time column holds text that is no time, for example {str(example)!r}; convert it "
            f"with pd.to_datetime(..., format=...), or name another column by time_column="
        )
    style, parsed = _parse(times, style, str(example), style_before)
    named = other_month_names(style)
    if named is not None and parsed.isna().any():
        parsed_so = parse_text(times, named)
        if np.count_nonzero(parsed_so.notna()) > np.count_nonzero(parsed.notna()):
            style, parsed = named, parsed_so
    _check_no_quarters(str(example), style, parsed)
    unparsable = np.asarray(parsed.isna())
    stamps, dtype = np.asarray(parsed.asi8), dtype_name(times.dtype)
    style = spelling(times, parsed, style, style_before)
    if not style.endswith("%z"):
        axis = TimeAxis("timestamp", parsed.unit, parsed.tz, style, dtype)
        return Times(stamps, axis, _faults(timestamp=unparsable))
    # The offset from UTC is all that such text says of its zone.
    zones = _offsets(times)
    wanted = _most_common(zones[~unparsable]) if not unparsable.all() else ""
    first = example if wanted == "" else times[int((zones == wanted).argmax())]
    endings = {1: "Z", 3: "%#z", 6: "%:z"}
    tz = pd.DatetimeIndex([pd.Timestamp(first)]).tz
    style = style.removesuffix("%z") + endings.get(len(wanted), "%z")
    axis = TimeAxis("timestamp", parsed.unit, tz, style, dtype)
    elsewhere = (zones != wanted) & ~unparsable
    return Times(stamps, axis, _faults(timestamp=unparsable, time_zone=elsewhere))


def _check_no_quarters(example: str, style: str, parsed: pd.DatetimeIndex) -> None:
    """Refuse a year and a number up to four, in several years: quarters, and no months."""
    if re.fullmatch(r"%Y\W?%m", style) is None or parsed.year.nunique() < 2:
        return
    if set(parsed.month.dropna()) == {1, 2, 3, 4}:
        raise DataError(
            f"the time column holds text such as {example!r}, which are quarters, or the months of "
            f"a third of each year; write quarters as in '2020Q1', and pd.to_datetime(times, "
            f"format={style!r}) makes them months"
        )


def _offsets(times: pd.Index) -> np.ndarray:
    """Return how each text ends: with Z, +01:00, +0100, +01, or nothing of the kind."""
    codes, ends = pd.factorize(
        np.array([text[-6:] for text in times.astype(object).fillna("")], dtype=object)
    )
    matches = [OFFSET.search(end) for end in ends]
    zones = ["" if match is None else match[0].upper() for match in matches]
    return np.array(zones, dtype=object)[codes]


def _parse(
    times: pd.Index, style: str, example: str, style_before: str
) -> tuple[str, pd.DatetimeIndex]:
    """Return the times, and the format with the day and the month in the right order."""
    other = month_first(style)
    if other is None:
        return style, _parse_as(times, style)
    day_first, separator = other
    # 03/04/2024 may be April: the order that reads more of the column is meant.
    parsed = {order: _parse_as(times, order) for order in (day_first, style)}
    lost = {order: int(np.sum(parsed_times.isna())) for order, parsed_times in parsed.items()}
    same = [order for order in parsed if style_before and plain(order) == plain(style_before)]
    if lost[style] != lost[day_first]:
        style = min(lost, key=lambda order: lost[order])
    elif same:
        # What goes on with other times is read as they are.
        style = same[0]
    elif "." in separator:
        style = day_first
    elif not parsed[day_first].equals(parsed[style]):
        raise AmbiguousDates(
            f"the time column holds text such as {example!r} of which every row can be read with "
            f"the day or with the month first; use pd.to_datetime(..., dayfirst=True) or "
            f"dayfirst=False"
        )
    return style, parsed[style]


def _parse_as(times: pd.Index, style: str) -> pd.DatetimeIndex:
    try:
        return parse_text(times, style)
    except ValueError as error:
        raise DataError(
            f"the time column holds text that cannot be read as {style!r}: {error}; convert it "
            f"with pd.to_datetime(..., utc=True)"
        ) from None
