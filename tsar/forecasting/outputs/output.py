"""What the loss needs from the last axis of a network, in the units of the series."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.exceptions import ParameterError

__all__ = ["Output", "PointOutput", "QuantileOutput", "SampleOutput"]


class Output(nn.Module):
    """The last module of a network: raw numbers to a forecast in the units of the series.

    Attributes
    ----------
    n_outputs : int
        How many raw numbers a network has to give per step and variate.
    """

    n_outputs: int

    def forward(self, raw: Tensor, location: Tensor | float, scale: Tensor | float) -> Tensor:
        """Bring raw outputs back to the units of the series.

        Parameters
        ----------
        raw : Tensor of shape (B, H, C, n_outputs)
        location, scale : Tensor broadcastable to (B, H, C), or float
            What instance normalisation took away; 0 and 1 where there was none.

        Returns
        -------
        Tensor of shape (B, H, C), or (B, H, C, n_outputs) with several outputs
        """
        raise NotImplementedError

    def point(self, forecast: Tensor) -> Tensor:
        """Take the point forecast (B, H, C) out of what :meth:`forward` returned."""
        return forecast

    def shift(self, forecast: Tensor, by: Tensor) -> Tensor:
        """Return the forecast of a series that is larger by a Tensor of shape (B, H, C)."""
        return forecast + by


class PointOutput(Output):
    """One number per step and variate."""

    n_outputs = 1

    def forward(self, raw: Tensor, location: Tensor | float, scale: Tensor | float) -> Tensor:
        """Bring raw outputs (B, H, C, 1) back to the units of the series: (B, H, C)."""
        return raw.squeeze(-1) * scale + location


class QuantileOutput(Output):
    """Quantiles that cannot cross: the median, and steps up and down from it.

    Each step is a softplus, so it is never negative, and the steps are summed
    outwards from the median.

    Parameters
    ----------
    levels : sequence of float
        Increasing, each inside (0, 1), with 0.5 among them.

    Attributes
    ----------
    n_outputs : int
        The number of levels.

    Raises
    ------
    ParameterError
        If the levels are not increasing inside (0, 1) or 0.5 is missing.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        super().__init__()
        self.levels = tuple(float(level) for level in levels)
        inside = all(0.0 < level < 1.0 for level in self.levels)
        increasing = all(a < b for a, b in zip(self.levels, self.levels[1:], strict=False))
        if not (inside and increasing and 0.5 in self.levels):
            raise ParameterError(
                "QuantileOutput: levels must be increasing numbers in (0, 1) with 0.5 among "
                f"them, got {list(levels)!r}"
            )
        self.n_outputs = len(self.levels)
        self.median = self.levels.index(0.5)

    def forward(self, raw: Tensor, location: Tensor | float, scale: Tensor | float) -> Tensor:
        """Turn raw outputs into quantiles in the units of the series.

        Parameters
        ----------
        raw : Tensor of shape (B, H, C, Q)
        location, scale : Tensor broadcastable to (B, H, C), or float

        Returns
        -------
        Tensor of shape (B, H, C, Q)
            Not decreasing along the last axis.
        """
        below, median, above = raw.split([self.median, 1, self.n_outputs - self.median - 1], dim=-1)
        up = F.softplus(above).cumsum(-1)
        down = F.softplus(below).flip(-1).cumsum(-1).flip(-1)
        quantiles = torch.cat([median - down, median, median + up], dim=-1)
        return quantiles * _with_last_axis(scale) + _with_last_axis(location)

    def point(self, forecast: Tensor) -> Tensor:
        """Take the median (B, H, C) out of quantiles (B, H, C, Q)."""
        return forecast[..., self.median]

    def shift(self, forecast: Tensor, by: Tensor) -> Tensor:
        """Move all quantiles by a Tensor of shape (B, H, C)."""
        return forecast + by.unsqueeze(-1)


class SampleOutput(Output):
    """Samples of each step and variate, in no order.

    Parameters
    ----------
    n_samples : int
    """

    def __init__(self, n_samples: int) -> None:
        super().__init__()
        self.n_outputs = n_samples

    def forward(self, raw: Tensor, location: Tensor | float, scale: Tensor | float) -> Tensor:
        """Bring samples (B, H, C, N) back to the units of the series."""
        return raw * _with_last_axis(scale) + _with_last_axis(location)

    def point(self, forecast: Tensor) -> Tensor:
        """Take the median (B, H, C) of samples (B, H, C, N)."""
        return median(forecast)

    def shift(self, forecast: Tensor, by: Tensor) -> Tensor:
        """Move all samples by a Tensor of shape (B, H, C)."""
        return forecast + by.unsqueeze(-1)


def median(samples: Tensor) -> Tensor:
    """Return the median (...) of samples (..., N), the mean of the middle two where N is even."""
    ordered, half = samples.sort(dim=-1).values, (samples.shape[-1] - 1) / 2
    return ordered[..., math.floor(half)].lerp(ordered[..., math.ceil(half)], 0.5)


def _with_last_axis(value: Tensor | float) -> Tensor | float:
    return value.unsqueeze(-1) if isinstance(value, Tensor) else value
