"""What every estimator of every family promises, and the tools to check it."""

import contextlib
import io
import os
import pickle
import random
import tempfile
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from sklearn.base import clone

from tsar.estimator.base import Estimator
from tsar.exceptions import NotFittedError
from tsar.persistence import load

__all__ = ["CONTRACT_CHECKS", "Check", "Family", "made_small", "raises"]

Check: TypeAlias = Callable[[Any], None]
FamilyCheck: TypeAlias = "Callable[..., None]"


class Family(ABC):
    """What the checks of the contract have to know of a family of estimators."""

    @abstractmethod
    def covers(self, estimator: Any) -> bool:
        """Whether an estimator is of the family."""

    def small(self, cls: type[Any]) -> Any:
        """Return an estimator of a class that fits in a moment."""
        return cls()

    @abstractmethod
    def data(self, seed: int = 0) -> Any:
        """Return something small to fit; another seed gives other data of the same kind."""

    @abstractmethod
    def answer(self, fitted: Any) -> np.ndarray:
        """Return the numbers that a fitted estimator gives, the same at every call."""

    def checks(self, estimator: Any) -> tuple[Check, ...]:
        """Return further checks that an estimator of the family has to pass."""
        return ()


def made_small(cls: type[Any], settings: Mapping[str, Any], **parameters: Any) -> Any:
    """Return an estimator of a class with those of some settings that it has.

    Parameters
    ----------
    cls : type
    settings : mapping of str to object
        What makes any estimator of the family small.
    **parameters
        Set on top of them.
    """
    estimator = cls()
    small = {name: value for name, value in settings.items() if name in estimator.get_params()}
    return estimator.set_params(**{**small, **parameters})


def raises(error: type[Exception], words: str, call: Callable[[], Any]) -> None:
    """Raise an AssertionError unless a call raises an error whose message holds some words."""
    try:
        call()
    except error as raised:
        assert words in str(raised), f"the message lacks {words!r}: {raised}"
    else:
        raise AssertionError(f"no {error.__name__} was raised")


def _parameters(estimator: Any) -> dict[str, Any]:
    """Return all parameters; members, which a copy has copies of, as they are shown."""
    parameters, nested = estimator.get_params(), Estimator | list | dict
    return {
        name: repr(held) if isinstance(held, nested) else held for name, held in parameters.items()
    }


def _global_generators() -> tuple[Any, ...]:
    """Return the states of the generators that belong to the caller."""
    numpy_state = np.random.get_state(legacy=False)
    return random.getstate(), str(numpy_state), torch.get_rng_state().tolist()


def check_parameters_are_stored(estimator: Any, family: Family) -> None:
    """The constructor stores what it is given, under annotated names, shared with nobody."""
    cls = type(estimator)
    hints = typing.get_type_hints(cls)
    defaults = cls().get_params(deep=False)
    unknown = set(defaults) - set(hints)
    assert not unknown, f"parameters without annotation: {unknown}"
    mutable = [name for name, value in defaults.items() if isinstance(value, list | dict | set)]
    assert not mutable, f"mutable defaults: {mutable}"
    for name, value in estimator.get_params(deep=False).items():
        fresh = cls(**{name: value})
        assert getattr(fresh, name) is value, f"{name} is not stored as it was given"


def check_clone(estimator: Any, family: Family) -> None:
    """``clone`` and ``set_params`` give an unfitted estimator with the same parameters."""
    twin = clone(estimator)
    assert _parameters(twin) == _parameters(estimator), "clone changed a parameter"
    for name, value in estimator.get_params(deep=False).items():
        if type(value) in (int, float):
            changed = clone(estimator).set_params(**{name: value + 1})
            assert getattr(changed, name) == value + 1, f"set_params did not set {name}"
            assert getattr(twin, name) == value, "set_params reached another instance"
            break
    fitted = clone(estimator).fit(family.data())
    raises(NotFittedError, "fit", lambda: family.answer(clone(fitted)))


def check_refit_equals_fresh_fit(estimator: Any, family: Family) -> None:
    """A second ``fit`` starts afresh."""
    fresh = family.answer(clone(estimator).fit(family.data()))
    again = family.answer(clone(estimator).fit(family.data(5)).fit(family.data()))
    np.testing.assert_array_equal(again, fresh)


def check_seed(estimator: Any, family: Family) -> None:
    """One seed gives one answer, and no global generator moves."""
    before = _global_generators()
    first = family.answer(clone(estimator).fit(family.data()))
    assert _global_generators() == before, "a global generator was moved"
    second = family.answer(clone(estimator).fit(family.data()))
    np.testing.assert_array_equal(first, second)


def check_pickle(estimator: Any, family: Family) -> None:
    """A pickled estimator answers the same."""
    fitted = clone(estimator).fit(family.data())
    twin = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(family.answer(twin), family.answer(fitted))


def check_save_load(estimator: Any, family: Family) -> None:
    """A saved model answers the same and holds nothing that can execute."""
    fitted = clone(estimator).fit(family.data())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        fitted.save(path)
        assert sorted(os.listdir(path)) == ["arrays.safetensors", "manifest.json", "model.json"]
        twin = load(path, cls=type(estimator))
    assert _parameters(twin) == _parameters(fitted), "a parameter changed"
    np.testing.assert_array_equal(family.answer(twin), family.answer(fitted))


def check_silence(estimator: Any, family: Family) -> None:
    """Fitting and answering print nothing and write no file."""
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            family.answer(clone(estimator).fit(family.data()))
        left = os.listdir(folder)
    assert not out.getvalue() and not err.getvalue(), f"printed {out.getvalue() + err.getvalue()!r}"
    assert not left, f"wrote {left}"


CONTRACT_CHECKS: tuple[FamilyCheck, ...] = (
    check_parameters_are_stored,
    check_clone,
    check_refit_equals_fresh_fit,
    check_seed,
    check_pickle,
    check_save_load,
    check_silence,
)
