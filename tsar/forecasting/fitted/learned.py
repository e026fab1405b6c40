"""What every forecaster learns from a panel besides its own weights."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.covariates import CovariateCoding
from tsar.data.matching import id_places
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling

__all__ = ["Learned"]


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

    def kept(self, panel: Panel) -> Panel:
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
        known = (series >= 0)[:, None] & (variates >= 0)[None, :]
        place = np.ix_(np.maximum(series, 0), np.maximum(variates, 0))
        mean, scale = self.scaling.mean[place], self.scaling.scale[place]
        settled = known & (scale > 0)
        return Scaling(np.where(settled, mean, np.nan), np.where(settled, scale, np.nan))

    def pooled_of(self, panel: Panel, fitted: Panel) -> Scaling:
        """Return statistics, shape (1, C), for series of a panel that have no history."""
        variates = _places(panel.variates, fitted.variates)
        known, place = variates >= 0, np.maximum(variates, 0)
        mean, scale = self.pooled.mean, self.pooled.scale
        return Scaling(
            np.where(known, mean[0, place], mean.mean())[None],
            np.where(known, scale[0, place], scale.mean())[None],
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
    def from_state(cls, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> "Learned":
        """Undo :meth:`to_state`; older models may have stored less."""
        return cls(
            Scaling(arrays["scaling.mean"], arrays["scaling.scale"]),
            Scaling(arrays["pooled.mean"], arrays["pooled.scale"]),
            record["context_rows"],
            CovariateCoding.from_state(record.get("covariates", {})),
            record.get("whole", False),
            arrays.get("held_out", np.zeros(0, dtype=np.int64)),
        )


def _places(labels: pd.Index, among: pd.Index) -> np.ndarray:
    """Return the place of every label, -1 where there is none."""
    # Mostly they are the same, which is seen sooner than they are looked up.
    return np.arange(len(among)) if among.equals(labels) else among.get_indexer(labels)
