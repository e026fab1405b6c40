"""The frequency that most of a panel has, found from its stamps."""

from dataclasses import replace

import numpy as np
import pandas as pd

from tsar.data.frequency import MONDAY, Frequency, month_day
from tsar.data.offsets import parse_offset
from tsar.data.timeaxis import DAY, UNIT, TimeAxis
from tsar.exceptions import DataError

__all__ = ["infer_frequency", "nearest_step", "usual_step"]

# This many evenly spread steps are looked at: the majority of a large panel is known
# long before all of it was read.
SAMPLED_STEPS = 100_000
# Share of the stamps that have to agree on a day of the month, or on open weekdays.
AGREEMENT = 0.8
# Share of rows that may lie outside of opening hours; how much of a week, and how many breaks, show
# that there are any, in two weeks at least. A day of the week is a seventh; rows that are missing
# by chance are so in all weeks too seldom.
STRAY, FEWEST_CLOSED, FEWEST_BREAKS = 0.02, 1 / 8, 3
# A weekday or a time of the week with less than this part of the rows due to it is closed, but for
# stray rows.
CLOSED = 0.35
# What people put irregular rows together by.
COMMON_STEPS = {
    **{f"{n}s" if n > 1 else "s": f"{n}s" for n in (1, 5, 10, 30)},
    **{f"{n}min" if n > 1 else "min": f"{n}min" for n in (1, 5, 10, 15, 30)},
    **{f"{n}h" if n > 1 else "h": f"{n}h" for n in (1, 2, 3, 6, 12)},
    **{"D": "1D", "W": "7D", "MS": "30.4375D", "QS": "91.3125D", "YS": "365.25D"},
}
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
# What is tried where neither days nor months explain every step.
UNEVEN_ALIASES = (
    *("BME", "BMS", "SME", "SMS", "BYE-DEC", "BYS-JAN"),
    *("BQE-OCT", "BQE-NOV", "BQE-DEC", "BQS-OCT", "BQS-NOV", "BQS-DEC"),
)


def infer_frequency(stamps: np.ndarray, offsets: np.ndarray, axis: TimeAxis) -> Frequency:
    """Find the frequency that most series of a panel have.

    Parameters
    ----------
    stamps : int64 array of shape (rows,)
        Sorted within each series.
    offsets : int64 array of shape (S + 1,)
        Row ranges of the series.
    axis : TimeAxis
        Where the stamps come from.

    Returns
    -------
    Frequency

    Raises
    ------
    DataError
        No series has three rows, so that there is nothing to infer from.
    """
    if axis.kind == "period":
        return Frequency.of_periods(axis)
    if not len(offsets) or np.diff(offsets).max(initial=0) < 3:
        raise DataError(
            "freq cannot be inferred because no series has 3 rows; pass it to the "
            "estimator, for example freq='h' or freq='D'"
        )
    before, after, owner = _sampled_steps(stamps, offsets)
    chosen = _majority(after - before, owner, 27 * DAY // UNIT[axis.unit])
    before, after, owner = before[chosen], after[chosen], owner[chosen]
    step, share = _mode(after - before)
    if axis.kind == "integer":
        return Frequency.steps(step)
    nanoseconds = step * UNIT[axis.unit]
    series = int(owner[np.diff(offsets)[owner].argmax()])
    longest = stamps[offsets[series] : offsets[series + 1]]
    length = Frequency.of_length(_length_name(nanoseconds), nanoseconds)
    if nanoseconds < 23 * 3600 * UNIT["s"]:
        return length if share == 1 else _infer_opening(longest, length, axis) or length
    local, following = _wall_times(before, after, axis)
    local_step, local_share = _mode(following - local)
    if share > local_share or local_step % axis.per_day:
        # Midnights of another zone, or steps that are no days.
        return length
    return _infer_days(local // axis.per_day, following // axis.per_day, longest, axis)


def usual_step(stamps: np.ndarray, axis: TimeAxis) -> str | None:
    """Return the frequency of one series by its name, None where that cannot be told."""
    try:
        return infer_frequency(stamps, np.array([0, len(stamps)]), axis).name
    except DataError:
        return None


def nearest_step(stamps: np.ndarray, axis: TimeAxis) -> str:
    """Return the alias of the usual length that is nearest to most steps of a series."""
    median = float(np.median(np.diff(stamps))) * UNIT[axis.unit]
    lengths = np.array(
        [pd.Timedelta(length).as_unit("ns").value for length in COMMON_STEPS.values()]
    )
    # By their ratio: 40 minutes are nearer to half an hour than to an hour.
    return list(COMMON_STEPS)[int(np.abs(np.log(lengths / max(median, 1.0))).argmin())]


def _sampled_steps(
    stamps: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return neighbouring stamps (before, after) of series of three rows, and the series."""
    stride = max((len(stamps) - 1) // SAMPLED_STEPS, 1)
    rows = np.arange(0, len(stamps) - 1, stride)
    owner = np.searchsorted(offsets, rows, side="right") - 1
    inside = (rows + 1 < offsets[owner + 1]) & (np.diff(offsets)[owner] >= 3)
    rows, owner = rows[inside], owner[inside]
    before, after = stamps[rows], stamps[rows + 1]
    forward = after > before
    if not forward.any():
        raise DataError("freq cannot be inferred because every timestamp is repeated; pass freq=")
    return before[forward], after[forward], owner[forward]


def _wall_times(
    before: np.ndarray, after: np.ndarray, axis: TimeAxis
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a wall clock shows, or would if no midnight were skipped."""
    stamps = np.stack([before, after], axis=1).reshape(-1)
    moved = axis.moved(stamps, np.arange(0, len(stamps) + 1, 2))
    times = axis.local(stamps)
    times = (times if moved is None else times - moved).reshape(-1, 2)
    return times[:, 0], times[:, 1]


def _majority(steps: np.ndarray, owner: np.ndarray, month: int) -> np.ndarray:
    """Return which steps belong to series whose typical step is that of most series."""
    order = np.lexsort((steps, owner))
    series, begins, counts = np.unique(owner[order], return_index=True, return_counts=True)
    typical = steps[order][begins + (counts - 1) // 2]
    # Months differ in length: long steps are alike if they are as many months.
    months = np.round(typical / month * 27 / 30.4375).astype(np.int64)
    kind = np.where(typical >= month, -months, typical)
    kinds, place = np.unique(kind, return_inverse=True)
    # One vote per series; rows decide between equals.
    votes = np.bincount(place) + 0.5 * np.bincount(place, weights=counts) / counts.sum()
    winners = series[kind == kinds[votes.argmax()]]
    return np.isin(owner, winners)


def _infer_days(
    before: np.ndarray, after: np.ndarray, longest: np.ndarray, axis: TimeAxis
) -> Frequency:
    """Choose between days, open weekdays, weeks and months from pairs of dates.

    ``longest`` holds the stamps of a series that has the frequency.
    """
    step, _ = _mode(after - before)
    if step == 1:
        return _infer_weekdays(before, after)
    months, share = _infer_months(before, after, step)
    if months is not None and share == 1:
        return months
    uneven, uneven_share = None, 0.0
    if step >= 13:
        uneven, uneven_share = _infer_uneven(longest, axis)
    if months is not None and share >= AGREEMENT and uneven_share < 1:
        return months
    if uneven is not None and uneven_share >= AGREEMENT:
        return uneven
    if step == 7:
        weekday, _ = _mode((before + 3) % 7)
        return Frequency.of_days(f"W-{WEEKDAYS[weekday].upper()}", 7)
    return Frequency.of_days(f"{step}D", step)


def _infer_opening(stamps: np.ndarray, length: Frequency, axis: TimeAxis) -> Frequency | None:
    """Return the opening hours that explain the breaks between steps of a length, if any do.

    ``stamps`` are those of a series that has such steps.
    """
    rows = stamps[:SAMPLED_STEPS]
    step, week = length.length(axis), 7 * axis.per_day
    moved = axis.moved(rows, np.array([0, len(rows)]))
    times = axis.local(rows) if moved is None else axis.local(rows) - moved
    weeks, clock = np.divmod(times + MONDAY * axis.per_day, week)
    slots, counts = np.unique(clock, return_counts=True)
    # What is there now and then is a stray row, and opening hours hold for nearly all of them.
    slots = slots[counts > CLOSED * len(np.unique(weeks))]
    strays = ~np.isin(clock, slots)
    closed_share = 1 - len(slots) * step / week
    is_short = times[-1] - times[0] < 2 * week
    if is_short or not len(slots) or closed_share < FEWEST_CLOSED or strays.mean() > STRAY:
        return None
    unit = UNIT[axis.unit]
    opening = Frequency.of_week(
        _opening_name(length.name, slots * unit, length.step), length.step, (slots * unit).tolist()
    )
    positions, phases = opening.positions(rows, np.array([0, len(rows)]), axis)
    on_grid = opening.on_grid(phases, axis)
    # Breaks at closed hours, and those that are one step of the opening hours.
    apart = np.diff(positions)
    closed = np.diff(times) // step > apart
    crossed = closed & (apart == 1) & on_grid[1:] & on_grid[:-1]
    enough = crossed.sum() >= FEWEST_BREAKS and crossed.sum() >= AGREEMENT * closed.sum()
    return opening if enough else None


def _opening_name(step: str, slots: np.ndarray, nanoseconds: int) -> str:
    """Say when steps are: "30min (Mon-Fri 09:30-15:30)" by the first and the last of a day."""
    days = slots // DAY
    hours = [slots[days == day] % DAY for day in np.unique(days)]
    alike = all(np.array_equal(one, hours[0]) for one in hours)
    if not alike or (np.diff(hours[0]) != nanoseconds).any():
        return f"{step} ({len(slots)} a week)"
    named = [WEEKDAYS[day] for day in np.unique(days)]
    at_a_stretch = len(named) > 1 and days[-1] - days[0] == len(named) - 1
    shown = f"{named[0]}-{named[-1]}" if at_a_stretch else " ".join(named)
    first, last = (str(pd.Timedelta(int(end))).split()[-1][:5] for end in hours[0][[0, -1]])
    return f"{step} ({shown} {first}-{last})"


def _infer_weekdays(before: np.ndarray, after: np.ndarray) -> Frequency:
    """Tell every day from weekdays on which nothing happens."""
    daily = Frequency.of_days("D", 1)
    weekdays = (before + 3) % 7
    counts = np.bincount(weekdays, minlength=7) + np.bincount((after + 3) % 7, minlength=7)
    closed = counts * 7 <= CLOSED * counts.sum()
    if not closed.any():
        return daily
    # Of each weekday, in how many days the next one is that is open.
    ahead = np.arange(7)[:, None] + np.arange(1, 8)
    opens = (~closed[ahead % 7]).argmax(axis=1) + 1
    at_border = closed[(weekdays + 1) % 7]
    crossed = at_border & (after - before == opens[weekdays])
    # Five days at a stretch are no evidence, and a Sunday may be missing by accident.
    weekend = bool((closed == [False] * 5 + [True] * 2).all())
    enough = crossed.sum() >= (1 if weekend else 3)
    if not enough or crossed.sum() < AGREEMENT * at_border.sum():
        return daily
    if weekend:
        return Frequency.of_offset(pd.offsets.BDay())
    days = " ".join(day for day, shut in zip(WEEKDAYS, closed, strict=True) if not shut)
    offset = pd.offsets.CustomBusinessDay(weekmask=days)
    return replace(Frequency.of_offset(offset), name=f"C ({days})")


def _infer_months(
    before: np.ndarray, after: np.ndarray, step: int
) -> tuple[Frequency | None, float]:
    """Return the frequency in months that a usual step suggests, and how many stamps agree."""
    months = round(step / 30.4375)
    if not months or abs(step - months * 30.4375) >= 2.5:
        return None, 0.0
    first, second = before.view("M8[D]").astype("M8[M]"), after.view("M8[D]").astype("M8[M]")
    crossed, _ = _mode((second - first).astype(np.int64))
    if crossed != months:
        return None, 0.0
    day, share = month_day(np.concatenate([before, after[-1:]]).view("M8[D]"))
    start, _ = _mode(first.astype(np.int64) % 12)
    return Frequency.of_months(_month_name(months, day, start), months, day), share


def _infer_uneven(stamps: np.ndarray, axis: TimeAxis) -> tuple[Frequency | None, float]:
    """Return the uneven frequency that explains most steps of a series, and their share."""
    rows = stamps[:200]
    offsets = np.array([0, len(rows)])
    best, best_share = None, 0.0
    for alias in UNEVEN_ALIASES:
        candidate = Frequency.of_offset(parse_offset(alias))
        positions, phases = candidate.positions(rows, offsets, axis)
        fits = candidate.on_grid(phases, axis) & (phases == phases[0])
        share = float(((np.diff(positions) == 1) & fits[1:] & fits[:-1]).mean())
        if share > best_share:
            best, best_share = candidate, share
    return best, best_share


def _mode(values: np.ndarray) -> tuple[int, float]:
    """Return the most frequent value and its share."""
    distinct, counts = np.unique(values, return_counts=True)
    return int(distinct[counts.argmax()]), float(counts.max() / len(values))


def _month_name(months: int, day: int, start: int) -> str:
    """Return the alias of a step of months; ``start`` is the month (from 0) of a stamp."""
    if day not in (0, 1):
        return f"{months} month{'s' if months > 1 else ''} (day {day})"
    letter = "E" if day == 0 else "S"
    unit, word = next(
        (size, word) for size, word in ((12, "Y"), (3, "Q"), (1, "M")) if not months % size
    )
    count = "" if months == unit else str(months // unit)
    if word == "M":
        return f"{count}M{letter}"
    anchor = start
    if word == "Q":
        # pandas names quarters by the end of the year, or by its first month.
        anchor = start % 3 + (9 if day == 0 else 0)
    return f"{count}{word}{letter}-{MONTHS[anchor]}"


def _length_name(nanoseconds: int) -> str:
    for name, size in (("h", 3600 * UNIT["s"]), ("min", 60 * UNIT["s"]), *UNIT.items()):
        if nanoseconds % size == 0:
            count = nanoseconds // size
            return f"{count if count > 1 else ''}{name}"
    raise AssertionError("a nanosecond divides everything")
