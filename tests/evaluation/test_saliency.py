"""Scores of attributions, against loops over thresholds and against a count by hand."""

import math

import numpy as np
import pytest

from tsar.evaluation import aup, aur, mask_entropy, mask_information
from tsar.exceptions import DataError


def _by_loop(truth, attribution):
    """Return both areas: each sample in [0, 1], then every threshold that occurs."""
    scaled = []
    for sample in attribution:
        low, high = sample.min(), sample.max()
        scaled += [(value - low) / (high - low + 1e-5) for value in sample.ravel()]
    marks = [bool(mark) for sample in truth for mark in sample.ravel()]
    precision, recall, thresholds = [], [], sorted(set(scaled))
    for threshold in thresholds:
        hits = [mark for value, mark in zip(scaled, marks, strict=True) if value >= threshold]
        precision.append(sum(hits) / len(hits))
        recall.append(sum(hits) / sum(marks))
    areas = [0.0, 0.0]
    for step in range(1, len(thresholds)):
        width = thresholds[step] - thresholds[step - 1]
        for number, curve in enumerate((precision, recall)):
            areas[number] += width * (curve[step] + curve[step - 1]) / 2
    return areas


@pytest.mark.parametrize("decimals", [1, 8])
def test_areas_are_those_of_a_loop(decimals):
    rng = np.random.default_rng(0)
    truth = rng.random((3, 7, 5)) < 0.3
    attribution = np.round(rng.normal(size=truth.shape) + 2 * truth, decimals)
    np.testing.assert_allclose(
        [aup(truth, attribution), aur(truth, attribution)], _by_loop(truth, attribution)
    )


def test_areas_counted_by_hand():
    # At 0, 1/2 and 1 there are two of four, one of two and one of one.
    truth, attribution = [[True, False, False, True]], [[4.0, 2.0, 0.0, 0.0]]
    assert aup(truth, attribution) == pytest.approx((0.5 + 0.5) / 4 + (0.5 + 1) / 4, abs=1e-5)
    assert aur(truth, attribution) == pytest.approx((1 + 0.5) / 4 + (0.5 + 0.5) / 4, abs=1e-5)


def test_bits_of_what_is_read():
    truth = np.array([[True, True, False, True], [False, True, True, True]])
    attribution = np.array([[0.0, 1.0, 0.9, 0.25], [0.0, 0.5, 0.5, 1.0]])
    found = attribution[truth] / (1 + 1e-5)
    information = sum(-math.log2(1 - a + 1e-5) if a else abs(math.log2(1 + 1e-5)) for a in found)
    assert mask_information(truth, attribution) == pytest.approx(information)
    # What is decided has next to no entropy, halves have one bit each, a quarter has 0.811.
    assert mask_entropy(truth, attribution) == pytest.approx(2 + 0.8113, abs=2e-3)


@pytest.mark.parametrize("metric", [aup, aur, mask_information, mask_entropy])
def test_attributions_that_are_refused(metric):
    truth = np.ones((2, 3), dtype=bool)
    with pytest.raises(DataError, match=rf"{metric.__name__}: .* got \(2, 3\) and \(2, 4\)"):
        metric(truth, np.ones((2, 4)))
    with pytest.raises(DataError, match="must be finite, got 1 values"):
        metric(truth, [[1.0, np.nan, 0.0], [0.0, 1.0, 2.0]])
    with pytest.raises(DataError, match="must mark entries that are read, got none"):
        metric(~truth, np.ones((2, 3)))
