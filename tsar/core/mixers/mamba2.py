"""Mamba-2: a selective state space with one decay per head, computed as attention in chunks."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import RecurrentMixer
from tsar.core.norm import RMSNorm
from tsar.core.ops.causal_conv import causal_conv
from tsar.core.ops.linear_attention import linear_attention

__all__ = ["Mamba2", "Mamba2State"]

_SMALLEST_STEP, _LARGEST_STEP = 1e-3, 0.1
_SLOWEST, _FASTEST = 1.0, 16.0


class Mamba2State(NamedTuple):
    """What Mamba-2 remembers of the tokens so far, of fixed size.

    Parameters
    ----------
    inputs : Tensor of shape (B, d_conv - 1, E + 2 * d_state)
        The last inputs of the convolution.
    hidden : Tensor of shape (B, heads, d_state, P)
    """

    inputs: Tensor
    hidden: Tensor


class Mamba2(RecurrentMixer):
    """``h_t = exp(a dt_t) h_{t-1} + dt_t b_t x_t'``, ``y_t = c_t' h_t + d x_t``, gated.

    ``x``, ``b``, ``c``, ``dt`` and the gate are maps of the token; the first three pass a short
    convolution. There is one decay per head, and ``b`` and ``c`` are shared by the heads, so that
    all of it is linear attention with a decay.

    Parameters
    ----------
    d_model : int
    d_state : int, default 64
        Numbers remembered per channel.
    head_size : int, default 64
        P, channels that share a decay; where it does not divide their number
        ``expand * d_model``, their greatest common divisor.
    d_conv : int, default 4
        Tokens that the convolution sees.
    expand : int, default 2
        Channels per feature of a token.

    References
    ----------
    Dao and Gu, "Transformers are SSMs: generalized models and efficient algorithms through
    structured state space duality", ICML 2024, sections 5 to 7; the first values are those of
    the authors' code.
    """

    formula = "c_t' h_t, h_t = exp(a dt_t) h_{t-1} + dt_t b_t x_t', a per head"
    cost = "L D N"

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        head_size: int = 64,
        d_conv: int = 4,
        expand: int = 2,
    ) -> None:
        super().__init__()
        width = expand * d_model
        n_heads = width // math.gcd(width, head_size)
        mixed = width + 2 * d_state
        self.n_heads = n_heads
        self.parts = [width, mixed, n_heads]
        self.mixed_parts = [width, d_state, d_state]
        self.input = Linear(d_model, sum(self.parts), bias=False)
        self.conv_weight = nn.Parameter(torch.empty(mixed, d_conv).uniform_(-1, 1) / d_conv**0.5)
        self.conv_bias = nn.Parameter(torch.empty(mixed).uniform_(-1, 1) / d_conv**0.5)
        low, high = math.log(_SMALLEST_STEP), math.log(_LARGEST_STEP)
        steps = torch.empty(n_heads).uniform_(low, high).exp()
        # The inverse of the softplus that makes steps of them. Vectors do not decay.
        self.step_bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))
        self.log_decay = nn.Parameter(torch.empty(n_heads).uniform_(_SLOWEST, _FASTEST).log())
        self.skip = nn.Parameter(torch.ones(n_heads))
        self.norm = RMSNorm(width)
        self.output = Linear(width, d_model, bias=False)

    def init_state(self, batch: int) -> Mamba2State:
        """Return the state before the first token: zeros."""
        mixed, d_conv = self.conv_weight.shape
        width, d_state, _ = self.mixed_parts
        like = self.output.weight
        hidden = like.new_zeros(batch, self.n_heads, d_state, width // self.n_heads)
        return Mamba2State(like.new_zeros(batch, d_conv - 1, mixed), hidden)

    def scan(
        self, x: Tensor, mask: Tensor | None, state: Mamba2State | None
    ) -> tuple[Tensor, Mamba2State]:
        """See :meth:`RecurrentMixer.scan`."""
        gate, mixed, step = self.input(x).split(self.parts, dim=-1)
        if mask is not None:
            mixed = mixed.masked_fill(~mask[..., None], 0.0)
        before, hidden = (None, None) if state is None else state
        mixed, inputs = causal_conv(mixed, self.conv_weight, self.conv_bias, before=before)
        value, key, query = F.silu(mixed).split(self.mixed_parts, dim=-1)
        step = F.softplus(step + self.step_bias)  # (B, L, heads)
        if mask is not None:
            # A step of no length adds nothing and forgets nothing.
            step = step * mask[..., None]
        value = value.unflatten(2, (self.n_heads, -1))  # (B, L, heads, P)
        y, hidden = linear_attention(
            query[:, None],
            key[:, None],
            (value * step[..., None]).transpose(1, 2),
            (-self.log_decay.exp() * step).mT,
            hidden,
        )
        y = (y.transpose(1, 2) + self.skip[:, None] * value).flatten(2)
        # Not a view, which would keep all inputs of the piece.
        after = Mamba2State(inputs.clone(), hidden)
        return self.output(self.norm(y * F.silu(gate))), after
