"""Parameter constraints, declared with the parameter and checked when ``fit`` starts.

A constraint is ``Annotated`` metadata on a dataclass field::

    patch_length: Annotated[int, Interval(1)] = 16

:func:`check_parameters` reads the constraints of a class (inherited ones
included) and raises one error form for all of them::

    PatchTST: patch_length must be an integer in [1, inf), got 0
"""

import difflib
import math
import numbers
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np

from tsar.exceptions import ParameterError

__all__ = [
    "Interval",
    "admits",
    "check_choice",
    "check_count",
    "check_fields",
    "check_parameters",
    "check_value",
    "describe_hint",
    "did_you_mean",
    "matches",
]


@dataclass(frozen=True)
class Interval:
    """A range of finite numbers; an end that is infinite is never reached.

    Parameters
    ----------
    low, high : float
        The two ends.
    open_low, open_high : bool
        Whether the end itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            return False
        number = float(value)
        above = number > self.low if self.open_low else number >= self.low
        below = number < self.high if self.open_high else number <= self.high
        return above and below

    def __str__(self) -> str:
        left = "(" if self.open_low or self.low == -math.inf else "["
        right = ")" if self.open_high or self.high == math.inf else "]"
        return f"{left}{self.low}, {self.high}{right}"


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest choice, or an empty string.

    ``patchtst`` is as near to ``PatchTST`` as can be: upper and lower case are alike.
    """
    written = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(str(value).lower(), list(written), n=1, cutoff=0.5)
    return f" (did you mean {written[near[0]]!r}?)" if near else ""


def check_choice(owner: str, name: str, value: object, choices: Iterable[str]) -> None:
    """Raise a :class:`ParameterError` with a suggestion unless ``value`` is a choice."""
    choices = list(choices)
    if not (isinstance(value, str) and value in choices):
        listed = ", ".join(repr(choice) for choice in choices)
        raise ParameterError(
            f"{owner}: {name} must be one of {listed}, got {value!r}{did_you_mean(value, choices)}"
        )


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def matches(value: object, hint: Any) -> bool:
    """Whether ``value`` satisfies one type hint; bool never counts as a number."""
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        base, *constraints = get_args(hint)
        return matches(value, base) and all(value in constraint for constraint in constraints)
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, member) for member in get_args(hint))
    if origin is Literal:
        return any(
            value is member or (type(value) is type(member) and value == member)
            for member in get_args(hint)
        )
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        # numpy counts its lengths of time among the integers.
        return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.timedelta64)
    if hint is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    if origin is type:
        return isinstance(value, type) and issubclass(value, get_args(hint))
    if origin is not None and issubclass(origin, Iterable):
        # Others, arrays among them, are used up by reading, or cannot be stored as JSON.
        if not isinstance(value, list | tuple):
            return False
        members = [member for member in get_args(hint) if member is not Ellipsis]
        return not members or all(matches(item, members[0]) for item in value)
    return isinstance(value, hint)


def describe_hint(hint: Any) -> str:
    """Say in words what a type hint admits."""
    origin = get_origin(hint)
    if origin is Annotated:
        base, *constraints = get_args(hint)
        return " in ".join([describe_hint(base), *map(str, constraints)])
    if origin in (typing.Union, types.UnionType):
        words = [describe_hint(member) for member in get_args(hint)]
        return " or ".join(words)
    if origin is Literal:
        listed = ", ".join(repr(member) for member in get_args(hint))
        return f"one of {listed}" if len(get_args(hint)) > 1 else listed
    if hint is None or hint is type(None):
        return "None"
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string"}
    names |= {dict: "a table"}
    if hint in names:
        return names[hint]
    if origin is not None:
        members = [member for member in get_args(hint) if member is not Ellipsis]
        inner = f", each {describe_hint(members[0])}" if members and members[0] is not Any else ""
        return f"a list or tuple{inner}"
    return f"an instance of {getattr(hint, '__name__', hint)}"


def check_parameters(estimator: Any) -> None:
    """Check every parameter of a dataclass estimator against its annotation.

    Parameters
    ----------
    estimator : object with ``get_params``
        Its class declares one annotated field per parameter.

    Raises
    ------
    ParameterError
        Names the class, the parameter, what is admitted and what was received;
        an unknown string gets the nearest admitted one as a suggestion.
    """
    hints = _hints(estimator.__class__)
    for name, value in estimator.get_params(deep=False).items():
        if name not in hints:
            raise ParameterError(
                f"{type(estimator).__name__}: {name} must be a field of the class, which says what "
                f"it may be, and is an argument of its constructor alone; declare it, as in "
                f"{name}: int = 1, under @dataclass(kw_only=True, eq=False, repr=False)"
            )
        check_value(type(estimator).__name__, name, value, hints[name])


def check_fields(value: Any) -> None:
    """Check every field of a dataclass against its annotation.

    Parameters
    ----------
    value : dataclass
        Its class names the fault.

    Raises
    ------
    ParameterError
        As from :func:`check_parameters`.
    """
    cls: Any = type(value)
    hints = _hints(cls)
    for field in fields(value):
        check_value(cls.__name__, field.name, getattr(value, field.name), hints[field.name])


def check_value(owner: str, name: str, value: object, hint: Any) -> None:
    """Check one value against a type hint, with its constraints.

    Parameters
    ----------
    owner, name : str
        Of what, for the message.
    value : object
    hint : type hint
        Such as ``Annotated[int, Interval(1)] | None``.

    Raises
    ------
    ParameterError
        As from :func:`check_parameters`.
    """
    if matches(value, hint):
        return
    suggestion = did_you_mean(value, _choices(hint)) if isinstance(value, str) else ""
    raise ParameterError(
        f"{owner}: {name} must be {describe_hint(hint)}, got {value!r}{suggestion}"
    )


def admits(cls: Any, name: str, value: object) -> bool:
    """Whether a parameter of a dataclass estimator may have a value, by its annotation.

    Parameters
    ----------
    cls : type
    name : str
        One of its annotated fields; one that has no annotation admits everything.
    value : object
    """
    hints: dict[str, Any] = _hints(cls)
    return name not in hints or matches(value, hints[name])


def _choices(hint: Any) -> list[str]:
    """Collect the strings that a hint admits by name."""
    if get_origin(hint) is Literal:
        return [member for member in get_args(hint) if isinstance(member, str)]
    return [choice for member in get_args(hint) for choice in _choices(member)]


def check_count(owner: str, name: str, value: Any) -> int:
    """Return a number of something as an int, or raise a :class:`ParameterError`."""
    check_value(owner, name, value, Annotated[int, Interval(1)])
    return int(value)
