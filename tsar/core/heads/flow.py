"""Vectors of a continuous kind, by a flow that takes noise to data."""

import torch
from torch import Tensor

from tsar.core.heads.denoiser import DenoisingHead

__all__ = ["FlowHead"]


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
        return (1 - time[:, None]) * x + time[:, None] * noise, time, noise - x

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
        # Many small steps are added up.
        x = (temperature * self.first_noise(z, guidance, generator)).double()
        for step in range(self.n_steps, 0, -1):
            x = x - self.said(x, step / self.n_steps, z, guidance).double() / self.n_steps
        return x.to(z.dtype)
