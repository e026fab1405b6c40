"""Saving fitted estimators as safetensors and JSON, nothing that can execute.

A model is a folder of two files: ``model.json`` (format, class, parameters, what was
learned besides numbers) and ``arrays.safetensors`` (weights, statistics, the state of the
optimiser). Nothing here knows which classes there are: reading is
:mod:`tsar.persistence`.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from safetensors import SafetensorError
from safetensors.torch import save_file
from sklearn.base import BaseEstimator
from torch import Tensor

from tsar.data.codec import encode
from tsar.exceptions import PersistenceError

__all__ = [
    "ARRAYS",
    "FORMAT_VERSION",
    "MANIFEST",
    "Savable",
    "check_folder",
    "describe",
    "path_of",
    "save",
]

FORMAT_VERSION = 1
MANIFEST, ARRAYS = "model.json", "arrays.safetensors"


class Savable(Protocol):
    """What saving asks of a fitted estimator, see :class:`tsar.estimator.base.Estimator`."""

    references: "ClassVar[frozenset[str]]"
    fitted_parameters_: dict[str, Any]

    @property
    def members(self) -> "Mapping[str, Savable]": ...

    def check_fitted(self) -> None: ...

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]: ...


def save(model: Savable, folder: str | os.PathLike[str]) -> None:
    """Write a fitted model into a folder.

    Parameters
    ----------
    model : Estimator
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
    target = path_of("save", folder)
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


def describe(model: Savable) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what JSON can hold of a fitted model, and its tensors by name.

    Parameters
    ----------
    model : Estimator

    Raises
    ------
    NotFittedError
        The model is not fitted.
    PersistenceError
        A parameter or a label has no JSON form.
    """
    record, tensors = model.learned_state()
    if model.members:
        record["members"] = {}
    for place, (name, member) in enumerate(model.members.items()):
        record["members"][name], own = describe(member)
        # Copies: what members have in common would be refused as one tensor of many names.
        tensors |= {f"member{place}.{key}": tensor.clone() for key, tensor in own.items()}
    parameters = dict(model.fitted_parameters_)
    # Only the text of a reference can be stored.
    objects = {
        name: type(parameters.pop(name)).__name__
        for name in sorted(model.references)
        if not isinstance(parameters[name], str | None)
    }
    manifest = {
        "format": FORMAT_VERSION,
        "class": type(model).__name__,
        **_module_of(type(model)),
        "parameters": {name: _encode(value) for name, value in parameters.items()},
        "objects": objects,
        "learned": record,
    }
    return manifest, tensors


def _encode(value: Any) -> Any:
    """Return a parameter as JSON; it may hold estimators that are not fitted."""
    if isinstance(value, BaseEstimator):
        own = value.get_params(deep=False).items()
        for name, held in own:
            if name in getattr(value, "references", ()) and not isinstance(held, str | None):
                raise PersistenceError(
                    f"save: {name} of the {type(value).__name__} inside of the model is an object "
                    f"of type {type(held).__name__}, which is not saved and could not be passed "
                    f"again; name it, a loss of your own after tsar.register"
                )
        parameters = {name: _encode(item) for name, item in own}
        return {"forecaster": [type(value).__name__, parameters, *_module_of(type(value)).values()]}
    if isinstance(value, dict):
        return {"dict": [[encode(name), _encode(item)] for name, item in value.items()]}
    if isinstance(value, list) and any(isinstance(item, BaseEstimator) for item in value):
        return [_encode(item) for item in value]
    if isinstance(value, tuple) and any(isinstance(item, BaseEstimator) for item in value):
        return {"tuple": [_encode(item) for item in value]}
    return encode(value)


def _module_of(cls: type) -> dict[str, str]:
    """Say where a class lives that is not part of tsar, for who trusts that place."""
    return {} if cls.__module__.split(".")[0] == "tsar" else {"module": cls.__module__}


def path_of(function: str, folder: Any) -> Path:
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
