"""Spaces are checked before a search begins, and draw what they say."""

import numpy as np
import optuna
import pytest

import tsar
from tsar.exceptions import ParameterError
from tsar.forecasting.registry import forecaster_class, forecaster_names
from tsar.params.constraints import admits, check_parameters
from tsar.training import AdamW
from tsar.tuning import default_space
from tsar.tuning.spaces import Space, parse_space

# What an ensemble is made of is chosen by who makes it.
WITHOUT = (
    "AutoARIMA",
    "AutoETS",
    "AutoForecaster",
    "Drift",
    "Ensemble",
    "Mean",
    "Naive",
    "SeasonalNaive",
    "TransformedTarget",
)
SEARCHABLE = [name for name in forecaster_names() if name not in WITHOUT]
TRAINED = [name for name in SEARCHABLE if hasattr(forecaster_class(name), "partial_fit")]


def _draw(model, space, n=40):
    """Draw parameters at random, as Optuna does without a storage."""
    sampler = optuna.samplers.RandomSampler(seed=3)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler)
    checked = Space(model, space)
    return [checked.sample(study.ask()) for _ in range(n)]


@pytest.mark.parametrize("name", SEARCHABLE)
def test_every_default_space_holds_what_the_model_admits(name):
    cls = forecaster_class(name)
    drawn = _draw(cls(), default_space(cls()))
    assert {key for values in drawn for key in values} <= set(cls().get_params())
    for values in drawn:
        check_parameters(cls(**values))
    # A model that is trained has a rate that is never drawn twice.
    assert len({str(values) for values in drawn}) >= (40 if name in TRAINED else 3)


@pytest.mark.parametrize("name", TRAINED)
def test_default_space_is_around_the_model(name):
    cls = forecaster_class(name)
    model = cls(learning_rate=0.02, context_length=72)
    space = default_space(model, longest_context=150)
    assert space["context_length"] == [36, 72, 144]
    assert space["learning_rate"] == pytest.approx((0.002, 0.2, "log")[:2] + ("log",))


def test_models_without_a_space_and_data_without_room_are_refused():
    with pytest.raises(ParameterError, match="Naive has no default space; pass space="):
        default_space(tsar.Naive())
    with pytest.raises(ParameterError, match="must be at most 47 for these data, got 48 and more"):
        default_space(tsar.NLinear(), longest_context=47)


def test_kinds_of_entries_draw_what_they_say():
    model = tsar.PatchTST()
    space = {
        "d_model": (8, 64),
        "dropout": (0, 0.5),
        "optimizer": [AdamW(weight_decay=0.1), "adam"],
        "learning_rate": (1e-5, 1e-1, "log"),
        "patience": (np.int64(1), np.int64(4)),
        "quantiles": [None, (0.1, 0.9)],
        "n_heads": lambda trial: 2 ** trial.suggest_int("log_heads", 0, 3),
    }
    drawn = _draw(model, space, 200)
    assert {type(values["d_model"]) for values in drawn} == {int}
    assert {values["patience"] for values in drawn} == {1, 2, 3, 4}
    assert {values["n_heads"] for values in drawn} == {1, 2, 4, 8}
    assert {values["quantiles"] for values in drawn} == {None, (0.1, 0.9)}
    # Two integers for a number are its ends, not the only values.
    shares = [values["dropout"] for values in drawn]
    assert 0 <= min(shares) < 0.05 < 0.45 < max(shares) <= 0.5
    optimizers = [values["optimizer"] for values in drawn]
    assert "adam" in optimizers and AdamW(weight_decay=0.1) in optimizers
    # Uniform in the logarithm: half lies below the geometric mean.
    rates = np.array([values["learning_rate"] for values in drawn])
    assert 0.4 < (rates < 1e-3).mean() < 0.6


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "space must be a dict of parameter names with at least one entry, got {}"),
        (["d_model"], "space must be a dict"),
        ({"d_modle": [8]}, "parameter of the space must be .*did you mean 'd_model'"),
        ({"d_model": []}, r"space\['d_model'\] must be a list of choices"),
        ({"d_model": (8, 4)}, r"must be .*got \(8, 4\)"),
        ({"d_model": (8, 64, "logarithm")}, r"got \(8, 64, 'logarithm'\)"),
        ({"learning_rate": (0.0, 1.0, "log")}, r"got \(0.0, 1.0, 'log'\)"),
        ({"learning_rate": (0.1, float("inf"))}, "got"),
        ({"d_model": 8}, "must be a list"),
        ({"d_model": [8, 0]}, r"space\['d_model'\] must hold what PatchTST admits, got 0"),
        ({"dropout": (0.0, 2.0)}, "must hold what PatchTST admits, got 2.0"),
        ({"optimizer": ["adam", "sgd"]}, "got 'sgd'"),
    ],
)
def test_faults_of_a_space_are_one_error(space, message):
    with pytest.raises(ParameterError, match=message):
        Space(tsar.PatchTST(), space)


def test_admits_follows_the_annotation():
    assert admits(tsar.PatchTST, "d_model", 3) and not admits(tsar.PatchTST, "d_model", 3.0)
    assert admits(tsar.PatchTST, "no_parameter", object())


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("n_layers=1,2,3", {"n_layers": [1, 2, 3]}),
        ("n_layers=1..4", {"n_layers": (1, 4)}),
        ("dropout=0..0.5", {"dropout": (0, 0.5)}),
        ("learning_rate=1e-4..1e-2:log", {"learning_rate": (1e-4, 1e-2, "log")}),
        ("max_steps=3,none", {"max_steps": [3, None]}),
        ("loss=mse", {"loss": ["mse"]}),
    ],
)
def test_spaces_from_text(entry, expected):
    space = parse_space(tsar.PatchTST, [entry])
    assert space == expected
    for name, values in expected.items():
        assert repr(space[name]) == repr(values)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("dropout", "name=low..high"),
        ("dropout=", "name=low..high"),
        ("dropout=0..", "name=low..high"),
        ("dropout=a..b", "name=low..high"),
        ("dropout=0..0.5:lin", "name=low..high"),
        ("dropuot=0..0.5", "did you mean 'dropout'"),
        ("dropuot=0,0.5", "did you mean 'dropout'"),
    ],
)
def test_entries_that_are_no_space(entry, message):
    with pytest.raises(ParameterError, match=message):
        parse_space(tsar.PatchTST, [entry])
