"""Exponential smoothing with a trend and a season (Holt-Winters), for each series and variate."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tsar.exceptions import ParameterError
from tsar.forecasting.additive_smoothing import AdditiveSmoothing
from tsar.forecasting.local import LocalForecaster
from tsar.forecasting.local_models import LocalModel, rounded

__all__ = ["ETS", "ETSModel"]

# Below this many rows statsmodels has no first guess of the states.
FEWEST = 10


@dataclass(frozen=True)
class ETSModel(LocalModel):
    """Exponential smoothing with additive errors.

    Its parameters are the smoothing parameters that the options ask for, and the states
    before the first row: the level, the slope, and the season, latest value first.

    Parameters
    ----------
    trend : {"add"} or None
    damped : bool
    seasonal : {"add", "mul"} or None
    season_length : int
    initialization : {"estimated", "heuristic"}
    """

    trend: str | None
    damped: bool
    seasonal: str | None = None
    season_length: int = 1
    initialization: str = "estimated"

    def __str__(self) -> str:
        trend = {None: "N", "add": "A"}[self.trend] + "d" * self.damped
        return "A" + trend + {None: "N", "add": "A", "mul": "M"}[self.seasonal]

    @property
    def centred(self) -> bool:  # type: ignore[override]
        """Factors are of values that keep their zero."""
        return self.seasonal != "mul"

    @property
    def _n_smoothing(self) -> int:
        return 1 + bool(self.trend) + bool(self.seasonal) + self.damped

    def needed(self, n_covariates: int) -> int:
        """Return two seasons, and what statsmodels needs for its first guess."""
        return max(2 * self.season_length, FEWEST + 2 * (self.season_length // 2))

    def _smoothing(self, y: np.ndarray, **initial: Any) -> Any:
        from statsmodels.tsa.exponential_smoothing.ets import ETSModel as Smoothing

        return Smoothing(
            y,
            error="add",
            trend=self.trend,
            damped_trend=self.damped,
            seasonal=self.seasonal,
            seasonal_periods=self.season_length if self.seasonal else None,
            **initial,
        )

    def estimate(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Maximise the likelihood, see :class:`LocalModel`."""
        y = rounded(y)
        if self.seasonal == "mul":
            parameters, converged = self._estimate_factors(y)
        else:
            # Everything is added: the states are a least squares problem.
            states = None if self.initialization == "estimated" else self._first_states(y)
            smoothed = self.additive.estimate(y, states)
            parameters = np.concatenate([smoothed.weights, smoothed.states])
            converged = smoothed.converged
        return parameters, np.empty(0), converged

    @property
    def additive(self) -> AdditiveSmoothing:
        """What estimates it where everything is added."""
        season_length = self.season_length if self.seasonal else 1
        return AdditiveSmoothing(bool(self.trend), self.damped, season_length)

    def _estimate_factors(self, y: np.ndarray) -> tuple[np.ndarray, bool]:
        """Estimate a season of factors, in which the states are no linear problem."""
        if y.min() <= 0:
            raise ValueError("a multiplicative season needs positive values, the least is not")
        fitted = self._smoothing(y, initialization_method=self.initialization).fit(disp=0)
        parameters = np.asarray(fitted.params, dtype=np.float64)
        if self.initialization == "heuristic":
            parameters = np.concatenate([parameters, self._first_states(y)])
        return parameters, bool(fitted.mle_retvals["converged"])

    def _first_states(self, y: np.ndarray) -> np.ndarray:
        """Read the states before the first row off the first seasons."""
        smoothing = self._smoothing(y, initialization_method="heuristic")
        states: list[Any] = [smoothing.initial_level]
        if self.trend:
            states.append(smoothing.initial_trend)
        if self.seasonal:
            states += list(np.asarray(smoothing.initial_seasonal)[::-1])
        return np.asarray(states, dtype=np.float64)

    def forecast(
        self,
        parameters: np.ndarray,
        effects: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        cutoffs: np.ndarray,
        horizon: int,
    ) -> np.ndarray:
        """Smooth once, and go on from the states at each origin, see :class:`LocalModel`."""
        weights, states = np.split(parameters, [self._n_smoothing])
        initial: dict[str, Any] = {"initial_level": states[0]}
        if self.trend:
            initial["initial_trend"] = states[1]
        if self.seasonal:
            initial["initial_seasonal"] = states[1 + bool(self.trend) :][::-1]
        smoothing = self._smoothing(y, initialization_method="known", **initial)
        _, smoothed = smoothing.smooth(weights, return_raw=True)
        forecast = np.repeat(smoothed[cutoffs - 1, 0][:, None], horizon, axis=1)
        if self.trend:
            damping = weights[-1] if self.damped else 1.0
            slopes = np.cumsum(damping ** np.arange(1, horizon + 1))
            forecast += smoothed[cutoffs - 1, 1][:, None] * slopes
        if self.seasonal:
            last = np.arange(horizon) % self.season_length - self.season_length
            season = smoothed[cutoffs[:, None] + last, -1]
            forecast = forecast * season if self.seasonal == "mul" else forecast + season
        return forecast


@dataclass(kw_only=True, eq=False, repr=False)
class ETS(LocalForecaster):
    """Exponential smoothing with a trend and a season (Holt-Winters), by series and variate.

    Parameters
    ----------
    trend : {"add"} or None, default "add"
        Whether there is a slope.
    damped_trend : bool, default True
        Whether the slope fades over the horizon.
    seasonal : {"add", "mul"} or None, default "add"
        Whether the season is added or multiplies the level, which takes positive values.
        There is none with a season of one step.
    initialization : {"estimated", "heuristic"}, default "estimated"
        The states before the first row: estimated with the smoothing parameters, or read off
        the first seasons, which is several times as quick with ``seasonal="mul"``.

    References
    ----------
    Hyndman, Koehler, Ord and Snyder, "Forecasting with exponential smoothing", 2008, tables 2.1
    and 2.2. The likelihood is that of ``statsmodels.tsa.exponential_smoothing.ets.ETSModel``, which
    estimates models with ``seasonal="mul"`` and smooths all of them; where everything is added, the
    states are a least squares problem, and only the smoothing parameters are searched for.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")[-240:]
    >>> tsar.ETS(horizon=3, initialization="heuristic").fit(sea).predict().shape
    (3, 1)
    """

    trend: Literal["add"] | None = "add"
    damped_trend: bool = True
    seasonal: Literal["add", "mul"] | None = "add"
    initialization: Literal["estimated", "heuristic"] = "estimated"

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if self.damped_trend and self.trend is None:
            raise ParameterError(
                "ETS: damped_trend=True needs a trend, got trend=None; set damped_trend=False"
            )

    def _make_model(self, season_length: int) -> ETSModel:
        return ETSModel(
            self.trend,
            self.damped_trend,
            self.seasonal if season_length > 1 else None,
            season_length,
            self.initialization,
        )
