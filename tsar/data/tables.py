"""Tables in files: CSV, and Parquet where pyarrow is installed."""

import importlib.util
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from tsar.data.frames import holds_times
from tsar.exceptions import DataError, MissingExtraError, foreign_warnings
from tsar.files import whole_file
from tsar.params.constraints import did_you_mean

__all__ = [
    "as_csv",
    "as_names",
    "as_written",
    "check_writable",
    "drop_row_numbers",
    "find_time_column",
    "parse_times",
    "read_head",
    "read_table",
    "write_table",
]

# Looked for before the values are: a column of integers can hold the time, too.
TIME_NAMES = ("ds", "date", "datetime", "timestamp", "time")
WRITTEN = (".csv", ".parquet")
NO_TABLES = (".xls", ".xlsx", ".xlsm", ".ods", ".json", ".feather", ".pkl", ".h5", ".hdf5", ".npz")
PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")
# What stands for a missing value in a CSV file, as pandas has it.
MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
# What pandas calls a column without a name.
NAMELESS = re.compile(r"Unnamed: \d+")


def read_table(path: Path, names: Any = None) -> pd.DataFrame:
    """Read a CSV or Parquet file.

    Parameters
    ----------
    path : pathlib.Path
        Parquet if its ending says so, else CSV: with commas, semicolons, tabs or bars
        between the cells, and with decimal points, or decimal commas where commas do not
        separate.
    names : label or None
        A column of names, such as the ids of series: in a CSV file they are text as it is
        written there, or integers where all of them are, see :func:`as_names`.

    Returns
    -------
    DataFrame
        An index that a Parquet file names is a column.

    Raises
    ------
    DataError
        If the file is missing or is no table.
    MissingExtraError
        If a Parquet file is named and pyarrow is not installed.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it")
    if not path.is_file():
        near = did_you_mean(path.name, _names(path.parent))
        raise DataError(f"there is no file {path}{near}")
    ending = path.suffix.lower()
    if ending in NO_TABLES:
        raise DataError(f"{path} cannot be read: tables are .csv or .parquet files; export it")
    try:
        if ending == ".parquet":
            frame = pd.read_parquet(path)
            return frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
        return _read_csv(path, names)
    except ImportError:
        raise MissingExtraError(_PARQUET) from None
    except UnicodeDecodeError:
        raise DataError(f"{path} cannot be read as a table: its text is not UTF-8") from None
    except pd.errors.ParserWarning:
        raise DataError(
            f"{path} cannot be read as a table: its rows have more cells than its header; write "
            f"decimals with points, or separate the cells with semicolons"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def _read_csv(path: Path, names: Any) -> pd.DataFrame:
    frame, _ = _best_reading(path, None, names)
    if names in frame.columns:
        frame[names] = as_names(frame[names])
    # A separator at the end of each line makes a column of nothing.
    empty = [name for name in frame.columns if _is_nameless(name) and frame[name].isna().all()]
    return frame.drop(columns=empty)


def as_written(path: Path, name: Any, dialect: dict[str, Any]) -> dict[str, Any]:
    """Return the options of :func:`pandas.read_csv` that read one column as text.

    007 then stays what it is, and so does NA: only an empty cell is missing.

    Parameters
    ----------
    path : pathlib.Path
    name : label
        Of the column.
    dialect : dict
        ``sep`` and ``decimal``.
    """
    others = pd.read_csv(path, index_col=False, nrows=0, **dialect).columns.drop(
        name, errors="ignore"
    )
    missing = {str(other): list(MISSING) for other in others} | {name: [""]}
    return {"dtype": {name: str}, "keep_default_na": False, "na_values": missing}


def as_names(texts: pd.Series) -> pd.Series:
    """Return texts as integers, if that is how all are written: 007 is a name and no number.

    Parameters
    ----------
    texts : Series of str
    """
    distinct = pd.Series(texts.unique(), dtype=object)
    integers = distinct.str.fullmatch(r"0|-?[1-9]\d{0,17}", na=False).all()
    return texts.astype("int64") if integers else texts


def _best_reading(
    path: Path, rows: int | None, names: Any = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the first rows, or all, in the dialect that finds most numbers; return both."""
    separator = "," if path.suffix.lower() in PACKED else _separator(path)
    readings = []
    for decimal in ".," if separator != "," else ".":
        dialect: dict[str, Any] = {"sep": separator, "decimal": decimal}
        # Cells beyond the header would be dropped, or the first ones taken for an index.
        with foreign_warnings("error", pd.errors.ParserWarning):
            frame = pd.read_csv(
                path,
                index_col=False,
                low_memory=False,
                nrows=rows,
                **({} if names is None else as_written(path, names, dialect)),
                **dialect,
            )
        readings.append((frame, dialect))
    return max(readings, key=lambda read: read[0].select_dtypes("number").shape[1])


def read_head(path: Path, rows: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the first rows of a CSV file that is too large to be read at once.

    Parameters
    ----------
    path : pathlib.Path
    rows : int

    Returns
    -------
    frame : DataFrame
    dialect : dict
        ``sep`` and ``decimal``, as :func:`pandas.read_csv` takes them.

    Raises
    ------
    DataError
        If it is no table.
    """
    try:
        return _best_reading(path, rows)
    except UnicodeDecodeError:
        raise DataError(f"{path} cannot be read as a table: its text is not UTF-8") from None
    except (ValueError, pd.errors.ParserWarning) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def _separator(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline()
    return max(",;\t|", key=header.count)


def _is_nameless(name: Any) -> bool:
    return NAMELESS.fullmatch(str(name)) is not None


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
    if first is None or first in used or not _is_nameless(first):
        return frame
    counts = pd.api.types.is_integer_dtype(frame[first].dtype)
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
        If a Parquet file is named and pyarrow is not installed.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it, such as {path / 'forecast.csv'}")
    if path.suffix.lower() not in WRITTEN:
        raise DataError(f"{path} cannot be written: the name must end in {' or '.join(WRITTEN)}")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError(_PARQUET)
    if path.exists() and any(file.exists() and path.samefile(file) for file in inputs):
        raise DataError(f"{path} is the file that is read; write to another one")
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise DataError(f"{path} cannot be written because {existing} is no writable folder")


def as_csv(frame: pd.DataFrame) -> str:
    """Return a frame as the text of a CSV file, nameless columns without a name."""
    return _named_as_read(frame).to_csv(index=False)


def _named_as_read(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns={name: "" for name in frame.columns if _is_nameless(name)})


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame without its index; the file appears whole or not at all.

    Parameters
    ----------
    frame : pandas.DataFrame
        What to write.
    path : pathlib.Path
        The ending says whether as Parquet or as CSV. Its folder is made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(path) as unfinished:
            if path.suffix.lower() == ".parquet":
                frame.to_parquet(unfinished, index=False)
            else:
                _named_as_read(frame).to_csv(unfinished, index=False)
    except ImportError:
        raise MissingExtraError(_PARQUET) from None


def find_time_column(frame: pd.DataFrame) -> str:
    """Find the column that holds the time.

    Parameters
    ----------
    frame : pandas.DataFrame
        As read from a file.

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
    for wanted in TIME_NAMES:
        for name in frame.columns:
            if str(name).lower() == wanted:
                return str(name)
    for name in frame.columns:
        if holds_times(frame[name]):
            return str(name)
    raise DataError(
        f"no column holds the time; name it with --time. The columns are "
        f"{', '.join(map(repr, frame.columns[:20]))}"
    )


def parse_times(frame: pd.DataFrame, name: str, style: str) -> pd.DataFrame:
    """Read a column of times that are written in a stated way.

    Parameters
    ----------
    frame : pandas.DataFrame
    name : str
        The column; numbers such as 20240131 are read digit by digit.
    style : str
        A format of ``strptime``.

    Raises
    ------
    DataError
        If there is no such column, or one of its times is written in another way.
    """
    if name not in frame.columns:
        raise DataError(f"--time: there is no column {name!r}{did_you_mean(name, frame.columns)}")
    text = frame[name].astype(str)
    try:
        parsed = pd.to_datetime(text, format=style, errors="coerce")
    except ValueError as error:
        raise DataError(f"--time-format: {style!r} cannot be used: {error}") from None
    wrong = parsed.isna() & frame[name].notna()
    if wrong.any():
        raise DataError(
            f"--time-format: {int(wrong.sum())} times are not written as {style!r}, the first is "
            f"{text[wrong].iloc[0]!r}"
        )
    return frame.assign(**{name: parsed})


_PARQUET = "Parquet files need pyarrow: pip install 'tsar[parquet]'"


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
