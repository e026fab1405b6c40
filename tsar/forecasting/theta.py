"""The Theta method, for each series and variate."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tsar.forecasting.additive_smoothing import AdditiveSmoothing
from tsar.forecasting.local import LocalForecaster
from tsar.forecasting.local_models import LocalModel

__all__ = ["Theta"]

# Of the chi-squared distribution, in one case of ten.
CRITICAL = 1.645**2
LEVEL = AdditiveSmoothing(trend=False, damped=False)


@dataclass(frozen=True)
class ThetaModel(LocalModel):
    """Half of a linear trend added to simple exponential smoothing, without its season.

    Its parameters are the slope of the trend, the smoothing parameter, 1 where the season
    multiplies, and the season by its phase.

    Parameters
    ----------
    seasonal : {"add", "mul"} or None
    season_length : int
    """

    seasonal: str | None
    season_length: int

    @property
    def centred(self) -> bool:  # type: ignore[override]
        """Factors are of values that keep their zero."""
        return self.seasonal != "mul"

    def needed(self, n_covariates: int) -> int:
        """Return two seasons, and enough rows for a trend."""
        return max(2 * self.season_length, 6)

    def estimate(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Take a season out where there is one, then fit both lines, see :class:`LocalModel`."""
        if self.seasonal == "mul" and y.min() <= 0:
            raise ValueError("a multiplicative season needs positive values, the least is not")
        season, factors = self._season(y)
        phases = season[np.arange(len(y)) % self.season_length]
        plain = y / phases if factors else y - phases
        slope = np.polynomial.polynomial.polyfit(np.arange(len(y)), plain, 1)[1]
        smoothed = LEVEL.estimate(plain, plain[:1])
        parameters = np.concatenate([[slope], smoothed.weights, [factors], season])
        return parameters, np.empty(0), smoothed.converged

    def _season(self, y: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return the season by its phase, and whether it multiplies; without one it adds zeros."""
        nothing = np.zeros(self.season_length)
        if self.seasonal is None:
            return nothing, False
        from statsmodels.tsa.seasonal import seasonal_decompose
        from statsmodels.tsa.stattools import acf

        correlations = acf(y, nlags=self.season_length, fft=True)
        if len(y) * correlations[-1] ** 2 <= CRITICAL * np.sum(correlations[:-1] ** 2):
            return nothing, False
        if self.seasonal == "mul":
            parts = seasonal_decompose(y, model="mul", period=self.season_length)
            season = np.asarray(parts.seasonal)[: self.season_length]
            if season.min() > 0:
                return season, True
        parts = seasonal_decompose(y, model="add", period=self.season_length)
        return np.asarray(parts.seasonal)[: self.season_length], False

    def forecast(
        self,
        parameters: np.ndarray,
        effects: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        cutoffs: np.ndarray,
        horizon: int,
    ) -> np.ndarray:
        """Smooth once, and draw both lines from each origin, see :class:`LocalModel`."""
        from scipy.signal import lfilter

        (slope, smoothing, factors), season = np.split(parameters, [3])
        phase = season[np.arange(len(y)) % self.season_length]
        plain = y / phase if factors else y - phase
        level, _ = lfilter(
            [smoothing], [1.0, smoothing - 1.0], plain, zi=[(1.0 - smoothing) * plain[0]]
        )
        steps = np.arange(horizon, dtype=np.float64)
        lead = np.zeros(len(cutoffs))
        if smoothing > 0:
            lead = (1.0 - (1.0 - smoothing) ** cutoffs) / smoothing
        forecast = level[cutoffs - 1][:, None] + 0.5 * slope * (steps + lead[:, None])
        ahead = season[(cutoffs[:, None] + np.arange(horizon)) % self.season_length]
        return forecast * ahead if factors else forecast + ahead


@dataclass(kw_only=True, eq=False, repr=False)
class Theta(LocalForecaster):
    """The Theta method, for each series and variate: the winner of the M3 competition.

    A season is taken out where a test finds one, the rest is forecast by simple exponential
    smoothing plus half of the slope of its linear trend, and the season is put back.

    Parameters
    ----------
    seasonal : {"add", "mul"} or None, default "add"
        Whether the season is added or multiplies the level, which takes positive values.

    References
    ----------
    What ``statsmodels.tsa.forecasting.theta.ThetaModel`` estimates. Assimakopoulos and
    Nikolopoulos, "The theta model: a decomposition approach to forecasting", International
    Journal of Forecasting 16 (2000); Hyndman and Billah, "Unmasking the Theta method",
    International Journal of Forecasting 19 (2003), equation (7).

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> tsar.Theta(horizon=3).fit(sea).predict().shape
    (3, 1)
    """

    seasonal: Literal["add", "mul"] | None = "add"

    def _make_model(self, season_length: int) -> ThetaModel:
        return ThetaModel(self.seasonal if season_length > 1 else None, season_length)
