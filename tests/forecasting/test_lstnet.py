import numpy as np
import pytest
import torch
from torch import nn

import tsar
from tsar.data.windows import Inputs
from tsar.evaluation import evaluate_last_step
from tsar.exceptions import ParameterError
from tsar.forecasting.lstnet import LSTNetNetwork
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

SIZES = {"context_length": 23, "horizon": 4, "n_variates": 3, "kernel": 3, "season_length": 6}
SIZES |= {"d_model": 7, "d_skip": 2, "ar_length": 5, "dropout": 0.0}


def _network(output=None, **options):
    torch.manual_seed(0)
    return LSTNetNetwork(output=output or PointOutput(), **SIZES | options).double()


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _last_state(gru, tokens):
    """The last state of a cell that reads tokens (n, D) one after the other."""
    cell = nn.GRUCell(gru.weight_in.shape[1], gru.d_model).double()
    cell.weight_ih, cell.weight_hh = gru.weight_in, gru.weight_own
    cell.bias_ih, cell.bias_hh = gru.bias_in, gru.bias_own
    state = None
    for token in tokens:
        state = cell(token[None], state)
    return state[0]


@pytest.mark.parametrize("training", [False, True])
def test_network_equals_loops(training):
    network, target = _network().train(training), _random(4, 23, 3)
    forecast = network(Inputs(target))
    for b in range(4):
        tokens = []
        for start in range(23 - 3 + 1):
            patch = target[b, start : start + 3].mT.flatten()
            tokens.append((network.convolution(patch)).clamp(min=0))
        states = [_last_state(network.recurrence, tokens)]
        # 21 tokens hold three whole seasons of 6, counted from the end.
        for phase in range(6):
            states.append(
                _last_state(network.skipping, [tokens[3 + phase + 6 * s] for s in range(3)])
            )
        raw = network.head(torch.cat(states)).view(4, 3)
        for c in range(3):
            raw[:, c] += network.autoregression(target[b, -5:, c])
        torch.testing.assert_close(forecast[b], raw)


def test_without_the_network_it_is_an_autoregression_of_all_variates():
    network, target = _network(), _random(4, 23, 3)
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    weight, bias = network.autoregression.weight, network.autoregression.bias
    expected = torch.einsum("hk,bkc->bhc", weight, target[:, -5:]) + bias[:, None]
    torch.testing.assert_close(network(Inputs(target)), expected)


@pytest.mark.parametrize("part", ["season_length", "ar_length"])
def test_a_part_that_is_left_out_has_no_weights(part):
    network = _network(**{part: None})
    names = {"season_length": "skipping", "ar_length": "autoregression"}
    assert not [name for name, _ in network.named_parameters() if name.startswith(names[part])]
    assert network(Inputs(_random(2, 23, 3))).shape == (2, 4, 3)


@pytest.mark.parametrize(("season_length", "n_seasons"), [(10, 2), (20, 1)])
def test_whole_seasons_are_read(season_length, n_seasons):
    network = _network(season_length=season_length)  # 23 steps and a kernel of 3
    assert network.n_seasons == n_seasons
    assert network(Inputs(_random(2, 23, 3))).shape == (2, 4, 3)


@pytest.mark.parametrize(
    ("context_length", "season_length", "ar_length"), [(30, 24, 24), (29, None, 24), (9, None, 9)]
)
def test_lengths_that_are_not_named_fit_the_context(wide, context_length, season_length, ar_length):
    parameters = {"context_length": context_length, "horizon": 2, "d_model": 4, "max_steps": 1}
    model = tsar.LSTNet(**parameters, random_state=0).fit(wide)
    assert (model.season_length_, model.ar_length_) == (season_length, ar_length)
    # What they are as parameters gives the same network.
    lengths = {"season_length": season_length, "ar_length": ar_length}
    named = tsar.LSTNet(**parameters, **lengths, random_state=0).fit(wide)
    np.testing.assert_array_equal(model.predict(), named.predict())
    model.set_params(season_length=1, ar_length=None)
    assert (model.season_length_, model.ar_length_) == (season_length, ar_length)


def test_official_sizes():
    """The authors' settings for exchange_rate, where one network gives one step."""
    network = LSTNetNetwork(context_length=168, horizon=1, n_variates=8, output=PointOutput())
    expected = 50 * 6 * 8 + 50  # convolution
    expected += 3 * (50 * 50 + 50 * 50 + 2 * 50) + 3 * (5 * 50 + 5 * 5 + 2 * 5)  # recurrences
    expected += (50 + 24 * 5) * 8 + 8 + 24 + 1  # last map, autoregression
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network.n_seasons == 6


def test_quantiles_do_not_cross():
    forecast = _network(QuantileOutput([0.1, 0.5, 0.9]))(Inputs(_random(4, 23, 3)))
    assert forecast.shape == (4, 4, 3, 3)
    assert (forecast.diff(dim=3) > 0).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kernel": 31}, "LSTNet: kernel must be at most context_length=30, got 31"),
        ({"d_skip": 0}, "LSTNet: d_skip must be"),
        (
            {"season_length": 25},
            r"LSTNet: season_length must be at most 24 \(context_length=30 less kernel=6\), got 25;"
            " shorten it, lengthen the context, or set season_length=None",
        ),
        ({"ar_length": 31}, r"LSTNet: ar_length must be at most 30 \(context_length=30\), got 31"),
    ],
)
def test_errors_come_before_any_work(wide, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.LSTNet(context_length=30, **parameters).fit(wide)


@pytest.mark.parametrize(
    ("horizon", "rse", "corr"),
    [(3, 0.0171, 0.9761), (6, 0.0238, 0.9679), (12, 0.0329, 0.9526), (24, 0.0434, 0.9331)],
)
@pytest.mark.usefixtures("published_data")
def test_the_last_value_in_the_protocol_of_the_paper(horizon, rse, corr):
    """What the last value gives, computed from the file by a separate program."""
    frame = tsar.load_dataset("exchange_rate")
    borders = (int(0.6 * len(frame)), int(0.8 * len(frame)), len(frame))
    model = tsar.Naive(horizon=horizon).fit(frame.iloc[: borders[1]])
    errors = evaluate_last_step(model, frame, borders, batch_size=2000)
    assert errors["n_windows"] == 1518
    assert (round(errors["rse"], 4), round(errors["corr"], 4)) == (rse, corr)


def test_scaled_by_the_largest_value_it_forecasts_in_proportion(wide):
    """A frame of a quarter of the size is forecast a quarter as large, to the bit."""
    model = tsar.LSTNet(
        **{"context_length": 30, "horizon": 3, "season_length": 12, "scaler": "max_abs"},
        **{"d_model": 8, "max_epochs": 1, "random_state": 0},
    )
    large = model.fit(wide).predict()
    np.testing.assert_array_equal(model.fit(wide / 4).predict() * 4, large)
