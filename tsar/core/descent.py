"""Descents of tensors that are no weights."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["descended"]


def descended(
    cost: Callable[[Tensor], Tensor], start: Tensor, *, rate: float, n_steps: int
) -> Tensor:
    """Return where a tensor comes to that goes down a cost, by the steps of Adam.

    Parameters
    ----------
    cost : callable
        Takes a tensor such as ``start``, and returns a Tensor of shape ().
    start : Tensor
        Stays as it is.
    rate : float
        The learning rate.
    n_steps : int

    Returns
    -------
    Tensor
        Without gradients.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """
    # The caller may have turned gradients off.
    with torch.enable_grad():
        free = start.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([free], lr=rate)
        for _ in range(n_steps):
            (free.grad,) = torch.autograd.grad(cost(free), free)
            optimizer.step()
    return free.detach()
