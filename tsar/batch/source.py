"""Files of many series, read a few series at a time."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.frames import ID, TIME, require_columns
from tsar.data.tables import (
    as_names,
    as_written,
    drop_row_numbers,
    find_time_column,
    parse_times,
    read_head,
    read_table,
)
from tsar.exceptions import DataError

__all__ = ["Columns", "Source", "open_source", "share_of_series"]

# How many rows say what the columns of a large file are.
HEAD_ROWS = 10_000
# Bytes of a text file that are searched for the ends of lines at a time.
BLOCK = 1 << 24


@dataclass(frozen=True)
class Columns:
    """What a file is read by; see :func:`open_source`."""

    id_column: Any
    time_column: Any
    time_format: str | None
    used: tuple[Any, ...]

    def prepared(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return rows as a forecaster reads them."""
        frame = drop_row_numbers(frame, [self.id_column, self.time_column, *self.used])
        if self.time_format is not None:
            frame = parse_times(frame, self.time_column, self.time_format)
        return frame


class Source:
    """A file whose series can be read one after the other.

    Attributes
    ----------
    columns : Columns
    series : array or None
        The ids in the order of the file; None for a file without ids, which is one series.
    counts : int64 array of shape (S,)
        Rows of each.
    """

    def __init__(self, columns: Columns, series: pd.Index | None, counts: np.ndarray) -> None:
        self.columns, self.series, self.counts = columns, series, counts

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

    def __init__(self, columns: Columns, frame: pd.DataFrame) -> None:
        self.frame = columns.prepared(frame)
        if columns.id_column is None:
            super().__init__(columns, None, np.array([len(frame)]))
            return
        _require_ids(self.frame[columns.id_column])
        codes, series = pd.factorize(self.frame[columns.id_column])
        if (np.diff(codes) < 0).any():
            order = np.argsort(codes, kind="stable")
            self.frame, codes = self.frame.iloc[order], codes[order]
        super().__init__(columns, pd.Index(series), np.bincount(codes, minlength=len(series)))

    def frames(self, sizes: list[int], wanted: Collection[int]) -> Iterator[pd.DataFrame]:
        ends = np.cumsum(sizes)
        for number in sorted(wanted):
            yield self.frame.iloc[ends[number] - sizes[number] : ends[number]]


class _Streamed(Source):
    """A file that is read from its beginning to its end, as often as need be."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        found: list[Any] = []
        counts: list[int] = []
        seen: set[Any] = set()
        for ids in self._ids(columns):
            _require_ids(ids)
            values = ids.to_numpy(dtype=object)
            begins = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
            lengths = np.diff([*begins, len(values)])
            for begin, length in zip(begins, lengths, strict=True):
                value = values[begin]
                if found and value == found[-1]:
                    counts[-1] += int(length)
                elif value in seen:
                    raise DataError(
                        f"{path} is too large to be read at once, and the rows of a series must "
                        f"then lie together, those of id {value!r} do not; sort the file by "
                        f"{columns.id_column!r}"
                    )
                else:
                    seen.add(value)
                    found.append(value)
                    counts.append(int(length))
        super().__init__(columns, pd.Index(found), np.asarray(counts, dtype=np.int64))

    def _ids(self, columns: Columns) -> Iterator[pd.Series]:
        raise NotImplementedError


class _LargeCsv(_Streamed):
    """A CSV file in pieces; whether ids are integers is known when all of them were seen."""

    def __init__(self, path: Path, columns: Columns, dialect: dict[str, Any]) -> None:
        self.dialect: dict[str, Any] = dict(dialect)
        self.reading = as_written(path, columns.id_column, self.dialect)
        self.integers = False
        super().__init__(path, columns)
        assert self.series is not None, "a streamed file has ids"
        names = as_names(pd.Series(self.series))
        if pd.api.types.is_integer_dtype(names.dtype):
            self.integers, self.series = True, pd.Index(names)

    def _reader(self, **options: Any) -> Any:
        return pd.read_csv(self.path, index_col=False, **self.dialect, **self.reading, **options)

    def _ids(self, columns: Columns) -> Iterator[pd.Series]:
        name = columns.id_column
        with self._reader(usecols=[name], chunksize=1_000_000) as reader:
            for frame in reader:
                yield frame[name]

    def frames(self, sizes: list[int], wanted: Collection[int]) -> Iterator[pd.DataFrame]:
        name = self.columns.id_column
        with self._reader(low_memory=False, iterator=True) as reader:
            for number, size in enumerate(sizes):
                frame = reader.get_chunk(size)
                if number in wanted:
                    if self.integers:
                        frame[name] = frame[name].astype("int64")
                    yield self.columns.prepared(frame.reset_index(drop=True))


class _LargeParquet(_Streamed):
    """A Parquet file, a few rows of its row groups at a time."""

    BATCH = 262_144

    def __init__(self, path: Path, columns: Columns, names: list[str]) -> None:
        self.names = names
        super().__init__(path, columns)

    def _batches(self, names: list[str]) -> Iterator[Any]:
        with _parquet(self.path) as file:
            try:
                yield from file.iter_batches(self.BATCH, columns=names)
            except (OSError, ValueError) as error:
                raise DataError(f"{self.path} cannot be read to its end: {error}") from None

    def _ids(self, columns: Columns) -> Iterator[pd.Series]:
        for batch in self._batches([columns.id_column]):
            yield batch.to_pandas(ignore_metadata=True)[columns.id_column]

    def frames(self, sizes: list[int], wanted: Collection[int]) -> Iterator[pd.DataFrame]:
        import pyarrow as pa

        batches, held, n_held = self._batches(self.names), [], 0
        for number, size in enumerate(sizes):
            while n_held < size:
                held.append(next(batches))
                n_held += held[-1].num_rows
            table = pa.Table.from_batches(held)
            if number in wanted:
                rows = table.slice(0, size).to_pandas(ignore_metadata=True)
                yield self.columns.prepared(rows)
            held, n_held = table.slice(size).to_batches(), n_held - size


def open_source(
    path: Path,
    *,
    id_column: Any,
    time_column: Any,
    time_format: str | None,
    used: Mapping[str, Collection[Any]],
    rows_at_once: int,
) -> Source:
    """Open a table, and find its series.

    Parameters
    ----------
    path : pathlib.Path
        CSV or Parquet.
    id_column, time_column : label or None
        None finds them: ``unique_id``, and ``ds`` or what holds times.
    time_format : str or None
        How times are written.
    used : mapping of str to collection of labels
        Further columns that are needed, by the parameter that names them, if that is known; a
        large Parquet file is read for these only.
    rows_at_once : int
        A file of at most so many rows is read at once, and its rows may be in any order.
        In a larger one the rows of a series have to lie together.

    Raises
    ------
    DataError
        The file is missing or damaged, lacks a column, or is too large for its order.
    """
    head, dialect, n_rows = _head(path)
    if id_column is None and ID in head.columns:
        id_column = ID
    if time_column is None:
        time_column = TIME if TIME in head.columns else find_time_column(head)
    for parameter, name in (("id_column", id_column), ("time_column", time_column)):
        if name is not None:
            require_columns(head, [name], parameter)
    for parameter, names in used.items():
        require_columns(head, names, parameter)
    needed = [name for names in used.values() for name in names]
    if time_format is not None:
        # A wrong name or format is told before anything long.
        parse_times(head, time_column, time_format)
    columns = Columns(id_column, time_column, time_format, tuple(needed))
    if n_rows <= rows_at_once or id_column is None:
        frame = read_table(path, id_column)
        if not len(frame):
            raise DataError("the file has no rows; pass at least one observation")
        return _InMemory(columns, frame)
    if dialect is not None:
        return _LargeCsv(path, columns, dialect)
    read = [id_column, time_column, *needed] if needed else head.columns
    return _LargeParquet(path, columns, list(dict.fromkeys(read)))


def _head(path: Path) -> tuple[pd.DataFrame, dict[str, Any] | None, int]:
    """Return the first rows of a file, the dialect of a CSV file, and how many rows it has."""
    if not path.is_file() or path.suffix.lower() != ".parquet":
        # What is no file, or no table, is told in the same words as everywhere.
        if not path.is_file() or path.suffix.lower() in (".gz", ".bz2", ".xz", ".zip", ".zst"):
            return read_table(path), {}, 0
        with path.open("rb") as file:
            ends = sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))
        if ends <= HEAD_ROWS:
            read_table(path)
        return *read_head(path, HEAD_ROWS), ends
    with _parquet(path) as file:
        rows = file.metadata.num_rows
        try:
            first = next(file.iter_batches(HEAD_ROWS), None)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a table: {error}") from None
        if first is None:
            return read_table(path), None, rows
        head = first.to_pandas()
        return head if isinstance(head.index, pd.RangeIndex) else head.reset_index(), None, rows


def _parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        read_table(path)
        raise
    try:
        # What is buffered ahead is kept until the file is closed: in the end, all of it.
        return pq.ParquetFile(path, pre_buffer=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def _require_ids(ids: pd.Series) -> None:
    missing = ids.isna()
    if missing.any():
        raise DataError(
            f"{int(missing.sum())} rows have no id in column {ids.name!r}, the first is row "
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
