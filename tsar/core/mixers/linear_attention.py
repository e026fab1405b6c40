"""Attention whose softmax is a product of features, so that a sum takes the place of all keys."""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import RecurrentMixer
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.ops.linear_attention import linear_attention

__all__ = ["LinearAttention", "SummedState"]

_SMALLEST_SUM = 1e-6


class SummedState(NamedTuple):
    """What linear attention remembers: one sum, however many tokens there were.

    Parameters
    ----------
    sum : Tensor of shape (B, N, E, V)
        Of keys times values. Where there is a normaliser, the last column is the sum of the keys.
    """

    sum: Tensor


class LinearAttention(RecurrentMixer):
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

    formula = "phi(q_t)' S_t / phi(q_t)' z_t, S_t = S_{t-1} + phi(k_t) v_t'"
    cost = "L D E"

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        head_width("LinearAttention", d_model, n_heads)
        self.n_heads = n_heads
        self.query_key_value = Linear(d_model, 3 * d_model)
        self.output = Linear(d_model, d_model)

    def init_state(self, batch: int) -> SummedState:
        """Return the state before the first token: zeros."""
        weight = self.output.weight
        width = len(weight) // self.n_heads
        return SummedState(weight.new_zeros(batch, self.n_heads, width, width + 1))

    def scan(
        self, x: Tensor, mask: Tensor | None, state: SummedState | None
    ) -> tuple[Tensor, SummedState]:
        """See :meth:`RecurrentMixer.scan`."""
        query, key, value = split_heads(self.query_key_value(x), self.n_heads, 3)  # (B, N, L, E)
        query, key = F.elu(query) + 1, F.elu(key) + 1
        if mask is not None:
            key = key.masked_fill(~mask[:, None, :, None], 0.0)
        # A column of ones adds up the keys beside what they weigh.
        before = None if state is None else state.sum
        y, total = linear_attention(query, key, F.pad(value, (0, 1), value=1.0), state=before)
        y = y[..., :-1] / (y[..., -1:] + _SMALLEST_SUM)
        return self.output(join_heads(y)), SummedState(total)
