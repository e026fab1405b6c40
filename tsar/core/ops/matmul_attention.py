"""Softmax attention for many short sequences with small heads, on a CPU.

What is slow about these is not the arithmetic but its shape: products of matrices a few
numbers wide, rows that end in the middle of a vector register, and scores that travel to
memory and back between steps. Hence:

- queries, keys and values are packed with the token axis last, so every product has a long
  contiguous axis;
- keys are padded to whole vector registers, and one more feature, 1 in every query, carries
  the penalty that hides the padding and the masked keys;
- a few sequences at a time are taken through all steps, so their scores stay in the cache;
- nothing as large as the scores is kept: computing them twice is cheaper than memory.

Letters: B batch, N heads, L queries, S keys, R keys with padding, E width of a query or key,
V width of a value.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["matmul_attention"]

# Scores of so many sequences at a time: small enough for the cache of a core or two.
_CHUNK_BYTES = 2**21
# Bytes in a vector register, and how much longer padding may make the keys.
_REGISTER_BYTES = 64
_LARGEST_PADDING = 0.25


def matmul_attention(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    value: Tensor,
    penalty: Tensor | None,
    scale: float,
) -> Tensor:
    """Compute ``softmax(scale * query key' + penalty) value``.

    Parameters
    ----------
    queries : sequence of Tensor of shape (B, N, L, any)
        Laid side by side along the last axis.
    keys : sequence of Tensor of shape (B, N, S, any)
        Likewise.
    value : Tensor of shape (B, N, S, V)
    penalty : Tensor broadcastable to (B, N, L, S), optional
    scale : float

    Returns
    -------
    Tensor of shape (B, N, L, V)
    """
    if value.dtype in (torch.bfloat16, torch.float16):
        # Products this small take longer in half precision than in full.
        queries, keys = [q.float() for q in queries], [k.float() for k in keys]
        value = value.float()
    for_keys = for_pairs = None
    if penalty is not None and penalty.shape[1:3] == (1, 1):
        for_keys = penalty.to(value.dtype)
    elif penalty is not None:
        for_pairs = penalty.to(value.dtype).expand(*value.shape[:2], *penalty.shape[2:])
    return _MatmulAttention.apply(scale, for_keys, for_pairs, value, *queries, *keys)


class _MatmulAttention(torch.autograd.Function):
    """The packed form and its gradient, both in chunks of sequences."""

    @staticmethod
    def forward(
        ctx: Any,
        scale: float,
        for_keys: Tensor | None,  # (B or 1, 1, 1, S)
        for_pairs: Tensor | None,  # (B, N, 1 or L, S)
        value: Tensor,  # (B, N, S, V)
        *parts: Tensor,  # as many queries (B, N, L, any) as keys (B, N, S, any)
    ) -> Tensor:
        queries, keys = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        n_queries, n_keys = queries[0].shape[2], value.shape[2]
        length = _padded(n_keys, value.element_size())
        extra = length > n_keys or for_keys is not None
        query = _pack(queries, n_queries, extra, scale)  # (B, N, E or E + 1, L)
        key = _pack(keys, length, extra)  # (B, N, E or E + 1, R)
        values = _pack([value], length, False)  # (B, N, V, R)
        if extra:
            query[:, :, -1] = 1.0
            key[:, :, -1, :n_keys] = 0.0 if for_keys is None else for_keys[:, :, 0]
            key[:, :, -1, n_keys:] = -math.inf
        mixed = value.new_empty(*value.shape[:2], value.shape[3], n_queries)  # (B, N, V, L)
        rows = _rows_per_chunk(query, key)
        buffer = query.new_empty(rows, n_queries, length)
        chunks = zip(*_split(rows, query.mT, key, values, mixed), strict=True)
        for part, (q, k, v, out) in enumerate(chunks):
            weights = _weights(q, k, for_pairs, part * rows, buffer)
            torch.bmm(v, weights.mT, out=out)
        ctx.save_for_backward(query, key, values, for_pairs)
        ctx.scale, ctx.n_keys = scale, n_keys
        ctx.widths = [part.shape[-1] for part in queries]
        return mixed.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, values, for_pairs = ctx.saved_tensors
        width = sum(ctx.widths)
        grad = grad.mT.contiguous()  # (B, N, V, L)
        grad_query, grad_key = (torch.empty_like(t[:, :, :width]) for t in (query, key))
        grad_value = torch.empty_like(values)
        rows = _rows_per_chunk(query, key)
        buffer = query.new_empty(2, rows, query.shape[3], key.shape[3])
        tensors = (query, key, values, grad, grad_query, grad_key, grad_value)
        chunks = zip(*_split(rows, *tensors), strict=True)
        for part, (q, k, v, grad_out, grad_q, grad_k, grad_v) in enumerate(chunks):
            weights = _weights(q.mT, k, for_pairs, part * rows, buffer[0])
            grad_scores = buffer[1, : len(weights)]
            torch.bmm(grad_out, weights, out=grad_v)
            torch.bmm(grad_out.mT, v, out=grad_scores)
            torch.ops.aten._softmax_backward_data.out(
                grad_scores, weights, -1, weights.dtype, grad_input=grad_scores
            )
            torch.bmm(k[:, :width], grad_scores.mT, out=grad_q)
            torch.bmm(q[:, :width], grad_scores, out=grad_k)
        # The queries were packed with their scale, so only their own gradient still lacks it.
        grad_query *= ctx.scale
        grads = [
            *grad_query.mT.split(ctx.widths, dim=-1),
            *grad_key.mT[:, :, : ctx.n_keys].split(ctx.widths, dim=-1),
        ]
        return None, None, None, grad_value.mT[:, :, : ctx.n_keys], *grads


def _padded(n_keys: int, itemsize: int) -> int:
    """Round up to whole registers, unless that adds too much."""
    per_register = _REGISTER_BYTES // itemsize
    length = -(-n_keys // per_register) * per_register
    return length if length <= (1 + _LARGEST_PADDING) * n_keys else n_keys


def _pack(parts: Sequence[Tensor], length: int, extra: bool, scale: float = 1.0) -> Tensor:
    """Lay (B, N, any, width) side by side as (B, N, widths, length), 0 where padded.

    With ``extra`` there is one more row, left to the caller.
    """
    batch, heads, n_tokens, _ = parts[0].shape
    rows = sum(part.shape[-1] for part in parts) + extra
    packed = parts[0].new_empty(batch, heads, rows, length)
    if n_tokens < length:
        packed[..., n_tokens:] = 0.0
    row = 0
    for part in parts:
        place = packed[:, :, row : row + part.shape[-1], :n_tokens]
        torch.mul(part.mT, scale, out=place)
        row += part.shape[-1]
    return packed


def _rows_per_chunk(query: Tensor, key: Tensor) -> int:
    """Say how many heads of sequences have scores that fit into the cache together."""
    per_row = query.shape[3] * key.shape[3] * query.element_size()
    # Whole sequences, because that is how penalties of pairs are shared.
    return max(_CHUNK_BYTES // (per_row * query.shape[1]), 1) * query.shape[1]


def _split(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors (B, N, any, any) into chunks of so many heads."""
    for tensor in tensors:
        yield tensor.flatten(0, 1).split(rows)


def _weights(
    query: Tensor, key: Tensor, for_pairs: Tensor | None, start: int, buffer: Tensor
) -> Tensor:
    """Compute the weights of a chunk, from (rows, L, E) and (rows, E, R), into the buffer."""
    scores = buffer[: len(query)]
    torch.bmm(query, key, out=scores)
    if for_pairs is not None:
        n_heads = for_pairs.shape[1]
        by_sequence = scores.unflatten(0, (-1, n_heads))
        first = start // n_heads
        penalty = for_pairs[first : first + len(by_sequence)]
        by_sequence[..., : penalty.shape[-1]] += penalty
    return torch.softmax(scores, dim=-1, out=scores)
