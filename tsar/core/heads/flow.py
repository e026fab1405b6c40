"""Vectors of a continuous kind, by a flow that takes noise to data."""

from collections.abc import Callable

import torch
from torch import Tensor

from tsar.core.heads.denoiser import DenoisingHead

__all__ = ["FlowHead", "follow", "mixed"]


def mixed(x: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``x_t = (1 - t) x + t e`` and its velocity ``e - x``.

    Parameters
    ----------
    x, noise : Tensor of shape (..., E)
    time : Tensor of shape (...)
        In [0, 1]: how much is noise.
    """
    share = time[..., None]
    return (1 - share) * x + share * noise, noise - x


def follow(
    velocity: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    n_steps: int,
    fixed: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Go along a velocity from noise, at time 1, to data, at time 0, by Euler's rule.

    Parameters
    ----------
    velocity : callable
        Takes vectors (..., E) and a time.
    noise : Tensor of shape (..., E)
    n_steps : int
    fixed : pair of Tensor, optional
        Vectors (..., E), and a bool Tensor (..., E) which of their values are there already: these
        go straight from the noise to what they are, and the others are led by them on the way.

    Returns
    -------
    Tensor of shape (..., E)
    """
    # Many small steps are added up.
    x = noise.double()
    for step in range(n_steps, 0, -1):
        time = step / n_steps
        if fixed is not None:
            values, stays = fixed
            on_the_way, _ = mixed(values, noise, noise.new_full(stays.shape[:-1], time))
            x = torch.where(stays, on_the_way.double(), x)
        x = x - velocity(x.to(noise.dtype), time).double() / n_steps
    if fixed is not None:
        values, stays = fixed
        x = torch.where(stays, values.double(), x)
    return x.to(noise.dtype)


class FlowHead(DenoisingHead):
    """Vectors drawn by following a velocity from noise, at time 1, to data, at time 0.

    Between them lies ``x_t = (1 - t) x + t e``, whose velocity ``e - x`` a small network learns.

    Parameters
    ----------
    d_model, n_values, n_steps, repeats
        See :class:`~tsar.core.heads.denoiser.DenoisingHead`; the steps are those of Euler's rule.

    References
    ----------
    Lipman et al., "Flow matching for generative modeling", ICLR 2023; Liu et al., "Flow straight
    and fast", ICLR 2023.
    """

    def noisy(
        self, x: Tensor, noise: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        place = x.device if generator is None else generator.device
        time = torch.rand(len(x), generator=generator, device=place).to(x.device, x.dtype)
        between, velocity = mixed(x, noise, time)
        return between, time, velocity

    @torch.no_grad()
    def sample(
        self,
        z: Tensor,
        *,
        temperature: float = 1.0,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw vectors.

        Parameters
        ----------
        z : Tensor of shape (N, D)
            With guidance of 2 N rows: those with the condition, then those without.
        temperature : float, default 1.0
            Of the noise that it begins with.
        guidance : float, optional
            The weight of :meth:`tsar.core.sampling.Guidance.combine`.
        generator : torch.Generator, optional

        Returns
        -------
        Tensor of shape (N, E)
        """
        noise = temperature * self.first_noise(z, guidance, generator)
        return follow(lambda x, time: self.said(x, time, z, guidance), noise, self.n_steps)
