import torch
from torch import nn

from tsar.core.recurrent import LSTM


def test_equals_that_of_torch():
    torch.manual_seed(0)
    own, other = LSTM(3, 5).double(), nn.LSTM(3, 5, batch_first=True).double()
    with torch.no_grad():
        other.weight_ih_l0.copy_(own.input.weight)
        other.bias_ih_l0.copy_(own.input.bias)
        other.weight_hh_l0.copy_(own.hidden.weight)
        other.bias_hh_l0.zero_()
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    expected, (hidden, cell) = other(x)
    torch.testing.assert_close(own(x), expected)
    state = own.init_state(4)
    for step in x.unbind(dim=1):
        state = own.step(step, state)
    torch.testing.assert_close(state.hidden, hidden[0])
    torch.testing.assert_close(state.cell, cell[0])
