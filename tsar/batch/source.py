"""Files of many series, read a few series at a time."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.csvtext import PACKED, CsvText, as_names
from tsar.data.fileformat import FileFormat, Roles
from tsar.data.idcolumns import factorized, key_columns, labels_of, parts_of
from tsar.data.tables import TableFile, parquet_file, read_checked
from tsar.data.workbook import WORKBOOKS
from tsar.exceptions import DataError

__all__ = ["Source", "by_series", "open_source", "share_of_series"]

# Bytes of a text file that are searched for the ends of lines at a time.
BLOCK = 1 << 24


class Source:
    """A file whose series can be read one after the other.

    Attributes
    ----------
    table : TableFile
        How it is read.
    series : array or None
        The ids in the order of the file; None for a file without ids, which is one series.
    counts : int64 array of shape (S,)
        Rows of each.
    """

    def __init__(self, table: TableFile, series: pd.Index | None, counts: np.ndarray) -> None:
        self.table, self.series, self.counts = table, series, counts

    @property
    def id_column(self) -> Any:
        """The column of the ids or a list of several, None in a file of one series."""
        return self.table.roles.id_column

    @property
    def time_column(self) -> Any:
        """The column of the times in the frames."""
        return self.table.roles.time_name

    def blocks(self, rows: int, first: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
        """Cut series into blocks of at most so many rows, or of one series: first, last + 1.

        Those from ``first`` up to ``stop``, all of them by default.
        """
        ends = np.cumsum(self.counts)[:stop]
        blocks, begin = [], first
        while begin < len(ends):
            before = ends[begin - 1] if begin else 0
            end = max(int(np.searchsorted(ends, before + rows, side="right")), begin + 1)
            blocks.append((begin, end))
            begin = end
        return blocks

    def frames(self, sizes: list[int], wanted: Collection[int]) -> Iterator[pd.DataFrame]:
        """Read consecutive stretches of rows, and yield those whose numbers are wanted."""
        raise NotImplementedError


class _InMemory(Source):
    """A file that is read at once; its rows may be in any order."""

    def __init__(self, table: TableFile) -> None:
        frame, table = table.read()
        if not len(frame):
            raise DataError("the file has no rows; pass at least one observation")
        self.frame = table.prepared(frame)
        name = table.roles.id_column
        if name is None:
            super().__init__(table, None, np.array([len(frame)]))
            return
        self.frame, series, counts = by_series(self.frame, name)
        super().__init__(table, series, counts)

    def frames(self, sizes: list[int], wanted: Collection[int]) -> Iterator[pd.DataFrame]:
        ends = np.cumsum(sizes)
        for number in sorted(wanted):
            yield self.frame.iloc[ends[number] - sizes[number] : ends[number]]


class _Streamed(Source):
    """A file that is read from its beginning to its end, as often as need be."""

    def __init__(self, table: TableFile) -> None:
        first_lines: list[Any] = []
        counts: list[int] = []
        seen: set[Any] = set()
        for ids in self._ids(table):
            _require_ids(ids, table.roles.id_column)
            values = ids.to_numpy(dtype=object)
            begins = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
            lengths = np.diff([*begins, len(values)])
            for begin, length in zip(begins, lengths, strict=True):
                value = values[begin]
                if first_lines and value == first_lines[-1]:
                    counts[-1] += int(length)
                elif value in seen:
                    raise DataError(
                        f"{table.path} is too large to be read at once, and the rows of a series "
                        f"must then lie together, those of id {value!r} do not; sort the file by "
                        f"{table.roles.id_column!r}"
                    )
                else:
                    seen.add(value)
                    first_lines.append(value)
                    counts.append(int(length))
        series = pd.Index(first_lines, tupleize_cols=False)
        super().__init__(table, series, np.asarray(counts, dtype=np.int64))

    def _ids(self, table: TableFile) -> Iterator[pd.Series]:
        raise NotImplementedError


class _LargeCsv(_Streamed):
    """A CSV file in pieces; whether ids are integers is known when all of them were seen.

    So is how numbers are written, where the first rows leave it open.
    """

    def __init__(self, table: TableFile, csv: CsvText) -> None:
        self.csv = csv
        self.unsettled: set[str] = set()
        super().__init__(table)
        assert self.series is not None, "a streamed file has ids"
        columns = self._parts(self.series)
        self.integers = [
            name for name in columns if pd.api.types.is_integer_dtype(columns[name].dtype)
        ]
        if self.integers:
            labels = labels_of(columns, self.id_column)
            self.series = pd.Index(labels, tupleize_cols=False)
        if csv.notation is None:
            self.csv = csv.settled(sorted(self.unsettled))
            self.table = replace(table, csv=self.csv)

    def _ids(self, table: TableFile) -> Iterator[pd.Series]:
        csv = self.csv
        columns = [*table.roles.ids, *(csv.numbers if csv.notation is None else [])]
        with pd.read_csv(csv.path, chunksize=1_000_000, **csv.options(columns)) as reader:
            while (frame := read_checked(table.path, lambda: next(reader, None))) is not None:
                if csv.notation is None:
                    self.unsettled.update(csv.unsettled(frame))
                yield labels_of(frame, table.roles.id_column)

    def _parts(self, series: pd.Index) -> pd.DataFrame:
        """Return the columns of ids that are text, as integers where all of them are."""
        names = key_columns(self.id_column)
        several = len(names) > 1
        parts = parts_of(series, names, ["object"] * len(names)) if several else {names[0]: series}
        return pd.DataFrame({name: as_names(pd.Series(part)) for name, part in parts.items()})

    def frames(self, sizes: list[int], wanted: Collection[int]) -> Iterator[pd.DataFrame]:
        csv = self.csv
        with pd.read_csv(csv.path, low_memory=False, iterator=True, **csv.options()) as reader:
            for number, size in enumerate(sizes):
                frame = read_checked(csv.path, partial(reader.get_chunk, size))
                if number in wanted:
                    frame = csv.typed(frame.reset_index(drop=True))
                    frame = frame.astype(dict.fromkeys(self.integers, "int64"))
                    yield self.table.prepared(frame)


class _LargeParquet(_Streamed):
    """A Parquet file, a few rows of its row groups at a time."""

    BATCH = 262_144

    def __init__(self, table: TableFile) -> None:
        roles = table.roles
        self.names = list(table.head.columns)
        if roles.targets:
            self.names = list(dict.fromkeys([*roles.keys, *roles.others]))
        super().__init__(table)

    def _batches(self, path: Path, names: list[str]) -> Iterator[Any]:
        with parquet_file(path) as file:
            try:
                yield from file.iter_batches(self.BATCH, columns=names)
            except (OSError, ValueError) as error:
                raise DataError(f"{path} cannot be read to its end: {error}") from None

    def _ids(self, table: TableFile) -> Iterator[pd.Series]:
        for batch in self._batches(table.path, table.roles.ids):
            yield labels_of(batch.to_pandas(ignore_metadata=True), table.roles.id_column)

    def frames(self, sizes: list[int], wanted: Collection[int]) -> Iterator[pd.DataFrame]:
        import pyarrow as pa

        batches, held, n_held = self._batches(self.table.path, self.names), [], 0
        for number, size in enumerate(sizes):
            while n_held < size:
                held.append(next(batches))
                n_held += held[-1].num_rows
            table = pa.Table.from_batches(held)
            if number in wanted:
                rows = table.slice(0, size).to_pandas(ignore_metadata=True)
                yield self.table.prepared(rows)
            held, n_held = table.slice(size).to_batches(), n_held - size


def open_source(
    path: Path, roles: Roles, stated: FileFormat | None = None, *, rows_at_once: int
) -> Source:
    """Open a table, and find its series.

    Parameters
    ----------
    path : pathlib.Path
        CSV or Parquet.
    roles : Roles
        What the columns are; of a large Parquet file only these are read, if the targets are
        among them.
    stated : FileFormat or None
        How it is written, as far as it is not to be found.
    rows_at_once : int
        A file of at most so many rows is read at once, and its rows may be in any order.
        In a larger one the rows of a series have to lie together.

    Raises
    ------
    DataError
        The file is missing or damaged, lacks a column, can be read in several ways, or is too
        large for its order.
    """
    table = TableFile.look_at(path, roles, stated).with_columns()
    if table.roles.id_column is None or _n_rows(path) <= rows_at_once:
        return _InMemory(table)
    return _LargeParquet(table) if table.csv is None else _LargeCsv(table, table.csv)


def by_series(frame: pd.DataFrame, id_column: Any) -> tuple[pd.DataFrame, pd.Index, np.ndarray]:
    """Bring the rows of each series together.

    Parameters
    ----------
    frame : DataFrame
        Rows in any order.
    id_column : label or list of labels

    Returns
    -------
    frame : DataFrame
        Series in the order in which they first appear, the rows of each in their order.
    series : Index of shape (S,)
        Their ids.
    counts : int64 array of shape (S,)
        Rows of each.

    Raises
    ------
    DataError
        A row has no id.
    """
    ids = labels_of(frame, id_column)
    _require_ids(ids, id_column)
    series, codes = factorized(ids)
    if (np.diff(codes) < 0).any():
        order = np.argsort(codes, kind="stable")
        frame, codes = frame.iloc[order], codes[order]
    return frame, series, np.bincount(codes, minlength=len(series))


def _n_rows(path: Path) -> int:
    """Return how many rows a file has, at most; 0 for what is read at once whatever it has."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        with parquet_file(path) as file:
            return int(file.metadata.num_rows)
    if ending in (*PACKED, *WORKBOOKS):
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))


def _require_ids(ids: pd.Series, id_column: Any) -> None:
    missing = ids.isna()
    if missing.any():
        raise DataError(
            f"{int(missing.sum())} rows have no id in column {id_column!r}, the first is row "
            f"{int(np.flatnonzero(missing)[0])}; fill it in or remove them"
        )


def share_of_series(counts: np.ndarray, rows: int | None) -> np.ndarray:
    """Choose series with at most so many rows in all, evenly over the file: mask of shape (S,)."""
    total = int(counts.sum())
    if rows is None or total <= rows:
        return np.ones(len(counts), dtype=bool)
    # Every k-th row marks the series it lies in, and no more than the rows allow are taken.
    chosen = np.zeros(len(counts), dtype=bool)
    order = np.argsort(np.modf(np.arange(len(counts)) * 0.6180339887498949)[0], kind="stable")
    taken = np.cumsum(counts[order]) <= rows
    chosen[order[taken]] = True
    chosen[order[0]] = True
    return chosen
