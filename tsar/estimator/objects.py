"""Optimisers, schedules, losses and what they hold, as JSON and back."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from tsar.exceptions import ParameterError, PersistenceError
from tsar.params.constraints import did_you_mean
from tsar.params.objects import Storable, arguments_of
from tsar.training.checkpoint import describe_value

__all__ = ["decode_object", "encode_object"]

# The key of an optimiser's class of torch, which stands in the options of ours.
TORCH = "torch.optim"


def encode_object(value: Any, encode: Callable[[Any], Any]) -> Any:
    """Return an object as JSON, None if it has no such form.

    Parameters
    ----------
    value : object
        A :class:`~tsar.params.objects.Storable` of a known class, or a class of ``torch.optim``.
    encode : callable
        What encodes its arguments.
    """
    if isinstance(value, type):
        is_torch = getattr(torch.optim, value.__name__, None) is value
        return {TORCH: value.__name__} if is_torch else None
    if not isinstance(value, Storable):
        return None
    name = next((n for n, cls in value.known_classes().items() if cls is type(value)), None)
    arguments = arguments_of(value)
    if name is None or arguments is None:
        return None
    try:
        # What does more in its constructor than to keep its arguments cannot be made again.
        if describe_value(type(value)(**arguments)) != describe_value(value):
            return None
        held = {argument: encode(content) for argument, content in arguments.items()}
    except (PersistenceError, ParameterError, TypeError, ValueError):
        return None
    return {"object": [value.kind, name, held]}


def decode_object(
    content: Any, kinds: Mapping[str, type[Storable]], decode: Callable[[Any], Any]
) -> Any:
    """Undo :func:`encode_object`.

    Raises
    ------
    PersistenceError
        There is no such class, or it does not take these arguments.
    """
    if set(content) == {TORCH}:
        torch_class = getattr(torch.optim, str(content[TORCH]), None)
        if not (isinstance(torch_class, type) and issubclass(torch_class, torch.optim.Optimizer)):
            raise PersistenceError(f"load: torch.optim has no optimiser {content[TORCH]!r}")
        return torch_class
    kind, name, held = content["object"]
    classes = kinds[kind].known_classes() if kind in kinds else {}
    if name not in classes:
        raise PersistenceError(
            f"load: {name!r} is no {kind} of tsar, and none that is registered"
            f"{did_you_mean(name, classes)}; register it by tsar.register, or pass it again: "
            f"tsar.load(folder, {kind}=...)"
        )
    return classes[name](**{argument: decode(value) for argument, value in held.items()})
