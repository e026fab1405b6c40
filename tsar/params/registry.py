"""Things by name: ours, those that are registered, and those that other packages bring."""

import keyword
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from tsar.exceptions import ParameterError

__all__ = ["Registry", "check_subclass_of"]

Thing = TypeVar("Thing")


def check_subclass_of(base: type, what: str, place: str) -> Callable[[Any], None]:
    """Return the check of a registry of classes.

    Parameters
    ----------
    base : type
    what : str
        What a subclass is, with its article, for messages.
    place : str
        Where the base is imported from.

    Returns
    -------
    callable
        Raises a ParameterError for anything but a subclass.
    """

    def check(cls: Any) -> None:
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise ParameterError(
                f"register: {what} must be a subclass of {place}.{base.__name__}, got {cls!r}"
            )

    return check


class Registry(Mapping[str, Thing], Generic[Thing]):
    """Names of one kind of thing, such as the token mixers.

    Ours come first; :meth:`register` adds one for as long as the process lives, and an entry
    point of an installed package adds one wherever that package is installed. Entry points are
    not loaded before a name is asked for that is none of the others, or all names are.

    Parameters
    ----------
    kind : str
        What the things are, for messages.
    group : str
        The group of entry points, ``"tsar.mixers"``.
    own : mapping of str to thing
        Those of tsar.
    check : callable
        Takes a thing that is offered, and raises a ParameterError if it is none of the kind.
    """

    def __init__(
        self, kind: str, group: str, own: Mapping[str, Thing], check: Callable[[Any], None]
    ) -> None:
        self.kind, self.group = kind, group
        self._things: dict[str, Thing] = dict(own)
        self._own = frozenset(own)
        self._check = check
        self._is_searched = False

    def register(self, name: str, thing: Thing) -> None:
        """Add a thing under a name.

        Raises
        ------
        ParameterError
            It is of another kind, or the name belongs to something else.
        """
        self._check(thing)
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise ParameterError(
                f"register: the name of a {self.kind} must be an identifier, such as "
                f"'my_{self.kind}', got {name!r}"
            )
        held = self._things.get(name)
        if held is not None and (name in self._own or not _same(held, thing)):
            raise ParameterError(
                f"register: there is a {self.kind} called {name!r} already; choose another name"
            )
        self._things[name] = thing

    def unregister(self, name: str) -> None:
        """Forget what was registered under a name; those of tsar stay.

        Raises
        ------
        ParameterError
            Nothing was registered under it.
        """
        if name not in self._things or name in self._own:
            raise ParameterError(f"unregister: no {self.kind} was registered as {name!r}")
        del self._things[name]

    def __getitem__(self, name: str) -> Thing:
        if name not in self._things:
            self._search()
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        if name not in self._things:
            self._search()
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        self._search()
        return iter(self._things)

    def __len__(self) -> int:
        self._search()
        return len(self._things)

    def _search(self) -> None:
        """Load what installed packages bring; what cannot be loaded is an error of theirs."""
        if self._is_searched:
            return
        self._is_searched = True
        for entry in entry_points(group=self.group):
            if entry.name not in self._things:
                self.register(entry.name, entry.load())


def _same(held: Any, thing: Any) -> bool:
    """Whether a thing is the one that is held, maybe defined again by a notebook."""
    places = [
        (getattr(one, "__module__", None), getattr(one, "__qualname__", None))
        for one in (held, thing)
    ]
    return held is thing or (places[0] == places[1] and None not in places[0])
