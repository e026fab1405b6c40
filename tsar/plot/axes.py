"""Axes to draw on, from matplotlib where it is installed."""

from typing import Any

import numpy as np

from tsar.exceptions import MissingExtraError, ParameterError

__all__ = ["axes_or_new", "grid_or_new", "page", "share_times"]

# Of a panel on a page, in inches.
PANEL = (4.0, 2.0)


def axes_or_new(owner: str, ax: Any, *, size: tuple[float, float] = (8, 4)) -> Any:
    """Return the axes that were given, or those of a new figure.

    The figure belongs to no window and no list of open figures: it is neither shown nor kept.

    Parameters
    ----------
    owner : str
        Who draws, for messages.
    ax : matplotlib Axes or None
    size : pair of float
        Width and height of a new figure, in inches.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError
        ``ax`` is something else.
    """
    figure = _figure(owner, size if ax is None else None)
    if ax is None:
        return figure.add_subplot()
    _check_axes(owner, "ax", ax)
    return ax


def grid_or_new(
    owner: str, axes: Any, shape: tuple[int, int], *, size: tuple[float, float] = (9, 6)
) -> Any:
    """Return several axes that were given, or those of a new figure, as an array of a shape.

    Parameters
    ----------
    owner : str
    axes : sequence or array of matplotlib Axes, or None
    shape : pair of int
        Rows and columns.
    size : pair of float

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError
        ``axes`` are others, or another number of them.
    """
    figure = _figure(owner, size if axes is None else None)
    if axes is None:
        return figure.subplots(*shape, squeeze=False)
    grid = np.array(axes, dtype=object).reshape(-1)
    if len(grid) != shape[0] * shape[1]:
        raise ParameterError(
            f"{owner}: axes must be {shape[0] * shape[1]} axes, got {len(grid)}; "
            f"figure.subplots({shape[0]}, {shape[1]}) makes them"
        )
    for ax in grid:
        _check_axes(owner, "axes", ax)
    return grid.reshape(shape)


def page(owner: str, n_panels: int) -> Any:
    """Return the axes of a new figure with so many panels, from the top left, shape (panels,)."""
    n_columns = min(n_panels, 1 if n_panels == 1 else 2 if n_panels <= 4 else 3)
    n_rows = -(-n_panels // n_columns)
    width = 8.0 if n_columns == 1 else PANEL[0] * n_columns
    figure = _figure(owner, (width, 0.8 + PANEL[1] * n_rows + (n_rows == 1)))
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for empty in axes[n_panels:]:
        empty.remove()
    return axes[:n_panels]


def share_times(axes: Any) -> None:
    """Let panels move as one, and write the times below the lowest of each column only."""
    for ax in axes[1:]:
        ax.sharex(axes[0])
    n_columns = axes[0].get_gridspec().ncols
    for ax in axes[:-n_columns]:
        ax.tick_params(labelbottom=False)
        ax.xaxis.get_offset_text().set_visible(False)


def _figure(owner: str, size: tuple[float, float] | None) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(f"{owner} needs matplotlib: pip install 'tsar[plot]'") from None
    return None if size is None else Figure(figsize=size, layout="constrained")


def _check_axes(owner: str, name: str, ax: Any) -> None:
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise ParameterError(
            f"{owner}: {name} must be matplotlib axes or None, got {type(ax).__name__}; "
            f"figure.add_subplot() makes some"
        )
