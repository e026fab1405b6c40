"""Vectors of a continuous kind, by a flow that takes noise to data."""

import torch
from torch import Tensor, nn

from tsar.core.heads.denoiser import Denoiser, noise_like, squared_error
from tsar.core.sampling import Guidance

__all__ = ["FlowHead"]


class FlowHead(nn.Module):
    """Vectors drawn by following a velocity from noise, at time 1, to data, at time 0.

    Between them lies ``x_t = (1 - t) x + t e``, whose velocity ``e - x`` a small network learns.

    Parameters
    ----------
    d_model : int
        D, of the features that say what is wanted.
    n_values : int
        E, of a vector.
    n_steps : int, default 25
        Of Euler's rule.
    repeats : int, default 2
        Each vector is learned at so many times in a step.

    References
    ----------
    Lipman et al., "Flow matching for generative modeling", ICLR 2023; Liu et al., "Flow straight
    and fast", ICLR 2023.
    """

    def __init__(self, d_model: int, n_values: int, *, n_steps: int = 25, repeats: int = 2) -> None:
        super().__init__()
        self.n_values, self.n_steps, self.repeats = n_values, n_steps, repeats
        self.denoiser = Denoiser(n_values, d_model)

    def loss(self, z: Tensor, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the error of the velocity of vectors (N, E) given features (N, D), shape (N,)."""
        z, x = z.repeat(self.repeats, 1), x.repeat(self.repeats, 1)
        noise = noise_like(x, generator)
        place = x.device if generator is None else generator.device
        time = torch.rand(len(x), generator=generator, device=place).to(x.device, x.dtype)
        between = (1 - time[:, None]) * x + time[:, None] * noise
        errors = squared_error(self.denoiser(between, time, z), noise - x)
        return errors.view(self.repeats, -1).mean(dim=0)

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
        n_vectors = len(z) // (1 if guidance is None else 2)
        x = temperature * noise_like(z.new_empty(n_vectors, self.n_values), generator)
        # Many small steps are added up.
        x = x.double()
        for step in range(self.n_steps, 0, -1):
            both = x.to(z.dtype).repeat(len(z) // n_vectors, 1)
            time = both.new_full((len(both),), step / self.n_steps)
            velocity = self.denoiser(both, time, z)
            if guidance is not None:
                with_it, without = velocity.chunk(2)
                velocity = Guidance.combine(with_it, without, guidance)
            x = x - velocity.double() / self.n_steps
        return x.to(z.dtype)
