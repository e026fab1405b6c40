"""How parts of a series go on: seasons as they turned so far, growth that fades.

Letters: B batch, L steps of history, H horizon, D features.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.dropout import Dropout
from tsar.core.ops.even_products import linear

__all__ = ["DampedGrowth", "FourierExtrapolation"]


class FourierExtrapolation(nn.Module):
    """The strongest frequencies of a history, as waves over the history and the horizon.

    Frequencies are whole numbers of turns in the history, neither none nor half as many as steps.
    Each sequence and feature has its own strongest ones. There are no weights.

    Parameters
    ----------
    context_length, horizon : int
    n_frequencies : int
        How many of them; a short history may have fewer.

    References
    ----------
    Woo et al., "ETSformer: exponential smoothing transformers for time-series forecasting",
    arXiv:2202.01381.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, context_length: int, horizon: int, n_frequencies: int) -> None:
        super().__init__()
        self.context_length = context_length
        turns = torch.arange(1, (context_length + 1) // 2)
        self.n_frequencies = min(n_frequencies, len(turns))
        # Whole turns are left out, in whole numbers: nothing is lost by rounding far ahead.
        places = turns[:, None] * torch.arange(context_length + horizon) % context_length
        angles = places * (2 * math.pi / context_length)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Continue sequences (B, L, D): (B, L + H, D)."""
        length = self.context_length
        if not self.n_frequencies:
            return x.new_zeros(x.shape[0], self.cosine.shape[1], x.shape[2])
        # Products with the waves themselves: a history is short beside what else is done with it.
        waves = self.cosine, self.sine
        parts = [linear(x.mT, wave[:, :length]) * (2 / length) for wave in waves]  # (B, D, turns)
        strength = parts[0].square() + parts[1].square()
        strongest = strength.topk(self.n_frequencies, dim=2).indices
        chosen = torch.zeros_like(strength).scatter(2, strongest, 1.0)
        cosine, sine = (
            linear(part * chosen, wave.mT) for part, wave in zip(parts, waves, strict=True)
        )
        return (cosine + sine).mT


class DampedGrowth(nn.Module):
    """A growth per step that fades from step to step, added up: a share per head.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    horizon : int
    dropout : float, default 0.0
        Of the growth at each step, and of its sums.

    Attributes
    ----------
    logit : nn.Parameter of shape (n_heads,)
        Of the share that stays from step to step.

    References
    ----------
    Gardner and McKenzie, "Forecasting trends in time series", Management Science 31, 1985.
    """

    def __init__(self, d_model: int, n_heads: int, horizon: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.horizon, self.size = horizon, d_model // n_heads
        self.logit = nn.Parameter(torch.randn(n_heads))

    def forward(self, growth: Tensor) -> Tensor:
        """Sum up the growth (B, D) of the last step over the horizon: (B, H, D)."""
        steps = torch.arange(1, self.horizon + 1, device=growth.device)
        stays = (F.logsigmoid(self.logit) * steps[:, None]).exp().cumsum(dim=0)  # (H, heads)
        growth = self.dropout(growth[:, None].expand(-1, self.horizon, -1))
        return self.dropout(growth * stays.repeat_interleave(self.size, dim=1))
