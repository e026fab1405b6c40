"""Linear attention that forgets: at a fixed rate per head, or as fast as a token says."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import RecurrentMixer
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.mixers.linear_attention import SummedState
from tsar.core.norm import RMSNorm
from tsar.core.ops.linear_attention import linear_attention
from tsar.params.constraints import check_choice

__all__ = ["GatedLinearAttention", "Retention"]

# The gates begin near 1, or nothing would be remembered for long enough to be learned from.
_TEMPERATURE = 16.0


class GatedLinearAttention(RecurrentMixer):
    """``S_t = g_t S_{t-1} + k_t v_t'``, read by queries, normalised per head and gated.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    decay : {"token", "fixed"}, default "token"
        Where ``g`` comes from: ``sigmoid(w x_t + b) ** (1 / 16)`` of the token, one per head, or
        ``1 - 2 ** (-5 - head)``, the same for all tokens.

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or ``decay`` is something else.

    References
    ----------
    Yang et al., "Gated linear attention transformers with hardware-efficient training", ICML
    2024, with one gate per head; Sun et al., "Retentive network: a successor to transformer for
    large language models", arXiv:2307.08621, eqs. 3 to 8, without the turning by positions.
    """

    formula = "q_t' S_t, S_t = g(x_t) S_{t-1} + k_t v_t'"
    cost = "L D E"

    rates: Tensor

    def __init__(
        self, d_model: int, n_heads: int, *, decay: Literal["token", "fixed"] = "token"
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_choice(name, "decay", decay, ("token", "fixed"))
        width = head_width(name, d_model, n_heads)
        self.n_heads = n_heads
        self.decay = decay
        self.scale = width**-0.5
        self.query_key_value = Linear(d_model, 3 * d_model, bias=False)
        self.gate = Linear(d_model, d_model, bias=False)
        self.forget = Linear(d_model, n_heads) if decay == "token" else None
        rates = torch.log1p(-torch.exp2(-5 - torch.arange(n_heads, dtype=torch.float64)))
        self.register_buffer("rates", rates.to(torch.get_default_dtype()), persistent=False)
        self.norm = RMSNorm(width)
        self.output = Linear(d_model, d_model, bias=False)

    def init_state(self, batch: int) -> SummedState:
        """Return the state before the first token: zeros."""
        weight = self.output.weight
        width = len(weight) // self.n_heads
        return SummedState(weight.new_zeros(batch, self.n_heads, width, width))

    def scan(
        self, x: Tensor, mask: Tensor | None, state: SummedState | None
    ) -> tuple[Tensor, SummedState]:
        """See :meth:`RecurrentMixer.scan`; what is masked is not waited for."""
        query, key, value = split_heads(self.query_key_value(x), self.n_heads, 3)  # (B, N, L, E)
        log_decay = self._log_decay(x)
        if mask is not None:
            key = key.masked_fill(~mask[:, None, :, None], 0.0)
            log_decay = log_decay.masked_fill(~mask[:, None], 0.0)
        before = None if state is None else state.sum
        y, total = linear_attention(query * self.scale, key, value, log_decay, before)
        y = join_heads(self.norm(y))
        return self.output(y * F.silu(self.gate(x))), SummedState(total)

    def _log_decay(self, x: Tensor) -> Tensor:
        """Return how much of the state a token leaves, (B, N, L)."""
        if self.forget is not None:
            return F.logsigmoid(self.forget(x)).mT / _TEMPERATURE
        return self.rates[:, None].expand(x.shape[0], -1, x.shape[1])


class Retention(GatedLinearAttention):
    """Gated linear attention that forgets at a fixed rate, another one in every head.

    Parameters
    ----------
    d_model, n_heads
        See :class:`GatedLinearAttention`.

    References
    ----------
    Sun et al., "Retentive network: a successor to transformer for large language models",
    arXiv:2307.08621.
    """

    formula = "q_t' S_t, S_t = g S_{t-1} + k_t v_t'"
    cost = "L D E"

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__(d_model, n_heads, decay="fixed")
