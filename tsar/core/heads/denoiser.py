"""The small network that takes noise off vectors, given how much there is and what is wanted."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.conditioning import AdaptiveNorm
from tsar.core.linear import Linear
from tsar.core.sampling import Guidance

__all__ = ["Denoiser", "DenoisingHead", "TimeEmbedding", "guided", "noise_like"]

# Waves by which a time is told, and the longest period of them.
N_WAVES, LONGEST = 128, 10_000.0


class TimeEmbedding(nn.Sequential):
    """A vector for each time, of waves from slow to fast.

    Parameters
    ----------
    width : int
    """

    def __init__(self, width: int) -> None:
        super().__init__(Linear(2 * N_WAVES, width), nn.SiLU(), Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        """Return vectors (..., width) of times (...) in [0, 1]."""
        steps = torch.arange(N_WAVES, device=time.device) / N_WAVES
        angles = 1000.0 * time[..., None] * torch.exp(-math.log(LONGEST) * steps)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        vectors: Tensor = super().forward(waves.to(time.dtype))
        return vectors


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
        self.time = TimeEmbedding(width)
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
        told = self.time(time.to(x.dtype)) + self.condition(feature)
        # Blocks take sequences; a vector is one of a single token.
        hidden, told = self.enter(x)[:, None], told[:, None]
        for norm, branch in zip(self.norms, self.branches, strict=True):
            normed, gate = norm(hidden, told)
            hidden = hidden + gate * branch(normed)
        normed, _ = self.last_norm(hidden, told)
        leaving: Tensor = self.leave(normed)[:, 0]
        return leaving


class DenoisingHead(nn.Module):
    """Vectors of a continuous kind, drawn from noise that a small network takes off.

    A subclass says how noise is mixed in, what the network is to say of it, and how to draw.

    Parameters
    ----------
    d_model : int
        D, of the features that say what is wanted.
    n_values : int
        E, of a vector.
    n_steps : int, default 25
        Of drawing.
    repeats : int, default 2
        Each vector is learned with so many noises in a step.
    """

    def __init__(self, d_model: int, n_values: int, *, n_steps: int = 25, repeats: int = 2) -> None:
        super().__init__()
        self.n_values, self.n_steps, self.repeats = n_values, n_steps, repeats
        self.denoiser = Denoiser(n_values, d_model)

    def noisy(
        self, x: Tensor, noise: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw times (N,) in [0, 1]; return vectors (N, E), these times, and what is to be said."""
        raise NotImplementedError

    def loss(self, z: Tensor, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the error of what is said of vectors (N, E) given features (N, D), shape (N,)."""
        z, x = z.repeat(self.repeats, 1), x.repeat(self.repeats, 1)
        mixed, time, wanted = self.noisy(x, noise_like(x, generator), generator)
        errors = F.mse_loss(self.denoiser(mixed, time, z), wanted, reduction="none").mean(dim=1)
        return errors.view(self.repeats, -1).mean(dim=0)

    def said(self, x: Tensor, time: float, z: Tensor, guidance: float | None) -> Tensor:
        """Return what is said of vectors (N, E) at a time, given features (N, D).

        With guidance these are 2 N: those with the condition, then those without.
        """

        def say(rows: Tensor) -> Tensor:
            said: Tensor = self.denoiser(rows, rows.new_full((len(rows),), time), z)
            return said

        return guided(say, x.to(z.dtype), guidance)

    def first_noise(
        self, z: Tensor, guidance: float | None, generator: torch.Generator | None
    ) -> Tensor:
        """Draw the vectors (N, E) that drawing begins with."""
        n_vectors = len(z) // (1 if guidance is None else 2)
        return noise_like(z.new_empty(n_vectors, self.n_values), generator)


def guided(say: Callable[[Tensor], Tensor], x: Tensor, guidance: float | None) -> Tensor:
    """Return what is said of vectors, with the condition and if need be without.

    Parameters
    ----------
    say : callable
        Takes vectors (B, ..., E), or with guidance 2 B: those that it has the condition of, then
        the same for which it has none.
    x : Tensor of shape (B, ..., E)
    guidance : float or None
        The weight of :meth:`tsar.core.sampling.Guidance.combine`.

    Returns
    -------
    Tensor of shape (B, ..., E)
    """
    if guidance is None:
        return say(x)
    conditional, unconditional = say(torch.cat([x, x])).chunk(2)
    return Guidance.combine(conditional, unconditional, guidance)


def noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw normal numbers of the shape, type and device of a Tensor."""
    place = x.device if generator is None else generator.device
    drawn = torch.randn(x.shape, generator=generator, device=place, dtype=x.dtype)
    return drawn.to(x.device)
