"""Conformal thresholds against plain loops, and against what the papers prove."""

import numpy as np
import pytest

from tsar.forecasting.probabilistic.conformal import (
    adaptive_thresholds,
    fewest_scores,
    interval_scores,
    pid_thresholds,
    split_threshold,
)


def _scores(n_times: int = 60, seed: int = 0) -> np.ndarray:
    """Scores (T, 2, 3) that become larger half-way, with some that are missing."""
    rng = np.random.default_rng(seed)
    scores = np.abs(rng.normal(size=(n_times, 2, 3)))
    scores[n_times // 2 :] *= 3
    scores[rng.random(scores.shape) < 0.1] = np.nan
    return scores


def _shifting(n_times: int = 4000) -> np.ndarray:
    """Scores of a series whose noise doubles, rises steadily, and collapses: (T, 1)."""
    scale = np.ones(n_times)
    scale[1000:2000] = 2
    scale[2000:3000] = np.linspace(2, 30, 1000)
    return np.abs(np.random.default_rng(2).normal(size=n_times) * scale)[:, None]


def test_scores_are_the_distance_to_the_interval():
    truth, low, high = np.array([1.0, 4.0, 9.0]), np.array([2.0, 2, 2]), np.array([5.0, 5, 5])
    np.testing.assert_array_equal(interval_scores(truth, low, high), [1, -1, 4])
    np.testing.assert_array_equal(interval_scores(truth, high, high), [4, 1, 4])


@pytest.mark.parametrize("level", [1, 37.5, 50, 80, 90, 95])
@pytest.mark.parametrize("n", [1, 4, 19, 20, 99])
def test_split_threshold_is_the_order_statistic_of_the_paper(level, n):
    scores = np.random.default_rng(n).normal(size=(n, 2, 3))
    found = split_threshold(np.sort(scores, axis=0), np.full((2, 3), n), level)
    # The smallest value that at least (n + 1) * level / 100 of the scores do not exceed.
    for place in np.ndindex(2, 3):
        own = scores[(slice(None), *place)]
        enough = [s for s in own if (own <= s).sum() >= (n + 1) * level / 100 - 1e-9]
        assert found[place] == (min(enough) if enough else np.inf)
    assert np.isfinite(found).all() == (n >= fewest_scores(level))


def test_split_threshold_with_fewer_scores_in_some_places():
    scores = np.sort(np.random.default_rng(0).normal(size=(30, 2)), axis=0)
    scores[20:, 1] = np.nan
    found = split_threshold(scores, np.array([30, 20]), 80)
    assert found[0] == scores[24, 0] and found[1] == scores[16, 1]


def test_order_statistics_that_were_thinned_out_cover_no_less():
    scores = np.sort(np.random.default_rng(0).normal(size=(1000, 1)), axis=0)
    kept = scores[9::10]
    for level in (7, 50, 80, 90.04, 99):
        thin = split_threshold(kept, np.array([1000]), level)
        exact = split_threshold(scores, np.array([1000]), level)
        assert exact <= thin <= scores[min(np.searchsorted(scores[:, 0], exact[0]) + 10, 999)]


@pytest.mark.parametrize("delays", [(0, 0, 0), (0, 1, 2), (5, 0, 2)])
@pytest.mark.parametrize("level", [80, 95])
def test_adaptive_thresholds_are_those_of_the_recursion(delays, level):
    scores = _scores()
    found = adaptive_thresholds(scores, level, step_size=0.03, look_back=17, delays=delays)
    assert found.shape == (61, 2, 3)
    target = 1 - level / 100
    for series, step in np.ndindex(2, 3):
        own, aimed, used = scores[:, series, step], target, []
        for time in range(61):
            newest = time - 1 - delays[step]
            if newest >= 0 and not np.isnan(own[newest]):
                aimed += 0.03 * (target - (own[newest] > used[newest]))
            known = own[: max(newest + 1, 0)]
            known = np.sort(known[~np.isnan(known)][-17:])
            if aimed < 0 or not len(known):
                used.append(np.inf)
            elif aimed >= 1:
                used.append(-np.inf)
            else:
                share = np.arange(1, len(known) + 1) / len(known)
                used.append(known[share >= 1 - aimed - 1e-9][0])
        np.testing.assert_array_equal(found[:, series, step], used)


@pytest.mark.parametrize("level", [80, 90, 95])
@pytest.mark.parametrize("step_size", [0.005, 0.05])
def test_adaptive_coverage_is_within_the_bound_of_the_paper(level, step_size):
    """Proposition 4.1: the share of misses differs by (max(a, 1 - a) + g) / (T * g) at most."""
    scores = _shifting()
    thresholds = adaptive_thresholds(scores, level, step_size=step_size)[:-1]
    target = 1 - level / 100
    for n_times in (300, 1500, 2500, 4000):
        missed = (scores[:n_times] > thresholds[:n_times]).mean()
        bound = (max(target, 1 - target) + step_size) / (n_times * step_size)
        assert abs(missed - target) <= bound
    # A fixed threshold does not come near.
    fixed = np.quantile(scores[:1000], level / 100)
    assert (scores > fixed).mean() > 2 * target


@pytest.mark.parametrize("level", [80, 95])
def test_pid_thresholds_are_those_of_the_recursion(level):
    scores, delays = _scores(), (0, 1, 4)
    found = pid_thresholds(scores, level, 1.5, step_size=0.2, look_back=17, delays=delays)
    target = 1 - level / 100
    saturation = 2 / np.pi * (np.ceil(0.01 * np.log(60)) - 1 / np.log(60))
    for series, step in np.ndindex(2, 3):
        own, tracked, excess, count, used = scores[:, series, step], 1.5, 0.0, 0, []
        for time in range(61):
            newest = time - 1 - delays[step]
            known = own[: max(newest + 1, 0)]
            known = known[~np.isnan(known)][-17:]
            extent = np.ptp(known) if len(known) > 1 else abs(known[0]) if len(known) else 0.0
            if newest >= 0 and not np.isnan(own[newest]):
                surplus = (own[newest] > used[newest]) - target
                tracked += 0.2 * extent * surplus
                excess, count = excess + surplus, count + 1
            angle = excess * np.log(count + 1) / (saturation * (count + 1))
            limit = 0.95 * np.pi / 2
            used.append(tracked + extent * np.tan(np.clip(angle, -limit, limit)))
        np.testing.assert_allclose(found[:, series, step], used, rtol=1e-9)


@pytest.mark.parametrize("level", [80, 90, 95])
def test_pid_covers_in_the_long_run_and_soon_after_a_shift(level):
    scores = _shifting()
    thresholds = pid_thresholds(scores, level)
    assert np.isfinite(thresholds).all()
    missed = scores > thresholds[:-1]
    assert abs(missed.mean() - (1 - level / 100)) < 0.02
    assert abs(missed[1200:2000].mean() - (1 - level / 100)) < 0.04


def test_thresholds_know_nothing_of_later_scores():
    scores = _scores()
    later = scores.copy()
    later[40:] = 1e6
    for function in (adaptive_thresholds, pid_thresholds):
        first, second = (function(s, 90, delays=(0, 1, 3)) for s in (scores, later))
        # The score of time t is known from t + 1 on, those of later steps later.
        np.testing.assert_array_equal(first[:41], second[:41])
        np.testing.assert_array_equal(first[:44, :, 2], second[:44, :, 2])
        assert not np.array_equal(first[44:], second[44:])
