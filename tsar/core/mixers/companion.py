"""State spaces of companion matrices, which are those of autoregressions."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.mixers.base import RecurrentMixer
from tsar.core.ops.companion import companion_matrix, companion_scan
from tsar.exceptions import ParameterError

__all__ = ["Companion", "CompanionState"]


class CompanionState(NamedTuple):
    """What a companion state space remembers of the tokens so far, of fixed size.

    Parameters
    ----------
    numbers : Tensor of shape (B, channels, d_state)
    """

    numbers: Tensor


class Companion(RecurrentMixer):
    """A state space whose matrix moves the state on by a place, and a way past it.

    The last place goes back to all places by learned weights, divided by the sum of their absolute
    values, so that no power of the matrix grows. Channels do not mix.

    Parameters
    ----------
    d_model : int
    n_heads : int, default 1
        State spaces, each for as many neighbouring channels; divides ``d_model``.
    d_state : int, default 64
        Places of a state.

    Attributes
    ----------
    last, enter, leave : nn.Parameter of shape (n_heads, d_state)
        Last column of the matrix, where a token enters, and what is read.
    skip : nn.Parameter of shape (d_model,)

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or ``d_state`` is less than 1.

    References
    ----------
    Zhang et al., "Effectively modeling time series with simple discrete state spaces", ICLR 2023.
    The authors begin ``enter`` and ``leave`` with a deviation of 1; here what comes out does not
    grow with ``d_state``.
    """

    formula = "K_n * x_d + s_d x_d, K_n of a companion matrix per head"
    cost = "L log L D + L N D + N^3 log L"

    no_decay = ("last",)

    def __init__(self, d_model: int, n_heads: int = 1, *, d_state: int = 64) -> None:
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ParameterError(f"Companion: n_heads={n_heads} does not divide d_model={d_model}")
        if d_state < 1:
            raise ParameterError(f"Companion: d_state must be at least 1, got {d_state}")
        self.last = nn.Parameter(torch.randn(n_heads, d_state))
        self.enter, self.leave = (
            nn.Parameter(torch.randn(n_heads, d_state) / d_state**0.5) for _ in range(2)
        )
        self.skip = nn.Parameter(torch.ones(d_model))

    def init_state(self, batch: int) -> CompanionState:
        """Return the state before the first token: zeros."""
        return CompanionState(self.enter.new_zeros(batch, len(self.skip), self.enter.shape[1]))

    def scan(
        self, x: Tensor, mask: Tensor | None, state: CompanionState | None
    ) -> tuple[Tensor, CompanionState]:
        """See :meth:`RecurrentMixer.scan`; time goes by with a token that is masked."""
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0.0)
        matrix = companion_matrix(F.normalize(self.last, p=1.0, dim=1))
        before = None if state is None else state.numbers
        y, numbers = companion_scan(x, matrix, self.enter, self.leave, before)
        return y + self.skip * x, CompanionState(numbers)
