"""Data of one's own under the protocol of the published tables: a file, and its borders."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd

from tsar.data.datasets import Borders
from tsar.data.panel import Panel
from tsar.data.tables import drop_row_numbers, find_time_column, parse_times, read_table
from tsar.data.toml import check_table
from tsar.exceptions import DataError
from tsar.params.constraints import Interval

__all__ = ["OwnData"]

# What the table [data] of a recipe may say.
KEYS: dict[str, Any] = {
    "file": str,
    "time": str,
    "time_format": str,
    "target": str | list[str],
    "borders": dict,
}
# A row, or a time: a date of TOML, or text.
BORDER = Annotated[int, Interval(1)] | str | datetime.date
PARTS: dict[str, Any] = {"train_end": BORDER, "val_end": BORDER, "test_end": BORDER}


@dataclass(frozen=True)
class OwnData:
    """A file and where its parts end.

    Parameters
    ----------
    owner : str
        What is called in messages: "recipe meters".
    path : pathlib.Path
        A CSV or Parquet file, one row per time step, a column per variate.
    borders : mapping of str to int, str or date
        ``train_end``, ``val_end`` and ``test_end``, each the first row after its part or the
        time from which on rows are no longer part of it; without ``test_end``, the test part
        ends with the file.
    time, time_format : str or None
        Column of the time, and how times are written; found if not given.
    target : list of str or None
        Columns to forecast; None takes all others.
    """

    owner: str
    path: Path
    borders: Mapping[str, Any]
    time: str | None = None
    time_format: str | None = None
    target: list[str] | None = None

    @classmethod
    def of(cls, owner: str, table: Mapping[str, Any], folder: Path) -> "OwnData":
        """Check the table ``[data]`` of a recipe.

        Parameters
        ----------
        owner : str
        table : mapping
        folder : pathlib.Path
            What the path of the file is relative to.

        Raises
        ------
        ParameterError, DataError
            A key is missing, unknown, or of another type.
        """
        owner = f"{owner}, [data]"
        check_table(owner, table, KEYS)
        borders = table.get("borders", {})
        check_table(f"{owner}, borders", borders, PARTS)
        for entries, needed in ((table, ("file", "borders")), (borders, ("train_end", "val_end"))):
            lacking = [name for name in needed if name not in entries]
            if lacking:
                raise DataError(
                    f"{owner}: {lacking[0]!r} is missing; it needs a file, and borders such as "
                    f'{{ train_end = 8640, val_end = "2018-01-01" }}, rows or times'
                )
        target = table.get("target")
        return cls(
            owner,
            folder / table["file"],
            borders,
            table.get("time"),
            table.get("time_format"),
            [target] if isinstance(target, str) else target,
        )

    @property
    def name(self) -> str:
        """The name of the file, which stands for the data set."""
        return self.path.stem

    def load(self) -> tuple[pd.DataFrame, Borders]:
        """Read the file.

        Returns
        -------
        frame : DataFrame
            float64, a column per variate, with the times as its index.
        borders : Borders
            As rows of it.

        Raises
        ------
        DataError
            The file has faults, holds several series, or the borders lie outside of it.
        """
        table = read_table(self.path)
        time = find_time_column(table) if self.time is None else self.time
        if self.time_format is not None:
            table = parse_times(table, time, self.time_format)
        table = drop_row_numbers(table, [time, *(self.target or [])])
        try:
            panel = Panel.from_frame(table, time_column=time, target=self.target)
        except DataError as error:
            raise DataError(f"{self.owner}: {self.path.name}: {error}", error.faults) from None
        if panel.n_series > 1:
            raise DataError(
                f"{self.owner}: {self.path.name} must hold one row per time, a column per variate, "
                f"got {panel.n_series} series below each other; pivot them into columns"
            )
        index = panel.axis.times(panel.stamps())
        frame = pd.DataFrame(panel.values.astype("float64"), index=index, columns=panel.variates)
        rows = {part: self._row(part, index) for part in PARTS}
        if rows["test_end"] > len(frame):
            raise DataError(
                f"{self.owner}: test_end must be at most {len(frame)}, the rows of "
                f"{self.path.name}, got {rows['test_end']}"
            )
        try:
            return frame, Borders(**rows)
        except DataError as error:
            raise DataError(f"{self.owner}: {error}, in rows of {self.path.name}") from None

    def _row(self, part: str, index: pd.Index) -> int:
        """Return the first row after a part."""
        border = self.borders.get(part, len(index))
        if isinstance(border, int):
            return border
        if isinstance(index, pd.PeriodIndex):
            index = index.to_timestamp()
        try:
            moment = pd.Timestamp(border)
            zone = getattr(index, "tz", None)
            if zone is not None and moment.tz is None:
                moment = moment.tz_localize(zone)
            # One step after the last row is the end of the file; later there is nothing to end.
            if len(index) > 1 and moment > index[-1] + (index[-1] - index[-2]):
                raise DataError(
                    f"{self.owner}: {part} = {str(border)!r} lies after the last row of "
                    f"{self.path.name}, {index[-1]}; leave test_end out for the end of the file"
                )
            return int(index.searchsorted(moment))
        except (TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{self.owner}: {part} must be a row, or a time like those of {self.path.name}, "
                f"such as {str(index[0])!r}, got {border!r}"
            ) from None
