"""PatchTST whose variates inform each other within groups."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import tsar
from tsar.core.block import Block
from tsar.core.mixers import SoftmaxAttention
from tsar.core.mlp import MLP
from tsar.data.windows import SeriesTensors
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.variate_groups import GroupedBlock, VariateGroups, correlated_groups

SMALL = {
    **{"context_length": 26, "horizon": 5, "patch_length": 6, "stride": 5, "d_model": 8},
    **{"n_heads": 2, "d_ff": 11, "n_layers": 2, "max_epochs": 2, "norm": "layer"},
    **{"random_state": 0, "device": "cpu"},
}


def _frame(rows=150):
    """Return three variates that move with "a", one against it, and two by themselves."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(rows, 4))
    a = steps[:, 0]
    values = {"a": a, "b": a + 0.3 * steps[:, 1], "x": steps[:, 2], "c": -2 * a, "y": steps[:, 3]}
    return pd.DataFrame(values, index=pd.date_range("2024-01-01", periods=rows, freq="h"))


def _series(values, observed=None, offsets=None):
    values = torch.as_tensor(values)
    offsets = torch.tensor([0, len(values)]) if offsets is None else offsets
    return SeriesTensors(values, observed, offsets)


def _as_sets(groups):
    return {frozenset(np.flatnonzero(groups == g)) for g in groups}


def test_what_moves_together_is_a_group():
    values = _frame().to_numpy(copy=True)
    stop = torch.tensor([150])
    groups = correlated_groups(_series(values), stop, 0.6).numpy()
    assert _as_sets(groups) == {frozenset({0, 1, 3}), frozenset({2}), frozenset({4})}
    assert len(set(correlated_groups(_series(values), stop, 0.0).tolist())) == 1
    assert len(set(correlated_groups(_series(values[:, [0, 2, 4]]), stop, 1.0).tolist())) == 3
    assert correlated_groups(_series(values[:, :1]), stop, 0.6).tolist() == [0]


def test_groups_are_joined_by_mean_correlations_of_observed_pairs():
    """The largest mean of numpy's own correlations first, as a loop over all pairs of parts."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(90, 6)) @ rng.normal(size=(6, 6)) + rng.normal(size=(1, 6))
    observed = torch.from_numpy(rng.uniform(size=values.shape) > 0.3)
    offsets, stop = torch.tensor([0, 40, 90]), torch.tensor([33, 81])
    train = np.r_[0:33, 40:81]
    strength = np.eye(6)
    for i, j in itertools.combinations(range(6), 2):
        both = (observed[:, i] & observed[:, j]).numpy()[train]
        pair = np.corrcoef(values[train][both][:, [i, j]].T)[0, 1]
        strength[i, j] = strength[j, i] = abs(pair)
    parts = [[k] for k in range(6)]
    while len(parts) > 1:
        pairs = list(itertools.combinations(range(len(parts)), 2))
        means = [strength[np.ix_(parts[i], parts[j])].mean() for i, j in pairs]
        if max(means) < 0.35:
            break
        i, j = pairs[int(np.argmax(means))]
        parts[i] += parts.pop(j)
    assert 1 < len(parts) < 6
    groups = correlated_groups(_series(values, observed, offsets), stop, 0.35).numpy()
    assert _as_sets(groups) == {frozenset(part) for part in parts}


def test_what_never_moved_belongs_to_nothing():
    values = _frame().to_numpy(copy=True)
    values[:, 1] = 3.25
    groups = correlated_groups(_series(values), torch.tensor([150]), 0.6)
    assert (groups == groups[1]).sum() == 1


def _block(groups):
    torch.manual_seed(0)
    block = GroupedBlock(
        SoftmaxAttention(6, 2),
        MLP(6, 7),
        across=SoftmaxAttention(6, 3),
        n_variates=len(groups),
        d_model=6,
        pre_norm=False,
    ).double()
    for weights in block.parameters():
        nn.init.normal_(weights, std=0.4)
    block.groups.copy_(torch.tensor(groups))
    return block


@pytest.mark.parametrize("groups", [[0, 1, 0, 2, 0], [4, 4, 4, 4, 4], [0, 1, 2, 3, 4]])
def test_a_group_is_mixed_as_if_there_were_no_other(groups):
    """Patch by patch and group by group, through the norms and the map of the block."""
    block = _block(groups)
    x = torch.randn(3 * 5, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    along = Block.after_mixer(block, x, block.mixer(x)).view(3, 5, 4, 6)
    expected = torch.empty_like(along)
    for b, p in [(b, p) for b in range(3) for p in range(4)]:
        for group in set(groups):
            members = [c for c, own in enumerate(groups) if own == group]
            tokens = along[b, members, p][None]
            tokens = block.mixer_norm(tokens + block.across(tokens))
            tokens = block.mlp_norm(tokens + block.mlp(tokens))
            expected[b, members, p] = tokens[0]
    torch.testing.assert_close(block(x), expected.flatten(0, 1))


def test_a_fit_finds_the_groups_and_keeps_them(tmp_path):
    frame = _frame()
    model = tsar.PatchTST(mixer=VariateGroups(correlation=0.5), **SMALL).fit(frame)
    for block in model.module_.encoder.blocks:
        assert _as_sets(block.groups.numpy()) == {frozenset(s) for s in ({0, 1, 3}, {2}, {4})}
    forecast = model.predict()
    others = {"a": ["a", "b", "c"], "x": ["x"]}
    for name, moved in others.items():
        changed = model.predict(df=frame.assign(**{name: frame[name].to_numpy()[::-1] ** 2}))
        same = np.isclose(changed, forecast, rtol=1e-6).all(axis=0)
        assert list(forecast.columns[~same]) == moved
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    assert loaded.mixer == VariateGroups(correlation=0.5)
    pd.testing.assert_frame_equal(loaded.predict(), forecast, check_exact=True)
    assert not model.takes_new_variates and not model.forecasts_variates_alone
    with pytest.raises(DataError, match="fitted"):
        model.predict(df=frame.rename(columns={"y": "z"}), allow_new_variates=True)
    plain = tsar.PatchTST(**SMALL).fit(frame)
    assert plain.takes_new_variates and plain.forecasts_variates_alone


def test_groups_stand_beside_covariates_and_survive_more_training():
    frame = _frame().assign(price=np.arange(150) % 7.0)
    options = {"mixer": VariateGroups(mixer="attention"), "future_covariates": ["price"]}
    model = tsar.PatchTST(**SMALL, **options).fit(frame)
    groups = model.module_.network.encoder.blocks[1].groups.clone()
    assert len(set(groups.tolist())) == 3
    model.partial_fit(frame)
    assert torch.equal(model.module_.network.encoder.blocks[1].groups, groups)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer": "atention"}, "VariateGroups: .*did you mean 'attention'"),
        ({"correlation": 1.5}, r"VariateGroups: correlation must be a number in \[0, 1\], got 1.5"),
    ],
)
def test_groups_that_cannot_be(options, message):
    with pytest.raises(ParameterError, match=message):
        VariateGroups(**options)


def test_what_groups_do_not_go_with():
    frame, options = _frame(), {**SMALL, "stride": 6, "end_padding": False}
    with pytest.raises(ParameterError, match="pretrain needs a mixer by name, got .*VariateGroups"):
        tsar.PatchTST(mixer=VariateGroups(), **options).pretrain(frame)
    with pytest.raises(ParameterError, match="d_model must be a multiple of n_heads=3, got 8"):
        tsar.PatchTST(mixer=VariateGroups(mixer="mamba"), **SMALL | {"n_heads": 3}).fit(frame)
