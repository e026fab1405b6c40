"""Recurrent cells, a step at a time, whose rows do not depend on what else is in a batch."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tsar.core.linear import Linear

__all__ = ["LSTM", "LSTMState"]


class LSTMState(NamedTuple):
    """What is remembered of the steps so far.

    Parameters
    ----------
    hidden, cell : Tensor of shape (B, D)
    """

    hidden: Tensor
    cell: Tensor


class LSTM(nn.Module):
    """Long short-term memory, of one layer.

    Parameters
    ----------
    n_inputs : int
        Features of a step.
    d_model : int
        D, of the hidden state.

    References
    ----------
    Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9, 1997; with the
    forget gate of Gers et al., Neural Computation 12, 2000.
    """

    def __init__(self, n_inputs: int, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.input = Linear(n_inputs, 4 * d_model)
        self.hidden = Linear(d_model, 4 * d_model, bias=False)

    def init_state(self, batch: int) -> LSTMState:
        """Return the state before the first step: zeros."""
        zeros = self.input.weight.new_zeros(batch, self.d_model)
        return LSTMState(zeros, zeros)

    def step(self, x: Tensor, state: LSTMState) -> LSTMState:
        """Return the state after a step (B, n_inputs)."""
        return self._after(self.input(x), state)

    def forward(self, x: Tensor) -> Tensor:
        """Map steps (B, L, n_inputs) to the hidden states after each of them, (B, L, D)."""
        state, states = self.init_state(len(x)), []
        for entering in self.input(x).unbind(dim=1):
            state = self._after(entering, state)
            states.append(state.hidden)
        return torch.stack(states, dim=1)

    def _after(self, entering: Tensor, state: LSTMState) -> LSTMState:
        enter, forget, new, leave = (entering + self.hidden(state.hidden)).chunk(4, dim=-1)
        cell = forget.sigmoid() * state.cell + enter.sigmoid() * new.tanh()
        return LSTMState(leave.sigmoid() * cell.tanh(), cell)
