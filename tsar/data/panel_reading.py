"""Reading a frame into the parts of a panel: sorted, checked, on a regular grid.

Dimension letters: S series, C variates.
"""

from typing import Any

import numpy as np

from tsar.data.covariates import constant_values
from tsar.data.faults import SHOWN, Faults
from tsar.data.frames import Rows
from tsar.data.frequency import Frequency
from tsar.data.inference import infer_frequency, nearest_step, usual_step
from tsar.data.regularity import irregularities, is_regular, spread
from tsar.data.timeaxis import TimeAxis, read_times
from tsar.data.timestyle import check_no_dates
from tsar.exceptions import DataError

__all__ = ["PanelReader"]

# The square of a larger value is no finite number.
LARGEST = 1e150
# A wrong date may open a hole of any size: masks are made up to this many rows, or up to
# this many times the rows of the data.
MASKED_ROWS, MASKED_GROWTH = 10_000_000, 1000


class PanelReader:
    """Sorts the rows of a frame and checks them against the calendar.

    Parameters
    ----------
    rows : Rows
    like : TimeAxis or None
        What the times go on with, see :func:`~tsar.data.timeaxis.read_times`.
    """

    def __init__(self, rows: Rows, like: TimeAxis | None) -> None:
        self.rows = rows
        self.ids = rows.ids
        # What to call a single series that has no id.
        self.whole = None if rows.form.has_ids else rows.form.word
        self.faults = Faults()
        self.codes, self.values = rows.codes, rows.values
        read = read_times(rows.times, like)
        self.stamps, self.axis = read.stamps, read.axis
        self.not_numeric = rows.not_numeric
        # Which row of the frame each sorted row is; None while the order is the frame's.
        self.order: np.ndarray | None = None
        unusable = self.codes < 0
        if unusable.any():
            first = int(unusable.argmax())
            self.faults.add(None, "id", int(unusable.sum()), str(rows.times[first]))
        timeless = np.zeros(len(self.codes), dtype=bool)
        for kind, mask in read.faults.items():
            self._note_rows(kind, mask & ~unusable, raw=True)
            timeless |= mask & ~unusable
        # A row without a time leaves a hole behind, which is no fault of its own.
        self.lost = np.bincount(self.codes[timeless], minlength=len(rows.ids))
        if unusable.any() or timeless.any():
            self._select(np.flatnonzero(~(unusable | timeless)))
        self._sort()
        self._check_values()
        counts = np.bincount(self.codes, minlength=len(rows.ids))
        full = counts > 0
        if not full.all():
            # Series of which nothing is left.
            self.ids, self.lost, counts = self.ids[full], self.lost[full], counts[full]
            self.codes = (np.cumsum(full) - 1)[self.codes]
        self.offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def _select(self, order: np.ndarray) -> None:
        self.order = order if self.order is None else self.order[order]
        self.codes, self.stamps = self.codes[order], self.stamps[order]
        self.values = self.values[order]
        self.not_numeric = {name: mask[order] for name, mask in self.not_numeric.items()}

    def _sort(self) -> None:
        if len(self.rows.ids) == 1:
            if (self.stamps[1:] < self.stamps[:-1]).any():
                self._select(np.argsort(self.stamps, kind="stable"))
            return
        same = self.codes[1:] == self.codes[:-1]
        ordered = (self.codes[1:] > self.codes[:-1]) | (
            same & (self.stamps[1:] >= self.stamps[:-1])
        )
        if ordered.all():
            return
        low = self.stamps.min()
        span = int(self.stamps.max()) - int(low) + 1
        if span * len(self.rows.ids) < 2**63:
            # One key sorts several times faster than two.
            self._select(np.argsort(self.codes * span + (self.stamps - low)))
        else:
            self._select(np.lexsort((self.stamps, self.codes)))

    def _note_rows(
        self, kind: str, mask: np.ndarray, column: Any = None, raw: bool = False
    ) -> None:
        """Record rows with a fault of their own; ``raw`` shows what the frame held."""
        bad = np.flatnonzero(mask)
        owners, where, counts = np.unique(self.codes[bad], return_index=True, return_counts=True)
        for owner, row, count in zip(owners, bad[where], counts, strict=True):
            held = repr(self.rows.times[row]) if raw else self.axis.show(self.stamps[row])
            self.faults.add(self.ids[owner], kind, int(count), held, column)

    def _check_values(self) -> None:
        for name, mask in self.not_numeric.items():
            self._note_rows("non-numeric", mask, self._column(name))
        if not len(self.values):
            return
        limit = min(LARGEST, float(np.finfo(self.values.dtype).max))
        # Two passes without a large temporary.
        low, high = np.fmin.reduce(self.values, axis=None), np.fmax.reduce(self.values, axis=None)
        if not (low < -limit or high > limit):
            return
        for place, name in enumerate(self.rows.variates):
            values = self.values[:, place]
            too_large = (values < -limit) | (values > limit)
            if too_large.any():
                self._note_rows("infinite", too_large, self._column(name))

    def _column(self, name: Any) -> Any:
        # The values of a Series are in no column.
        return None if self.whole is not None and self.rows.form.squeeze else name

    def _frequency(self, freq: Any) -> Frequency:
        if isinstance(freq, Frequency):
            if (freq.rule == "steps") != (self.axis.kind != "timestamp"):
                raise DataError(
                    f"the time column holds {self.axis.kind}s, which do not go with the fitted "
                    f"freq={freq.name!r}; pass times of the kind that was fitted"
                )
            return freq
        if freq is not None:
            return Frequency.parse(freq, self.axis).settle(self.stamps, self.axis)
        inferred = infer_frequency(self.stamps, self.offsets, self.axis)
        # A wide frame may say what its rows alone leave open: Monday to Friday, every day
        # or every business day?
        stated = getattr(self.rows.times, "freq", None)
        if self.axis.kind != "timestamp" or stated is None or stated.n < 1:
            return inferred
        return Frequency.parse(stated, self.axis).settle(self.stamps, self.axis)

    def parts(self, freq: Any, gaps: str) -> dict[str, Any]:
        """Check the calendar and return what a panel is made of, by the names it has there.

        Parameters
        ----------
        freq, gaps
            As :meth:`tsar.data.panel.Panel.from_frame` takes them.

        Raises
        ------
        DataError
            One error for all faults.
        """
        if not len(self.stamps):
            self.faults.raise_if_any(self.whole)
        if freq is None and self.axis.kind == "integer":
            check_no_dates(self.stamps)
        try:
            frequency = self._frequency(freq)
        except DataError:
            # What is already known to be wrong explains more than a missing frequency.
            self.faults.raise_if_any(self.whole)
            raise
        positions = None
        if not is_regular(frequency, self.stamps, self.offsets, self.axis):
            irregular, positions = irregularities(
                frequency,
                self.stamps,
                self.offsets,
                self.axis,
                accept_gaps=gaps != "raise",
                lost=self.lost,
            )
            for owner, kind, count, first in irregular:
                self._note_irregular(owner, kind, count, self.axis.show(first), frequency, freq)
        most = ", as most series have" if freq is None and len(self.ids) > 1 else ""
        self.faults.raise_if_any(self.whole, f"freq={frequency.name!r}{most}")
        ends = self.offsets[1:] - 1
        moved = frequency.moved(self.stamps, self.offsets, self.axis)
        columns = {role: self._columns(role) for role in ("past", "future")}
        weight = None if self.rows.weight is None else self.rows.weight[self._order]
        parts: dict[str, Any] = {
            "values": self.values,
            "offsets": self.offsets,
            "ids": self.ids,
            "variates": self.rows.variates,
            "first": self.stamps[self.offsets[:-1]],
            "last": self.stamps[ends],
            "axis": self.axis,
            "frequency": frequency,
            "form": self.rows.form,
            "moved": None if moved is None else moved[ends],
            "static": self._static(),
            "weight": weight,
            **columns,
        }
        return parts if positions is None else parts | _on_grid(parts, positions, gaps)

    def _note_irregular(
        self, owner: int, kind: str, count: int, first: str, frequency: Frequency, freq: Any
    ) -> None:
        """Record a fault of the calendar of one series."""
        if kind != "frequency" or len(self.faults) >= SHOWN:
            self.faults.add(self.ids[owner], kind, count, first)
            return
        own = self.stamps[self.offsets[owner] : self.offsets[owner + 1]]
        step = usual_step(own, self.axis)
        if freq is None and step == frequency.name and self.axis.kind == "timestamp":
            # Its own step is none of most of its rows.
            nearest = nearest_step(own, self.axis)
            self.faults.add_irregular(self.ids[owner], count, first, nearest)
        else:
            self.faults.add(self.ids[owner], kind, count, first, step=step)

    @property
    def _order(self) -> Any:
        return slice(None) if self.order is None else self.order

    def _columns(self, role: str) -> dict[str, np.ndarray]:
        columns = self.rows.covariates.get(role, {})
        return {name: column[self._order] for name, column in columns.items()}

    def _static(self) -> dict[str, np.ndarray]:
        static = {}
        for name, column in self._columns("static").items():
            static[name], wrong = constant_values(column, self.offsets)
            if len(wrong):
                series = self.ids[self.codes[wrong[0]]]
                raise DataError(
                    f"static covariate {name!r} changes within id {series!r} at "
                    f"{self.axis.show(self.stamps[wrong[0]])}; declare it as a past or future "
                    f"covariate, or make it constant"
                )
        return static


def _on_grid(parts: dict[str, Any], positions: np.ndarray, gaps: str) -> dict[str, Any]:
    """Insert the missing rows, as rows of missing values or of zeros."""
    held, axis = parts["offsets"], parts["axis"]
    starts = positions[held[:-1]]
    lengths, before = positions[held[1:] - 1] - starts + 1, np.diff(held)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if offsets[-1] > max(MASKED_ROWS, MASKED_GROWTH * held[-1]):
        worst = int((lengths - before).argmax())
        raise DataError(
            f"gaps={gaps!r} would add {offsets[-1] - held[-1]} rows at "
            f"freq={parts['frequency'].name!r}, {lengths[worst] - before[worst]} of them to "
            f"id {parts['ids'][worst]!r}, which runs from {axis.show(parts['first'][worst])} to "
            f"{axis.show(parts['last'][worst])}; check its dates, or pass a coarser freq"
        )
    rows = positions + np.repeat(offsets[:-1] - starts, before)
    n_rows = int(offsets[-1])
    values = spread(parts["values"], rows, n_rows)
    if gaps == "zero":
        # What is missing within a row that is there stays so.
        values[np.setdiff1d(np.arange(n_rows), rows, assume_unique=True)] = 0.0
    gridded: dict[str, Any] = {"values": values, "offsets": offsets}
    for role in ("past", "future"):
        gridded[role] = {name: spread(c, rows, n_rows) for name, c in parts[role].items()}
    if parts["weight"] is not None:
        # A row that was put in weighs as much as the usual one.
        gridded["weight"] = np.ones(n_rows)
        gridded["weight"][rows] = parts["weight"]
    return gridded
