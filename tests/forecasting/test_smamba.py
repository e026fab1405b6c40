import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tsar
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.layers.covariates import CovariateSpec
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput
from tsar.forecasting.smamba import SMambaNetwork

SIZES = {
    "context_length": 23, "horizon": 5, "d_model": 8, "d_ff": 11, "n_layers": 3,
    "d_state": 3, "d_conv": 2, "expand": 2,
}  # fmt: skip
SMALL = {"context_length": 48, "horizon": 12, "d_model": 16, "random_state": 0, "device": "cpu"}


def _network(output=None, **options):
    torch.manual_seed(0)
    options = {"dropout": 0.0, **SIZES, **options}
    return SMambaNetwork(output=output or PointOutput(), **options).double()


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _plain_forecast(network, target, calendar):
    """The published network, its Mambas a token at a time."""
    n_variates = target.shape[2]
    location = target.mean(1, keepdim=True)
    scale = (target.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    series = torch.cat([(target - location) / scale, calendar[:, :23]], dim=2)
    x = F.linear(series.mT, *network.embedding.project.parameters())
    for block in network.encoder.blocks:
        mixed = torch.zeros_like(x)
        for mixer, places in [
            (block.mixer.ahead, range(x.shape[1])),
            (block.mixer.back, reversed(range(x.shape[1]))),
        ]:
            state = mixer.init_state(len(x))
            for place in places:
                y, state = mixer.step(x[:, place], state)
                mixed[:, place] += y
        x = F.layer_norm(x + mixed, [8], block.mixer_norm.weight, block.mixer_norm.bias)
        hidden = F.gelu(F.linear(x, block.mlp.expand.weight, block.mlp.expand.bias))
        y = F.linear(hidden, block.mlp.contract.weight, block.mlp.contract.bias)
        x = F.layer_norm(x + y, [8], block.mlp_norm.weight, block.mlp_norm.bias)
    norm = network.encoder.final_norm
    x = F.layer_norm(x, [8], norm.weight, norm.bias)[:, :n_variates]
    return F.linear(x, network.head.weight, network.head.bias).mT * scale + location


@pytest.mark.parametrize("n_calendar", [0, 4])
@pytest.mark.parametrize("scan_backend", [None, "reference", "chunked"])
def test_network_equals_a_plain_one(n_calendar, scan_backend):
    covariates = CovariateSpec(n_calendar=n_calendar)
    network = _network(scan_backend=scan_backend, covariates=covariates)
    for p in network.parameters():  # norms that do something
        nn.init.normal_(p, std=0.3)
    target, calendar = _random(6, 23, 7), _random(6, 28, n_calendar, seed=2)
    forecast = network(Inputs(target, calendar=calendar if n_calendar else None))
    assert forecast.shape == (6, 5, 7)
    torch.testing.assert_close(forecast, _plain_forecast(network, target, calendar))


def test_official_sizes():
    """The published ETTh1 setting: the parameters counted by hand."""
    network = SMambaNetwork(context_length=96, horizon=96, output=PointOutput())
    linear = 256 * 256 + 256
    # In and out, convolution, what is selected, step sizes, decays, way around.
    mamba = 3 * 256 * 256 + 256 * 3 + 256 * (16 + 4) + 16 * 256 + 256 + 256 * 2 + 256
    expected = 96 * 256 + 256 + 2 * (2 * mamba + 2 * linear + 4 * 256) + 2 * 256 + 256 * 96 + 96
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network(Inputs(torch.randn(2, 96, 7))).shape == (2, 96, 7)


def test_variates_inform_each_other_in_both_directions():
    network, target = _network(), _random(4, 23, 3).requires_grad_()
    forecast = network(Inputs(target))
    for variate in range(3):
        (grad,) = torch.autograd.grad(forecast[..., variate].sum(), target, retain_graph=True)
        assert (grad.abs().sum(dim=(0, 1)) > 1e-6).all()


def test_a_variate_that_was_never_observed_changes_no_other():
    network, target = _network(), _random(4, 23, 5)
    observed = torch.ones(4, 23, 5).bool()
    observed[..., 2] = False
    other = torch.where(observed, target, 9.0)
    forecast, changed = (network(Inputs(x, observed)) for x in (target, other))
    places = [0, 1, 3, 4]
    assert torch.equal(changed[..., places], forecast[..., places])
    nothing = network(Inputs(torch.zeros(4, 23, 3).double(), torch.zeros(4, 23, 3).bool()))
    assert nothing.isfinite().all()


def test_covariates_of_every_kind_reach_the_forecast():
    spec = CovariateSpec(past=(0,), future=(0, 0), static=(0,), n_calendar=2)
    network, parts = _network(covariates=spec), {
        "past": _random(4, 23, 1, seed=2), "future": _random(4, 28, 2, seed=3),
        "static": _random(4, 1, seed=4), "calendar": _random(4, 28, 2, seed=5),
    }  # fmt: skip
    target = _random(4, 23, 3)
    forecast = network(Inputs(target, **parts))
    for kind, part in parts.items():
        changed = network(Inputs(target, **(parts | {kind: part.roll(1, dims=0)})))
        assert ((changed - forecast).abs().amax(dim=(1, 2)) > 1e-6).all(), kind


def test_several_outputs_per_step():
    forecast = _network(QuantileOutput([0.1, 0.5, 0.6, 0.9]))(Inputs(_random(3, 23, 2)))
    assert forecast.shape == (3, 5, 2, 4)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_dropout_is_where_the_authors_have_it():
    network = _network(dropout=0.2)
    block = network.encoder.blocks[0]
    assert block.mixer_dropout.p == 0.0
    assert [part.p for part in (network.dropout, block.mlp.dropout, block.mlp_dropout)] == [0.2] * 3
    network(Inputs(_random(4, 23, 3))).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_one_variate_says_something_of_the_other():
    """One is the other, half a day later: it knows what the other will be."""
    noise = np.random.default_rng(0).normal(size=(1500, 1))
    index = pd.date_range("2024-01-01", periods=1500, freq="h")
    values = np.hstack([noise, np.roll(noise, -12)])
    frame = pd.DataFrame(values, index=index, columns=["late", "early"]).iloc[:-12]
    settings = {**SMALL, "d_model": 64, "n_layers": 1, "calendar_features": False, "batch_size": 32}
    model = tsar.SMamba(max_epochs=12, learning_rate=3e-3, dropout=0.0, **settings)
    forecast = model.fit(frame.iloc[:-12]).predict()
    errors = (forecast - frame.iloc[-12:]).abs().mean()
    assert errors["late"] < 0.6 * errors["early"]


def test_the_scan_that_ran_is_recorded(wide, tmp_path):
    model = tsar.SMamba(max_epochs=1, **SMALL)
    assert not hasattr(model, "scan_backend_")
    assert model.fit(wide).scan_backend_ == "chunked"
    forced = tsar.SMamba(max_epochs=1, scan_backend="reference", **SMALL).fit(wide)
    assert forced.scan_backend_ == "reference"
    pd.testing.assert_frame_equal(forced.predict(), model.predict(), rtol=1e-4)
    forced.set_params(scan_backend=None).save(tmp_path / "model")
    assert tsar.load(tmp_path / "model").scan_backend_ == "reference"


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"d_state": 0}, r"SMamba: d_state must be an integer in \[1, inf\), got 0"),
        ({"scan_backend": "chunkde"}, "scan_backend must be .*did you mean 'chunked'"),
        ({"scan_backend": "mamba_ssm"}, "SMamba: .* needs an accelerator, got device 'cpu'"),
    ],
)
def test_bad_parameters(wide, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.SMamba(**(SMALL | parameters)).fit(wide)


@pytest.mark.parametrize("mixer", ["mamba", "bidirectional_mamba"])
def test_mamba_in_other_models_needs_no_heads(wide, mixer):
    for kind in (tsar.PatchTST, tsar.iTransformer):
        model = kind(max_epochs=1, mixer=mixer, n_heads=5, **SMALL)
        assert np.isfinite(model.fit(wide).predict().to_numpy()).all()


def test_another_mixer_has_no_scan():
    index = pd.date_range("2024-01-01", periods=60)
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), index, list("abc"))
    model = tsar.SMamba(
        context_length=12, horizon=4, d_model=8, d_ff=8, mixer="attention", n_heads=2, max_epochs=1
    )
    assert model.fit(frame).scan_backend_ is None
    assert model.set_params(mixer="mamba").fit(frame).scan_backend_ == "chunked"
    with pytest.raises(ParameterError, match="did you mean 'attention'"):
        model.set_params(mixer="atention").fit(frame)
    with pytest.raises(ParameterError, match="d_model must be a multiple of n_heads"):
        model.set_params(mixer="attention", n_heads=3).fit(frame)
    with pytest.raises(ParameterError, match="scan_backend must be None with mixer='attention'"):
        model.set_params(n_heads=2, scan_backend="chunked").fit(frame)
