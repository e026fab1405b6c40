"""Records read from files, checked against what they are declared to be.

A record is declared as a ``TypedDict``: no other keys, all that are required, each value of its
type and within its bounds. :mod:`tsar.params.constraints` says what a single value may be.
"""

import typing
from functools import cache
from typing import Annotated, Any, get_args, get_origin

from tsar.exceptions import PersistenceError
from tsar.params.constraints import Interval, describe_hint, matches

__all__ = ["LONGEST", "Count", "Horizon", "Length", "check_nesting", "check_record"]

# Steps or rows: no larger number can be meant, and one that is read must not make anyone wait.
LONGEST = 1_000_000
# Levels of lists and tables inside of each other.
DEEPEST = 64
# No number of ours needs more bits.
LARGEST = 2**64

Length = Annotated[int, Interval(1, LONGEST)]
# A forecast takes time for each of its steps.
Horizon = Annotated[int, Interval(1, 100_000)]
Count = Annotated[int, Interval(0, 2**63 - 1)]


def check_nesting(place: str, content: Any) -> None:
    """Refuse JSON whose lists and tables are nested deeper, or integers larger, than any of ours.

    Parameters
    ----------
    place : str
        What it is, for the message.
    content : JSON

    Raises
    ------
    PersistenceError
    """
    level = [content]
    for _ in range(DEEPEST):
        deeper: list[Any] = []
        for item in level:
            if type(item) is dict:
                deeper.extend(item.values())
            elif type(item) is list:
                deeper.extend(item)
            elif type(item) is int and abs(item) >= LARGEST:
                raise PersistenceError(f"{place} holds an integer of more than 64 bits")
        if not deeper:
            return
        level = deeper
    raise PersistenceError(f"{place} is nested more than {DEEPEST} levels deep")


def check_record(place: str, value: Any, hint: Any, *, closed: bool = True) -> None:
    """Check what was read against its declaration.

    Parameters
    ----------
    place : str
        What it is, for the message.
    value : JSON
    hint : type hint
        A TypedDict, or what stands in one: tables, lists, unions, literals, numbers with an
        :class:`~tsar.params.constraints.Interval`.
    closed : bool, default True
        Whether there may be no other keys than the declared ones.

    Raises
    ------
    PersistenceError
        Names the place, what is expected and what was read.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if typing.is_typeddict(hint):
        _check_keys(place, value, hint, closed)
    elif origin is dict:
        if type(value) is not dict:
            raise _wrong(place, "a table", value)
        if inner[1] is not Any:
            for key, item in value.items():
                check_record(f"{place}.{key}", item, inner[1])
    elif origin is list:
        # What is going to be written may be a tuple.
        if type(value) not in (list, tuple):
            raise _wrong(place, "a list", value)
        if inner[0] is not Any:
            for number, item in enumerate(value):
                check_record(f"{place}[{number}]", item, inner[0])
    elif origin in (typing.Union, _Union):
        _check_one_of(place, value, inner)
    elif not _is_plain(value, hint):
        raise _wrong(place, describe_hint(hint), value)


# What ``X | Y`` makes.
_Union = type(int | str)


@cache
def _hints(declared: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(declared, include_extras=True)
    return {
        name: get_args(hint)[0] if get_origin(hint) is typing.NotRequired else hint
        for name, hint in hints.items()
    }


def _check_keys(place: str, value: Any, hint: Any, closed: bool) -> None:
    if type(value) is not dict:
        raise _wrong(place, "a table", value)
    hints = _hints(hint)
    missing = sorted(hint.__required_keys__ - value.keys())
    if missing:
        raise PersistenceError(f"{place} has no {missing[0]!r}; the model is incomplete")
    unknown = sorted(value.keys() - hints.keys())
    if unknown and closed:
        raise PersistenceError(
            f"{place} has a {unknown[0]!r}, which no model of this version of tsar has"
        )
    for key, item in value.items():
        if key in hints:
            check_record(f"{place}.{key}", item, hints[key])


def _check_one_of(place: str, value: Any, hints: tuple[Any, ...]) -> None:
    for number, hint in enumerate(hints):
        try:
            check_record(place, value, hint)
            return
        except PersistenceError:
            # None comes last: the fault that is told is that of what is expected.
            if number == len(hints) - 1 or type(value) is dict:
                raise


def _is_plain(value: Any, hint: Any) -> bool:
    if hint is float:
        # NaN stands for what was not measured; what must be finite has an interval.
        return type(value) in (int, float)
    return matches(value, hint)


def _wrong(place: str, expected: str, value: Any) -> PersistenceError:
    return PersistenceError(f"{place} must be {expected}, got {_shown(value)}")


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict | list) else type(value).__name__
    return text if len(text) < 80 else f"{text[:80]}..."
