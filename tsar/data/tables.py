"""Tables in files: CSV, Parquet where pyarrow is installed, workbooks where openpyxl is."""

import importlib.util
import os
import re
import zipfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from tsar.data.csvtext import CsvText, as_names, is_nameless
from tsar.data.fileformat import FileFormat, Roles
from tsar.data.frames import ID, TARGET, TIME, holds_times, require_columns
from tsar.data.numerals import Notation, is_numeral
from tsar.data.timecolumns import joined_times, parted_times
from tsar.data.timestyle import offsets_of, parse_text, spelling, spelt_offset, write_text
from tsar.data.workbook import WORKBOOKS, check_library, read_workbook, write_workbook
from tsar.exceptions import DataError, MissingExtraError, TsarError
from tsar.files import whole_file
from tsar.params.constraints import did_you_mean

__all__ = [
    "TableFile",
    "as_csv",
    "check_writable",
    "drop_row_numbers",
    "find_time_column",
    "parquet_file",
    "parse_times",
    "read_checked",
    "read_table",
    "write_table",
    "write_times",
]

# Looked for before the values are: a column of integers can hold the time, too.
TIME_NAMES = ("ds", "date", "datetime", "timestamp", "time")
WRITTEN = (".csv", ".parquet", ".xlsx")
NO_TABLES = (".xls", ".ods", ".json", ".feather", ".pkl", ".h5", ".hdf5", ".npz")
# How many rows of a Parquet file say what its columns are.
HEAD_ROWS = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class TableFile:
    """A table of which it is known how it is read.

    Parameters
    ----------
    path : pathlib.Path
    roles : Roles
        With the columns of the id and the time, as they were named or found.
    stated : FileFormat
        What the user said; how its times are spelt is added to their format.
    head : DataFrame
        Its first rows; those of a CSV file as text, and all of a workbook.
    csv : CsvText or None
        How a CSV file is read.
    """

    path: Path
    roles: Roles
    stated: FileFormat
    head: pd.DataFrame
    csv: CsvText | None = None

    @classmethod
    def look_at(
        cls,
        path: Path,
        roles: Roles | None = None,
        stated: FileFormat | None = None,
        default: Notation | None = None,
    ) -> "TableFile":
        """Look at the first rows of a file, and settle how it is read.

        Parameters
        ----------
        path : pathlib.Path
            Parquet or a workbook if its ending says so, else CSV, perhaps packed.
        roles : Roles or None
            What the user calls the columns. The ids are text as it is written, or integers
            where all of them are.
        stated : FileFormat or None
            What is not to be found.
        default : Notation or None
            How the numbers are written of a file that this one goes with.

        Raises
        ------
        DataError
            The file is missing, is no table, or can be read in several ways.
        MissingExtraError
            It is a Parquet file and pyarrow is not installed, or a workbook without openpyxl.
        """
        roles, stated = roles or Roles(), stated or FileFormat()
        _check_there(path)
        if path.suffix.lower() == ".parquet":
            head = _parquet_head(path)
            if head.columns.has_duplicates:
                doubled = head.columns[head.columns.duplicated()][0]
                raise DataError(f"{path}: column {doubled!r} occurs more than once; rename one")
            return cls(path, roles, stated, head)
        if path.suffix.lower() in WORKBOOKS:
            return cls(path, roles, stated, read_checked(path, lambda: _workbook(path, roles)))
        csv = read_checked(path, lambda: CsvText.look_at(path, roles, stated, default))
        return cls(path, roles, stated, csv.sample, csv.with_roles(roles))

    def with_columns(self) -> "TableFile":
        """Return it with the columns of the id and the time, and all columns checked.

        A column that has a role is not taken for the time.

        Raises
        ------
        DataError
            A column that is named is not there, none holds the time, or the times are not
            written in the stated format.
        """
        roles = self.roles
        if roles.id_column is None and ID in self.head.columns:
            roles = replace(roles, id_column=ID)
        if roles.time_column is None:
            named = TIME in self.head.columns and TIME not in roles.ids
            taken = [*roles.ids, *roles.others]
            time_column = TIME if named else find_time_column(self.head, taken)
            roles = replace(roles, time_column=time_column)
        for parameter, names in roles.named.items():
            require_columns(self.head, names, parameter)
        stated, table = self.stated, replace(self, roles=roles)
        head, time_name = table.with_one_time(self.head), roles.time_name
        if stated.time_format is not None:
            # A wrong format is told before anything long, and the way it is spelt is kept.
            parse_times(head, time_name, stated.time_format)
            times = head[time_name].dropna().astype(str)
            times = pd.Index(times[times != ""], dtype=object)
            parsed = parse_text(times, stated.time_format)
            style = spelling(times, parsed, stated.time_format, None)
            offsets = offsets_of(times, style)
            if offsets:
                # Read in UTC, as several are where a clock changes, and written so.
                style = style.replace("%z", spelt_offset(max(offsets, key=len)))
            stated = replace(stated, time_format=style)
        csv = None if self.csv is None else self.csv.with_roles(roles)
        return replace(table, stated=stated, csv=csv)

    def with_one_time(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return rows with one column of times, in the place of the first of several."""
        name, times = self.roles.time_name, self.roles.times
        if len(times) == 1:
            return frame
        others = frame.drop(columns=times)
        if name in others.columns:
            raise DataError(
                f"time_column: {times} are read as one column {name!r}, and there is another one "
                f"of that name; rename it in the file"
            )
        place = min(map(list(frame.columns).index, times))
        others.insert(place, name, joined_times(frame, times))
        return others

    def written(self, forecast: pd.DataFrame) -> pd.DataFrame:
        """Return a forecast with its times as they are written in the file, in its columns."""
        name, times = self.roles.time_name, self.roles.times
        forecast = write_times(forecast, [name], self.stated.time_format)
        if len(times) == 1:
            return forecast
        parts = parted_times(forecast[name], self.head[times])
        place = list(forecast.columns).index(name)
        forecast = forecast.drop(columns=name)
        for step, (part, column) in enumerate(parts.items()):
            forecast.insert(place + step, part, column)
        return forecast

    def written_backtest(self, backtest: pd.DataFrame) -> pd.DataFrame:
        """Return a backtest with its times as they are written, and each part of its ids."""
        backtest = write_times(backtest, ["cutoff", "time"], self.stated.time_format)
        names = self.roles.ids
        if len(names) < 2:
            return backtest
        others = backtest.drop(columns="id")
        for place, (name, part) in enumerate(
            zip(names, zip(*backtest["id"], strict=True), strict=True)
        ):
            while name in others.columns:
                name = f"{name}_"
            others.insert(place, name, pd.Series(part, index=others.index))
        return others

    def read(self) -> tuple[pd.DataFrame, "TableFile"]:
        """Read it at once.

        Returns
        -------
        frame : DataFrame
            An index that a Parquet file names is a column.
        table : TableFile
            With everything settled that only the whole file shows.
        """
        if self.csv is not None:
            frame, csv = read_checked(self.path, self.csv.whole)
            return frame, replace(self, csv=csv)
        if self.path.suffix.lower() in WORKBOOKS:
            return self.head, self
        frame = read_checked(self.path, lambda: pd.read_parquet(self.path))
        frame = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
        return frame, self

    def prepared(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return rows as forecasters read them: without row numbers, times in a stated format."""
        roles = self.roles
        frame = drop_row_numbers(frame, [*roles.keys, *roles.others])
        frame = self.with_one_time(frame)
        if self.stated.time_format is not None:
            frame = parse_times(frame, self.roles.time_name, self.stated.time_format)
        return frame

    @property
    def _data(self) -> list[Any]:
        """The columns without an id, the time, and numbers of rows."""
        roles = self.roles
        columns = drop_row_numbers(self.head, [*roles.keys, *roles.others])
        return [name for name in columns.columns if name not in roles.keys]

    @property
    def targets(self) -> list[Any] | None:
        """The columns to forecast, None where forecasters take the right ones by themselves.

        In a file of one series all columns are, in one of several series ``y`` is. A frame
        of one series may hold ``y`` beside others, which are left out.
        """
        roles = self.roles
        others = [name for name in self._data if name not in roles.covariates]
        named = roles.targets or (others if roles.id_column is None and TARGET in others else None)
        return named or None

    @property
    def unused(self) -> list[Any]:
        """The columns that are left out."""
        roles = self.roles
        others = [name for name in self._data if name not in roles.covariates]
        alone = roles.id_column is None or len(others) == 1
        targets = roles.targets or (others if alone else [TARGET])
        return [name for name in others if name not in targets]

    def described(self) -> str:
        """Say in a sentence how the file is read."""
        roles, style = self.roles, self.stated.time_format
        said = [] if self.csv is None else self.csv.described()
        said.append(f"ids in {_listed(roles.ids)}" if roles.ids else "one series")
        said.append(f"times in {_listed(roles.times)}{f' as {style}' if style else ''}")
        first = self.head.columns[0] if len(self.head.columns) else None
        if is_nameless(first) and first not in (*self._data, *roles.keys):
            said.append("the first column, which numbers the rows, left out")
        if self.unused:
            said.append(f"not used: {', '.join(map(repr, self.unused))}")
        return f"{self.path}: {'; '.join(said)}"


def read_table(
    path: Path, roles: Roles | None = None, stated: FileFormat | None = None
) -> pd.DataFrame:
    """Read a CSV or Parquet file, or a workbook.

    Parameters
    ----------
    path, roles, stated
        As :meth:`TableFile.look_at` takes them.

    Returns
    -------
    DataFrame
        As it is in the file, row numbers and all.
    """
    frame, _ = TableFile.look_at(path, roles, stated).read()
    return frame


def _workbook(path: Path, roles: Roles) -> pd.DataFrame:
    return read_workbook(path, roles.ids or [ID])


def _listed(names: Iterable[Any]) -> str:
    return " and ".join(map(repr, names))


def _check_there(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it")
    if not path.is_file():
        near = did_you_mean(path.name, _names(path.parent))
        raise DataError(f"there is no file {path}{near}")
    if path.suffix.lower() in NO_TABLES:
        raise DataError(
            f"{path} cannot be read: tables are .csv, .parquet or .xlsx files; export it"
        )


def read_checked(path: Path, read: Callable[[], T]) -> T:
    """Read from a file; what is wrong with it is one error.

    Parameters
    ----------
    path : pathlib.Path
        For the message.
    read : callable
        What reads.

    Returns
    -------
    object
        What it returns.

    Raises
    ------
    DataError
        It is damaged, or no table.
    MissingExtraError
        A library is not installed.
    """
    try:
        return read()
    except TsarError:
        raise
    except ImportError:
        raise MissingExtraError(_PARQUET) from None
    except zipfile.BadZipFile:
        raise DataError(f"{path} cannot be read as a workbook: it is damaged") from None
    except UnicodeDecodeError:
        raise DataError(
            f"{path} cannot be read as a table: its text is not UTF-8; "
            f"FileFormat(encoding='cp1252') reads what Windows writes in the west of Europe, "
            f"'utf-16' and others go by their names"
        ) from None
    except pd.errors.ParserWarning:
        raise DataError(
            f"{path} cannot be read as a table: its rows have more cells than its header; write "
            f"decimals with points, or separate the cells with semicolons"
        ) from None
    except pd.errors.ParserError as error:
        raise DataError(_unlike_header(path, error)) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def _unlike_header(path: Path, error: Exception) -> str:
    """Say what is wrong with a row that has other cells than the header, and where it is."""
    told = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
    if told is None:
        return f"{path} cannot be read as a table: {' '.join(str(error).split())}"
    expected, line, seen = told.groups()
    return (
        f"{path} cannot be read as a table: line {line} has {seen} cells and the header "
        f"{expected}; quote the cell that holds a separator, or remove what is too much"
    )


def _parquet_head(path: Path) -> pd.DataFrame:
    with parquet_file(path) as file:
        first = read_checked(path, lambda: next(file.iter_batches(HEAD_ROWS), None))
        head = file.schema_arrow.empty_table() if first is None else first
        frame: pd.DataFrame = head.to_pandas()
    return frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()


def parquet_file(path: Path) -> Any:
    """Open a Parquet file.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    pyarrow.parquet.ParquetFile

    Raises
    ------
    MissingExtraError
        pyarrow is not installed.
    DataError
        It is no Parquet file.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError(_PARQUET) from None
    # What is buffered ahead is kept until the file is closed: in the end, all of it.
    return read_checked(path, lambda: pq.ParquetFile(path, pre_buffer=False))


def drop_row_numbers(frame: pd.DataFrame, used: Collection[str | None]) -> pd.DataFrame:
    """Drop a first column of integers without a name: the numbers of rows of pandas and R.

    Parameters
    ----------
    frame : pandas.DataFrame
        As read from a file.
    used : collection of str or None
        Columns that are asked for, which stay.
    """
    first = frame.columns[0] if len(frame.columns) else None
    if first is None or first in used or not is_nameless(first):
        return frame
    column = frame[first]
    if not pd.api.types.is_numeric_dtype(column.dtype):
        # The first rows of a file are text.
        column = as_names(column)
    counts = pd.api.types.is_integer_dtype(column.dtype)
    return frame.drop(columns=[first]) if counts else frame


def check_writable(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Find out before long work whether a table can be written to a path.

    Parameters
    ----------
    path : pathlib.Path
        Where :func:`write_table` is going to write.
    inputs : iterable of pathlib.Path
        Files that must not be overwritten.

    Raises
    ------
    DataError
        If its ending is none that is written, it is a folder or one of the inputs, or lies
        below a file or a folder that cannot be written to.
    MissingExtraError
        If a Parquet file is named and pyarrow is not installed, or a workbook without openpyxl.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it, such as {path / 'forecast.csv'}")
    if path.suffix.lower() not in WRITTEN:
        raise DataError(f"{path} cannot be written: the name must end in .csv, .parquet or .xlsx")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError(_PARQUET)
    if path.suffix.lower() in WORKBOOKS:
        check_library()
    if path.exists() and any(file.exists() and path.samefile(file) for file in inputs):
        raise DataError(f"{path} is the file that is read; write to another one")
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise DataError(f"{path} cannot be written because {existing} is no writable folder")


def as_csv(frame: pd.DataFrame) -> str:
    """Return a frame as the text of a CSV file, nameless columns without a name."""
    return _named_as_read(frame).to_csv(index=False)


def _named_as_read(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns={name: "" for name in frame.columns if is_nameless(name)})


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame without its index; the file appears whole or not at all.

    Parameters
    ----------
    frame : pandas.DataFrame
        What to write.
    path : pathlib.Path
        The ending says whether as Parquet, as a workbook or as CSV. Its folder is made if need
        be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(path) as unfinished:
            if path.suffix.lower() == ".parquet":
                frame.to_parquet(unfinished, index=False)
            elif path.suffix.lower() in WORKBOOKS:
                write_workbook(_named_as_read(frame), unfinished)
            else:
                _named_as_read(frame).to_csv(unfinished, index=False)
    except ImportError:
        raise MissingExtraError(_PARQUET) from None


def find_time_column(frame: pd.DataFrame, taken: Collection[Any] = ()) -> str:
    """Find the column that holds the time.

    Parameters
    ----------
    frame : pandas.DataFrame
        The first rows of a file, or all.
    taken : collection of labels
        Columns that have another role.

    Returns
    -------
    str
        A column called ds, date, datetime, timestamp or time; else the first column of
        text or timestamps that can be read as times.

    Raises
    ------
    DataError
        If there is none.
    """
    free = [name for name in frame.columns if name not in taken]
    for wanted in TIME_NAMES:
        for name in free:
            if str(name).lower() == wanted:
                return str(name)
    for name in free:
        if not _are_numbers(frame[name]) and holds_times(frame[name]):
            return str(name)
    alone = "; if these are several columns, FileFormat(separator=...) parts them"
    raise DataError(
        f"no column holds the time; name it by time_column=. The columns are "
        f"{', '.join(map(repr, free[:20]))}{alone if len(frame.columns) == 1 else ''}"
    )


def _are_numbers(column: pd.Series) -> bool:
    """Return whether the text of a column is numbers for the most part."""
    seen = column.dropna()
    seen = seen[[isinstance(value, str) and value != "" for value in seen]]
    return len(seen) > 0 and float(seen.map(is_numeral).mean()) >= 0.5


def parse_times(frame: pd.DataFrame, name: str, style: str) -> pd.DataFrame:
    """Read a column of times that are written in a stated way.

    Parameters
    ----------
    frame : pandas.DataFrame
    name : str
        The column; numbers such as 20240131 are read digit by digit.
    style : str
        A format of ``strptime``, or a style of :mod:`tsar.data.timestyle`.

    Raises
    ------
    DataError
        If there is no such column, or one of its times is written in another way.
    """
    if name not in frame.columns:
        raise DataError(
            f"time_column: there is no column {name!r}{did_you_mean(name, frame.columns)}"
        )
    text = frame[name].astype(str)
    try:
        parsed = pd.Series(parse_text(text, style), index=frame.index)
    except ValueError as error:
        raise DataError(f"time_format: {style!r} cannot be used: {error}") from None
    wrong = parsed.isna() & frame[name].notna() & (text != "")
    if wrong.any():
        raise DataError(
            f"time_format: {int(wrong.sum())} times are not written as {style!r}, the first is "
            f"{text[wrong].iloc[0]!r}"
        )
    return frame.assign(**{name: parsed})


def write_times(frame: pd.DataFrame, names: Iterable[str], style: str | None) -> pd.DataFrame:
    """Write columns of times in a stated way again.

    Parameters
    ----------
    frame : pandas.DataFrame
    names : iterable of str
        The columns.
    style : str or None
        As :func:`parse_times` takes it; None leaves them as they are.
    """
    if style is None:
        return frame
    written = {}
    for name in names:
        times = pd.DatetimeIndex(frame[name])
        texts = pd.Series(write_text(times, style), index=frame.index, dtype=object)
        written[name] = texts.where(np.asarray(times.notna()))
    return frame.assign(**written)


_PARQUET = "Parquet files need pyarrow: pip install 'tsar[parquet]'"


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
