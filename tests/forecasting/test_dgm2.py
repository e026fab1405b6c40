import numpy as np
import pandas as pd
import pytest
import torch

import tsar
from tsar.data.windows import Batch, Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.dgm2 import DGM2Network, divergence, elapsed
from tsar.forecasting.outputs.losses import MSELoss
from tsar.forecasting.outputs.objective import ForecastObjective
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

SIZES = {"horizon": 4, "n_variates": 3, "n_patterns": 5, "d_model": 6}


def _network(output=None, **options):
    torch.manual_seed(0)
    return DGM2Network(output=output or PointOutput(), **{**SIZES, **options}).double()


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _holes(*shape, seed=2):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5


def _softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _numbers(layer):
    bias = None if layer.bias is None else layer.bias.detach().numpy()
    return layer.weight.detach().numpy(), bias


def _lstm(cell, x, hidden, memory):
    """A step of one window."""
    weight, bias = _numbers(cell.input)
    i, f, g, o = np.split(weight @ x + bias + _numbers(cell.hidden)[0] @ hidden, 4)
    memory = _sigmoid(f) * memory + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(memory), memory


def _plain(network, target, observed, horizon=4):
    """One window (L, C), step by step: all steps in the units of the window, and the divergence."""
    length, n_variates = target.shape
    location = np.array([target[observed[:, c], c].mean() for c in range(n_variates)])
    scale = np.sqrt([target[observed[:, c], c].var() + 1e-5 for c in range(n_variates)])
    patterns = network.patterns.detach().numpy()
    width = network.encoder.d_model
    hidden, memory, state, cell = (np.zeros(width) for _ in range(4))
    waited, said = np.zeros(n_variates), np.zeros(patterns.shape[1])
    shares, leans, total = [], [], 0.0
    for step in range(length + horizon):
        weight, bias = _numbers(network.expect)
        share = expected = _softmax(weight @ state + bias)
        weight, bias = _numbers(network.lean)
        own = _sigmoid((weight @ state + bias)[0])
        leans.append((own + _sigmoid(network.least_lean.item())) / 2)
        if step < length:
            seen = observed[step]
            waited = np.where(seen, 0, waited + 1)
            value = np.where(seen, (target[step] - location) / scale, 0)
            features = np.concatenate([value, seen, np.log1p(waited)])
            hidden, memory = _lstm(network.encoder, features, hidden, memory)
            weight, bias = _numbers(network.infer)
            share = _softmax(weight @ np.concatenate([said, hidden]) + bias)
            if step:
                total += (share * np.log(share / expected)).sum() / (length - 1)
        said = share @ patterns
        state, cell = _lstm(network.transition, said, state, cell)
        shares.append(share)
    mean = np.mean(shares[:length], axis=0)
    steps = [
        ((1 - lean) * share + lean * mean) @ patterns * scale + location
        for share, lean in zip(shares, leans, strict=True)
    ]
    return np.array(steps), total


def test_network_equals_a_plain_one():
    network, target, observed = _network(), _random(4, 9, 3), _holes(4, 9, 3)
    observed[:, 2] = True
    batch = Batch(Inputs(target, observed), _random(4, 4, 3, seed=3), None, None)
    compared = network.compare(batch)
    whole, (weighted, _) = compared.forecast, compared.terms["divergence"]
    plain = [_plain(network, *(part[b].numpy() for part in (target, observed))) for b in range(4)]
    np.testing.assert_allclose(whole.detach(), np.stack([steps for steps, _ in plain]))
    expected = network.kl_weight * np.mean([total for _, total in plain])
    assert weighted.item() == pytest.approx(expected)
    torch.testing.assert_close(network(batch.inputs), whole[:, -4:])


def test_sizes():
    """The defaults with seven variates, counted by hand."""
    network = DGM2Network(horizon=12, n_variates=7, output=PointOutput())
    encoder = 4 * 32 * (3 * 7 + 1 + 32)
    transition = 4 * 32 * (7 + 1 + 32)
    heads = (7 + 32) * 20 + 20 + (32 * 20 + 20) + (32 + 1) + 1
    expected = 20 * 7 + encoder + transition + heads
    assert sum(p.numel() for p in network.parameters()) == expected


def test_values_behind_gaps_do_not_matter():
    network, target, observed = _network(), _random(4, 9, 3), _holes(4, 9, 3)
    changed = torch.where(observed, target, 9.0)
    before, after = (network(Inputs(x, observed)) for x in (target, changed))
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    future, seen = _random(4, 4, 3, seed=3), _holes(4, 4, 3, seed=4)
    objective = ForecastObjective(MSELoss())
    losses = [
        objective.loss(network, Batch(Inputs(x, observed), y, seen, None), torch.Generator())
        for x, y in ((target, future), (changed, torch.where(seen, future, -7.0)))
    ]
    for name in ("loss", "divergence"):
        torch.testing.assert_close(losses[1][name], losses[0][name], rtol=0, atol=0)
    assert losses[0]["loss"][1] == observed.sum() + seen.sum()


def test_a_window_does_not_know_its_company():
    network, target = _network(), _random(5, 9, 3)
    torch.testing.assert_close(network(Inputs(target))[[3]], network(Inputs(target[[3]])))


def test_time_since_the_last_observation():
    observed = torch.tensor([[1, 0], [0, 0], [0, 1], [1, 0], [0, 0]]).bool()[None]
    expected = torch.tensor([[0, 1], [1, 2], [2, 0], [0, 1], [1, 2]], dtype=torch.float64)[None]
    torch.testing.assert_close(elapsed(observed, expected), expected)
    assert not elapsed(None, expected).any()


def test_divergence_of_the_same_is_nothing():
    shares = _random(3, 6, 5).log_softmax(dim=-1)
    assert divergence(shares, shares).item() == pytest.approx(0, abs=1e-12)
    other = _random(3, 8, 5, seed=2).log_softmax(dim=-1)
    found = divergence(shares, other)
    by_torch = torch.nn.functional.kl_div(
        other[:, 1:6], shares[:, 1:], reduction="sum", log_target=True
    )
    torch.testing.assert_close(found, by_torch / 15)
    assert found > 0 and divergence(shares[:, :1], other) == 0


def test_every_weight_is_reached():
    network = _network(dropout=0.2)
    batch = Batch(Inputs(_random(4, 9, 3), _holes(4, 9, 3)), _random(4, 4, 3, seed=3), None, None)
    terms = ForecastObjective(MSELoss()).loss(network, batch, torch.Generator())
    (terms["loss"][0] + terms["divergence"][0]).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_several_outputs_per_step():
    forecast = _network(QuantileOutput([0.1, 0.5, 0.6, 0.9]))(Inputs(_random(2, 9, 3)))
    assert forecast.shape == (2, 4, 3, 4)
    assert (forecast.diff(dim=-1) >= 0).all()
    nothing = _network()(Inputs(torch.zeros(2, 9, 3).double(), torch.zeros(2, 9, 3).bool()))
    assert nothing.isfinite().all()


def test_a_wave_with_holes_is_learned():
    steps = np.arange(300)[:, None]
    wave = np.sin(2 * np.pi * (steps / 8 + np.array([0.0, 0.3])))
    frame = pd.DataFrame(wave, pd.date_range("2024", periods=300, freq="h"), ["a", "b"])
    sparse = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.5)
    model = tsar.DGM2(
        context_length=16, horizon=4, d_model=16, n_patterns=8, max_epochs=8, batch_size=16,
        learning_rate=1e-2, early_stopping=False, random_state=0, device="cpu",
    ).fit(sparse[:200])  # fmt: skip
    cutoffs = np.arange(220, 296, 3)
    error = np.abs(model.forecast_windows(sparse, cutoffs) - wave[cutoffs[:, None] + np.arange(4)])
    assert error.mean() < 0.5 * np.abs(wave).mean()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_patterns": 0}, r"DGM2: n_patterns must be an integer in \[1, inf\), got 0"),
        ({"kl_weight": -1}, r"DGM2: kl_weight must be .*\[0, inf\), got -1"),
    ],
)
def test_bad_parameters(wide, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.DGM2(context_length=48, horizon=12, **parameters).fit(wide)
