"""Parameters of estimators from text, by the types of their annotations."""

import ast
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin

from tsar.exceptions import ParameterError
from tsar.params.objects import Storable
from tsar.params.parameter_names import check_names

__all__ = ["parse_object", "parse_parameters"]


def parse_parameters(cls: type[Any], settings: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value`` settings with the types of an estimator's parameters.

    Parameters
    ----------
    cls : type
        Estimator class whose fields are annotated.
    settings : iterable of str
        ``"d_model=32"``, ``"quantiles=0.1,0.5,0.9"``, ``"max_steps=none"``.

    Returns
    -------
    dict
        Values by parameter name. Text that fits no type stays text, and ``fit`` then
        rejects it with the constraint of the parameter.

    Raises
    ------
    ParameterError
        If a setting has no ``=``, or names no parameter; it suggests the nearest one.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    names = list(cls().get_params(deep=False))
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ParameterError(f"{cls.__name__}: a setting must be name=value, got {setting!r}")
        check_names(cls.__name__, {name.strip(): _as_number(text.strip())}, names)
        parsed = _parse(text.strip(), hints[name.strip()])
        values[name.strip()] = text.strip() if parsed is _UNFIT else parsed
    return values


def parse_object(cls: type[Any], name: str, text: str) -> Any:
    """Read ``AdamW(weight_decay=0.1)`` where a parameter takes such an object.

    Parameters
    ----------
    cls : type
        Estimator class whose fields are annotated.
    name : str
        Of the parameter.
    text : str

    Returns
    -------
    object
        The text itself where it makes none.

    Raises
    ------
    ParameterError
        The class is known, and cannot be called so.
    """
    hint = typing.get_type_hints(cls, include_extras=True).get(name)
    readings = (_object(text, base) for base in _storable(hint))
    return next((value for value in readings if value is not _UNFIT), text)


def _storable(hint: Any) -> Iterator[type[Storable]]:
    """Yield the classes of objects that a type admits."""
    origin, members = get_origin(hint), get_args(hint)
    if origin is Annotated:
        yield from _storable(members[0])
    elif origin in (typing.Union, types.UnionType):
        for member in members:
            yield from _storable(member)
    elif isinstance(hint, type) and issubclass(hint, Storable):
        yield hint


def _as_number(text: str) -> Any:
    """Return a number for what is written as one, for the error that repeats it."""
    try:
        return float(text)
    except ValueError:
        return text


def _rank(text: str, member: Any) -> int:
    """Order the members of a union: what admits every text comes after what does not."""
    if member in (str, Any):
        return 2
    if isinstance(get_origin(member), type) and issubclass(get_origin(member), Sequence):
        return 1 if "," in text else 3
    return 0


_UNFIT = object()
_WORDS = {"true": True, "false": False}


def _parse(text: str, hint: Any) -> Any:
    """Read text as one type; ``_UNFIT`` where it is none of what the type admits."""
    origin, members = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _parse(text, members[0])
    if origin in (typing.Union, types.UnionType):
        readings = (_parse(text, member) for member in sorted(members, key=partial(_rank, text)))
        return next((value for value in readings if value is not _UNFIT), _UNFIT)
    if origin is Literal:
        return next((member for member in members if str(member) == text), _UNFIT)
    if hint in (None, type(None)):
        return None if text.lower() == "none" else _UNFIT
    if hint is bool:
        return _WORDS.get(text.lower(), _UNFIT)
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            return _UNFIT
    if hint in (str, Any):
        return text
    if isinstance(hint, type) and issubclass(hint, Storable):
        return _object(text, hint)
    if origin is not None and members:
        item = members[0]
        values = [_parse(part.strip(), item) for part in text.strip("[]()").split(",") if part]
        return _UNFIT if any(value is _UNFIT for value in values) else tuple(values)
    return _UNFIT


def _object(text: str, base: type[Storable]) -> Any:
    """Read ``AdamW(weight_decay=0.1)``: a known class, called with plain values by name."""
    try:
        call = ast.parse(text, mode="eval").body
    except SyntaxError:
        return _UNFIT
    # By the name that is registered, and by that which the object prints.
    known_by = base.known_classes()
    own = {one.__name__: one for one in known_by.values() if isinstance(one, type)}
    classes = {**own, **known_by}
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        return _UNFIT
    if call.func.id not in classes or call.args:
        return _UNFIT
    try:
        arguments = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
        return classes[call.func.id](**arguments)
    except (TypeError, SyntaxError, ValueError) as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError(f"{text} cannot be read: {error}") from None
