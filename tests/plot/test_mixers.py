"""Figures of mixers: the numbers that are drawn, and what cannot be."""

import numpy as np
import pandas as pd
import pytest

from tsar import plot
from tsar.exceptions import DataError, ParameterError

COSTS = pd.DataFrame(
    {
        "mixer": ["one", "one", "two", "two"],
        "length": [64, 8, 8, 64],
        "pass_ms": [4.0, 1.0, 2.0, 3.0],
        "step_ms": [0.5, 0.25, np.nan, np.nan],
        "state": [128.0, 16.0, np.nan, np.nan],
    }
)


def test_costs_are_drawn_over_lengths():
    ax = plot.mixer_costs(COSTS, "pass_ms")
    one, two = ax.lines
    np.testing.assert_array_equal(one.get_xydata(), [[8, 1], [64, 4]])
    np.testing.assert_array_equal(two.get_xydata(), [[8, 2], [64, 3]])
    assert ax.get_xscale() == ax.get_yscale() == "log"
    (only,) = plot.mixer_costs(COSTS).lines  # the other one does not go token by token
    assert only.get_label() == "one"
    (chosen,) = plot.mixer_costs(COSTS, "pass_ms", mixers=["two"]).lines
    assert chosen.get_label() == "two"


def test_losses_are_drawn_over_what_is_asked():
    curve = pd.DataFrame({"tokens": [10, 20], "seconds": [1.0, 3.0], "train_loss": [2.0, 1.5]})
    for over in ("tokens", "seconds"):
        ax = plot.training_losses({"mamba2": curve}, over)
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), curve[[over, "train_loss"]])
        assert ax.get_xlabel() == over


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: plot.mixer_costs(COSTS, "cost"), ParameterError, "value must be one of"),
        (lambda: plot.mixer_costs(COSTS, mixers=["two"]), ParameterError, "mixers"),
        (lambda: plot.mixer_costs(COSTS[:0]), DataError, "no mixer of the table"),
        (lambda: plot.mixer_costs(COSTS[["mixer"]]), DataError, "without 'length'"),
        (lambda: plot.training_losses({}), DataError, "must map a name to a table"),
        (lambda: plot.training_losses({"a": COSTS}), DataError, "no column 'tokens'"),
        (lambda: plot.training_losses({"a": COSTS}, "days"), ParameterError, "over must be one of"),
    ],
)
def test_what_cannot_be_drawn(call, error, words):
    with pytest.raises(error, match=words):
        call()
