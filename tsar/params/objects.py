"""Objects given as parameters that can be saved: as the name of their class, and its arguments."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = ["Storable", "arguments_of"]


class Storable:
    """An object that is saved with a model by the name of its class and what that was called with.

    Each argument of the constructor is kept in an attribute of the same name.
    """

    # What it is to an estimator, such as "optimizer".
    kind: ClassVar[str]

    @classmethod
    def known_classes(cls) -> Mapping[str, Any]:
        """Return the classes of the kind that can be found by name: ours and registered ones."""
        raise NotImplementedError


def arguments_of(value: Storable) -> dict[str, Any] | None:
    """Return what an object was made with, None if it does not keep it."""
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(value)).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL or not hasattr(value, name):
            return None
        held = getattr(value, name)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= held
        else:
            arguments[name] = held
    return arguments
