"""Every fault of a panel in one error: which series, what kind, how often, where first."""

from typing import Any

import numpy as np
import pandas as pd

from tsar.exceptions import DataError

__all__ = ["Faults"]

# Messages longer than this are unreadable; the full list is on the error.
SHOWN = 100
REPAIRS = {
    "timestamp": "an unparsable timestamp: repair or drop the row",
    "id": "a missing id: fill it in or drop the row",
    "duplicate": "a duplicate: df.drop_duplicates([id, time]) or aggregate first",
    "gap": "a gap: pass gaps='mask' to treat missing rows as missing values, or reindex",
    "off-grid": "an off-grid timestamp: round it to the grid, or pass the right freq",
    "frequency": "another frequency: resample the series, or model it on its own",
    "infinite": "an infinite value: replace it, for example by NaN, which is masked",
    "non-numeric": "a value that is no number: convert the column with pd.to_numeric",
}


class Faults:
    """Collects the faults of a panel."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, str, int, str]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, series: Any, kind: str, count: int, first: str) -> None:
        """Record ``count`` faults of one kind in one series."""
        self._rows.append((series, kind, count, first))

    def raise_if_any(self, single: bool) -> None:
        """Raise one :class:`DataError` for everything recorded.

        Parameters
        ----------
        single : bool
            Whether the frame holds one series that has no id.
        """
        if not self._rows:
            return
        table = pd.DataFrame(self._rows, columns=["id", "kind", "count", "first"])
        lines = [
            f"  {'the frame' if single else f'id {series!r}'}: {kind}, count {count}, first at {first}"
            for series, kind, count, first in self._rows[:SHOWN]
        ]
        if len(self._rows) > SHOWN:
            lines.append(f"  and {len(self._rows) - SHOWN} more, all in the error's `faults` frame")
        repairs = [f"  {REPAIRS[kind]}" for kind in REPAIRS if kind in set(table["kind"])]
        raise DataError(
            "\n".join(
                [
                    f"the data have {len(table)} fault{'s' if len(table) > 1 else ''} "
                    f"in {table['id'].nunique(dropna=False)} series:",
                    *lines,
                    "how to repair:",
                    *repairs,
                ]
            ),
            faults=table,
        )
