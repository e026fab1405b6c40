"""Axes to draw on, from matplotlib where it is installed."""

from typing import Any

import numpy as np

from tsar.exceptions import MissingExtraError, ParameterError

__all__ = ["axes_or_new", "grid_or_new"]


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
    given = np.array(axes, dtype=object).reshape(-1)
    if len(given) != shape[0] * shape[1]:
        raise ParameterError(
            f"{owner}: axes must be {shape[0] * shape[1]} axes, got {len(given)}; "
            f"figure.subplots({shape[0]}, {shape[1]}) makes them"
        )
    for ax in given:
        _check_axes(owner, "axes", ax)
    return given.reshape(shape)


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
