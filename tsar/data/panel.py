"""The panel: every series of a frame on a regular grid, checked once.

Dimension letters: S series, C variates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from tsar.data.codec import decode, decode_index, encode, encode_index
from tsar.data.faults import Faults
from tsar.data.frames import FrameForm, Rows, read_rows, read_times, write_frame
from tsar.data.frequency import Frequency, TimeAxis
from tsar.exceptions import DataError

__all__ = ["Panel"]


@dataclass(frozen=True)
class Panel:
    """Series on a regular grid, one after the other.

    Build one with :meth:`from_frame`.

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
    past: dict[str, np.ndarray] = field(default_factory=dict)
    future: dict[str, np.ndarray] = field(default_factory=dict)
    static: dict[str, np.ndarray] = field(default_factory=dict)

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

    @classmethod
    def from_frame(
        cls,
        df: Any,
        *,
        freq: Any = None,
        gaps: Literal["raise", "mask"] = "raise",
        id_column: str | None = None,
        time_column: str | None = None,
        target: str | Sequence[str] | None = None,
        past_covariates: Sequence[str] = (),
        future_covariates: Sequence[str] = (),
        static_covariates: Sequence[str] = (),
    ) -> "Panel":
        """Read a frame and check it.

        Parameters
        ----------
        df : DataFrame or Series
            Wide, long, MultiIndex or a Series; rows may be in any order.
        freq : str, pandas offset, int, Frequency or None
            The step between rows; None takes that of most of the panel.
        gaps : {"raise", "mask"}
            Whether missing rows are an error or missing values.
        id_column, time_column, target
            Names in a long frame, see the user guide.
        past_covariates, future_covariates, static_covariates : sequence of str
            Columns with these roles.

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
        return _Reader(rows).panel(freq, gaps)

    def with_values(self, values: np.ndarray, variates: pd.Index) -> "Panel":
        """Return the panel with other targets of shape (rows, n) under other names."""
        return replace(self, values=values, variates=variates)

    def to_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what JSON can hold of a tail, and its arrays; covariates are not among them."""
        form = {**self.form.__dict__, "dtypes": list(self.form.dtypes)}
        for name in ("id_name", "time_name", "columns_name"):
            form[name] = encode(form[name])
        record = {
            "axis": self.axis.to_dict(),
            "frequency": self.frequency.to_dict(),
            "form": form,
            "ids": encode_index(self.ids),
            "variates": encode_index(self.variates),
        }
        names = ("values", "offsets", "last")
        return record, {name: getattr(self, name) for name in names}

    @classmethod
    def from_state(cls, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> "Panel":
        """Undo :meth:`to_state`."""
        form = {**record["form"], "dtypes": tuple(record["form"]["dtypes"])}
        for name in ("id_name", "time_name", "columns_name"):
            form[name] = decode(form[name])
        return cls(
            arrays["values"],
            arrays["offsets"],
            decode_index(record["ids"]),
            decode_index(record["variates"]),
            arrays["last"],
            arrays["last"],
            TimeAxis.from_dict(record["axis"]),
            Frequency.from_dict(record["frequency"]),
            FrameForm(**form),
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
            # Nothing asks when a tail begins, and its first stamp is not known without a search.
            first=self.last,
            past={name: column[keep] for name, column in self.past.items()},
            future={name: column[keep] for name, column in self.future.items()},
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
        following = history.frequency.future(history.last, 1, history.axis)[:, 0]
        pieces, lengths = [], []
        for series, owner in enumerate(place):
            rows = self.values[self.offsets[series] : self.offsets[series + 1]]
            if owner >= 0 and following[owner] == self.first[series]:
                known = history.values[history.offsets[owner] : history.offsets[owner + 1]]
                rows = np.concatenate([known, rows])
            pieces.append(rows)
            lengths.append(len(rows))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return replace(self, values=np.concatenate(pieces), offsets=offsets)

    def future_index(self, horizon: int) -> pd.Index:
        """Return the stamps that follow each series, shape (S * horizon,), series by series."""
        stamps = self.frequency.future(self.last, horizon, self.axis)
        return self.axis.index(np.ascontiguousarray(stamps).reshape(-1))

    def write(
        self,
        horizon: int,
        columns: dict[Any, np.ndarray],
        marks: dict[str, np.ndarray],
    ) -> Any:
        """Write forecasts of shape (S * horizon,) per column in the form of the frame."""
        return write_frame(self.form, self.ids, self.future_index(horizon), columns, marks)


class _Reader:
    """Sorts the rows of a frame, checks them against the calendar and builds the panel."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.faults = Faults()
        self.codes, self.values = rows.codes, rows.values
        self.stamps, unparsable, self.axis = read_times(rows.times)
        self.not_numeric = rows.not_numeric
        # Which row of the frame each sorted row is; None while the order is the frame's.
        self.order: np.ndarray | None = None
        unusable = self.codes < 0
        if unusable.any():
            first = int(unusable.argmax())
            self.faults.add(None, "id", int(unusable.sum()), str(rows.times[first]))
        if unparsable is not None:
            self._note_rows("timestamp", unparsable & ~unusable, raw=True)
            unusable = unusable | unparsable
        if unusable.any():
            self._select(np.flatnonzero(~unusable))
        self._sort()
        counts = np.bincount(self.codes, minlength=len(rows.ids))
        self.offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._check_values()

    def _select(self, order: np.ndarray) -> None:
        self.order = order if self.order is None else self.order[order]
        self.codes, self.stamps = self.codes[order], self.stamps[order]
        self.values = self.values[order]
        if self.not_numeric is not None:
            self.not_numeric = self.not_numeric[order]

    def _sort(self) -> None:
        if len(self.rows.ids) == 1:
            if (self.stamps[1:] < self.stamps[:-1]).any():
                self._select(np.argsort(self.stamps, kind="stable"))
            return
        same = self.codes[1:] == self.codes[:-1]
        ordered = (self.codes[1:] > self.codes[:-1]) | (same & (self.stamps[1:] >= self.stamps[:-1]))
        if not ordered.all():
            self._select(np.lexsort((self.stamps, self.codes)))

    def _note_rows(self, kind: str, mask: np.ndarray, raw: bool = False) -> None:
        """Record rows with a fault of their own; ``raw`` shows what the frame held."""
        bad = np.flatnonzero(mask)
        owners, where, counts = np.unique(self.codes[bad], return_index=True, return_counts=True)
        for owner, row, count in zip(owners, bad[where], counts, strict=True):
            held = repr(self.rows.times[row]) if raw else self.axis.show(self.stamps[row])
            self.faults.add(self.rows.ids[owner], kind, int(count), held)

    def _check_values(self) -> None:
        if self.not_numeric is not None:
            self._note_rows("non-numeric", self.not_numeric)
        # One pass without a large temporary: a sum is finite unless some value is not.
        with np.errstate(over="ignore", invalid="ignore"):
            total = self.values.sum()
        if not np.isfinite(total) and np.isinf(self.values).any():
            self._note_rows("infinite", np.isinf(self.values).any(axis=1))

    def _frequency(self, freq: Any) -> Frequency:
        if isinstance(freq, Frequency):
            return freq
        if freq is not None:
            return Frequency.parse(freq, self.axis).settle(self.stamps, self.axis)
        return Frequency.infer(self.stamps, self.offsets, self.axis)

    def _is_regular(self, frequency: Frequency) -> bool:
        """Whether every step is exactly one step of a fixed length: the common case, fast."""
        if frequency.rule == "steps":
            step, phase = frequency.step, None
        elif frequency.rule == "fixed" and (self.axis.tz is None or not frequency.local):
            step, phase = frequency.length(self.axis), frequency.phase
        else:
            return False
        steps = self.stamps[1:] - self.stamps[:-1]
        steps[self.offsets[1:-1] - 1] = step
        if phase is not None:
            starts = self.stamps[self.offsets[:-1]]
            _, phases = frequency.positions(starts, self.axis)
            if not frequency.on_grid(phases, self.axis).all():
                return False
        return bool((steps == step).all())

    def panel(self, freq: Any, gaps: str) -> Panel:
        """Check the calendar and return the panel."""
        single = not self.rows.form.has_ids
        if not len(self.stamps):
            self.faults.raise_if_any(single)
        try:
            frequency = self._frequency(freq)
        except DataError:
            # What is already known to be wrong explains more than a missing frequency.
            self.faults.raise_if_any(single)
            raise
        positions = None
        if not self._is_regular(frequency):
            positions = self._check_calendar(frequency, gaps, explicit=freq is not None)
        self.faults.raise_if_any(single)
        full = self.offsets[1:] > self.offsets[:-1]
        first = self.stamps[self.offsets[:-1][full]]
        last = self.stamps[self.offsets[1:][full] - 1]
        panel = Panel(
            self.values,
            self.offsets,
            self.rows.ids,
            self.rows.variates,
            first,
            last,
            self.axis,
            frequency,
            self.rows.form,
            past=self._columns("past"),
            future=self._columns("future"),
            static=self._static(),
        )
        return panel if positions is None else _on_grid(panel, positions)

    def _check_calendar(
        self, frequency: Frequency, gaps: str, explicit: bool
    ) -> np.ndarray | None:
        """Record the faults of every series; return the positions if rows are missing."""
        positions, phases = frequency.positions(self.stamps, self.axis)
        steps = positions[1:] - positions[:-1]
        off_grid = ~frequency.on_grid(phases, self.axis)
        suspect = (steps != 1) | (phases[1:] != phases[:-1])
        suspect[self.offsets[1:-1] - 1] = False
        marked = np.flatnonzero(suspect)
        rows = np.concatenate([marked, np.flatnonzero(off_grid)])
        series = np.unique(np.searchsorted(self.offsets, rows, side="right") - 1)
        for owner in series:
            begin, end = self.offsets[owner], self.offsets[owner + 1]
            part = slice(int(begin), int(end))
            self._check_series(
                int(owner),
                frequency,
                self.stamps[part],
                positions[part],
                phases[part],
                off_grid[part],
                accept_gaps=gaps == "mask",
                explicit=explicit,
            )
        return positions if gaps == "mask" and bool((steps[marked] > 1).any()) else None

    def _check_series(
        self,
        owner: int,
        frequency: Frequency,
        stamps: np.ndarray,
        positions: np.ndarray,
        phases: np.ndarray,
        off_grid: np.ndarray,
        *,
        accept_gaps: bool,
        explicit: bool,
    ) -> None:
        name = self.rows.ids[owner]
        found, counts = np.unique(phases[~off_grid], return_counts=True)
        stray = off_grid | (phases != found[counts.argmax()] if len(found) else True)
        kept = positions[~stray]
        steps = kept[1:] - kept[:-1]
        forward = steps[steps > 0]
        values, times = np.unique(forward, return_counts=True)
        usual = int(values[times.argmax()]) if len(values) else 1
        # A series that is mostly off the grid, or whose usual step is another one, has no
        # single bad row: it has another frequency.
        sparse = usual != 1 and len(stamps) >= 3 and not (accept_gaps and explicit)
        if sparse or stray.sum() > len(stamps) / 3:
            self.faults.add(name, "frequency", len(stamps), self.axis.show(stamps[0]))
            return
        if stray.any():
            where = stamps[int(stray.argmax())]
            self.faults.add(name, "off-grid", int(stray.sum()), self.axis.show(where))
        regular = stamps[~stray]
        if (steps == 0).any():
            where = regular[int((steps == 0).argmax()) + 1]
            self.faults.add(name, "duplicate", int((steps == 0).sum()), self.axis.show(where))
        if (steps > 1).any() and not accept_gaps and not stray.any():
            missing = int((steps[steps > 1] - 1).sum())
            before = regular[int((steps > 1).argmax())]
            absent = frequency.future(np.array([before]), 1, self.axis)[0, 0]
            self.faults.add(name, "gap", missing, self.axis.show(absent))

    def _columns(self, role: str) -> dict[str, np.ndarray]:
        columns = self.rows.covariates.get(role, {})
        order = slice(None) if self.order is None else self.order
        return {name: column[order] for name, column in columns.items()}

    def _static(self) -> dict[str, np.ndarray]:
        static = {}
        for name, column in self._columns("static").items():
            first = column[self.offsets[:-1]]
            same = column == np.repeat(first, np.diff(self.offsets))
            wrong = np.flatnonzero(~(same | (pd.isna(column))))
            if len(wrong):
                series = self.rows.ids[self.codes[wrong[0]]]
                raise DataError(
                    f"static covariate {name!r} changes within id {series!r} at "
                    f"{self.axis.show(self.stamps[wrong[0]])}; declare it as a past or future "
                    f"covariate, or make it constant"
                )
            static[name] = first
        return static


def _on_grid(panel: Panel, positions: np.ndarray) -> Panel:
    """Insert the missing rows as rows of missing values."""
    starts = positions[panel.offsets[:-1]]
    lengths = positions[panel.offsets[1:] - 1] - starts + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = positions + np.repeat(offsets[:-1] - starts, panel.lengths)

    def spread(column: np.ndarray) -> np.ndarray:
        numeric = column.dtype.kind in "fiub"
        dtype = np.result_type(column.dtype, np.float32) if numeric else object
        wide = np.full((offsets[-1], *column.shape[1:]), np.nan if numeric else None, dtype=dtype)
        wide[rows] = column
        return wide

    return replace(
        panel,
        values=spread(panel.values),
        offsets=offsets,
        past={name: spread(column) for name, column in panel.past.items()},
        future={name: spread(column) for name, column in panel.future.items()},
    )
