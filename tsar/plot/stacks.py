"""Figures of what stacks of blocks do inside, see :mod:`tsar.core.inspection`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tsar.exceptions import DataError
from tsar.plot.axes import axes_or_new
from tsar.plot.drawing import add_legend, written

__all__ = ["attention_map", "by_depth", "by_head"]

# More labels than this cannot be read beside a figure of the usual size.
LABELS = 40


def attention_map(matrix: Any, *, tokens: Sequence[str] | None = None, ax: Any = None) -> Any:
    """Draw what each token takes of each: attention, a rollout, or the matrix of a recurrence.

    Parameters
    ----------
    matrix : array or Tensor of shape (L, L)
        Row t is what token t takes. Where something is negative, red and blue are the two signs.
    tokens : sequence of str, optional
        A label for each token.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    DataError
        The matrix is not square, or has another number of tokens.
    """
    owner = "plot.attention_map"
    values = _numbers(owner, "matrix", matrix, 2)
    if values.shape[0] != values.shape[1]:
        raise DataError(
            f"{owner}: matrix must be square, got {values.shape}; take one window and head of it, "
            f"as in weights[0, 0]"
        )
    if tokens is not None and len(tokens) != len(values):
        raise DataError(f"{owner}: tokens must be {len(values)} labels, got {len(tokens)}")
    ax = axes_or_new(owner, ax, size=(5.5, 5))
    signed = values.min() < 0
    largest = max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
    image = ax.imshow(
        values,
        cmap="RdBu_r" if signed else "Blues",
        vmin=-largest if signed else 0.0,
        vmax=largest,
        interpolation="nearest",
    )
    ax.figure.colorbar(image, ax=ax, shrink=0.8)
    if tokens is not None and len(tokens) <= LABELS:
        labels = [written(token) for token in tokens]
        ax.set_xticks(range(len(labels)), labels, rotation=90)
        ax.set_yticks(range(len(labels)), labels)
    ax.set_xlabel("token that is read")
    ax.set_ylabel("token that reads")
    return ax


def by_head(values: Any, *, label: str = "importance", ax: Any = None) -> Any:
    """Draw a number of each head of each layer.

    Parameters
    ----------
    values : array or Tensor of shape (n_layers, n_heads)
        Such as :func:`~tsar.core.inspection.head_importance` and
        :func:`~tsar.core.inspection.sink_shares` return.
    label : str
        What the numbers are.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    DataError
        ``values`` have another shape.
    """
    owner = "plot.by_head"
    numbers = _numbers(owner, "values", values, 2)
    n_layers, n_heads = numbers.shape
    ax = axes_or_new(owner, ax, size=(2 + 0.7 * n_heads, 1.5 + 0.5 * n_layers))
    image = ax.imshow(numbers, cmap="Blues", vmin=min(0.0, float(numbers.min())), aspect="auto")
    ax.figure.colorbar(image, ax=ax, label=label)
    ax.set_xticks(range(n_heads), range(1, n_heads + 1))
    ax.set_yticks(range(n_layers), range(1, n_layers + 1))
    ax.set_xlabel("head")
    ax.set_ylabel("layer")
    return ax


def by_depth(residuals: Mapping[str, Any], *, ax: Any = None) -> Any:
    """Draw how far tokens are from being alike, before the first block and after each.

    Parameters
    ----------
    residuals : mapping of str to array or Tensor of shape (n_blocks + 1, B)
        What :func:`~tsar.core.inspection.residuals_by_depth` returned, by a name for the legend;
        the mean over sequences is drawn.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    DataError
        There are none, or they have another shape.
    """
    owner = "plot.by_depth"
    if not isinstance(residuals, Mapping) or not residuals:
        raise DataError(
            f"{owner}: residuals must map a name to what residuals_by_depth returned, got "
            f"{type(residuals).__name__}"
        )
    curves = {name: _numbers(owner, str(name), held, 2) for name, held in residuals.items()}
    ax = axes_or_new(owner, ax)
    for place, (name, curve) in enumerate(curves.items()):
        depth = np.arange(len(curve))
        ax.plot(depth, curve.mean(axis=1), "o-", markersize=3, color=f"C{place}", label=name)
    ax.set_yscale("log")
    ax.set_xlabel("blocks")
    ax.set_ylabel("distance from equal tokens")
    add_legend(ax)
    return ax


def _numbers(owner: str, name: str, values: Any, n_axes: int) -> np.ndarray:
    detached = values.detach().cpu() if hasattr(values, "detach") else values
    numbers = np.asarray(detached, dtype=np.float64)
    if numbers.ndim != n_axes or not numbers.size or not np.isfinite(numbers).all():
        raise DataError(
            f"{owner}: {name} must be finite numbers with {n_axes} axes, got the shape "
            f"{numbers.shape}"
        )
    return numbers
