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

# The public packages in the order of the page, with what a reader looks for in each.
PACKAGES = {
    "tsar": "The names for daily use",
    "tsar.forecasting": "Forecasters",
    "tsar.base": "What all forecasters share",
    "tsar.evaluation": "Metrics, published protocols and recipes",
    "tsar.data.datasets": "Data sets",
    "tsar.checks": "Checks for estimators",
    "tsar.exceptions": "Errors and warnings",
    "tsar.core.mixers": "Token mixers",
}


def write_api_page(app: object) -> None:
    """Write one list of names per public package; autosummary makes a page of each name."""
    lines = ["API", "===", ""]
    for name, title in PACKAGES.items():
        public = importlib.import_module(name).__all__
        names = [entry for entry in public if not entry.startswith("__")]
        lines += [title, "-" * len(title), "", f".. currentmodule:: {name}", ""]
        lines += [".. autosummary::", "   :toctree: .", "   :nosignatures:", ""]
        lines += [f"   {entry}" for entry in sorted(names)] + [""]
    folder = Path(__file__).parent / "api" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.rst"
    text = "\n".join(lines)
    if not page.is_file() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def setup(app: object) -> None:
    """Write the API page before autosummary looks for names."""
    app.connect("builder-inited", write_api_page, priority=100)  # type: ignore[attr-defined]
