"""Recipes: one TOML per published number, with everything that reproduces it.

A recipe names a model, its parameters and the cells of the published table it stands
for; the numbers themselves, and whether they were computed without the last incomplete
batch, are on the data set's card. Where nothing was published that a model can be held
to, a cell names baselines that have to be beaten; they are measured in the same run.

A recipe with a table ``[data]`` is about a file of one's own: its cells bring the published
numbers themselves, name baselines, or are measured and compared with nothing.
"""

import inspect
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd

from tsar.data.datasets import Borders, DatasetCard, PublishedResult, load_card, load_dataset
from tsar.data.shipped import shipped_file, shipped_names
from tsar.data.toml import check_table, read_toml
from tsar.evaluation.own_data import OwnData
from tsar.evaluation.published import evaluate
from tsar.exceptions import DataError
from tsar.forecasting.registry import forecaster_class
from tsar.params.constraints import Interval
from tsar.params.text import parse_object

__all__ = ["Cell", "Recipe", "Result", "load_recipe", "recipe_names", "run_recipe"]

# What a recipe may say, and what each of its cells.
KEYS = {
    "title": str,
    "model": str,
    "params": dict,
    "pretrain": dict,
    "data": dict,
    "cells": list[dict],
}
SHARED_KEYS = {
    "horizons": list[Annotated[int, Interval(1)]],
    "published": str,
    "baselines": list[str],
    "drop_last": bool,
    "batch_size": Annotated[int, Interval(1)],
    "band": float | dict,
    "one_sided": bool,
}
CELL = {"dataset": str, **SHARED_KEYS}
# Of data of one's own, errors by horizon; "published" says where they are from.
ERROR = Annotated[float, Interval(0)]
OWN_CELL = {**SHARED_KEYS, "mse": ERROR | list[ERROR], "mae": ERROR | list[ERROR]}
METRICS = ("mse", "mae")


@dataclass(frozen=True)
class Cell:
    """One cell of a published table, or a baseline, and how near a run has to come.

    Parameters
    ----------
    dataset : str
        Name of the data set.
    published : PublishedResult
        The cell, from the card of the data set or the recipe; of a baseline, what was
        measured, NaN until then; NaN where nothing was published.
    band : dict of str to float
        Largest difference, by metric: ``"mse"`` and ``"mae"``; empty where there is nothing
        to differ from.
    one_sided : bool
        Whether being below the published error by more than the band is fine too.
    baseline : bool
        Whether ``published`` is a forecaster of tsar that is measured in the same run.
    """

    dataset: str
    published: PublishedResult
    band: dict[str, float]
    one_sided: bool
    baseline: bool = False


@dataclass(frozen=True)
class Recipe:
    """A model with its parameters and the cells it reproduces.

    Parameters
    ----------
    name, title : str
        Name of the file, and in words.
    model : str
        Name of the forecaster.
    params : dict
        Parameters of the forecaster, the horizon left out.
    cells : tuple of Cell
        Run one after the other; those of one horizon share a fresh model.
    pretrain : dict or None
        Parameters that differ while the model is pre-trained on the rows it is then fitted
        on, once for all horizons of a data set, and arguments of ``pretrain``; None fits
        without pre-training.
    data : OwnData or None
        The file that the cells are about; None for data sets with a card.
    """

    name: str
    title: str
    model: str
    params: dict[str, Any]
    cells: tuple[Cell, ...]
    pretrain: dict[str, Any] | None = None
    data: OwnData | None = None


@dataclass(frozen=True)
class Result:
    """One published error, or that of a baseline, beside the one obtained.

    Parameters
    ----------
    cell : Cell
        What was to be reproduced.
    metric : str
        ``"mse"`` or ``"mae"``.
    obtained : float
        Measured on the windows of the protocol.
    n_windows : int
        Number of those windows.
    seconds : float
        For fit and measurement of the cell.
    """

    cell: Cell
    metric: str
    obtained: float
    n_windows: int
    seconds: float

    @property
    def published(self) -> float:
        """The published error, or that of the baseline."""
        value: float = getattr(self.cell.published, self.metric)
        return value

    @property
    def difference(self) -> float:
        """The obtained error less the published one."""
        return self.obtained - self.published

    @property
    def within(self) -> bool:
        """Whether the difference stays in the band of the cell; if it has none, whether it is
        a number."""
        if not self.cell.band:
            return math.isfinite(self.obtained)
        gap = self.difference if self.cell.one_sided else abs(self.difference)
        return gap <= self.cell.band[self.metric]

    @property
    def bound(self) -> str:
        """The band in words."""
        if not self.cell.band:
            return "none"
        return f"{'at most +' if self.cell.one_sided else '+-'}{self.cell.band[self.metric]:g}"


def recipe_names() -> list[str]:
    """List the recipes that come with tsar."""
    return shipped_names("examples/recipes")


def load_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    recipe : str or pathlib.Path
        One of :func:`recipe_names`, or the path of a TOML file.

    Raises
    ------
    ParameterError
        If there is no such recipe, or a key is none of a recipe, with the nearest as a
        suggestion; or a value is of another type.
    DataError
        If a cell is not on the card of its data set, or the file is no recipe.
    """
    path = Path(recipe)
    if path.suffix != ".toml":
        path = shipped_file("examples/recipes", str(recipe), "recipe")
    if not path.is_file():
        raise DataError(f"there is no recipe {str(path)!r}; `tsar reproduce --list` lists them")
    owner = f"recipe {path.stem}"
    content = read_toml(path, owner)
    if "cells" not in content:
        raise DataError(
            f"{owner}: 'cells' is missing, the published numbers; what is done with a file of "
            f"your own is for `tsar forecast --recipe {path}`"
        )
    check_table(owner, content, KEYS)
    data = OwnData.of(owner, content["data"], path.parent) if "data" in content else None
    for group in content["cells"]:
        check_table(owner, group, CELL if data is None else OWN_CELL)
    try:
        return Recipe(
            name=path.stem,
            title=content["title"],
            model=content["model"],
            params=content.get("params", {}),
            cells=tuple(
                cell
                for group in content["cells"]
                for place, horizon in enumerate(group["horizons"])
                for cell in _cells(path.stem, group, horizon, place, data)
            ),
            pretrain=content.get("pretrain"),
            data=data,
        )
    except KeyError as error:
        raise DataError(f"{owner}: {error} is missing") from None


def _cells(
    recipe: str, group: dict[str, Any], horizon: int, place: int, data: OwnData | None
) -> list[Cell]:
    """Read one table of a recipe for one of its horizons."""
    name = group["dataset"] if data is None else data.name
    one_sided = group.get("one_sided", False)
    if data is None and "baselines" not in group:
        published = _published(recipe, load_card(name), group, horizon)
        return [Cell(name, published, _band(recipe, group["band"]), one_sided)]
    unknown = PublishedResult(
        model="",
        horizon=horizon,
        mse=math.nan,
        mae=math.nan,
        context_length=None,
        drop_last=group["drop_last"] if data is None else group.get("drop_last", False),
        batch_size=group.get("batch_size", 32),
        source="measured in the same run",
    )
    cells = []
    has_errors = "mse" in group or "mae" in group
    for key in ("published", "band") if data is not None and not has_errors else ():
        if key in group:
            raise DataError(
                f"recipe {recipe}: {key} is about published errors, which a cell of your own data "
                f"gives as mse and mae; add them, or leave {key} out"
            )
    if data is not None and has_errors:
        mse, mae = (_error(recipe, group, metric, place) for metric in METRICS)
        source = group.get("published", f"recipe {recipe}")
        published = replace(unknown, model=source, source=source, mse=mse, mae=mae)
        cells.append(Cell(name, published, _band(recipe, group["band"]), one_sided))
    cells += [
        Cell(name, replace(unknown, model=model), _band(recipe, 0.0), one_sided=True, baseline=True)
        for model in group.get("baselines", [])
    ]
    return cells or [Cell(name, unknown, {}, one_sided)]


def _error(recipe: str, group: dict[str, Any], metric: str, place: int) -> float:
    """Return a published error of data of one's own at one of the horizons."""
    values, n_horizons = group.get(metric), len(group["horizons"])
    errors: list[Any] = (
        values if isinstance(values, list) else [values] * (1 if n_horizons == 1 else 0)
    )
    if values is None or len(errors) != n_horizons:
        raise DataError(
            f"recipe {recipe}: {metric} must be the published error at each of the horizons "
            f"{group['horizons']}, got {values!r}; both mse and mae are needed, or none"
        )
    return float(errors[place])


def _band(recipe: str, band: Any) -> dict[str, float]:
    """Read the band of both metrics: one number, or a table of two."""
    both = band if isinstance(band, dict) else dict.fromkeys(METRICS, band)
    numbers = all(isinstance(bound, int | float) and bound >= 0 for bound in both.values())
    if set(both) != set(METRICS) or not numbers:
        raise DataError(
            f"recipe {recipe}: band must be a number, or a table such as "
            f"{{ mse = 0.02, mae = 0.01 }}, got {band!r}"
        )
    return {metric: float(both[metric]) for metric in METRICS}


def _published(
    recipe: str, card: DatasetCard, group: dict[str, Any], horizon: int
) -> PublishedResult:
    """Look one cell up on the card."""
    row, drop_last = group["published"], group["drop_last"]
    for cell in card.published:
        if (cell.model, cell.horizon, cell.drop_last) == (row, horizon, drop_last):
            return cell
    raise DataError(
        f"recipe {recipe}: the card of {card.name} has no cell {row}, horizon {horizon}, "
        f"drop_last {str(drop_last).lower()}"
    )


def run_recipe(
    recipe: Recipe, overrides: dict[str, Any] | None = None
) -> Iterator[tuple[Result, Result]]:
    """Fit and measure each cell of a recipe.

    The model is fitted on the training and validation rows, the validation rows being
    what early stopping holds out: they choose the epoch, and the scaler does not see them.

    Parameters
    ----------
    recipe : Recipe
        From :func:`load_recipe`.
    overrides : dict or None
        Parameters to replace, for example ``{"device": "cpu"}``.

    Yields
    ------
    tuple of Result
        MSE and MAE of one cell, as soon as they are known.
    """
    overrides = overrides or {}
    cls = forecaster_class(recipe.model)
    # TOML has no objects: an optimiser with parameters of its own is written as text.
    params = {
        name: parse_object(cls, name, value) if isinstance(value, str) else value
        for name, value in {**recipe.params, **overrides}.items()
    }
    pretrain = None if recipe.pretrain is None else {**recipe.pretrain, **overrides}
    pretrained: dict[str, Any] = {}
    last: Cell | None = None
    own = None if recipe.data is None else recipe.data.load()
    for cell in recipe.cells:
        data = _load(cell.dataset) if own is None else own
        if last is None or not _alike(last, cell):
            errors, seconds = _measure(recipe.model, params, cell, data, pretrain, pretrained)
        last = cell
        if cell.baseline:
            val_errors, _ = _measure(cell.published.model, {}, cell, data)
            measured = replace(cell.published, mse=val_errors["mse"], mae=val_errors["mae"])
            cell = replace(cell, published=measured)
        mse, mae = (
            Result(cell, metric, errors[metric], int(errors["n_windows"]), seconds)
            for metric in METRICS
        )
        yield mse, mae


def _load(dataset: str) -> tuple[pd.DataFrame, Borders]:
    split = load_card(dataset).borders
    assert split is not None, "a card with published results has a split"
    return load_dataset(dataset), split


def _alike(one: Cell, other: Cell) -> bool:
    """Whether one fit and one measurement serve both cells."""
    keys = ("horizon", "drop_last", "batch_size")
    return one.dataset == other.dataset and all(
        getattr(one.published, key) == getattr(other.published, key) for key in keys
    )


def _measure(
    name: str,
    params: dict[str, Any],
    cell: Cell,
    data: tuple[pd.DataFrame, Borders],
    pretrain: dict[str, Any] | None = None,
    pretrained: dict[str, Any] | None = None,
) -> tuple[dict[str, float], float]:
    """Fit a model and measure it by the protocol of a cell; return the seconds as well.

    ``pretrained`` holds the models of earlier cells by data set, and takes up that of this one.
    """
    frame, split = data
    started = time.perf_counter()
    model = forecaster_class(name)(horizon=cell.published.horizon)
    model.set_params(**params)
    if getattr(model, "early_stopping", False) is True:
        model.set_params(early_stopping=split.val_end - split.train_end or False)
    rows = frame.iloc[: split.val_end]
    if pretrain is not None and pretrained is not None:
        for_fit = model.get_params()
        if cell.dataset not in pretrained:
            of_call = inspect.signature(model.pretrain).parameters
            call = {key: value for key, value in pretrain.items() if key in of_call}
            model.set_params(**{key: pretrain[key] for key in pretrain if key not in call})
            pretrained[cell.dataset] = model.pretrain(rows, **call)
        model = pretrained[cell.dataset].set_params(**for_fit)
    model.fit(rows)
    errors = evaluate(
        model,
        frame,
        split,
        drop_last=cell.published.drop_last,
        batch_size=cell.published.batch_size,
    )
    return errors, time.perf_counter() - started
