"""Attention by collisions of random hashes: a table of sums in place of all pairs."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.position import Rotary
from tsar.exceptions import ParameterError

__all__ = ["HashedAttention", "collisions"]


class HashedAttention(Mixer):
    """Values are added up where keys fall, and read where queries do; ``n_bits`` signs say where.

    Two unit vectors at an angle ``a`` fall into one place of a hash with probability
    ``(1 - a / pi) ** n_bits``, which is what a value weighs on average. Time and memory grow with
    the length. Each head's result is brought to unit length.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    n_bits : int, default 8
        Random directions of a hash, whose table has ``2 ** n_bits`` places.
    n_hashes : int, default 16
        Over which the mean is taken. Their directions are drawn with the first weights and stay,
        so that a forecast is the same in every call.
    rotary : bool, default False
        Whether queries and keys are turned by their positions.

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or a number is out of its range.

    References
    ----------
    Zeng et al., "You only sample (almost) once: linear cost self-attention via Bernoulli sampling",
    ICML 2021, sections 3 and 4; gradients are its lower bound, ``n_bits / 2`` times the weight for
    its derivative.
    """

    formula = "sum of v_s where hashes of q_t and k_s agree, to unit length"
    cost = "L m D"

    directions: Tensor

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_bits: int = 8,
        n_hashes: int = 16,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        width = head_width("HashedAttention", d_model, n_heads)
        if not 1 <= n_bits <= 16 or n_hashes < 1:
            raise ParameterError(
                f"HashedAttention: n_bits must be from 1 to 16 and n_hashes at least 1, got "
                f"{n_bits} and {n_hashes}"
            )
        self.n_heads = n_heads
        self.n_bits = n_bits
        self.query_key_value = Linear(d_model, 3 * d_model)
        self.register_buffer("directions", torch.randn(n_hashes, width, n_bits))
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
        query, key, value = split_heads(self.query_key_value(x), self.n_heads, 3)  # (B, N, L, E)
        if self.rotary is not None:
            query, key = (self.rotary(part, range(x.shape[1])) for part in (query, key))
        if mask is not None:
            value = value.masked_fill(~mask[:, None, :, None], 0.0)
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        mixed = F.normalize(collisions(query, key, value, self.directions), dim=-1)
        return self.output(join_heads(mixed))


def collisions(query: Tensor, key: Tensor, value: Tensor, directions: Tensor) -> Tensor:
    """Return the mean over hashes of the sums of values whose keys fall where a query does.

    Parameters
    ----------
    query, key : Tensor of shape (B, N, L, E)
        Unit vectors.
    value : Tensor of shape (B, N, L, V)
    directions : Tensor of shape (H, E, bits)

    Returns
    -------
    Tensor of shape (B, N, L, V)
    """
    mixed: Tensor = _Collisions.apply(query, key, value, directions)
    return mixed


class _Collisions(torch.autograd.Function):
    """Hashing has no derivative: the one of the mean, bounded from below, stands for it."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, directions: Tensor) -> Tensor:
        places = [_places(part, directions) for part in (query, key)]
        ctx.save_for_backward(query, key, value, *places)
        ctx.n_bits = directions.shape[2]
        return _read(places[0], _written(places[1], value, ctx.n_bits))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, at_query, at_key = ctx.saved_tensors
        # A collision is one whichever of the two asks.
        to_value = _read(at_key, _written(at_query, grad, ctx.n_bits))
        half = ctx.n_bits / 2
        to_query = half * _weighed(at_query, at_key, grad, value, key, ctx.n_bits)
        to_key = half * _weighed(at_key, at_query, value, grad, query, ctx.n_bits)
        return to_query, to_key, to_value, None


def _places(vectors: Tensor, directions: Tensor) -> Tensor:
    """Return where vectors (B, N, L, E) fall in each hash, int64 of shape (H, B, N, L)."""
    signs = torch.einsum("bnle,hek->hbnlk", vectors, directions.to(vectors.dtype)) > 0
    powers = 2 ** torch.arange(directions.shape[2], device=vectors.device)
    return (signs * powers).sum(dim=-1)


def _written(places: Tensor, values: Tensor, n_bits: int) -> Tensor:
    """Add values (B, N, L, V) up where they fall, (H, B, N, 2 ** n_bits, V)."""
    wide = places[..., None].expand(*places.shape, values.shape[-1])
    table = values.new_zeros(*places.shape[:3], 2**n_bits, values.shape[-1])
    return table.scatter_add(3, wide, values.expand_as(wide))


def _read(places: Tensor, table: Tensor) -> Tensor:
    """Read tables where vectors fall; the mean over hashes (B, N, L, V)."""
    wide = places[..., None].expand(*places.shape, table.shape[-1])
    return table.gather(3, wide).mean(dim=0)


def _weighed(
    reading: Tensor, writing: Tensor, ours: Tensor, theirs: Tensor, vectors: Tensor, n_bits: int
) -> Tensor:
    """Return ``sum_s collisions_ts (ours_t . theirs_s) vectors_s``, one feature at a time."""
    total = torch.zeros_like(vectors)
    for feature in range(ours.shape[-1]):
        table = _written(writing, theirs[..., feature, None] * vectors, n_bits)
        total = total + ours[..., feature, None] * _read(reading, table)
    return total
