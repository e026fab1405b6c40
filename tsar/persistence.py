"""Loading what was saved: the one place that knows the classes of all families.

:mod:`tsar.estimator.saving` says what a saved model is.
"""

import json
import os
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tsar import forecasting
from tsar.data.codec import decode
from tsar.estimator.saving import ARRAYS, FORMAT_VERSION, MANIFEST, path_of
from tsar.exceptions import PersistenceError
from tsar.forecasting.base import Forecaster
from tsar.params.constraints import did_you_mean

__all__ = ["load"]

# Old class names of saved models, kept here when a class is renamed.
RENAMED: dict[str, str] = {}


def _rebuild(
    manifest: dict[str, Any],
    tensors: dict[str, Tensor],
    cls: type[Forecaster] | None = None,
    references: dict[str, Any] | None = None,
) -> Forecaster:
    """Undo :func:`tsar.estimator.saving.describe`, members first.

    Without a class it is the one of tsar that the manifest names.
    """
    cls = _class_named(manifest["class"]) if cls is None else cls
    model = cls(**{**_parameters(cls, manifest["parameters"]), **(references or {})})
    record = dict(manifest["learned"])
    members = {
        name: _rebuild(described, _below(f"member{place}.", tensors))
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


def _parameters(cls: type[Forecaster], stored: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that a class still has."""
    names = set(cls().get_params(deep=False))
    return {name: _decode(value) for name, value in stored.items() if name in names}


def _decode(value: Any) -> Any:
    """Undo how :func:`tsar.estimator.saving.describe` writes a parameter."""
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict) or len(value) != 1:
        return decode(value)
    kind, content = next(iter(value.items()))
    if kind == "forecaster":
        cls = _class_named(content[0])
        return cls(**_parameters(cls, content[1]))
    if kind == "dict":
        return {decode(name): _decode(item) for name, item in content}
    return tuple(map(_decode, content)) if kind == "tuple" else decode(value)


def _class_named(name: Any) -> type[Forecaster]:
    name = RENAMED.get(str(name), str(name))
    if name not in forecasting.__all__:
        raise PersistenceError(
            f"load: a {name!r} is no forecaster of tsar{did_you_mean(name, forecasting.__all__)}"
        )
    found: type[Forecaster] = getattr(forecasting, name)
    return found


def load(
    folder: str | os.PathLike[str], cls: type[Forecaster] | None = None, **references: Any
) -> Any:
    """Read a model that ``save`` wrote; it forecasts on any machine.

    Parameters
    ----------
    folder : path
        The folder given to ``save``.
    cls : type, optional
        The class of a forecaster that is not part of tsar: a saved model holds no code.
    **references
        Parameters that refer to something outside of the folder, to take instead of the
        saved ones: ``llm=`` of :class:`~tsar.AutoTimes`. One that was an object when the
        model was fitted has to be given.

    Returns
    -------
    Forecaster
        Fitted. One that was trained on a device that is not here forecasts on the CPU.

    Raises
    ------
    PersistenceError
        The folder is no saved model, is damaged, was written by a later version, or
        names a class that is not a forecaster of tsar, nor the one given; a reference is
        missing or is none of the model's.
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
    cls = _class_of(manifest, str(folder), cls)
    _check_references(cls, manifest, references, str(folder))
    try:
        with safe_open(source / ARRAYS, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        model = _rebuild(manifest, tensors, cls, references)
    except PersistenceError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PersistenceError(
            f"load: {str(folder)!r} is damaged or incomplete: {type(error).__name__}: {error}"
        ) from error
    return model


def _class_of(manifest: Any, folder: str, given: type[Forecaster] | None) -> type[Forecaster]:
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise PersistenceError(f"load: {MANIFEST} in {folder!r} does not describe a tsar model")
    if manifest["format"] > FORMAT_VERSION:
        raise PersistenceError(
            f"load: {folder!r} has format {manifest['format']}, this version of tsar reads up to "
            f"{FORMAT_VERSION}; upgrade tsar"
        )
    name = str(manifest.get("class"))
    name = RENAMED.get(name, name)
    if given is not None:
        if not (isinstance(given, type) and issubclass(given, Forecaster)):
            raise PersistenceError(f"load: cls must be a class of forecasters, got {given!r}")
        if given.__name__ != name:
            raise PersistenceError(
                f"load: {folder!r} holds a {name!r}, got cls={given.__name__}; pass its class"
            )
        return given
    if name not in forecasting.__all__:
        raise PersistenceError(
            f"load: {folder!r} holds a {name!r}, which is no forecaster of tsar"
            f"{did_you_mean(name, forecasting.__all__)}; pass your own class: "
            f"tsar.load(folder, cls={name})"
        )
    found: type[Forecaster] = getattr(forecasting, name)
    return found


def _check_references(
    cls: type[Forecaster], manifest: dict[str, Any], given: dict[str, Any], folder: str
) -> None:
    for name in given:
        if name not in cls.references:
            raise PersistenceError(
                f"load: {name!r} is no reference of {cls.__name__}; it has "
                f"{', '.join(sorted(cls.references)) or 'none'}"
            )
    for name, kind in manifest.get("objects", {}).items():
        if name not in given:
            raise PersistenceError(
                f"load: {folder!r} was fitted with an object of type {kind} as {name}, which is "
                f"not saved; pass it again: tsar.load(folder, {name}=...)"
            )
