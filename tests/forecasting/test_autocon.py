from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from statsmodels.tsa.stattools import acf
from torch.nn import functional as F

import tsar
from tsar.data.scaling import Scaling, series_tensors
from tsar.data.windows import Inputs, Windows
from tsar.exceptions import ParameterError
from tsar.forecasting.autocon import AutoConNetwork
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

SIZES = {
    "context_length": 23, "horizon": 6, "n_calendar": 2, "d_model": 5, "d_ff": 7, "n_layers": 2,
    "scales": [2, 5],
}  # fmt: skip
SMALL = {"context_length": 24, "horizon": 6, "d_model": 4, "random_state": 0, "device": "cpu"}


def _network(output=None, **options):
    torch.manual_seed(0)
    return AutoConNetwork(output=output or PointOutput(), **{**SIZES, **options}).double()


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _frame(n=120, n_variates=2):
    values = np.random.default_rng(0).normal(size=(n, n_variates)).cumsum(axis=0)
    return pd.DataFrame(values, pd.date_range("2024", periods=n, freq="h")).add_prefix("v")


@pytest.mark.parametrize(
    ("context_length", "horizon", "n_layers", "published"),
    [(96, 96, 2, 24_001), (336, 720, 3, 492_225), (48, 48, 1, 8_513), (14, 14, 4, 8_933)],
)
def test_published_sizes(context_length, horizon, n_layers, published):
    """ETTh1-96, ETTh2-720, exchange_rate-48 and national_illness-14.

    A map of 16 to 16 features among the authors' enters no forecast.
    """
    network = AutoConNetwork(
        context_length=context_length,
        horizon=horizon,
        output=PointOutput(),
        n_calendar=4,
        n_layers=n_layers,
    )
    unused = 16 * 16 + 16
    assert sum(p.numel() for p in network.parameters()) == published - unused


def _average(x, width):
    """Along the first axis, the ends repeated."""
    half = width // 2
    padded = torch.cat([x[:1].expand(half, -1), x, x[-1:].expand(half, -1)])
    return torch.stack([padded[t : t + width].mean(dim=0) for t in range(len(x))])


def _plain_tokens(network, relative, calendar):
    embedding, encoder = network.embedding, network.encoder
    steps = torch.stack([relative.roll(1), relative, relative.roll(-1)], dim=1)
    tokens = steps @ embedding.values.weight[:, 0].T + calendar @ embedding.marks.weight.T
    place = torch.arange(23).double()[:, None]
    rates = 10_000 ** (-torch.arange(0, 5, 2).double() / 5)
    tokens[:, 0::2] += (place * rates).sin()
    tokens[:, 1::2] += (place * rates[:2]).cos()
    return encoder(tokens[None])[0]


@pytest.mark.parametrize("holes", [True, False])
def test_network_equals_a_plain_one(holes):
    """A window and a variate at a time, in evaluation."""
    network = _network().eval()
    target, calendar = _random(3, 23, 2), _random(3, 29, 2, seed=2)
    observed = None
    if holes:
        observed = torch.ones(3, 23, 2).bool()
        observed[0, :9, 1], observed[1, 11] = False, False
    forecast = network(Inputs(target, observed, calendar=calendar))
    for b in range(3):
        for c in range(2):
            x = target[b, :, c] - target[b, -1, c]
            if holes and (b, c) == (0, 1):
                x = torch.where(torch.arange(23) < 9, 0.0, x)
            tokens = _plain_tokens(network, x, calendar[b, :23])
            ahead = (network.ahead.weight @ F.gelu(tokens)) + network.ahead.bias[:, None]
            expected = network.season(x) + target[b, -1, c]
            for width, trend in zip((3, 5), network.trends, strict=True):
                smooth = F.linear(F.gelu(_average(ahead, width)), trend.weight, trend.bias)
                expected = expected + _average(smooth, width)[:, 0]
            torch.testing.assert_close(forecast[b, :, c], expected, rtol=1e-6, atol=1e-6)


def test_several_outputs_per_step():
    forecast = _network(QuantileOutput([0.1, 0.5, 0.9]))(
        Inputs(_random(3, 23, 2), calendar=_random(3, 29, 2))
    )
    assert forecast.shape == (3, 6, 2, 3)
    assert (forecast.diff(dim=-1) >= 0).all()


def _measured(network, weight=None):
    """Two series of two variates, and windows of both, a weight for each of their rows."""
    values, offsets = _random(110, 2, seed=5).cumsum(0).numpy(), np.array([0, 60, 110])
    series = series_tensors(
        values, offsets, Scaling.identity(2, 2), torch.device("cpu"), torch.float64
    )
    if weight is not None:
        series = replace(series, weight=weight)
    network.measure(series, torch.tensor([60, 110]))
    first, last = np.array([23, 83]), np.array([54, 104])
    batch = Windows(series, first, last, 23, 6).batch(torch.tensor([0, 31, 7, 32, 40]))
    calendar = torch.zeros(5, 29, 2, dtype=torch.float64)
    return values, replace(batch, inputs=replace(batch.inputs, calendar=calendar))


def _correlations(values):
    """By series and variate."""
    rows = {(0, c): values[:60, c] for c in range(2)} | {(1, c): values[60:, c] for c in range(2)}
    smoothed = {
        key: _average(torch.from_numpy(row)[:, None], 23)[:, 0].numpy() for key, row in rows.items()
    }
    return {key: np.abs(acf(x, nlags=len(x) - 1, fft=False)) for key, x in smoothed.items()}


def test_contrast_against_loops(monkeypatch):
    network = _network()
    values, batch = _measured(network)
    rho, tokens = _correlations(values), _random(10, 23, 7, seed=8)
    chance = torch.rand(10, 23, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: chance)
    obtained = network.contrast(batch, tokens)

    def term(own, others, likeness):
        """Of one token, told from others, of which those most like it are right."""
        scores = torch.stack([own @ other for other in others])
        errors = scores.logsumexp(0) - scores
        right = [k for k, like in enumerate(likeness) if like == max(likeness)]
        return max(likeness) * errors[right].mean()

    owners, cutoffs = [0, 0, 0, 1, 1], [23, 54, 30, 83, 91]
    unit = tokens / tokens.norm(dim=2, keepdim=True)
    local, whole = [], []
    for b in range(5):
        for c in range(2):
            mine = unit[2 * b + c]
            steps = chance[2 * b + c].argsort()[:7].tolist()
            for i in steps:
                others = [j for j in steps if j != i]
                likeness = [rho[owners[b], c][abs(i - j)] for j in others]
                local.append(term(mine[i], [mine[j] for j in others], likeness))
            others = [k for k in range(5) if k != b]
            likeness = [
                rho[owners[b], c][abs(cutoffs[b] - cutoffs[k])] if owners[b] == owners[k] else 0.0
                for k in others
            ]
            pooled = [unit[2 * k + c].amax(dim=0) for k in others]
            whole.append(term(mine.amax(dim=0), pooled, likeness))
    expected = (torch.stack(local).mean() + torch.stack(whole).mean()) / 2
    torch.testing.assert_close(obtained, expected, rtol=1e-9, atol=0)


def test_windows_without_weight_are_left_out_of_the_contrast():
    """Those of the second series, here; the first is contrasted as if it were alone."""
    network = _network()
    weight = torch.ones(110, 1, dtype=torch.float64)
    weight[60:] = 0
    _, batch = _measured(network, weight)
    tokens = _random(10, 23, 7, seed=8)
    network.dropout.generator = torch.Generator().manual_seed(1)
    both = network.contrast(batch, tokens)
    network.dropout.generator = torch.Generator().manual_seed(1)
    _, alone = _measured(network)
    first = {name: getattr(alone, name)[:3] for name in ("series", "cutoffs", "target")}
    torch.testing.assert_close(both, network.contrast(replace(alone, **first), tokens[:6]))


def test_without_contrast_nothing_is_drawn_and_nothing_is_added():
    network = _network(dropout=0.0, contrast_weight=0.0)
    _, batch = _measured(network)
    network.dropout.generator = torch.Generator().manual_seed(1)
    before = network.dropout.generator.get_state()
    assert not network.compare(batch).terms
    assert torch.equal(before, network.dropout.generator.get_state())


def test_history_names_the_contrast_and_a_covariate_leaves_it():
    frame = _frame().assign(x=np.arange(120.0) % 7)
    options = {"max_epochs": 2, **SMALL}
    plain = tsar.AutoCon(**options).fit(frame[["v0", "v1"]])
    beside = tsar.AutoCon(future_covariates="x", **options).fit(frame)
    for model in (plain, beside):
        assert np.isfinite(model.history_["train_contrast"]).all()
        assert min(model.history_["train_contrast"]) > 0
    without = tsar.AutoCon(contrast_weight=0.0, **options).fit(frame[["v0", "v1"]])
    assert "train_contrast" not in without.history_


def test_training_that_goes_on_measures_its_own_rows():
    """Of other rows than before, and more of them."""
    model = tsar.AutoCon(max_epochs=1, **SMALL).fit(_frame(100))
    model.partial_fit(_frame(140))
    assert model.module_.autocorrelation.values.shape == (112, 2)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_layers": 0}, r"AutoCon: n_layers must be an integer in \[1, inf\), got 0"),
        ({"scales": [0]}, "AutoCon: scales"),
        ({"scales": []}, "AutoCon: scales must name at least one"),
        ({"contrast_weight": -1.0}, r"AutoCon: contrast_weight must be .* got -1"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.AutoCon(**(SMALL | parameters)).fit(_frame())
