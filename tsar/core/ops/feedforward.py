"""Two linear maps with a GELU and dropout between them: the plain form and the fast one."""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tsar.core.dropout import Dropout, KeepMask
from tsar.core.ops.even_products import linear
from tsar.core.tracing import is_traced
from tsar.params.constraints import check_choice

__all__ = ["BACKENDS", "feedforward", "pick_backend"]

BACKENDS = ("reference", "chunked")

# Hidden activations of a chunk: small enough for the cache, large enough that cores seldom wait.
_CHUNK_BYTES = 2**22
# Added where an activation is dropped: so low that it absorbs any number.
_FAR_BELOW = -1e30
# Tokens wider than this make computing the hidden activations again dearer than remembering them.
_WIDEST = 64
# Tokens in a group, one product of a batched product.
_GROUP = 256


def feedforward(
    x: Tensor,
    weight_in: Tensor,
    bias_in: Tensor | None,
    weight_out: Tensor,
    bias_out: Tensor | None,
    *,
    dropout: Dropout | None = None,
    backend: str | None = None,
) -> Tensor:
    """``drop(gelu(x weight_in' + bias_in)) weight_out' + bias_out`` for every token.

    Parameters
    ----------
    x : Tensor of shape (..., D)
    weight_in, bias_in : Tensor of shape (F, D) and (F,)
        The bias may be None, here and below.
    weight_out, bias_out : Tensor of shape (D, F) and (D,)
    dropout : Dropout, optional
        Of the hidden activations.
    backend : {"reference", "chunked"}, optional
        Forces a form; :func:`pick_backend` chooses otherwise, and while torch
        traces. Both draw the same dropout mask.

    Returns
    -------
    Tensor of shape (..., D)

    Raises
    ------
    ParameterError
        If there is no such form.
    """
    if backend is not None:
        check_choice("feedforward", "backend", backend, BACKENDS)
    if backend is None or is_traced():
        backend = pick_backend(x, weight_in)
    mask = None
    if dropout is not None and dropout.active:
        # One row per token, whichever form uses it.
        mask = dropout.draw(torch.Size((x.shape[:-1].numel(), len(weight_in))), x.device)
    if backend == "chunked":
        zeros = weight_in.new_zeros(len(weight_in)), weight_out.new_zeros(len(weight_out))
        bias_in, bias_out = (
            zero if bias is None else bias
            for zero, bias in zip(zeros, (bias_in, bias_out), strict=True)
        )
        return _ChunkedFeedForward.apply(x, weight_in, bias_in, weight_out, bias_out, mask)
    hidden = F.gelu(linear(x, weight_in, bias_in))
    if mask is not None:
        ones = mask.ones(torch.empty_like(hidden).view(mask.lanes.shape))
        hidden, weight_out = hidden * ones.view_as(hidden), weight_out * mask.factor
    return linear(hidden, weight_out, bias_out)


def pick_backend(x: Tensor, weight_in: Tensor) -> str:
    """Choose the form for these shapes, the only place where that is decided.

    Chunks are for training: the form that forecasts does not depend on how many
    tokens there are, so that a forecast is the same bit for bit whatever else
    is forecast beside it. On a CPU the chunked form in full precision is faster
    than the plain one in half precision, so autocast changes nothing.
    """
    n_hidden = x.numel() // max(x.shape[-1], 1) * len(weight_in)
    chunked = (
        torch.is_grad_enabled()
        and not is_traced()
        and x.shape[-1] <= _WIDEST
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and n_hidden * x.element_size() > _CHUNK_BYTES
    )
    return "chunked" if chunked else "reference"


class _ChunkedFeedForward(torch.autograd.Function):
    """The whole chain over a few tokens at a time, done again for the gradient.

    The hidden activations are the largest tensors of a block. Here they never
    leave the cache: what is remembered is the input and a byte per activation.
    Products are batched over groups of tokens, because a batch is divided
    among cores as an elementwise step is: what a core reads, it wrote itself.
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
        factor, bound, lanes = (
            (1.0, 0, None) if mask is None else (mask.factor, mask.bound, mask.lanes)
        )
        tokens = x.flatten(0, -2)
        y = tokens.new_empty(len(tokens), len(weight_out))
        # A second matrix read column by column would take twice as long.
        matrix_in, matrix_out = weight_in.t(), (weight_out * factor).t().contiguous()
        chunks = _Chunks(tokens, len(weight_in), 1)
        for token, out, lane in chunks.split(tokens, y, lanes):
            (hidden,) = chunks.buffers(token)
            _before(token, matrix_in, bias_in, lane, bound, hidden)
            torch.ops.aten.gelu.out(hidden, out=hidden)
            torch.baddbmm(bias_out, hidden, matrix_out.expand(len(token), -1, -1), out=out)
        ctx.save_for_backward(x, weight_in, bias_in, weight_out, lanes)
        ctx.factor, ctx.bound = factor, bound
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_in, bias_in, weight_out, lanes = ctx.saved_tensors
        tokens, grad_y = x.flatten(0, -2), grad.reshape(-1, grad.shape[-1])
        grad_x = torch.empty_like(tokens)
        matrix_in, scaled_out = weight_in.t(), weight_out * ctx.factor
        chunks = _Chunks(tokens, len(weight_in), 3)
        # One sum per place in a chunk, added up at the end.
        grad_in = tokens.new_zeros(chunks.n_groups, *weight_in.shape)
        grad_bias = tokens.new_zeros(chunks.n_groups, len(weight_in))
        grad_out = tokens.new_zeros(chunks.n_groups, *weight_out.shape)
        for token, grad_token, out, lane in chunks.split(tokens, grad_y, grad_x, lanes):
            n = len(token)
            before, hidden, grad_hidden = chunks.buffers(token)
            _before(token, matrix_in, bias_in, lane, ctx.bound, before)
            torch.ops.aten.gelu.out(before, out=hidden)
            torch.bmm(grad_token, scaled_out.expand(n, -1, -1), out=grad_hidden)
            grad_out[:n].baddbmm_(grad_token.mT, hidden)
            torch.ops.aten.gelu_backward.grad_input(grad_hidden, before, grad_input=grad_hidden)
            grad_in[:n].baddbmm_(grad_hidden.mT, token)
            grad_bias[:n] += grad_hidden.sum(dim=1)
            torch.bmm(grad_hidden, weight_in.expand(n, -1, -1), out=out)
        grads = grad_in.sum(0), grad_bias.sum(0), grad_out.sum(0).mul_(ctx.factor)
        return grad_x.view_as(x), *grads, grad_y.sum(dim=0), None


def _before(
    token: Tensor, matrix: Tensor, bias: Tensor, lane: Tensor | None, bound: int, out: Tensor
) -> None:
    """Compute what goes into the GELU, so far below 0 where it is dropped that nothing is left.

    There the GELU and its slope are both 0, so no other step has to know the mask.
    """
    matrix = matrix.expand(len(token), -1, -1)
    if lane is None:
        torch.baddbmm(bias, token, matrix, out=out)
    else:
        torch.ge(lane, bound, out=out)
        torch.add(bias, out, alpha=_FAR_BELOW, out=out).baddbmm_(token, matrix)


class _Chunks:
    """Cuts tokens into chunks of groups, (groups, tokens, any), with room for activations."""

    def __init__(self, tokens: Tensor, d_ff: int, n_buffers: int) -> None:
        per_chunk = max(_CHUNK_BYTES // (d_ff * tokens.element_size()), 1)
        self.n_groups = max(per_chunk // _GROUP, 1)
        self.rows = self.n_groups * min(per_chunk, _GROUP)
        self.room = tokens.new_empty(n_buffers, min(self.rows, len(tokens)), d_ff)

    def split(self, *tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
        """Cut tensors of one row per token side by side; None stays None."""
        cut = [repeat(None) if t is None else t.split(self.rows) for t in tensors]
        for parts in zip(*cut, strict=False):
            # What is left over at the end need not divide into groups.
            n = self.n_groups if len(parts[0]) == self.rows else 1
            yield tuple(None if p is None else p.unflatten(0, (n, -1)) for p in parts)

    def buffers(self, token: Tensor) -> Iterator[Tensor]:
        """Give the room for the activations of a chunk, once per buffer."""
        n, group, _ = token.shape
        return iter(self.room[:, : n * group].unflatten(1, (n, group)))
