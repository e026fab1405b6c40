"""Normalisation that knows time: of whole input windows (RevIN), and off the mean over time."""

import torch
from torch import Tensor, nn

__all__ = ["RevIN", "SeasonalNorm"]


class RevIN(nn.Module):
    """Reversible instance normalisation: each window by its own mean and deviation.

    The statistics count observed steps only and carry no gradient. A window
    without any observed step has location 0 and scale 1.

    Parameters
    ----------
    n_variates : int, optional
        With it, a trained factor and shift per variate follow the
        normalisation; without it (the default) there are none and any number
        of variates is taken.
    eps : float, default 1e-5
        Added to the variance.

    References
    ----------
    Kim et al., "Reversible instance normalization for accurate time-series
    forecasting against distribution shift", ICLR 2022, eqs. 1 to 3.
    """

    def __init__(self, n_variates: int | None = None, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        if n_variates is None:
            self.register_parameter("weight", None)
            self.register_parameter("bias", None)
        else:
            self.weight = nn.Parameter(torch.ones(n_variates))
            self.bias = nn.Parameter(torch.zeros(n_variates))

    def forward(self, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Normalise windows and say how to undo it.

        Parameters
        ----------
        x : Tensor of shape (B, L, C)
            Gaps hold the last observed value.
        observed : bool Tensor of shape (B, L, C), optional
            True where measured; everything by default.

        Returns
        -------
        normalised : Tensor of shape (B, L, C)
            0 before the first observed step.
        location, scale : Tensor of shape (B, 1, C)
            ``y * scale + location`` brings an output back to the units of ``x``.
        """
        location, scale = self.statistics(x, observed)
        normalised = (x - location) / scale
        if self.weight is not None:
            normalised = normalised * self.weight + self.bias
            # The inverse of both maps is one map; the small term keeps a vanishing factor finite.
            scale = scale / (self.weight + self.eps**2)
            location = location - self.bias * scale
        if observed is not None:
            started = observed.cummax(dim=1).values
            normalised = normalised * started
        return normalised, location, scale

    @torch.no_grad()
    def statistics(self, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and square root of (biased variance + eps) over time, each (B, 1, C)."""
        if observed is None:
            variance, location = torch.var_mean(x, dim=1, correction=0, keepdim=True)
            return location, (variance + self.eps).sqrt()
        count = observed.sum(dim=1, keepdim=True)
        divisor = count.clamp(min=1)
        location = (x * observed).sum(dim=1, keepdim=True) / divisor
        variance = ((x - location).square() * observed).sum(dim=1, keepdim=True) / divisor
        return location, torch.where(count > 0, (variance + self.eps).sqrt(), 1.0)


class SeasonalNorm(nn.LayerNorm):
    """Layer normalisation whose mean over time is taken off: no level passes it.

    Takes tokens (B, L, D). There is no bias, which would be part of that mean.

    Parameters
    ----------
    d_model : int

    References
    ----------
    The authors' code of Wu et al., "Autoformer", NeurIPS 2021; the paper does not mention it.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102  (the class says it)
        normalised = super().forward(x)
        return normalised - normalised.mean(dim=1, keepdim=True)
