"""Outputs that are the parameters of a distribution.

Dimension letters: B windows in a batch, H horizon, C variates, K parameters.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.forecasting.outputs.output import Output

__all__ = [
    "GaussianMixtureOutput",
    "GaussianOutput",
    "NegativeBinomialOutput",
    "StudentTOutput",
]

# In units of a window's own deviation. A forecast that is surer than this is not believed:
# the likelihood of a series that does not move has no upper bound.
SMALLEST_DEVIATION = 1e-4
SMALLEST_DISPERSION = 1e-6
# What is taken off before the softplus: an untrained network gives a dispersion of 0.13.
FIRST_DISPERSION = 2.0
# Below two degrees of freedom, a Student-t has no variance.
FEWEST_DEGREES = 2.0
N_COMPONENTS = 3
# Where the components begin, in deviations: equal ones would be trained alike for ever.
SPREAD = (-0.5, 0.0, 0.5)


class GaussianOutput(Output):
    """Location and standard deviation of a Gaussian: K = 2."""

    n_outputs = 2

    def forward(self, raw: Tensor, location: Tensor | float, scale: Tensor | float) -> Tensor:
        """Turn raw outputs (B, H, C, 2) into locations and deviations, (B, H, C, 2)."""
        centre, deviation = raw.unbind(-1)
        return torch.stack([centre * scale + location, _deviation(deviation) * scale], dim=-1)

    def point(self, forecast: Tensor) -> Tensor:
        """Return the location, (B, H, C)."""
        return forecast[..., 0]

    def shift(self, forecast: Tensor, by: Tensor) -> Tensor:
        """Move the location."""
        return _shift_first(forecast, by, 1)


class StudentTOutput(Output):
    """Location, scale and degrees of freedom of a Student-t: K = 3."""

    n_outputs = 3

    def forward(self, raw: Tensor, location: Tensor | float, scale: Tensor | float) -> Tensor:
        """Turn raw outputs (B, H, C, 3) into the parameters, (B, H, C, 3)."""
        centre, deviation, degrees = raw.unbind(-1)
        return torch.stack(
            [
                centre * scale + location,
                _deviation(deviation) * scale,
                FEWEST_DEGREES + F.softplus(degrees),
            ],
            dim=-1,
        )

    def point(self, forecast: Tensor) -> Tensor:
        """Return the location, (B, H, C)."""
        return forecast[..., 0]

    def shift(self, forecast: Tensor, by: Tensor) -> Tensor:
        """Move the location."""
        return _shift_first(forecast, by, 1)


class NegativeBinomialOutput(Output):
    """Mean and dispersion of a negative binomial: K = 2.

    The mean is kept as the number whose softplus it is, so that effects can be added to it
    and it stays positive. The dispersion is a: the variance is ``mean + a * mean**2``.
    """

    n_outputs = 2

    def forward(self, raw: Tensor, location: Tensor | float, scale: Tensor | float) -> Tensor:
        """Turn raw outputs (B, H, C, 2) into the parameters, (B, H, C, 2)."""
        centre, dispersion = raw.unbind(-1)
        # Training begins near the Poisson distribution, which has none.
        dispersion = SMALLEST_DISPERSION + F.softplus(dispersion - FIRST_DISPERSION)
        return torch.stack([centre * scale + location, dispersion], dim=-1)

    def point(self, forecast: Tensor) -> Tensor:
        """Return the mean, (B, H, C)."""
        return F.softplus(forecast[..., 0])

    def shift(self, forecast: Tensor, by: Tensor) -> Tensor:
        """Move the number whose softplus is the mean."""
        return _shift_first(forecast, by, 1)


class GaussianMixtureOutput(Output):
    """A mixture of three Gaussians: K = 9, locations, deviations and logarithms of weights."""

    n_outputs = 3 * N_COMPONENTS

    def forward(self, raw: Tensor, location: Tensor | float, scale: Tensor | float) -> Tensor:
        """Turn raw outputs (B, H, C, 9) into the parameters, (B, H, C, 9)."""
        centre, deviation, weight = raw.unflatten(-1, (3, N_COMPONENTS)).unbind(-2)
        begin = torch.tensor(SPREAD, dtype=raw.dtype, device=raw.device)
        if isinstance(scale, Tensor):
            scale = scale.unsqueeze(-1)
        if isinstance(location, Tensor):
            location = location.unsqueeze(-1)
        parts = [
            (centre + begin) * scale + location,
            _deviation(deviation) * scale,
            weight.log_softmax(dim=-1),
        ]
        return torch.cat(parts, dim=-1)

    def point(self, forecast: Tensor) -> Tensor:
        """Return the mean, (B, H, C)."""
        centre, _, weight = forecast.unflatten(-1, (3, N_COMPONENTS)).unbind(-2)
        return (centre * weight.exp()).sum(dim=-1)

    def shift(self, forecast: Tensor, by: Tensor) -> Tensor:
        """Move all locations."""
        return _shift_first(forecast, by, N_COMPONENTS)


def _deviation(raw: Tensor) -> Tensor:
    return SMALLEST_DEVIATION + F.softplus(raw)


def _shift_first(forecast: Tensor, by: Tensor, n: int) -> Tensor:
    """Add to the first ``n`` numbers of the last axis."""
    moved, others = forecast.split([n, forecast.shape[-1] - n], dim=-1)
    return torch.cat([moved + by.unsqueeze(-1), others], dim=-1)
