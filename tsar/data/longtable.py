"""Any frame as a long one, for what is done to its rows before they are read.

Dimension letters: S series.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.frames import FrameForm, read_rows
from tsar.data.idcolumns import key_columns
from tsar.data.panel import Panel
from tsar.data.quarantine import Bad, read_numbers, set_aside
from tsar.data.timeaxis import TimeAxis, read_times
from tsar.exceptions import DataError

__all__ = ["Columns", "End", "LongTable"]

# Names that no column has.
ID, NUMBER = " id", " number"


@dataclass(frozen=True)
class Columns:
    """What a frame is read by; see :meth:`tsar.Panel.from_frame`."""

    id_column: Any = None
    time_column: Any = None
    target: Any = None
    freq: Any = None
    like: TimeAxis | None = None

    def panel(self, df: Any, gaps: Any, **roles: Any) -> Panel:
        """Read a frame."""
        return Panel.from_frame(
            df,
            freq=self.freq,
            gaps=gaps,
            id_column=self.id_column,
            time_column=self.time_column,
            target=self.target,
            like=self.like,
            **roles,
        )


@dataclass(frozen=True)
class End:
    """The last time of a panel, which may be read in parts."""

    stamp: int
    axis: TimeAxis

    def later(self, other: "End | None") -> "End":
        """Return the later one of two."""
        if other is None:
            return self
        stamp = int(self.axis.stamps_of(np.array([other.stamp]), other.axis)[0])
        return self if self.stamp >= stamp else replace(self, stamp=stamp)


@dataclass(frozen=True)
class LongTable:
    """A frame as a long one, whatever form it had.

    Attributes
    ----------
    frame : DataFrame
        Ids and times are columns; without an index of its own.
    form : FrameForm
        What to give back.
    columns : Columns
        By which the long frame is read.
    index, labels : sequence of labels, Index
        The names of the index, and the columns, of a frame whose times are its index.
    name : label or None
        Of a Series.
    notes : list of tuple
        What was done.
    """

    frame: pd.DataFrame
    form: FrameForm
    columns: Columns
    index: Sequence[Any]
    labels: Any
    name: Any = None
    notes: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, df: Any, columns: Columns) -> "LongTable":
        rows = read_rows(
            df, id_column=columns.id_column, time_column=columns.time_column, target=columns.target
        )
        if not len(rows.codes):
            raise DataError("the frame has no rows; pass at least one observation")
        form, targets = rows.form, list(rows.variates)
        like, freq = read_times(rows.times, columns.like).axis, columns.freq
        if form.kind == "long":
            named = Columns(form.id_name, form.time_name, targets, freq, like)
            return cls(df.reset_index(drop=True), form, named, (), df.columns)
        frame = df.to_frame(targets[0]) if isinstance(df, pd.Series) else df
        labels = frame.columns
        held = ["time"] if form.kind == "wide" else ["id", "time"]
        names = [_free(name, labels) for name in held]
        index = list(frame.index.names)
        frame = frame.rename_axis(index=names, columns=None).reset_index()
        ids = None if form.kind == "wide" else names[0]
        named = Columns(ids, names[-1], targets, freq, like)
        return cls(frame, form, named, index, labels, getattr(df, "name", None))

    @property
    def axis(self) -> TimeAxis:
        assert self.columns.like is not None, "it was read before"
        return self.columns.like

    @property
    def has_ids(self) -> bool:
        return self.columns.id_column is not None

    @property
    def keys(self) -> list[Any]:
        """The columns of the ids and the time."""
        return [*key_columns(self.columns.id_column), self.columns.time_column]

    @property
    def targets(self) -> list[Any]:
        return list(self.columns.target)

    @property
    def numeric(self) -> bool:
        kinds = pd.api.types
        return all(
            kinds.is_numeric_dtype(self.frame[name].dtype)
            and not kinds.is_bool_dtype(self.frame[name].dtype)
            for name in self.targets
        )

    def written(self) -> Any:
        """Return the frame in the form it had."""
        if self.form.kind == "long":
            return self.frame
        frame = self.frame.set_index(self.keys).rename_axis(index=self.index)
        frame.columns = self.labels
        return frame.iloc[:, 0].rename(self.name) if self.form.squeeze else frame

    def _read(self) -> "Keys":
        rows = read_rows(
            self.frame,
            id_column=self.columns.id_column,
            time_column=self.columns.time_column,
            target=self.targets,
        )
        read = read_times(rows.times, self.columns.like)
        usable = rows.codes >= 0
        for mask in read.faults.values():
            usable &= ~mask
        return Keys(rows.ids, rows.codes, read.stamps, usable, read.axis)

    def _noted(self, kind: str, keys: "Keys", rows: np.ndarray, handling: str) -> None:
        """Note some rows, by series."""
        order = rows[np.lexsort((keys.stamps[rows], keys.codes[rows]))]
        owners, begins, counts = np.unique(keys.codes[order], return_index=True, return_counts=True)
        for owner, begin, count in zip(owners, begins, counts, strict=True):
            first = keys.axis.show(int(keys.stamps[order[begin]]))
            self.notes.append((keys.ids[owner], kind, int(count), first, handling))

    # --------------------------------------------------------------- policies

    def merged(self, how: str) -> "LongTable":
        """Make one row of those of one series with the same time."""
        keys = self._read()
        pairs = pd.DataFrame({"code": keys.codes, "stamp": keys.stamps})
        again = pairs.duplicated().to_numpy() & keys.usable
        if not again.any():
            return self
        self._noted("duplicate", keys, np.flatnonzero(again), how)
        if how == "last":
            again = pairs.duplicated(keep="last").to_numpy() & keys.usable
        firsts = self.frame[~again]
        if how in ("sum", "mean"):
            shared = pairs.duplicated(keep=False).to_numpy() & keys.usable
            part, owners = self.frame[shared], pairs[shared].groupby(["code", "stamp"], sort=False)
            number = owners.ngroup().to_numpy()
            places = firsts.index.get_indexer(
                part.index[~pd.Series(number).duplicated().to_numpy()]
            )
            merged = {
                name: _merged(part[name].reset_index(drop=True), number, how, name in self.targets)
                for name in self.frame.columns
                if name not in self.keys
            }
            firsts = firsts.copy()
            for name, values in merged.items():
                firsts[name] = _replaced(firsts[name], places, values)
        return replace(self, frame=firsts.reset_index(drop=True))

    def parted(self) -> tuple["LongTable", pd.DataFrame]:
        """Part the rows after the last observation of each series, which are the future."""
        keys = self._read()
        seen = self.frame[self.targets].notna().any(axis=1).to_numpy() & keys.usable
        last = np.full(len(keys.ids), np.iinfo(np.int64).max)
        observed = pd.Series(keys.stamps[seen]).groupby(keys.codes[seen]).max()
        last[observed.index.to_numpy()] = observed.to_numpy()
        after = keys.usable & (keys.stamps > last[keys.codes])
        self._noted("trailing", keys, np.flatnonzero(after), "future")
        future = replace(self, frame=self.frame[after].reset_index(drop=True))
        rows = future.frame.drop(columns=self.targets)
        if self.form.kind != "long":
            rows = rows.set_index(self.keys).rename_axis(index=self.index)
        return replace(self, frame=self.frame[~after].reset_index(drop=True)), rows

    def without_text(self) -> tuple["LongTable", Bad]:
        """Read targets as numbers, and leave out series where that is not possible."""
        frame, bad = read_numbers(self._with_id(), ID, self.targets)
        return self._taken(frame), bad

    def set_aside(self, check: Callable[[Any], None]) -> tuple["LongTable", Bad]:
        """Leave out broken series."""
        frame, bad = set_aside(
            self._with_id(), ID, self.targets, lambda part: check(self._taken(part).written())
        )
        return self._taken(frame), bad

    def _with_id(self) -> pd.DataFrame:
        """Return the frame with the id of each row in one column."""
        keys = self._read()
        ids = keys.ids.to_numpy(dtype=object)
        held = np.full(len(keys.codes), None, dtype=object)
        held[keys.codes >= 0] = ids[keys.codes[keys.codes >= 0]]
        return self.frame.assign(**{ID: pd.Series(held, dtype=object)})

    def _taken(self, frame: pd.DataFrame) -> "LongTable":
        return replace(self, frame=frame.drop(columns=ID).reset_index(drop=True))

    def on_grid(
        self, gaps: str, ended: str, ended_after: int, end: End | None
    ) -> tuple["LongTable", Bad]:
        """Insert what is missing, and follow the policy for series that ended."""
        numbered = self.frame[self.keys].assign(
            **{NUMBER: np.arange(len(self.frame), dtype=np.float64)}
        )
        panel = replace(self.columns, target=NUMBER).panel(numbered, "mask")
        rows, stamps, lengths = panel.values[:, 0], panel.stamps(), panel.lengths
        bad, added, fills = self._at_the_end(panel, ended, ended_after, end)
        if added.any():
            rows, stamps, lengths = _extended(panel, rows, stamps, added)
        owner = np.repeat(np.arange(panel.n_series), lengths)
        keys = Keys(panel.ids, owner, stamps, np.ones(len(rows), dtype=bool), panel.axis)
        absent = np.isnan(rows)
        inside = np.repeat(np.cumsum(lengths) - np.where(fills, 0, added), lengths)
        left_out = np.array([name in bad for name in panel.ids], dtype=bool)
        gap = absent & (np.arange(len(rows)) < inside) & ~left_out[owner]
        self._noted("gap", keys, np.flatnonzero(gap), gaps)
        table = self._with_rows(rows, keys, gaps) if absent.any() else self
        return table.without(bad) if bad else table, bad

    def _at_the_end(
        self, panel: Panel, ended: str, ended_after: int, end: End | None
    ) -> tuple[Bad, np.ndarray, np.ndarray]:
        """Return which series are left out, how many rows each gets, and whether as a gap."""
        own = End(int(panel.last.max()), panel.axis)
        last = own.stamp if end is None else own.later(end).stamp
        bad: Bad = {}
        added = np.zeros(panel.n_series, dtype=np.int64)
        fills = np.zeros(panel.n_series, dtype=bool)
        for series in np.flatnonzero(panel.future_stamps(1)[:, 0] <= last):
            lacking, name = len(_steps_to(panel, int(series), last)), panel.ids[int(series)]
            fills[series] = lacking < ended_after
            if ended == "extend" or fills[series]:
                added[series] = lacking
            if fills[series]:
                continue
            at = panel.axis.show(int(panel.last[series]))
            self.notes.append((name, "ended", lacking, at, ended))
            if ended == "skip":
                bad[name] = ("ended", f"ends at {at}, {lacking} steps before the last of the data")
        return bad, added, fills

    def without(self, bad: Bad) -> "LongTable":
        """Return the other series."""
        frame = self._with_id()
        return self._taken(frame[~frame[ID].isin(list(bad))])

    def _with_rows(self, rows: np.ndarray, keys: "Keys", gaps: str) -> "LongTable":
        """Return the rows by number, and new ones where that is missing."""
        absent = np.isnan(rows)
        taken = pd.Index(np.where(absent, -1, rows).astype(np.int64))
        frame = self.frame.reindex(taken).reset_index(drop=True)
        written = keys.axis.index(keys.stamps)
        times = pd.Series(written, index=frame.index, dtype=written.dtype)
        values: dict[Any, Any] = {self.columns.time_column: times}
        ids = key_columns(self.columns.id_column)
        if ids:
            owners = keys.ids[keys.codes]
            each: list[Any] = list(zip(*owners, strict=True)) if len(ids) > 1 else [owners]
            values |= {
                name: pd.Series(list(held), index=frame.index, dtype=object)
                for name, held in zip(ids, each, strict=True)
            }
        if gaps == "zero":
            values |= {name: pd.Series(0, index=frame.index) for name in self.targets}
        for name, column in values.items():
            held = self.frame[name]
            whole = frame[name].to_numpy(dtype=object, copy=True)
            whole[absent] = column.to_numpy(dtype=object)[absent]
            frame[name] = pd.Series(whole, index=frame.index, dtype=object).astype(held.dtype)
        return replace(self, frame=frame)


@dataclass(frozen=True)
class Keys:
    """Which series and time each row has, and whether it has them."""

    ids: pd.Index
    codes: np.ndarray
    stamps: np.ndarray
    usable: np.ndarray
    axis: TimeAxis


def _free(name: str, labels: pd.Index) -> str:
    while name in labels:
        name += "_"
    return name


def _merged(column: pd.Series, number: np.ndarray, how: str, is_target: bool) -> pd.Series:
    """Return one value for each group of rows."""
    groups = column.groupby(number, sort=True)
    numeric = pd.api.types.is_numeric_dtype(column.dtype)
    if not numeric or pd.api.types.is_bool_dtype(column.dtype):
        return groups.first()
    if is_target:
        return groups.sum(min_count=1) if how == "sum" else groups.mean()
    first = groups.first()
    # The mean of equal numbers is not always that number to the bit.
    same = groups.min() == groups.max()
    return first if same.all() else groups.mean().where(~same, first)


def _replaced(column: pd.Series, places: np.ndarray, values: pd.Series) -> pd.Series:
    """Return a column with other values at some places, and of a dtype that holds both."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        changed = column.copy()
    else:
        changed = column.astype(values.dtype).copy()
    changed.iloc[places] = values.array
    return changed


def _steps_to(panel: Panel, series: int, last: int) -> np.ndarray:
    """Return the stamps after the end of a series, up to a time."""
    ends = panel.last[series : series + 1]
    moved = None if panel.moved is None else panel.moved[series : series + 1]
    n_steps = 64
    while True:
        ahead = panel.frequency.future(ends, n_steps, panel.axis, moved)[0]
        if ahead[-1] > last:
            return np.asarray(ahead[ahead <= last])
        n_steps *= 4


def _extended(
    panel: Panel, rows: np.ndarray, stamps: np.ndarray, added: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, stamps and lengths with some more steps after each series."""
    all_rows, all_stamps = [], []
    for series in range(panel.n_series):
        own = slice(panel.offsets[series], panel.offsets[series + 1])
        moved = None if panel.moved is None else panel.moved[series : series + 1]
        count = int(added[series])
        ends = panel.last[series : series + 1]
        ahead = panel.frequency.future(ends, max(count, 1), panel.axis, moved)[0][:count]
        all_rows += [rows[own], np.full(count, np.nan)]
        all_stamps += [stamps[own], ahead]
    return np.concatenate(all_rows), np.concatenate(all_stamps), panel.lengths + added
