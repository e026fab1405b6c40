"""Softmax attention over a handful of keys, for training on a CPU.

A row of scores is then shorter than a vector register, and what takes long is not the products
but the passes over such rows. Here the keys are the first axis of the scores, so that every pass
but the products runs along all queries of all sequences.

Letters: B batch, N heads, M = B N, L queries, S keys, E width of a query or key, V width of a
value.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsar.core.dropout import KeepMask

__all__ = ["short_attention"]


def short_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    penalty: Tensor | None,
    scale: float,
    dropped: KeepMask | None = None,
) -> Tensor:
    """Compute ``drop(softmax(scale * query key' + penalty)) value``.

    Parameters
    ----------
    query : Tensor of shape (B, N, L, E)
    key : Tensor of shape (B, N, S, E)
    value : Tensor of shape (B, N, S, V)
    penalty : Tensor broadcastable to (B, N, L, S), optional
    scale : float
    dropped : KeepMask of shape (B, N, L, S), optional
        Which of the weights stay.

    Returns
    -------
    Tensor of shape (B, N, L, V)
    """
    if value.dtype in (torch.bfloat16, torch.float16):
        # Products this small take longer in half precision than in full.
        query, key, value = query.float(), key.float(), value.float()
    parts = (dropped.lanes, dropped.bound, dropped.factor) if dropped is not None else (None, 0, 1)
    # Autocast would turn the products back into half precision, and not those of the gradient.
    with torch.autocast(value.device.type, enabled=False):
        mixed: Tensor = _ShortAttention.apply(query, key, value, penalty, scale, *parts)
    return mixed


class _ShortAttention(torch.autograd.Function):
    """The formula with keys first, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        penalty: Tensor | None,
        scale: float,
        lanes: Tensor | None,
        bound: int,
        factor: float,
    ) -> Tensor:
        batch, n_heads, n_queries, _ = query.shape
        n_keys = key.shape[2]
        queries, keys, values = (t.flatten(0, 1) for t in (query, key, value))  # (M, any, any)
        weights = query.new_empty(n_keys, batch, n_heads, n_queries)
        scores = weights.flatten(1, 2)  # (S, M, L)
        scores.copy_(_product(keys, queries.mT, scale).transpose(0, 1))
        if penalty is not None:
            weights += penalty.permute(3, 0, 1, 2)
        scores -= scores.amax(dim=0)
        scores.exp_()
        scores /= scores.sum(dim=0)
        factors = None
        if lanes is not None:
            factors = torch.lt(lanes.permute(3, 0, 1, 2), bound, out=torch.empty_like(weights))
            factors = factors.mul_(factor).flatten(1, 2)
        mixed = torch.bmm(_kept(scores, factors).permute(1, 2, 0), values)
        ctx.save_for_backward(queries, keys, values, scores, factors)
        ctx.scale, ctx.heads = scale, (batch, n_heads)
        return mixed.unflatten(0, ctx.heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, weights, factors = ctx.saved_tensors
        grad = grad.flatten(0, 1)  # (M, L, V)
        grad_values = torch.bmm(_kept(weights, factors).transpose(0, 1), grad)
        grad_scores = torch.empty_like(weights)
        grad_scores.copy_(torch.bmm(values, grad.mT).transpose(0, 1))
        if factors is not None:
            grad_scores *= factors
        grad_scores *= weights
        grad_scores.addcmul_(weights, grad_scores.sum(dim=0), value=-1)
        grad_queries = _product(grad_scores.permute(1, 2, 0), keys, ctx.scale)
        grad_keys = _product(grad_scores.transpose(0, 1), queries, ctx.scale)
        grads = (g.unflatten(0, ctx.heads) for g in (grad_queries, grad_keys, grad_values))
        return (*grads, None, None, None, None, None)


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Compute ``scale * a b`` for matrices (M, any, any)."""
    return torch.baddbmm(a.new_zeros(()), a, b, beta=0, alpha=scale)


def _kept(weights: Tensor, factors: Tensor | None) -> Tensor:
    return weights if factors is None else weights * factors
