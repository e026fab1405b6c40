"""Attention to a few summaries of the tokens in place of all of them."""

import torch
from torch import Tensor

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.ops.attention import attention
from tsar.core.ops.stretches import stretch_means
from tsar.core.position import Rotary
from tsar.exceptions import ParameterError

__all__ = ["LowRankAttention"]


class LowRankAttention(Mixer):
    """Softmax attention whose keys and values are means over equal stretches of the tokens.

    There are ``rank`` stretches, or one for each token where there are fewer tokens, which is
    attention itself. So the cost grows with the length and not with its square.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    rank : int, default 32
    rotary : bool, default False
        Whether queries and keys are turned by their positions; a mean is where its stretch has
        its middle.

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or the rank is less than 1.

    References
    ----------
    Wang et al., "Linformer: self-attention with linear complexity", arXiv:2006.04768, section 4,
    with the pooling that its "general projections" name, which fits sequences of any length.
    """

    formula = "attention to r means of keys and values"
    cost = "L r D"

    def __init__(self, d_model: int, n_heads: int, *, rank: int = 32, rotary: bool = False) -> None:
        super().__init__()
        width = head_width("LowRankAttention", d_model, n_heads)
        if rank < 1:
            raise ParameterError(f"LowRankAttention: rank must be at least 1, got {rank}")
        self.n_heads = n_heads
        self.rank = rank
        self.query = Linear(d_model, d_model)
        self.key_value = Linear(d_model, 2 * d_model)
        self.rotary = Rotary(width) if rotary else None
        self.output = Linear(d_model, d_model)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, L, D); ``mask`` of shape (B, L): means are over what is not masked.

        Raises
        ------
        ParameterError
            If a mask says something of pairs of tokens, or there is a memory.
        """
        refuse_memory(self, memory)
        check_token_mask(self, mask, x)
        mean, there = stretch_means(x, self.rank, mask)
        # The mean of maps is the map of the mean, which there are fewer of.
        key, value = split_heads(self.key_value(mean @ x), self.n_heads, 2)
        (query,) = split_heads(self.query(x), self.n_heads, 1)
        if self.rotary is not None:
            positions = torch.arange(x.shape[1], device=x.device)
            middles = (mean @ positions.to(x.dtype)[:, None])[..., 0]
            query = self.rotary(query, positions)
            key = self.rotary(key, middles if mask is None else middles[:, None])
        mixed = attention(query, key, value, mask=None if mask is None else there)
        return self.output(join_heads(mixed))
