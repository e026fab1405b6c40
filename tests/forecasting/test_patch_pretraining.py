"""Pre-training by masked patches, and what ``fit`` makes of it."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

import tsar
from tsar.data.windows import SeriesTensors, Windows
from tsar.exceptions import (
    InterruptedWarning,
    NotFittedError,
    ParameterError,
    PretrainingWarning,
)
from tsar.forecasting import patch_pretraining
from tsar.forecasting.layers.embedding import PatchEmbedding
from tsar.forecasting.outputs.losses import MSELoss
from tsar.forecasting.outputs.output import PointOutput
from tsar.forecasting.patch_pretraining import MaskedWindows, PatchReconstruction, draw_hidden
from tsar.forecasting.patchtst import PatchTSTNetwork
from tsar.training import phases
from tsar.training.seeding import make_generator

SMALL = {
    **{"context_length": 26, "horizon": 5, "patch_length": 4, "stride": 4, "end_padding": False},
    **{"d_model": 8, "n_heads": 2, "d_ff": 11, "n_layers": 2, "dropout": 0.1},
    **{"max_epochs": 2, "fine_tuning": 1, "random_state": 0, "device": "cpu"},
}


def _model(**parameters):
    return tsar.PatchTST(**{**SMALL, **parameters})


@pytest.fixture
def other() -> pd.DataFrame:
    """Another data set: daily, two variates, other units."""
    index = pd.date_range("2020-01-01", periods=170, freq="D")
    steps = np.arange(170)
    noise = np.random.default_rng(3).normal(size=(170, 2))
    values = 1e4 + 300 * np.sin(2 * np.pi * steps / 7)[:, None] + 40 * noise
    return pd.DataFrame(values, index=index, columns=["north", "south"])


def _backbone(model) -> dict[str, torch.Tensor]:
    state = model.module_.state_dict()
    return {name: weight for name, weight in state.items() if not name.startswith("head.")}


def _same(weights, others) -> bool:
    return weights.keys() == others.keys() and all(
        torch.equal(weight, others[name]) for name, weight in weights.items()
    )


# ---------------------------------------------------------------------- masks


@pytest.mark.parametrize(("n_patches", "n_hidden"), [(42, 17), (7, 1), (5, 4)])
def test_the_share_is_exact_in_every_series_and_even_over_patches(n_patches, n_hidden):
    hidden = draw_hidden(3000, n_patches, n_hidden, make_generator(0))
    assert hidden.shape == (3000, n_patches) and hidden.dtype == torch.bool
    assert (hidden.sum(dim=1) == n_hidden).all()
    share = n_hidden / n_patches
    deviation = (share * (1 - share) / 3000) ** 0.5
    assert (hidden.double().mean(dim=0) - share).abs().max() < 5 * deviation
    assert len(hidden.unique(dim=0)) > 3


def _windows(observed=None, n_variates=3, context_length=26):
    generator = torch.Generator().manual_seed(4)
    values = 5 + torch.randn(90, n_variates, generator=generator)
    offsets = torch.tensor([0, 90])
    series = SeriesTensors(values, observed, offsets)
    return Windows(series, np.array([context_length]), np.array([85]), context_length, 5)


def _masked(observed=None, **options):
    embedding = PatchEmbedding(26, 4, 4, 8, end_padding=False)
    options = {"seed": 1, "n_hidden": 2, **options}
    return MaskedWindows(_windows(observed), embedding=embedding, **options)


def test_hidden_patches_are_zero_and_nothing_else_changes():
    """Six patches that end with the window, the two oldest steps left out."""
    batch = _masked().batch(torch.tensor([7, 11, 30, 2]))
    context = _windows().batch(torch.tensor([7, 11, 30, 2])).inputs.target
    assert batch.target.shape == (12, 6, 4) and batch.inputs.readable is None
    for b in range(4):
        for c in range(3):
            x = context[b, :, c]
            x = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
            row, masked = batch.target[3 * b + c], batch.inputs.patches[3 * b + c]
            torch.testing.assert_close(row.flatten(), x[2:])
            hidden = (masked == 0).all(dim=1)
            assert hidden.sum() == 2
            assert torch.equal(masked[~hidden], row[~hidden])
            assert torch.equal(batch.observed[3 * b + c], hidden[:, None].expand(6, 4))


def test_every_variate_and_batch_draws_anew():
    masked = _masked()
    first, second = (masked.batch(torch.arange(16)).observed[..., 0] for _ in range(2))
    assert not torch.equal(first, second)
    by_variate = first.view(16, 3, 6)
    assert not torch.equal(by_variate[:, 0], by_variate[:, 1])


def test_validation_hides_the_same_patches_every_time():
    fixed = _masked(fixed=True)
    batches = [torch.arange(16), torch.arange(16, 30)]
    before = [fixed.batch(index).observed for index in batches]
    assert not torch.equal(before[0][:14], before[1][:14])
    for index, hidden in zip(batches, before, strict=True):
        assert torch.equal(fixed.batch(index).observed, hidden)


def test_seeds_decide_the_masks():
    masks = [_masked(seed=seed).batch(torch.arange(9)).observed for seed in (1, 1, 2)]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


# ----------------------------------------------------------------------- loss


def test_loss_counts_hidden_patches_only():
    batch = _masked().batch(torch.arange(5))
    loss = MSELoss()
    hidden = batch.observed
    wrong_elsewhere = torch.where(hidden, batch.target, torch.tensor(1e6))
    assert loss(wrong_elsewhere, batch.target, batch.observed) == 0
    # Zeros for everything: the mean square of what was hidden.
    expected = batch.target[hidden].square().mean()
    zeros = torch.zeros_like(batch.target)
    torch.testing.assert_close(loss(zeros, batch.target, batch.observed), expected)


def test_loss_leaves_out_what_was_not_observed():
    observed = torch.rand(90, 3, generator=torch.Generator().manual_seed(5)) > 0.3
    observed[:40, 1] = False
    masked = _masked(observed)
    batch = masked.batch(torch.arange(5))
    plain = _windows(observed).batch(torch.arange(5)).inputs
    seen = plain.observed[:, 2:].transpose(1, 2).reshape(15, 6, 4)
    hidden = (batch.inputs.patches == 0).all(dim=2, keepdim=True)
    assert not (batch.observed & ~seen).any() and not (batch.observed & ~hidden).any()
    assert batch.inputs.readable.shape == (15, 6)
    assert torch.equal(batch.inputs.readable[[0, 2]], seen[[0, 2]].any(dim=-1))


def test_reconstruction_reads_what_is_shown_and_gives_every_patch():
    torch.manual_seed(0)
    sizes = {name: SMALL[name] for name in ("d_model", "n_heads", "d_ff", "n_layers", "stride")}
    network = PatchTSTNetwork(
        context_length=26, horizon=5, patch_length=4, output=PointOutput(), end_padding=False,
        dropout=0.0, **sizes,
    )  # fmt: skip
    task = PatchReconstruction(network, dropout=0.0).eval()
    batch = _masked().batch(torch.arange(5))
    tokens = network.embedding.project(batch.inputs.patches) + network.position.weight
    expected = task.head(network.encoder(tokens))
    torch.testing.assert_close(task(batch.inputs), expected)
    assert expected.shape == (15, 6, 4)


def test_pretraining_learns(wide):
    options = {"early_stopping": False, "d_model": 16, "batch_size": 32}
    model = _model(max_epochs=12, learning_rate=3e-3, **options)
    losses = model.pretrain(wide[["load", "price"]]).pretrain_history_["train_loss"]
    assert losses[-1] < 0.75 * losses[0]


# ---------------------------------------------------------------------- the fit


def test_linear_probe_leaves_everything_below_the_head(wide, other):
    """Weights and running statistics, to the bit."""
    model = _model(fine_tuning="linear_probe").pretrain(other).fit(wide)
    assert _same(_backbone(model), model._backbone.weights)
    head = model.module_.head.weight
    model.partial_fit(wide)
    assert _same(_backbone(model), model._backbone.weights)
    assert not torch.equal(model.module_.head.weight, head) and model.n_epochs_ == 4
    assert all(parameter.requires_grad for parameter in model.module_.parameters())


def test_end_to_end_trains_the_head_and_then_everything(wide, other, monkeypatch):
    calls = []
    train = phases.train

    def spy(network, *arguments, frozen=(), **keywords):
        result = train(network, *arguments, frozen=frozen, **keywords)
        options = arguments[3]
        calls.append((frozen, options.max_epochs, options.learning_rate, result.n_epochs))
        return result

    model = _model(max_epochs=3, fine_tuning=2, learning_rate=4e-3).pretrain(other)
    monkeypatch.setattr(phases, "train", spy)
    model.fit(wide)
    backbone = PatchTSTNetwork.BACKBONE
    assert calls == [(backbone, 2, 4e-3, 2), ((), 3, 2e-3, 5)]
    assert model.history_["learning_rate"] == [4e-3, 4e-3, 2e-3, 2e-3, 2e-3]
    assert not _same(_backbone(model), model._backbone.weights)
    losses = model.history_["val_loss"]
    assert losses[model.best_epoch_ - 1] == min(losses)
    model.partial_fit(wide)
    assert calls[2] == ((), 3, 2e-3, 8)


@pytest.mark.parametrize("first", [1, "linear_probe"])
def test_fine_tuning_may_change_on_the_way(first, wide, other):
    """Moments stay with the parameters that they are of, and the others begin anew."""
    second = "linear_probe" if first == 1 else 1
    model = _model(fine_tuning=first, early_stopping=False).pretrain(other).fit(wide)
    before = dict(model._training_state.optimizer)
    model.set_params(fine_tuning=second).partial_fit(wide)
    after = model._training_state.optimizer
    names = {name for name, _ in model.module_.named_parameters()}
    head = {"head.weight", "head.bias"}
    trained = {first: head if first == "linear_probe" else names}
    trained[second] = head if second == "linear_probe" else names
    assert {path.rsplit(".", 1)[0] for path in before} == trained[first]
    assert {path.rsplit(".", 1)[0] for path in after} == trained[second]
    steps_of = {name: after[f"{name}.step"].item() for name in trained[second]}
    per_fit = before["head.weight.step"].item()
    assert steps_of == {name: (2 if name in head else 1) * per_fit for name in trained[second]}
    for name, weight in model.module_.named_parameters():
        if name in trained[second]:
            assert after[f"{name}.exp_avg"].shape == weight.shape


def test_max_steps_bounds_both_parts_together(wide, other):
    model = _model(batch_size=8, max_epochs=9, fine_tuning=1).pretrain(other)
    per_epoch = (len(wide) - int(0.2 * len(wide)) - 26 - 5 + 1) // 8
    model.set_params(max_steps=per_epoch + 2).fit(wide)
    assert model.n_epochs_ == 2
    model.set_params(max_steps=per_epoch).fit(wide)
    assert model.n_epochs_ == 1 and _same(_backbone(model), model._backbone.weights)


def test_transfer_to_other_variates_and_horizon(wide, other):
    model = _model().pretrain(other)
    assert model.set_params(horizon=7).fit(wide).predict().shape == (7, 3)
    assert model.set_params(horizon=2).fit(wide[["load"]]).predict().shape == (2, 1)
    assert model.set_params(loss="quantile").fit(other).predict().shape == (2, 2)


def test_every_fit_starts_from_the_same_weights(wide, other):
    model = _model().pretrain(other)
    first = model.fit(wide).predict()
    model.fit(other)
    pd.testing.assert_frame_equal(model.fit(wide).predict(), first, check_exact=True)
    with pytest.warns(PretrainingWarning, match=r"PatchTST: a clone .* is not pre-trained"):
        fresh = clone(model).fit(wide)
    assert not hasattr(fresh, "pretrain_history_") and not fresh.predict().equals(first)
    unaware = _model().fit(wide).predict()
    pd.testing.assert_frame_equal(fresh.predict(), unaware, check_exact=True)


def test_one_seed_gives_one_result_and_leaves_the_global_generators(wide, other):
    before = torch.get_rng_state()
    first, second, third = (_model(random_state=seed).pretrain(other) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert _same(first._backbone.weights, second._backbone.weights)
    assert not _same(first._backbone.weights, third._backbone.weights)
    pd.testing.assert_frame_equal(first.fit(wide).predict(), second.fit(wide).predict())


def test_history_holds_the_validation_of_hidden_patches(other):
    model = _model().pretrain(other)
    assert set(model.pretrain_history_) == {"train_loss", "val_loss", "learning_rate", "seconds"}
    assert all(len(values) == 2 for values in model.pretrain_history_.values())
    bare = _model(early_stopping=False).pretrain(other)
    assert "val_loss" not in bare.pretrain_history_


def test_missing_values_and_short_series_are_no_obstacle(wide):
    long = wide.rename_axis("ds").melt(var_name="unique_id", value_name="y", ignore_index=False)
    long = long.reset_index()[["unique_id", "ds", "y"]]
    long.loc[np.random.default_rng(0).random(len(long)) < 0.2, "y"] = np.nan
    short = long[:9].assign(unique_id="short")
    model = _model().pretrain(pd.concat([long, short]))
    assert np.isfinite(model.pretrain_history_["train_loss"]).all()
    assert np.isfinite(model.fit(long).predict()["y"]).all()


def test_an_earlier_fit_stays_until_the_next(wide, other):
    model = _model().fit(wide)
    before = model.predict()
    model.pretrain(other)
    pd.testing.assert_frame_equal(model.predict(), before, check_exact=True)
    assert not model.fit(wide).predict().equals(before)


def test_covariates_are_left_to_fit(wide, other):
    """The pathway around the network is trained with the head."""
    weekend = (other.index.day_of_week >= 5).astype(float)
    model = _model(fine_tuning="linear_probe").pretrain(other)
    model.set_params(future_covariates="weekend").fit(other.assign(weekend=weekend))
    network = patch_pretraining._patch_network(model.module_)
    weights = network.backbone_weights()
    assert network is not model.module_ and _same(weights, model._backbone.weights)
    future = model.make_future_frame().assign(weekend=0.0)
    assert model.predict(future=future).shape == (5, 2)


# ---------------------------------------------------------- saving and loading


def test_a_pretrained_model_is_saved_and_loaded_before_fit(wide, other, tmp_path):
    model = _model().pretrain(other)
    model.save(tmp_path / "model")
    twin = tsar.load(tmp_path / "model")
    assert twin.get_params() == model.get_params()
    assert twin.pretrain_history_ == model.pretrain_history_
    with pytest.raises(NotFittedError, match="PatchTST is not fitted yet"):
        twin.predict()
    twin.save(tmp_path / "again")
    third = tsar.load(tmp_path / "again")
    expected = model.fit(wide).predict()
    for loaded in (twin, third):
        pd.testing.assert_frame_equal(loaded.fit(wide).predict(), expected, check_exact=True)


def test_a_fitted_model_keeps_its_start_through_a_file(wide, other, tmp_path):
    model = _model().pretrain(other).fit(wide)
    model.save(tmp_path / "model")
    twin = tsar.load(tmp_path / "model")
    pd.testing.assert_frame_equal(twin.predict(), model.predict(), check_exact=True)
    refitted = twin.set_params(horizon=3).fit(other).predict()
    expected = model.set_params(horizon=3).fit(other).predict()
    pd.testing.assert_frame_equal(refitted, expected, check_exact=True)


def test_a_file_may_hold_a_fit_and_another_pretraining(wide, other, tmp_path):
    model = _model().fit(wide)
    model.set_params(d_model=12).pretrain(other)
    model.save(tmp_path / "model")
    twin = tsar.load(tmp_path / "model")
    pd.testing.assert_frame_equal(twin.predict(), model.predict(), check_exact=True)
    refitted = twin.set_params(d_model=12).fit(wide).predict()
    pd.testing.assert_frame_equal(refitted, model.fit(wide).predict(), check_exact=True)


def test_without_fit_and_pretraining_there_is_nothing_to_save(tmp_path):
    with pytest.raises(NotFittedError, match="PatchTST is not fitted yet"):
        _model().save(tmp_path / "model")


# ------------------------------------------------------------ refusals, interrupts


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"stride": 3}, "do not overlap: stride must be at least patch_length=4, got 3"),
        ({"end_padding": True}, "do not overlap: end_padding must be False, got True"),
        ({"fine_tuning": -1}, r"fine_tuning must be .* or an integer in \[0, inf\), got -1"),
        ({"fine_tuning": "linear-probe"}, "did you mean 'linear_probe'"),
    ],
)
def test_bad_parameters_are_refused_before_training(other, parameters, message, monkeypatch):
    monkeypatch.setattr(patch_pretraining, "PatchReconstruction", None)
    with pytest.raises(ParameterError, match=message):
        _model(**parameters).pretrain(other)


@pytest.mark.parametrize(
    ("mask_ratio", "message"),
    [
        (0.0, r"PatchTST.pretrain: mask_ratio must be a number in \(0, 1\), got 0.0"),
        (0.05, "at least one of 6 patches and leave one, got 0.05, which hides 0"),
        (0.95, "which hides 6"),
    ],
)
def test_bad_shares_are_refused_before_training(other, mask_ratio, message, monkeypatch):
    monkeypatch.setattr(patch_pretraining, "PatchReconstruction", None)
    with pytest.raises(ParameterError, match=message):
        _model().pretrain(other, mask_ratio=mask_ratio)


def test_another_network_than_the_pretrained_one_is_refused(wide, other):
    model = _model().pretrain(other)
    message = r"d_model must be 8 as in pretrain, got 16; restore it, .* or take clone\(model\)"
    with pytest.raises(ParameterError, match=message):
        model.set_params(d_model=16).fit(wide)
    model.set_params(d_model=8, dropout=0.3, batch_size=8).fit(wide)


def test_an_interrupt_keeps_the_epochs_done(other, monkeypatch):
    batch = MaskedWindows.batch
    calls = []

    def stop(self, index):
        calls.append(index)
        if len(calls) == limit:
            raise KeyboardInterrupt
        return batch(self, index)

    monkeypatch.setattr(MaskedWindows, "batch", stop)
    limit = 1
    model = _model(max_epochs=9)
    with pytest.raises(KeyboardInterrupt):
        model.pretrain(other)
    assert not hasattr(model, "pretrain_history_")
    limit, calls = 12, []
    with pytest.warns(InterruptedWarning, match="interrupted after 2 epochs"):
        model.pretrain(other)
    assert len(model.pretrain_history_["train_loss"]) == 2
