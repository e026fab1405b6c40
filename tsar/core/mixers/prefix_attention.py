"""Attention as a recurrence: one learned query per head looks back over all tokens so far."""

import torch
from torch import Tensor, nn

from tsar.core.linear import Linear
from tsar.core.mixers.base import RecurrentMixer
from tsar.core.mixers.heads import head_width
from tsar.core.ops.prefix_softmax import SoftmaxSums, prefix_softmax

__all__ = ["PrefixAttention"]


class PrefixAttention(RecurrentMixer):
    """Softmax attention from a query that is a weight, and not a map of the token.

    What the query looks for is the same at every token, so that all that has to be remembered is
    a weighted sum. A token finds what the layer looks for, and not what it looks for itself.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.

    Raises
    ------
    ParameterError
        If it does not.

    References
    ----------
    Feng et al., "Attention as an RNN", arXiv:2405.13956, section 3.3 (Aaren).
    """

    formula = "sum_s exp(q k_s) v_s / sum_s exp(q k_s), q a weight"
    cost = "L log L D"

    no_decay = ("query",)

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        width = head_width("PrefixAttention", d_model, n_heads)
        self.n_heads = n_heads
        self.scale = width**-0.5
        self.query = nn.Parameter(torch.randn(n_heads, width))
        self.key_value = Linear(d_model, 2 * d_model)
        self.output = Linear(d_model, d_model)

    def init_state(self, batch: int) -> SoftmaxSums:
        """Return the state before the first token: sums over nothing."""
        return SoftmaxSums.none(self.query, batch, *self.query.shape)

    def scan(
        self, x: Tensor, mask: Tensor | None, state: SoftmaxSums | None
    ) -> tuple[Tensor, SoftmaxSums]:
        """See :meth:`RecurrentMixer.scan`."""
        key, value = self.key_value(x).unflatten(2, (2, self.n_heads, -1)).unbind(2)
        scores = self.scale * (key * self.query).sum(dim=-1)  # (B, L, N)
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None], -torch.inf)
        sums = prefix_softmax(scores, value, state)
        mixed = sums.mean().flatten(2).to(x.dtype)
        return self.output(mixed), SoftmaxSums(*(part[:, -1].clone() for part in sums))
