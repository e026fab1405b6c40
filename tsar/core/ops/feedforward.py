"""Two linear maps with a GELU and dropout between them: the plain form and the fast one."""

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
    mask = None
    if dropout is not None and dropout.active:
        # One row per token, whichever form uses it.
        mask = dropout.draw(torch.Size((x.shape[:-1].numel(), len(weight_in))), x.device)
    if backend == "chunked":
        weights = (weight_in, bias_in, weight_out, bias_out)
        return _ChunkedFeedForward.apply(x, *weights, mask)
    hidden = F.gelu(F.linear(x, weight_in, bias_in))
    if mask is not None:
        ones = mask.ones(torch.empty_like(hidden).view(mask.lanes.shape))
        hidden = hidden * ones.view_as(hidden) * mask.factor
    return F.linear(hidden, weight_out, bias_out)


def pick_backend(x: Tensor, weight_in: Tensor) -> str:
    """Choose the form for these shapes, the only place where that is decided.

    On a CPU the chunked form in full precision is faster than the plain one in
    half precision, so autocast does not change the choice.
    """
    n_hidden = x.numel() // max(x.shape[-1], 1) * len(weight_in)
    full = x.dtype in (torch.float32, torch.float64)
    large = n_hidden * x.element_size() > _CHUNK_BYTES
    return "chunked" if x.device.type == "cpu" and full and large else "reference"


class _ChunkedFeedForward(torch.autograd.Function):
    """The whole chain over a few tokens at a time, done again for the gradient.

    The hidden activations are the largest tensors of a block. Here they never
    leave the cache: what is remembered is the input and a byte per activation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_in: Tensor,
        bias_in: Tensor,
        weight_out: Tensor,
        bias_out: Tensor,
        mask: KeepMask | None,
    ) -> Tensor:
        tokens = x.flatten(0, -2)
        y = tokens.new_empty(len(tokens), len(weight_out))
        scaled_out = weight_out if mask is None else weight_out * mask.factor
        chunks = _chunks(len(tokens), len(weight_in) * x.element_size())
        buffers = _buffers(tokens, len(weight_in), chunks, 2)
        for part in chunks:
            hidden, ones = (buffer[: part.stop - part.start] for buffer in buffers)
            torch.addmm(bias_in, tokens[part], weight_in.t(), out=hidden)
            torch.ops.aten.gelu.out(hidden, out=hidden)
            if mask is not None:
                hidden *= mask.ones(ones, part)
            torch.addmm(bias_out, hidden, scaled_out.t(), out=y[part])
        lanes = None if mask is None else mask.lanes
        ctx.save_for_backward(x, weight_in, bias_in, weight_out, lanes)
        ctx.mask = None if mask is None else (mask.bound, mask.factor)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_in, bias_in, weight_out, lanes = ctx.saved_tensors
        mask = None if lanes is None else KeepMask(lanes, *ctx.mask)
        scaled_out = weight_out if mask is None else weight_out * mask.factor
        tokens, grad_y = x.flatten(0, -2), grad.reshape(-1, grad.shape[-1])
        grad_x = torch.empty_like(tokens)
        grad_in, grad_out = torch.zeros_like(weight_in), torch.zeros_like(weight_out)
        grad_bias = torch.zeros_like(bias_in)
        chunks = _chunks(len(tokens), len(weight_in) * x.element_size())
        buffers = _buffers(tokens, len(weight_in), chunks, 4)
        for part in chunks:
            before, hidden, grad_hidden, ones = (b[: part.stop - part.start] for b in buffers)
            torch.addmm(bias_in, tokens[part], weight_in.t(), out=before)
            torch.ops.aten.gelu.out(before, out=hidden)
            torch.mm(grad_y[part], scaled_out, out=grad_hidden)
            if mask is not None:
                mask.ones(ones, part)
                hidden *= ones
                grad_hidden *= ones
            grad_out.addmm_(grad_y[part].t(), hidden)
            torch.ops.aten.gelu_backward.grad_input(grad_hidden, before, grad_input=grad_hidden)
            grad_in.addmm_(grad_hidden.t(), tokens[part])
            grad_bias += grad_hidden.sum(dim=0)
            torch.mm(grad_hidden, weight_in, out=grad_x[part])
        if mask is not None:
            grad_out *= mask.factor
        return grad_x.view_as(x), grad_in, grad_bias, grad_out, grad_y.sum(dim=0), None


def _chunks(n_tokens: int, bytes_per_token: int) -> list[slice]:
    step = max(_CHUNK_BYTES // bytes_per_token, 1)
    return [slice(start, min(start + step, n_tokens)) for start in range(0, n_tokens, step)]


def _buffers(tokens: Tensor, d_ff: int, chunks: list[slice], n: int) -> list[Tensor]:
    """Room for the hidden activations of one chunk, ``n`` times, used by all chunks in turn."""
    longest = chunks[0].stop if chunks else 0
    return [tokens.new_empty(longest, d_ff) for _ in range(n)]
