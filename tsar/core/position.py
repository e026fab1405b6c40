"""Positions of tokens, added to their embeddings."""

import math

import torch
from torch import Tensor, nn

__all__ = ["LearnedPosition", "SinusoidalPosition"]


class LearnedPosition(nn.Module):
    """One trained vector per position, drawn uniformly from +-0.02 at first.

    Parameters
    ----------
    length : int
        Number of positions.
    d_model : int
    """

    no_decay = ("weight",)

    def __init__(self, length: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, d_model).uniform_(-0.02, 0.02))

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Add the positions from ``start`` on to tokens (B, P, D), up to ``length`` of them."""
        return x + self.weight[start : start + x.shape[1]]


class SinusoidalPosition(nn.Module):
    """Fixed sines and cosines of geometrically growing period.

    Parameters
    ----------
    length : int
        Number of positions.
    d_model : int

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.5.
    """

    weight: Tensor

    def __init__(self, length: int, d_model: int) -> None:
        super().__init__()
        position = torch.arange(length, dtype=torch.float64)[:, None]
        even = torch.arange(0, d_model, 2, dtype=torch.float64)
        angle = position * torch.exp(-math.log(10000.0) * even / d_model)
        weight = torch.empty(length, d_model, dtype=torch.float64)
        weight[:, 0::2] = angle.sin()
        weight[:, 1::2] = angle.cos()[:, : d_model // 2]
        self.register_buffer("weight", weight.to(torch.get_default_dtype()), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Add the positions from ``start`` on to tokens (B, P, D), up to ``length`` of them."""
        return x + self.weight[start : start + x.shape[1]]
