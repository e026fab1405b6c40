"""The errors tsar raises: one base class, and a class per kind of repair.

Every message names the object, what was expected, what was received and how to
repair it. ``assert`` is kept for our own invariants.
"""

import inspect
import warnings

from sklearn.exceptions import NotFittedError as SklearnNotFittedError

__all__ = [
    "BackendWarning",
    "DataError",
    "DataWarning",
    "InterruptedWarning",
    "MissingExtraError",
    "NotFittedError",
    "ParameterError",
    "PersistenceError",
    "TrainingError",
    "TsarError",
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


class DataWarning(UserWarning):
    """The data allow less than what was asked for, and a stated fallback is used."""


class InterruptedWarning(UserWarning):
    """Training was interrupted by the keyboard; the model is usable, but not finished."""


class BackendWarning(UserWarning):
    """A faster kernel is installed and cannot be trusted; the stated slower one is used."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn in the name of the line that led to it, outside of tsar and torch."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in (
        "tsar",
        "torch",
    ):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
