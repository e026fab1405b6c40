"""Saving fitted estimators as safetensors and JSON, nothing that can execute.

A model is a folder of three files: ``model.json``, its record (format, class, parameters, what
was learned besides numbers), ``arrays.safetensors`` (weights, statistics, the state of the
optimiser) and the manifest, see :mod:`tsar.estimator.manifest`. Nothing here knows which classes
there are: reading is :mod:`tsar.persistence`.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NotRequired, Protocol, TypedDict

from safetensors import SafetensorError
from safetensors.torch import save_file
from sklearn.base import BaseEstimator
from torch import Tensor

from tsar.data.codec import encode
from tsar.estimator.manifest import MANIFEST, write_manifest
from tsar.estimator.objects import encode_object
from tsar.exceptions import DataError, PersistenceError
from tsar.files import remove_unfinished, unfinished_folder
from tsar.params.records import check_record
from tsar.remote import Storage, address_in

__all__ = [
    "ARRAYS",
    "FORMAT_VERSION",
    "RECORD",
    "ModelRecord",
    "Savable",
    "check_folder",
    "check_learned",
    "describe",
    "path_of",
    "save",
]

FORMAT_VERSION = 2
RECORD, ARRAYS = "model.json", "arrays.safetensors"

# What model.json holds, and again for each member of a model.
ModelRecord = TypedDict(
    "ModelRecord",
    {
        "format": int,
        "class": str,
        "module": NotRequired[str],
        "parameters": dict[str, Any],
        "objects": NotRequired[dict[str, str]],
        "learned": dict[str, Any],
    },
)


class Savable(Protocol):
    """What saving asks of a fitted estimator, see :class:`tsar.estimator.base.Estimator`."""

    references: "ClassVar[frozenset[str]]"
    learned_record: ClassVar[Any]
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
    folder : path or address
        Created, or replaced if it holds a saved model. It appears when everything is
        written and not before. At an address such as ``s3://bucket/name`` the manifest is
        written last, and one that is replaced goes first: until then nothing can be loaded.

    Raises
    ------
    NotFittedError
        The model is not fitted.
    PersistenceError
        The folder holds something else, cannot be written, or a label of the frame has
        no JSON form.
    """
    address = address_in(folder)
    if address is not None:
        _save_at(model, address)
        return
    record, tensors = describe(model)
    target = check_folder(folder)
    try:
        text = json.dumps(record, indent=1)
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(target) as written:
            (written / RECORD).write_text(text, encoding="utf-8")
            save_file({name: t.contiguous() for name, t in tensors.items()}, written / ARRAYS)
            # It is written for its owner alone.
            (written / ARRAYS).chmod((written / RECORD).stat().st_mode & 0o777)
            write_manifest(written, (RECORD, ARRAYS), FORMAT_VERSION)
            _replace(target, written)
    except (TypeError, ValueError, OSError, SafetensorError) as error:
        if isinstance(error, PersistenceError):
            raise
        raise PersistenceError(f"save: {str(folder)!r} cannot be written: {error}") from None
    remove_unfinished(target)


def _save_at(model: Savable, address: str) -> None:
    """Write a fitted model to an address, by way of a folder on this machine."""
    names = (RECORD, ARRAYS, MANIFEST)
    try:
        storage = Storage("save", address)
        held = storage.names()
        if not set(held) <= set(names) or (not held and storage.exists()):
            raise PersistenceError(
                f"save: {storage.address!r} exists and holds more than a saved model; choose "
                f"another folder"
            )
        with tempfile.TemporaryDirectory(prefix="tsar-") as above:
            save(model, Path(above) / "model")
            storage.replace(Path(above) / "model", names)
    except DataError as error:
        raise PersistenceError(str(error)) from error


def _replace(target: Path, written: Path) -> None:
    """Put a folder in the place of another one; at no time is there half a model."""
    if not target.exists():
        os.replace(written, target)
        return
    with unfinished_folder(target) as aside:
        os.replace(target, aside / "old")
        try:
            os.replace(written, target)
        except OSError:
            os.replace(aside / "old", target)
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
    # What could not be loaded is not saved.
    check_learned(f"save: what the {type(model).__name__} learned", type(model), record)
    if model.members:
        record["members"] = {}
    for place, (name, member) in enumerate(model.members.items()):
        record["members"][name], own = describe(member)
        # Copies: what members have in common would be refused as one tensor of many names.
        tensors |= {f"member{place}.{key}": tensor.clone() for key, tensor in own.items()}
    parameters = dict(model.fitted_parameters_)
    stored = {}
    objects = {}
    for name in sorted(model.references):
        value = parameters.pop(name)
        held = value if isinstance(value, str | int | None) else encode_object(value, _encode)
        if held is None and value is not None:
            # It is passed again when the model is loaded.
            objects[name] = type(value).__name__
        else:
            stored[name] = held
    described = {
        "format": FORMAT_VERSION,
        "class": type(model).__name__,
        **_module_of(type(model)),
        "parameters": {name: _encode(value) for name, value in parameters.items()} | stored,
        "objects": objects,
        "learned": record,
    }
    return described, tensors


def check_learned(place: str, cls: Any, learned: dict[str, Any]) -> None:
    """Check what a model of a class learned, members left out.

    Parameters
    ----------
    place : str
        What it is, for the message.
    cls : type of Estimator
    learned : JSON

    Raises
    ------
    PersistenceError
    """
    # A class that is not part of tsar may add entries to those of its base.
    check_record(place, learned, cls.learned_record, closed=not _module_of(cls))


def _encode(value: Any) -> Any:
    """Return a parameter as JSON; it may hold estimators that are not fitted."""
    if isinstance(value, BaseEstimator):
        own = value.get_params(deep=False).items()
        parameters = {name: _inside(value, name, item) for name, item in own}
        return {"forecaster": [type(value).__name__, parameters, *_module_of(type(value)).values()]}
    if isinstance(value, dict):
        return {"dict": [[encode(name), _encode(item)] for name, item in value.items()]}
    if isinstance(value, list) and any(isinstance(item, BaseEstimator) for item in value):
        return [_encode(item) for item in value]
    if isinstance(value, tuple) and any(isinstance(item, BaseEstimator) for item in value):
        return {"tuple": [_encode(item) for item in value]}
    held = encode_object(value, _encode)
    return encode(value) if held is None else held


def _inside(estimator: BaseEstimator, name: str, value: Any) -> Any:
    """Encode a parameter of an estimator that is a parameter itself."""
    held = encode_object(value, _encode)
    if held is not None:
        return held
    if name in getattr(estimator, "references", ()) and not isinstance(value, str | None):
        raise PersistenceError(
            f"save: {name} of the {type(estimator).__name__} inside of the model is an object "
            f"of type {type(value).__name__}, which is not saved and could not be passed "
            f"again; name it, a loss of your own after tsar.register"
        )
    return _encode(value)


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
    # Models of format 1 have no manifest.
    if held - {MANIFEST} != {RECORD, ARRAYS}:
        return False
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and "format" in record and "class" in record
