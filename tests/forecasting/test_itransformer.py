import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import tsar
from tsar.core.dropout import set_generator
from tsar.data.windows import Batch, Inputs
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.itransformer import iTransformerNetwork
from tsar.forecasting.layers.covariates import CovariateSpec
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

SIZES = {
    "context_length": 23, "horizon": 5, "d_model": 8, "n_heads": 2, "d_ff": 11, "n_layers": 3,
}  # fmt: skip
SMALL = {"context_length": 48, "horizon": 12, "d_model": 16, "random_state": 0, "device": "cpu"}


def _network(output=None, **options):
    torch.manual_seed(0)
    options = {"dropout": 0.0, **SIZES, **options}
    return iTransformerNetwork(output=output or PointOutput(), **options).double()


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _torch_layers(network):
    """Build the same blocks from torch's own encoder layers."""
    layers = []
    for block in network.encoder.blocks:
        layer = nn.TransformerEncoderLayer(
            8, 2, 11, dropout=0.0, activation="gelu", batch_first=True, dtype=torch.float64
        )
        parts = [
            (layer.self_attn.in_proj_weight, block.mixer.query_key_value.weight),
            (layer.self_attn.in_proj_bias, block.mixer.query_key_value.bias),
        ]
        for theirs, ours in [
            (layer.self_attn.out_proj, block.mixer.output),
            (layer.linear1, block.mlp.expand),
            (layer.linear2, block.mlp.contract),
            (layer.norm1, block.mixer_norm),
            (layer.norm2, block.mlp_norm),
        ]:
            parts += [(theirs.weight, ours.weight), (theirs.bias, ours.bias)]
        with torch.no_grad():
            for theirs, ours in parts:
                theirs.copy_(ours)
        layers.append(layer)
    return layers


def _plain_forecast(network, target, observed, calendar):
    """The published network, its windows one after the other."""
    layers = _torch_layers(network)
    weight, bias = network.embedding.project.weight, network.embedding.project.bias
    forecasts = []
    for b in range(len(target)):
        tokens, units, hidden = [], [], []
        for c in range(target.shape[2]):
            values = target[b, observed[b, :, c], c]
            location = values.mean() if len(values) else torch.tensor(0.0)
            scale = (values.var(correction=0) + 1e-5).sqrt() if len(values) else torch.tensor(1.0)
            started = observed[b, :, c].cumsum(0) > 0
            tokens.append(weight @ ((target[b, :, c] - location) / scale * started) + bias)
            units.append((location, scale))
            hidden.append(not len(values))
        for k in range(calendar.shape[2]):
            tokens.append(weight @ calendar[b, :23, k] + bias)
            hidden.append(False)
        x = torch.stack(tokens)[None]
        for layer in layers:
            x = layer(x, src_key_padding_mask=torch.tensor([hidden]))
        x = nn.functional.layer_norm(
            x, [8], network.encoder.final_norm.weight, network.encoder.final_norm.bias
        )
        raw = x[0] @ network.head.weight.T + network.head.bias
        columns = [raw[c] * scale + location for c, (location, scale) in enumerate(units)]
        forecasts.append(torch.stack(columns, dim=1))
    return torch.stack(forecasts)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("n_calendar", [0, 4])
def test_network_equals_torch_layers(gaps, n_calendar):
    network = _network(covariates=CovariateSpec(n_calendar=n_calendar))
    for p in network.parameters():  # norms that do something
        nn.init.normal_(p, std=0.3)
    target, calendar = _random(6, 23, 3), _random(6, 28, n_calendar, seed=2)
    observed = torch.ones(6, 23, 3).bool()
    if gaps:
        observed = _random(6, 23, 3, seed=3) > 0.5
        observed[0, :9] = False
        observed[1, :, 2] = False
    inputs = Inputs(target, observed if gaps else None, calendar=calendar if n_calendar else None)
    expected = _plain_forecast(network, target, observed, calendar)
    torch.testing.assert_close(network(inputs), expected)


def test_official_sizes():
    """The published ETTh1 setting: the parameters counted by hand."""
    network = iTransformerNetwork(
        context_length=96, horizon=96, d_model=256, d_ff=256, output=PointOutput()
    )
    linear = 256 * 256 + 256
    expected = 96 * 256 + 256 + 2 * (6 * linear + 4 * 256) + 2 * 256 + 256 * 96 + 96
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network(Inputs(torch.randn(2, 96, 7))).shape == (2, 96, 7)


def test_the_order_of_variates_does_not_matter():
    network, order = _network(covariates=CovariateSpec(n_calendar=2)), [3, 0, 4, 1, 2]
    target, calendar = _random(4, 23, 5), _random(4, 28, 2, seed=2)
    forecast = network(Inputs(target, calendar=calendar))
    turned = network(Inputs(target[..., order], calendar=calendar))
    torch.testing.assert_close(turned, forecast[..., order])


def test_variates_inform_each_other():
    network, target = _network(), _random(4, 23, 3)
    other = target.clone()
    other[..., 2] = _random(4, 23, seed=5)
    changed = network(Inputs(other)) - network(Inputs(target))
    assert (changed[..., :2].abs() > 1e-6).any(dim=1).all()


def test_scale_and_location_pass_through():
    network, target = _network(), 100 * _random(4, 23, 3)
    factor, shift = torch.tensor([3.0, 0.5, 20.0]), torch.tensor([1000.0, -7.0, 0.0])
    forecast = network(Inputs(factor * target + shift))
    expected = factor * network(Inputs(target)) + shift
    torch.testing.assert_close(forecast, expected, rtol=1e-5, atol=1e-3)


def test_a_variate_that_was_never_observed_changes_no_other():
    network, target = _network(), _random(4, 23, 3)
    observed = torch.ones(4, 23, 3).bool()
    observed[..., 1] = False
    other = torch.where(observed, target, 9.0)
    forecast, changed = (network(Inputs(x, observed)) for x in (target, other))
    assert torch.equal(changed[..., [0, 2]], forecast[..., [0, 2]])
    without = network(Inputs(target[..., [0, 2]]))
    torch.testing.assert_close(forecast[..., [0, 2]], without)


def test_nothing_observed_is_finite():
    network = _network()
    forecast = network(Inputs(torch.zeros(4, 23, 3).double(), torch.zeros(4, 23, 3).bool()))
    assert forecast.isfinite().all()


def test_several_outputs_per_step():
    forecast = _network(QuantileOutput([0.1, 0.5, 0.6, 0.9]))(Inputs(_random(3, 23, 2)))
    assert forecast.shape == (3, 5, 2, 4)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_dropout_is_where_the_authors_have_it():
    network = _network(dropout=0.2)
    block = network.encoder.blocks[0]
    drops = [block.mixer_dropout, block.mlp_dropout, block.mlp.dropout, block.mixer.dropout]
    assert [part.p for part in [network.dropout, *drops]] == [0.2] * 5
    network(Inputs(_random(4, 23, 3))).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_a_training_step_sees_a_share_of_the_variates():
    network, generator = _network(variate_share=0.4), torch.Generator().manual_seed(4)
    set_generator(network, generator)
    observed = _random(4, 23, 6, seed=2) > -1
    known = _random(4, 5, 6, seed=3) > 0
    batch = Batch(Inputs(_random(4, 23, 6), observed), _random(4, 5, 6), known, None)
    drawn = []
    for _ in range(30):
        forecast, target, counted, *_ = network.compare(batch)
        (places,) = (batch.target[0, 0, :, None] == target[0, 0]).any(dim=1).nonzero(as_tuple=True)
        assert len(places) == 2
        part = Inputs(batch.inputs.target[..., places], observed[..., places])
        torch.testing.assert_close(forecast, network(part))
        assert torch.equal(target, batch.target[..., places])
        assert torch.equal(counted, known[..., places])
        drawn.append(tuple(places.tolist()))
    assert len(set(drawn)) > 8  # of the fifteen pairs
    assert network(batch.inputs).shape == (4, 5, 6)


def test_a_whole_share_compares_everything():
    network, batch = _network(), Batch(Inputs(_random(4, 23, 3)), _random(4, 5, 3), None, None)
    forecast, target, known, *_ = network.compare(batch)
    torch.testing.assert_close(forecast, network(batch.inputs))
    assert target is batch.target and known is None


def test_training_on_shares_continues_where_it_was_left(wide):
    parameters = {"variate_share": 0.5, "early_stopping": False, **SMALL}
    whole = tsar.iTransformer(max_epochs=4, **parameters).fit(wide).predict()
    half = tsar.iTransformer(max_epochs=2, **parameters).fit(wide).partial_fit(wide)
    pd.testing.assert_frame_equal(half.predict(), whole)


def test_variates_that_were_not_fitted_are_forecast():
    """Trained on three of nine waves of one period, it forecasts the other six as well."""
    steps, phases = np.arange(500)[:, None], np.linspace(0, 2 * np.pi, 9, endpoint=False)
    values = (1 + np.arange(9)) * np.sin(2 * np.pi * steps / 24 + phases)
    index = pd.date_range("2024-01-01", periods=500, freq="h")
    waves = pd.DataFrame(values, index=index, columns=[f"w{i}" for i in range(9)])
    model = tsar.iTransformer(
        max_epochs=20, learning_rate=3e-3, dropout=0.0, variate_share=0.7, **SMALL
    )
    forecast = model.fit(waves[["w0", "w3", "w6"]]).predict(
        df=waves.iloc[:450], allow_new_variates=True
    )
    errors = (forecast - waves.iloc[450:462]).abs().mean() / waves.std()
    assert list(errors.index) == list(waves.columns) and errors.max() < 0.25


COVARIATES = CovariateSpec(past=(0, 3), future=(0,), static=(0, 4), n_calendar=2)


def _with_covariates():
    codes = _random(4, 28, seed=6).gt(0).double() + 1
    return Inputs(
        _random(4, 23, 3),
        past=torch.stack([_random(4, 23, seed=2), codes[:, :23]], dim=-1),
        future=_random(4, 28, 1, seed=3),
        static=torch.stack([_random(4, seed=4), codes[:, 0]], dim=-1),
        calendar=_random(4, 28, 2, seed=5),
    )


def test_covariates_are_tokens_beside_the_variates():
    network, inputs = _network(covariates=COVARIATES), _with_covariates()
    seen = []
    network.encoder.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    assert network(inputs).shape == (4, 5, 3)
    parts = network.covariates
    past = torch.cat(
        [inputs.past[..., :1], parts.encoder.past.embeddings[0](inputs.past[..., 1].long())], dim=-1
    )
    codes = inputs.static[:, 1].long()
    static = torch.cat([inputs.static[:, :1], parts.encoder.static.embeddings[0](codes)], dim=-1)
    expected = [network.embedding(network.revin(inputs.target)[0])]
    expected += [network.embedding(inputs.calendar[:, :23])]
    for columns, tokens in ((past, parts.past), (inputs.future, parts.future)):
        for k in range(columns.shape[-1]):
            token = columns[..., k] @ tokens.weight[k] + tokens.bias[k]
            expected.append(token[:, None])
    expected.append((static @ parts.static.weight.T + parts.static.bias)[:, None])
    torch.testing.assert_close(seen[0], torch.cat(expected, dim=1))
    assert seen[0].shape == (4, 3 + 2 + (1 + 2) + 1 + 1, 8)


@pytest.mark.parametrize("kind", ["past", "future", "static", "calendar"])
def test_every_kind_of_covariate_reaches_the_forecast(kind):
    network, inputs = _network(covariates=COVARIATES), _with_covariates()
    changed = dataclasses.replace(inputs, **{kind: getattr(inputs, kind).roll(1, dims=0)})
    difference = (network(changed) - network(inputs)).abs()
    assert (difference.amax(dim=(1, 2)) > 1e-6).all()


def test_a_future_covariate_halves_the_error_by_its_token_alone():
    """It explains 80 % of the variance of both variates in the same way."""
    rng, steps = np.random.default_rng(3), np.arange(400)
    planted = rng.normal(size=(400, 1))
    rest = np.sin(2 * np.pi * steps[:, None] / 12) + 0.3 * rng.normal(size=(400, 2))
    values = np.sqrt(0.8) * planted + np.sqrt(0.2) * rest / rest.std(axis=0)
    index = pd.date_range("2024-03-01", periods=400, freq="h")
    frame = pd.DataFrame(values, index=index, columns=["a", "b"]).assign(planted=planted)

    class OnlyTokens(tsar.iTransformer):
        def _covariates_beside(self, covariates):
            return CovariateSpec()

    small = {**SMALL, "context_length": 24, "horizon": 6, "n_heads": 2, "d_ff": 32}
    model = OnlyTokens(max_epochs=20, learning_rate=5e-3, batch_size=32, **small)
    cutoffs = np.arange(300, 395)
    truth = values[cutoffs[:, None] + np.arange(6)]
    errors = []
    for covariate, data in ((None, frame[["a", "b"]]), ("planted", frame)):
        fitted = model.set_params(future_covariates=covariate).fit(data[:300])
        errors.append(np.abs(fitted.forecast_windows(data, cutoffs) - truth).mean())
    assert errors[1] < errors[0] / 2


def test_new_variates_need_a_model_without_future_covariates(wide):
    new = wide.assign(new=wide["load"])
    model = tsar.iTransformer(max_epochs=1, past_covariates="price", **SMALL).fit(wide)
    assert model.predict(df=new, allow_new_variates=True).shape == (12, 3)
    model.set_params(past_covariates=None, future_covariates="price").fit(wide)
    with pytest.raises(DataError, match=r"not fitted \['new'\]; pass the fitted ones"):
        model.predict(df=new, allow_new_variates=True)


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"d_model": 10, "n_heads": 4}, "d_model must be a multiple of n_heads=4, got 10"),
        ({"mixer": "atention"}, "iTransformer: .*did you mean 'attention'"),
        ({"variate_share": 0.0}, r"variate_share must be a number in \(0, 1\], got 0.0"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1.0"),
    ],
)
def test_bad_parameters(wide, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.iTransformer(**(SMALL | parameters)).fit(wide)


def test_moving_one_variate_in_time_moves_the_others(wide):
    """Variates are joined by date: a step's shift of one is seen in the forecast of another."""
    model = tsar.iTransformer(max_epochs=1, **SMALL).fit(wide)
    shifted = wide.assign(trend=wide["trend"].shift(1, fill_value=0.0))
    with pytest.raises(AssertionError):
        pd.testing.assert_series_equal(
            model.predict(df=shifted)["load"], model.predict(df=wide)["load"]
        )
