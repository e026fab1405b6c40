import numpy as np
import pytest
import torch
from torch import nn

import tsar
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput
from tsar.forecasting.patch_pretraining import MaskedBatch, MaskedPatches
from tsar.forecasting.pits import ComplementaryObjective, ComplementaryViews, PITSNetwork

SIZES = {"context_length": 23, "horizon": 5, "patch_length": 6, "stride": 4, "d_model": 11}
SMALL = {
    **{"context_length": 26, "horizon": 5, "patch_length": 4, "stride": 4, "end_padding": False},
    **{"d_model": 8, "max_epochs": 2, "fine_tuning": 1, "random_state": 0, "device": "cpu"},
}


def _network(output=None, **options):
    torch.manual_seed(0)
    return PITSNetwork(output=output or PointOutput(), **SIZES | options).double()


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_network_equals_a_plain_one():
    network, target = _network(), _random(4, 23, 3)
    first, second = network.embedding.project, network.second
    for b, c in [(b, c) for b in range(4) for c in range(3)]:
        x = target[b, :, c]
        location, scale = x.mean(), (x.var(correction=0) + 1e-5).sqrt()
        z = torch.cat([(x - location) / scale, ((x[-1] - location) / scale).expand(4)])
        tokens = []
        for start in range(0, 27 - 6 + 1, 4):
            hidden = first.weight @ z[start : start + 6] + first.bias
            tokens.append(second.weight @ hidden.clamp(min=0) + second.bias)
        raw = network.head.weight @ torch.cat(tokens) + network.head.bias
        forecast = network(Inputs(target))[b, :, c]
        torch.testing.assert_close(forecast, raw * scale + location)


def test_official_sizes():
    """The published ETTh1 setting: patches of 24 every 12 steps, 42 of them."""
    network = PITSNetwork(context_length=512, horizon=96, output=PointOutput(), d_model=256)
    expected = 24 * 256 + 256 + 256 * 256 + 256 + 42 * 256 * 96 + 96
    assert sum(p.numel() for p in network.parameters()) == expected


def test_a_patch_changes_its_own_token_only():
    network, patches = _network(), _random(7, 5, 6)
    changed = patches.clone()
    changed[:, 2] += 1
    tokens, others = (network.encode(network.embedding.project(x)) for x in (patches, changed))
    moved = (tokens != others).any(dim=2)
    assert moved[:, 2].all() and moved.sum() == 7


def test_several_outputs_per_step():
    forecast = _network(QuantileOutput([0.1, 0.5, 0.6, 0.9]))(Inputs(_random(3, 23, 2)))
    assert forecast.shape == (3, 5, 2, 4)
    assert (forecast.diff(dim=-1) >= 0).all()


# ---------------------------------------------------------------- pre-training


def _masked(measured=None):
    """Six patches of three variates in four windows, three of them hidden."""
    patches = _random(12, 6, 6, seed=2)
    order = torch.rand(12, 6, generator=torch.Generator().manual_seed(3)).argsort(dim=1)
    hidden = torch.zeros(12, 6, dtype=torch.bool).scatter_(1, order[:, :3], True)[..., None]
    shown = MaskedPatches(patches * ~hidden, None)
    return MaskedBatch(shown, patches, hidden.expand_as(patches), measured), hidden


def _task():
    torch.manual_seed(0)
    return ComplementaryViews(_network(), n_variates=3, dropout=0.0).double()


def _hidden_layer(network, patches):
    return network.embedding.project(patches).clamp(min=0)


def test_both_views_rebuild_what_they_show_and_are_contrasted():
    """The paper's loss: two passes, each with its own mask; variates joined by hand."""
    task, (batch, hidden) = _task(), _masked()
    patches, error = batch.target, torch.zeros(()).double()
    views = [patches * ~hidden, patches * hidden]
    for view, shows in zip(views, (~hidden, hidden), strict=True):
        rebuilt = task.head(task.network.second(_hidden_layer(task.network, view)))
        squares = (rebuilt - patches).square()[shows.expand_as(patches)]
        error += squares.mean()
    joined = [
        torch.stack(
            [
                torch.cat([_hidden_layer(task.network, view[3 * b + c]) for c in range(3)], dim=1)
                for b in range(4)
            ]
        )
        for view in views
    ]
    contrast, levels = torch.zeros(()).double(), 0
    while True:  # 6, 3, 1 tokens
        levels += 1
        length = joined[0].shape[1]
        if length == 1:
            break
        for b in range(4):
            tokens = torch.cat([view[b] for view in joined])
            for t in range(2 * length):
                scores = torch.stack([tokens[t] @ o for k, o in enumerate(tokens) if k != t])
                right = tokens[t] @ tokens[(t + length) % (2 * length)]
                contrast += 0.5 * (scores.logsumexp(0) - right) / (8 * length)
        joined = [
            torch.stack([v[:, 2 * k : 2 * k + 2].amax(dim=1) for k in range(length // 2)], dim=1)
            for v in joined
        ]
    assert levels == 3
    total, count = ComplementaryObjective().loss(task, batch, torch.Generator())["loss"]
    assert count == 4
    torch.testing.assert_close(total / count, error + contrast / levels)


def test_where_nothing_can_be_told_apart_the_loss_is_known():
    """A hidden layer of zeros: guesses among 11 and among 5, and nothing, at a half each."""
    task, (batch, _) = _task(), _masked()
    for weights in task.network.embedding.project.parameters():
        nn.init.zeros_(weights)
    total, count = ComplementaryObjective().loss(task, batch, torch.Generator())["loss"]
    blank = 2 * (task.head(task.network.second.bias) - batch.target).square().mean()
    guesses = torch.tensor([11.0, 5.0]).double().log().sum() / 6
    torch.testing.assert_close(total / count, blank + guesses)


def test_what_was_not_measured_is_not_rebuilt():
    task, measured = _task(), torch.rand(12, 6, 6, generator=torch.Generator().manual_seed(4)) > 0.4
    batch, _ = _masked(measured)
    whole, _ = _masked()
    totals = [ComplementaryObjective().loss(task, x, torch.Generator())["loss"][0] / 4
              for x in (batch, whole)]  # fmt: skip
    squares = (task(batch.target) - batch.target).square()
    expected = 2 * squares[measured].mean() - 2 * squares.mean()
    torch.testing.assert_close(totals[0] - totals[1], expected)


def test_pretraining_learns_and_is_where_the_fit_begins(wide, tmp_path):
    model = tsar.PITS(**SMALL | {"max_epochs": 12, "learning_rate": 3e-3})
    losses = model.pretrain(wide[["load", "price"]]).pretrain_history_["train_loss"]
    assert losses[-1] < 0.8 * losses[0]
    model.save(tmp_path / "encoder")
    probe = tsar.load(tmp_path / "encoder").set_params(fine_tuning="linear_probe", max_epochs=2)
    probe.fit(wide)
    state = probe.module_.state_dict()
    assert probe._backbone.weights.keys() == {name for name in state if "head" not in name}
    assert all(torch.equal(state[name], w) for name, w in probe._backbone.weights.items())
    again = model.set_params(fine_tuning="linear_probe", max_epochs=2).fit(wide)
    np.testing.assert_array_equal(again.predict(), probe.predict())
    fresh = tsar.PITS(**SMALL).fit(wide)
    same = [
        torch.equal(weights, fresh.module_.get_parameter(name))
        for name, weights in probe.module_.named_parameters()
    ]
    assert not any(same)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"d_model": 0}, r"PITS: d_model must be an integer in \[1, inf\), got 0"),
        ({"patch_length": 27}, "PITS: patch_length must be at most context_length=26, got 27"),
    ],
)
def test_bad_parameters(wide, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.PITS(**(SMALL | parameters)).fit(wide)


def test_patches_that_overlap_cannot_be_hidden(wide):
    with pytest.raises(ParameterError, match="PITS: pretrain needs patches that do not overlap"):
        tsar.PITS(**SMALL | {"stride": 2}).pretrain(wide)
