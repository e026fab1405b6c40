"""Attention from queries to keys and values that several layers share."""

from torch import Tensor, nn

from tsar.core.linear import Linear
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.norm import RMSNorm
from tsar.core.ops.attention import attention
from tsar.core.state import KVCache

__all__ = ["KeysAndValues", "QueryAttention"]


class KeysAndValues(nn.Module):
    """Keys and values of tokens, projected once for all layers that read them.

    Keys are normalised (RMS over a head, with a factor per feature).

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.

    Raises
    ------
    ParameterError
        If the heads do not divide the width.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.width = head_width("KeysAndValues", d_model, n_heads)
        self.n_heads = n_heads
        self.key_value = Linear(d_model, 2 * d_model)
        self.key_norm = RMSNorm(self.width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, N, L, E) of tokens (B, L, D)."""
        keys, values = split_heads(self.key_value(x), self.n_heads, 2)
        return self.key_norm(keys), values

    def init_state(self, batch: int) -> KVCache:
        """Return an empty cache."""
        empty = self.key_value.weight.new_empty(batch, self.n_heads, 0, self.width)
        return KVCache.holding(empty, empty)


class QueryAttention(nn.Module):
    """Softmax attention from queries to keys and values that are there already.

    Queries are normalised as the keys are.

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
    Vaswani et al., "Attention is all you need", NeurIPS 2017; Henry et al., "Query-key
    normalization for transformers", Findings of EMNLP 2020.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = Linear(d_model, d_model)
        self.query_norm = RMSNorm(head_width("QueryAttention", d_model, n_heads))
        self.output = Linear(d_model, d_model)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, *, mask: Tensor | None = None
    ) -> Tensor:
        """Read.

        Parameters
        ----------
        x : Tensor of shape (B, T, D)
        keys, values : Tensor of shape (B, N, L, E)
        mask : bool Tensor, optional
            True where a query may read, broadcastable to (B, T, L).

        Returns
        -------
        Tensor of shape (B, T, D)
        """
        (query,) = split_heads(self.query(x), self.n_heads, 1)
        mixed = attention(self.query_norm(query), keys, values, mask=mask)
        return self.output(join_heads(mixed))
