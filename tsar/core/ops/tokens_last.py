"""Linear maps to and from tensors whose last axis is the token, for many short sequences.

Products of small heads want the token axis last. To turn tensors around takes passes over memory,
for values and again for gradients; a product of matrices reads either way at no cost. So the linear
maps before and after turn them, with one small product per sequence.

Letters: B batch, L tokens, D and F widths of a token.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["from_tokens_last", "to_tokens_last"]


def to_tokens_last(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Map (B, L, D) to ``x weight' + bias`` of shape (B, F, L), with a weight of shape (F, D)."""
    return _ToTokensLast.apply(x, weight, bias)


def from_tokens_last(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Map (B, D, L) to ``x' weight' + bias`` of shape (B, L, F), with a weight of shape (F, D)."""
    return _FromTokensLast.apply(x, weight, bias)


class _ToTokensLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias[:, None], weight.expand(len(x), -1, -1), x.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x = torch.bmm(grad.mT, weight.expand(len(x), -1, -1))
        return grad_x, torch.bmm(grad, x).sum(0), grad.sum(0).sum(1)


class _FromTokensLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias, x.mT, weight.t().expand(len(x), -1, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x = torch.bmm(weight.t().expand(len(x), -1, -1), grad.mT)
        return grad_x, torch.bmm(grad.mT, x.mT).sum(0), grad.sum((0, 1))
