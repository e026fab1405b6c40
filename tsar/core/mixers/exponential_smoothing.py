"""Exponential smoothing of differences: what a series grows by, what is old counting less."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers.base import RecurrentMixer
from tsar.core.ops.diagonal_recurrence import diagonal_recurrence
from tsar.exceptions import ParameterError

__all__ = ["ExponentialSmoothing", "SmoothingState", "smooth"]


class SmoothingState(NamedTuple):
    """What exponential smoothing remembers of the tokens so far.

    Parameters
    ----------
    value : Tensor of shape (B, d_model)
        Of the last token that was there.
    smoothed : Tensor of shape (B, d_model)
    """

    value: Tensor
    smoothed: Tensor


def smooth(x: Tensor, logit: Tensor, before: Tensor) -> Tensor:
    """Compute ``y_t = a y_{t-1} + x_t`` with ``a = sigmoid(logit)``.

    Parameters
    ----------
    x : Tensor of shape (B, L, E)
    logit : Tensor of shape (G,)
        The channels are G groups of neighbours, each with an a of its own.
    before : Tensor of shape (B, E)
        ``y`` before the first step.

    Returns
    -------
    Tensor of shape (B, L, E)
    """
    rate = F.logsigmoid(logit).repeat_interleave(x.shape[2] // len(logit))[:, None]
    return diagonal_recurrence(x, rate, torch.ones_like(rate), before[..., None])[0]


class ExponentialSmoothing(RecurrentMixer):
    """Smoothed differences of neighbouring tokens, with a weight per head.

    Of values ``v = W_v x``, heads follow ``g_t = a g_{t-1} + (1 - a) (v_t - v_{t-1})``, and
    ``W g_t`` comes out. The value and the smoothed difference before the first token are learned.

    Parameters
    ----------
    d_model : int
    n_heads : int, default 1
        Divides ``d_model``.
    dropout : float, default 0.0
        Of the differences.

    Attributes
    ----------
    logit : nn.Parameter of shape (n_heads,)
        Of the share a that stays from token to token.
    first_value, first_growth : nn.Parameter of shape (d_model,)

    Raises
    ------
    ParameterError
        If the heads do not divide the width.

    References
    ----------
    Woo et al., "ETSformer: exponential smoothing transformers for time-series forecasting",
    arXiv:2202.01381.
    """

    formula = "W g_t, g_t = a g_{t-1} + (1 - a) (v_t - v_{t-1})"
    cost = "L log L D + L D^2"

    def __init__(self, d_model: int, n_heads: int = 1, *, dropout: float = 0.0) -> None:
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ParameterError(
                f"ExponentialSmoothing: n_heads={n_heads} does not divide d_model={d_model}"
            )
        self.value = Linear(d_model, d_model)
        self.output = Linear(d_model, d_model)
        self.dropout = Dropout(dropout)
        self.logit = nn.Parameter(torch.randn(n_heads))
        self.first_value, self.first_growth = (nn.Parameter(torch.randn(d_model)) for _ in range(2))

    def init_state(self, batch: int) -> SmoothingState:
        """Return the state before the first token, which is learned."""
        return SmoothingState(
            *(first.expand(batch, -1) for first in (self.first_value, self.first_growth))
        )

    def scan(
        self, x: Tensor, mask: Tensor | None, state: SmoothingState | None
    ) -> tuple[Tensor, SmoothingState]:
        """See :meth:`RecurrentMixer.scan`; a token that is masked leaves the state as it is."""
        state = self.init_state(x.shape[0]) if state is None else state
        mapped = self.value(x)
        if mask is not None:  # tokens that are there come first, in their order
            order = mask.logical_not().byte().argsort(dim=1, stable=True)
            mapped = mapped.gather(1, order[..., None].expand_as(mapped))
        values = torch.cat([state.value[:, None].to(mapped.dtype), mapped], dim=1)
        share = torch.sigmoid(-self.logit).repeat_interleave(x.shape[2] // len(self.logit))
        growth = smooth(share * self.dropout(values.diff(dim=1)), self.logit, state.smoothed)
        growth = torch.cat([state.smoothed[:, None].to(growth.dtype), growth], dim=1)
        if mask is not None:
            read = F.pad(mask.cumsum(dim=1), (1, 0))[..., None].expand_as(values)
            values, growth = values.gather(1, read), growth.gather(1, read)
        return self.output(growth[:, 1:]), SmoothingState(values[:, -1], growth[:, -1])
