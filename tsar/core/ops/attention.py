"""Softmax attention: the plain reference, the faster kernels, and who picks one.

Letters: B batch, N heads, L queries, S keys, E size of a query or key, V size of a value.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.dropout import Dropout
from tsar.exceptions import ParameterError
from tsar.params import check_choice

__all__ = ["BACKENDS", "attention", "pick_backend"]

BACKENDS = ("reference", "matmul", "sdpa")


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
    return "reference"


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
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    if dropout is not None:
        weights = dropout(weights)
    return weights @ value


def _additive(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """Turn a mask into a finite penalty: an infinite one gives NaN in an empty row."""
    if mask is None:
        return None
    penalty = torch.zeros(mask.shape, dtype=query.dtype, device=query.device)
    return penalty.masked_fill_(~mask, torch.finfo(query.dtype).min)


def _matmul(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    return _reference(query, key, value, mask, scale, None)
