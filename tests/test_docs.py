"""Docstrings say what there is to say, and their examples run."""

import ast
import doctest
import importlib
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString

from tsar.estimator.documentation import parameter_groups
from tsar.forecasting.registry import FORECASTERS, forecaster_class, forecaster_names

PACKAGE = Path(__file__).resolve().parents[1] / "tsar"
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
]

# The packages on the API page.
API = [
    "tsar",
    "tsar.checks",
    "tsar.core.decoding",
    "tsar.core.inspection",
    "tsar.core.mixers",
    "tsar.core.state",
    "tsar.data.datasets",
    "tsar.evaluation",
    "tsar.hierarchy",
    "tsar.language",
    "tsar.plot",
    "tsar.tuning",
    "tsar.batch",
    "tsar.monitoring",
]


def _documented(obj: object, section: str) -> set[str]:
    """List the names of a section; one line may describe several."""
    parsed = NumpyDocString(inspect.getdoc(obj) or "")
    entries = [entry.name for entry in parsed[section]]
    return {name.strip().lstrip("*") for entry in entries for name in entry.split(",")}


def _entries(obj: object, *sections: str) -> list[tuple[str, str]]:
    """List the names of sections, each with the type that is written beside it."""
    parsed = NumpyDocString(inspect.getdoc(obj) or "")
    return [
        (name.strip(), entry.type)
        for section in sections
        for entry in parsed[section]
        for name in entry.name.split(",")
    ]


@pytest.mark.parametrize("name", forecaster_names())
def test_every_parameter_is_documented_once_and_exists(name):
    cls = forecaster_class(name)
    documented = [name for name, _ in _entries(cls, "Parameters", "Other Parameters")]
    assert sorted(documented) == sorted(cls().get_params())


@pytest.mark.parametrize("name", forecaster_names())
def test_documented_defaults_are_those_of_the_class(name):
    cls = forecaster_class(name)
    parsed = NumpyDocString(inspect.getdoc(cls))
    defaults = {field.name: field.default for field in fields(cls)}
    for entry in [*parsed["Parameters"], *parsed["Other Parameters"]]:
        names = [part.strip() for part in entry.name.split(",")]
        _, found, text = entry.type.partition(", default ")
        if found:
            values = re.split(r", (?![0-9.]+\))| and ", text) if len(names) > 1 else [text]
            values = values * len(names) if len(values) == 1 else values
            assert [defaults[part] for part in names] == [ast.literal_eval(v) for v in values]


@pytest.mark.parametrize("name", forecaster_names())
def test_signatures_read_like_a_persons(name):
    cls = forecaster_class(name)
    signature = inspect.signature(cls)
    assert set(signature.parameters) == set(cls().get_params())
    assert {p.name: p.default for p in signature.parameters.values()} == {
        field.name: field.default for field in fields(cls)
    }
    assert not re.search(r"Interval|Annotated|typing|tsar\.|Optional", str(signature))


def test_parameters_come_by_what_they_are_about():
    groups = parameter_groups(forecaster_class("PatchTST"))
    assert {"d_model", "horizon", "mixer"} <= set(groups["model"])
    assert {"max_epochs", "optimizer", "device", "loss"} <= set(groups["training"])
    assert {"id_column", "future_covariates", "gaps"} <= set(groups["data"])
    assert list(inspect.signature(forecaster_class("PatchTST")).parameters) == sum(
        groups.values(), []
    )


class Own(forecaster_class("NLinear")):
    """A model of one's own.

    Parameters
    ----------
    width : int, default 3
        How wide.
    max_epochs : int, default 7
        Fewer.
    """


def test_a_class_of_ones_own_is_completed_and_has_the_word():
    entries = dict(_entries(Own, "Parameters", "Other Parameters"))
    assert entries["width"] == "int, default 3" and entries["max_epochs"] == "int, default 7"
    assert Own.__doc__.count("max_epochs : ") == 1 and "learning_rate" in entries
    assert not NumpyDocString(Own.__doc__)["References"]


@pytest.mark.parametrize("name", forecaster_names())
def test_every_learned_attribute_is_documented(name, wide):
    cls = forecaster_class(name)
    small = {"context_length": 24, "d_model": 16, "d_ff": 16, "n_steps": 2, "n_samples": 2}
    small |= {"max_terms": 1, "max_seasonal_terms": 0, "time_limit": 1e-6}
    trained = {"max_steps": 1, "random_state": 0}
    params = {k: value for k, value in {**small, **trained}.items() if k in cls().get_params()}
    model = cls(horizon=3, **params).fit(wide)
    # Properties count: what follows from the weights is computed when it is asked for.
    learned = {key for key in dir(model) if key.endswith("_") and not key.startswith("_")}
    documented = {name for name, _ in _entries(cls, "Attributes")}
    assert learned and learned == documented


@pytest.mark.parametrize("name", forecaster_names())
def test_forecaster_has_an_example_and_says_where_it_is_from(name):
    parsed = NumpyDocString(inspect.getdoc(forecaster_class(name)))
    assert parsed["Summary"] and parsed["Examples"]
    if name not in ("Naive", "SeasonalNaive"):
        assert parsed["References"]


def _public_functions() -> list:
    found = []
    for name in API:
        module = importlib.import_module(name)
        for public in module.__all__:
            obj = getattr(module, public)
            if inspect.isfunction(obj):
                found.append(pytest.param(obj, id=f"{name}.{public}"))
    return found


@pytest.mark.parametrize("function", _public_functions())
def test_public_function_documents_its_parameters(function):
    parameters = set(inspect.signature(function).parameters)
    assert _documented(function, "Parameters") == parameters


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    names = set(forecaster_names())
    try:
        assert doctest.testmod(module, optionflags=options).failed == 0
    finally:
        # What an example registers is not for the tests that follow.
        for own in set(forecaster_names()) - names:
            FORECASTERS.unregister(own)
