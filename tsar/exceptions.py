"""The errors tsar raises: one base class, and a class per kind of repair.

Every message names the object, what was expected, what was received and how to
repair it. ``assert`` is kept for our own invariants.
"""

import contextlib
import functools
import inspect
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal, ParamSpec, TypeVar

from sklearn.exceptions import NotFittedError as SklearnNotFittedError

__all__ = [
    "BackendWarning",
    "DataError",
    "DataWarning",
    "EngineError",
    "InterruptedWarning",
    "MissingExtraError",
    "NotFittedError",
    "OutputInUseError",
    "ParameterError",
    "PersistenceError",
    "PretrainingWarning",
    "TrainingError",
    "TsarError",
    "UnknownParameterError",
    "each_warning_once",
    "foreign_warnings",
    "gathered_warnings",
    "own_warnings",
    "warn",
]


class TsarError(Exception):
    """Base class of every error raised on purpose by tsar."""


class ParameterError(TsarError, ValueError):
    """A parameter is outside its declared constraint."""


class UnknownParameterError(ParameterError, TypeError):
    """There is no parameter of that name; a TypeError as well, as Python raises one."""


class DataError(TsarError, ValueError):
    """A frame cannot be read as time series.

    Attributes
    ----------
    faults : pandas.DataFrame or None
        One row per fault with the columns ``id``, ``kind``, ``column``, ``count``
        and ``first``, where the fault belongs to series; None otherwise.
    """

    def __init__(self, message, faults=None):
        super().__init__(message)
        self.faults = faults


class NotFittedError(TsarError, SklearnNotFittedError):
    """An estimator was used before ``fit``."""


class MissingExtraError(TsarError, ImportError):
    """An optional dependency is not installed."""


class TrainingError(TsarError, RuntimeError):
    """Training cannot go on, for example because the loss is not finite."""


class PersistenceError(TsarError, ValueError):
    """A saved model cannot be read, or cannot be written."""


class OutputInUseError(TsarError, RuntimeError):
    """Another run writes to the same place at this moment."""


class EngineError(TsarError, RuntimeError):
    """What shares work among processes or machines cannot be reached, or has ended."""


class DataWarning(UserWarning):
    """The data allow less than what was asked for, and a stated fallback is used."""


class InterruptedWarning(UserWarning):
    """Training was interrupted by the keyboard; the model is usable, but not finished."""


class PretrainingWarning(UserWarning):
    """A copy is made without the weights that were pre-trained."""


class BackendWarning(UserWarning):
    """A faster kernel is installed and cannot be trusted; the stated slower one is used."""


# What becomes of warnings, in one place. warnings.catch_warnings is for one thread: it puts back
# the filters that it found, and two threads that leave in the order in which they entered leave
# those of the first one behind, which may hold back everything, for ever.
Action = Literal["ignore", "error"]
_own: ContextVar[tuple[tuple[Action, type[Warning]], ...]] = ContextVar("own", default=())


@contextlib.contextmanager
def own_warnings(action: Action, category: type[Warning]) -> Iterator[None]:
    """Hold back warnings of tsar inside of a ``with`` block, or make them errors.

    Other threads and tasks see theirs.

    Parameters
    ----------
    action : {"ignore", "error"}
    category : type of Warning
        Its subclasses as well.
    """
    token = _own.set(((action, category), *_own.get()))
    try:
        yield
    finally:
        _own.reset(token)


class _Here:
    """Stands for the pattern of a filter, which fits any message in contexts that ask for it."""

    def __init__(self) -> None:
        self.held_here = ContextVar("held_here", default=False)
        self.users = 0

    def match(self, message: str) -> bool:
        return self.held_here.get()

    @property
    def pattern(self) -> str:
        """What scikit-learn copies of a filter: all or nothing."""
        return "" if self.held_here.get() else "(?!)"

    def __reduce__(self) -> tuple[Any, ...]:
        # joblib hands filters to other processes.
        return re.compile, (self.pattern,)


_filters: dict[tuple[Action, type[Warning]], _Here] = {}
_filters_lock = threading.Lock()


def _in_forked_process() -> None:
    # The thread that held it has not come along.
    global _filters_lock
    _filters_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)


@contextlib.contextmanager
def foreign_warnings(action: Action, category: type[Warning]) -> Iterator[None]:
    """Hold back warnings of other libraries inside of a ``with`` block, or make them errors.

    Other threads and tasks see theirs, and threads may enter and leave in any order: all that
    the process holds meanwhile is a filter that fits no message elsewhere.

    Parameters
    ----------
    action : {"ignore", "error"}
    category : type of Warning
        Its subclasses as well.
    """
    here = _filters.setdefault((action, category), _Here())
    entry: Any = (action, here, category, None, 0)
    with _filters_lock:
        here.users += 1
        # Anyone may have put other filters before it, or other filters altogether.
        _remove(entry)
        warnings.filters.insert(0, entry)  # type: ignore[attr-defined]
    token = here.held_here.set(True)
    try:
        yield
    finally:
        here.held_here.reset(token)
        with _filters_lock:
            here.users -= 1
            if not here.users:
                _remove(entry)


def _remove(entry: Any) -> None:
    with contextlib.suppress(ValueError):
        warnings.filters.remove(entry)  # type: ignore[attr-defined]


P = ParamSpec("P")
R = TypeVar("R")
# What has been warned of inside of a call that gathers it; None where nothing is gathered.
_gathered: ContextVar[list[tuple[str, type[Warning]]] | None] = ContextVar("gathered", default=None)
# What may differ between warnings of one kind: numbers, and examples in brackets.
_VARYING = re.compile(r"\(.*\)|\d+(?:\.\d+)?")
_SHOWN = 5


class each_warning_once:
    """Give each kind of warning once, when a ``with`` block ends, and count the others.

    For calls that fit several models, or one of them several times; it decorates functions as
    well. Warnings of one kind differ in numbers, in what stands in brackets, and in the name of
    the model that they begin with. Such a block in another one gives its warnings to that.
    """

    def __enter__(self) -> None:
        self._outermost = _gathered.get() is None
        if self._outermost:
            self._token = _gathered.set([])

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Make a function such a block."""

        @functools.wraps(function)
        def gathering(*args: P.args, **kwargs: P.kwargs) -> R:
            with each_warning_once():
                return function(*args, **kwargs)

        return gathering

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if not self._outermost:
            return
        gathered = _gathered.get() or []
        _gathered.reset(self._token)
        kinds: dict[tuple[type[Warning], str], list[str]] = {}
        for message, category in gathered:
            text = message.partition(": ")[2]
            kinds.setdefault((category, _VARYING.sub("", text)), []).append(message)
        for (category, _), messages in kinds.items():
            if kind is None:
                warn(_as_one(messages), category)
            else:
                # Warnings that are made errors do not hide the error that ends the call.
                with contextlib.suppress(category):
                    warn(_as_one(messages), category)


@contextlib.contextmanager
def gathered_warnings() -> Iterator[list[tuple[str, type[Warning]]]]:
    """Keep the warnings of tsar inside of a ``with`` block, for another process to give them.

    Yields
    ------
    list of (str, type of Warning)
        It grows as they come.
    """
    gathered: list[tuple[str, type[Warning]]] = []
    token = _gathered.set(gathered)
    try:
        yield gathered
    finally:
        _gathered.reset(token)


def _as_one(messages: list[str]) -> str:
    """Return the first of some warnings of one kind, and how often and by whom it was given."""
    if len(messages) == 1:
        return messages[0]
    names = list(dict.fromkeys(message.partition(": ")[0] for message in messages))
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    by = f" by {len(names)} models: {shown}" if len(names) > 1 else ""
    return f"{messages[0]} [given {len(messages)} times{by}]"


def warn(message: str, category: type[Warning]) -> None:
    """Warn in the name of the line that led to it, outside of tsar and torch."""
    for action, concerned in _own.get():
        if issubclass(category, concerned):
            if action == "error":
                raise category(message)
            return
    gathered = _gathered.get()
    if gathered is not None:
        gathered.append((message, category))
        return
    frame, level = inspect.currentframe(), 1
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in (
        "tsar",
        "torch",
    ):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
