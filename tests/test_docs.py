"""Docstrings say what there is to say, and their examples run."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString

from tsar.forecasting.registry import forecaster_class, forecaster_names

PACKAGE = Path(__file__).resolve().parents[1] / "tsar"
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
]

# The packages on the API page.
API = [
    "tsar",
    "tsar.checks",
    "tsar.core.mixers",
    "tsar.core.state",
    "tsar.data.datasets",
    "tsar.evaluation",
    "tsar.hierarchy",
    "tsar.plot",
    "tsar.tuning",
    "tsar.batch",
]


def _documented(obj: object, section: str) -> set[str]:
    """List the names of a section; one line may describe several."""
    parsed = NumpyDocString(inspect.getdoc(obj) or "")
    entries = [entry.name for entry in parsed[section]]
    return {name.strip().lstrip("*") for entry in entries for name in entry.split(",")}


def _of_all_bases(cls: type, section: str) -> set[str]:
    ours = [base for base in cls.__mro__ if base.__module__.startswith("tsar")]
    return set().union(*(_documented(base, section) for base in ours))


@pytest.mark.parametrize("name", forecaster_names())
def test_every_parameter_is_documented_and_exists(name):
    cls = forecaster_class(name)
    assert _of_all_bases(cls, "Parameters") == set(cls().get_params())


@pytest.mark.parametrize("name", forecaster_names())
def test_every_learned_attribute_is_documented(name, wide):
    cls = forecaster_class(name)
    trained = {"context_length": 24, "max_epochs": 1, "random_state": 0}
    params = {key: value for key, value in trained.items() if key in cls().get_params()}
    model = cls(horizon=3, **params).fit(wide)
    # Properties count: what follows from the weights is computed when it is asked for.
    learned = {key for key in dir(model) if key.endswith("_") and not key.startswith("_")}
    assert learned and learned == _of_all_bases(cls, "Attributes")


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
    assert doctest.testmod(module, optionflags=options).failed == 0
