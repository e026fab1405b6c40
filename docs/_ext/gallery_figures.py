"""The figures of gallery examples: whatever axes or figure a block of code gives a name."""

from pathlib import Path
from typing import Any

import numpy as np
from sphinx_gallery.scrapers import figure_rst

DPI = 110


def figures_in(names: dict[str, Any]) -> list[Any]:
    """Return the figures that variables hold, or that their axes are part of, each once."""
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    found: dict[int, Any] = {}
    for value in names.values():
        first = value.flat[0] if isinstance(value, np.ndarray) and value.size else value
        figure = first.figure if isinstance(first, Axes) else first
        if isinstance(figure, Figure):
            found.setdefault(id(figure), figure)
    return list(found.values())


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the figures that were made since the last block; figures of tsar are not pyplot's."""
    drawn = []
    for figure in figures_in(block_vars["example_globals"]):
        if not getattr(figure, "in_gallery", False):
            path = next(block_vars["image_path_iterator"])
            figure.savefig(path, dpi=DPI)
            figure.in_gallery = True
            drawn.append(path)
    return figure_rst(drawn, gallery_conf["src_dir"]) if drawn else ""


def clean(gallery_conf: dict[str, Any], file_name: str | Path) -> None:
    """Leave nothing to the next example; nothing of tsar is global."""
