"""Tables in workbooks of spreadsheets (.xlsx): the first sheet, its first row the names."""

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.csvtext import MISSING_CELLS
from tsar.data.numerals import is_numeral
from tsar.exceptions import DataError, MissingExtraError

__all__ = ["WORKBOOKS", "check_library", "read_cells", "read_workbook", "write_workbook"]

WORKBOOKS = (".xlsx", ".xlsm")
# What a sheet can hold, its header included.
MOST_ROWS = 1_048_576


def check_library() -> None:
    """Raise a MissingExtraError where openpyxl is not installed."""
    if importlib.util.find_spec("openpyxl") is None:
        raise MissingExtraError(
            "workbooks (.xlsx) need openpyxl: pip install 'tsar[excel]', or export to .csv"
        )


def read_workbook(path: Path, ids: Collection[Any] = ()) -> pd.DataFrame:
    """Read the first sheet of a workbook.

    Cells are what the spreadsheet holds: numbers, dates or text. A text of digits stays text.

    Parameters
    ----------
    path : pathlib.Path
    ids : collection of labels
        The columns of the id: there only an empty cell is missing; elsewhere also ``NA``,
        ``null`` and the like.

    Raises
    ------
    DataError
        It has no rows, a column without a name has cells, or two have one name.
    MissingExtraError
        openpyxl is not installed.
    """
    frame = read_cells(path)
    for name in frame.columns:
        if name not in ids:
            frame[name] = frame[name].where(~frame[name].isin(MISSING_CELLS))
    return frame.infer_objects()


def read_cells(path: Path) -> pd.DataFrame:
    """Read the cells of the first sheet as objects, only empty ones missing.

    Parameters
    ----------
    path : pathlib.Path

    Raises
    ------
    DataError, MissingExtraError
        As :func:`read_workbook` does.
    """
    check_library()
    sheet = pd.read_excel(
        path,
        sheet_name=0,
        header=None,
        dtype=object,
        keep_default_na=False,
        na_values=[""],
        engine="openpyxl",
    )
    sheet = sheet.dropna(how="all").dropna(axis=1, how="all")
    if not len(sheet):
        raise DataError(f"{path}: the first sheet is empty; put the table there")
    sheet = sheet.iloc[_n_titles(sheet) :]
    names = sheet.iloc[0]
    if names.isna().any():
        place = int(names.isna().to_numpy().argmax()) + 1
        raise DataError(
            f"{path}: column {place} of the first sheet has no name in its first row; name it, or "
            f"remove what is above the table"
        )
    named = pd.Index([name if isinstance(name, str) else str(name) for name in names])
    if named.has_duplicates:
        doubled = named[named.duplicated()][0]
        raise DataError(f"{path}: column {doubled!r} occurs more than once; rename one")
    return sheet.iloc[1:].set_axis(named, axis=1).reset_index(drop=True)


def _n_titles(sheet: pd.DataFrame) -> int:
    """Return how many rows stand above the first one whose cells all are words, which are names."""
    full = np.flatnonzero(sheet.notna().all(axis=1))
    if not len(full):
        return 0
    words = [isinstance(cell, str) and not is_numeral(cell) for cell in sheet.iloc[full[0]]]
    return int(full[0]) if all(words) else 0


def write_workbook(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as the only sheet of a workbook, without its index.

    A sheet knows no time zones: times that have one are written as text.

    Parameters
    ----------
    frame : pandas.DataFrame
    path : pathlib.Path

    Raises
    ------
    DataError
        A sheet cannot hold so many rows.
    """
    check_library()
    if len(frame) >= MOST_ROWS:
        raise DataError(
            f"{path}: a sheet holds at most {MOST_ROWS - 1} rows, got {len(frame)}; write to a "
            f".csv or .parquet file"
        )
    frame = frame.copy(deep=False)
    for name in frame.columns[[isinstance(dtype, pd.DatetimeTZDtype) for dtype in frame.dtypes]]:
        frame[name] = frame[name].map(lambda time: None if pd.isna(time) else time.isoformat())
    with path.open("wb") as file:
        frame.to_excel(file, index=False, engine="openpyxl")
