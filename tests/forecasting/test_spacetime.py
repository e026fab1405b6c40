import numpy as np
import pytest
import torch
from torch.nn import functional as F

import tsar
from tsar.core.mixers import Companion, SoftmaxAttention
from tsar.data.windows import Batch, Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput
from tsar.forecasting.spacetime import SpaceTimeNetwork

SIZES = {
    "context_length": 23, "horizon": 5, "d_model": 12, "n_heads": 3, "d_state": 7, "n_layers": 2,
}  # fmt: skip
SMALL = {"context_length": 48, "horizon": 12, "random_state": 0, "device": "cpu"}


def _network(output=None, **options):
    torch.manual_seed(0)
    options = {"dropout": 0.0, **SIZES, **options}
    return SpaceTimeNetwork(output=output or PointOutput(), **options).double()


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _unit(weights):
    return weights / weights.abs().sum()


def _companion(last):
    matrix = torch.diag(torch.ones(len(last) - 1, dtype=last.dtype), -1)
    matrix[:, -1] = last
    return matrix


def _plain_tokens(network, z):
    """The layers over one window (L,) without its mean, step by step: (L, D)."""
    filters, columns = network.filters.taps.flip(1), []
    for channel in range(12):
        taps = filters[channel % 8]
        columns.append([sum(taps[i] * z[t - i] for i in range(t + 1)) for t in range(23)])
    x = torch.stack([torch.stack(column) for column in columns], dim=1)
    for layer in network.layers:
        mixer, mixed = layer.mixer, torch.zeros_like(x)
        for channel in range(12):
            head = channel // 4
            matrix = _companion(_unit(mixer.last[head]))
            h = torch.zeros(7, dtype=x.dtype)
            for t in range(23):
                h = matrix @ h + mixer.enter[head] * x[t, channel]
                mixed[t, channel] = mixer.leave[head] @ h + mixer.skip[channel] * x[t, channel]
        x = x + mixed + layer.project(F.gelu(mixed))
    return x


def _plain_forecast(network, target):
    """The network as a loop over windows, variates, channels and steps."""
    loop, forecast = network.closed_loop, torch.zeros(len(target), 5, target.shape[2]).double()
    for b in range(len(target)):
        for c in range(target.shape[2]):
            mean = target[b, :, c].mean()
            tokens = _plain_tokens(network, target[b, :, c] - mean)
            ahead = torch.zeros(5, 12).double()
            for e in range(12):
                last, leave, again = (_unit(w[e]) for w in (loop.last, loop.leave, loop.again))
                matrix, h = _companion(last), torch.zeros(7).double()
                for t in range(23):
                    h = matrix @ h + loop.enter[e] * tokens[t, e]
                for step in range(5):
                    ahead[step, e] = leave @ h
                    h = matrix @ h + _unit(loop.enter[e]) * (again @ h)
            forecast[b, :, c] = network.head(F.gelu(ahead))[:, 0] + mean
    return forecast


@torch.no_grad()
def test_the_network_is_its_formulas():
    network, target = _network(), 4 + 3 * _random(2, 23, 2)
    torch.testing.assert_close(network(Inputs(target)), _plain_forecast(network, target))


def test_fixed_filters_are_differences_and_residuals():
    filters, z = _network().filters, _random(40)
    filtered = filters(z[None])[0]
    for order in range(4):
        expected = np.diff(z.numpy(), n=order, prepend=np.zeros(order))
        np.testing.assert_allclose(filtered[:, order], expected, atol=1e-12)
    for kernel in range(4, 8):
        width = int((filters.taps[kernel] != 0).sum())
        assert 4 <= width < 64
        padded = np.concatenate([np.zeros(width - 1), z.numpy()])
        means = np.convolve(padded, np.full(width, 1 / width), mode="valid")
        np.testing.assert_allclose(filtered[:, kernel], z.numpy() - means, atol=1e-6)


def test_the_number_of_weights():
    """Of the authors' sizes: it does not depend on the context or the horizon."""
    for context_length, horizon in ((336, 720), (24, 8)):
        network = SpaceTimeNetwork(
            context_length=context_length, horizon=horizon, output=PointOutput()
        )
        layer = 3 * 16 * 64 + 128 + 128 * 128 + 128
        loop, head = 4 * 128 * 64, 128 + 1
        n_weights = sum(weights.numel() for weights in network.parameters())
        assert n_weights == layer + loop + head


def test_a_training_step_compares_the_history_as_well():
    """What is compared at a step of the history is the forecast of a window that ends before it."""
    network, target, future = _network(), _random(3, 23, 2), _random(3, 5, 2)
    observed, later = torch.ones(3, 23, 2).bool(), torch.ones(3, 5, 2).bool()
    observed[1, 9:12, 0] = False
    batch = Batch(Inputs(target, observed), future, later, None)
    compared = network.compare(batch)
    assert network.first == 7 and compared.forecast.shape == (3, 21, 2)
    torch.testing.assert_close(compared.target, torch.cat([target, future], dim=1)[:, 7:])
    torch.testing.assert_close(compared.forecast[:, 16:], network(batch.inputs))
    x, location, scale = network.revin(target, observed)
    centred = x * scale
    tokens = network._encode(Inputs(centred + location, observed))[0]
    for t in (7, 15, 22):
        ahead, _ = network.closed_loop(tokens[:, :t], 1)
        expected = network._decode(ahead, location)[:, 0]
        torch.testing.assert_close(compared.forecast[:, t - 7], expected)
    # Both parts count alike, but for what was not observed.
    assert compared.observed[0, :16].sum() == pytest.approx(2 * 5)
    assert compared.observed[1, 2:5, 0].sum() == 0
    error, count = compared.terms["inputs"]
    assert count == 3 * 16 * 2 - 3
    _, step = network.closed_loop(tokens, 1, each_step=True)
    squares = (step.inputs[:, 6:-1] - tokens[:, 7:]).square().mean(dim=2)
    seen = observed[:, 7:].mT.flatten(0, 1)
    torch.testing.assert_close(error, 0.5 * squares[seen].sum())


def test_a_history_of_one_step_has_nothing_to_compare():
    network = _network(context_length=1)
    compared = network.compare(Batch(Inputs(_random(3, 1, 2)), _random(3, 5, 2), None, None))
    assert compared.forecast.shape == (3, 5, 2)
    assert not any(part.detach().any() for part in compared.terms["inputs"])


def test_a_later_step_of_the_history_moves_no_earlier_forecast():
    for mixer in ("companion", "attention"):
        network, target = _network(mixer=mixer), _random(2, 23, 1)
        tokens, _ = network._encode(Inputs(target))
        changed = target.clone()
        changed[:, 15] += 1.0
        changed[:, 20] -= 1.0  # the mean of the window stays
        other, _ = network._encode(Inputs(changed))
        torch.testing.assert_close(other[:, :15], tokens[:, :15])
        assert not torch.allclose(other[:, 15], tokens[:, 15])


def test_other_mixers_and_several_outputs_per_step():
    assert isinstance(_network().layers[0].mixer, Companion)
    assert isinstance(_network(mixer="attention").layers[1].mixer, SoftmaxAttention)
    forecast = _network(QuantileOutput([0.1, 0.5, 0.6, 0.9]))(Inputs(_random(3, 23, 2)))
    assert forecast.shape == (3, 5, 2, 4)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_filters_are_those_of_the_seed_and_are_saved(wide, tmp_path):
    sizes = {"d_model": 8, "n_heads": 2, "d_state": 8, "max_epochs": 1}
    model = tsar.SpaceTime(**SMALL, **sizes).fit(wide)
    other = tsar.SpaceTime(**{**SMALL, "random_state": 1}, **sizes).fit(wide)
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    taps = model.module_.filters.taps
    assert torch.equal(loaded.module_.filters.taps, taps)
    assert not torch.equal(other.module_.filters.taps, taps)
    assert set(model.history_) >= {"train_loss", "train_inputs", "val_loss"}


def test_a_wave_is_learned(wide):
    sizes = {"d_model": 16, "n_heads": 2, "d_state": 16}
    model = tsar.SpaceTime(max_epochs=15, learning_rate=5e-3, dropout=0.0, **SMALL, **sizes)
    forecast = model.fit(wide.iloc[:-12]).predict()
    error = (forecast - wide.iloc[-12:]).abs().mean()
    naive = np.abs(wide.iloc[-12:] - wide.iloc[-13]).mean()
    assert error["load"] < 0.5 * naive["load"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"d_state": 0}, r"SpaceTime: d_state must be an integer in \[1, inf\), got 0"),
        ({"n_heads": 5}, "SpaceTime: d_model must be a multiple of n_heads=5, got 128"),
        ({"mixer": "fourrier"}, "did you mean 'fourier'"),
        ({"mixer": "low_rank"}, "SpaceTime: mixer must be one of"),
    ],
)
def test_bad_parameters(wide, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.SpaceTime(**(SMALL | parameters)).fit(wide)
