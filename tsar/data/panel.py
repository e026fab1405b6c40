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
from tsar.data.covariates import CovariateCoding, CovariateRows
from tsar.data.frames import FrameForm, read_rows
from tsar.data.frequency import Frequency
from tsar.data.libraries import FrameLibrary
from tsar.data.panel_reading import PanelReader
from tsar.data.stored_panel import check_panel
from tsar.data.timeaxis import TimeAxis
from tsar.data.weights import read_weight
from tsar.data.writing import write_frame
from tsar.exceptions import DataError

__all__ = ["Panel"]


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
    weight : float array of shape (rows,) or None
        How much an error at each row counts in a training; None stands for 1.
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
    weight: np.ndarray | None = None

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
        weight: Any = None,
    ) -> "Panel":
        """Read a frame and check it.

        Parameters
        ----------
        df : DataFrame or Series
            Wide, long, MultiIndex or a Series; rows may be in any order. Of polars or pyarrow,
            long or with a column of times.
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
        weight : array of shape (rows of df,), dict by id or None
            See :func:`~tsar.data.weights.read_weight`.

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
        if weight is not None:
            rows = replace(rows, weight=read_weight(weight, rows))
        panel = cls(**PanelReader(rows, like).parts(freq, gaps))
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
        form = {**self.form.__dict__, "library": dict(self.form.library.__dict__)}
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
        form["library"] = FrameLibrary(**form.get("library", {}))
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
            weight=None,
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
