"""Configuration of the documentation. The API pages follow from each package's ``__all__``."""

import importlib
from pathlib import Path

import tsar

project = "tsar"
author = "the tsar developers"
release = version = tsar.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = f"tsar {release}"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}
html_sidebars = {"**": ["sidebar-nav-bs"], "index": []}
html_show_sourcelink = False

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
autosummary_generate = True
autodoc_typehints = "none"
# scikit-learn adds methods of its own to every estimator; the pages show ours.
numpydoc_show_inherited_class_members = False
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = False

# The sections of the API page. A name is listed in the first section that has it, by the
# shortest path that a user can import it from.
SECTIONS = {
    "tsar.forecasting": "Forecasters",
    "tsar.forecasting.base": "What all forecasters share",
    "tsar.forecasting.fitted.inspection": "A closer look at fitted forecasters",
    "tsar.forecasting.probabilistic.intervals": "Intervals of all forecasters",
    "tsar.forecasting.local": "What all classical forecasters share",
    "tsar.forecasting.network": "What all trained forecasters share",
    "tsar.estimator.trained": "What all trained estimators share",
    "tsar.forecasting.patch_pretraining": "What forecasters that can be pre-trained share",
    "tsar.data.datasets": "Data sets",
    "tsar.evaluation": "Evaluation: backtests, metrics, comparisons, recipes",
    "tsar.hierarchy": "Hierarchies",
    "tsar.tuning": "The search for parameters",
    "tsar.plot": "Figures",
    "tsar.batch": "Forecasts of files",
    "tsar.checks": "Checks for estimators",
    "tsar": "Models on disk and panels",
    "tsar.exceptions": "Errors and warnings",
    "tsar.core.mixers": "Token mixers",
    "tsar.core.state": "What token mixers remember",
    "tsar.training": "Training",
}


def write_api_page() -> None:
    """Write one list of names per section; autosummary makes a page of each name."""
    lines = ["API", "===", ""]
    seen: set[int] = set()
    for module, title in SECTIONS.items():
        found = importlib.import_module(module)
        # By the object: a backtest and the figure of one have the same name.
        names = [name for name in found.__all__ if id(getattr(found, name)) not in seen]
        seen.update(id(getattr(found, name)) for name in names)
        lines += [title, "-" * len(title), "", ".. currentmodule:: tsar", ""]
        lines += [".. autosummary::", "   :toctree: .", "   :nosignatures:", ""]
        for name in sorted(names):
            path = name if name in tsar.__all__ else f"{module}.{name}".removeprefix("tsar.")
            lines.append(f"   {path}")
        lines.append("")
    page = Path(__file__).parent / "api" / "generated" / "index.rst"
    text = "\n".join(lines)
    page.parent.mkdir(parents=True, exist_ok=True)
    if not page.is_file() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def setup(app: object) -> None:
    """Write the API page before Sphinx looks for pages, and so before autosummary does."""
    write_api_page()
