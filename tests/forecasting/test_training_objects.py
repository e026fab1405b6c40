"""Losses, optimisers and schedules as objects, of ours and of others."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from torch import nn

import tsar
from tsar.exceptions import ParameterError, PersistenceError
from tsar.forecasting.outputs.distributions import NegativeBinomial
from tsar.forecasting.outputs.losses import (
    LOSSES,
    LikelihoodLoss,
    Loss,
    MSELoss,
    QuantileLoss,
)
from tsar.training import Adam, AdamW, Cosine, TorchOptimizer
from tsar.training.schedules import SCHEDULE_CLASSES, Schedule

SMALL = {"context_length": 24, "horizon": 6, "max_epochs": 2, "random_state": 0, "device": "cpu"}


def _model(**parameters):
    return tsar.NLinear(**{**SMALL, **parameters})


def squared(forecast, target):
    return (forecast - target).square()


class Cubic(Loss):
    def errors(self, forecast, target):
        return (forecast - target).abs().pow(3)


@pytest.mark.parametrize(
    ("name", "objects"),
    [
        ("mse", [MSELoss(), squared, nn.MSELoss(reduction="none")]),
        ("mae", [nn.L1Loss(reduction="none")]),
        ("quantile", [QuantileLoss([0.1, 0.5, 0.9])]),
    ],
)
def test_a_loss_as_an_object_is_the_loss_of_that_name(name, objects, wide):
    expected = _model(loss=name).fit(wide)
    for loss in objects:
        model = _model(loss=loss).fit(wide)
        pd.testing.assert_frame_equal(model.predict(), expected.predict(), check_exact=True)
        assert model.history_["val_loss"] == expected.history_["val_loss"]
        assert clone(model).fit(wide).history_["val_loss"] == expected.history_["val_loss"]
    if name == "quantile":
        assert list(model.predict(quantiles=[0.1])) == list(expected.predict(quantiles=[0.1]))


def test_a_loss_of_ones_own_is_minimised(wide):
    losses = _model(loss=Cubic(), max_epochs=8, learning_rate=0.01).fit(wide).history_
    assert losses["train_loss"][-1] < 0.5 * losses["train_loss"][0]


def test_a_likelihood_as_an_object_forecasts_its_distribution():
    rng = np.random.default_rng(0)
    index = pd.date_range("2024", periods=150, freq="h")
    counts = pd.DataFrame({"sold": rng.poisson(4, size=150).astype(float)}, index=index)
    named = _model(loss="negative_binomial").fit(counts)
    given = _model(loss=LikelihoodLoss(NegativeBinomial())).fit(counts)
    expected = named.predict(quantiles=[0.2, 0.9])
    pd.testing.assert_frame_equal(given.predict(quantiles=[0.2, 0.9]), expected)
    with pytest.raises(tsar.exceptions.DataError, match="needs counts"):
        given.fit(counts + 0.5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"loss": 3}, "NLinear: loss must be a string or an instance of Loss or"),
        ({"loss": "msee"}, "did you mean 'mse'"),
        ({"loss": MSELoss}, r"NLinear: loss must be an object, got the class MSELoss; call it"),
        ({"loss": MSELoss(), "quantiles": [0.5]}, "quantiles.* needs? loss='quantile'"),
        ({"loss": QuantileLoss([0.5]), "quantiles": [0.1]}, "must be those of the loss"),
        ({"optimizer": torch.optim.SGD}, "an instance of Optimizer"),
        ({"learning_rate_schedule": "cosin"}, "did you mean 'cosine'"),
    ],
)
def test_objects_that_fit_nowhere_are_one_error(parameters, message, wide):
    with pytest.raises(ParameterError, match=message):
        _model(**parameters).fit(wide)


def test_a_loss_that_is_a_mean_already_is_one_error(wide):
    with pytest.raises(ParameterError, match=r"NLinear: loss must return one error per entry.*"):
        _model(loss=nn.MSELoss()).fit(wide)


def test_optimisers_and_schedules_as_objects_are_those_of_their_names(wide):
    named = _model(optimizer="adamw", learning_rate_schedule="cosine").fit(wide)
    objects = {"optimizer": AdamW(), "learning_rate_schedule": Cosine()}
    given = _model(**objects).fit(wide)
    pd.testing.assert_frame_equal(given.predict(), named.predict(), check_exact=True)
    given.set_params(
        optimizer=AdamW(weight_decay=0.1, clip=0.5, precision="bfloat16"),
        learning_rate_schedule=Cosine(warmup_steps=3),
    )
    assert "clip=0.5" in repr(given) and "warmup_steps=3" in repr(given)
    assert not given.fit(wide).predict().equals(named.predict())


def test_any_optimiser_of_torch_continues(wide):
    options = {
        "optimizer": TorchOptimizer(torch.optim.SGD, momentum=0.9),
        "early_stopping": False,
    }
    whole = _model(**options, max_epochs=4).fit(wide)
    half = _model(**options).fit(wide).partial_fit(wide)
    pd.testing.assert_frame_equal(half.predict(), whole.predict(), check_exact=True)


def test_objects_are_passed_again_on_load(wide, tmp_path):
    given = {"loss": squared, "optimizer": TorchOptimizer(torch.optim.SGD, momentum=0.9)}
    model = _model(**given, early_stopping=False).fit(wide)
    model.save(tmp_path / "model")
    with pytest.raises(PersistenceError, match=r"as loss, which is not saved; pass it again"):
        tsar.load(tmp_path / "model")
    twin = tsar.load(tmp_path / "model", **given)
    pd.testing.assert_frame_equal(twin.predict(), model.predict(), check_exact=True)
    expected = model.partial_fit(wide).predict()
    pd.testing.assert_frame_equal(twin.partial_fit(wide).predict(), expected, check_exact=True)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda forecast: forecast, "NLinear: loss must be a function of forecast and target"),
        (lambda f, t: (f - t).detach().abs(), "NLinear: loss must be differentiable"),
    ],
)
def test_functions_that_are_no_loss_are_one_error(loss, message, wide):
    with pytest.raises(ParameterError, match=message):
        tsar.NLinear(context_length=24, horizon=6, max_epochs=1, loss=loss).fit(wide)


OBJECTS = [
    {"optimizer": AdamW(weight_decay=0.1, betas=(0.8, 0.9), rates={"*": 2.0}, decay_all=False)},
    {"optimizer": Adam(epsilon=1e-6)},
    {"optimizer": TorchOptimizer(torch.optim.SGD, momentum=0.9, decay_all=False)},
    {"learning_rate_schedule": Cosine(lowest=0.1, warmup_steps=2)},
    {"loss": QuantileLoss([0.1, 0.5, 0.9])},
    {"loss": LikelihoodLoss(NegativeBinomial())},
    {"loss": MSELoss()},
]


@pytest.mark.parametrize("training_state", [True, False])
@pytest.mark.parametrize("objects", OBJECTS, ids=lambda objects: str(*objects.values()))
def test_objects_of_tsar_are_saved_in_members_at_any_depth(objects, training_state, tmp_path):
    rng = np.random.default_rng(0)
    index = pd.date_range("2024", periods=90, freq="h")
    counts = pd.DataFrame({"sold": rng.poisson(4, size=90).astype(float)}, index=index)
    inner = tsar.Ensemble(models={"net": _model(**objects), "naive": tsar.Naive()})
    for model in (_model(**objects), tsar.Ensemble(models=[inner, tsar.AutoReg()], horizon=6)):
        model.fit(counts).save(tmp_path / "model", training_state=training_state)
        twin = tsar.load(tmp_path / "model")
        assert repr(twin.get_params()) == repr(model.get_params())
        pd.testing.assert_frame_equal(twin.predict(), model.predict(), check_exact=True)
        again, expected = twin.fit(counts).predict(), clone(model).fit(counts).predict()
        pd.testing.assert_frame_equal(again, expected, check_exact=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stairs(Schedule):
    height: float = 0.5

    def factor(self, step, steps_per_epoch, n_steps):
        return self.height ** (step // 3)


class Power(Loss):
    def __init__(self, power=2.0):
        self.power = power

    def errors(self, forecast, target):
        return (forecast - target).abs().pow(self.power)


class Doubled(Power):
    """What it was made with is not what it holds."""

    def __init__(self, power=2.0):
        super().__init__(2 * power)


@pytest.mark.parametrize(
    ("parameter", "thing", "registry"),
    [
        ("learning_rate_schedule", Stairs(height=0.3), SCHEDULE_CLASSES),
        ("loss", Power(3.0), LOSSES),
    ],
)
def test_registered_objects_are_saved_with_what_they_were_made_with(
    parameter, thing, registry, wide, tmp_path
):
    model = _model(**{parameter: thing}).fit(wide)
    model.save(tmp_path / "unknown")
    with pytest.raises(PersistenceError, match=f"as {parameter}, which is not saved; pass it"):
        tsar.load(tmp_path / "unknown")
    name = type(thing).__name__
    tsar.register(type(thing))
    try:
        model.save(tmp_path / "known")
        twin = tsar.load(tmp_path / "known")
        assert vars(twin.get_params()[parameter]) == vars(thing)
        pd.testing.assert_frame_equal(twin.predict(), model.predict(), check_exact=True)
        # Passed again, as it had to be once, it is taken.
        assert tsar.load(tmp_path / "known", **{parameter: thing}).get_params()[parameter] is thing
    finally:
        registry.unregister(name)
    with pytest.raises(PersistenceError, match=f"{name!r} is no .*; register it by tsar.register"):
        tsar.load(tmp_path / "known")


def test_an_object_that_cannot_be_made_again_is_passed_again(wide, tmp_path):
    tsar.register(Doubled)
    try:
        _model(loss=Doubled(1.5)).fit(wide).save(tmp_path / "model")
    finally:
        LOSSES.unregister("Doubled")
    with pytest.raises(PersistenceError, match="type Doubled as loss, which is not saved"):
        tsar.load(tmp_path / "model")


@pytest.mark.parametrize("optimizer", ["adam", AdamW()])
def test_parameters_of_an_object_are_set_with_a_new_one(optimizer):
    model = _model(optimizer=optimizer)
    with pytest.raises(ParameterError, match="pass a new one as optimizer=, with weight_decay"):
        model.set_params(optimizer__weight_decay=0.1, horizon=3)
    assert model.horizon == SMALL["horizon"]
