"""Attention whose softmax is a product of features, so that a sum takes the place of all keys."""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, refuse_memory, refuse_pair_mask
from tsar.core.ops.linear_attention import linear_attention
from tsar.exceptions import ParameterError

__all__ = ["LinearAttention", "LinearAttentionState"]

_SMALLEST_SUM = 1e-6


class LinearAttentionState(NamedTuple):
    """What linear attention remembers: one sum, however many tokens there were.

    Parameters
    ----------
    sum : Tensor of shape (B, N, E, E + 1)
        Of keys times values, and of keys in the last column.
    """

    sum: Tensor


class LinearAttention(Mixer):
    """Causal attention with weights ``phi(q)' phi(k)``, where ``phi(x) = elu(x) + 1``.

    The weights of a token are divided by their sum. A state of fixed size stands for all tokens
    so far, and a step costs the same after ten tokens and after ten thousand.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.

    Raises
    ------
    ParameterError
        If the heads do not divide the width.

    References
    ----------
    Katharopoulos et al., "Transformers are RNNs: fast autoregressive transformers with linear
    attention", ICML 2020, eqs. 7 to 20.
    """

    causal = True

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ParameterError(
                f"LinearAttention: n_heads={n_heads} does not divide d_model={d_model}"
            )
        self.n_heads = n_heads
        self.query_key_value = Linear(d_model, 3 * d_model)
        self.output = Linear(d_model, d_model)

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
        refuse_pair_mask(self, mask, x)
        return self._mix(x, mask, None)[0]

    def init_state(self, batch: int) -> LinearAttentionState:
        """Return the state before the first token: zeros."""
        weight = self.output.weight
        width = len(weight) // self.n_heads
        return LinearAttentionState(weight.new_zeros(batch, self.n_heads, width, width + 1))

    def extend(self, x: Tensor, state: LinearAttentionState) -> tuple[Tensor, LinearAttentionState]:
        """Mix more tokens (B, T, D)."""
        y, total = self._mix(x, None, state.sum)
        return y, LinearAttentionState(total)

    def _mix(self, x: Tensor, mask: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        heads = self.query_key_value(x).unflatten(2, (3, self.n_heads, -1))
        query, key, value = (part.transpose(1, 2) for part in heads.unbind(2))  # (B, N, L, E)
        query, key = F.elu(query) + 1, F.elu(key) + 1
        if mask is not None:
            key = key.masked_fill(~mask[:, None, :, None], 0.0)
        # A column of ones adds up the keys beside what they weigh.
        y, state = linear_attention(query, key, F.pad(value, (0, 1), value=1.0), state=state)
        y = y[..., :-1] / (y[..., -1:] + _SMALLEST_SUM)
        return self.output(y.transpose(1, 2).flatten(2)), state
