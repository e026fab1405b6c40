"""Images side by side."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tsar.exceptions import DataError
from tsar.params.constraints import check_count
from tsar.plot.axes import axes_or_new

__all__ = ["image_grid"]

# Pixels between two images.
BETWEEN = 1


def image_grid(
    images: Any,
    *,
    n_columns: int | None = None,
    titles: Sequence[Any] | None = None,
    ax: Any = None,
) -> Any:
    """Draw images in rows and columns.

    Parameters
    ----------
    images : array-like of shape (n, H, W) or (n, H, W, C)
        uint8, or floats in [0, 1].
    n_columns : int, optional
        As many as make a square by default.
    titles : sequence, optional
        A few letters above each column, such as its label.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    DataError, ParameterError
        These are no images, or there are not as many titles as columns.
    """
    owner = "plot.image_grid"
    held = np.asarray(images)
    if held.ndim not in (3, 4) or not len(held) or (held.ndim == 4 and held.shape[3] not in (1, 3)):
        raise DataError(
            f"{owner}: images must have the shape (n, H, W) or (n, H, W, C) with one or three "
            f"channels, got {held.shape}; a single image is images[None]"
        )
    columns = math.ceil(math.sqrt(len(held))) if n_columns is None else n_columns
    columns = min(check_count(owner, "n_columns", columns), len(held))
    if titles is not None and len(titles) != columns:
        raise DataError(
            f"{owner}: titles must be {columns}, one for each column, got {len(titles)}"
        )
    values = held / 255 if held.dtype == np.uint8 else held.astype(np.float64)
    values = values[..., None] if values.ndim == 3 else values
    n_rows = math.ceil(len(values) / columns)
    height, width = (side + BETWEEN for side in values.shape[1:3])
    sheet = np.ones((n_rows * height - BETWEEN, columns * width - BETWEEN, values.shape[3]))
    for number, image in enumerate(values):
        row, column = divmod(number, columns)
        top, left = row * height, column * width
        sheet[top : top + height - BETWEEN, left : left + width - BETWEEN] = image
    scale = 6 / max(sheet.shape[:2])
    size = (max(sheet.shape[1] * scale, 1.0), max(sheet.shape[0] * scale, 1.0))
    ax = axes_or_new(owner, ax, size=size)
    shown = sheet[..., 0] if sheet.shape[2] == 1 else sheet
    ax.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    for column, title in enumerate(titles or ()):
        center = column * width + (width - BETWEEN) / 2 - 0.5
        ax.text(center, -1, str(title), ha="center", va="bottom", fontsize="small")
    return ax
