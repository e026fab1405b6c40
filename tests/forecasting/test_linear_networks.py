import pytest
import torch

from tsar.data.windows import Inputs
from tsar.forecasting.dlinear import DLinearNetwork
from tsar.forecasting.nlinear import NLinearNetwork
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

NETWORKS = (NLinearNetwork, DLinearNetwork)


def _network(kind, output=None):
    torch.manual_seed(0)
    return kind(context_length=31, horizon=5, output=output or PointOutput()).double()


def _target():
    return torch.randn(4, 31, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_nlinear_is_a_map_of_the_distance_to_the_last_value():
    network, target = _network(NLinearNetwork), _target()
    forecast = network(Inputs(target))
    assert forecast.shape == (4, 5, 3)
    weight, bias = network.linear.weight, network.linear.bias
    for b in range(4):
        for c in range(3):
            last = target[b, -1, c]
            expected = weight @ (target[b, :, c] - last) + bias + last
            torch.testing.assert_close(forecast[b, :, c], expected)


def test_dlinear_is_a_map_of_trend_and_remainder():
    network, target = _network(DLinearNetwork), _target()
    forecast = network(Inputs(target))
    assert forecast.shape == (4, 5, 3)
    for b in range(4):
        for c in range(3):
            x = target[b, :, c]
            padded = torch.cat([x[:1].expand(12), x, x[-1:].expand(12)])
            trend = padded.unfold(0, 25, 1).mean(-1)
            expected = network.trend(trend) + network.remainder(x - trend)
            torch.testing.assert_close(forecast[b, :, c], expected)


@pytest.mark.parametrize("kind", NETWORKS)
def test_several_outputs_per_step(kind):
    network = _network(kind, QuantileOutput([0.1, 0.5, 0.6, 0.9]))
    assert network(Inputs(_target())).shape == (4, 5, 3, 4)


@pytest.mark.parametrize("kind", NETWORKS)
def test_nothing_observed_is_finite(kind):
    forecast = _network(kind)(Inputs(torch.zeros(4, 31, 3).double(), torch.zeros(4, 31, 3).bool()))
    assert forecast.isfinite().all()


def test_nlinear_puts_unknown_history_level_with_the_last_value():
    network, target = _network(NLinearNetwork), 100 + _target()
    observed = torch.ones(4, 31, 3).bool()
    observed[:, :20] = False
    level = torch.where(observed, target, target[:, -1:])
    expected = network(Inputs(level))
    torch.testing.assert_close(network(Inputs(target * observed, observed)), expected)


@pytest.mark.parametrize("kind", NETWORKS)
def test_linear_maps_start_as_torch_starts_them(kind):
    for name, parameter in _network(kind).named_parameters():
        assert parameter.abs().max() <= 31**-0.5, name
