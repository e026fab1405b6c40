"""Grids of images: every pixel in its place."""

import numpy as np
import pytest

from tsar import plot
from tsar.exceptions import DataError, ParameterError


def _sheet(ax):
    return np.asarray(ax.images[0].get_array())


@pytest.mark.parametrize("channels", [None, 3])
def test_images_lie_row_by_row(channels):
    shape = (5, 4, 6) if channels is None else (5, 4, 6, channels)
    images = np.random.default_rng(0).random(shape)
    ax = plot.image_grid(images, n_columns=2, titles=["a", 7])
    sheet = _sheet(ax)
    assert sheet.shape[:2] == (3 * 5 - 1, 2 * 7 - 1)
    for number, image in enumerate(images):
        row, column = divmod(number, 2)
        part = sheet[5 * row : 5 * row + 4, 7 * column : 7 * column + 6]
        np.testing.assert_array_equal(part, image)
    assert (sheet[4] == 1).all() and (sheet[10:, 7:] == 1).all()
    assert [text.get_text() for text in ax.texts] == ["a", "7"]


def test_bytes_and_the_default_square():
    images = np.full((9, 4, 4), 255, dtype=np.uint8)
    assert (_sheet(plot.image_grid(images)) == 1).all()
    assert _sheet(plot.image_grid(images)).shape == (14, 14)


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        (np.zeros((4, 4)), {}, DataError, r"images\[None\]"),
        (np.zeros((2, 4, 4, 2)), {}, DataError, "one or three channels"),
        (np.zeros((2, 4, 4)), {"n_columns": 0}, ParameterError, "n_columns"),
        (np.zeros((2, 4, 4)), {"titles": "abc"}, DataError, "titles must be 2"),
    ],
)
def test_what_is_no_grid(images, options, error, message):
    with pytest.raises(error, match=message):
        plot.image_grid(images, **options)
