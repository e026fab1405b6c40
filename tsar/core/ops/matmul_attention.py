"""Softmax attention for many short sequences with small heads, on a CPU.

What is slow about these is not the arithmetic but its shape: products of matrices a few
numbers wide, passes over rows a few dozen numbers long, and scores that travel to memory and
back between steps. Hence:

- queries, keys and values lie with the token axis last, so every product has a long contiguous
  axis;
- while training, the softmax is a single pass, powers of two of the scores. Their sums come
  out of the product with the values, as one more feature that is always 1, and divide what was
  mixed rather than the weights;
- a few sequences at a time are taken through all steps, so their scores stay in the cache;
- nothing as large as the scores is kept: computing them twice is cheaper than memory.

Letters: B batch, N heads, L queries, S keys, E width of a query or key, V width of a value.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["matmul_attention"]

# Scores of so many sequences at a time: small enough for the cache, large enough that cores
# seldom wait for each other.
_CHUNK_BYTES = 2**23
# Between these bounds a sum of powers is as exact as with the largest score taken off first.
_LEAST, _MOST = 2.0**-60, 2.0**60
# exp(x) = 2 ** (x * _LOG2_E), and powers of two take a third of the time.
_LOG2_E = math.log2(math.e)


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
    if penalty is not None:
        penalty = penalty.to(value.dtype).expand(*value.shape[:2], *penalty.shape[2:])
    if torch.is_grad_enabled():
        return _MatmulAttention.apply(scale, penalty, value, *queries, *keys)
    return _softmax_attention(queries, keys, value, penalty, scale)


class _MatmulAttention(torch.autograd.Function):
    """The one-pass form and its gradient, both in chunks of sequences."""

    @staticmethod
    def forward(
        ctx: Any,
        scale: float,
        penalty: Tensor | None,  # (B, N, 1 or L, S)
        value: Tensor,  # (B, N, S, V)
        *parts: Tensor,  # as many queries (B, N, L, any) as keys (B, N, S, any)
    ) -> Tensor:
        parts = tuple(_rows(part) for part in parts)
        values = value.new_ones(*value.shape[:2], value.shape[3] + 1, value.shape[2])
        values[:, :, :-1] = value.mT
        values = values.flatten(0, 1)  # (B N, V + 1, S)
        scores = _Scores(parts, penalty, scale * _LOG2_E, value.shape[1])
        shift = None
        mixed = _mix(scores, values, shift)  # (B N, V + 1, L)
        inverse = mixed[:, -1:].reciprocal()
        if not _all_within(inverse, _LEAST, _MOST):
            regular = (inverse > _LEAST) & (inverse < _MOST)
            shift = scores.largest().masked_fill_(regular.mT, 0.0)
            mixed = _mix(scores, values, shift)
            inverse = mixed[:, -1:].reciprocal()
        mixed = mixed[:, :-1] * inverse
        ctx.save_for_backward(values, mixed, inverse, penalty, shift, *parts)
        ctx.scale, ctx.n_heads = scale, value.shape[1]
        return mixed.unflatten(0, value.shape[:2]).mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, mixed, inverse, penalty, shift, *parts = ctx.saved_tensors
        # The gradient of the sums stands beside that of the features, as the 1 does.
        grad_mixed = values.new_empty(*values.shape[:2], mixed.shape[2])  # (B N, V + 1, L)
        for_features, for_sums = grad_mixed[:, :-1], grad_mixed[:, -1:]
        torch.mul(_rows(grad), inverse, out=for_features)
        torch.sum(for_features * mixed, dim=1, keepdim=True, out=for_sums).neg_()
        grad_value = values.new_empty(len(values), mixed.shape[1], values.shape[2])
        grads = [part.new_empty(part.shape) for part in parts]
        scores = _Scores(parts, penalty, ctx.scale * _LOG2_E, ctx.n_heads)
        buffer = torch.empty_like(scores.buffer)
        for rows, weights in _powers(scores, shift):
            grad_out, grad_scores = grad_mixed[rows], buffer[: len(weights)]
            torch.bmm(grad_out[:, :-1], weights, out=grad_value[rows])
            torch.bmm(grad_out.mT, values[rows], out=grad_scores)
            grad_scores *= weights
            for query, key, grad_query, grad_key in zip(
                *_halves(parts), *_halves(grads), strict=True
            ):
                _product(ctx.scale, key[rows], grad_scores.mT, out=grad_query[rows])
                _product(ctx.scale, query[rows], grad_scores, out=grad_key[rows])
        heads = (-1, ctx.n_heads)
        return None, None, *(g.unflatten(0, heads).mT for g in (grad_value, *grads))


def _softmax_attention(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    value: Tensor,
    penalty: Tensor | None,
    scale: float,
) -> Tensor:
    """Attend without a gradient; the result for a sequence is the same bit for bit in any company.

    That is not so of powers of two, which are taken over all rows in one go: where
    a row lies decides which of its entries are done one at a time, by other instructions.
    """
    parts = [_rows(part) for part in (*queries, *keys)]
    values = _rows(value)
    mixed = value.new_empty(*values.shape[:2], queries[0].shape[2])  # (B N, V, L)
    for rows, scores in _Scores(parts, penalty, scale, value.shape[1]):
        weights = torch.softmax(scores, dim=-1, out=scores)
        torch.bmm(values[rows], weights.mT, out=mixed[rows])
    return mixed.unflatten(0, value.shape[:2]).mT


class _Scores:
    """Gives ``scale query key' + penalty`` a chunk at a time, all in one buffer.

    What is iterated over is the rows of a chunk, heads of sequences, and their
    scores of shape (rows, L, S), free to be overwritten.
    """

    def __init__(
        self, parts: Sequence[Tensor], penalty: Tensor | None, scale: float, n_heads: int
    ) -> None:
        self.queries, self.keys = _halves(parts)
        self.penalty, self.scale, self.n_heads = penalty, scale, n_heads
        n_rows, n_queries, n_keys = len(parts[0]), self.queries[0].shape[2], self.keys[0].shape[2]
        per_sequence = n_heads * n_queries * n_keys * parts[0].element_size()
        # Whole sequences, because that is how penalties are shared.
        step = max(_CHUNK_BYTES // per_sequence, 1) * n_heads
        self.chunks = [slice(start, start + step) for start in range(0, n_rows, step)]
        self.buffer = parts[0].new_empty(min(step, n_rows), n_queries, n_keys)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for rows in self.chunks:
            query, key = _side_by_side(self.queries, rows), _side_by_side(self.keys, rows)
            scores = self.buffer[: len(query)]
            _product(self.scale, query.mT, key, out=scores)
            if self.penalty is not None:
                by_sequence = scores.unflatten(0, (-1, self.n_heads))
                by_sequence += self.penalty[rows.start // self.n_heads :][: len(by_sequence)]
            yield rows, scores

    def largest(self) -> Tensor:
        """Find the largest score of every query, (B N, L, 1)."""
        return torch.cat([scores.amax(-1, keepdim=True) for _, scores in self])


def _powers(scores: _Scores, shift: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Give the weights before their division by their sum, ``2 ** (score - shift)``."""
    for rows, chunk in scores:
        if shift is not None:
            chunk -= shift[rows]
        yield rows, torch.exp2(chunk, out=chunk)


def _mix(scores: _Scores, values: Tensor, shift: Tensor | None) -> Tensor:
    """Mix features by their powers, (B N, V + 1, S) to (B N, V + 1, L)."""
    mixed = values.new_empty(*values.shape[:2], scores.buffer.shape[1])
    for rows, weights in _powers(scores, shift):
        torch.bmm(values[rows], weights.mT, out=mixed[rows])
    return mixed


def _side_by_side(parts: Sequence[Tensor], rows: slice) -> Tensor:
    """Lay the features of several queries or keys one after the other, for a few rows only."""
    return parts[0][rows] if len(parts) == 1 else torch.cat([part[rows] for part in parts], dim=1)


def _product(scale: float, left: Tensor, right: Tensor, *, out: Tensor) -> None:
    """Compute ``scale left right``; with beta=0 it does not matter what ``out`` held."""
    torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)


def _all_within(numbers: Tensor, least: float, most: float) -> bool:
    """Whether all lie between the two; not a number is nowhere."""
    lowest, highest = numbers.aminmax()
    return bool((lowest > least) & (highest < most))


def _halves(parts: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Divide into queries and keys."""
    return parts[: len(parts) // 2], parts[len(parts) // 2 :]


def _rows(part: Tensor) -> Tensor:
    """Lay (B, N, any, width) out as (B N, width, any), copied where it does not lie like that."""
    return part.mT.flatten(0, 1)
