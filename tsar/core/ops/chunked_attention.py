"""Softmax attention a few queries at a time, for long sequences.

Nothing of size L x S is ever there, not even a mask: who sees whom is worked out for each chunk
from positions, and of the keys only those are read that a chunk can see. So a window costs what is
inside of it. The gradient computes the weights of each chunk again.

Letters: B batch, N heads, L queries, S keys, E width of a query or key, V width of a value.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsar.core import masks

__all__ = ["Sight", "chunked_attention"]

# Queries of a chunk: enough for fast products, few enough that a window leaves most keys out.
_QUERIES = 128


class Sight(NamedTuple):
    """Which keys a query sees; the last query is level with the last key.

    Parameters
    ----------
    mask : bool Tensor broadcastable to (B, N, L, S), or None
    causal : bool
        No key behind its own position.
    window : int or None
        Those less than this many positions away.
    sinks : int
        With a window, the first keys as well.
    """

    mask: Tensor | None = None
    causal: bool = False
    window: int | None = None
    sinks: int = 0


def chunked_attention(
    query: Tensor, key: Tensor, value: Tensor, sight: Sight, scale: float
) -> Tensor:
    """Compute ``softmax(scale * query key') value`` over the keys that each query sees.

    Parameters
    ----------
    query : Tensor of shape (B, N, L, E)
    key : Tensor of shape (B, N, S, E)
    value : Tensor of shape (B, N, S, V)
    sight : Sight
        A query that sees nothing attends evenly to everything.
    scale : float

    Returns
    -------
    Tensor of shape (B, N, L, V)
    """
    if value.dtype in (torch.bfloat16, torch.float16):
        query, key, value = query.float(), key.float(), value.float()
    # Autocast would make the products of the values less exact than those of the gradient.
    with torch.autocast(value.device.type, enabled=False):
        mixed: Tensor = _ChunkedAttention.apply(query, key, value, scale, *sight)
    return mixed


class _ChunkedAttention(torch.autograd.Function):
    """The formula for one chunk of queries after the other, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        mask: Tensor | None,
        causal: bool,
        window: int | None,
        sinks: int,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale, ctx.options = scale, (causal, window, sinks)
        mixed = value.new_empty(*query.shape[:3], value.shape[3])
        for rows, parts, hidden in _chunks(query, key, Sight(mask, *ctx.options)):
            weights = _weights(query[:, :, rows], _read(key, parts), hidden, scale)
            mixed[:, :, rows] = weights @ _read(value, parts)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask = ctx.saved_tensors
        grad_query = torch.empty_like(query)
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        for rows, parts, hidden in _chunks(query, key, Sight(mask, *ctx.options)):
            queries, keys = query[:, :, rows], _read(key, parts)
            weights = _weights(queries, keys, hidden, ctx.scale)
            grad_mixed = grad[:, :, rows]
            _add(grad_value, parts, weights.mT @ grad_mixed)
            scores = grad_mixed @ _read(value, parts).mT
            scores = weights * (scores - (weights * scores).sum(-1, keepdim=True)) * ctx.scale
            grad_query[:, :, rows] = scores @ keys
            _add(grad_key, parts, scores.mT @ queries)
        return grad_query, grad_key, grad_value, None, None, None, None, None


def _chunks(
    query: Tensor, key: Tensor, sight: Sight
) -> Iterator[tuple[slice, list[slice], Tensor]]:
    """Cut the queries; for each chunk, which keys to read and which of them are hidden."""
    n_queries, n_keys = query.shape[2], key.shape[2]
    key_positions = torch.arange(n_keys, device=key.device)
    for start in range(0, n_queries, _QUERIES):
        rows = slice(start, min(start + _QUERIES, n_queries))
        first, last = (n_keys - n_queries + row for row in (rows.start, rows.stop - 1))
        positions = torch.arange(first, last + 1, device=key.device)
        parts = _reach(first, last, n_keys, sight)
        for reads in (parts, [slice(0, n_keys)]):
            places = torch.cat([key_positions[part] for part in reads])
            seen = masks.window(
                positions, places, sight.window, sinks=sight.sinks, causal=sight.causal
            )
            if sight.mask is not None:
                seen = seen & _part(sight.mask, rows, reads)
            # A query that sees nothing reads all keys, so those within reach are not enough.
            if seen.any(dim=-1).all():
                break
        yield rows, reads, ~seen


def _reach(first: int, last: int, n_keys: int, sight: Sight) -> list[slice]:
    """The keys that queries at positions from first to last can see."""
    stop = max(last + 1, 0) if sight.causal else n_keys
    if sight.window is None:
        return [slice(0, stop)]
    start, stop = max(first - sight.window + 1, 0), min(stop, max(last + sight.window, 0))
    if start <= sight.sinks:
        return [slice(0, max(stop, min(sight.sinks, n_keys)))]
    return [slice(0, sight.sinks), slice(start, stop)] if sight.sinks else [slice(start, stop)]


def _read(tokens: Tensor, parts: list[slice]) -> Tensor:
    """Return the stretches (B, N, any, E) of tokens side by side."""
    if len(parts) == 1:
        return tokens[:, :, parts[0]]
    return torch.cat([tokens[:, :, part] for part in parts], dim=2)


def _add(tokens: Tensor, parts: list[slice], more: Tensor) -> None:
    """Add to the stretches what lies side by side."""
    sizes = [part.stop - part.start for part in parts]
    for part, piece in zip(parts, more.split(sizes, dim=2), strict=True):
        tokens[:, :, part] += piece


def _part(mask: Tensor, rows: slice, parts: list[slice]) -> Tensor:
    """Cut a mask that may have a single row or a single column."""
    mask = mask if mask.shape[2] == 1 else mask[:, :, rows]
    if mask.shape[3] == 1:
        return mask
    return torch.cat([mask[..., part] for part in parts], dim=3)


def _weights(query: Tensor, key: Tensor, hidden: Tensor, scale: float) -> Tensor:
    scores = (query * scale) @ key.mT
    # Finite: where nothing is seen, infinite ones would give NaN.
    return scores.masked_fill_(hidden, torch.finfo(scores.dtype).min / 2).softmax(dim=-1)
