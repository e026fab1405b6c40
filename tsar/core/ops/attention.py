"""Softmax attention: the plain reference, the faster kernels, and who picks one.

Letters: B batch, N heads, L queries, S keys, E size of a query or key, V size of a value.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tsar.core.dropout import Dropout
from tsar.exceptions import ParameterError
from tsar.params import check_choice

__all__ = ["BACKENDS", "attention", "pick_backend"]

BACKENDS = ("reference", "matmul", "sdpa")

# Scores of so many sequences at a time: small enough for the cache of a core or two.
_CHUNK_BYTES = 2**21
# Largest L * S for which batched products beat the fused kernel on a CPU.
_SMALL_SCORES = 128 * 128


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: Dropout | None = None,
    backend: str | None = None,
) -> Tensor:
    """Scaled dot-product attention, ``softmax(scale * query key') value``.

    Parameters
    ----------
    query : Tensor of shape (B, N, L, E)
    key : Tensor of shape (B, N, S, E)
    value : Tensor of shape (B, N, S, V)
    mask : bool Tensor, optional
        True where a query may attend: (B, S) for keys, (B, L, S) for pairs, or
        four axes broadcastable to (B, N, L, S). A query that may attend to
        nothing attends evenly to everything, so the result stays finite.
    causal : bool, default False
        A query sees the keys up to its own position, the last query being
        level with the last key.
    scale : float, optional
        ``E ** -0.5`` by default.
    dropout : Dropout, optional
        Applied to the weights.
    backend : {"reference", "matmul", "sdpa"}, optional
        Forces a kernel; :func:`pick_backend` chooses otherwise.

    Returns
    -------
    Tensor of shape (B, N, L, V)

    Raises
    ------
    ParameterError
        If the forced kernel does not exist or cannot drop weights.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, eq. 1.
    """
    drop = dropout if dropout is not None and dropout.active else None
    if backend is None:
        backend = pick_backend(query, key, value, drops=drop is not None)
    check_choice("attention", "backend", backend, BACKENDS)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    mask = _full_mask(mask, causal, query, key)
    if backend == "reference":
        return _reference(query, key, value, mask, scale, drop)
    if drop is not None:
        raise ParameterError(
            f"attention: backend={backend!r} cannot drop weights; use backend='reference'"
        )
    if backend == "matmul":
        return _matmul(query, key, value, mask, scale)
    return F.scaled_dot_product_attention(query, key, value, _additive(mask, query), scale=scale)


def pick_backend(query: Tensor, key: Tensor, value: Tensor, *, drops: bool = False) -> str:
    """Choose the kernel for these shapes, the only place where that is decided."""
    if drops:
        return "reference"
    if query.device.type == "cpu" and query.shape[-2] * key.shape[-2] <= _SMALL_SCORES:
        return "matmul"
    return "sdpa"


def _full_mask(mask: Tensor | None, causal: bool, query: Tensor, key: Tensor) -> Tensor | None:
    """Bring a mask to four axes and join it with the causal triangle."""
    if mask is not None:
        if mask.ndim == 2:
            mask = mask[:, None, None, :]
        elif mask.ndim == 3:
            mask = mask[:, None]
    if not causal:
        return mask
    n_queries, n_keys = query.shape[-2], key.shape[-2]
    triangle = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device)
    triangle = triangle.tril(n_keys - n_queries)
    return triangle[None, None] if mask is None else mask & triangle


def _reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    dropout: Dropout | None,
) -> Tensor:
    """The formula as it is written."""
    scores = scale * query @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores + _additive(mask, query)
    weights = scores.softmax(dim=-1)
    if dropout is not None:
        weights = dropout(weights)
    return weights @ value


def _additive(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """Turn a mask into a penalty, finite because an infinite one gives NaN in an empty row."""
    if mask is None:
        return None
    # Half of the lowest number: it absorbs any score, and no score takes it past the end.
    lowest = torch.finfo(query.dtype).min / 2
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, lowest)


def _matmul(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Batched matrix products over a few sequences at a time, whose scores stay in the cache."""
    if query.dtype in (torch.bfloat16, torch.float16):
        # Products this small take longer in half precision than in full.
        query, key, value = query.float(), key.float(), value.float()
    penalty = _additive(mask, query)
    if penalty is not None:
        penalty = penalty.expand(len(query), *penalty.shape[1:])
    columns = (part.transpose(-1, -2) for part in (query, key, value))
    return _MatmulAttention.apply(*columns, penalty, scale).transpose(-1, -2)


class _MatmulAttention(torch.autograd.Function):
    """Attention with its gradient, written out so that every product has a shape that is fast.

    With queries, keys and values of shape (B, N, E, L), token axis last, each
    product of a small head has a long contiguous axis. Of what is as large as
    the scores only the weights are kept for the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,  # (B, N, E, L)
        key: Tensor,  # (B, N, E, S)
        value: Tensor,  # (B, N, V, S)
        penalty: Tensor | None,  # (B, 1 or N, 1 or L, S)
        scale: float,
    ) -> Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        keep = any(ctx.needs_input_grad)
        shape = (*query.shape[:2], query.shape[3], key.shape[3])  # (B, N, L, S)
        chunks = _chunks(shape, query.element_size())
        kept = query.new_empty(shape if keep else (len(range(shape[0])[chunks[0]]), *shape[1:]))
        mixed = value.new_empty(*value.shape[:3], query.shape[3])  # (B, N, V, L)
        for part in chunks:
            weights = kept[part] if keep else kept[: part.stop - part.start]
            flat = weights.flatten(0, 1)
            rows = query[part].flatten(0, 1).transpose(1, 2)
            torch.baddbmm(flat, rows, key[part].flatten(0, 1), beta=0, alpha=scale, out=flat)
            if penalty is not None:
                weights += penalty[part]
            torch.softmax(flat, dim=-1, out=flat)
            columns = flat.transpose(1, 2)
            torch.bmm(value[part].flatten(0, 1), columns, out=mixed[part].flatten(0, 1))
        if keep:
            ctx.save_for_backward(query, key, value, kept)
            ctx.scale = scale
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, kept = ctx.saved_tensors
        grad = grad.contiguous()  # (B, N, V, L)
        grads = [torch.empty_like(part) for part in (query, key, value)]
        for part in _chunks(kept.shape, kept.element_size()):
            weights, grad_mixed = kept[part].flatten(0, 1), grad[part].flatten(0, 1)
            q, k, v = (full[part].flatten(0, 1) for full in (query, key, value))
            grad_q, grad_k, grad_v = (full[part].flatten(0, 1) for full in grads)
            torch.bmm(grad_mixed, weights, out=grad_v)
            grad_scores = torch.bmm(grad_mixed.transpose(1, 2), v)
            torch.ops.aten._softmax_backward_data.out(
                grad_scores, weights, -1, weights.dtype, grad_input=grad_scores
            )
            columns = grad_scores.transpose(1, 2)
            torch.baddbmm(grad_q, k, columns, beta=0, alpha=ctx.scale, out=grad_q)
            torch.baddbmm(grad_k, q, grad_scores, beta=0, alpha=ctx.scale, out=grad_k)
        return (*grads, None, None)


def _chunks(shape: Sequence[int], itemsize: int) -> list[slice]:
    """Cut the first axis so that each part of a tensor of that shape fits into the cache."""
    per_sequence = math.prod(shape[1:]) * itemsize
    step = max(_CHUNK_BYTES // max(per_sequence, 1), 1)
    return [slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]
