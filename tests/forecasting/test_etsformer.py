import numpy as np
import pytest
import torch
from torch.nn import functional as F

import tsar
from tsar.core.mixers import ExponentialSmoothing, SoftmaxAttention
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.etsformer import Augmentation, ETSformerNetwork, Level
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

SIZES = {
    "context_length": 13, "horizon": 5, "n_variates": 3, "n_frequencies": 2, "d_model": 8,
    "n_heads": 2, "d_ff": 11, "n_layers": 2,
}  # fmt: skip
SMALL = {
    "context_length": 48, "horizon": 12, "d_model": 16, "n_heads": 2, "d_ff": 32, "random_state": 0,
    "device": "cpu",
}  # fmt: skip


def _network(output=None, **options):
    torch.manual_seed(0)
    options = {"dropout": 0.0, **SIZES, **options}
    return ETSformerNetwork(output=output or PointOutput(), **options).double()


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _season(x, horizon, n_frequencies):
    """The strongest frequencies of one sequence (L,), by numpy, over (L + H,)."""
    length, spectrum = len(x), np.fft.rfft(x.numpy())
    season, inner = np.zeros(length + horizon), range(1, (length + 1) // 2)
    for turn in sorted(inner, key=lambda k: -abs(spectrum[k]))[:n_frequencies]:
        angle = 2 * np.pi * turn * np.arange(length + horizon) / length
        season += 2 * abs(spectrum[turn]) / length * np.cos(angle + np.angle(spectrum[turn]))
    return torch.from_numpy(season)


def _plain_forecast(network, window, accumulate):
    """The network over one window (L, C), step by step."""
    length, horizon = 13, 5
    padded, level = F.pad(window, (0, 0, 2, 0)), window
    weight = network.embedding.weight.view(8, 3, 3)  # of a variate, at the two steps before and now
    tokens = torch.stack(
        [sum(weight[:, :, i] @ padded[t + i] for i in range(3)) for t in range(length)]
    )
    growths, seasons = torch.zeros(horizon, 8).double(), torch.zeros(horizon, 8).double()
    for layer, damped in zip(network.layers, network.damped, strict=True):
        columns = [_season(tokens[:, d], horizon, 2) for d in range(8)]
        season = torch.stack(columns, dim=1)
        tokens = tokens - season[:length]
        mixer, a = layer.mixer, torch.sigmoid(layer.mixer.logit).repeat_interleave(4)
        before, smoothed, growth = mixer.first_value, mixer.first_growth, [layer.first_growth]
        for token in tokens:
            value = mixer.value(token)
            smoothed = a * smoothed + (1 - a) * (value - before)
            before = value
            growth.append(mixer.output(smoothed))
        part, a, l_t, levels = layer.level, torch.sigmoid(layer.level.logit), layer.level.first, []
        for t in range(length):
            added = (1 - a) * (level[t] - part.season(season[t]))
            l_t = added + a * (l_t + accumulate * part.growth(growth[t]))
            alone = 0.0 if accumulate else a ** (length - t) * part.growth(growth[t])
            levels.append(l_t + alone)
        level = torch.stack(levels)
        if layer.rest is not None:
            rest = layer.rest
            tokens = rest["growth_norm"](tokens - torch.stack(growth[1:]))
            hidden = torch.sigmoid(rest["expand"](tokens))
            tokens = rest["norm"](tokens + rest["contract"](hidden))
        stays = torch.sigmoid(damped.logit).repeat_interleave(4)
        growths = growths + torch.stack(
            [growth[-1] * sum(stays**j for j in range(1, h + 1)) for h in range(1, horizon + 1)]
        )
        seasons = seasons + season[length:]
    return level[-1] + network.head(growths) + network.head(seasons)


@pytest.mark.parametrize("accumulate", [True, False])
@torch.no_grad()
def test_the_network_is_its_formulas(accumulate):
    network = _network(accumulate_growth=accumulate).eval()
    target = 4 + 3 * _random(2, 13, 3)
    forecast = network(Inputs(target))
    for result, window in zip(forecast, target, strict=True):
        expected = _plain_forecast(network, window, accumulate)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_the_level_is_that_of_exponential_smoothing():
    """Of Holt's method in statsmodels, given its trend, which is that of the step before."""
    holtwinters = pytest.importorskip("statsmodels.tsa.holtwinters")
    series = 10 + _random(40).cumsum(0)
    model = holtwinters.ExponentialSmoothing(
        series.numpy(), trend="add", initialization_method="known",
        initial_level=9.0, initial_trend=0.5,
    )  # fmt: skip
    fitted = model.fit(smoothing_level=0.3, smoothing_trend=0.2, optimized=False)
    before = np.concatenate([[0.5], np.asarray(fitted.trend)[:-1]])
    level = Level(1, 1, dropout=0.0, accumulate=True).double()
    with torch.no_grad():
        level.logit.fill_(np.log(0.7 / 0.3))
        level.first.fill_(9.0)
        for part, weight in ((level.season, 0.0), (level.growth, 1.0)):
            part.weight.fill_(weight)
            part.bias.zero_()
        growth = torch.from_numpy(before)[None, :, None]
        smoothed = level(series[None, :, None], growth, torch.zeros_like(growth))
    np.testing.assert_allclose(smoothed[0, :, 0], np.asarray(fitted.level), rtol=1e-8)


def test_the_number_of_weights():
    """Of the authors' sizes; what no layer reads is left out."""
    network = ETSformerNetwork(context_length=48, horizon=24, n_variates=7, output=PointOutput())
    growth = 2 * (512 * 512 + 512) + 2 * 512 + 8 + 512
    level = 2 * (512 * 7 + 7) + 2 * 7
    rest = 2 * 512 * 2048 + 2 * 2 * 512
    expected = 3 * 7 * 512 + 2 * (growth + level + 8) + rest + 512 * 7 + 7
    assert sum(weights.numel() for weights in network.parameters()) == expected


def test_histories_change_in_training_alone():
    augmentation, x = Augmentation(0.2), torch.zeros(500, 20, 3)
    x[250:] = 10.0
    augmentation.generator = torch.Generator().manual_seed(0)
    changed = augmentation(x)
    # Factor and shift of a variate are those of all windows, noise is of each value.
    means = changed.mean(dim=1)
    low, high = means[:250].mean(dim=0), means[250:].mean(dim=0)
    torch.testing.assert_close(
        means[:250].std(dim=0), torch.full((3,), 0.2 / 20**0.5), rtol=0.2, atol=0
    )
    residuals = changed - torch.where(x > 0, high, low)
    assert float(residuals.detach().std()) == pytest.approx(0.2, rel=0.02)
    assert float(low.std()) > 0.02 and float((high - low - 10).abs().max()) > 0.1
    assert torch.equal(augmentation.eval()(x), x)
    assert torch.equal(Augmentation(0.0)(x), x)


def test_other_mixers_and_several_outputs_per_step():
    assert isinstance(_network().layers[0].mixer, ExponentialSmoothing)
    network = _network(mixer="attention").eval()
    assert isinstance(network.layers[1].mixer, SoftmaxAttention)
    assert network(Inputs(_random(4, 13, 3))).shape == (4, 5, 3)
    forecast = _network(QuantileOutput([0.1, 0.5, 0.6, 0.9])).eval()(Inputs(_random(2, 13, 3)))
    assert forecast.shape == (2, 5, 3, 4)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_a_wave_is_learned(wide):
    model = tsar.ETSformer(
        max_epochs=15, learning_rate=5e-3, dropout=0.0, augmentation=0.0, **SMALL
    )
    forecast = model.fit(wide.iloc[:-12]).predict()
    error = (forecast - wide.iloc[-12:]).abs().mean()
    naive = np.abs(wide.iloc[-12:] - wide.iloc[-13]).mean()
    assert error["load"] < 0.5 * naive["load"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"n_frequencies": -1},
            r"ETSformer: n_frequencies must be an integer in \[0, inf\), got -1",
        ),
        ({"d_model": 15}, "ETSformer: d_model must be a multiple of n_heads=2, got 15"),
        ({"mixer": "exponential"}, "did you mean 'exponential_smoothing'"),
        ({"augmentation": -0.1}, "ETSformer: augmentation must be"),
    ],
)
def test_bad_parameters(wide, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.ETSformer(**(SMALL | parameters)).fit(wide)
