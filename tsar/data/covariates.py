"""Covariates: columns that help to forecast others, coded as numbers.

Numeric columns are standardised by their training rows over all series, so that a price
of 2 means the same in each of them; other columns become category codes, which networks
embed. Dimension letter: S series.
"""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsar.data.calendar import CALENDARS
from tsar.data.codec import IndexRecord, decode, decode_index, encode, encode_index
from tsar.data.faults import as_python
from tsar.data.scaling import ROUNDING, carry_forward
from tsar.data.windows import CovariateTensors
from tsar.exceptions import DataError, DataWarning, warn

__all__ = [
    "ColumnCoding",
    "CovariateCoding",
    "CovariateRows",
    "constant_values",
    "covariate_tensors",
]

# Single precision has seven digits: what deviates by less of its size may be their rounding.
STILL = 1e-6


class ColumnRecord(TypedDict):
    """A :class:`ColumnCoding` as JSON."""

    name: Any
    mean: float
    scale: float
    categories: IndexRecord | None
    missing: NotRequired[bool]


class CodingRecord(TypedDict, total=False):
    """A :class:`CovariateCoding` as JSON; empty without covariates."""

    past: list[ColumnRecord]
    future: list[ColumnRecord]
    static: list[ColumnRecord]
    calendar: str | None


@dataclass(frozen=True)
class CovariateRows:
    """Coded covariates of a panel, one column after the other.

    Parameters
    ----------
    past : float32 array of shape (rows, n_past)
        Known up to the forecast origin.
    future : float32 array of shape (rows, n_future)
        Known over the horizon as well.
    calendar : float32 array of shape (rows, n_calendar)
        Features of the local clock; without any columns where they are not asked for.
    static : float32 array of shape (S, n_static)
        Constant in time.
    """

    past: np.ndarray
    future: np.ndarray
    calendar: np.ndarray
    static: np.ndarray

    def take(self, rows: np.ndarray) -> "CovariateRows":
        """Return some rows of the same series."""
        return CovariateRows(self.past[rows], self.future[rows], self.calendar[rows], self.static)

    def followed_by(self, later: "CovariateRows") -> "CovariateRows":
        """Return the rows of both, with the static covariates of the later ones."""
        past, future, calendar = (
            np.concatenate([getattr(self, role), getattr(later, role)])
            for role in ("past", "future", "calendar")
        )
        return CovariateRows(past, future, calendar, later.static)

    @property
    def known_ahead(self) -> np.ndarray:
        """Future covariates and, after them, the calendar."""
        return np.concatenate([self.future, self.calendar], axis=1)


@dataclass(frozen=True)
class ColumnCoding:
    """How one column becomes numbers.

    Parameters
    ----------
    name : label
        Of the column.
    mean, scale : float
        Of its training rows, where it is numeric; the scale of what never moved in them is
        0, and it is coded as 0 whatever it does later.
    categories : Index or None
        Its values, where it is not. Their codes begin with 1; code 0 is an unknown one.
    missing : bool
        Whether a missing category was among the training rows. It then has a code of its own,
        the last one, and is as unknown as any other otherwise.
    """

    name: Any
    mean: float = 0.0
    scale: float = 1.0
    categories: pd.Index | None = None
    missing: bool = False

    @property
    def n_categories(self) -> int:
        """How many codes there are, 0 for a numeric column."""
        return 0 if self.categories is None else len(self.categories) + 1 + self.missing

    @classmethod
    def measure(cls, name: Any, column: np.ndarray, training: np.ndarray) -> "ColumnCoding":
        """Learn the coding of a column from the rows where a mask is True."""
        if column.dtype.kind in "mM":
            raise DataError(
                f"covariate {name!r} holds times (dtype {column.dtype}), which have no scale; "
                f"convert it to a number, for example the days since an event"
            )
        if column.dtype.kind == "c":
            raise DataError(f"covariate {name!r} holds complex numbers; pass two columns")
        if column.dtype.kind not in "fiub":
            missing = bool(pd.isna(column[training]).any())
            return cls(name, categories=_categories(name, column), missing=missing)
        values = column.astype(np.float64)
        if np.isinf(values).any():
            raise DataError(
                f"covariate {name!r} holds {int(np.isinf(values).sum())} infinite values; replace "
                f"them, for example by NaN, which takes the last value before it"
            )
        values = values[training & ~np.isnan(values)]
        if not len(values):
            return cls(name)
        deviation, largest = float(values.std()), float(np.abs(values).max())
        # What never moved in training tells nothing, and moves no forecast when it does.
        moves = deviation > STILL * largest
        if not moves and np.ptp(values) > ROUNDING * largest:
            warn(
                f"covariate {name!r} moves by {np.ptp(values):.2g} beside values of "
                f"{largest:.6g}, which is no more than rounding, and is read as constant; subtract "
                f"a constant from it if that is what it has to say",
                DataWarning,
            )
        return cls(name, float(values.mean()), deviation if moves else 0.0)

    def encode(self, column: np.ndarray) -> np.ndarray:
        """Return a column as float32, NaN where a numeric one is missing.

        Raises
        ------
        DataError
            A numeric column holds something else, or values without a finite code.
        """
        if self.categories is None:
            return self._encode_numbers(column)
        codes = self.categories.get_indexer(pd.Index(column, dtype=object)) + 1
        missing = pd.isna(column)
        unknown = (codes == 0) & ~missing
        if unknown.any():
            warn(
                f"covariate {self.name!r} has categories that were not fitted, for example "
                f"{as_python(column[unknown.argmax()])!r}; they count as unknown",
                DataWarning,
            )
        if self.missing:
            codes[missing] = self.n_categories - 1
        return codes.astype(np.float32)

    def _encode_numbers(self, column: np.ndarray) -> np.ndarray:
        try:
            if column.dtype.kind in "mM":
                raise TypeError
            values = column.astype(np.float64)
        except (TypeError, ValueError):
            raise DataError(
                f"covariate {self.name!r} was fitted as numbers, got {_example(column)}; convert "
                f"it to numbers"
            ) from None
        with np.errstate(over="ignore", invalid="ignore"):
            moved = (values - self.mean) / (self.scale or np.inf)
            coded = moved.astype(np.float32)
        endless = np.isinf(values) | np.isinf(coded)
        if endless.any():
            raise DataError(
                f"covariate {self.name!r} holds {int(endless.sum())} values that are infinite or "
                f"far beyond the fitted ones, for example {values[endless.argmax()]}; replace them"
            )
        return coded

    def to_state(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        held = None if self.categories is None else encode_index(self.categories)
        return {
            "name": encode(self.name),
            "mean": self.mean,
            "scale": self.scale,
            "categories": held,
            "missing": self.missing,
        }

    @classmethod
    def from_state(cls, record: dict[str, Any]) -> "ColumnCoding":
        """Undo :meth:`to_state`."""
        held = record["categories"]
        categories = None if held is None else decode_index(held)
        # Models saved before did not tell missing from unknown.
        missing = record.get("missing", False)
        return cls(decode(record["name"]), record["mean"], record["scale"], categories, missing)


@dataclass(frozen=True)
class CovariateCoding:
    """The codings of all covariates of an estimator.

    Parameters
    ----------
    past, future, static : tuple of ColumnCoding
        In the order of the declared names.
    calendar : str or None
        Which of :data:`tsar.data.calendar.CALENDARS` is among the covariates.
    """

    past: tuple[ColumnCoding, ...] = ()
    future: tuple[ColumnCoding, ...] = ()
    static: tuple[ColumnCoding, ...] = ()
    calendar: str | None = None

    @classmethod
    def measure(
        cls,
        past: dict[Any, np.ndarray],
        future: dict[Any, np.ndarray],
        static: dict[Any, np.ndarray],
        *,
        calendar: str | None,
        offsets: np.ndarray,
        stop: np.ndarray,
    ) -> "CovariateCoding":
        """Learn from the rows ``offsets[s]:stop[s]`` of every series.

        Parameters
        ----------
        past, future : dict of name to array of shape (rows,)
        static : dict of name to array of shape (S,)
        calendar : str or None
        offsets : int64 array of shape (S + 1,)
        stop : int64 array of shape (S,)

        Raises
        ------
        DataError
            A column holds times or infinite values.
        """
        edges = np.zeros(offsets[-1] + 1, dtype=np.int64)
        np.add.at(edges, offsets[:-1], 1)
        np.add.at(edges, stop, -1)
        training = np.cumsum(edges)[:-1] > 0
        every = np.ones(len(offsets) - 1, dtype=bool)

        def measured(columns: dict[Any, np.ndarray], rows: np.ndarray) -> tuple[ColumnCoding, ...]:
            return tuple(ColumnCoding.measure(name, col, rows) for name, col in columns.items())

        return cls(
            measured(past, training), measured(future, training), measured(static, every), calendar
        )

    def __bool__(self) -> bool:
        return bool(self.past or self.future or self.static or self.calendar is not None)

    def encode(
        self,
        past: dict[Any, np.ndarray],
        future: dict[Any, np.ndarray],
        static: dict[Any, np.ndarray],
        calendar: np.ndarray | None,
        offsets: np.ndarray,
    ) -> CovariateRows:
        """Code the columns of a panel; what is missing takes the value before it.

        Parameters
        ----------
        past, future : dict of name to array of shape (rows,)
        static : dict of name to array of shape (S,)
        calendar : float32 array of shape (rows, n_calendar) or None
        offsets : int64 array of shape (S + 1,)

        Returns
        -------
        CovariateRows
        """
        n_rows = int(offsets[-1])
        if calendar is None:
            calendar = np.zeros((n_rows, 0), dtype=np.float32)
        alone = np.arange(len(offsets))
        return CovariateRows(
            _coded(self.past, past, offsets),
            _coded(self.future, future, offsets),
            calendar,
            _coded(self.static, static, alone),
        )

    def to_state(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        roles = {
            role: [column.to_state() for column in getattr(self, role)]
            for role in ("past", "future", "static")
        }
        return {**roles, "calendar": self.calendar}

    @classmethod
    def from_state(cls, record: dict[str, Any]) -> "CovariateCoding":
        """Undo :meth:`to_state`; models without covariates may have stored nothing."""
        past, future, static = (
            tuple(ColumnCoding.from_state(column) for column in record.get(role, []))
            for role in ("past", "future", "static")
        )
        return cls(past, future, static, record.get("calendar"))

    @property
    def n_calendar(self) -> int:
        """How many calendar features there are."""
        return 0 if self.calendar is None else CALENDARS[self.calendar].width


def constant_values(column: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the value of each series in a column, wherever it is not missing.

    Parameters
    ----------
    column : array of shape (rows,)
    offsets : int64 array of shape (S + 1,)
        Row ranges of the series, none of them empty.

    Returns
    -------
    values : array of shape (S,)
        The first that is there, or what is missing.
    changing : int64 array of shape (any,)
        Rows that hold another value.
    """
    present = ~pd.isna(column)
    rows = np.where(present, np.arange(len(column)), len(column))
    places = np.minimum.reduceat(rows, offsets[:-1])
    values = column[np.where(places < len(column), places, offsets[:-1])]
    expected = np.repeat(values, np.diff(offsets))
    return values, np.flatnonzero(present)[column[present] != expected[present]]


def _categories(name: Any, column: np.ndarray) -> pd.Index:
    try:
        return pd.Index(pd.unique(column[~pd.isna(column)]))
    except TypeError:
        raise DataError(
            f"covariate {name!r} holds {_example(column)}, which is neither a number nor a "
            f"category; pass text or numbers"
        ) from None


def _example(column: np.ndarray) -> str:
    """Return a value that is no number, with its type, to be shown in an error."""
    values = column[~pd.isna(column)]
    odd = next((value for value in values if not isinstance(value, numbers.Real)), values[0])
    return f"{odd!r} of type {type(odd).__name__}"


def _coded(
    codings: Sequence[ColumnCoding], columns: dict[Any, np.ndarray], offsets: np.ndarray
) -> np.ndarray:
    """Return columns side by side, shape (rows, n), without missing values."""
    coded = np.empty((int(offsets[-1]), len(codings)), dtype=np.float32)
    for place, coding in enumerate(codings):
        coded[:, place] = coding.encode(columns[coding.name])
    seen = ~np.isnan(coded)
    if not seen.all():
        carry_forward(coded, seen, offsets)
    return coded


def covariate_tensors(
    rows: CovariateRows,
    offsets: np.ndarray,
    ahead: np.ndarray,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> CovariateTensors:
    """Join the covariates of a panel with what is known of the steps after it.

    Parameters
    ----------
    rows : CovariateRows
    offsets : int64 array of shape (S + 1,)
        Row ranges of the series.
    ahead : float array of shape (S, steps, n_future + n_calendar)
        Known covariates after the end of each series.
    device : torch.device
    dtype : torch.dtype

    Returns
    -------
    CovariateTensors
    """
    n_series, steps = ahead.shape[:2]
    shift = steps * np.arange(n_series + 1)
    known_offsets = offsets + shift
    future = np.empty((known_offsets[-1], ahead.shape[2]), dtype=np.float32)
    future[np.arange(offsets[-1]) + np.repeat(shift[:-1], np.diff(offsets))] = rows.known_ahead
    after = known_offsets[1:, None] - steps + np.arange(steps)
    future[after.reshape(-1)] = ahead.reshape(n_series * steps, ahead.shape[2])

    def moved(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device, dtype)

    return CovariateTensors(
        moved(rows.past),
        moved(future),
        torch.from_numpy(known_offsets).to(device),
        moved(rows.static),
        rows.future.shape[1],
    )
