"""A state space that goes on by itself: what it says comes next is what it reads next.

Letters: B batch, L tokens, H steps ahead, E channels, N numbers in a state.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.ops.companion import companion_matrix, krylov, read_state
from tsar.core.ops.diagonal_recurrence import long_convolution

__all__ = ["ClosedLoop", "NextStep"]


class NextStep(NamedTuple):
    """What is expected after each token.

    Parameters
    ----------
    outputs : Tensor of shape (B, L, E)
    inputs : Tensor of shape (B, L, E)
        The next token itself.
    """

    outputs: Tensor
    inputs: Tensor


class ClosedLoop(nn.Module):
    """A companion state space per channel, which reads a sequence and then its own forecasts of it.

    The state follows ``h_t = A h_{t-1} + b u_t``. After it, ``c' h`` is what comes out next, and
    ``k' h`` is the token that is expected next. Without further tokens the state therefore
    follows ``h = (A + b k') h``. With A a shift, b its first place and both c and k the
    coefficients, it is an autoregression.

    Parameters
    ----------
    n_channels : int
    d_state : int, default 64
    normalise : bool, default True
        Whether ``last``, ``enter``, ``leave`` and ``again`` are divided by the sums of their
        absolute values, of which that of ``enter`` is a factor of what comes out. It bounds the
        powers of the matrix; coefficients are then no longer free.

    Attributes
    ----------
    last, enter, leave, again : nn.Parameter of shape (n_channels, d_state)
        Last column of A, b, c and k.

    References
    ----------
    Zhang et al., "Effectively modeling time series with simple discrete state spaces", ICLR 2023,
    normalised as in the authors' code.
    """

    no_decay = ("last",)

    def __init__(self, n_channels: int, *, d_state: int = 64, normalise: bool = True) -> None:
        super().__init__()
        self.normalise = normalise
        self.last, self.enter, self.leave, self.again = (
            nn.Parameter(torch.randn(n_channels, d_state)) for _ in range(4)
        )

    def forward(
        self, x: Tensor, horizon: int, *, each_step: bool = False
    ) -> tuple[Tensor, NextStep | None]:
        """Read tokens, and go on by itself.

        Parameters
        ----------
        x : Tensor of shape (B, L, E)
        horizon : int
            Steps to go on.
        each_step : bool, default False
            Whether to say what is expected after each of the tokens as well.

        Returns
        -------
        ahead : Tensor of shape (B, horizon, E)
        expected : NextStep or None
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.last.dtype)
            last, enter, leave, again = self._weights()
            matrix = companion_matrix(last)
            reach = krylov(matrix, enter, x.shape[1])
            state = read_state(x.flip(1).mT, reach.mT)
            closed = matrix + enter[..., None] * again[:, None]
            ahead = read_state(state, krylov(closed.mT, leave, horizon)).mT
            if not each_step:
                return ahead, None
            outputs, inputs = (
                long_convolution(x, (reader[..., None] * reach).sum(dim=1))
                for reader in (leave, again)
            )
        return ahead, NextStep(outputs, inputs)

    def _weights(self) -> tuple[Tensor, ...]:
        weights = self.last, self.enter, self.leave, self.again
        if not self.normalise:
            return weights
        last, enter, leave, again = (F.normalize(weight, p=1.0, dim=1) for weight in weights)
        return last, enter, leave * self.enter.abs().sum(dim=1, keepdim=True), again
