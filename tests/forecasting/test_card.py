import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tsar
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.card import CARDNetwork
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

SIZES = {
    "context_length": 23, "horizon": 5, "patch_length": 6, "stride": 4, "d_model": 12,
    "n_heads": 4, "d_ff": 11, "n_layers": 3, "n_slots": 7, "merge_size": 2,
}  # fmt: skip
SMALL = {"context_length": 48, "horizon": 12, "random_state": 0, "device": "cpu"}


def _network(output=None, **options):
    torch.manual_seed(0)
    options = {"dropout": 0.0, **SIZES, **options}
    network = CARDNetwork(output=output or PointOutput(), **options).double()
    for weights in network.parameters():  # norms and positions that do something
        nn.init.normal_(weights, std=0.3)
    return network


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _norm(x, norm, training):
    """Statistics of each feature over all tokens."""
    flat = x.reshape(-1, x.shape[-1])
    mean, variance = norm.running_mean, norm.running_var
    if training:
        mean, variance = flat.mean(0), flat.var(0, correction=0)
    return (x - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias


def _block(block, tokens, masks, training):
    """Sequences one by one, then what needs all of them: tokens and masks are lists."""
    pairs = [
        block.mixer.branches(x[None], mask=None if mask is None else mask[None])
        for x, mask in zip(tokens, masks, strict=True)
    ]
    sums = torch.stack(tokens)
    for place in range(2):
        branch = torch.cat([pair[place] for pair in pairs])
        mlp = block.mlps[place]
        hidden = F.gelu(mlp.expand(_norm(branch, block.branch_norms[place], training)))
        sums = sums + mlp.contract(hidden)
    return _norm(sums, block.norm, training)


def _plain_forecast(network, target, observed, training):
    """The published network: a window, a variate and a patch at a time."""
    batch, _, n_variates = target.shape
    series = {(b, c): target[b, :, c] for b in range(batch) for c in range(n_variates)}
    tokens, seen, units = {}, {}, {}
    for (b, c), x in series.items():
        o = torch.ones(23, dtype=torch.bool) if observed is None else observed[b, :, c]
        location, scale = torch.zeros(()).double(), torch.ones(()).double()
        if o.any():
            location, scale = x[o].mean(), (x[o].var(correction=0) + 1e-5).sqrt()
        first = int(o.nonzero()[0]) if o.any() else 23
        z = torch.where(torch.arange(23) >= first, (x - location) / scale, 0.0)
        starts = [1, 5, 9, 13, 17]  # a row of four that ends with the window
        embedded = [
            network.embedding.project(z[s : s + 6]) + network.position.weight[k]
            for k, s in enumerate(starts)
        ]
        tokens[b, c] = torch.stack([network.first_token, *embedded])
        some = [bool(o[s : s + 6].any()) for s in starts]
        seen[b, c] = torch.tensor([any(some), *some])
        units[b, c] = location, scale
    for layer in network.layers:
        places = [(b, t) for b in range(batch) for t in range(6)]
        rows = [torch.stack([tokens[b, c][t] for c in range(n_variates)]) for b, t in places]
        masks = [torch.stack([seen[b, c][t] for c in range(n_variates)]) for b, t in places]
        masks = [None if observed is None else m if m.any() else ~m for m in masks]
        across = dict(zip(places, _block(layer.across, rows, masks, training), strict=True))
        rows = [torch.stack([across[b, t][c] for t in range(6)]) for b, c in series]
        masks = [None if observed is None else m if m.any() else ~m for m in seen.values()]
        along = _block(layer.along, rows, masks, training)
        before = torch.stack(list(tokens.values()))
        after = _norm(before + layer.project(torch.stack(rows) + along), layer.norm, training)
        tokens = dict(zip(series, after, strict=True))
    forecast = torch.empty(batch, 5, n_variates, dtype=torch.float64)
    for (b, c), token in tokens.items():
        location, scale = units[b, c]
        forecast[b, :, c] = network.head(token.flatten()) * scale + location
    return forecast


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("holes", [True, False])
def test_network_equals_a_plain_one(training, holes):
    network, target = _network(), _random(4, 23, 3)
    network(Inputs(_random(9, 23, 2, seed=5)))  # statistics that are not those of the start
    network.train(training)
    observed = None
    if holes:
        observed = torch.rand(4, 23, 3, generator=torch.Generator().manual_seed(2)) > 0.6
        observed[0, :15], observed[1, :, 1] = False, False
    forecast = network(Inputs(target, observed))
    # A pass moves the statistics, but not what it is normalised by.
    torch.testing.assert_close(forecast, _plain_forecast(network, target, observed, training))


def test_official_sizes():
    """The published ETTh1 setting: 33,536 parameters, some of which enter no forecast.

    Those are a map of each of four mixers, of the mean and scale, and the slots along patches.
    """
    network = CARDNetwork(context_length=96, horizon=96, output=PointOutput())
    unused = 4 * (16 * 16 + 16) + (2 * 16 + 16) + 2 * 2 * (8 * 8 + 8)
    assert sum(p.numel() for p in network.parameters()) == 33_536 - unused
    assert network(Inputs(torch.randn(2, 96, 7))).shape == (2, 96, 7)


def test_variates_inform_each_other_in_both_directions():
    network, target = _network().eval(), _random(4, 23, 3).requires_grad_()
    forecast = network(Inputs(target))
    for variate in range(3):
        (grad,) = torch.autograd.grad(forecast[..., variate].sum(), target, retain_graph=True)
        assert (grad.abs().sum(dim=(0, 1)) > 1e-6).all()


def test_a_variate_that_was_never_observed_changes_no_other():
    network, target = _network().eval(), _random(4, 23, 5)
    observed = torch.ones(4, 23, 5).bool()
    observed[..., 2] = False
    forecast = network(Inputs(target, observed))
    changed = network(Inputs(torch.where(observed, target, 9.0), observed))
    places = [0, 1, 3, 4]
    torch.testing.assert_close(changed[..., places], forecast[..., places], rtol=0, atol=0)
    nothing = network(Inputs(torch.zeros(4, 23, 3).double(), torch.zeros(4, 23, 3).bool()))
    assert nothing.isfinite().all()


def test_more_variates_than_patches_are_asked_for():
    """In the authors' code, variates beyond the number of tokens ask nothing."""
    network, target = _network().eval(), _random(2, 23, 17)
    changed = target.clone()
    changed[..., 0] = changed[..., 0].flip(1)
    moved = (network(Inputs(changed)) - network(Inputs(target))).abs().amax(dim=(0, 1))
    assert (moved > 1e-6).all()


def test_several_outputs_per_step():
    forecast = _network(QuantileOutput([0.1, 0.5, 0.6, 0.9]))(Inputs(_random(3, 23, 2)))
    assert forecast.shape == (3, 5, 2, 4)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_dropout_reaches_every_part():
    network = _network(dropout=0.2)
    layer = network.layers[0]
    parts = [
        network.dropout,
        layer.dropout,
        layer.across.mixer.dropout,
        layer.along.mlps[1].dropout,
    ]
    assert [part.p for part in parts] == [0.2] * 4
    network(Inputs(_random(4, 23, 3))).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_another_mixer_has_one_branch():
    network = _network(mixer="attention")
    assert len(network.layers[0].across.mlps) == 1
    assert network(Inputs(_random(4, 23, 3))).shape == (4, 5, 3)


def test_one_variate_says_something_of_the_other():
    """One is the other, half a day later: it knows what the other will be."""
    noise = np.random.default_rng(0).normal(size=(1500, 1))
    index = pd.date_range("2024-01-01", periods=1500, freq="h")
    values = np.hstack([noise, np.roll(noise, -12)])
    frame = pd.DataFrame(values, index=index, columns=["late", "early"]).iloc[:-12]
    sizes = {"patch_length": 4, "stride": 4, "d_model": 32, "n_layers": 1}
    model = tsar.CARD(max_epochs=12, learning_rate=5e-3, dropout=0.0, **SMALL, **sizes)
    forecast = model.fit(frame.iloc[:-12]).predict()
    errors = (forecast - frame.iloc[-12:]).abs().mean()
    assert errors["late"] < 0.6 * errors["early"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_slots": 0}, r"CARD: n_slots must be an integer in \[1, inf\), got 0"),
        ({"patch_length": 49}, "CARD: patch_length must be at most context_length=48, got 49"),
        ({"d_model": 15}, "CARD: d_model must be a multiple of n_heads=2, got 15"),
        ({"merge_size": 3}, "CARD: merge_size must divide n_heads=2, got 3"),
        ({"mixer": "dual_atention"}, "did you mean 'dual_attention'"),
    ],
)
def test_bad_parameters(wide, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.CARD(**(SMALL | parameters)).fit(wide)
