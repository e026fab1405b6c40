import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tsar
from tsar.core.mixers import Bidirectional, Mamba, SoftmaxAttention
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput
from tsar.forecasting.tsm2 import TSM2Network

SIZES = {
    "context_length": 23, "horizon": 5, "patch_length": 6, "stride": 4, "d_model": 8,
    "n_layers": 3, "d_state": 3, "d_conv": 2, "expand": 2,
}  # fmt: skip
SMALL = {"context_length": 48, "horizon": 12, "random_state": 0, "device": "cpu"}


def _network(output=None, **options):
    torch.manual_seed(0)
    options = {"dropout": 0.0, **SIZES, **options}
    network = TSM2Network(output=output or PointOutput(), **options).double()
    for weights in network.parameters():  # norms and positions that do something
        nn.init.normal_(weights, std=0.3)
    return network


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _one_way(mixer, tokens, places):
    """A token at a time; those that are not in ``places`` are not there."""
    mixed, state = torch.zeros_like(tokens), mixer.init_state(1)
    for place in places:
        y, state = mixer.step(tokens[None, place], state)
        mixed[place] = y[0]
    return mixed


def _plain_forecast(network, target):
    """The network of the paper, a window, a variate and a patch at a time."""
    batch, _, n_variates = target.shape
    forecast = torch.empty(batch, 5, n_variates, dtype=torch.float64)
    for b in range(batch):
        location = target[b].mean(0)
        scale = (target[b].var(0, correction=0) + 1e-5).sqrt()
        z = ((target[b] - location) / scale).T
        starts = [1, 5, 9, 13, 17]
        x = torch.stack([network.embedding.project(z[:, s : s + 6]) for s in starts], dim=1)
        x = x + network.position.weight  # (C, P, D)
        patches, variates = [x], [x]
        for layer in network.layers:
            x = sum(w * y for w, y in zip(layer.alpha, patches, strict=True))
            x = x + sum(w * y for w, y in zip(layer.beta, variates, strict=True))
            normed = F.layer_norm(x, [8], layer.along_norm.weight, layer.along_norm.bias)
            mixed = torch.stack([_one_way(layer.along, row, range(5)) for row in normed])
            patches.append(x + mixed)
            x = sum(w * y for w, y in zip(layer.theta, patches, strict=True))
            x = x + sum(w * y for w, y in zip(layer.gamma, variates, strict=True))
            normed = F.layer_norm(x, [8], layer.across_norm.weight, layer.across_norm.bias)
            forth = torch.arange(n_variates).tolist()
            mixed = torch.stack(
                [
                    _one_way(layer.across.ahead, normed[:, p], forth)
                    + _one_way(layer.across.back, normed[:, p], forth[::-1])
                    for p in range(5)
                ],
                dim=1,
            )
            variates.append(x + mixed)
        x = variates[-1]
        x = F.layer_norm(x, [8], network.feature_norm.weight, network.feature_norm.bias).mT
        x = F.layer_norm(x, [5], network.patch_norm.weight, network.patch_norm.bias).mT
        for c in range(n_variates):
            forecast[b, :, c] = network.head(x[c].flatten()) * scale[c] + location[c]
    return forecast


def test_network_equals_a_plain_one():
    network, target = _network(), _random(3, 23, 4)
    torch.testing.assert_close(network(Inputs(target)), _plain_forecast(network, target))


def test_sizes():
    """Two layers of the defaults, counted by hand."""
    network = TSM2Network(context_length=512, horizon=96, output=PointOutput())
    width, rank = 64, 2
    # In and out, convolution, what is selected, step sizes, decays, way around.
    mamba = 3 * 32 * width + width * 5 + width * (rank + 32) + rank * width + width
    mamba += width * 16 + width
    layers = 2 * (3 * mamba + 2 * 2 * 32) + (1 + 1 + 2 + 1) + (2 + 2 + 3 + 2)
    n_patches = 63
    ends = 16 * 32 + 32 + n_patches * 32 + 2 * 32 + 2 * n_patches + n_patches * 32 * 96 + 96
    assert sum(p.numel() for p in network.parameters()) == layers + ends


def test_weights_of_the_layer_before_make_a_plain_stack():
    network, target = _network(), _random(3, 23, 4)
    with torch.no_grad():
        for layer in network.layers:
            for weights in (layer.alpha, layer.beta, layer.theta, layer.gamma):
                weights.zero_()
            layer.beta[-1] = layer.theta[-1] = 1.0
    x = network.position(network.embedding(network.revin(target)[0]))
    for layer in network.layers:
        x = x + layer.along(layer.along_norm(x))
        rows = x.unflatten(0, (3, 4)).transpose(1, 2).flatten(0, 1)
        rows = rows + layer.across(layer.across_norm(rows))
        x = rows.unflatten(0, (3, 5)).transpose(1, 2).flatten(0, 1)
    x = network.patch_norm(network.feature_norm(x).mT).mT
    _, location, scale = network.revin(target)
    expected = network.head(x.flatten(1)).view(3, 4, 5).mT * scale + location
    torch.testing.assert_close(network(Inputs(target)), expected)


def test_tied_directions_turn_with_the_variates():
    network, target = _network(), _random(3, 23, 4)
    for layer in network.layers:
        layer.across.back.load_state_dict(layer.across.ahead.state_dict())
    forecast, turned = network(Inputs(target)), network(Inputs(target.flip(2)))
    torch.testing.assert_close(turned, forecast.flip(2))


def test_every_weight_is_reached():
    network = _network(dropout=0.2)
    network(Inputs(_random(4, 23, 3))).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_later_patch_moves_no_earlier_token_of_its_own():
    """Along time, a token is made of itself and those before it."""
    layer, x = _network().layers[0], _random(1, 2, 5, 8)
    changed = x.clone()
    changed[:, :, 3] += 1
    before, after = (layer([y], [y], None, None)[0][-1] for y in (x, changed))
    moved = (before != after).any(dim=-1)[0]
    assert moved[:, 3:].all() and not moved[:, :3].any()


def test_a_variate_that_was_never_observed_changes_no_other():
    network, target = _network(), _random(4, 23, 5)
    observed = torch.ones(4, 23, 5).bool()
    observed[..., 2] = False
    forecast = network(Inputs(target, observed))
    changed = network(Inputs(torch.where(observed, target, 9.0), observed))
    places = [0, 1, 3, 4]
    torch.testing.assert_close(changed[..., places], forecast[..., places], rtol=0, atol=0)
    nothing = network(Inputs(torch.zeros(4, 23, 3).double(), torch.zeros(4, 23, 3).bool()))
    assert nothing.isfinite().all()


def test_other_mixers():
    assert isinstance(_network().layers[0].across, Bidirectional)
    assert isinstance(_network().layers[0].along, Mamba)
    network = _network(mixer="attention", n_heads=2)
    assert isinstance(network.layers[0].across, SoftmaxAttention)
    assert network(Inputs(_random(4, 23, 3))).shape == (4, 5, 3)


def test_several_outputs_per_step():
    forecast = _network(QuantileOutput([0.1, 0.5, 0.6, 0.9]))(Inputs(_random(3, 23, 2)))
    assert forecast.shape == (3, 5, 2, 4)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_a_wave_is_learned(wide):
    model = tsar.TSM2(max_epochs=15, learning_rate=5e-3, dropout=0.0, d_model=8, **SMALL)
    forecast = model.fit(wide.iloc[:-12]).predict()
    error = (forecast - wide.iloc[-12:]).abs().mean()
    naive = np.abs(wide.iloc[-12:] - wide.iloc[-13]).mean()
    assert error["load"] < 0.5 * naive["load"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"d_state": 0}, r"TSM2: d_state must be an integer in \[1, inf\), got 0"),
        ({"patch_length": 49}, "TSM2: patch_length must be at most context_length=48, got 49"),
        ({"mixer": "mmba"}, "did you mean 'mamba'"),
        ({"mixer": "attention", "n_heads": 5}, "TSM2: d_model must be a multiple of n_heads=5"),
    ],
)
def test_bad_parameters(wide, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.TSM2(**(SMALL | parameters)).fit(wide)
