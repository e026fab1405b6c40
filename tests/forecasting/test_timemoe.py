import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import tsar
from tsar.core.mixers import make_mixer
from tsar.data.windows import Batch, Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.layers.point_tokens import TimeMoENetwork
from tsar.forecasting.outputs.losses import HuberLoss, make_loss
from tsar.forecasting.outputs.objective import ForecastObjective
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

LENGTHS = (1, 3, 4)
SIZES = {"d_model": 12, "n_heads": 2, "d_ff": 10, "n_layers": 2, "n_experts": 5, "top_k": 2}
# As a checkpoint says it.
CONFIG = {
    "model_type": "time_moe", "input_size": 1, "hidden_size": 12, "num_attention_heads": 2,
    "num_key_value_heads": 2, "intermediate_size": 10, "num_hidden_layers": 2, "num_experts": 5,
    "num_experts_per_tok": 2, "horizon_lengths": [1, 3, 4], "hidden_act": "silu",
    "rms_norm_eps": 1e-6, "rope_theta": 10000, "use_dense": False, "torch_dtype": "bfloat16",
}  # fmt: skip
SMALL = {"context_length": 11, "horizon": 9, "random_state": 0, "device": "cpu"}


def _network(horizon=9, output=None, **options):
    torch.manual_seed(0)
    sizes = {"horizon_lengths": LENGTHS, "balance_weight": 0.02, **SIZES, **options}
    n_layers, n_heads = sizes.pop("n_layers"), sizes.pop("n_heads")
    attention = {"n_heads": n_heads, "causal": True, "rotary": True, "bias": "inputs"}
    mixers = [make_mixer("attention", sizes["d_model"], **attention) for _ in range(n_layers)]
    return TimeMoENetwork(horizon=horizon, output=output or PointOutput(), mixers=mixers, **sizes)


def _wild(network):
    for weights in network.parameters():  # norms and biases that do something
        nn.init.normal_(weights, std=0.5)
    return network.double()


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


# ------------------------------------------------- the published network, by its own names


def _checkpoint():
    """Random weights of the shapes that the configuration has."""
    shapes = {"model.norm.weight": (12,)}
    for name in ("gate", "emb"):
        shapes[f"model.embed_layer.{name}_layer.weight"] = (12, 1)
    for layer in ("model.layers.0", "model.layers.1"):
        for part in "qkv":
            shapes[f"{layer}.self_attn.{part}_proj.weight"] = (12, 12)
            shapes[f"{layer}.self_attn.{part}_proj.bias"] = (12,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (12, 12)
        shapes[f"{layer}.input_layernorm.weight"] = (12,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (12,)
        shapes[f"{layer}.ffn_layer.gate.weight"] = (5, 12)
        shapes[f"{layer}.ffn_layer.shared_expert_gate.weight"] = (1, 12)
        experts = {f"experts.{e}": 5 for e in range(5)} | {"shared_expert": 10}
        for expert, width in experts.items():
            for name, shape in (("gate", (width, 12)), ("up", (width, 12)), ("down", (12, width))):
                shapes[f"{layer}.ffn_layer.{expert}.{name}_proj.weight"] = shape
    for place, length in enumerate(LENGTHS):
        shapes[f"lm_heads.{place}.out_layer.weight"] = (length, 12)
    return {
        name: 0.5 * _random(*shape, seed=place)
        for place, (name, shape) in enumerate(shapes.items())
    }


def _folder(path, *, weights=None, **config):
    path.mkdir()
    weights = _checkpoint() if weights is None else weights
    save_file(
        {name: w.to(torch.bfloat16) for name, w in weights.items()}, path / "model.safetensors"
    )
    (path / "config.json").write_text(json.dumps(CONFIG | config))
    return path


def _normed(x, weight):
    return x / ((x * x).mean() + 1e-6).sqrt() * weight


def _turned(x, position):
    """A head: feature i and the one half behind it are a point."""
    half = len(x) // 2
    angle = position * 10000.0 ** (-torch.arange(half).double() / half)
    a, b = x[:half], x[half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()])


def _expert(w, name, x):
    gate, up = w[f"{name}.gate_proj.weight"] @ x, w[f"{name}.up_proj.weight"] @ x
    return w[f"{name}.down_proj.weight"] @ (gate * torch.sigmoid(gate) * up)


def _hidden(w, values):
    """The last hidden state of a series of numbers, token by token."""
    gates = [w["model.embed_layer.gate_layer.weight"][:, 0] * v for v in values]
    tokens = [
        g * torch.sigmoid(g) * w["model.embed_layer.emb_layer.weight"][:, 0] * v
        for g, v in zip(gates, values, strict=True)
    ]
    for layer in ("model.layers.0", "model.layers.1"):
        read = [_normed(x, w[f"{layer}.input_layernorm.weight"]) for x in tokens]
        parts = [
            {
                p: w[f"{layer}.self_attn.{p}_proj.weight"] @ x
                + w[f"{layer}.self_attn.{p}_proj.bias"]
                for p in "qkv"
            }
            for x in read
        ]
        after, heads = [], (slice(0, 6), slice(6, 12))
        turned = [
            {p: [_turned(part[p][head], t) for head in heads] for p in "qk"}
            for t, part in enumerate(parts)
        ]
        for t, x in enumerate(tokens):
            mixed = []
            for number, head in enumerate(heads):
                query = turned[t]["q"][number]
                scores = [query @ turned[s]["k"][number] / 6**0.5 for s in range(t + 1)]
                shares = torch.stack(scores).softmax(0)
                mixed.append(sum(shares[s] * parts[s]["v"][head] for s in range(t + 1)))
            x = x + w[f"{layer}.self_attn.o_proj.weight"] @ torch.cat(mixed)
            z = _normed(x, w[f"{layer}.post_attention_layernorm.weight"])
            ffn = f"{layer}.ffn_layer"
            probabilities = (w[f"{ffn}.gate.weight"] @ z).softmax(0)
            best = probabilities.argsort(descending=True)[:2].tolist()
            shared = torch.sigmoid(w[f"{ffn}.shared_expert_gate.weight"] @ z)
            x = x + sum(probabilities[e] * _expert(w, f"{ffn}.experts.{e}", z) for e in best)
            after.append(x + shared * _expert(w, f"{ffn}.shared_expert", z))
        tokens = after
    return _normed(tokens[-1], w["model.norm.weight"])


def _plain_forecast(w, window, horizon):
    """Heads of 4, 3 and 1 steps, the longest first, each from all that is there by then."""
    location, scale = window.mean(), (window.var(correction=0) + 1e-5).sqrt()
    values = ((window - location) / scale).tolist()
    while len(values) < len(window) + horizon:
        left = len(window) + horizon - len(values)
        place = max(p for p, length in enumerate(LENGTHS) if length <= left)
        values += (w[f"lm_heads.{place}.out_layer.weight"] @ _hidden(w, values)).tolist()
    return torch.tensor(values[len(window) :]).double() * scale + location


def test_a_checkpoint_forecasts_as_the_published_network(tmp_path):
    folder = _folder(tmp_path / "checkpoint")
    frame = pd.DataFrame(
        _random(40, 2).cumsum(0).numpy() * [3.0, 0.2] + [5.0, 1.0],
        pd.date_range("2024-01-01", periods=40, freq="h"),
        ["a", "b"],
    )
    model = tsar.TimeMoE.from_pretrained(folder, fine_tuning=False, **SMALL).fit(frame)
    assert model.n_epochs_ == 0
    weights = {name: w.double() for name, w in load_file(folder / "model.safetensors").items()}
    forecast = model.predict()
    rows = frame.iloc[:-9] if model.early_stopping else frame
    for name in frame:
        # In units of the fit, since the variance has a small term.
        mean, deviation = rows[name].mean(), rows[name].std(ddof=0)
        window = torch.from_numpy(((frame[name].to_numpy()[-11:] - mean) / deviation).copy())
        plain = _plain_forecast(weights, window, 9).numpy() * deviation + mean
        np.testing.assert_allclose(forecast[name], plain, rtol=0, atol=1e-4 * deviation)
    model.save(tmp_path / "saved")
    shutil.rmtree(folder)
    assert tsar.load(tmp_path / "saved").predict().equals(forecast)


def test_fine_tuning_begins_with_the_checkpoint(tmp_path):
    folder = _folder(tmp_path / "checkpoint")
    values = _random(60).cumsum(0).numpy()
    frame = pd.DataFrame({"y": values, "x": values**2}, pd.date_range("2024", periods=60, freq="h"))
    options = SMALL | {"max_steps": 1, "learning_rate": 1e-4, "future_covariates": "x"}
    model = tsar.TimeMoE.from_pretrained(folder, **options).fit(frame)
    weights = load_file(folder / "model.safetensors")
    moved = model.module_.network.heads[2].weight - weights["lm_heads.2.out_layer.weight"].float()
    assert 1e-5 < moved.abs().max() < 2e-4
    twin = tsar.TimeMoE(**model.get_params())
    assert (
        twin.fit(frame).predict(future=model.make_future_frame().assign(x=0.0)).notna().all().all()
    )


@pytest.mark.parametrize(
    ("config", "without", "message"),
    [
        ({"use_dense": True}, None, "must have use_dense=False, got True"),
        ({"num_key_value_heads": 1}, None, "must have num_key_value_heads=2, got 1"),
        ({"horizon_lengths": [2, 4]}, None, r"must increase from 1.*got \[2, 4\]"),
        ({"hidden_size": "wide"}, None, "d_model must be an integer"),
        ({"num_experts": 6}, None, "without 6 of them, .*and with 0 others"),
        ({"intermediate_size": 12}, None, r"must have the shape \(12, 12\), got \(10, 12\)"),
        ({}, "model.norm.weight", r"without 1 of them, \['model.norm.weight'\], and with 0 others"),
        ({}, "model.safetensors", "without model.safetensors; name the folder of a"),
        ({}, "config.json", "without config.json; name the folder"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path, config, without, message):
    weights = {name: w for name, w in _checkpoint().items() if name != without}
    folder = _folder(tmp_path / "checkpoint", weights=weights, **config)
    if without is not None and (folder / without).exists():
        (folder / without).unlink()
    with pytest.raises(ParameterError, match=f"TimeMoE: .*(?:{message})"):
        tsar.TimeMoE.from_pretrained(folder, **SMALL).fit(pd.Series(np.arange(40.0)))


def test_official_sizes():
    """The base model: 113 million parameters, of which 50 million work at a token."""
    with torch.device("meta"):
        network = _network(
            horizon=96, horizon_lengths=(1, 8, 32, 64), d_model=384, n_heads=12, d_ff=1536,
            n_layers=12, n_experts=8, top_k=2,
        )  # fmt: skip
    count = sum(p.numel() for p in network.parameters())
    attention = 4 * 384 * 384 + 3 * 384
    expert = 3 * 384 * 768
    block = attention + 2 * 384 + 8 * 384 + 8 * expert + 2 * expert + 384
    assert count == 12 * block + 384 * (2 + 1 + 105)
    active = count - 12 * 6 * expert
    assert round(count / 1e6) == 113 and round(active / 1e6) == 50


# --------------------------------------------------------------------- the forecast


def test_cached_is_full():
    """Where every step is said to be observed, each pass reads all of them again."""
    network, target = _wild(_network(horizon=13)).eval(), _random(3, 11, 2)
    cached = network(Inputs(target))
    full = network(Inputs(target, torch.ones(3, 11, 2).bool()))
    torch.testing.assert_close(cached, full)
    with torch.inference_mode():
        torch.testing.assert_close(network(Inputs(target)), full)


def test_heads_make_up_a_horizon():
    """A longer forecast has the beginning of a shorter one where their heads are the same."""
    weights, target = _wild(_network()).state_dict(), _random(2, 11, 2)
    forecasts = {}
    for horizon in (3, 4, 7, 8):
        network = _network(horizon).double()
        network.load_state_dict(weights)
        forecasts[horizon] = network(Inputs(target))
    # 8 is 4 and 4, 7 is 4 and 3; 3 is a head of its own.
    for horizon in (7, 8):
        torch.testing.assert_close(forecasts[horizon][:, :4], forecasts[4])
    assert (forecasts[7][:, 4:] - forecasts[8][:, 4:7]).abs().min() > 1e-6
    assert (forecasts[4][:, :3] - forecasts[3]).abs().min() > 1e-6


def test_steps_that_were_not_observed_say_nothing():
    network, target = _wild(_network()).eval(), _random(3, 11, 2)
    observed = torch.ones(3, 11, 2).bool()
    observed[0, 3:5, 1], observed[1, :, 0], observed[2, :4] = False, False, False
    # The last step asks, so that it is read whatever it is.
    forecast = network(Inputs(target, observed))
    changed = network(Inputs(torch.where(observed, target, 7.0), observed))
    same = torch.ones(3, 2).bool()
    same[1, 0] = False
    torch.testing.assert_close(changed.mT[same], forecast.mT[same])
    assert forecast.isfinite().all()


def test_several_outputs_per_step():
    output = QuantileOutput([0.1, 0.5, 0.6, 0.9])
    network = _wild(_network(output=output))
    forecast = network(Inputs(_random(3, 11, 2)))
    assert forecast.shape == (3, 9, 2, 4)
    assert (forecast.diff(dim=-1) >= 0).all()
    # The median is what the next head reads.
    assert network.heads[2].out_features == 4 * 4


def test_networks_are_exported():
    network = _wild(_network(6, horizon_lengths=(1, 3), n_layers=1, n_experts=2)).eval()

    class OfTarget(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, target):
            return self.network(Inputs(target))

    target = _random(2, 11, 3)
    program = torch.export.export(OfTarget(), (target,)).module()
    torch.testing.assert_close(program(2 * target), network(Inputs(2 * target)))


# --------------------------------------------------------------------- the training


def _batch(*, holes=False):
    target, observed, seen, weight = _random(3, 17, 2), None, None, None
    if holes:
        observed = torch.rand(3, 17, 2, generator=torch.Generator().manual_seed(3)) > 0.3
        weight = torch.arange(17.0).double().view(1, 17, 1).expand(3, 17, 1) / 8
        seen = observed[:, 11:] * weight[:, 11:]
    before = None if observed is None else observed[:, :11]
    inputs = Inputs(target[:, :11], before)
    return Batch(inputs, target[:, 11:], seen, None, weight=weight), target, observed, weight


@pytest.mark.parametrize("holes", [False, True])
def test_every_head_learns_from_every_step(holes):
    """The mean over heads of Huber's loss, window by window and step by step."""
    network = _wild(_network(horizon=6, horizon_lengths=(1, 3, 8)))
    batch, target, observed, weight = _batch(holes=holes)
    terms = ForecastObjective(HuberLoss(2.0)).loss(network, batch, torch.Generator())
    x, location, scale = network.revin(batch.inputs.target, batch.inputs.observed)
    total, counted = 0.0, 0.0
    for head, length in zip(network.heads, (1, 3, 8), strict=True):
        size = sum(min(length, 16 - t) for t in range(11))
        for b in range(3):
            for c in range(2):
                mask = None if observed is None else observed[b : b + 1, :11, c]
                hidden = network.encoder(network.embedding(x[b : b + 1, :, c]), mask=mask)[0]
                for t in range(11):
                    steps = head(hidden[t]) * scale[b, 0, c] + location[b, 0, c]
                    for ahead in range(min(length, 16 - t)):
                        place = t + 1 + ahead
                        worth = 1.0
                        if observed is not None:
                            worth = float(observed[b, place, c] * weight[b, place, 0])
                        error = F.huber_loss(steps[ahead], target[b, place, c], delta=2.0)
                        total += worth * 11 / size * error
                        counted += worth * 11 / size
    torch.testing.assert_close(terms["loss"][0] / terms["loss"][1], total / counted)
    assert "balance" in terms


def test_what_covariates_took_off_goes_with_the_target():
    """For losses in original units: both are cut alike, 0 after the end of the window."""
    network, (batch, target, _, _) = _network(horizon=6).double(), _batch()
    shift = target.square() + 1
    compared = network.compare(replace(batch, shift=(shift[:, :11], shift[:, 11:])))
    inside = compared.observed > 0
    assert torch.equal(compared.shift, torch.where(inside, compared.target.square() + 1, 0.0))
    assert inside.sum() == 3 * 2 * sum(min(length, 16 - t) for length in LENGTHS for t in range(11))


def test_counts_with_covariates_are_forecast():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"y": rng.poisson(4.0, 60), "x": rng.normal(size=60)},
        pd.date_range("2024", periods=60, freq="h"),
    )
    model = tsar.TimeMoE(
        **SMALL, max_steps=3, d_model=8, d_ff=8, n_layers=1, n_experts=2, horizon_lengths=LENGTHS,
        loss="negative_binomial", future_covariates="x",
    ).fit(frame)  # fmt: skip
    forecast = model.predict(future=model.make_future_frame().assign(x=0.5), quantiles=[0.1, 0.9])
    assert forecast.shape == (9, 3) and (forecast >= 0).all().all()
    assert (forecast["y_q0.1"] <= forecast["y_q0.9"]).all()


def test_balance_is_two_where_experts_are_even():
    network = _network(horizon=6)
    for block in network.encoder.blocks:
        nn.init.zeros_(block.mlp.router.weight)
    balance, _ = network.double().compare(_batch()[0]).terms["balance"]
    assert balance.item() == pytest.approx(0.02 * 2, rel=1e-12)
    balance, _ = network.compare(_batch(holes=True)[0]).terms["balance"]
    assert balance.item() == pytest.approx(0.04, rel=1e-6)
    # All tokens to two of five experts, and almost surely to the first.
    for block in network.encoder.blocks:
        nn.init.zeros_(block.mlp_norm.weight)
        block.mlp_norm = Constant()
        block.mlp.router.weight.data[:] = torch.tensor([[60.0], [30], [0], [0], [0]])
    balance, _ = network.compare(_batch()[0]).terms["balance"]
    assert balance.item() == pytest.approx(0.02 * 5, rel=1e-6)


def test_tokens_that_count_nowhere_are_not_balanced():
    network, (batch, target, _, _) = _wild(_network(horizon=6)), _batch()
    weight = torch.tensor([0.0, 1, 1]).double().view(3, 1, 1).expand(3, 17, 1)
    balance, _ = network.compare(replace(batch, weight=weight)).terms["balance"]
    others = Batch(Inputs(target[1:, :11]), target[1:, 11:], None, None)
    torch.testing.assert_close(balance, network.compare(others).terms["balance"][0])
    assert (balance - network.compare(batch).terms["balance"][0]).abs() > 1e-6


class Constant(nn.Module):
    def forward(self, x):
        return torch.ones_like(x) / x.shape[-1]


def test_every_weight_learns_and_begins_small():
    network = _network(horizon=6)
    assert network.heads[2].weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert network.encoder.blocks[1].mixer.query_key_value.bias.abs().max() == 0
    assert network.encoder.blocks[1].mixer.output.bias is None
    terms = ForecastObjective(make_loss("mse")).loss(network.double(), _batch()[0], None)
    (terms["loss"][0] + terms["balance"][0]).backward()
    grads = {name: p.grad for name, p in network.named_parameters()}
    unused = {name for name, grad in grads.items() if grad is None}
    assert all("experts" in name for name in unused)
    assert all(grad.isfinite().all() for grad in grads.values() if grad is not None)


def test_it_learns_a_season():
    steps = np.arange(260)
    rng = np.random.default_rng(0)
    values = np.sin(2 * np.pi * steps / 6) + 0.05 * rng.normal(size=260)
    series = pd.Series(values, pd.date_range("2024", periods=260, freq="h"))
    model = tsar.TimeMoE(
        **SMALL | {"context_length": 18}, max_epochs=8, learning_rate=1e-2, batch_size=16,
        d_model=16, d_ff=32, n_layers=1, n_experts=4, horizon_lengths=(1, 8),
    )  # fmt: skip
    forecast = model.fit(series[:-9]).predict()
    assert (forecast - series[-9:]).abs().mean() < 0.3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"horizon_lengths": (8, 1)}, r"horizon_lengths must increase from 1.*got \[8, 1\]"),
        ({"horizon_lengths": ()}, r"horizon_lengths must increase from 1.*got \[\]"),
        ({"top_k": 9}, "top_k must be at most n_experts=8 and d_ff=256, got 9"),
        ({"d_model": 65}, "d_model must be a multiple of n_heads=4, got 65"),
        ({"d_model": 20}, "d_model // n_heads must be even.*got 5"),
        ({"mixer": "bidirectional_mamba"}, "mixer must be one of"),
        ({"fine_tuning": False}, "fine_tuning=False needs pretrained weights"),
        ({"pretrained": "nowhere"}, "pretrained must be a folder with config.json"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ParameterError, match=f"TimeMoE: {message}"):
        tsar.TimeMoE(**SMALL | parameters).fit(pd.Series(np.arange(60.0)))


def test_a_checkpoint_forecasts_points_by_attention(tmp_path):
    folder = _folder(tmp_path / "checkpoint")
    for parameters in ({"mixer": "mamba"}, {"loss": "gaussian"}):
        with pytest.raises(ParameterError, match="TimeMoE: pretrained weights are of attention"):
            tsar.TimeMoE.from_pretrained(folder, **parameters)
    with pytest.raises(ParameterError, match="TimeMoE: n_experts must be 5 as in .*got 4"):
        tsar.TimeMoE.from_pretrained(folder, n_experts=4)
