"""Gated recurrences whose forecasts do not depend on what else is in the batch."""

import torch
from torch import Tensor, nn

from tsar.core.ops.even_products import linear

__all__ = ["GRU"]


class GRU(nn.GRU):
    """A gated recurrent unit of one layer, read from the first token to the last.

    It has the parameters of :class:`torch.nn.GRU` and trains as fast. Where it forecasts, its
    products are those of :mod:`tsar.core.ops.even_products`.

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
        super().__init__(n_inputs, d_model, batch_first=True)

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
        if self.training:
            states, last = super().forward(x, None if state is None else state[None])
            return states, last[0]
        state = x.new_zeros(len(x), self.hidden_size) if state is None else state
        states = []
        for inputs in linear(x, self.weight_ih_l0, self.bias_ih_l0).unbind(1):
            reset_in, update_in, new_in = inputs.chunk(3, dim=1)
            own = linear(state, self.weight_hh_l0, self.bias_hh_l0)
            reset_own, update_own, new_own = own.chunk(3, dim=1)
            update = (update_in + update_own).sigmoid()
            new = (new_in + (reset_in + reset_own).sigmoid() * new_own).tanh()
            state = new + update * (state - new)
            states.append(state)
        return torch.stack(states, dim=1), state
