"""Loading what was saved: the one place that knows the classes of all families.

:mod:`tsar.estimator.saving` says what a saved model is.
"""

import importlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from tsar.data.codec import decode
from tsar.estimator.base import Estimator
from tsar.estimator.manifest import MANIFEST, check_files
from tsar.estimator.objects import TORCH, decode_object
from tsar.estimator.saving import (
    ARRAYS,
    FORMAT_VERSION,
    RECORD,
    ModelRecord,
    check_learned,
    path_of,
)
from tsar.exceptions import DataError, ParameterError, PersistenceError
from tsar.forecasting.outputs.distributions import Distribution
from tsar.forecasting.outputs.losses import Loss
from tsar.forecasting.registry import FORECASTERS
from tsar.forecasting.variate_groups import VariateGroups
from tsar.hierarchy import Reconciled
from tsar.params.constraints import check_parameters, did_you_mean
from tsar.params.objects import Storable
from tsar.params.records import check_nesting, check_record
from tsar.params.registry import Registry, check_subclass_of
from tsar.remote import Storage, address_in
from tsar.training.optim import Optimizer
from tsar.training.schedules import Schedule

__all__ = ["OTHER_ESTIMATORS", "load"]


# Estimators made of forecasters, and those of families that tsar does not have.
check_estimator_class = check_subclass_of(Estimator, "an estimator", "tsar.estimator.base")
OTHER_ESTIMATORS: Registry[type[Estimator]] = Registry(
    "estimator", "tsar.estimators", {"Reconciled": Reconciled}, check_estimator_class
)
# What a saved model may be, family by family; those of other modules are imported when none of
# the first ones has the name.
FAMILIES: tuple[Registry[Any], ...] = (FORECASTERS, OTHER_ESTIMATORS)
FURTHER_FAMILIES = {
    "tsar.language.registry": "LANGUAGE_MODELS",
    "tsar.image.registry": "IMAGE_MODELS",
}


def _families() -> Iterator[Registry[Any]]:
    yield from FAMILIES
    for module, name in FURTHER_FAMILIES.items():
        yield getattr(importlib.import_module(module), name)


# Old class names of saved models, kept here when a class is renamed.
RENAMED: dict[str, str] = {}
FIRST_WITH_MANIFEST = 2


# What may stand in a parameter besides values and forecasters, by what it is to an estimator.
OBJECTS: dict[str, type[Storable]] = {
    base.kind: base for base in (Optimizer, Schedule, Loss, Distribution, VariateGroups)
}


def _rebuild(
    record: dict[str, Any],
    tensors: dict[str, Tensor],
    trusted: Collection[str],
    cls: type[Estimator],
    references: Mapping[str, Any],
    place: str,
) -> Estimator:
    """Undo :func:`tsar.estimator.saving.describe`, members first."""
    stored = {name: value for name, value in record["parameters"].items() if name not in references}
    model = cls(**{**_parameters(cls, stored, trusted), **references})
    model.check_stored()
    learned = dict(record["learned"])
    described = learned.pop("members", {})
    check_record(f"{place}.learned.members", described, dict[str, ModelRecord])
    check_learned(f"{place}.learned", cls, learned)
    members = {
        name: _member(one, _below(f"member{number}.", tensors), trusted, f"{place} of {name!r}")
        for number, (name, one) in enumerate(described.items())
    }
    model.restore_learned_state(learned, tensors, members)
    return model


def _member(
    record: dict[str, Any], tensors: dict[str, Tensor], trusted: Collection[str], place: str
) -> Estimator:
    """Rebuild a member of a model, at any depth; it takes no references."""
    cls = _class_named(record["class"], record.get("module"), trusted, is_member=True)
    lost = record.get("objects", {})
    if lost:
        raise PersistenceError(
            f"{place} was fitted with an object of type {next(iter(lost.values()))} as "
            f"{next(iter(lost))}, which is not saved; fit the member with one that is registered"
        )
    return _rebuild(record, tensors, trusted, cls, {}, place)


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
        cls = _class_named(name, module, trusted, is_member=True)
        return cls(**_parameters(cls, parameters, trusted))
    if kind == "dict":
        return {decode(name): _decode(item, trusted) for name, item in content}
    if kind == "tuple":
        return tuple(_decode(item, trusted) for item in content)
    if kind in ("object", TORCH):
        return decode_object(value, OBJECTS, lambda held: _decode(held, trusted))
    return decode(value)


def _class_named(
    name: Any,
    module: str | None = None,
    trusted: Collection[str] = (),
    *,
    is_member: bool = False,
) -> Any:
    """Return the class of an estimator; its module is imported if it is trusted."""
    name = RENAMED.get(str(name), str(name))
    for family in _families():
        # A class of another module has no more than the name in common.
        if name in family and module in (None, family[name].__module__):
            return family[name]
    if module is not None and module in trusted:
        try:
            named = getattr(importlib.import_module(module), name)
            check_estimator_class(named)
        except (ImportError, AttributeError, ParameterError) as error:
            raise PersistenceError(
                f"load: the trusted module {module!r} gives no estimator {name!r}: {error}"
            ) from None
        return named
    names = [entry for family in _families() for entry in family]
    repairs = [] if is_member else [f"pass your own class: tsar.load(folder, cls={name})"]
    repairs += [f"register it: tsar.register({name})"] if is_member else []
    if module is not None:
        repairs.append(f"trust its module: tsar.load(folder, trust={module!r})")
    member = ", a member of the model," if is_member else ""
    raise PersistenceError(
        f"load: {name!r}{member} is no estimator of tsar{did_you_mean(name, names)}; "
        f"{', or '.join(repairs)}"
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
    folder : path or address
        The folder given to ``save``, on this machine or such as ``s3://bucket/name``.
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
    ParameterError
        A reference is not what the parameter may be.
    """
    address = address_in(folder)
    if address is not None:
        return _load_at(address, cls, trust=trust, **references)
    source = path_of("load", folder)
    trusted = (trust,) if isinstance(trust, str) else trust
    if not isinstance(trusted, list | tuple | set | frozenset):
        raise PersistenceError(
            f"load: trust must be the name of a module, or a list of such, got {trust!r}"
        )
    record = _read_record(source, str(folder))
    cls = _class_of(record, str(folder), cls, trusted)
    _check_references(cls, record, references, str(folder))
    try:
        with safe_open(source / ARRAYS, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        place = f"load: {RECORD} in {str(folder)!r}"
        return _rebuild(record, tensors, trusted, cls, references, place)
    except PersistenceError:
        raise
    except Exception as error:
        # Whatever libraries make of contents that are none of ours.
        raise PersistenceError(
            f"load: {str(folder)!r} is damaged or incomplete: {type(error).__name__}: {error}"
        ) from error


def _load_at(address: str, *args: Any, **options: Any) -> Any:
    """Read a model at an address, by way of a copy on this machine."""
    try:
        with Storage("load", address).fetched_folder((RECORD, ARRAYS, MANIFEST)) as copy:
            return load(copy, *args, **options)
    except DataError as error:
        raise PersistenceError(str(error)) from error


def _read_record(source: Path, folder: str) -> dict[str, Any]:
    """Read the record of a model, after its files were compared with the manifest."""
    place = f"load: {RECORD} in {folder!r}"
    path = source / RECORD
    if source.is_file():
        raise PersistenceError(
            f"load: {folder!r} is a file; pass the folder that was given to save"
        )
    if not path.exists():
        raise PersistenceError(f"load: {folder!r} is no saved model: it has no {RECORD}")
    stated = check_files(source, (RECORD, ARRAYS))
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PersistenceError(f"{place} is damaged: {error}") from None
    _check_format(record, stated, folder)
    check_nesting(place, record)
    check_record(place, record, ModelRecord)
    return dict(record)


def _check_format(record: Any, stated: int | None, folder: str) -> None:
    version = record.get("format") if isinstance(record, dict) else None
    if type(version) is not int or version < 1:
        raise PersistenceError(f"load: {RECORD} in {folder!r} does not describe a tsar model")
    if version > FORMAT_VERSION:
        raise PersistenceError(
            f"load: {folder!r} has format {version}, this version of tsar reads up to "
            f"{FORMAT_VERSION}; upgrade tsar"
        )
    if stated != (None if version < FIRST_WITH_MANIFEST else version):
        raise PersistenceError(
            f"load: {folder!r} has format {version} by its {RECORD}, and its {MANIFEST} "
            f"{'is missing' if stated is None else f'says {stated}'}; the model is incomplete"
        )


def _class_of(
    record: dict[str, Any],
    folder: str,
    stated_class: type[Estimator] | None,
    trusted: Collection[str],
) -> type[Estimator]:
    name = record["class"]
    if stated_class is None:
        cls: type[Estimator] = _class_named(name, record.get("module"), trusted)
        return cls
    if not (isinstance(stated_class, type) and issubclass(stated_class, Estimator)):
        raise PersistenceError(f"load: cls must be a class of estimators, got {stated_class!r}")
    if stated_class.__name__ != RENAMED.get(name, name):
        raise PersistenceError(
            f"load: {folder!r} holds a {name!r}, got cls={stated_class.__name__}; pass its class"
        )
    return stated_class


def _check_references(
    cls: type[Estimator], record: dict[str, Any], references: dict[str, Any], folder: str
) -> None:
    lost = record.get("objects", {})
    for name in references:
        if name not in cls.references:
            raise PersistenceError(
                f"load: {name!r} is no reference of {cls.__name__}; it has "
                f"{', '.join(sorted(cls.references)) or 'none'}"
            )
        held = record["parameters"].get(name)
        is_object = name in lost or isinstance(held, dict)
        if not is_object and name not in cls.moving_references:
            raise PersistenceError(
                f"load: {name} of {folder!r} is saved with the model as {held!r}, got "
                f"{references[name]!r}; leave it out"
            )
    # What is passed wrongly is no damage of the folder.
    check_parameters(cls(**references))
    for name, kind in lost.items():
        if name not in references:
            raise PersistenceError(
                f"load: {folder!r} was fitted with an object of type {kind} as {name}, which is "
                f"not saved; pass it again: tsar.load(folder, {name}=...)"
            )
