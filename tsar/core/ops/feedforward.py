"""Two linear maps with a GELU and dropout between them: the plain form and the fast one."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tsar.core.dropout import Dropout, KeepMask
from tsar.params import check_choice

__all__ = ["BACKENDS", "feedforward", "pick_backend"]

BACKENDS = ("reference", "chunked")

# Hidden activations of so many tokens at a time: small enough to stay in the cache.
_CHUNK_BYTES = 2**21


def feedforward(
    x: Tensor,
    weight_in: Tensor,
    bias_in: Tensor,
    weight_out: Tensor,
    bias_out: Tensor,
    *,
    dropout: Dropout | None = None,
    backend: str | None = None,
) -> Tensor:
    """``drop(gelu(x weight_in' + bias_in)) weight_out' + bias_out`` for every token.

    Parameters
    ----------
    x : Tensor of shape (..., D)
    weight_in, bias_in : Tensor of shape (F, D) and (F,)
    weight_out, bias_out : Tensor of shape (D, F) and (D,)
    dropout : Dropout, optional
        Of the hidden activations.
    backend : {"reference", "chunked"}, optional
        Forces a form; :func:`pick_backend` chooses otherwise. Both draw the
        same dropout mask.

    Returns
    -------
    Tensor of shape (..., D)

    Raises
    ------
    ParameterError
        If there is no such form.
    """
    backend = pick_backend(x, weight_in) if backend is None else backend
    check_choice("feedforward", "backend", backend, BACKENDS)
    shape = torch.Size((*x.shape[:-1], len(weight_in)))
    drops = dropout is not None and dropout.active
    keep = dropout.draw(shape, x.device) if drops else None
    if backend == "chunked":
        flat = x.flatten(0, -2)
        weights = (weight_in, bias_in, weight_out, bias_out)
        return _ChunkedFeedForward.apply(flat, *weights, keep).view_as(x)
    hidden = F.gelu(F.linear(x, weight_in, bias_in))
    if keep is not None:
        hidden = hidden * keep.scaled(hidden.dtype)
    return F.linear(hidden, weight_out, bias_out)
