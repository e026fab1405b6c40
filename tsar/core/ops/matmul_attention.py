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
from collections.abc import Sequence
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
        for_pairs = penalty.to(value.dtype).expand(len(value), *penalty.shape[1:])
    return _MatmulAttention.apply(scale, for_keys, for_pairs, value, *queries, *keys)


class _MatmulAttention(torch.autograd.Function):
    """The packed form and its gradient, both in chunks of sequences."""

    @staticmethod
    def forward(
        ctx: Any,
        scale: float,
        for_keys: Tensor | None,  # (B or 1, 1, 1, S)
        for_pairs: Tensor | None,  # (B, 1 or N, 1 or L, S)
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
        chunks, buffer = _chunks(query, key)
        for part in chunks:
            weights = _weights(query[part], key[part], for_pairs, part, buffer)
            torch.bmm(values[part].flatten(0, 1), weights.mT, out=mixed[part].flatten(0, 1))
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
        chunks, buffer = _chunks(query, key)
        grad_buffer = torch.empty_like(buffer)
        for part in chunks:
            weights = _weights(query[part], key[part], for_pairs, part, buffer)
            grad_scores = grad_buffer[: len(weights)]
            q, k, v, grad_mixed = (t[part].flatten(0, 1) for t in (query, key, values, grad))
            torch.bmm(grad_mixed, weights, out=grad_value[part].flatten(0, 1))
            torch.bmm(grad_mixed.mT, v, out=grad_scores)
            torch.ops.aten._softmax_backward_data.out(
                grad_scores, weights, -1, weights.dtype, grad_input=grad_scores
            )
            torch.bmm(k[:, :width], grad_scores.mT, out=grad_query[part].flatten(0, 1))
            torch.bmm(q[:, :width], grad_scores, out=grad_key[part].flatten(0, 1))
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


def _chunks(query: Tensor, key: Tensor) -> tuple[list[slice], Tensor]:
    """Cut the sequences so that the scores of a part fit into the cache; give room for them."""
    batch, heads, _, n_queries = query.shape
    per_sequence = heads * n_queries * key.shape[3]
    step = max(_CHUNK_BYTES // (per_sequence * query.element_size()), 1)
    chunks = [slice(start, min(start + step, batch)) for start in range(0, batch, step)]
    return chunks, query.new_empty(min(step, batch) * heads, n_queries, key.shape[3])


def _weights(
    query: Tensor, key: Tensor, for_pairs: Tensor | None, part: slice, buffer: Tensor
) -> Tensor:
    """Compute the weights of a chunk into the buffer: (chunk * N, L, R)."""
    scores = buffer[: len(query) * query.shape[1]]
    torch.bmm(query.flatten(0, 1).mT, key.flatten(0, 1), out=scores)
    if for_pairs is not None:
        by_sequence = scores.unflatten(0, query.shape[:2])
        by_sequence[..., : for_pairs.shape[-1]] += for_pairs[part]
    return torch.softmax(scores, dim=-1, out=scores)
