"""Gated recurrences whose forecasts do not depend on what else is in the batch."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.ops.even_products import linear
from tsar.core.tracing import is_traced

__all__ = ["GRU", "LSTM", "LSTMState"]

# Two of the widest vectors of processors, which is what torch takes at a time; sigmoids of the rest
# are rounded otherwise. States of a multiple of this many features leave no rest in any batch.
FEATURES_AT_ONCE = 32


class GRU(nn.Module):
    """A gated recurrent unit of one layer, read from the first token to the last.

    In training it is that of torch. Where it forecasts, its products are those of
    :mod:`tsar.core.ops.even_products`.

    Parameters
    ----------
    n_inputs, d_model : int
        Features of a token, and of the state.

    References
    ----------
    Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
    translation", EMNLP 2014; the reset acts on the mapped state, as in torch.
    """

    def __init__(self, n_inputs: int, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.gru = nn.GRU(n_inputs, d_model, batch_first=True)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read tokens.

        Parameters
        ----------
        x : Tensor of shape (B, L, n_inputs)
        state : Tensor of shape (B, D), optional
            Before the first token; 0 by default.

        Returns
        -------
        states : Tensor of shape (B, L, D)
            After each token.
        last : Tensor of shape (B, D)
        """
        if self.training and not is_traced():
            states, last = self.gru(x, None if state is None else state[None])
            return states, last[0]
        more = -self.d_model % FEATURES_AT_ONCE
        # What is filled up has no inputs: it begins with 0 and stays there.
        weight_in, weight_own, bias_in, bias_own = (
            self._filled(part, more) for part in self.gru.all_weights[0]
        )
        weight_own = F.pad(weight_own, (0, more))
        state = x.new_zeros(len(x), self.d_model) if state is None else state
        state, after = F.pad(state, (0, more)), []
        for inputs in linear(x, weight_in, bias_in).unbind(1):
            reset_in, update_in, new_in = inputs.chunk(3, dim=1)
            reset_own, update_own, new_own = linear(state, weight_own, bias_own).chunk(3, dim=1)
            update = (update_in + update_own).sigmoid()
            new = (new_in + (reset_in + reset_own).sigmoid() * new_own).tanh()
            state = new + update * (state - new)
            after.append(state)
        return torch.stack(after, dim=1)[..., : self.d_model], state[:, : self.d_model]

    @staticmethod
    def _filled(weights: Tensor, more: int) -> Tensor:
        """Fill each of the three gates, which lie one after the other, up with zeros."""
        gates = weights.unflatten(0, (3, -1)).movedim(1, -1)
        return F.pad(gates, (0, more)).movedim(-1, 1).flatten(0, 1)


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
