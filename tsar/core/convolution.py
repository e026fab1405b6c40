"""Convolutions along time."""

import math

import torch
from torch import Tensor, nn

from tsar.core.ops.even_products import linear

__all__ = ["CircularConvolution"]


class CircularConvolution(nn.Module):
    """A convolution over each step and its neighbours; first and last are neighbours, too.

    Without a bias. It is computed as a linear map of tokens, before or after they are laid
    beside their neighbours, whichever is narrower.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Features of a step before and after.

    Attributes
    ----------
    weight : nn.Parameter of shape (n_outputs, n_inputs, 3)
        For the step before, the step itself and the step after, as in ``nn.Conv1d``.

    References
    ----------
    The token embedding of Zhou et al., "Informer", AAAI 2021, and the trend of Wu et al.,
    "Autoformer", NeurIPS 2021.
    """

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_outputs, n_inputs, 3))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as convolutions of torch start

    def forward(self, x: Tensor) -> Tensor:
        """Map steps (B, L, n_inputs) to (B, L, n_outputs)."""
        n_outputs, n_inputs, _ = self.weight.shape
        if n_inputs <= n_outputs:
            beside = torch.cat([x.roll(1, dims=1), x, x.roll(-1, dims=1)], dim=2)
            return linear(beside, self.weight.transpose(1, 2).flatten(1))
        weight = self.weight.permute(2, 0, 1).flatten(0, 1)  # (3 * n_outputs, n_inputs)
        before, here, after = linear(x, weight).chunk(3, dim=2)
        return before.roll(1, dims=1) + here + after.roll(-1, dims=1)
