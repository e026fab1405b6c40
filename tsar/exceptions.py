"""The errors tsar raises: one base class, and a class per kind of repair.

Every message names the object, what was expected, what was received and how to
repair it. ``assert`` is kept for our own invariants.
"""

import contextlib
import inspect
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Literal

from sklearn.exceptions import NotFittedError as SklearnNotFittedError

__all__ = [
    "BackendWarning",
    "DataError",
    "DataWarning",
    "InterruptedWarning",
    "MissingExtraError",
    "NotFittedError",
    "OutputInUseError",
    "ParameterError",
    "PersistenceError",
    "TrainingError",
    "TsarError",
    "foreign_warnings",
    "own_warnings",
    "warn",
]


class TsarError(Exception):
    """Base class of every error raised on purpose by tsar."""


class ParameterError(TsarError, ValueError):
    """A parameter is outside its declared constraint."""


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


class DataWarning(UserWarning):
    """The data allow less than what was asked for, and a stated fallback is used."""


class InterruptedWarning(UserWarning):
    """Training was interrupted by the keyboard; the model is usable, but not finished."""


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
        self.asked = ContextVar("asked", default=False)
        self.users = 0

    def match(self, message: str) -> bool:
        return self.asked.get()

    @property
    def pattern(self) -> str:
        """What scikit-learn copies of a filter: all or nothing."""
        return "" if self.asked.get() else "(?!)"

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
    token = here.asked.set(True)
    try:
        yield
    finally:
        here.asked.reset(token)
        with _filters_lock:
            here.users -= 1
            if not here.users:
                _remove(entry)


def _remove(entry: Any) -> None:
    with contextlib.suppress(ValueError):
        warnings.filters.remove(entry)  # type: ignore[attr-defined]


def warn(message: str, category: type[Warning]) -> None:
    """Warn in the name of the line that led to it, outside of tsar and torch."""
    for action, concerned in _own.get():
        if issubclass(category, concerned):
            if action == "error":
                raise category(message)
            return
    frame, level = inspect.currentframe(), 1
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in (
        "tsar",
        "torch",
    ):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
