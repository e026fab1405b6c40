"""The small network that takes noise off vectors, given how much there is and what is wanted."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.conditioning import AdaptiveNorm
from tsar.core.linear import Linear

__all__ = ["Denoiser", "noise_like", "squared_error"]

# Waves by which a time is told, and the longest period of them.
N_WAVES, LONGEST = 128, 10_000.0


class Denoiser(nn.Module):
    """Residual blocks over single vectors, whose norms and gates the time and a feature set.

    Nothing is said at first: the gates, and the last map, begin at zero.

    Parameters
    ----------
    n_values : int
        E, of a vector.
    condition_dim : int
        D, of a feature.
    width : int, default 192
        Inside.
    n_blocks : int, default 3

    References
    ----------
    Li et al., "Autoregressive image generation without vector quantization", NeurIPS 2024,
    section 3 and appendix A.
    """

    def __init__(
        self, n_values: int, condition_dim: int, *, width: int = 192, n_blocks: int = 3
    ) -> None:
        super().__init__()
        self.enter = Linear(n_values, width)
        self.condition = Linear(condition_dim, width)
        self.time = nn.Sequential(Linear(2 * N_WAVES, width), nn.SiLU(), Linear(width, width))
        self.norms = nn.ModuleList(AdaptiveNorm(width, width) for _ in range(n_blocks))
        self.branches = nn.ModuleList(
            nn.Sequential(Linear(width, width), nn.SiLU(), Linear(width, width))
            for _ in range(n_blocks)
        )
        self.last_norm = AdaptiveNorm(width, width)
        self.leave = Linear(width, n_values)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, time: Tensor, feature: Tensor) -> Tensor:
        """Return what is in vectors.

        Parameters
        ----------
        x : Tensor of shape (N, E)
        time : Tensor of shape (N,)
            In [0, 1]: how much of them is noise.
        feature : Tensor of shape (N, D)
            What is wanted.

        Returns
        -------
        Tensor of shape (N, E)
        """
        told = self.time(_waves(time).to(x.dtype)) + self.condition(feature)
        # Blocks take sequences; a vector is one of a single token.
        hidden, told = self.enter(x)[:, None], told[:, None]
        for norm, branch in zip(self.norms, self.branches, strict=True):
            normed, gate = norm(hidden, told)
            hidden = hidden + gate * branch(normed)
        normed, _ = self.last_norm(hidden, told)
        leaving: Tensor = self.leave(normed)[:, 0]
        return leaving


def _waves(time: Tensor) -> Tensor:
    """Return sines and cosines (N, 256) of times, from slow to fast."""
    steps = torch.arange(N_WAVES, device=time.device) / N_WAVES
    angles = 1000.0 * time[:, None] * torch.exp(-math.log(LONGEST) * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw normal numbers of the shape, type and device of a Tensor."""
    place = x.device if generator is None else generator.device
    drawn = torch.randn(x.shape, generator=generator, device=place, dtype=x.dtype)
    return drawn.to(x.device)


def squared_error(said: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared error of each vector, shape (N,)."""
    return F.mse_loss(said, wanted, reduction="none").mean(dim=1)
