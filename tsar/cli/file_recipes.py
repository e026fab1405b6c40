"""Recipes for a file of one's own: what ``tsar forecast``, ``backtest`` and ``tune`` do with it.

One TOML file says which data are read and how, by which model with which parameters, and in
a table for each command what it is to do with them. Those of published numbers are read by
:mod:`tsar.evaluation.recipes`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tsar.data.tidying import POLICIES
from tsar.data.toml import as_toml, check_table, read_toml
from tsar.exceptions import ParameterError
from tsar.forecasting.registry import forecaster_class, forecaster_names
from tsar.params.arguments import check_percentages
from tsar.params.constraints import Interval, admits, check_choice, check_parameters
from tsar.params.objects import Storable
from tsar.params.parameter_names import check_names
from tsar.params.text import parse_object
from tsar.tuning.spaces import Space

__all__ = ["DEFAULT_MODEL", "FileRecipe", "as_params_table", "load_file_recipe"]

DEFAULT_MODEL = "PatchTST"
COUNT = Annotated[int, Interval(1)]
# What a recipe may say before its first table, and in the table of each command. The keys of a
# command are its options.
TOP: dict[str, Any] = {
    "data": str,
    "id": str | list[str],
    "time": str | list[str],
    "time_format": str,
    "sep": str,
    "decimal": str,
    "thousands": str,
    "encoding": str,
    "header": bool,
    "target": str | list[str],
    "horizon": COUNT,
    "duplicates": str,
    "gaps": str,
    "ended": str,
    "ended_after": COUNT,
    "events": str,
    "country_holidays": str,
    "model": str,
    "params": dict,
    "forecast": dict,
    "backtest": dict,
    "tune": dict,
}
COMMANDS: dict[str, dict[str, Any]] = {
    "forecast": {
        "model": str,
        "level": float | list[float],
        "future": str,
        "trailing": str,
        "out": str,
        "report": str,
        "fit_rows": COUNT,
        "engine": str,
        "block_rows": COUNT,
    },
    "backtest": {
        "models": str | list[str],
        "windows": COUNT,
        "level": float | list[float],
        "on_error": str,
        "out": str,
    },
    "tune": {
        "trials": COUNT,
        "timeout": Annotated[float, Interval(0, open_low=True)],
        "windows": COUNT,
        "storage": str,
        "on_error": str,
        "out": str,
        "save": str,
        "space": dict,
    },
}
RANGE: dict[str, Any] = {"low": float, "high": float, "log": bool}
# Keys that are called otherwise where they are used, those that name files, and those of which
# there may be several.
RENAMED = {"id": "series_id", "models": "model"}
PATHS = {"data", "events", "future", "out", "report", "save", "storage"}
LISTS = {"id", "time", "target", "level"}
# Parameters of a model that have a key of their own.
OWN_KEYS = {"horizon": "horizon", "target": "target", "id_column": "id", "time_column": "time"}


@dataclass(frozen=True)
class FileRecipe:
    """A recipe that was checked.

    Parameters
    ----------
    path : pathlib.Path
        Where it was read; the files that it names are relative to its folder.
    content : mapping
        As TOML has it.
    """

    path: Path
    content: Mapping[str, Any]

    @property
    def owner(self) -> str:
        """What it is called in messages."""
        return f"recipe {self.path}"

    def options(self, command: str) -> dict[str, Any]:
        """Return what it says for a command, by the names of the command's arguments.

        Parameters
        ----------
        command : str
            "forecast", "backtest" or "tune".
        """
        everywhere = {name: self.content[name] for name in self.content if TOP[name] is not dict}
        own = self.content.get(command, {})
        options = {}
        for key, value in {**everywhere, **own}.items():
            if key in PATHS and "://" not in value:
                value = str(self.path.parent / value)
            if key == "model":
                value = self._model(value)
            if key in LISTS and not isinstance(value, list):
                value = [value]
            options[RENAMED.get(key, key)] = value
        if command == "backtest" and isinstance(options.get("model"), str):
            options["model"] = [options["model"]]
        options.pop("space", None)
        return options

    def params(self, model: str) -> dict[str, Any]:
        """Return the parameters of a model that is named.

        Parameters
        ----------
        model : str
            Of ``[params]`` it takes what it has, and then all of ``[params.<model>]``.
        """
        cls, params = forecaster_class(model), self.content.get("params", {})
        own = params.get(model, {})
        shared = {name: params[name] for name in params if name not in forecaster_names()}
        present = _parameters(model)
        chosen = {name: value for name, value in shared.items() if name in present} | own
        return {name: _typed(cls, name, value) for name, value in chosen.items()}

    def space(self, model: str) -> dict[str, Any]:
        """Return the space to search, as :class:`~tsar.tuning.OptunaSearch` takes it.

        Parameters
        ----------
        model : str
            Whose parameters are chosen.

        Returns
        -------
        dict
            Empty where the recipe has none.
        """
        owner, cls = f"{self.owner}, [tune.space]", forecaster_class(model)
        space: dict[str, Any] = {}
        for name, entry in self.content.get("tune", {}).get("space", {}).items():
            if isinstance(entry, list) and entry:
                space[name] = [_typed(cls, name, value) for value in entry]
                continue
            if not isinstance(entry, dict):
                raise ParameterError(
                    f"{owner}: {name} must be a list of choices, or a range such as "
                    f"{{ low = 1e-4, high = 1e-2, log = true }}, got {entry!r}"
                )
            check_table(f"{owner}, {name}", entry, RANGE)
            low, high, log = entry.get("low"), entry.get("high"), entry.get("log", False)
            if low is None or high is None or not low < high or (log and low <= 0):
                raise ParameterError(
                    f"{owner}: {name} must have low below high{' and above 0' * log}, got {entry!r}"
                )
            space[name] = (low, high, "log") if log else (low, high)
        return space

    # ---------------------------------------------------------------- checks

    def check(self) -> None:
        """Check the whole of it, the tables of other commands too.

        Raises
        ------
        ParameterError
            A key is unknown or in the wrong table, or a value is none that it may have.
        """
        owner, content = self.owner, self.content
        if "cells" in content:
            raise ParameterError(
                f"{owner} holds published numbers; run it with `tsar reproduce {self.path}`"
            )
        _check_places(owner, content, "")
        check_table(owner, content, TOP)
        for command, keys in COMMANDS.items():
            table, where = content.get(command, {}), f"{owner}, [{command}]"
            _check_places(where, table, command)
            check_table(where, table, keys)
            check_percentages(where, table.get("level"))
        for where, table in (
            ("", content),
            *((f", [{name}]", content.get(name, {})) for name in COMMANDS),
        ):
            for key, choices in POLICIES.items():
                if key in table:
                    check_choice(f"{owner}{where}", key, table[key], choices)
        entries = content.get("backtest", {}).get("models", [])
        models = [entries] if isinstance(entries, str) else list(entries)
        for name in models:
            check_choice(f"{owner}, [backtest]", "models", name, forecaster_names())
        self._check_params(models)
        if content.get("tune", {}).get("space") and self._named() in forecaster_names():
            self._check_space()

    def _model(self, entry: str) -> str:
        """Return a name as it is, and the folder of a saved model relative to the recipe."""
        folder = self.path.parent / entry
        return str(folder) if entry not in forecaster_names() and folder.is_dir() else entry

    def _named(self) -> str:
        """Return the model of the recipe, by name."""
        named: str = self.content.get("model", DEFAULT_MODEL)
        return named

    def _check_params(self, compared: list[str]) -> None:
        owner, stated = f"{self.owner}, [params]", self.content.get("params", {})
        named = self._named()
        if named not in forecaster_names():
            if not Path(self._model(named)).is_dir():
                check_choice(self.owner, "model", named, forecaster_names())
            if stated:
                raise ParameterError(
                    f"{owner}: parameters are for a model that is named, {named!r} is fitted"
                )
            return
        # What the model of the recipe does not have would be passed over by all its commands.
        models = [named] if "model" in self.content or not compared else compared
        parameter_names = [key for name in models for key in _parameters(name)]
        own = [
            name
            for name in stated
            if isinstance(stated[name], dict) and name not in parameter_names
        ]
        for model in own:
            check_choice(owner, "model", model, forecaster_names())
            _check_names(f"{owner}, {model}", stated[model], _parameters(model))
        for name in stated:
            others = [other for other in compared if name in _parameters(other)]
            if name not in parameter_names and name not in own and others:
                raise ParameterError(
                    f"{owner}: {name!r} is no parameter of {', '.join(models)}; write it in "
                    f"[params.{others[0]}]"
                )
        shared = {name: stated[name] for name in stated if name not in own}
        _check_names(f"{owner} of {', '.join(models)}", shared, parameter_names)
        for model in dict.fromkeys([*models, *own]):
            params = self.params(model)
            if not params:
                continue
            try:
                check_parameters(forecaster_class(model)().set_params(**params))
            except ParameterError as error:
                raise ParameterError(f"{owner}: {error}") from None

    def _check_space(self) -> None:
        named = self._named()
        space = self.space(named)
        owner = f"{self.owner}, [tune.space]"
        first = {name: entry[0] for name, entry in space.items()}
        _check_names(owner, first, list(forecaster_class(named)().get_params(deep=True)))
        try:
            Space(forecaster_class(named)(), space)
        except ParameterError as error:
            raise ParameterError(f"{owner}: {error}") from None


def load_file_recipe(path: Path) -> FileRecipe:
    """Read a recipe for a file of one's own.

    Parameters
    ----------
    path : pathlib.Path
        TOML.

    Raises
    ------
    DataError
        There is no such file, or it is no TOML.
    ParameterError
        A key is unknown or in the wrong table, or a value is none that it may have.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tsar.cli.file_recipes import load_file_recipe
    >>> text = 'data = "shop.csv"\\nhorizon = 7\\n[tune.space]\\ndropout = { low = 0, high = 0.5 }'
    >>> _ = Path("shop.toml").write_text(text)
    >>> recipe = load_file_recipe(Path("shop.toml"))
    >>> recipe.options("forecast")
    {'data': 'shop.csv', 'horizon': 7}
    >>> recipe.space("PatchTST")
    {'dropout': (0, 0.5)}
    """
    recipe = FileRecipe(path, read_toml(path, f"recipe {path}"))
    recipe.check()
    return recipe


def as_params_table(params: Mapping[str, Any]) -> str:
    """Write parameters as the table ``[params]`` of a recipe.

    Parameters
    ----------
    params : mapping of str to value
    """
    texts = {key: repr(one) if isinstance(one, Storable) else one for key, one in params.items()}
    return "\n".join(["[params]", *(f"{name} = {as_toml(texts[name])}" for name in texts)])


def _typed(cls: type[Any], name: str, value: Any) -> Any:
    """Read a value as ``--set`` does: lists as tuples, objects from text, and "none" as None."""
    plain = parse_object(cls, name, value) if isinstance(value, str) else value
    plain = _plain(plain)
    return plain if admits(cls, name, plain) else value


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return None if isinstance(value, str) and value.lower() == "none" else value


def _check_names(owner: str, stated: Mapping[str, Any], names: list[str]) -> None:
    """Check names of parameters; those that have a key of their own are no parameters here."""
    for name in stated:
        if name in OWN_KEYS:
            raise ParameterError(
                f"{owner}: {name} is the key {OWN_KEYS[name]!r} before the first table; write it "
                f"there"
            )
        left = [name for name in dict.fromkeys(names) if name not in OWN_KEYS]
        check_names(owner, {name: stated[name]}, left)


def _parameters(model: str) -> list[str]:
    return list(forecaster_class(model)().get_params(deep=False))


def _check_places(owner: str, table: Mapping[str, Any], here: str) -> None:
    """Say where a key belongs that is in the wrong table; what follows a [table] is in it."""
    allowed = COMMANDS[here] if here else TOP
    parameters = {name for model in forecaster_names() for name in _parameters(model)}
    for key in table:
        if key in allowed:
            continue
        places = [f"[{command}]" for command, keys in COMMANDS.items() if key in keys]
        places = places or ["[params]"] * (key in parameters and key not in TOP)
        places += ["the top, before the first table"] if here and key in TOP else []
        if places:
            raise ParameterError(f"{owner}: {key!r} belongs to {' or '.join(places)}; move it")
