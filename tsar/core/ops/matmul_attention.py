"""Softmax attention for many short sequences with small heads, on a CPU.

What is slow about these is not the arithmetic but its shape: products of matrices a few
numbers wide, passes over rows a few dozen numbers long, and scores that travel to memory and
back between steps. Hence:

- queries, keys and values are packed with the token axis last, so every product has a long
  contiguous axis;
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

__all__ = ["matmul_attention", "pack_heads"]

# Scores of so many sequences at a time: small enough for the cache of a core or two.
_CHUNK_BYTES = 2**22
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


def pack_heads(heads: Tensor) -> tuple[Tensor, ...]:
    """Take (B, L, any, N, E) apart into (B, N, L, E), laid out in memory as the products want.

    Each part is turned around once, however many layers use it, and so is its gradient.
    """
    return _PackHeads.apply(heads)


class _PackHeads(torch.autograd.Function):
    """A transposition whose gradient is one pass."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.permute(0, 2, 3, 1).contiguous().mT for part in heads.unbind(2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        batch, n_heads, length, width = grads[0].shape
        heads = grads[0].new_empty(batch, length, len(grads), n_heads, width)
        for part, grad in zip(heads.unbind(2), grads, strict=True):
            part.copy_(grad.transpose(1, 2))
        return heads


class _MatmulAttention(torch.autograd.Function):
    """The packed form and its gradient, both in chunks of sequences."""

    @staticmethod
    def forward(
        ctx: Any,
        scale: float,
        penalty: Tensor | None,  # (B, N, 1 or L, S)
        value: Tensor,  # (B, N, S, V)
        *parts: Tensor,  # as many queries (B, N, L, any) as keys (B, N, S, any)
    ) -> Tensor:
        queries, keys = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        query, key = _pack(queries), _pack(keys)  # (B, N, E, L), (B, N, E, S)
        values = value.new_ones(*value.shape[:2], value.shape[3] + 1, value.shape[2])
        values[:, :, :-1] = value.mT  # (B, N, V + 1, S)
        scores = _Scores(query, key, penalty, scale * _LOG2_E)
        shift = None
        mixed, total = _mix(scores, values, shift)  # (B, N, V, L), (B, N, 1, L)
        regular = (total > _LEAST) & (total < _MOST)
        if not regular.all():
            shift = scores.largest().masked_fill_(regular.flatten(0, 1).mT, 0.0)
            mixed, total = _mix(scores, values, shift)
        mixed /= total
        ctx.save_for_backward(query, key, values, penalty, shift, mixed, total)
        ctx.scale, ctx.widths = scale, [part.shape[-1] for part in queries]
        return mixed.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, values, penalty, shift, mixed, total = ctx.saved_tensors
        # The gradient of the sums stands beside that of the features, as the 1 does.
        grad_mixed = values.new_empty(*values.shape[:3], mixed.shape[3])  # (B, N, V + 1, L)
        for_features, for_sums = grad_mixed[:, :, :-1], grad_mixed[:, :, -1:]
        torch.div(grad.mT, total, out=for_features)
        torch.sum(for_features * mixed, dim=2, keepdim=True, out=for_sums).neg_()
        grad_query, grad_key = torch.empty_like(query), torch.empty_like(key)
        grad_value = torch.empty_like(values[:, :, :-1], memory_format=torch.contiguous_format)
        scores = _Scores(query, key, penalty, ctx.scale * _LOG2_E)
        buffer = torch.empty_like(scores.buffer)
        tensors = (query, key, values, grad_mixed, grad_query, grad_key, grad_value)
        for rows, weights in _powers(scores, shift):
            q, k, v, grad_out, grad_q, grad_k, grad_v = (t.flatten(0, 1)[rows] for t in tensors)
            grad_scores = buffer[: len(weights)]
            torch.bmm(grad_out[:, :-1], weights, out=grad_v)
            torch.bmm(grad_out.mT, v, out=grad_scores)
            grad_scores *= weights
            _product(ctx.scale, k, grad_scores.mT, out=grad_q)
            _product(ctx.scale, q, grad_scores, out=grad_k)
        return (
            None,
            None,
            grad_value.mT,
            *grad_query.mT.split(ctx.widths, dim=-1),
            *grad_key.mT.split(ctx.widths, dim=-1),
        )


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
    query, key, values = _pack(queries), _pack(keys), _pack([value])
    mixed = value.new_empty(*value.shape[:2], value.shape[3], query.shape[3])  # (B, N, V, L)
    for rows, scores in _Scores(query, key, penalty, scale):
        weights = torch.softmax(scores, dim=-1, out=scores)
        torch.bmm(values.flatten(0, 1)[rows], weights.mT, out=mixed.flatten(0, 1)[rows])
    return mixed.mT


class _Scores:
    """Gives ``scale query key' + penalty`` a chunk at a time, all in one buffer.

    What is iterated over is the rows of a chunk, heads of sequences, and their
    scores of shape (rows, L, S), free to be overwritten.
    """

    def __init__(self, query: Tensor, key: Tensor, penalty: Tensor | None, scale: float) -> None:
        _, self.n_heads, _, n_queries = query.shape
        self.query, self.key = query.flatten(0, 1), key.flatten(0, 1)
        self.penalty, self.scale = penalty, scale
        per_sequence = self.n_heads * n_queries * key.shape[3] * query.element_size()
        # Whole sequences, because that is how penalties are shared.
        self.rows = max(_CHUNK_BYTES // per_sequence, 1) * self.n_heads
        self.buffer = query.new_empty(min(self.rows, len(self.query)), n_queries, key.shape[3])

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(self.query), self.rows):
            rows = slice(start, start + self.rows)
            query = self.query[rows]
            scores = self.buffer[: len(query)]
            _product(self.scale, query.mT, self.key[rows], out=scores)
            if self.penalty is not None:
                by_sequence = scores.unflatten(0, (-1, self.n_heads))
                by_sequence += self.penalty[start // self.n_heads :][: len(by_sequence)]
            yield rows, scores

    def largest(self) -> Tensor:
        """Find the largest score of every query."""
        return torch.cat([scores.amax(-1, keepdim=True) for _, scores in self])


def _powers(scores: _Scores, shift: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Give the weights before their division by their sum, ``2 ** (score - shift)``."""
    for rows, chunk in scores:
        if shift is not None:
            chunk -= shift[rows]
        yield rows, torch.exp2(chunk, out=chunk)


def _mix(scores: _Scores, values: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mix features by their powers, and sum the powers up."""
    mixed = values.new_empty(*values.shape[:3], scores.query.shape[2])
    for rows, weights in _powers(scores, shift):
        torch.bmm(values.flatten(0, 1)[rows], weights.mT, out=mixed.flatten(0, 1)[rows])
    return mixed[:, :, :-1], mixed[:, :, -1:]


def _product(scale: float, left: Tensor, right: Tensor, *, out: Tensor) -> Tensor:
    """Compute ``scale left right``; with beta=0 it does not matter what ``out`` held."""
    return torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)


def _pack(parts: Sequence[Tensor]) -> Tensor:
    """Lay (B, N, any, width) side by side as contiguous (B, N, widths, any)."""
    if len(parts) == 1:
        return parts[0].mT.contiguous()
    return torch.cat([part.mT for part in parts], dim=2)
