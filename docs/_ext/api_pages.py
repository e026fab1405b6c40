"""The API pages, by task: every public name stands in one section, or the build fails."""

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tsar

# What users import from; the shortest path to a name is shown.
PACKAGES = [
    "tsar.forecasting",
    "tsar.forecasting.base",
    "tsar.forecasting.fitted.inspection",
    "tsar.forecasting.probabilistic.intervals",
    "tsar.forecasting.local",
    "tsar.forecasting.network",
    "tsar.forecasting.patch_pretraining",
    "tsar.forecasting.variate_groups",
    "tsar.estimator.trained",
    "tsar.data.datasets",
    "tsar.evaluation",
    "tsar.hierarchy",
    "tsar.tuning",
    "tsar.plot",
    "tsar.batch",
    "tsar.monitoring",
    "tsar.checks",
    "tsar",
    "tsar.exceptions",
    "tsar.core.mixers",
    "tsar.core.inspection",
    "tsar.core.decoding",
    "tsar.image",
    "tsar.image.evaluation",
    "tsar.language",
    "tsar.core.state",
    "tsar.training",
]


@dataclass(frozen=True)
class Section:
    """A page of names that serve one task.

    Parameters
    ----------
    slug, title, text : str
        Name of the page, its title, and a sentence on what it is for.
    modules : tuple of str
        Names that these modules or packages define stand here, unless an earlier section has
        them.
    names : tuple of str
        Names that stand here wherever they are defined; they come before those of modules.
    """

    slug: str
    title: str
    text: str
    modules: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


SECTIONS = [
    Section(
        "forecasters",
        "Forecast",
        "The models; :doc:`which one for which data </models>`.",
        names=(*importlib.import_module("tsar.forecasting").__all__, "load_pretrained"),
    ),
    Section(
        "language",
        "Model texts",
        "Language models on the same core; :doc:`how they are used </language>`.",
        ("tsar.language",),
    ),
    Section(
        "image",
        "Model images",
        "Image models on the same core; :doc:`how they are used </image>`.",
        ("tsar.image", "tsar.image.evaluation"),
    ),
    Section(
        "data",
        "Load data",
        "Data sets that come with tsar or are fetched; the panel that frames are read into.",
        ("tsar.data",),
    ),
    Section(
        "backtests",
        "Test and compare models",
        "Forecasts of the past, leaderboards, and whether a difference is more than luck.",
        ("tsar.evaluation.backtesting", "tsar.evaluation.comparison")
        + ("tsar.evaluation.measuring", "tsar.evaluation.significance")
        + ("tsar.evaluation.scaling",),
    ),
    Section(
        "metrics",
        "Measure errors",
        "Metrics of points, quantiles, intervals, samples and attributions, on arrays and frames.",
        ("tsar.evaluation.metrics", "tsar.evaluation.probabilistic", "tsar.evaluation.saliency"),
    ),
    Section(
        "reproducing",
        "Reproduce published numbers",
        "The protocol of the published tables, and recipes.",
        ("tsar.evaluation",),
    ),
    Section(
        "hierarchies",
        "Make sums agree",
        "Forecasts of all levels of a hierarchy that add up.",
        ("tsar.hierarchy",),
    ),
    Section(
        "tuning",
        "Tune parameters, choose inputs",
        "Search with Optuna, in the order of time; which lags and covariates matter.",
        ("tsar.tuning",),
    ),
    Section("figures", "Draw", "Figures of all of these, with matplotlib.", ("tsar.plot",)),
    Section("files", "Forecast files", "Many series, night after night.", ("tsar.batch",)),
    Section(
        "operations",
        "Watch models",
        "Drifts of coverage, errors and inputs; the run manifest is in :doc:`/operations`.",
        ("tsar.monitoring",),
    ),
    Section(
        "saving",
        "Save, load, register",
        "Models on disk, and names for models of your own.",
        ("tsar.persistence", "tsar.registration"),
    ),
    Section(
        "training", "Training", "Losses, optimisers and schedules as objects.", ("tsar.training",)
    ),
    Section("errors", "Errors and warnings", "What tsar raises.", ("tsar.exceptions",)),
    Section(
        "writing",
        "Write a forecaster",
        "Base classes, the checks that every estimator passes, and token mixers.",
        ("tsar.forecasting", "tsar.estimator", "tsar.checks", "tsar.core"),
    ),
]


def public_names() -> dict[str, Any]:
    """Return every public object by its shortest path without ``tsar.``; each object once."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in sorted(module.__all__):
            # By the object: a backtest and the figure of one have the same name.
            thing = getattr(module, name)
            if id(thing) in seen:
                continue
            seen.add(id(thing))
            path = name if name in tsar.__all__ else f"{package}.{name}".removeprefix("tsar.")
            found[path] = (f"{package}.{name}", thing)
    return found


def by_section() -> dict[Section, list[str]]:
    """Return the paths of each section.

    Raises
    ------
    LookupError
        A name belongs to none.
    """
    held: dict[Section, list[str]] = {section: [] for section in SECTIONS}
    for path, (full, thing) in public_names().items():
        # The module of an object such as a registry is that of its class.
        home = thing.__module__ if inspect.isclass(thing) or inspect.isroutine(thing) else full
        for section in SECTIONS:
            inside = any(f"{home}.".startswith(f"{module}.") for module in section.modules)
            if path in section.names or inside:
                held[section].append(path)
                break
        else:
            raise LookupError(f"{full} belongs to no section of the API pages")
    return held


def write_api_pages(folder: Path) -> None:
    """Write the index and a page for each section; autosummary makes a page of each name."""
    index = ["API", "===", "", "What there is, by what it is for. Each name has a page.", ""]
    index += [".. toctree::", "   :hidden:", "", *(f"   {one.slug}" for one in SECTIONS), ""]
    for section, paths in by_section().items():
        links = ", ".join(f":py:obj:`~tsar.{path}`" for path in paths)
        index += [section.title, "-" * len(section.title), "", section.text, ""]
        index += [f":doc:`With a sentence on each <{section.slug}>`: {links}", ""]
        page = [section.title, "=" * len(section.title), "", section.text, ""]
        page += [".. currentmodule:: tsar", "", ".. autosummary::", "   :toctree: ."]
        page += ["   :nosignatures:", "", *(f"   {path}" for path in paths)]
        _write(folder / f"{section.slug}.rst", page)
    _write(folder / "index.rst", index)


def _write(page: Path, lines: list[str]) -> None:
    text = "\n".join([*lines, ""])
    page.parent.mkdir(parents=True, exist_ok=True)
    # An unchanged page is not built again.
    if not page.is_file() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")
