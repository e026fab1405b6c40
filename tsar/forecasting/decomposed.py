"""Exponential smoothing of what a decomposition into seasons leaves, for single series."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from tsar.forecasting.ets import ETSModel
from tsar.forecasting.local_models import LocalModel

__all__ = ["DecomposedModel"]


@dataclass(frozen=True)
class DecomposedModel(LocalModel):
    """Exponential smoothing of what a decomposition leaves, and the last seasons again.

    Parameters
    ----------
    smoothing : ETSModel
        Without a season.
    """

    smoothing: ETSModel

    @abstractmethod
    def _seasons(self, y: np.ndarray) -> dict[int, np.ndarray]:
        """Return each season at each row, shape (n,), by its length; none without a season."""

    def estimate(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Decompose, then estimate the smoothing, see :class:`LocalModel`."""
        return self.smoothing.estimate(_without(y, self._seasons(y)), x)

    def forecast(
        self,
        parameters: np.ndarray,
        effects: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        cutoffs: np.ndarray,
        horizon: int,
    ) -> np.ndarray:
        """Decompose before each origin, see :class:`LocalModel`.

        Seasons smoothed over the whole series would know what comes after the origin.
        """
        forecast = np.empty((len(cutoffs), horizon))
        steps = np.arange(horizon)
        for place, cutoff in enumerate(cutoffs):
            seasons = self._seasons(y[:cutoff])
            rest = _without(y[:cutoff], seasons)
            smoothed = self.smoothing.forecast(
                parameters, effects, rest, x, cutoffs[[place]], horizon
            )
            forecast[place] = smoothed[0]
            for length, season in seasons.items():
                forecast[place] += season[cutoff - length + steps % length]
        return forecast


def _without(y: np.ndarray, seasons: dict[int, np.ndarray]) -> np.ndarray:
    return y - sum(seasons.values(), start=np.zeros(len(y)))
