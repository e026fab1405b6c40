"""Tables in files: CSV, and Parquet where pyarrow is installed."""

import os
import tempfile
from pathlib import Path

import pandas as pd

from tsar.exceptions import DataError, MissingExtraError
from tsar.params import did_you_mean

__all__ = ["check_writable", "find_time_column", "read_table", "write_table"]

# Looked for before the values are: a column of integers can hold the time, too.
TIME_NAMES = ("ds", "date", "datetime", "timestamp", "time")


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV or Parquet file.

    Parameters
    ----------
    path : pathlib.Path
        The ending says which.

    Raises
    ------
    DataError
        If the file is missing or is no table.
    MissingExtraError
        If a Parquet file is named and pyarrow is not installed.
    """
    if not path.is_file():
        near = did_you_mean(path.name, _names(path.parent))
        raise DataError(f"there is no file {path}{near}")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path)
    except ImportError:
        raise MissingExtraError(_PARQUET) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def check_writable(path: Path) -> None:
    """Find out before long work whether a table can be written to a path.

    Parameters
    ----------
    path : pathlib.Path
        Where :func:`write_table` is going to write.

    Raises
    ------
    DataError
        If it is a folder, or lies below a file or a folder that cannot be written to.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it, such as {path / 'forecast.csv'}")
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise DataError(f"{path} cannot be written because {existing} is no writable folder")


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
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    unfinished = Path(name)
    try:
        if path.suffix == ".parquet":
            frame.to_parquet(unfinished, index=False)
        else:
            frame.to_csv(unfinished, index=False)
        # mkstemp makes a file that only its owner reads; the result is an ordinary one.
        unfinished.chmod(0o666 & ~_umask())
        unfinished.replace(path)
    except ImportError:
        raise MissingExtraError(_PARQUET) from None
    finally:
        unfinished.unlink(missing_ok=True)


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
        if pd.api.types.is_numeric_dtype(frame[name].dtype):
            continue
        if _holds_times(frame[name].dropna().head(100)):
            return str(name)
    raise DataError(
        f"no column holds the time; name it with --time. The columns are "
        f"{', '.join(map(repr, frame.columns[:20]))}"
    )


def _holds_times(values: pd.Series) -> bool:
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return True
    first = next(iter(values), None)
    # Without a format pandas guesses value by value, and warns.
    style = pd.tseries.api.guess_datetime_format(first) if isinstance(first, str) else None
    return (
        style is not None and not pd.to_datetime(values, format=style, errors="coerce").isna().any()
    )


_PARQUET = "Parquet files need pyarrow: pip install 'tsar[parquet]'"


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
