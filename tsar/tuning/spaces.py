"""What a search may choose from: spaces as plain dicts, and one for every model."""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tsar.data.codec import decode, encode
from tsar.exceptions import ParameterError
from tsar.forecasting.base import Forecaster
from tsar.params.constraints import admits, check_choice
from tsar.params.parameter_names import check_names
from tsar.params.text import parse_parameters

__all__ = ["Space", "default_space", "parse_space"]

# Under which a trial keeps what functions returned.
RETURNED = "returned"

Choices = list[Any] | tuple[Any, ...]

# Parameters worth searching for, by name, as ranges or choices around what the model has: names
# mean the same in every model, and a model that is written tomorrow has its space today.
BY_NAME: dict[str, Callable[[Any], Choices]] = {
    "context_length": lambda here: [max(here // 2, 1), here, 2 * here, 4 * here],
    "learning_rate": lambda here: (here / 10, here * 10, "log"),
    "batch_size": lambda here: [max(here // 2, 1), here, 2 * here, 4 * here],
    "d_model": lambda here: [here // 2, here, 2 * here],
    "n_layers": lambda here: (1, max(4, here)),
    "dropout": lambda here: (0.0, max(0.5, here)),
    "patch_length": lambda here: [here, 2 * here],
}
# Around what, where a fit would choose.
WHERE_CHOSEN: dict[str, Any] = {
    **{"context_length": 96, "learning_rate": 1e-3, "batch_size": 32},
    **{"d_model": 16, "dropout": 0.2, "patch_length": 16},
}
# What a model needs beside that, or in another way: None leaves a parameter as it is.
BY_MODEL: dict[str, dict[str, Choices | None]] = {
    "ARIMA": {"order": [(0, 1, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 1), (2, 1, 2)]},
    "ARNet": {"batch_size": None, "sparsity_strength": (1e-3, 1e-1, "log")},
    "AutoReg": {"lags": [1, 2, 3, 6, 12, 24]},
    "DLinear": {"kernel": [5, 13, 25, 49]},
    "ETS": {"damped_trend": [True, False], "seasonal": ["add", "mul", None]},
    "LagRegressor": {"strategy": ["direct", "recursive"], "lags": [7, 12, 24]},
    "MSTL": {"damped_trend": [True, False], "season_length": [[7], [12], [24], [24, 168]]},
    "PretrainedForecaster": {
        "context_length": None,
        "batch_size": None,
        "fine_tuning_steps": [0, 50, 200],
    },
    "STLETS": {"damped_trend": [True, False], "seasonal_window": [7, 13, 25, 49]},
    "Theta": {"seasonal": ["add", "mul", None]},
}


def default_space(estimator: Forecaster, *, longest_context: int | None = None) -> dict[str, Any]:
    """Return the space that is searched where none is given.

    Parameters
    ----------
    estimator : Forecaster
        The space is around its parameters.
    longest_context : int or None
        Longer contexts are left out, because no series has room for them.

    Returns
    -------
    dict
        By parameter, as :class:`~tsar.tuning.OptunaSearch` takes it.

    Raises
    ------
    ParameterError
        There is nothing to search for, or the data have no room for any context.

    Examples
    --------
    >>> import tsar
    >>> from tsar.tuning import default_space
    >>> default_space(tsar.DLinear(), longest_context=200)["context_length"]
    [48, 96, 192]
    """
    name = type(estimator).__name__
    present = estimator.get_params(deep=False)
    present |= {key: value for key, value in WHERE_CHOSEN.items() if present.get(key, 0) is None}
    own = BY_MODEL.get(name, {})
    space = {key: rule(present[key]) for key, rule in BY_NAME.items() if key in present}
    space |= {key: choices for key, choices in own.items() if choices is not None}
    space = {key: choices for key, choices in space.items() if key not in own or own[key]}
    if not space:
        raise ParameterError(f"OptunaSearch: {name} has no default space; pass space=")
    if longest_context is not None and "context_length" in space:
        fitting = [rows for rows in space["context_length"] if rows <= longest_context]
        if not fitting:
            raise ParameterError(
                f"OptunaSearch: context_length of the default space must be at most "
                f"{longest_context} for these data, got {min(space['context_length'])} and more; "
                f"set a shorter one in the estimator, or pass longer series"
            )
        space["context_length"] = fitting
    return space


def parse_space(cls: type[Any], entries: Iterable[str]) -> dict[str, Any]:
    """Read the entries of a space from text.

    Parameters
    ----------
    cls : type
        Estimator class whose fields are annotated.
    entries : iterable of str
        ``"n_layers=1,2,3"``, ``"dropout=0..0.5"``, ``"learning_rate=1e-4..1e-2:log"``.

    Returns
    -------
    dict
        By parameter, as :class:`~tsar.tuning.OptunaSearch` takes it.

    Raises
    ------
    ParameterError
        An entry is written in another way, or names no parameter; it suggests the nearest one.

    Examples
    --------
    >>> import tsar
    >>> from tsar.tuning.spaces import parse_space
    >>> parse_space(tsar.NLinear, ["learning_rate=1e-4..1e-2:log", "max_steps=300,none"])
    {'learning_rate': (0.0001, 0.01, 'log'), 'max_steps': [300, None]}
    """
    space: dict[str, Any] = {}
    for entry in entries:
        name, _, text = (part.strip() for part in entry.partition("="))
        low, dots, rest = text.partition("..")
        high, _, scale = rest.partition(":")
        try:
            ends = tuple(map(_number, (low, high))) if dots else ()
        except ValueError:
            ends = ()
        if not text or "..." in text or scale not in ("", "log") or bool(dots) != bool(ends):
            raise ParameterError(
                f"{cls.__name__}: an entry of the space must be name=low..high, "
                f"name=low..high:log or name=choice,choice,..., got {entry!r}"
            )
        if dots:
            check_names(cls.__name__, {name: ends[0]}, cls().get_params(deep=False))
            space[name] = (*ends, "log") if scale else ends
        else:
            choices = [f"{name}={choice}" for choice in text.split(",")]
            space[name] = [parse_parameters(cls, [choice])[name] for choice in choices]
    return space


def _number(text: str) -> float:
    """Read a number; whole ones are integers, which a range of integers is made of."""
    try:
        return int(text)
    except ValueError:
        return float(text)


class Space:
    """A space that was checked, and that trials draw parameters from.

    Parameters
    ----------
    estimator : Forecaster
        Whose parameters are chosen.
    space : mapping of str to list, tuple or callable
        As :class:`~tsar.tuning.OptunaSearch` takes it.

    Raises
    ------
    ParameterError
        A name is no parameter, or a value none that it may have.
    """

    def __init__(self, estimator: Forecaster, space: Mapping[str, Any]) -> None:
        self.owner = type(estimator).__name__
        if not isinstance(space, Mapping) or not space:
            raise ParameterError(
                f"OptunaSearch: space must be a dict of parameter names with at least one entry, "
                f"got {space!r}"
            )
        names = list(estimator.get_params(deep=True))
        for name in space:
            check_choice(self.owner, "parameter of the space", name, names)
        self.entries = {
            name: self._entry(type(estimator), name, entry) for name, entry in space.items()
        }

    def _entry(self, cls: type[Any], name: str, stated: Any) -> "_Choice | _Range | Callable":
        if callable(stated):
            return stated
        entry: _Choice | _Range
        if isinstance(stated, list) and stated:
            entry = _Choice(stated)
        elif isinstance(stated, tuple) and _is_range(stated):
            entry = _Range(cls, name, stated)
        else:
            raise ParameterError(
                f"OptunaSearch: space[{name!r}] must be a list of choices, (low, high), "
                f'(low, high, "log") or a function of the trial, got {stated!r}'
            )
        for value in entry.ends:
            if not admits(cls, name, value):
                raise ParameterError(
                    f"OptunaSearch: space[{name!r}] must hold what {self.owner} admits, got "
                    f"{value!r}"
                )
        return entry

    def sample(self, trial: Any) -> dict[str, Any]:
        """Return a value for every parameter, asking an Optuna trial for it."""
        values, returned = {}, {}
        for name, entry in self.entries.items():
            if isinstance(entry, _Choice | _Range):
                values[name] = entry.value(entry.suggest(trial, name))
            else:
                values[name] = entry(trial)
                returned[name] = encode(values[name])
        if returned:
            trial.set_user_attr(RETURNED, returned)
        return values

    def read(self, trial: Any) -> dict[str, Any]:
        """Return the values of a stored trial; one that failed early has not all of them."""
        values, returned = {}, trial.user_attrs.get(RETURNED, {})
        for name, entry in self.entries.items():
            if name in returned:
                values[name] = decode(returned[name])
            elif isinstance(entry, _Choice | _Range) and name in trial.params:
                values[name] = entry.value(trial.params[name])
        return values

    def describe(self) -> dict[str, str]:
        """Say in text what is searched, to tell one space from another."""
        return {
            name: str(entry)
            if isinstance(entry, _Choice | _Range)
            else f"the function {getattr(entry, '__qualname__', type(entry).__name__)}"
            for name, entry in self.entries.items()
        }


def _is_range(entry: tuple[Any, ...]) -> bool:
    if len(entry) not in (2, 3) or (len(entry) == 3 and entry[2] != "log"):
        return False
    numeric = all(
        isinstance(end, numbers.Real) and not isinstance(end, bool) and math.isfinite(end)
        for end in entry[:2]
    )
    return numeric and entry[0] < entry[1] and (len(entry) == 2 or entry[0] > 0)


class _Choice:
    """One of several values; Optuna stores text, numbers, booleans and None."""

    def __init__(self, values: list[Any]) -> None:
        self.ends = values
        self.by_label: dict[Any, Any] = {}
        for value in values:
            plain = value.item() if isinstance(value, np.generic) else value
            stored = plain is None or isinstance(plain, bool | int | float | str)
            self.by_label[plain if stored else repr(plain)] = value

    def suggest(self, trial: Any, name: str) -> Any:
        return trial.suggest_categorical(name, list(self.by_label))

    def value(self, label: Any) -> Any:
        return self.by_label[label]

    def __str__(self) -> str:
        return f"[{', '.join(map(repr, self.by_label))}]"


class _Range:
    """A range of numbers, both ends included; whole ones where the parameter is whole."""

    def __init__(self, cls: type[Any], name: str, entry: tuple[Any, ...]) -> None:
        low, high = (end.item() if isinstance(end, np.generic) else end for end in entry[:2])
        self.ends = [low, high]
        self.log = len(entry) == 3
        integers = isinstance(low, int) and isinstance(high, int)
        # (0, 1) of a share such as dropout means everything in between. Of a parameter of a
        # part, such as model__dropout, nothing is known.
        between = low + (high - low) * 0.499
        self.whole = integers and ("__" in name or not admits(cls, name, between))

    def suggest(self, trial: Any, name: str) -> Any:
        suggest = trial.suggest_int if self.whole else trial.suggest_float
        return suggest(name, *self.ends, log=self.log)

    def value(self, number: float) -> float:
        return number

    def __str__(self) -> str:
        return f"({self.ends[0]!r}, {self.ends[1]!r}{', log' if self.log else ''})"
