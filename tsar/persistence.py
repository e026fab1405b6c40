"""Loading what was saved: the one place that knows the classes of all families.

:mod:`tsar.estimator.saving` says what a saved model is.
"""

import importlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tsar.data.codec import decode
from tsar.estimator.base import Estimator
from tsar.estimator.saving import ARRAYS, FORMAT_VERSION, MANIFEST, path_of
from tsar.exceptions import ParameterError, PersistenceError
from tsar.forecasting.registry import FORECASTERS
from tsar.hierarchy import Reconciled
from tsar.params.constraints import did_you_mean
from tsar.params.registry import Registry

__all__ = ["OTHER_ESTIMATORS", "load"]


def _check(cls: Any) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Estimator)):
        raise ParameterError(f"register: an estimator must be a subclass of Estimator, got {cls!r}")


# Estimators made of forecasters, and those of families that tsar does not have.
OTHER_ESTIMATORS: Registry[type[Estimator]] = Registry(
    "estimator", "tsar.estimators", {"Reconciled": Reconciled}, _check
)
# What a saved model may be, family by family.
FAMILIES: tuple[Registry[Any], ...] = (FORECASTERS, OTHER_ESTIMATORS)
# Old class names of saved models, kept here when a class is renamed.
RENAMED: dict[str, str] = {}


def _rebuild(
    manifest: dict[str, Any],
    tensors: dict[str, Tensor],
    trusted: Collection[str],
    cls: type[Estimator] | None = None,
    references: Mapping[str, Any] | None = None,
) -> Estimator:
    """Undo :func:`tsar.estimator.saving.describe`, members first."""
    if cls is None:
        cls = _class_named(manifest["class"], manifest.get("module"), trusted)
    parameters = _parameters(cls, manifest["parameters"], trusted)
    model = cls(**{**parameters, **(references or {})})
    record = dict(manifest["learned"])
    members = {
        name: _rebuild(described, _below(f"member{place}.", tensors), trusted)
        for place, (name, described) in enumerate(record.pop("members", {}).items())
    }
    model.restore_learned_state(record, tensors, members)
    return model


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors below a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _parameters(
    cls: type[Estimator], stored: dict[str, Any], trusted: Collection[str]
) -> dict[str, Any]:
    """Return the parameters that a class still has, as it has them now."""
    decoded = {name: _decode(value, trusted) for name, value in stored.items()}
    names = set(cls().get_params(deep=False))
    upgraded = cls.upgrade_parameters(decoded)
    return {name: value for name, value in upgraded.items() if name in names}


def _decode(value: Any, trusted: Collection[str]) -> Any:
    """Undo how :func:`tsar.estimator.saving.describe` writes a parameter."""
    if isinstance(value, list):
        return [_decode(item, trusted) for item in value]
    if not isinstance(value, dict) or len(value) != 1:
        return decode(value)
    kind, content = next(iter(value.items()))
    if kind == "forecaster":
        name, parameters, module = content if len(content) == 3 else (*content, None)
        cls = _class_named(name, module, trusted)
        return cls(**_parameters(cls, parameters, trusted))
    if kind == "dict":
        return {decode(name): _decode(item, trusted) for name, item in content}
    if kind == "tuple":
        return tuple(_decode(item, trusted) for item in content)
    return decode(value)


def _class_named(name: Any, module: str | None = None, trusted: Collection[str] = ()) -> Any:
    """Return the class of an estimator; its module is imported if it is trusted."""
    name = RENAMED.get(str(name), str(name))
    for family in FAMILIES:
        # A class of another module has no more than the name in common.
        if name in family and module in (None, family[name].__module__):
            return family[name]
    if module is not None and module in trusted:
        try:
            found = getattr(importlib.import_module(module), name)
            _check(found)
        except (ImportError, AttributeError, ParameterError) as error:
            raise PersistenceError(
                f"load: the trusted module {module!r} gives no estimator {name!r}: {error}"
            ) from None
        return found
    known = [known for family in FAMILIES for known in family]
    repair = f"pass your own class: tsar.load(folder, cls={name})"
    if module is not None:
        repair += f", or trust its module: tsar.load(folder, trust={module!r})"
    raise PersistenceError(
        f"load: {name!r} is no estimator of tsar{did_you_mean(name, known)}; {repair}"
    )


def load(
    folder: str | os.PathLike[str],
    cls: type[Estimator] | None = None,
    *,
    trust: str | Sequence[str] = (),
    **references: Any,
) -> Any:
    """Read a model that ``save`` wrote; it forecasts on any machine.

    Parameters
    ----------
    folder : path
        The folder given to ``save``.
    cls : type, optional
        The class of an estimator that is not part of tsar: a saved model holds no code.
    trust : str or sequence of str
        Modules that may be imported for the class of a model, or of a member of it, that is
        neither part of tsar nor registered. Importing a module runs it: name none that you do
        not know.
    **references
        Parameters that refer to something outside of the folder, to take instead of the
        saved ones: ``llm=`` of :class:`~tsar.AutoTimes`. One that was an object when the
        model was fitted has to be given.

    Returns
    -------
    Estimator
        Fitted. One that was trained on a device that is not here forecasts on the CPU.

    Raises
    ------
    PersistenceError
        The folder is no saved model, is damaged, was written by a later version, or
        names a class that is neither of tsar, registered, given, nor of a trusted module; a
        reference is missing or is none of the model's.
    """
    source = path_of("load", folder)
    try:
        manifest = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
    except NotADirectoryError:
        raise PersistenceError(
            f"load: {str(folder)!r} is a file; pass the folder that was given to save"
        ) from None
    except FileNotFoundError:
        raise PersistenceError(
            f"load: {str(folder)!r} is no saved model: it has no {MANIFEST}"
        ) from None
    except (OSError, ValueError) as error:
        raise PersistenceError(f"load: {MANIFEST} in {str(folder)!r} is damaged: {error}") from None
    trusted = (trust,) if isinstance(trust, str) else trust
    if not isinstance(trusted, list | tuple | set | frozenset):
        raise PersistenceError(
            f"load: trust must be the name of a module, or a list of such, got {trust!r}"
        )
    _check_manifest(manifest, str(folder))
    cls = _class_of(manifest, str(folder), cls, trusted)
    _check_references(cls, manifest, references, str(folder))
    try:
        with safe_open(source / ARRAYS, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        return _rebuild(manifest, tensors, trusted, cls, references)
    except PersistenceError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PersistenceError(
            f"load: {str(folder)!r} is damaged or incomplete: {type(error).__name__}: {error}"
        ) from error


def _check_manifest(manifest: Any, folder: str) -> None:
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise PersistenceError(f"load: {MANIFEST} in {folder!r} does not describe a tsar model")
    if manifest["format"] > FORMAT_VERSION:
        raise PersistenceError(
            f"load: {folder!r} has format {manifest['format']}, this version of tsar reads up to "
            f"{FORMAT_VERSION}; upgrade tsar"
        )


def _class_of(
    manifest: dict[str, Any], folder: str, given: type[Estimator] | None, trusted: Collection[str]
) -> type[Estimator]:
    name = str(manifest.get("class"))
    if given is None:
        found: type[Estimator] = _class_named(name, manifest.get("module"), trusted)
        return found
    if not (isinstance(given, type) and issubclass(given, Estimator)):
        raise PersistenceError(f"load: cls must be a class of estimators, got {given!r}")
    if given.__name__ != RENAMED.get(name, name):
        raise PersistenceError(
            f"load: {folder!r} holds a {name!r}, got cls={given.__name__}; pass its class"
        )
    return given


def _check_references(
    cls: type[Estimator], manifest: dict[str, Any], given: dict[str, Any], folder: str
) -> None:
    for name in given:
        if name not in cls.references:
            raise PersistenceError(
                f"load: {name!r} is no reference of {cls.__name__}; it has "
                f"{', '.join(sorted(cls.references)) or 'none'}"
            )
        if name not in manifest.get("objects", {}) and name not in cls.moving_references:
            raise PersistenceError(
                f"load: {name} of {folder!r} is saved with the model as "
                f"{manifest['parameters'].get(name)!r}, got {given[name]!r}; leave it out"
            )
    for name, kind in manifest.get("objects", {}).items():
        if name not in given:
            raise PersistenceError(
                f"load: {folder!r} was fitted with an object of type {kind} as {name}, which is "
                f"not saved; pass it again: tsar.load(folder, {name}=...)"
            )
