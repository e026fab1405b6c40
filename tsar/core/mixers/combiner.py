"""Attention to the tokens of one's own block, and to each other block as a conditional mean."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.position import Rotary
from tsar.core.state import KVCache
from tsar.exceptions import ParameterError

__all__ = ["Combiner", "CombinerState"]


class CombinerState(NamedTuple):
    """What a :class:`Combiner` remembers of the tokens so far.

    Parameters
    ----------
    queries, keys, values : Tensor of shape (B, N, T, E)
        Those of the block that is not full yet, not turned by their positions.
    blocks : KVCache
        A key and a value for each full block.
    length : int
        How many tokens there were.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    blocks: KVCache
    length: int


class Combiner(Mixer):
    """Full attention whose weights are factored: first a block, then a token of it.

    A token weighs those of its own block one by one, and every other block as a whole. Inside of
    such a block the weights are those of attention from a query of the block, the same for all who
    look at it. So each token has a weight above 0, and a row sums to 1.

    Letters: C blocks, T tokens of a block.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    block_size : int, default 16
        Near the root of the usual length it costs least.
    causal : bool, default False
        Whether a token sees itself and those before it only.
    rotary : bool, default False
        Whether queries and keys of one block are turned by their positions.

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or ``block_size`` is less than 1.

    References
    ----------
    Ren et al., "Combiner: full attention transformer with sparse computation cost", NeurIPS 2021,
    section 4.1 (the fixed pattern), with queries and keys of blocks by maximum.
    """

    formula = "q_t attends to k_s of its block and to blocks; a block is the mean its query attends"
    cost = "L (T + L / T) D"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        block_size: int = 16,
        causal: bool = False,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        width = head_width("Combiner", d_model, n_heads)
        if block_size < 1:
            raise ParameterError(f"Combiner: block_size must be at least 1, got {block_size}")
        self.n_heads = n_heads
        self.block_size = block_size
        self.causal = causal
        self.scale = width**-0.5
        self.query_key_value = Linear(d_model, 3 * d_model)
        self.rotary = Rotary(width) if rotary else None
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
        check_token_mask(self, mask, x)
        length, size = x.shape[1], self.block_size
        heads = split_heads(self.query_key_value(x), self.n_heads, 3)  # (B, N, L, E)
        turned = self._turned(heads[0], heads[1], range(length))
        query, key, value, own_query, own_key = (
            F.pad(part, (0, 0, 0, -length % size)).unflatten(2, (-1, size))
            for part in (*heads, *turned)
        )  # (B, N, C, T, E)
        shown = torch.ones_like(x[:, :, 0], dtype=torch.bool) if mask is None else mask
        there = F.pad(shown, (0, -length % size)).unflatten(1, (-1, size))[:, None]  # (B, 1, C, T)
        block_key, block_value = self._summed_up(query, key, value, there)
        # A token that may look at nothing looks at itself.
        itself = torch.eye(size, dtype=torch.bool, device=x.device)
        seen = there[..., None, :]
        seen = seen & itself.cumsum(dim=0).bool() if self.causal else seen
        blocks = torch.arange(query.shape[2], device=x.device)
        others = (
            blocks[:, None] > blocks if self.causal else blocks[:, None] != blocks
        ) & there.any(dim=3)[..., None, :]  # (B, 1, C, C)
        direct = own_query @ own_key.mT
        whole = query @ block_key[:, :, None].mT  # (B, N, C, T, C)
        weights = self._weights(direct, seen | itself, whole, others[..., None, :])
        near, far = weights.split([size, weights.shape[-1] - size], dim=-1)
        mixed = near @ value + far @ block_value[:, :, None]
        return self.output(join_heads(mixed.flatten(2, 3)[:, :, :length]))

    def init_state(self, batch: int) -> CombinerState:
        """Return the state before the first token: no tokens, and no blocks."""
        self._check_causal()
        weight = self.output.weight
        none = weight.new_zeros(batch, self.n_heads, 0, len(weight) // self.n_heads)
        return CombinerState(none, none, none, KVCache.holding(none, none), 0)

    def extend(self, x: Tensor, state: CombinerState) -> tuple[Tensor, CombinerState]:
        """Mix more tokens (B, T, D)."""
        self._check_causal()
        outputs, start = [x[:, :0]], 0
        while start < x.shape[1]:
            stop = start + self.block_size - state.keys.shape[2]
            mixed, state = self._extend_block(x[:, start:stop], state)
            outputs.append(mixed)
            start = stop
        return torch.cat(outputs, dim=1), state

    def _extend_block(self, x: Tensor, state: CombinerState) -> tuple[Tensor, CombinerState]:
        """Mix tokens of the block that is not full yet."""
        n_tokens = x.shape[1]
        new = split_heads(self.query_key_value(x), self.n_heads, 3)
        before = (state.queries, state.keys, state.values)
        queries, keys, values = (
            torch.cat([old.to(part.dtype), part], dim=2)
            for old, part in zip(before, new, strict=True)
        )
        length, blocks = state.length + n_tokens, state.blocks
        own_query, own_key = self._turned(queries, keys, range(length - queries.shape[2], length))
        own_query = own_query[:, :, -n_tokens:]
        n_here = keys.shape[2]
        seen = torch.ones(n_tokens, n_here, dtype=torch.bool, device=x.device)
        seen = seen.tril(n_here - n_tokens)
        whole = new[0] @ blocks.keys.to(new[0].dtype).mT
        everything = torch.ones_like(whole[0, 0], dtype=torch.bool)
        weights = self._weights(own_query @ own_key.mT, seen, whole, everything)
        near, far = weights.split([n_here, weights.shape[-1] - n_here], dim=-1)
        mixed = self.output(join_heads(near @ values + far @ blocks.values.to(values.dtype)))
        if n_here < self.block_size:
            return mixed, CombinerState(queries, keys, values, blocks, length)
        there = torch.ones_like(keys[:, :1, None, :, 0], dtype=torch.bool)
        blocks = blocks.append(
            *self._summed_up(queries[:, :, None], keys[:, :, None], values[:, :, None], there)
        )
        none = keys[:, :, :0]
        return mixed, CombinerState(none, none, none, blocks, length)

    def _check_causal(self) -> None:
        if not self.causal:
            raise NotImplementedError(
                f"{type(self).__name__} looks ahead, and does not work piece by piece; build it "
                f"with causal=True"
            )

    def _turned(self, query: Tensor, key: Tensor, places: range) -> tuple[Tensor, Tensor]:
        """Return queries and keys (B, N, L, E) for pairs of one block."""
        if self.rotary is None:
            return query, key
        return self.rotary(query, places), self.rotary(key, places)

    def _summed_up(
        self, query: Tensor, key: Tensor, value: Tensor, there: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the keys and values (B, N, C, E) of blocks of tokens that are ``there``."""
        hidden = ~there[..., None]
        none = hidden.all(dim=3)  # (B, 1, C, 1)
        block_query, block_key = (
            part.masked_fill(hidden, -torch.inf).amax(dim=3).masked_fill(none, 0.0)
            for part in (query, key)
        )
        scores = self.scale * (key @ block_query[..., None])[..., 0]  # (B, N, C, T)
        weights = scores.masked_fill(~there, _lowest(scores)).softmax(dim=-1)
        return block_key, (weights[..., None] * value.masked_fill(hidden, 0.0)).sum(dim=3)

    def _weights(self, direct: Tensor, seen: Tensor, whole: Tensor, others: Tensor) -> Tensor:
        """Return what tokens of the own block and other blocks weigh, side by side."""
        scores = [
            (self.scale * part).masked_fill(~shown, _lowest(part))
            for part, shown in ((direct, seen), (whole, others))
        ]
        return torch.cat(scores, dim=-1).softmax(dim=-1)


def _lowest(scores: Tensor) -> float:
    return torch.finfo(scores.dtype).min / 2
