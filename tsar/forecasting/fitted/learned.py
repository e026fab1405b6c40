"""What every forecaster learns from a panel besides its own weights."""

from dataclasses import dataclass, field
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np
import pandas as pd

from tsar.data.codec import check_array
from tsar.data.covariates import CodingRecord, CovariateCoding
from tsar.data.matching import id_places
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.exceptions import PersistenceError
from tsar.params.constraints import Interval
from tsar.params.records import LONGEST, Horizon

__all__ = ["Learned", "LearnedRecord"]


class LearnedRecord(TypedDict):
    """What JSON holds of it, and of the horizon; earlier versions left some of it out."""

    horizon: Horizon
    context_rows: Annotated[int, Interval(0, LONGEST)]
    covariates: NotRequired[CodingRecord]
    whole: NotRequired[bool]
    output_range: NotRequired[list[float | None] | None]


@dataclass(frozen=True)
class Learned:
    """What every forecaster learns from a panel.

    Parameters
    ----------
    scaling : Scaling
        Of every fitted series, NaN where nothing was observed.
    pooled : Scaling
        One row for a series without any history.
    context_rows : int
        How many rows of history a forecast reads.
    coding : CovariateCoding
        How covariates become numbers.
    whole : bool
        Whether a forecast reads all that there is of a series; ``context_rows`` is then
        what it needs at least.
    held_out : int64 array of shape (S,)
        How many rows at the end of each fitted series nothing was learned from; none by
        default.
    """

    scaling: Scaling
    pooled: Scaling
    context_rows: int
    coding: CovariateCoding = CovariateCoding()
    whole: bool = False
    held_out: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if not len(self.held_out):
            none = np.zeros(len(self.scaling.mean), dtype=np.int64)
            object.__setattr__(self, "held_out", none)

    def rows_read(self, panel: Panel) -> Panel:
        """Return the rows that forecasts after the end of a panel read, copied."""
        return panel.tail(int(panel.lengths.max()) if self.whole else self.context_rows)

    def scaling_of(self, panel: Panel, fitted: Panel) -> Scaling:
        """Return the statistics of the series of a panel that were fitted, else NaN.

        NaN stands also for a series that was constant when fitted.

        Parameters
        ----------
        panel : Panel
            The series to forecast.
        fitted : Panel
            The end of the fitted series.
        """
        series = id_places(panel.ids, fitted.ids)
        variates = _places(panel.variates, fitted.variates)
        is_fitted = (series >= 0)[:, None] & (variates >= 0)[None, :]
        place = np.ix_(np.maximum(series, 0), np.maximum(variates, 0))
        mean, scale = self.scaling.mean[place], self.scaling.scale[place]
        settled = is_fitted & (scale > 0)
        return Scaling(np.where(settled, mean, np.nan), np.where(settled, scale, np.nan))

    def pooled_of(self, panel: Panel, fitted: Panel) -> Scaling:
        """Return statistics, shape (1, C), for series of a panel that have no history."""
        variates = _places(panel.variates, fitted.variates)
        is_fitted, place = variates >= 0, np.maximum(variates, 0)
        mean, scale = self.pooled.mean, self.pooled.scale
        return Scaling(
            np.where(is_fitted, mean[0, place], mean.mean())[None],
            np.where(is_fitted, scale[0, place], scale.mean())[None],
        )

    def to_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what JSON can hold, and arrays by name."""
        arrays: dict[str, np.ndarray] = {"held_out": self.held_out}
        for name in ("scaling", "pooled"):
            scaling = getattr(self, name)
            arrays |= {f"{name}.mean": scaling.mean, f"{name}.scale": scaling.scale}
        record = {"context_rows": self.context_rows, "covariates": self.coding.to_state()}
        return {**record, "whole": self.whole}, arrays

    @classmethod
    def from_state(
        cls, record: dict[str, Any], arrays: dict[str, np.ndarray], end: Panel
    ) -> "Learned":
        """Undo :meth:`to_state`, given the end of the fitted series; older models stored less.

        Raises
        ------
        PersistenceError
            Arrays are missing, or are not those of these series.
        """
        shape = (end.n_series, end.n_variates)
        parts = [
            check_array(arrays, f"{name}.{part}", "float64", sizes)
            for name, sizes in (("scaling", shape), ("pooled", (1, end.n_variates)))
            for part in ("mean", "scale")
        ]
        if any((scale < 0).any() for scale in (parts[1], parts[3])):
            raise PersistenceError("load: the scale of a series is below 0")
        coding = CovariateCoding.from_state(record.get("covariates", {}))
        _check_columns(coding, end)
        if "held_out" in arrays:
            check_array(arrays, "held_out", "int64", (end.n_series,))
        return cls(
            Scaling(parts[0], parts[1]),
            Scaling(parts[2], parts[3]),
            record["context_rows"],
            coding,
            record.get("whole", False),
            arrays.get("held_out", np.zeros(0, dtype=np.int64)),
        )


def _check_columns(coding: CovariateCoding, end: Panel) -> None:
    """Raise a PersistenceError unless the coded rows have a column for each covariate."""
    held = end.covariates
    if held is None and not coding:
        return
    expected = {
        **{role: len(getattr(coding, role)) for role in ("past", "future", "static")},
        "calendar": coding.n_calendar,
    }
    widths = {role: 0 if held is None else getattr(held, role).shape[1] for role in expected}
    if widths != expected:
        raise PersistenceError(
            f"load: the covariates have columns {widths}, and are coded as {expected}"
        )


def _places(labels: pd.Index, among: pd.Index) -> np.ndarray:
    """Return the place of every label, -1 where there is none."""
    # Mostly they are the same, which is seen sooner than they are looked up.
    return np.arange(len(among)) if among.equals(labels) else among.get_indexer(labels)
