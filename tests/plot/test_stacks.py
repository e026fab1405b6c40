"""Figures of what stacks do inside: the numbers that are drawn, and labels."""

import numpy as np
import pytest
import torch

from tsar import plot
from tsar.exceptions import DataError


def test_a_map_holds_the_matrix_and_its_labels():
    matrix = torch.tensor([[1.0, 0.0], [0.25, 0.75]], requires_grad=True)
    ax = plot.attention_map(matrix, tokens=["a", "b$c"])
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), matrix.detach())
    assert image.get_clim() == (0.0, 1.0)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", r"b\$c"]


def test_signs_are_two_colours_around_zero():
    (image,) = plot.attention_map(np.array([[-2.0, 0.0], [1.0, 0.5]])).images
    assert image.get_clim() == (-2.0, 2.0) and image.get_cmap().name == "RdBu_r"


def test_heads_are_columns_counted_from_one():
    values = np.arange(6.0).reshape(2, 3)
    ax = plot.by_head(values, label="share of the first token")
    np.testing.assert_array_equal(ax.images[0].get_array(), values)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "3"]
    assert ax.images[0].colorbar.ax.get_ylabel() == "share of the first token"


def test_depth_is_drawn_as_a_mean():
    curves = {"pure": np.array([[1.0, 3.0], [0.1, 0.3]]), "whole": np.ones((2, 2))}
    ax = plot.by_depth(curves)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [2.0, 0.2])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["pure", "whole"]


@pytest.mark.parametrize(
    "draw, words",
    [
        (lambda: plot.attention_map(np.ones((2, 3))), r"must be square, got \(2, 3\)"),
        (lambda: plot.attention_map(np.ones((1, 2, 2))), "with 2 axes"),
        (lambda: plot.attention_map(np.ones((2, 2)), tokens=["a"]), "must be 2 labels, got 1"),
        (lambda: plot.attention_map([[np.nan]]), "finite"),
        (lambda: plot.by_head([1.0, 2.0]), "values must be finite numbers with 2 axes"),
        (lambda: plot.by_depth({}), "must map a name"),
        (lambda: plot.by_depth({"x": np.zeros((0, 3))}), "x must be finite numbers"),
    ],
)
def test_what_cannot_be_drawn(draw, words):
    with pytest.raises(DataError, match=words):
        draw()
