import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tsar.data.windows import Inputs
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput
from tsar.forecasting.patchtst import PatchTSTNetwork

SIZES = {
    "context_length": 23, "horizon": 5, "patch_length": 6, "stride": 4,
    "d_model": 8, "n_heads": 2, "d_ff": 11, "n_layers": 3,
}  # fmt: skip


def _network(output=None, **options):
    torch.manual_seed(0)
    options = {"dropout": 0.0, **SIZES, **options}
    return PatchTSTNetwork(output=output or PointOutput(), **options).double()


def _target(batch=4, n_variates=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 23, n_variates, dtype=torch.float64, generator=generator)


def _observed(batch=4, n_variates=3):
    generator = torch.Generator().manual_seed(2)
    observed = torch.rand(batch, 23, n_variates, generator=generator) > 0.6
    observed[0, :15] = False
    observed[1, :, 1] = False
    return observed


def _carried(target, observed):
    """Carry values forward over gaps, 0 before the first one."""
    filled = target * observed
    for step in range(1, target.shape[1]):
        gap = ~observed[:, step]
        filled[:, step] = torch.where(gap, filled[:, step - 1], filled[:, step])
    return filled


def _batch_norm(tokens, norm, training):
    """Statistics of each feature over all tokens."""
    if training:
        flat = tokens.reshape(-1, tokens.shape[-1])
        mean, variance = flat.mean(0), flat.var(0, correction=0)
    else:
        mean, variance = norm.running_mean, norm.running_var
    return (tokens - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias


def _attention(mixer, tokens, previous, seen):
    """Heads one by one; returns the mixed tokens and the summed scores."""
    n_heads, width = mixer.n_heads, tokens.shape[-1] // mixer.n_heads
    weights = mixer.query_key_value.weight.chunk(3)
    biases = mixer.query_key_value.bias.chunk(3)
    query, key, value = (tokens @ w.T + b for w, b in zip(weights, biases, strict=True))
    mixed, scores = [], []
    for n in range(n_heads):
        part = slice(n * width, (n + 1) * width)
        score = query[..., part] @ key[..., part].transpose(1, 2) / width**0.5
        if previous is not None:
            score = score + previous[n]
        scores.append(score)
        weight = score.masked_fill(~seen[:, None], -torch.inf).softmax(-1)
        mixed.append(weight @ value[..., part])
    return torch.cat(mixed, -1) @ mixer.output.weight.T + mixer.output.bias, scores


def _plain_forecast(network, target, observed, training):
    """The published network for one window and one variate after the other."""
    series, patches, seen, places = [], [], [], []
    for b in range(len(target)):
        for c in range(target.shape[2]):
            x, o = target[b, :, c], observed[b, :, c]
            values = x[o]
            location = values.mean() if len(values) else torch.zeros(()).double()
            scale = (values.var(correction=0) + 1e-5).sqrt() if len(values) else 1.0
            first = int(o.nonzero()[0]) if o.any() else len(x)
            z = (x - location) / scale
            z = torch.cat([torch.zeros(first).double(), z[first:]])
            z, o = torch.cat([z, z[-1:].expand(4)]), torch.cat([o, o[-1:].expand(4)])
            starts = range(0, len(z) - 6 + 1, 4)
            patches.append(torch.stack([z[s : s + 6] for s in starts]))
            some = torch.stack([o[s : s + 6].any() for s in starts])
            seen.append(some if some.any() else ~some)
            series.append((location, scale))
            places.append((b, c))
    seen = torch.stack(seen)
    tokens = torch.stack(patches) @ network.embedding.project.weight.T
    tokens = tokens + network.embedding.project.bias + network.position.weight
    scores = None
    for block in network.encoder.blocks:
        mixed, scores = _attention(block.mixer, tokens, scores, seen)
        tokens = _batch_norm(tokens + mixed, block.mixer_norm, training)
        hidden = F.gelu(block.mlp.expand(tokens))
        tokens = _batch_norm(tokens + block.mlp.contract(hidden), block.mlp_norm, training)
    forecast = torch.empty(len(target), 5, target.shape[2], dtype=torch.float64)
    for (b, c), token, (location, scale) in zip(places, tokens, series, strict=True):
        raw = network.head.weight @ token.flatten() + network.head.bias
        forecast[b, :, c] = raw * scale + location
    return forecast


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gaps", [False, True])
def test_network_equals_the_plain_form(training, gaps):
    network = _network().train(training)
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    target, observed = _target(), torch.ones(4, 23, 3).bool()
    if gaps:
        observed = _observed()
        target = _carried(target, observed)
    expected = _plain_forecast(network, target, observed, training)
    inputs = Inputs(target, observed if gaps else None)
    torch.testing.assert_close(network(inputs), expected)


def test_official_sizes():
    """The published ETTh1 setting: 42 patches, and the parameters counted by hand."""
    network = PatchTSTNetwork(
        context_length=336, horizon=96, d_model=16, n_heads=4, d_ff=128, output=PointOutput()
    )
    embedding = 16 * 16 + 16 + 42 * 16
    attention = 4 * (16 * 16 + 16)
    mlp = 2 * 16 * 128 + 128 + 16
    head = 42 * 16 * 96 + 96
    expected = embedding + 3 * (attention + mlp + 2 * 2 * 16) + head
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network(Inputs(torch.randn(2, 336, 7))).shape == (2, 96, 7)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "layer"},
        {"norm": "pre_rms"},
        {"mixer": "attention"},
        {"mixer": "autocorrelation"},
        {"end_padding": False},
        {"dropout": 0.3},
    ],
)
def test_options_train_and_change_the_forecast(options):
    network, plain = _network(**options), _network()
    forecast = network(Inputs(_target()))
    forecast.square().mean().backward()
    assert forecast.shape == (4, 5, 3)
    assert all(p.grad.isfinite().all() for p in network.parameters())
    assert not torch.allclose(forecast, plain(Inputs(_target())))


def test_branches_are_dropped_as_in_the_authors_code():
    block = _network(dropout=0.3).encoder.blocks[0]
    assert block.mixer_dropout.p == pytest.approx(1 - 0.7 * 0.7)
    assert block.mlp_dropout.p == block.mlp.dropout.p == 0.3
    assert block.mixer.dropout.p == 0.0


def test_several_outputs_per_step():
    network = _network(QuantileOutput([0.1, 0.5, 0.6, 0.9]))
    forecast = network(Inputs(_target(n_variates=2)))
    assert forecast.shape == (4, 5, 2, 4)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_variates_are_series_of_their_own():
    network = _network().eval()
    target = _target()
    whole = network(Inputs(target))
    for c in range(3):
        torch.testing.assert_close(network(Inputs(target[:, :, c : c + 1]))[..., 0], whole[..., c])


def test_scale_and_location_pass_through():
    network = _network().eval()
    target = 100 * _target()
    forecast = network(Inputs(3 * target + 1000))
    torch.testing.assert_close(forecast, 3 * network(Inputs(target)) + 1000, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_observed_is_finite(training):
    network = _network().train(training)
    forecast = network(Inputs(torch.zeros(4, 23, 3).double(), torch.zeros(4, 23, 3).bool()))
    assert forecast.isfinite().all()


def test_everything_observed_equals_no_mask():
    network = _network().eval()
    masked = network(Inputs(_target(), torch.ones(4, 23, 3).bool()))
    torch.testing.assert_close(masked, network(Inputs(_target())))


def test_unknown_history_is_not_a_history_of_zeros():
    """A short series is masked on the left: what stands there does not matter."""
    network = _network().eval()
    observed = torch.ones(4, 23, 3).bool()
    observed[:, :12] = False
    short = _target() * observed
    other = torch.where(observed, short, 55.0)
    assert torch.equal(network(Inputs(short, observed)), network(Inputs(other, observed)))


def test_initial_positions_are_small():
    assert _network().position.weight.abs().max() <= 0.02


def test_linear_maps_start_as_torch_starts_them():
    network = PatchTSTNetwork(context_length=64, horizon=50, output=PointOutput(), d_model=64)
    for linear in (module for module in network.modules() if isinstance(module, nn.Linear)):
        bound = linear.in_features**-0.5
        assert linear.weight.abs().max() <= bound
        assert linear.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
