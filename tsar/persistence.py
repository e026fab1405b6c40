"""Saving and loading fitted forecasters as safetensors and JSON, nothing that can execute.

A model is a folder of two files: ``model.json`` (format, class, parameters, what was
learned besides numbers) and ``arrays.safetensors`` (weights, scaling, the end of the
series, the state of the optimiser).
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tsar import forecasting
from tsar.data.codec import decode, encode
from tsar.exceptions import PersistenceError
from tsar.forecasting.base import Forecaster
from tsar.params.constraints import did_you_mean

__all__ = ["describe", "load", "rebuild", "save"]

FORMAT_VERSION = 1
MANIFEST, ARRAYS = "model.json", "arrays.safetensors"
# Old class names of saved models, kept here when a class is renamed.
RENAMED: dict[str, str] = {}


def save(model: Forecaster, folder: str | os.PathLike[str]) -> None:
    """Write a fitted model into a folder.

    Parameters
    ----------
    model : Forecaster
        Fitted.
    folder : path
        Created, or replaced if it holds a saved model. It appears when everything is
        written and not before.

    Raises
    ------
    NotFittedError
        The model is not fitted.
    PersistenceError
        The folder holds something else, cannot be written, or a label of the frame has
        no JSON form.
    """
    manifest, tensors = describe(model)
    target = check_folder(folder)
    try:
        text = json.dumps(manifest, indent=1)
        target.parent.mkdir(parents=True, exist_ok=True)
        written = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except (TypeError, OSError) as error:
        raise PersistenceError(f"save: {str(folder)!r} cannot be written: {error}") from None
    try:
        (written / MANIFEST).write_text(text, encoding="utf-8")
        save_file({name: t.contiguous() for name, t in tensors.items()}, written / ARRAYS)
        written.chmod(0o755)
        if target.exists():
            # The old model is moved aside first: at no time is there half of one.
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            os.replace(target, old / "old")
            os.replace(written, target)
            shutil.rmtree(old)
        else:
            os.replace(written, target)
    except BaseException as error:
        shutil.rmtree(written, ignore_errors=True)
        if isinstance(error, OSError | SafetensorError):
            raise PersistenceError(f"save: {str(folder)!r} cannot be written: {error}") from None
        raise


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Find out before long work whether a model can be saved in a folder.

    Parameters
    ----------
    folder : path

    Returns
    -------
    pathlib.Path
        Where it is.

    Raises
    ------
    PersistenceError
        It holds something else, or lies below a file or a folder that cannot be written to.
    """
    target = _path("save", folder)
    if target.exists() and not _replaceable(target):
        raise PersistenceError(
            f"save: {str(folder)!r} exists and holds more than a saved model; choose another folder"
        )
    if target == Path.cwd():
        raise PersistenceError(
            f"save: {str(folder)!r} is the current folder, which cannot be replaced; name one in it"
        )
    existing = next(above for above in target.parents if above.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise PersistenceError(
            f"save: {str(folder)!r} cannot be written: {existing} is no folder that can be written"
        )
    return target


def describe(model: Forecaster) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what JSON can hold of a fitted model, and its tensors by name.

    Parameters
    ----------
    model : Forecaster

    Raises
    ------
    NotFittedError
        The model is not fitted.
    PersistenceError
        A parameter or a label has no JSON form.
    """
    record, tensors = model._learned_state()
    parameters = dict(model._fitted_parameters)
    # Only the text of a reference can be stored.
    objects = {
        name: type(parameters.pop(name)).__name__
        for name in sorted(model._references)
        if not isinstance(parameters[name], str | None)
    }
    manifest = {
        "format": FORMAT_VERSION,
        "class": type(model).__name__,
        "parameters": {name: _encode(value) for name, value in parameters.items()},
        "objects": objects,
        "learned": record,
    }
    return manifest, tensors


def rebuild(
    manifest: dict[str, Any],
    tensors: dict[str, Tensor],
    cls: type[Forecaster] | None = None,
    references: dict[str, Any] | None = None,
) -> Forecaster:
    """Undo :func:`describe`.

    Parameters
    ----------
    manifest : dict
    tensors : dict of str to Tensor
    cls : type, optional
        The class; None takes the one of tsar that the manifest names.
    references : dict of str to object, optional
        What to take in place of saved references.

    Raises
    ------
    PersistenceError
        The class is none of the forecasters.
    """
    cls = _class_named(manifest["class"]) if cls is None else cls
    model = cls(**{**_parameters(cls, manifest["parameters"]), **(references or {})})
    model._restore_learned_state(manifest["learned"], tensors)
    return model


def _parameters(cls: type[Forecaster], stored: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that a class still has."""
    names = set(cls().get_params(deep=False))
    return {name: _decode(value) for name, value in stored.items() if name in names}


def _encode(value: Any) -> Any:
    """Return a parameter as JSON; it may hold forecasters that are not fitted."""
    if isinstance(value, Forecaster):
        own = value.get_params(deep=False).items()
        parameters = {name: _encode(item) for name, item in own}
        return {"forecaster": [type(value).__name__, parameters]}
    if isinstance(value, dict):
        return {"dict": [[encode(name), _encode(item)] for name, item in value.items()]}
    if isinstance(value, list) and any(isinstance(item, Forecaster) for item in value):
        return [_encode(item) for item in value]
    if isinstance(value, tuple) and any(isinstance(item, Forecaster) for item in value):
        return {"tuple": [_encode(item) for item in value]}
    return encode(value)


def _decode(value: Any) -> Any:
    """Undo :func:`_encode`."""
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


def _path(function: str, folder: Any) -> Path:
    text = os.fspath(folder) if isinstance(folder, str | os.PathLike) else None
    if not isinstance(text, str) or not text:
        raise PersistenceError(
            f"{function}: folder must be a path, got {folder!r}; name the folder of the model"
        )
    return Path(text).absolute()


def _replaceable(target: Path) -> bool:
    """Whether a folder is empty, or holds a saved model of tsar and nothing else."""
    if not target.is_dir():
        return False
    held = {entry.name for entry in target.iterdir()}
    if not held:
        return True
    if held != {MANIFEST, ARRAYS}:
        return False
    try:
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and "format" in manifest and "class" in manifest


def load(
    folder: str | os.PathLike[str], cls: type[Forecaster] | None = None, **references: Any
) -> Any:
    """Read a model that :func:`save` wrote; it forecasts on any machine.

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
    source = _path("load", folder)
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
        model = rebuild(manifest, tensors, cls, references)
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
        if name not in cls._references:
            raise PersistenceError(
                f"load: {name!r} is no reference of {cls.__name__}; it has "
                f"{', '.join(sorted(cls._references)) or 'none'}"
            )
    for name, kind in manifest.get("objects", {}).items():
        if name not in given:
            raise PersistenceError(
                f"load: {folder!r} was fitted with an object of type {kind} as {name}, which is "
                f"not saved; pass it again: tsar.load(folder, {name}=...)"
            )
