"""Vectors of a continuous kind as their mean, without a distribution about it."""

from typing import Any

import torch
from torch import Tensor

from tsar.core.heads.denoiser import DenoisingHead

__all__ = ["SquaredErrorHead"]


class SquaredErrorHead(DenoisingHead):
    """The mean of vectors: what the least squared error leads to, and what noise is measured by.

    The network is that of the other heads of vectors, and sees no part of the vector.

    Parameters
    ----------
    d_model, n_values
        See :class:`~tsar.core.heads.denoiser.DenoisingHead`.

    References
    ----------
    Li et al., "Autoregressive image generation without vector quantization", NeurIPS 2024, whose
    loss by diffusion is in the place of this one.
    """

    def __init__(self, d_model: int, n_values: int) -> None:
        super().__init__(d_model, n_values, n_steps=1, repeats=1)

    def noisy(
        self, x: Tensor, noise: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.zeros_like(x), x.new_zeros(len(x)), x

    @torch.no_grad()
    def sample(self, z: Tensor, *, guidance: float | None = None, **drawing: Any) -> Tensor:
        """Return the mean (N, E), see :meth:`tsar.core.heads.FlowHead.sample`.

        Nothing is drawn, so that neither a temperature nor a generator changes it.
        """
        n_vectors = len(z) // (1 if guidance is None else 2)
        return self.said(z.new_zeros(n_vectors, self.n_values), 0.0, z, guidance)
