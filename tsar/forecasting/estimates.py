"""What local forecasters estimate, and how it is saved.

Dimension letters: S series, C variates, K covariates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np

from tsar.data.codec import check_array
from tsar.data.panel import Panel
from tsar.exceptions import PersistenceError
from tsar.forecasting.regressors import Regressors
from tsar.params.records import Length

__all__ = ["NO_NUMBERS", "Estimate", "Estimates", "EstimatesRecord"]

NO_NUMBERS = np.empty(0)


class EstimatesRecord(TypedDict):
    """What JSON holds of the estimates."""

    season_length: Length
    status: list[Literal["ok", "reduced", "fallback", "unobserved"]]
    message: list[str]
    effects: NotRequired[Literal["against the mean"]]


@dataclass(frozen=True)
class Estimate:
    """What was estimated for one variate of one series.

    Parameters
    ----------
    mean, scale : float
        By which values are standardised; the scale of a constant is 0.
    parameters : float64 array of shape (any,)
    effects : float64 array of shape (K,)
    status : {"ok", "reduced", "fallback", "unobserved"}
    message : str
    """

    mean: float
    scale: float
    parameters: np.ndarray
    effects: np.ndarray
    status: str = "ok"
    message: str = ""

    @classmethod
    def without(cls, status: str, message: str) -> "Estimate":
        """Return what stands in where nothing could be estimated."""
        return cls(0.0, 0.0, NO_NUMBERS, NO_NUMBERS, status, message)


@dataclass(frozen=True)
class Estimates:
    """All estimates, and where the series began that they were made from.

    Parameters
    ----------
    first : int64 array of shape (S,)
        First stamps.
    begins : int64 array of shape (S, C)
        First observed row, -1 where there is none.
    grid : tuple of Estimate
        Series by series, S * C of them.
    """

    first: np.ndarray
    begins: np.ndarray
    grid: tuple[Estimate, ...]

    def after_format_1(self, regressors: Regressors) -> "Estimates":
        """Return estimates that were saved when the first category was the reference."""
        grid = tuple(
            replace(one, effects=regressors.after_format_1(one.effects)) if one.scale else one
            for one in self.grid
        )
        return replace(self, grid=grid)

    def to_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what JSON can hold, and arrays by name."""
        record = {name: [getattr(one, name) for one in self.grid] for name in ("status", "message")}
        arrays = {"first": self.first, "begins": self.begins}
        for name in ("mean", "scale"):
            arrays[name] = np.array([getattr(one, name) for one in self.grid], dtype=np.float64)
        for name in ("parameters", "effects"):
            held = [getattr(one, name) for one in self.grid]
            arrays[name] = np.concatenate([NO_NUMBERS, *held])
            arrays[f"{name}_sizes"] = np.array([len(one) for one in held], dtype=np.int64)
        return record, arrays

    @classmethod
    def from_state(
        cls, record: Mapping[str, Any], arrays: dict[str, np.ndarray], end: Panel
    ) -> "Estimates":
        """Undo :meth:`to_state`, given the end of the fitted series.

        Raises
        ------
        PersistenceError
            Arrays are missing, or do not fit together.
        """
        n_estimates = end.n_series * end.n_variates
        check_array(arrays, "first", "int64", (end.n_series,))
        begins = check_array(arrays, "begins", "int64", (end.n_series, end.n_variates))
        for name in ("mean", "scale"):
            check_array(arrays, name, "float64", (n_estimates,))
        for name in ("parameters", "effects"):
            sizes = check_array(arrays, f"{name}_sizes", "int64", (n_estimates,))
            check_array(arrays, name, "float64", (None,))
            if (sizes < 0).any() or (sizes > len(arrays[name])).any():
                raise PersistenceError(f"load: the array '{name}_sizes' does not divide {name!r}")
            check_array(arrays, name, "float64", (int(sizes.sum()),))
            if not np.isfinite(arrays[name]).all():
                raise PersistenceError(f"load: the array {name!r} holds what is no number")
        if (begins < -1).any() or (begins >= end.lengths[:, None]).any():
            raise PersistenceError("load: the array 'begins' names rows that are not there")
        columns: dict[str, Sequence[Any]] = {
            **{name: arrays[name].tolist() for name in ("mean", "scale")},
            **{name: record[name] for name in ("status", "message")},
        }
        for name in ("parameters", "effects"):
            columns[name] = np.split(arrays[name], np.cumsum(arrays[f"{name}_sizes"])[:-1])
        names = [field.name for field in fields(Estimate)]
        rows = zip(*(columns[name] for name in names), strict=True)
        return cls(arrays["first"], arrays["begins"], tuple(Estimate(*row) for row in rows))
