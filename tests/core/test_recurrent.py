import pytest
import torch
from torch import nn

from tsar.core.recurrent import GRU, LSTM


def _random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("begun", [False, True])
def test_a_gru_is_that_of_torch_in_training_and_in_forecasts(begun):
    torch.manual_seed(0)
    gru, plain = GRU(3, 5).double(), nn.GRU(3, 5, batch_first=True).double()
    plain.load_state_dict(gru.gru.state_dict())
    x, state = _random(4, 7, 3), _random(4, 5, seed=1) if begun else None
    expected, last = plain(x, None if state is None else state[None])
    for training in (True, False):
        states, after = gru.train(training)(x, state)
        torch.testing.assert_close(states, expected)
        torch.testing.assert_close(after, last[0])


def test_forecasts_do_not_depend_on_company():
    torch.manual_seed(0)
    gru, x = GRU(3, 5).eval(), _random(37, 7, 3).float()
    with torch.inference_mode():
        states, last = gru(x)
        for row in (0, 20, 36):
            alone, after = gru(x[row : row + 1])
            assert torch.equal(alone[0], states[row]) and torch.equal(after[0], last[row])


def test_an_lstm_is_that_of_torch():
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
