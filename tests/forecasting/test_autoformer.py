import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting import AutoformerForecaster, autoformer
from tsar.forecasting.autoformer import AutoformerNetwork
from tsar.forecasting.layers.covariates import CovariateSpec
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

SMALL = {"d_model": 6, "n_heads": 2, "d_ff": 5, "kernel": 5, "n_decoder_layers": 2, "dropout": 0.0}


def _network(output=None, **options):
    torch.manual_seed(0)
    settings = {"n_variates": 3, "covariates": CovariateSpec(n_calendar=4), **SMALL, **options}
    network = AutoformerNetwork(
        context_length=14, horizon=9, output=PointOutput() if output is None else output, **settings
    )
    return network.double()


def _random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _inputs(**options):
    return Inputs(_random(4, 14, 3).cumsum(dim=1), calendar=_random(4, 23, 4, seed=1), **options)


# ------------------------------------- the network again, step by step and with layers of torch


def _average(x, kernel):
    half = kernel // 2
    edges = [x[:, :1].repeat(1, half, 1), x, x[:, -1:].repeat(1, half, 1)]
    return torch.cat(edges, dim=1).unfold(1, kernel, 1).mean(dim=-1)


def _convolved(x, weight):
    around = torch.cat([x[:, -1:], x, x[:, :1]], dim=1).transpose(1, 2)
    return F.conv1d(around, weight).transpose(1, 2)


def _mixed(mixer, x, memory, training):
    query, key, value = mixer.query(x), mixer.key(memory), mixer.value(memory)
    length = x.shape[1]
    if length > memory.shape[1]:
        zeros = x.new_zeros(len(x), length - memory.shape[1], x.shape[2])
        key, value = torch.cat([key, zeros], dim=1), torch.cat([value, zeros], dim=1)
    key, value = key[:, :length], value[:, :length]
    agreement = [(query.roll(-d, 1) * key).sum(1).mean(1) for d in range(length)]
    agreement = torch.stack(agreement, dim=1)  # (B, L)
    n_delays = int(3 * np.log(length))
    ranked = agreement.mean(0, keepdim=True).expand_as(agreement) if training else agreement
    delays = ranked.topk(n_delays, dim=1).indices
    weights = agreement.gather(1, delays).softmax(dim=1)
    rolled = [
        sum(w * v.roll(-int(d), 0) for w, d in zip(weights[b], delays[b], strict=True))
        for b, v in enumerate(value)
    ]
    return mixer.output(torch.stack(rolled))


def _fed(mlp, x):
    return F.gelu(x @ mlp.expand.weight.T) @ mlp.contract.weight.T


def _seasonal_norm(norm, x):
    normalised = F.layer_norm(x, x.shape[-1:], norm.weight)
    return normalised - normalised.mean(dim=1, keepdim=True)


def _plain_forecast(network, inputs, kernel=5):
    training, target, marks = network.training, inputs.target, inputs.calendar
    embedding = network.embedding
    x = _convolved(target, embedding.values.weight) + marks[:, :14] @ embedding.marks.weight.T
    for block in network.encoder.blocks:
        x = x + _mixed(block.mixer, x, x, training)
        x = x - _average(x, kernel)
        x = x + _fed(block.mlp, x)
        x = x - _average(x, kernel)
    memory = _seasonal_norm(network.encoder.final_norm, x)

    seasonal = (target - _average(target, kernel))[:, 7:]
    seasonal = torch.cat([seasonal, torch.zeros_like(target[:, :9])], dim=1)
    trend = torch.cat([_average(target, kernel)[:, 7:], target.mean(1, True).repeat(1, 9, 1)], 1)
    embedding = network.decoder_embedding
    x = _convolved(seasonal, embedding.values.weight) + marks[:, 7:] @ embedding.marks.weight.T
    for layer in network.decoder_layers:
        trends = 0
        for branch in (
            lambda x, layer=layer: _mixed(layer.self_mixer, x, x, training),
            lambda x, layer=layer: _mixed(layer.cross_mixer, x, memory, training),
            lambda x, layer=layer: _fed(layer.mlp, x),
        ):
            x = x + branch(x)
            trends = trends + _average(x, kernel)
            x = x - _average(x, kernel)
        trend = trend + _convolved(trends, layer.trend.weight)
    seasonal = network.seasonal(_seasonal_norm(network.decoder_norm, x))
    return (trend + seasonal)[:, -9:]


@pytest.mark.parametrize("training", [True, False])
def test_network_equals_the_plain_form(training):
    network = _network().train(training)
    torch.testing.assert_close(network(_inputs()), _plain_forecast(network, _inputs()))


def test_gradients_of_the_plain_form():
    network = _network()
    names, parameters = zip(*network.named_parameters(), strict=True)
    forecasts = network(_inputs()), _plain_forecast(network, _inputs())
    gradients = [torch.autograd.grad(out.square().sum(), parameters) for out in forecasts]
    for name, ours, plain in zip(names, *gradients, strict=True):
        torch.testing.assert_close(ours, plain, msg=lambda text, name=name: f"{name}: {text}")


# ------------------------------------------------------------------------------ the network


def test_official_sizes():
    """The published exchange_rate setting, counted by hand."""
    network = AutoformerNetwork(
        context_length=96,
        horizon=96,
        n_variates=8,
        output=PointOutput(),
        covariates=CovariateSpec(n_calendar=4),
    )
    embedding = 3 * 8 * 512 + 4 * 512
    mixer = 4 * (512 * 512 + 512)
    mlp = 2 * 512 * 2048
    # The authors count 2 * 512 more, which are biases that their normalisation takes off again.
    expected = 2 * embedding + 4 * mixer + 3 * mlp + 3 * 512 * 8 + 2 * 512 + 512 * 8 + 8
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network.label_length == 48


def test_initial_weights():
    network = AutoformerNetwork(
        context_length=9, horizon=4, n_variates=40, output=PointOutput(), d_model=128, d_ff=96
    )
    embedding = network.embedding.values.weight
    assert embedding.std().item() == pytest.approx((2 / (3 * 40)) ** 0.5, rel=0.05)
    assert embedding.abs().max() > 3 * embedding.std()  # normal, not uniform
    trend = network.decoder_layers[0].trend.weight
    assert trend.abs().max().item() == pytest.approx((3 * 128) ** -0.5, rel=0.01)
    for linear in (module for module in network.modules() if isinstance(module, nn.Linear)):
        assert linear.weight.abs().max() <= linear.in_features**-0.5


@pytest.mark.parametrize("label_length", [1, 7, 14])
def test_shapes(label_length):
    network = _network(label_length=label_length, n_layers=1, head_delays=True, factor=1.0)
    forecast = network(_inputs())
    forecast.square().mean().backward()
    assert forecast.shape == (4, 9, 3)
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_several_outputs_per_step():
    network = _network(QuantileOutput([0.1, 0.5, 0.6, 0.9]))
    forecast = network(_inputs())
    assert forecast.shape == (4, 9, 3, 4)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_forecast_begins_at_the_mean_of_what_was_observed():
    network = _network()
    for module in (network.seasonal, *(layer.trend for layer in network.decoder_layers)):
        nn.init.zeros_(module.weight)
    nn.init.zeros_(network.seasonal.bias)
    inputs = _inputs()
    expected = inputs.target.mean(dim=1, keepdim=True).expand(4, 9, 3)
    torch.testing.assert_close(network(inputs), expected)
    observed = torch.rand(4, 14, 3, generator=torch.Generator().manual_seed(2)) > 0.4
    mean = torch.stack(
        [
            torch.stack([x[o].mean() for x, o in zip(*pair, strict=True)])
            for pair in zip(inputs.target.mT, observed.mT, strict=True)
        ]
    )
    forecast = network(_inputs(observed=observed))
    torch.testing.assert_close(forecast, mean[:, None].expand(4, 9, 3))


def test_everything_observed_equals_no_mask():
    network = _network().eval()
    masked = network(_inputs(observed=torch.ones(4, 14, 3).bool()))
    torch.testing.assert_close(masked, network(_inputs()))


def test_unknown_history_is_not_a_history_of_zeros():
    """What stands before a series began does not matter; it is level with the rest."""
    network, inputs = _network().eval(), _inputs()
    observed = torch.ones(4, 14, 3).bool()
    observed[:, :6] = False
    forecasts = [
        network(
            Inputs(torch.where(observed, inputs.target, level), observed, calendar=inputs.calendar)
        )
        for level in (0.0, 55.0)
    ]
    assert torch.equal(*forecasts)
    mean = inputs.target[:, 6:].mean(dim=1, keepdim=True)
    level = torch.where(observed, inputs.target, mean)
    torch.testing.assert_close(forecasts[0], network(Inputs(level, calendar=inputs.calendar)))


def test_nothing_observed_is_finite():
    inputs = Inputs(
        torch.zeros(4, 14, 3).double(), torch.zeros(4, 14, 3).bool(), calendar=_inputs().calendar
    )
    assert _network()(inputs).isfinite().all()


@pytest.mark.parametrize(
    ("spec", "columns"),
    [
        (CovariateSpec(), {}),
        (CovariateSpec(past=(0, 3)), {"past": 14}),
        (CovariateSpec(future=(0, 0), n_calendar=2), {"future": 23, "calendar": 23}),
        (CovariateSpec(static=(0, 4)), {"static": 0}),
        (
            CovariateSpec(past=(0,), future=(5,), static=(0,)),
            {"past": 14, "future": 23, "static": 0},
        ),
    ],
)
def test_covariates_are_read(spec, columns):
    network = _network(covariates=spec).eval()
    generator = torch.Generator().manual_seed(4)
    given, changed = {}, {}
    for name, steps in columns.items():
        width = spec.n_calendar if name == "calendar" else len(getattr(spec, name))
        shape = (4, steps, width) if steps else (4, width)
        given[name] = torch.randint(1, 3, shape, generator=generator).double()
        changed[name] = 3 - given[name]
    target = _inputs().target
    forecast = network(Inputs(target, **given))
    assert forecast.shape == (4, 9, 3)
    for name in columns:
        other = network(Inputs(target, **{**given, name: changed[name]}))
        assert not torch.allclose(other, forecast), name


# ---------------------------------------------------------------------------- the estimator


def _model(**parameters):
    small = {"context_length": 24, "horizon": 7, "max_epochs": 2, "random_state": 0, **SMALL}
    return AutoformerForecaster(**{**small, **parameters})


def test_calendar_is_read_unless_declined(wide):
    frame = wide[:120]
    with_calendar, without = _model().fit(frame), _model(calendar_features=False).fit(frame)
    assert with_calendar.module_.covariates.n_known == 4
    assert without.module_.embedding.marks is None
    shifted = frame.set_axis(frame.index + pd.Timedelta(hours=7))
    moved = with_calendar.predict(df=shifted).to_numpy() - with_calendar.predict().to_numpy()
    assert np.abs(moved).max() > 1e-4
    np.testing.assert_array_equal(without.predict(df=shifted), without.predict())


def test_many_windows_are_forecast_in_parts(wide, monkeypatch):
    """The activations held at once do not grow with the windows, and nothing else changes."""
    # As many windows as a batch is not filled up to.
    model, cutoffs = _model(d_model=16, d_ff=16).fit(wide[:120]), np.arange(50, 146)
    whole = model.forecast_windows(wide, cutoffs)
    monkeypatch.setattr(autoformer, "HIDDEN_VALUES", 1)
    sizes = []
    model.module_.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0].target)))
    np.testing.assert_array_equal(model.forecast_windows(wide, cutoffs), whole)
    assert sizes == [16] * 6


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"label_length": 25}, "label_length must be at most context_length=24, got 25"),
        ({"label_length": 0}, "label_length must be"),
        ({"kernel": 4}, "kernel must be odd so that the average is centred, got 4; take 5"),
        ({"n_heads": 4}, "d_model must be a multiple of n_heads=4, got 6"),
        ({"factor": 0}, "factor must be"),
    ],
)
def test_wrong_parameters(wide, parameters, message):
    with pytest.raises(ParameterError, match=f"AutoformerForecaster: {message}"):
        _model(**parameters).fit(wide)
