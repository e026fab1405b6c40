import numpy as np
import pytest
import torch
from torch.nn import functional as F

import tsar
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.chimera import ChimeraNetwork
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

SIZES = {
    "context_length": 23, "horizon": 5, "patch_length": 6, "stride": 4, "d_model": 8, "d_state": 3,
    "n_layers": 2,
}  # fmt: skip
SMALL = {"context_length": 48, "horizon": 12, "random_state": 0, "device": "cpu"}


def _network(output=None):
    torch.manual_seed(0)
    network = ChimeraNetwork(output=output or PointOutput(), dropout=0.0, **SIZES).double()
    for weights in network.parameters():  # couplings and positions that do something
        torch.nn.init.normal_(weights, std=0.3)
    return network


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@torch.no_grad()
def test_the_network_is_its_formulas():
    network, target = _network(), 4 + 3 * _random(3, 23, 4)
    forecast = network(Inputs(target))
    for window, result in zip(target, forecast, strict=True):
        location, scale = window.mean(0), (window.var(0, correction=0) + 1e-5).sqrt()
        z = ((window - location) / scale).T
        patches = [network.embedding.project(z[:, s : s + 6]) for s in (1, 5, 9, 13, 17)]
        tokens = torch.stack(patches, dim=1) + network.position.weight
        for layer in network.layers:
            x = F.layer_norm(tokens, [8], layer.norm.weight, layer.norm.bias)
            mixed = x
            for ahead, back in zip(layer.ahead, layer.back, strict=True):
                mixed = mixed + ahead(x[None])[0]
                mixed = mixed + back(x[[3, 2, 1, 0]][None])[0][[3, 2, 1, 0]]
            gate = layer.gate(x)
            tokens = tokens + layer.project(mixed * gate * gate.sigmoid())
        flat = F.layer_norm(tokens, [8], network.norm.weight, network.norm.bias).flatten(1)
        expected = network.head(flat).T * scale + location
        torch.testing.assert_close(result, expected)


def test_a_variate_knows_of_those_on_either_side():
    network, target = _network(), _random(1, 23, 4)
    for moved in (0, 3):
        changed = target.clone()
        changed[:, 10:, moved] += _random(13)
        difference = (network(Inputs(changed)) - network(Inputs(target))).detach().abs()
        assert (difference.sum(dim=1) > 1e-8).all()


def test_what_was_not_observed_does_not_matter():
    network, target = _network(), _random(4, 23, 3)
    observed = torch.ones(4, 23, 3).bool()
    observed[:, 5:17, 1] = False  # the patch from 9 on holds nothing else
    mask = network.embedding.mask(observed).unflatten(0, (4, 3))
    assert int((~mask).sum()) == 4 * 2
    nothing = network(Inputs(torch.zeros(4, 23, 3).double(), torch.zeros(4, 23, 3).bool()))
    assert nothing.isfinite().all()
    x, _, _ = network.revin(target, observed)
    tokens = network.embedding(x).unflatten(0, (4, 3))
    changed = torch.where(mask[..., None], tokens, 9.0)
    space = network.layers[0].ahead[0]
    result, expected = (space(part, mask=mask)[mask] for part in (changed, tokens))
    torch.testing.assert_close(result, expected)


def test_several_outputs_per_step():
    forecast = _network(QuantileOutput([0.1, 0.5, 0.6, 0.9]))(Inputs(_random(3, 23, 2)))
    assert forecast.shape == (3, 5, 2, 4)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_a_wave_is_learned(wide):
    sizes = {"d_model": 8, "d_state": 4, "n_layers": 1}
    model = tsar.Chimera(max_epochs=12, learning_rate=1e-2, dropout=0.0, **SMALL, **sizes)
    forecast = model.fit(wide.iloc[:-12]).predict()
    error = (forecast - wide.iloc[-12:]).abs().mean()
    naive = np.abs(wide.iloc[-12:] - wide.iloc[-13]).mean()
    assert error["load"] < 0.5 * naive["load"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"d_state": 0}, r"Chimera: d_state must be an integer in \[1, inf\), got 0"),
        ({"patch_length": 49}, "Chimera: patch_length must be at most context_length=48, got 49"),
    ],
)
def test_bad_parameters(wide, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.Chimera(**(SMALL | parameters)).fit(wide)
