"""Faults of the calendar: gaps, duplicates, stamps off the grid, other frequencies.

Everything is computed for all series at once, so that a million rows take a fraction of
a second. Dimension letters: S series.
"""

from collections.abc import Iterator

import numpy as np

from tsar.data.frequency import Frequency
from tsar.data.timeaxis import TimeAxis

__all__ = ["irregularities", "is_regular", "spread"]

# Share of the rows of a series that may be off its grid before it has another frequency.
STRAY_SHARE = 1 / 3


def is_regular(
    frequency: Frequency, stamps: np.ndarray, offsets: np.ndarray, axis: TimeAxis
) -> bool:
    """Return True if every step is one step of a fixed length: the common case, fast."""
    if frequency.rule == "steps":
        step = frequency.step
    elif frequency.rule == "fixed" and (axis.tz is None or not frequency.local):
        step = frequency.length(axis)
    else:
        return False
    steps = stamps[1:] - stamps[:-1]
    steps[offsets[1:-1] - 1] = step
    if frequency.phase is not None:
        starts = stamps[offsets[:-1]]
        _, phases = frequency.positions(starts, np.arange(len(starts) + 1), axis)
        if not frequency.on_grid(phases, axis).all():
            return False
    return bool((steps == step).all())


def irregularities(
    frequency: Frequency,
    stamps: np.ndarray,
    offsets: np.ndarray,
    axis: TimeAxis,
    *,
    accept_gaps: bool,
    lost: np.ndarray,
) -> tuple[list[tuple[int, str, int, int]], np.ndarray | None]:
    """Find what is wrong with the stamps of every series.

    Parameters
    ----------
    frequency : Frequency
        What the series should have.
    stamps : int64 array of shape (rows,)
        Sorted within each series.
    offsets : int64 array of shape (S + 1,)
        Row ranges of the series.
    axis : TimeAxis
        Where the stamps come from.
    accept_gaps : bool
        Whether missing rows are no fault.
    lost : int64 array of shape (S,)
        Rows that were left out because they have no time: each explains one missing row.

    Returns
    -------
    faults : list of (series, kind, count, first stamp)
    positions : int64 array of shape (rows,) or None
        Places on the grid, where rows are missing and that is accepted.
    """
    positions, phases = frequency.positions(stamps, offsets, axis)
    steps = positions[1:] - positions[:-1]
    off_grid = ~frequency.on_grid(phases, axis)
    suspect = (steps != 1) | (phases[1:] != phases[:-1])
    suspect[offsets[1:-1] - 1] = False
    rows = np.concatenate([np.flatnonzero(suspect), np.flatnonzero(off_grid)])
    if not len(rows):
        return [], None
    series = np.unique(np.searchsorted(offsets, rows, side="right") - 1)
    lengths = np.diff(offsets)[series]
    begins = np.concatenate([[0], np.cumsum(lengths)])
    taken = np.arange(begins[-1]) + np.repeat(offsets[series] - begins[:-1], lengths)
    moved = frequency.moved(stamps, offsets, axis)
    part = _Part(
        frequency,
        axis,
        stamps[taken],
        begins,
        positions[taken],
        phases[taken],
        off_grid[taken],
        None if moved is None else moved[taken],
    )
    series_faults = part.faults(accept_gaps, lost[series])
    faults = [
        (int(series[place]), kind, count, first) for place, kind, count, first in series_faults
    ]
    return faults, positions if accept_gaps else None


class _Part:
    """The series that are not perfectly regular, one after the other."""

    def __init__(
        self,
        frequency: Frequency,
        axis: TimeAxis,
        stamps: np.ndarray,
        offsets: np.ndarray,
        positions: np.ndarray,
        phases: np.ndarray,
        off_grid: np.ndarray,
        moved: np.ndarray | None,
    ) -> None:
        self.frequency, self.axis, self.moved = frequency, axis, moved
        self.stamps, self.offsets = stamps, offsets
        self.n_series = len(offsets) - 1
        self.owner = np.repeat(np.arange(self.n_series), np.diff(offsets))
        usual = _modes(phases[~off_grid], self.owner[~off_grid], self.n_series)
        self.stray = off_grid | (phases != usual[self.owner])
        # Rows on the grid of their series, and the steps from each to the next.
        self.on_grid = np.flatnonzero(~self.stray)
        same = self.owner[self.on_grid[1:]] == self.owner[self.on_grid[:-1]]
        self.before, self.after = self.on_grid[:-1][same], self.on_grid[1:][same]
        self.steps = positions[self.after] - positions[self.before]

    def faults(self, accept_gaps: bool, lost: np.ndarray) -> Iterator[tuple[int, str, int, int]]:
        """Yield (series, kind, count, first stamp)."""
        other = self._other_frequency(accept_gaps)
        for place in np.flatnonzero(other):
            begin, end = self.offsets[place], self.offsets[place + 1]
            yield int(place), "frequency", int(end - begin), int(self.stamps[begin])
        right = ~other
        yield from self._count("off-grid", right, np.flatnonzero(self.stray))
        yield from self._count("duplicate", right, self.after[self.steps == 0])
        if not accept_gaps:
            yield from self._gaps(right, lost)

    def _other_frequency(self, accept_gaps: bool) -> np.ndarray:
        """Return the series, shape (S,), that no single bad row explains.

        They are mostly off the grid, or their usual step is a multiple of the right one.
        Where gaps are accepted, all of their steps have to be multiples of it.
        """
        lengths = np.diff(self.offsets)
        strays = np.bincount(self.owner[self.stray], minlength=self.n_series)
        other = strays > lengths * STRAY_SHARE
        forward = self.steps > 0
        steps, owner = self.steps[forward], self.owner[self.after[forward]]
        series, begins, counts = np.unique(owner, return_index=True, return_counts=True)
        if not len(series):
            return other
        if accept_gaps:
            multiple = (np.gcd.reduceat(steps, begins) > 1) & (counts >= 3)
        else:
            multiple = (_modes(steps, owner, self.n_series)[series] != 1) & (counts >= 2)
        other[series[multiple]] = True
        return other

    def _count(
        self, kind: str, right: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[int, str, int, int]]:
        rows = rows[right[self.owner[rows]]]
        places, begins, counts = np.unique(self.owner[rows], return_index=True, return_counts=True)
        for place, first, count in zip(places, rows[begins], counts, strict=True):
            yield int(place), kind, int(count), int(self.stamps[first])

    def _gaps(self, right: np.ndarray, lost: np.ndarray) -> Iterator[tuple[int, str, int, int]]:
        # A stamp off the grid stands for the row that is missing beside it.
        missing = self.steps - 1 - (self.after - self.before - 1)
        holes = np.flatnonzero((missing > 0) & right[self.owner[self.after]])
        places, begins = np.unique(self.owner[self.after[holes]], return_index=True)
        counts = np.add.reduceat(missing[holes], begins) if len(holes) else begins
        counts = counts - lost[places]
        before = self.before[holes[begins]]
        moved = None if self.moved is None else self.moved[before]
        absent = self.frequency.future(self.stamps[before], 1, self.axis, moved)[:, 0]
        for place, count, first in zip(places, counts, absent, strict=True):
            if count > 0:
                yield int(place), "gap", int(count), int(first)


def _modes(values: np.ndarray, owner: np.ndarray, n_series: int) -> np.ndarray:
    """Return the most frequent value of each series, 0 where there is none."""
    modes = np.zeros(n_series, dtype=np.int64)
    if not len(values):
        return modes
    order = np.lexsort((values, owner))
    values, owner = values[order], owner[order]
    change = (values[1:] != values[:-1]) | (owner[1:] != owner[:-1])
    begins = np.concatenate([[0], np.flatnonzero(change) + 1])
    counts = np.diff(np.append(begins, len(values)))
    runs = begins[np.lexsort((-counts, owner[begins]))]
    series, first = np.unique(owner[runs], return_index=True)
    modes[series] = values[runs[first]]
    return modes


def spread(column: np.ndarray, rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Return the rows of a column at other places, and missing values between them.

    Parameters
    ----------
    column : array of shape (rows, ...)
    rows : int64 array of shape (rows,)
        Where each row goes.
    n_rows : int
        How many rows there are then.

    Returns
    -------
    array of shape (n_rows, ...)
        Floats, or objects where the column holds no numbers.
    """
    numeric = column.dtype.kind in "fiub"
    dtype = np.result_type(column.dtype, np.float32) if numeric else object
    wide = np.full((n_rows, *column.shape[1:]), np.nan if numeric else None, dtype=dtype)
    wide[rows] = column
    return wide
