"""The distributions a network can forecast: likelihoods to train with, quantiles and samples.

A network gives the parameters in scaled units, as a Tensor (..., K); see
:mod:`tsar.forecasting.outputs.distribution_output`. What is asked of a forecast is computed
from parameters in original units, as float64 arrays (..., K).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Normal, StudentT
from torch.nn import functional as F

from tsar.forecasting.outputs.distribution_output import (
    N_COMPONENTS,
    GaussianMixtureOutput,
    GaussianOutput,
    NegativeBinomialOutput,
    StudentTOutput,
)
from tsar.forecasting.outputs.output import Output
from tsar.params.objects import Storable
from tsar.training.device import widest_float

__all__ = ["DISTRIBUTIONS", "Distribution", "GaussianMixture", "NegativeBinomial"]

Array: TypeAlias = np.ndarray

# Halvings of an interval that holds a quantile: enough for every bit of a float64.
HALVINGS = 60


class Distribution(Storable, ABC):
    """A family of distributions, one member per step and variate.

    Attributes
    ----------
    counts : bool
        Whether its values are whole numbers from 0 on. Its likelihood is then that of the
        values in original units, and series are scaled without being moved.
    """

    counts: ClassVar[bool] = False

    kind: ClassVar[str] = "distribution"

    @classmethod
    def known_classes(cls) -> Mapping[str, type["Distribution"]]:
        return DISTRIBUTIONS

    @abstractmethod
    def make_output(self) -> Output:
        """Build the last module of a network, which gives the parameters."""

    @abstractmethod
    def log_prob(self, parameters: Tensor, value: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Return the logarithm of the density, or of the probability of counts.

        Parameters
        ----------
        parameters : Tensor of shape (..., K)
        value : Tensor of shape (...)
            In the same, scaled units.
        scale : Tensor or float
            Original units per scaled unit, which counts are read in.

        Returns
        -------
        Tensor of shape (...)
        """

    @abstractmethod
    def restore(self, parameters: Array, location: np.ndarray, scale: np.ndarray) -> Array:
        """Return the parameters (..., K) of ``location + scale * X``, given those of X.

        Parameters
        ----------
        parameters : float array of shape (..., K)
        location, scale : float arrays that broadcast to (...)
        """

    @abstractmethod
    def quantile(self, parameters: Array, level: float) -> Array:
        """Return the quantile of a level in (0, 1), shape (...), in original units."""

    @abstractmethod
    def sample(self, parameters: Array, generator: np.random.Generator) -> Array:
        """Draw one value from each member, shape (...), in original units."""


class Gaussian(Distribution):
    """Normal distribution: location and standard deviation."""

    def make_output(self) -> Output:
        return GaussianOutput()

    def log_prob(self, parameters: Tensor, value: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        centre, deviation = parameters.unbind(-1)
        return Normal(centre, deviation, validate_args=False).log_prob(value)

    def restore(self, parameters: Array, location: np.ndarray, scale: np.ndarray) -> Array:
        return np.stack([parameters[..., 0] * scale + location, parameters[..., 1] * scale], -1)

    def quantile(self, parameters: Array, level: float) -> Array:
        return np.asarray(parameters[..., 0] + parameters[..., 1] * special.ndtri(level))

    def sample(self, parameters: Array, generator: np.random.Generator) -> Array:
        drawn = generator.standard_normal(parameters.shape[:-1])
        return np.asarray(parameters[..., 0] + parameters[..., 1] * drawn)


class StudentTDistribution(Distribution):
    """Student-t distribution: location, scale, and degrees of freedom above 2."""

    def make_output(self) -> Output:
        return StudentTOutput()

    def log_prob(self, parameters: Tensor, value: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        centre, spread, degrees = parameters.unbind(-1)
        return StudentT(degrees, centre, spread, validate_args=False).log_prob(value)

    def restore(self, parameters: Array, location: np.ndarray, scale: np.ndarray) -> Array:
        centre, spread, degrees = np.moveaxis(parameters, -1, 0)
        return np.stack([centre * scale + location, spread * scale, degrees], -1)

    def quantile(self, parameters: Array, level: float) -> Array:
        centre, spread, degrees = np.moveaxis(parameters, -1, 0)
        # The median is the location to the last bit.
        away = 0.0 if level == 0.5 else special.stdtrit(degrees, level)
        return np.asarray(centre + spread * away)

    def sample(self, parameters: Array, generator: np.random.Generator) -> Array:
        centre, spread, degrees = np.moveaxis(parameters, -1, 0)
        return np.asarray(centre + spread * generator.standard_t(degrees))


class NegativeBinomial(Distribution):
    """Negative binomial distribution of counts: mean and dispersion.

    With mean m and dispersion a the variance is ``m + a * m**2``; in the terms of scipy,
    ``nbinom(1 / a, 1 / (1 + a * m))``.

    In scaled units, the first parameter is the number whose softplus is the mean. Series are
    scaled without being moved, so the mean in original units is that mean times their
    scale, and the dispersion is the same; the likelihood is that of the counts themselves.
    """

    counts = True

    def make_output(self) -> Output:
        return NegativeBinomialOutput()

    def log_prob(self, parameters: Tensor, value: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        # Differences of large logarithms of factorials: single precision leaves nothing of them.
        wide = widest_float(value.device)
        centre, dispersion = parameters.to(wide).unbind(-1)
        if isinstance(scale, Tensor):
            scale = scale.to(wide)
        # Scaling has moved whole numbers by a rounding.
        count = (value.to(wide) * scale).round()
        odds = (F.softplus(centre) * scale * dispersion).clamp(min=torch.finfo(wide).tiny)
        log_prob = TorchNegativeBinomial(1 / dispersion, logits=odds.log(), validate_args=False)
        return log_prob.log_prob(count).to(value.dtype)

    def restore(self, parameters: Array, location: np.ndarray, scale: np.ndarray) -> Array:
        mean = np.logaddexp(0.0, parameters[..., 0]) * scale
        return np.stack([mean, parameters[..., 1]], -1)

    def quantile(self, parameters: Array, level: float) -> Array:
        mean, dispersion = np.moveaxis(parameters, -1, 0)
        return np.asarray(stats.nbinom.ppf(level, 1 / dispersion, 1 / (1 + dispersion * mean)))

    def sample(self, parameters: Array, generator: np.random.Generator) -> Array:
        mean, dispersion = np.moveaxis(parameters, -1, 0)
        # Counts whose rate is Gamma distributed.
        rate = generator.standard_gamma(1 / dispersion) * dispersion * mean
        return generator.poisson(rate).astype(np.float64)


class GaussianMixture(Distribution):
    """Mixture of three Gaussians: locations, deviations and logarithms of the weights."""

    def make_output(self) -> Output:
        return GaussianMixtureOutput()

    def log_prob(self, parameters: Tensor, value: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        centre, deviation, weight = parameters.unflatten(-1, (3, N_COMPONENTS)).unbind(-2)
        each = Normal(centre, deviation, validate_args=False).log_prob(value.unsqueeze(-1))
        return (weight + each).logsumexp(dim=-1)

    def restore(self, parameters: Array, location: np.ndarray, scale: np.ndarray) -> Array:
        centre, deviation, weight = np.split(parameters, 3, axis=-1)
        location, scale = np.expand_dims(location, -1), np.expand_dims(scale, -1)
        return np.concatenate([centre * scale + location, deviation * scale, weight], -1)

    def quantile(self, parameters: Array, level: float) -> Array:
        centre, deviation, weight = np.split(parameters, 3, axis=-1)
        weight = np.exp(weight)
        # It lies between the quantiles of the components.
        each = centre + deviation * special.ndtri(level)
        low, high = each.min(axis=-1), each.max(axis=-1)
        deviation = np.maximum(deviation, np.finfo(np.float64).tiny)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            below = (weight * special.ndtr((middle[..., None] - centre) / deviation)).sum(axis=-1)
            low, high = np.where(below < level, middle, low), np.where(below < level, high, middle)
        return np.asarray(0.5 * (low + high))

    def sample(self, parameters: Array, generator: np.random.Generator) -> Array:
        centre, deviation, weight = np.split(parameters, 3, axis=-1)
        chance = np.exp(weight).cumsum(axis=-1)
        drawn = generator.random(parameters.shape[:-1])[..., None] * chance[..., -1:]
        chosen = (drawn > chance).sum(axis=-1)[..., None]
        centre, deviation = (
            np.take_along_axis(part, chosen, axis=-1)[..., 0] for part in (centre, deviation)
        )
        return np.asarray(centre + deviation * generator.standard_normal(centre.shape))


DISTRIBUTIONS: dict[str, type[Distribution]] = {
    "gaussian": Gaussian,
    "student_t": StudentTDistribution,
    "negative_binomial": NegativeBinomial,
    "gaussian_mixture": GaussianMixture,
}
