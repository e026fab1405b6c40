"""Mega: attention over a damped moving average, with gates."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.ops.attention import attention
from tsar.core.ops.diagonal_recurrence import diagonal_recurrence
from tsar.core.position import Rotary
from tsar.core.state import KVCache
from tsar.exceptions import ParameterError

__all__ = ["Mega", "MegaState"]


class MegaState(NamedTuple):
    """What Mega remembers of the tokens so far.

    Parameters
    ----------
    averages : Tensor of shape (B, D, dimensions)
    cache : KVCache
        Of its one head.
    """

    averages: Tensor
    cache: KVCache


class Mega(Mixer):
    """``u * (h - x)``: a candidate ``h`` from gated attention, let in by a gate ``u``.

    Queries and keys come from damped moving averages of the tokens, several per feature, so that
    what is near weighs more before anything is compared; values come from the tokens themselves.
    The block adds the tokens, which makes it ``x + u * (h - x)``.

    Parameters
    ----------
    d_model : int
    n_averages : int, default 16
        Moving averages of each feature.
    d_key : int, optional
        Width of queries and keys, an even number; by default half of ``d_model``, at most 128.
    expand : int, default 2
        Width of the values per feature of a token.

    Raises
    ------
    ParameterError
        If ``d_key`` is odd or a number is less than 1.

    References
    ----------
    Ma et al., "Mega: moving average equipped gated attention", ICLR 2023, section 3, eqs. 4 to 15,
    with queries and keys turned by positions in place of a bias; the first values are those of the
    authors' code.
    """

    formula = "u_t (h_t - x_t), h attends with moving averages as q and k"
    cost = "L^2 D"

    causal = True
    no_decay = ("delta", "alpha", "beta", "gamma", "omega", "query_key_scale", "query_key_bias")

    def __init__(
        self,
        d_model: int,
        *,
        n_averages: int = 16,
        d_key: int | None = None,
        expand: int = 2,
    ) -> None:
        super().__init__()
        d_key = 2 * max(1, min(d_model // 2, 128) // 2) if d_key is None else d_key
        if min(n_averages, d_key, expand) < 1 or d_key % 2:
            raise ParameterError(
                f"Mega: n_averages, d_key and expand must be at least 1 and d_key even, got "
                f"{n_averages}, {d_key} and {expand}"
            )
        width = expand * d_model
        self.d_key = d_key
        self.parts = [d_model, d_key, width, d_model]
        self.delta = nn.Parameter(0.2 * torch.randn(d_model, n_averages))
        self.alpha = nn.Parameter(0.2 * torch.randn(d_model, n_averages))
        sign = 1.0 - 2.0 * (torch.arange(n_averages) % 2)
        self.beta = nn.Parameter(sign + 0.02 * torch.randn(d_model, n_averages))
        self.gamma = nn.Parameter(torch.randn(d_model, n_averages))
        self.omega = nn.Parameter(torch.randn(d_model))
        self.value = Linear(d_model, width)
        self.base = Linear(d_model, sum(self.parts))
        self.query_key_scale = nn.Parameter(0.02 * torch.randn(2, d_key) + 1.0)
        self.query_key_bias = nn.Parameter(torch.zeros(2, d_key))
        self.rotary = Rotary(d_key)
        self.candidate = Linear(width, d_model, bias=False)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, L, D); ``mask`` of shape (B, L).

        Raises
        ------
        ParameterError
            If a mask says something of pairs of tokens, or there is a memory.
        """
        refuse_memory(self, memory)
        check_token_mask(self, mask, x)
        return self._mix(x, mask, self.init_state(x.shape[0]))[0]

    def init_state(self, batch: int) -> MegaState:
        """Return the state before the first token: averages of nothing, and no keys."""
        weight, width = self.gamma, self.candidate.weight.shape[1]
        keys, values = (
            weight.new_empty(batch, 1, 0, self.d_key),
            weight.new_empty(batch, 1, 0, width),
        )
        averages = weight.new_zeros(batch, *weight.shape)
        return MegaState(averages, KVCache.holding(keys, values))

    def extend(self, x: Tensor, state: MegaState) -> tuple[Tensor, MegaState]:
        """Mix more tokens (B, T, D)."""
        return self._mix(x, None, state) if x.shape[1] else (x, state)

    def _mix(self, x: Tensor, mask: Tensor | None, state: MegaState) -> tuple[Tensor, MegaState]:
        smooth, averages = self._average(x, mask, state.averages)
        opened, mixed, gate, hidden = self.base(smooth).split(self.parts, dim=-1)
        mixed = F.silu(mixed)[:, :, None] * self.query_key_scale + self.query_key_bias
        start = state.cache.length
        positions = range(start, start + x.shape[1])
        query, key = (self.rotary(part[:, None], positions) for part in mixed.unbind(2))
        value = F.silu(self.value(x))[:, None]  # (B, 1, L, V)
        cache = state.cache.append(key, value)
        seen = None
        if mask is not None:
            # A token sees itself at least, or it would look at everything.
            itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
            seen = mask[:, None] | itself
        attended = attention(
            query, cache.keys, cache.values, mask=seen, causal=True, scale=self.d_key**-0.5
        )[:, 0]
        candidate = F.silu(hidden + self.candidate(attended * F.silu(gate)))
        return F.sigmoid(opened) * (candidate - x), MegaState(averages, cache)

    def _average(self, x: Tensor, mask: Tensor | None, averages: Tensor) -> tuple[Tensor, Tensor]:
        """Return damped moving averages of the tokens, put together (B, L, D)."""
        shown = x if mask is None else x.masked_fill(~mask[..., None], 0.0)
        share = F.sigmoid(self.delta)
        log_decay = torch.log1p(-share * F.sigmoid(self.alpha))
        weight = share * self.beta * self.gamma / self.gamma.shape[1] ** 0.5
        smooth, averages = diagonal_recurrence(shown, log_decay, weight, averages)
        return F.silu(smooth + self.omega * x), averages
