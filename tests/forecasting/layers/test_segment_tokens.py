"""The network of AutoTimes against loops over its segments."""

import math

import pandas as pd
import pytest
import torch

from tsar.core.decoder import Decoder
from tsar.core.mixers import SoftmaxAttention
from tsar.data.calendar import clock_readings
from tsar.data.windows import Batch, Inputs
from tsar.forecasting.layers.language_backbone import freeze, load_backbone
from tsar.forecasting.layers.segment_tokens import AutoTimesNetwork
from tsar.forecasting.outputs.losses import make_loss
from tsar.forecasting.outputs.objective import compare
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput
from tsar.training import seeded

WINDOWS, SEGMENTS, SIZE, VARIATES, D_MODEL = 3, 4, 5, 2, 12
LENGTH = SEGMENTS * SIZE
CPU = torch.device("cpu")


def _network(backbone=None, horizon=7, output=None, **options):
    with seeded(0):
        if backbone is None:
            mixers = [SoftmaxAttention(D_MODEL, 3, causal=True) for _ in range(2)]
            backbone = Decoder(mixers, d_model=D_MODEL, d_ff=20)
        network = AutoTimesNetwork(
            horizon=horizon,
            segment_length=SIZE,
            output=PointOutput() if output is None else output,
            backbone=backbone,
            **options,
        )
    return network.eval()


def _normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _batch(horizon, gaps=False):
    inputs = Inputs(3 * _normal(WINDOWS, LENGTH, VARIATES) + 5)
    target = 3 * _normal(WINDOWS, horizon, VARIATES, seed=2) + 5
    observed = None
    if gaps:
        seen = _normal(WINDOWS, LENGTH, VARIATES, seed=3) > -1
        seen[0, :SIZE] = False
        inputs = Inputs(inputs.target * seen, seen)
        observed = _normal(WINDOWS, horizon, VARIATES, seed=4) > -1
    return Batch(inputs, target, observed, None)


def _by_hand(network, window):
    """Forecast the segment after each segment of one series, from the tokens before it."""
    mean, scale = window.mean(), (window.var(correction=0) + 1e-5).sqrt()
    tokens = [
        network.embedding((window[begin : begin + SIZE] - mean) / scale)
        for begin in range(0, len(window), SIZE)
    ]
    found = []
    for last in range(len(tokens)):
        seen = torch.stack(tokens[: last + 1])[None]
        found.append(network.projection(network.backbone(seen)[0, -1]) * scale + mean)
    return torch.cat(found)


@pytest.mark.parametrize("horizon", [SIZE + 2, SIZE - 2])
def test_loss_equals_a_loop_over_segments(horizon):
    """Every segment is forecast from those up to the one before it, and counts alike."""
    network, batch = _network(horizon=horizon), _batch(horizon)
    loss = make_loss("mse")(*compare(network, batch)[:3])
    errors = []
    for b in range(WINDOWS):
        for c in range(VARIATES):
            known = torch.cat([batch.inputs.target[b, :, c], batch.target[b, :, c]])
            forecast = _by_hand(network, known[:LENGTH])
            for step in range(SIZE, LENGTH + min(horizon, SIZE)):
                errors.append((forecast[step - SIZE] - known[step]) ** 2)
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_loss_leaves_out_what_was_not_observed():
    network, batch = _network(), _batch(7, gaps=True)
    forecast, target, observed, *_ = compare(network, batch)
    seen = torch.cat([batch.inputs.observed, batch.observed], dim=1)[:, SIZE : LENGTH + SIZE]
    assert torch.equal(observed, seen)
    total = (forecast - target).square()[seen].sum()
    torch.testing.assert_close(make_loss("mse")(forecast, target, observed), total / seen.sum())
    complete = Batch(Inputs(batch.inputs.target), batch.target, batch.observed, None)
    half = compare(network, complete)[2]
    assert half[:, : LENGTH - SIZE].all() and torch.equal(half[:, -SIZE:], seen[:, -SIZE:])


def test_forecast_rolls_segment_by_segment():
    """A window that moves on by one segment, normalised anew each time."""
    network = _network(horizon=13)
    inputs = _batch(13).inputs
    forecast = network(inputs)
    assert forecast.shape == (WINDOWS, 13, VARIATES)
    for b in range(WINDOWS):
        for c in range(VARIATES):
            known = inputs.target[b, :, c]
            for _ in range(3):
                known = torch.cat([known, _by_hand(network, known[-LENGTH:])[-SIZE:]])
            torch.testing.assert_close(forecast[b, :, c], known[LENGTH : LENGTH + 13])


def test_a_later_segment_changes_no_earlier_forecast():
    """Its values in another order leave mean and deviation of the window as they were."""
    network, inputs = _network(), _batch(7).inputs
    altered = inputs.target.clone()
    altered[:, 2 * SIZE : 3 * SIZE] = altered[:, 2 * SIZE : 3 * SIZE].flip(1)
    before, after = network.next_segments(inputs), network.next_segments(Inputs(altered))
    torch.testing.assert_close(after[:, : 2 * SIZE], before[:, : 2 * SIZE])
    assert not torch.allclose(after[:, 2 * SIZE :], before[:, 2 * SIZE :])


def test_segments_without_observations_are_not_looked_at():
    network, batch = _network(), _batch(7, gaps=True)
    seen, target = batch.inputs.observed, batch.inputs.target
    short = Inputs(target[:1, SIZE:], seen[:1, SIZE:])
    whole = Inputs(target[:1], seen[:1])
    with torch.no_grad():
        position = network.backbone.position.weight
        expected = network.next_segments(whole)[:, SIZE:]
        # Without its empty first segment the window has other positions, and no other change.
        network.backbone.position.weight = torch.cat([position[1:], position[:1]])
        torch.testing.assert_close(network.next_segments(short), expected)
    nothing = torch.zeros_like(seen)
    assert network(Inputs(torch.zeros_like(target), nothing)).isfinite().all()


def test_quantiles_roll_by_their_median():
    output = QuantileOutput([0.1, 0.5, 0.7])
    network, inputs = _network(horizon=9, output=output), _batch(9).inputs
    forecast = network(inputs)
    assert forecast.shape == (WINDOWS, 9, VARIATES, 3)
    assert (forecast.diff(dim=-1) >= 0).all()
    known = torch.cat([inputs.target[:, SIZE:], forecast[:, :SIZE, :, 1]], dim=1)
    expected = network.next_segments(Inputs(known))[:, -SIZE:]
    torch.testing.assert_close(forecast[:, SIZE:], expected[:, :4])


def test_prompt_stays_while_the_history_moves_on():
    network, inputs = _network(), _batch(7).inputs
    prompt = 3 * _normal(WINDOWS, 2 * SIZE, VARIATES, seed=6)
    joined = torch.cat([prompt, inputs.target], dim=1)
    forecast = network.roll(Inputs(joined), 2, n_prompt=2 * SIZE)
    first = network.next_segments(Inputs(joined))[:, -SIZE:]
    moved = torch.cat([prompt, inputs.target[:, SIZE:], first], dim=1)
    second = network.next_segments(Inputs(moved))[:, -SIZE:]
    torch.testing.assert_close(forecast, torch.cat([first, second], dim=1))


def test_hidden_layers_are_those_of_a_perceptron():
    network = _network(hidden_layers=2, d_hidden=7)
    segment = _normal(SIZE)
    first, second, third = (network.embedding[place] for place in (0, 3, 6))
    expected = third(second(first(segment).tanh()).tanh())
    torch.testing.assert_close(network.embedding(segment), expected)
    assert [tuple(layer.weight.shape) for layer in (first, second, third)] == [
        (7, SIZE),
        (7, 7),
        (D_MODEL, 7),
    ]


def test_phases_of_the_clock():
    """Sine and cosine of the day, week, month and year."""
    network = _network(timestamps=True)
    times = pd.date_range("1971-01-01", periods=2 * SIZE, freq="3h")
    clock = torch.from_numpy(clock_readings(times)).expand(3, -1, -1)
    embedded = network.embed_times(clock)
    assert embedded.shape == (3, 2, D_MODEL)
    expected = []
    for period in (1, 7, 30.436875, 365.2425):
        angle = 2 * math.pi * (365 + 15 / 24) / period
        expected += [math.sin(angle), math.cos(angle)]
    expected = torch.tensor(expected + [0.0] * (D_MODEL - 8)) / math.sqrt(4)
    torch.testing.assert_close(embedded[2, 1], expected, atol=1e-6, rtol=0)


def test_time_is_added_to_tokens_of_length_one():
    network, batch = _network(timestamps=True), _batch(7)
    times = pd.date_range("2024-02-27", periods=LENGTH, freq="h")
    clock = torch.from_numpy(clock_readings(times)).expand(WINDOWS, -1, -1)
    inputs = Inputs(batch.inputs.target, calendar=clock)
    x, location, scale = network.revin(inputs.target)
    tokens = torch.nn.functional.normalize(
        network.embedding(x.mT.reshape(WINDOWS, VARIATES, SEGMENTS, SIZE)), dim=-1
    )
    with torch.no_grad():
        network.time_scale.fill_(0.3)
    tokens = tokens + 0.3 * network.embed_times(clock)[:, None]
    hidden = network.backbone(tokens.flatten(0, 1)).view(WINDOWS, VARIATES, SEGMENTS, D_MODEL)
    expected = network.projection(hidden).flatten(2).mT * scale + location
    torch.testing.assert_close(network.next_segments(inputs), expected)


def test_a_language_model_reads_when_a_segment_was(language_models):
    backbone = load_backbone(str(language_models / "llama"), precision="float32", device=CPU)
    network = _network(backbone, timestamps=True)
    times = pd.date_range("2016-07-01 19:30", periods=2 * SIZE, freq="90min")
    clock = torch.from_numpy(clock_readings(times))[None]
    sentences = [
        "This is Time Series from 2016-07-01 19:30:00 to 2016-07-02 01:30:00",
        "This is Time Series from 2016-07-02 03:00:00 to 2016-07-02 09:00:00",
    ]
    for place, sentence in enumerate(sentences):
        words = torch.tensor([backbone.tokenizer(sentence)["input_ids"]])
        assert words.shape == (1, len(sentence))
        state = backbone.module(input_ids=words).last_hidden_state[0, -1]
        expected = state / state.norm()
        torch.testing.assert_close(network.embed_times(clock)[0, place], expected)


def test_a_frozen_backbone_is_no_weight_of_the_network(language_models):
    backbone = load_backbone(str(language_models / "gpt2"), precision="bfloat16", device=CPU)
    network = _network(backbone).to(torch.float32)
    names = {name for name, _ in network.named_parameters()}
    assert {name.split(".")[0] for name in names} == {"embedding", "projection"}
    assert next(backbone.module.parameters()).dtype == torch.bfloat16
    forecast = network(_batch(7).inputs)
    assert forecast.dtype == torch.float32 and forecast.isfinite().all()
    forecast.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())
    assert all(weight.grad is None for weight in backbone.module.parameters())


def test_a_module_is_frozen_and_used_as_it_is():
    with seeded(0):
        mixers = [SoftmaxAttention(D_MODEL, 3, causal=True)]
        module = Decoder(mixers, d_model=D_MODEL, d_ff=20, dropout=0.5)
    network, other = _network(freeze(module)), _network(module)
    assert sum(p.numel() for p in network.parameters()) == 2 * SIZE * D_MODEL + D_MODEL + SIZE
    inputs = _batch(7).inputs
    torch.testing.assert_close(network.train()(inputs), other.eval()(inputs))
