"""Every fault of a panel in one error: which series, what kind, how often, where first."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from tsar.exceptions import DataError

__all__ = ["SHOWN", "Faults", "as_python", "repairs"]

# Messages longer than this are unreadable; the full list is on the error.
SHOWN = 100
# What depends on the frequency.
CALENDAR = {"gap", "off-grid", "frequency"}
IRREGULAR = "irregular"
# Steps that times cannot be rounded to, and the period in which each lies.
PERIODS = {"W": "W", "MS": "M", "QS": "Q", "YS": "Y"}
REPAIRS = {
    "timestamp": "an unparsable timestamp: repair or drop the row",
    "id": "a missing id: fill it in or drop the row",
    "time zone": "another time zone: read all rows with pd.to_datetime(..., utc=True), then "
    "tz_convert to one zone",
    "duplicate": "a duplicate: tsar.tidy(df, duplicates='sum') adds such rows up, 'first' keeps "
    "one; name the id column by id_column= if the rows are several series; join a date and its "
    "clock if they are two columns: pd.to_datetime(df['date'] + ' ' + df['clock'])",
    "gap": "a gap: pass gaps='mask' to treat missing rows as missing values, 'zero' as zeros",
    "off-grid": "an off-grid timestamp: round it to the grid, or pass the right freq",
    "frequency": "another frequency: resample the series, or model it on its own",
    IRREGULAR: "irregular times: round them where each row is one step, else put rows together",
    "infinite": "an infinite value, or one beyond 1e150: replace it, for example by NaN, which "
    "is masked",
    "non-numeric": "a value that is no number: pd.to_numeric(df[column], errors='coerce') makes "
    "it NaN, df[column].astype(float) converts booleans",
}


class Faults:
    """Collects the faults of a panel."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, str, int, str, Any]] = []
        # The step that a series of another frequency has, by the number of its row.
        self._steps: dict[int, str] = {}
        # The step that would be nearest to those of an irregular one.
        self._nearest: str | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        series: Any,
        kind: str,
        count: int,
        first: str,
        column: Any = None,
        step: str | None = None,
    ) -> None:
        """Record ``count`` faults of one kind in one series (and column, for values).

        ``step`` is the frequency that the series has in place of the right one.
        """
        if step is not None:
            self._steps[len(self._rows)] = step
        self._rows.append((as_python(series), kind, count, first, as_python(column)))

    def add_irregular(self, series: Any, count: int, first: str, nearest: str) -> None:
        """Record a series of ``count`` rows that has no step at all, and the nearest one."""
        self._nearest = nearest
        self.add(series, IRREGULAR, count, first)

    def raise_if_any(self, whole: str | None = None, frequency: str | None = None) -> None:
        """Raise one :class:`DataError` for everything recorded.

        Parameters
        ----------
        whole : str or None
            What to call the data where they are one series without an id.
        frequency : str or None
            What the rows were checked against, in words.
        """
        if not self._rows:
            return
        table = pd.DataFrame(self._rows, columns=["id", "kind", "count", "first", "column"])
        lines = []
        for row, (series, kind, count, first, column) in enumerate(self._rows[:SHOWN]):
            where = f"id {series!r}" if whole is None else whole
            where += "" if column is None else f", column {column!r}"
            step = f", has {self._steps[row]!r}" if row in self._steps else ""
            lines.append(f"  {where}: {kind}, count {count}, first at {first}{step}")
        if len(self._rows) > SHOWN:
            lines.append(f"  and {len(self._rows) - SHOWN} more, all in the error's `faults` frame")
        n_series = table["id"].nunique(dropna=False)
        amount = f"{len(table)} fault{'s' if len(table) > 1 else ''} in {n_series} series"
        kinds = set(table["kind"])
        against = frequency is not None and not kinds.isdisjoint(CALENDAR)
        checked = f" (expected {frequency})" if against else ""
        steps = list(self._steps.values())
        table.attrs["step"] = max(steps, key=steps.count) if steps else None
        message = [f"the data have {amount}{checked}:", *lines, *repairs(kinds)]
        if steps:
            message.append(
                f"    freq={table.attrs['step']!r} reads the series that have it, on their own"
            )
        if self._nearest is not None:
            step = self._nearest
            period = PERIODS.get(step)
            rounded = f"to_period({period!r})" if period else f"round({step!r})"
            message.append(
                f"    with {step!r}, which is nearest to most steps: df.index.{rounded} or "
                f"df.resample({step!r}).mean()"
            )
        raise DataError("\n".join(message), faults=table)


def repairs(kinds: Iterable[str]) -> list[str]:
    """Return the lines that say how to repair faults of some kinds, none for other kinds."""
    present = set(kinds)
    lines = [f"  {REPAIRS[kind]}" for kind in REPAIRS if kind in present]
    return ["how to repair:", *lines] if lines else []


def as_python(label: Any) -> Any:
    """Return a label as messages show it: 4, and not np.int64(4)."""
    return label.item() if isinstance(label, np.generic) else label
