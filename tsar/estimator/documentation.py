"""Docstrings and signatures of estimators, put together from what each class says of its own."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

__all__ = ["PlainSignature", "complete", "parameter_groups"]

# In the order in which they are shown.
GROUPS = ("model", "training", "data")
# The sections of a docstring in numpydoc's order; what is not among them is no section.
SECTIONS = (
    *("Parameters", "Other Parameters", "Attributes", "Methods", "See Also", "Notes", "Warnings"),
    *("References", "Examples"),
)
HEADING = re.compile(rf"({'|'.join(SECTIONS)})\n-{{3,}}\n")


def complete(cls: type) -> None:
    """Add to the docstring of a class the parameters and attributes that it inherits.

    What the class describes itself stays as it is. The parameters of its model come first, as
    ``Parameters``; those of training and data follow as ``Other Parameters``.

    Parameters
    ----------
    cls : type
        A subclass of :class:`~tsar.estimator.base.Estimator`.
    """
    if not cls.__doc__ or "__doc__" not in vars(cls):
        return
    own = _sections(inspect.cleandoc(cls.__doc__))
    bases = [
        _sections(vars(base)["__own_doc__"])
        for base in cls.__mro__[1:]
        if "__own_doc__" in vars(base)
    ]
    cls.__own_doc__ = inspect.cleandoc(cls.__doc__)  # type: ignore[attr-defined]
    parameters = _merged(own, bases, "Parameters")
    by_group: dict[str, list[str]] = {group: [] for group in GROUPS}
    for names, text in parameters:
        if all(_is_class_variable(cls, name) for name in names):
            continue
        by_group[_group(cls, names[0])].append(text)
    whole = dict(own)
    whole["Parameters"] = "\n".join(by_group["model"])
    whole["Other Parameters"] = "\n".join([*by_group["training"], *by_group["data"]])
    whole["Attributes"] = "\n".join(text for _, text in _merged(own, bases, "Attributes"))
    parts = [whole.pop("")]
    parts += [f"{name}\n{'-' * len(name)}\n{whole[name]}" for name in SECTIONS if whole.get(name)]
    cls.__doc__ = "\n\n".join(parts) + "\n"


def parameter_groups(cls: type) -> dict[str, list[str]]:
    """Return the names of the parameters of an estimator, by what they are about.

    Parameters
    ----------
    cls : type
        A subclass of :class:`~tsar.estimator.base.Estimator`.

    Returns
    -------
    dict of str to list of str
        Of "model", "training" and "data".
    """
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for field in fields(cls):
        groups[_group(cls, field.name)].append(field.name)
    return groups


def _group(cls: type, parameter: str) -> str:
    """Return the group that the nearest class which declares a parameter puts it into."""
    for base in reversed(cls.__mro__):
        if parameter in vars(base).get("__annotations__", {}):
            declared = vars(base).get("parameter_group", "model")
            group: str = vars(base).get("other_groups", {}).get(parameter, declared)
            return group
    return "model"


def _is_class_variable(cls: type, name: str) -> bool:
    """Whether the nearest class that declares a name says that it is no parameter any more."""
    for base in cls.__mro__:
        if name in vars(base).get("__annotations__", {}):
            return get_origin(vars(base)["__annotations__"][name]) is ClassVar
    return False


def _sections(doc: str) -> dict[str, str]:
    """Divide a docstring; what comes before the first section has no name."""
    parts = HEADING.split(doc)
    return {"": parts[0].strip()} | {
        name: text.strip("\n") for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def _entries(text: str) -> Iterator[tuple[list[str], str]]:
    """Yield the names that an entry of a section describes, and the entry."""
    for entry in re.split(r"\n(?=\S)", text):
        if entry:
            names = entry.split("\n")[0].split(" : ")[0]
            yield [name.strip() for name in names.split(",")], entry


def _merged(
    own: dict[str, str], bases: list[dict[str, str]], section: str
) -> list[tuple[list[str], str]]:
    """Return the entries of a class and of its bases; the class nearest to it has the word."""
    merged: list[tuple[list[str], str]] = []
    described: set[str] = set()
    for sections in (own, *bases):
        for names, text in list(_entries(sections.get(section, ""))):
            if not described.issuperset(names):
                merged.append((names, text))
        described |= {name for names, _ in merged for name in names}
    return merged


class PlainSignature:
    """The signature of an estimator as a person writes it: types without their constraints.

    What a parameter may be is checked by :meth:`tsar.estimator.base.Estimator.check`, and said in
    the docstring. Parameters stand in the order of their groups.
    """

    def __get__(self, instance: Any, owner: type) -> inspect.Signature:
        if not is_dataclass(owner):
            raise AttributeError("__signature__")
        by_name = {field.name: field for field in fields(owner)}
        return inspect.Signature(
            [
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=by_name[name].default,
                    annotation=_Shown(_in_words(by_name[name].type)),
                )
                for names in parameter_groups(owner).values()
                for name in names
            ]
        )


class _Shown(str):
    """Text that is shown without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _in_words(annotation: Any) -> str:
    """Return a type as a person writes it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _in_words(arguments[0])
    if origin in (Union, UnionType):
        # One number with different limits is one number.
        return " | ".join(dict.fromkeys(_in_words(argument) for argument in arguments))
    if origin is Literal:
        return " | ".join(repr(argument) for argument in arguments)
    if annotation is NoneType:
        return "None"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_in_words, arguments))}]"
    return getattr(annotation, "__name__", str(annotation))
