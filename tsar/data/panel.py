"""The panel: every series of a frame on a regular grid, checked once.

Dimension letters: S series, C variates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from tsar.data.calendar import CALENDARS
from tsar.data.codec import decode, decode_index, encode, encode_index
from tsar.data.covariates import CovariateCoding, CovariateRows, constant_values
from tsar.data.faults import SHOWN, Faults
from tsar.data.frames import FrameForm, Rows, read_rows
from tsar.data.frequency import Frequency
from tsar.data.inference import infer_frequency, usual_step
from tsar.data.regularity import irregularities, is_regular, spread
from tsar.data.stored_panel import check_panel
from tsar.data.timeaxis import TimeAxis, read_times
from tsar.data.timestyle import check_no_dates
from tsar.data.writing import write_frame
from tsar.exceptions import DataError

__all__ = ["Panel"]

# The square of a larger value is no finite number.
LARGEST = 1e150
# A wrong date may open a hole of any size: masks are made up to this many rows, or up to
# this many times the rows of the data.
MASKED_ROWS, MASKED_GROWTH = 10_000_000, 1000


@dataclass(frozen=True)
class Panel:
    """Series on a regular grid, one after the other; build one with :meth:`from_frame`.

    Attributes
    ----------
    values : float array of shape (rows, C)
        Targets, NaN where not observed. A view of the frame where that is possible:
        never written to.
    offsets : int64 array of shape (S + 1,)
        Series s owns the rows ``offsets[s]:offsets[s + 1]``.
    ids : Index of shape (S,)
        Series ids in the order of the frame.
    variates : Index of shape (C,)
        Names of the targets.
    first, last : int64 arrays of shape (S,)
        First and last stamp of each series, in the unit of ``axis``.
    moved : int64 array of shape (S,) or None
        How far a clock change moved the last stamps, see :meth:`TimeAxis.moved`.
    axis : TimeAxis
        What the time column looked like.
    frequency : Frequency
        The step of the grid.
    form : FrameForm
        The layout of the frame.
    past, future : dict of name to array of shape (rows,)
        Covariates known up to the origin, and over the horizon as well.
    static : dict of name to array of shape (S,)
        Covariates that do not change in time.
    calendar : float32 array of shape (rows, n_calendar) or None
        Features of the local clock.
    calendar_kind : str or None
        Which of :data:`tsar.data.calendar.CALENDARS` they are.
    covariates : CovariateRows or None
        All of these as numbers, once they are coded; see :meth:`coded`.
    """

    values: np.ndarray
    offsets: np.ndarray
    ids: pd.Index
    variates: pd.Index
    first: np.ndarray
    last: np.ndarray
    axis: TimeAxis
    frequency: Frequency
    form: FrameForm
    moved: np.ndarray | None = None
    past: dict[str, np.ndarray] = field(default_factory=dict)
    future: dict[str, np.ndarray] = field(default_factory=dict)
    static: dict[str, np.ndarray] = field(default_factory=dict)
    calendar: np.ndarray | None = None
    calendar_kind: str | None = None
    covariates: CovariateRows | None = None

    @property
    def n_series(self) -> int:
        """Number of series, S."""
        return len(self.ids)

    @property
    def n_variates(self) -> int:
        """Number of variates, C."""
        return len(self.variates)

    @property
    def lengths(self) -> np.ndarray:
        """Rows of each series, shape (S,)."""
        return np.diff(self.offsets)

    @property
    def season_length(self) -> int:
        """Steps in the season one would look for first; see :meth:`Frequency.season_of`."""
        return self.frequency.season_of(int(self.lengths.max(initial=0)))

    @classmethod
    def from_frame(
        cls,
        df: Any,
        *,
        freq: Any = None,
        gaps: Literal["raise", "mask", "zero"] = "raise",
        id_column: Any = None,
        time_column: Any = None,
        target: Any = None,
        past_covariates: Sequence[str] = (),
        future_covariates: Sequence[str] = (),
        static_covariates: Sequence[str] = (),
        calendar: str | None = None,
        like: TimeAxis | None = None,
    ) -> "Panel":
        """Read a frame and check it.

        Parameters
        ----------
        df : DataFrame or Series
            Wide, long, MultiIndex or a Series; rows may be in any order.
        freq : str, pandas offset, int, Frequency or None
            The step between rows; None takes that of most of the panel.
        gaps : {"raise", "mask", "zero"}
            Whether missing rows are an error, missing values or zeros.
        id_column, time_column, target
            Names in a long frame, see the user guide.
        past_covariates, future_covariates, static_covariates : sequence of str
        calendar : str or None
            One of :data:`tsar.data.calendar.CALENDARS`, to read the clock of every row by.
        like : TimeAxis or None
            What the times go on with, see :func:`~tsar.data.timeaxis.read_times`.

        Returns
        -------
        Panel

        Raises
        ------
        DataError
            One error for everything that is wrong: id, kind, count and first timestamp
            of each fault, and how to repair it.
        """
        roles = {"past": past_covariates, "future": future_covariates, "static": static_covariates}
        rows = read_rows(
            df,
            id_column=id_column,
            time_column=time_column,
            target=target,
            covariates={role: list(names) for role, names in roles.items()},
        )
        if not len(rows.codes):
            raise DataError("the frame has no rows; pass at least one observation")
        panel = _Reader(rows, like).panel(freq, gaps)
        if calendar is None:
            return panel
        clock = CALENDARS[calendar].read(panel.axis.times(panel.stamps()))
        return replace(panel, calendar=clock, calendar_kind=calendar)

    def with_values(self, values: np.ndarray, variates: pd.Index) -> "Panel":
        """Return the panel with other targets of shape (rows, n) under other names."""
        return replace(self, values=values, variates=variates)

    def coding(self, stop: np.ndarray) -> CovariateCoding:
        """Learn how to code the covariates from the rows ``offsets[s]:stop[s]``."""
        return CovariateCoding.measure(
            self.past,
            self.future,
            self.static,
            calendar=self.calendar_kind,
            offsets=self.offsets,
            stop=stop,
        )

    def coded(self, coding: CovariateCoding) -> "Panel":
        """Return the panel with its covariates as numbers, in place of the columns."""
        rows = coding.encode(self.past, self.future, self.static, self.calendar, self.offsets)
        return replace(self, covariates=rows, past={}, future={}, static={}, calendar=None)

    def known_ahead(
        self, coding: CovariateCoding, values_of: dict[Any, np.ndarray], steps: int
    ) -> np.ndarray:
        """Return what is known of the steps after each series, for a coded panel.

        Parameters
        ----------
        coding : CovariateCoding
        values_of : dict of name to array of shape (S, n)
            Future covariates; beyond what is given, the last value stays.
        steps : int

        Returns
        -------
        float32 array of shape (S, steps, n_future + n_calendar)
        """
        assert self.covariates is not None, "the panel is coded first"
        held = self.covariates.future
        ahead = np.zeros((self.n_series, steps, held.shape[1] + coding.n_calendar), np.float32)
        full = self.lengths > 0
        ahead[full, :, : held.shape[1]] = held[self.offsets[1:][full] - 1][:, None]
        for place, column in enumerate(coding.future):
            if column.name in values_of:
                values = values_of[column.name]
                coded = column.encode(values.reshape(-1)).reshape(values.shape)
                step = np.minimum(np.arange(steps), values.shape[1] - 1)
                ahead[:, :, place] = coded[:, step]
        if coding.calendar is not None and steps:
            stamps = np.ascontiguousarray(self.future_stamps(steps)).reshape(-1)
            features = CALENDARS[coding.calendar].read(self.axis.times(stamps))
            ahead[:, :, held.shape[1] :] = features.reshape(self.n_series, steps, -1)
        return ahead

    def history_lengths(self) -> np.ndarray:
        """Return the rows from the first observation on, shape (S, C); 0 where there is none."""
        missing, full = np.isnan(self.values), self.lengths > 0
        first = np.repeat(self.offsets[:-1, None], self.n_variates, axis=1)
        if missing.any():
            seen = np.where(missing, len(missing), np.arange(len(missing))[:, None])
            first[full] = np.minimum.reduceat(seen, self.offsets[:-1][full], axis=0)
        return np.asarray(np.maximum(self.offsets[1:, None] - first, 0))

    def to_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what JSON can hold of a tail, and its arrays."""
        form = {**self.form.__dict__}
        for name in ("dtypes", "id_dtypes"):
            form[name] = list(form[name])
        for name in ("id_name", "time_name", "columns_name", "freq"):
            form[name] = encode(form[name])
        record = {
            "axis": self.axis.to_dict(),
            "frequency": self.frequency.to_dict(),
            "form": form,
            "ids": encode_index(self.ids),
            "variates": encode_index(self.variates),
        }
        arrays = {name: getattr(self, name) for name in ("values", "offsets", "last")}
        if self.moved is not None:
            arrays["moved"] = self.moved
        if self.covariates is not None:
            rows = self.covariates.__dict__.items()
            arrays |= {f"covariates.{role}": columns for role, columns in rows}
        return record, arrays

    @classmethod
    def from_state(cls, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> "Panel":
        """Undo :meth:`to_state`; arrays that do not fit together are a PersistenceError."""
        form: dict[str, Any] = dict(record["form"])
        for name in ("dtypes", "id_dtypes"):
            form[name] = tuple(form.get(name, ()))
        for name in ("id_name", "time_name", "columns_name", "freq"):
            form[name] = decode(form.get(name))
        prefix = "covariates."
        covariates = {
            name.removeprefix(prefix): columns
            for name, columns in arrays.items()
            if name.startswith(prefix)
        }
        ids, variates = decode_index(record["ids"]), decode_index(record["variates"])
        check_panel(form, ids, variates, arrays)
        return cls(
            arrays["values"],
            arrays["offsets"],
            ids,
            variates,
            arrays["last"],
            arrays["last"],
            TimeAxis.from_dict(record["axis"]),
            Frequency.from_dict(record["frequency"]),
            FrameForm(**form),
            arrays.get("moved"),
            covariates=CovariateRows(**covariates) if covariates else None,
        )

    def tail(self, rows: int) -> "Panel":
        """Return the last ``rows`` rows of every series, copied.

        Where the first of them is missing, the tail reaches back to the last observation
        before it, so that the value carried forward into it is the same as in the whole.
        """
        begins = np.maximum(self.offsets[1:] - rows, self.offsets[:-1])
        full = begins < self.offsets[1:]
        missing = np.zeros(len(begins), dtype=bool)
        missing[full] = np.isnan(self.values[begins[full]]).any(axis=1)
        for series in np.flatnonzero(missing & (begins > self.offsets[:-1])):
            before = ~np.isnan(self.values[self.offsets[series] : begins[series]])
            wanted = np.isnan(self.values[begins[series]]) & before.any(axis=0)
            if wanted.any():
                back = before[::-1].argmax(axis=0)[wanted].max() + 1
                begins[series] -= back
        taken = self.offsets[1:] - begins
        offsets = np.concatenate([[0], np.cumsum(taken)])
        keep = np.repeat(begins - offsets[:-1], taken) + np.arange(offsets[-1])
        return replace(
            self,
            values=self.values[keep],
            offsets=offsets,
            # Nothing asks when a part of a series begins, which is not known without a search.
            first=np.where(begins == self.offsets[:-1], self.first, self.last),
            past={name: column[keep] for name, column in self.past.items()},
            future={name: column[keep] for name, column in self.future.items()},
            calendar=None if self.calendar is None else self.calendar[keep],
            covariates=None if self.covariates is None else self.covariates.take(keep),
        )

    def after(self, history: "Panel") -> "Panel":
        """Return the panel with each series preceded by its own history where that adjoins.

        Parameters
        ----------
        history : Panel
            Rows known before, for example the end of the fitted series.

        Returns
        -------
        Panel
            Series whose first stamp follows the last one of ``history`` are prolonged to
            the left; the others are as they were.
        """
        place = history.ids.get_indexer(self.ids)
        following, began = (
            self.axis.stamps_of(stamps, history.axis)
            for stamps in (history.future_stamps(1)[:, 0], history.first)
        )
        adjoins = (place >= 0) & (following[place] == self.first)
        if not adjoins.any():
            return self
        first = np.where(adjoins, began[place], self.first)
        before = np.where(adjoins, history.lengths[place], 0)
        lengths = before + self.lengths
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # Row r of both together is row r of the history, or else row r - len(history) here.
        row = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        own = len(history.values) + self.offsets[:-1] - before
        taken = row + np.where(
            row < np.repeat(before, lengths),
            np.repeat(history.offsets[place], lengths),
            np.repeat(own, lengths),
        )
        covariates = self.covariates
        if covariates is not None and history.covariates is not None:
            covariates = history.covariates.followed_by(covariates).take(taken)
        return replace(
            self,
            values=np.concatenate([history.values, self.values])[taken],
            offsets=offsets,
            first=first,
            covariates=covariates,
        )

    def stamps(self) -> np.ndarray:
        """Return the stamp of every row, shape (rows,); of a tail they are not known."""
        stamps = np.empty(len(self.values), dtype=np.int64)
        # Series that begin together share their stamps.
        firsts, owner = np.unique(self.first, return_inverse=True)
        for begin, first in enumerate(firsts):
            members = np.flatnonzero(owner == begin)
            length = int(self.lengths[members].max())
            following = self.frequency.future(np.array([first]), max(length - 1, 1), self.axis)[0]
            own = np.concatenate([[first], following])
            for series in members:
                start, end = self.offsets[series], self.offsets[series + 1]
                stamps[start:end] = own[: end - start]
        return stamps

    def future_stamps(self, horizon: int) -> np.ndarray:
        """Return the stamps that follow each series, shape (S, horizon)."""
        return self.frequency.future(self.last, horizon, self.axis, self.moved)

    def future_index(self, horizon: int, repeats: int = 1) -> pd.Index:
        """Return the same in the form of the frame, series by series, each ``repeats`` times."""
        return self.axis.index(np.repeat(self.future_stamps(horizon), repeats, axis=0).ravel())

    def write(
        self,
        horizon: int,
        columns: dict[Any, np.ndarray],
        marks: dict[str, np.ndarray],
        repeats: int | None = None,
    ) -> Any:
        """Write columns of shape (S * horizon,) in the form of the frame.

        With ``repeats``, each series is written so often, and a Series as a frame.
        """
        times = self.future_index(horizon, repeats or 1)
        return write_frame(self.form, self.ids, times, columns, marks, may_squeeze=repeats is None)


class _Reader:
    """Sorts the rows of a frame, checks them against the calendar and builds the panel."""

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

    def panel(self, freq: Any, gaps: str) -> Panel:
        """Check the calendar and return the panel."""
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
                other = kind == "frequency" and len(self.faults) < SHOWN
                own = self.stamps[self.offsets[owner] : self.offsets[owner + 1]]
                step = usual_step(own, self.axis) if other else None
                self.faults.add(self.ids[owner], kind, count, self.axis.show(first), step=step)
        most = ", as most series have" if freq is None and len(self.ids) > 1 else ""
        self.faults.raise_if_any(self.whole, f"freq={frequency.name!r}{most}")
        ends = self.offsets[1:] - 1
        moved = frequency.moved(self.stamps, self.offsets, self.axis)
        panel = Panel(
            self.values,
            self.offsets,
            self.ids,
            self.rows.variates,
            self.stamps[self.offsets[:-1]],
            self.stamps[ends],
            self.axis,
            frequency,
            self.rows.form,
            None if moved is None else moved[ends],
            past=self._columns("past"),
            future=self._columns("future"),
            static=self._static(),
        )
        return panel if positions is None else _on_grid(panel, positions, gaps)

    def _columns(self, role: str) -> dict[str, np.ndarray]:
        columns = self.rows.covariates.get(role, {})
        order = slice(None) if self.order is None else self.order
        return {name: column[order] for name, column in columns.items()}

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


def _on_grid(panel: Panel, positions: np.ndarray, gaps: str) -> Panel:
    """Insert the missing rows, as rows of missing values or of zeros."""
    starts = positions[panel.offsets[:-1]]
    lengths = positions[panel.offsets[1:] - 1] - starts + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if offsets[-1] > max(MASKED_ROWS, MASKED_GROWTH * len(panel.values)):
        worst = int((lengths - panel.lengths).argmax())
        raise DataError(
            f"gaps={gaps!r} would add {offsets[-1] - len(panel.values)} rows at "
            f"freq={panel.frequency.name!r}, {lengths[worst] - panel.lengths[worst]} of them to "
            f"id {panel.ids[worst]!r}, which runs from {panel.axis.show(panel.first[worst])} to "
            f"{panel.axis.show(panel.last[worst])}; check its dates, or pass a coarser freq"
        )
    rows = positions + np.repeat(offsets[:-1] - starts, panel.lengths)
    n_rows = int(offsets[-1])
    values = spread(panel.values, rows, n_rows)
    if gaps == "zero":
        # What is missing within a row that is there stays so.
        values[np.setdiff1d(np.arange(n_rows), rows, assume_unique=True)] = 0.0
    return replace(
        panel,
        values=values,
        offsets=offsets,
        past={name: spread(column, rows, n_rows) for name, column in panel.past.items()},
        future={name: spread(column, rows, n_rows) for name, column in panel.future.items()},
    )
