"""What the numbers of a forecast are, and what can be asked of them.

A network may give one number per step, quantiles, or the parameters of a distribution. The
estimator does not need to know which: it asks the objects here for the point forecast, for
quantiles and for samples.

Dimension letters: S series, H horizon, C variates, N samples, K numbers per step.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tsar.data.scaling import Scaling
from tsar.exceptions import ParameterError
from tsar.forecasting.outputs.distributions import Distribution
from tsar.forecasting.outputs.output import median
from tsar.params.arguments import check_fractions, check_levels

__all__ = [
    "DistributionForecasts",
    "PointForecasts",
    "Predictive",
    "QuantileForecasts",
    "SampleForecasts",
    "series_generator",
]


class Predictive(ABC):
    """Reads forecasts of one kind."""

    @abstractmethod
    def fed_back(self, forecast: Tensor) -> Tensor:
        """Return what stands for an observation (B, H, C) when rolling on, in scaled units."""

    def restore(self, forecast: np.ndarray, scaling: Scaling) -> np.ndarray:
        """Bring a forecast (S, H, C) or (S, H, C, K) from scaled to original units."""
        return scaling.restore(forecast)

    @abstractmethod
    def point(self, forecast: np.ndarray) -> np.ndarray:
        """Return the point forecast (S, H, C), in original units; the median if there is one."""

    @abstractmethod
    def quantile(self, forecast: np.ndarray, level: float) -> np.ndarray:
        """Return a quantile (S, H, C) of forecasts in original units."""

    @abstractmethod
    def check_quantiles(self, owner: str, quantiles: Any) -> list[float]:
        """Return the levels in (0, 1) that are asked for, or raise a ParameterError."""

    @abstractmethod
    def interval_quantiles(self, owner: str, level: float) -> tuple[float, float]:
        """Return the quantiles that bound an interval of a level in percent.

        Raises
        ------
        ParameterError
            These forecasts have no such quantiles.
        """

    @property
    def has_quantiles(self) -> bool:
        """Whether these forecasts say more than one number per step."""
        return True

    @property
    def widest_pair(self) -> tuple[float, float] | None:
        """The quantiles furthest to both sides of the median that intervals are made of."""
        return None

    def sample(self, forecast: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Draw a value for each step (..., C) of forecasts (..., C, K) in original units."""
        raise NotImplementedError

    @property
    def can_sample(self) -> bool:
        """Whether :meth:`sample` is there."""
        return False


class PointForecasts(Predictive):
    """One number per step."""

    def fed_back(self, forecast: Tensor) -> Tensor:
        return forecast

    def point(self, forecast: np.ndarray) -> np.ndarray:
        return forecast

    def quantile(self, forecast: np.ndarray, level: float) -> np.ndarray:
        raise NotImplementedError

    def check_quantiles(self, owner: str, quantiles: Any) -> list[float]:
        return check_levels(owner, quantiles, ())

    @property
    def has_quantiles(self) -> bool:
        return False

    def interval_quantiles(self, owner: str, level: float) -> tuple[float, float]:
        raise ParameterError(
            f"{owner}: predict(level=...) needs a calibrated model, or one that was fitted with "
            f"quantiles or a distribution; call calibrate(df), df may be the frame that was fitted"
        )


class QuantileForecasts(Predictive):
    """The quantiles that were fitted.

    Parameters
    ----------
    levels : sequence of float
        Increasing, with 0.5 among them.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = tuple(levels)

    def fed_back(self, forecast: Tensor) -> Tensor:
        return forecast[..., self.levels.index(0.5)]

    def point(self, forecast: np.ndarray) -> np.ndarray:
        return forecast[..., self.levels.index(0.5)]

    def quantile(self, forecast: np.ndarray, level: float) -> np.ndarray:
        return forecast[..., self.levels.index(level)]

    def check_quantiles(self, owner: str, quantiles: Any) -> list[float]:
        return check_levels(owner, quantiles, self.levels)

    @property
    def widest_pair(self) -> tuple[float, float] | None:
        low, high = self.levels[0], self.levels[-1]
        return (low, high) if low < 0.5 < high else None

    def interval_quantiles(self, owner: str, level: float) -> tuple[float, float]:
        pairs = [
            next((fitted for fitted in self.levels if abs(fitted - wanted) < 1e-9), None)
            for wanted in _tails(level)
        ]
        low, high = pairs
        if low is None or high is None:
            wanted = " and ".join(f"{tail:.6g}" for tail in _tails(level))
            raise ParameterError(
                f"{owner}: level={level:g} needs the quantiles {wanted}, the fitted ones are "
                f"{', '.join(map(str, self.levels))}; fit with these, or call calibrate(df)"
            )
        return low, high


class _AnyQuantile(Predictive):
    """Forecasts that have every quantile, and can be drawn from; the point is the median."""

    def point(self, forecast: np.ndarray) -> np.ndarray:
        return self.quantile(forecast, 0.5)

    def check_quantiles(self, owner: str, quantiles: Any) -> list[float]:
        return check_fractions(owner, quantiles)

    @property
    def widest_pair(self) -> tuple[float, float] | None:
        return _tails(80)

    def interval_quantiles(self, owner: str, level: float) -> tuple[float, float]:
        return _tails(level)

    @property
    def can_sample(self) -> bool:
        return True


class DistributionForecasts(_AnyQuantile):
    """Parameters of a distribution.

    The mean stands for an observation when rolling on; the median is the point forecast.

    Parameters
    ----------
    distribution : Distribution
    """

    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        self._output = distribution.make_output()

    def fed_back(self, forecast: Tensor) -> Tensor:
        return self._output.point(forecast)

    def restore(self, forecast: np.ndarray, scaling: Scaling) -> np.ndarray:
        location, scale = scaling.mean[:, None], scaling.scale[:, None]
        return self.distribution.restore(forecast, location, scale)

    def quantile(self, forecast: np.ndarray, level: float) -> np.ndarray:
        return self.distribution.quantile(forecast, level)

    def sample(self, forecast: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return self.distribution.sample(forecast, generator)


class SampleForecasts(_AnyQuantile):
    """Samples of each step, whose median is the point forecast and stands for an observation."""

    def fed_back(self, forecast: Tensor) -> Tensor:
        return median(forecast)

    def quantile(self, forecast: np.ndarray, level: float) -> np.ndarray:
        return np.asarray(np.quantile(forecast, level, axis=-1))

    def sample(self, forecast: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        places = generator.integers(forecast.shape[-1], size=forecast.shape[:-1])
        return np.take_along_axis(forecast, places[..., None], axis=-1)[..., 0]


def _tails(level: float) -> tuple[float, float]:
    """Return the two quantiles between which an interval of a level in percent lies."""
    return (50 - level / 2) / 100, (50 + level / 2) / 100


def series_generator(seed: int, series: Any) -> np.random.Generator:
    """Return the generator of one series, which does not depend on the others.

    Parameters
    ----------
    seed : int
    series : object
        The id.
    """
    return np.random.default_rng([seed, zlib.crc32(str(series).encode())])
