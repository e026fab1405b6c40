"""Configuration of the documentation. The API pages follow from each package's ``__all__``."""

import sys
from pathlib import Path

import tsar

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from api_pages import write_api_pages  # noqa: E402
from model_table import write_model_table  # noqa: E402

project = "tsar"
author = "the tsar developers"
release = version = tsar.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "class_pages",
]
exclude_patterns = ["_build", "generated"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_title = f"tsar {release}"
html_static_path = ["_static"]
html_css_files = ["tsar.css"]
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
}
# Pages without others below them have nothing to show at the left.
html_sidebars = {"**": ["sidebar-nav-bs"], "index": [], "models": []}
html_show_sourcelink = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
autosummary_generate = True
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
# class_pages lists methods and attributes.
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples" / "gallery"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"plot_",
    "image_scrapers": ("gallery_figures.scrape",),
    "reset_modules": ("gallery_figures.clean",),
    "within_subsection_order": "FileNameSortKey",
    "capture_repr": ("_repr_html_",),
    "thumbnail_size": (420, 260),
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 3600,
    "write_computation_times": False,
    "abort_on_example_error": True,
}


def setup(app: object) -> None:
    """Write what is generated before Sphinx looks for pages, and so before autosummary does."""
    write_api_pages(HERE / "api" / "generated")
    write_model_table(HERE / "generated" / "model_table.md")
