"""Attention in two resolutions: blocks of scores, and the scores of the blocks that matter."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.position import Rotary
from tsar.exceptions import ParameterError

__all__ = ["MultiresolutionAttention"]


class MultiresolutionAttention(Mixer):
    """Softmax attention where most blocks of scores are one number, that of their mean tokens.

    Queries and keys are cut into blocks. The score of a pair of blocks is that of the means of
    their tokens; where it is largest, in as many pairs as are to be refined, every pair of tokens
    gets its own. With all of them refined that is attention itself.

    Letters: C blocks, T tokens of a block, R refined pairs of blocks.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    block_size : int, default 16
    n_refined : int, default 4
        Pairs of blocks that are refined, for each block of queries on average.
    rotary : bool, default False
        Whether queries and keys are turned by their positions.

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or a number is less than 1.

    References
    ----------
    Zeng et al., "Multi resolution analysis (MRA) for approximate self-attention", ICML 2022,
    sections 3 and 4, with two resolutions.
    """

    formula = "softmax of block means, of q_t k_s' in the pairs of blocks that weigh most"
    cost = "L r T D + (L / T)^2 D"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        block_size: int = 16,
        n_refined: int = 4,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        width = head_width("MultiresolutionAttention", d_model, n_heads)
        if min(block_size, n_refined) < 1:
            raise ParameterError(
                f"MultiresolutionAttention: block_size and n_refined must be at least 1, got "
                f"{block_size} and {n_refined}"
            )
        self.n_heads = n_heads
        self.block_size = block_size
        self.n_refined = n_refined
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
        length = x.shape[1]
        parts = [*split_heads(self.query_key_value(x), self.n_heads, 3)]  # (B, N, L, E)
        if self.rotary is not None:
            parts[:2] = [self.rotary(part, range(length)) for part in parts[:2]]
        short = -length % self.block_size
        query, key, value = (
            F.pad(part, (0, 0, 0, short)).unflatten(2, (-1, self.block_size)) for part in parts
        )  # (B, N, C, T, E)
        shown = torch.ones_like(x[:, :, 0], dtype=torch.bool) if mask is None else mask
        there = F.pad(shown, (0, short)).unflatten(1, (-1, self.block_size))[:, None]
        query = query * self.scale
        mixed = self._attend(query, key, value * there[..., None], there)
        mixed = mixed.flatten(2, 3)[:, :, :length]
        return self.output(join_heads(mixed))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, there: Tensor) -> Tensor:
        """Attend in blocks; ``there`` of shape (B, 1, C, T)."""
        n_blocks, lowest = query.shape[2], torch.finfo(query.dtype).min / 2
        count = there.sum(dim=3, keepdim=True)  # (B, 1, C, 1)
        means = [(part * there[..., None]).sum(dim=3) / count.clamp_min(1) for part in (query, key)]
        coarse = means[0] @ means[1].mT  # (B, N, C, C)
        coarse = coarse.masked_fill((count == 0).mT, lowest)
        n_pairs = min(self.n_refined * n_blocks, n_blocks**2)
        pairs = coarse.flatten(2).topk(n_pairs, dim=-1).indices  # (B, N, R)
        rows, columns = pairs // n_blocks, pairs % n_blocks
        fine = _blocks(query, rows) @ _blocks(key, columns).mT  # (B, N, R, T, T)
        seen = there.expand(-1, query.shape[1], -1, -1)
        fine = fine.masked_fill(~_blocks(seen, columns)[..., None, :], lowest)
        # What is refined is left out of the coarse scores.
        left = coarse.flatten(2).scatter(-1, pairs, lowest).view_as(coarse)
        # No exponential is above 1; the result does not depend on the peaks.
        peak = left.detach().amax(dim=-1)
        peak = peak.scatter_reduce(-1, rows, fine.detach().amax(dim=(-1, -2)), "amax")
        weights = (left - peak[..., None]).exp()
        weighted = (weights @ value.sum(dim=3))[:, :, :, None].expand_as(value)
        total = (weights @ count.to(weights.dtype))[:, :, :, None].expand(*value.shape[:4], 1)
        shares = (fine - peak.gather(-1, rows)[..., None, None]).exp()
        weighted = _added(weighted, rows, shares @ _blocks(value, columns))
        total = _added(total, rows, shares.sum(dim=-1, keepdim=True))
        return weighted / total.clamp_min(torch.finfo(total.dtype).tiny)


def _blocks(parts: Tensor, index: Tensor) -> Tensor:
    """Pick blocks (B, N, R, ...) of (B, N, C, ...)."""
    wide = index.view(*index.shape, *(1 for _ in parts.shape[3:])).expand(
        *index.shape, *parts.shape[3:]
    )
    return parts.gather(2, wide)


def _added(sums: Tensor, index: Tensor, more: Tensor) -> Tensor:
    """Add blocks (B, N, R, ...) to those of (B, N, C, ...) that the index names."""
    wide = index.view(*index.shape, *(1 for _ in more.shape[3:])).expand_as(more)
    return sums.scatter_add(2, wide, more)
