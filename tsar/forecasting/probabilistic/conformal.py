"""Conformal thresholds: how far a truth lies from its forecast, in so many percent of cases.

A score says how badly a forecast missed: the absolute error, or how far the truth lies
outside of a pair of quantiles. An interval of a level reaches as far as the threshold of its
scores.

Dimension letters: T times in their order, H steps.
"""

from collections.abc import Callable, Sequence

import numpy as np

__all__ = [
    "adaptive_thresholds",
    "fewest_scores",
    "interval_scores",
    "pid_thresholds",
    "split_threshold",
]

# Step size of the adaptive levels, and of the tracked threshold in units of the scores' range.
ADAPTIVE_STEP = 0.02
TRACKING_STEP = 0.1
# How many of the last scores are looked back on.
LOOK_BACK = 100


def interval_scores(truth: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return by how much the truth lies outside of an interval, negative inside of it.

    Parameters
    ----------
    truth, low, high : float arrays of one shape
        With both ends at the point forecast, this is the absolute error.

    References
    ----------
    Romano, Patterson and Candès, "Conformalized quantile regression", NeurIPS 2019, eq. 6.
    """
    return np.maximum(low - truth, truth - high)


def fewest_scores(level: float) -> int:
    """Return how many scores a threshold of a level in percent needs to be finite."""
    # The largest of n scores covers n / (n + 1) of the cases.
    return int(np.ceil(level / (100 - level) - 1e-9))


def split_threshold(ordered: np.ndarray, counts: np.ndarray, level: float) -> np.ndarray:
    """Return the threshold of split-conformal intervals.

    The next score is at most this large with a probability of at least ``level`` percent, if
    it could as well have come at any other place among the others.

    Parameters
    ----------
    ordered : float array of shape (M, ...)
        Order statistics of the scores, NaN at the end where there are fewer: all of them, or M
        that are equally far apart in rank.
    counts : int array of shape (...)
        How many scores there were.
    level : float
        In percent.

    Returns
    -------
    float array of shape (...)
        Infinite where there are fewer than :func:`fewest_scores`.

    References
    ----------
    Lei et al., "Distribution-free predictive inference for regression", JASA 113, 2018,
    algorithm 2.
    """
    rank = np.ceil((counts + 1) * level / 100 - 1e-9)
    n_scores = (~np.isnan(ordered)).sum(axis=0)
    place = np.ceil(rank * n_scores / np.maximum(counts, 1) - 1e-9).astype(np.int64)
    threshold = np.take_along_axis(
        ordered, np.clip(place, 1, np.maximum(n_scores, 1))[None] - 1, axis=0
    )
    return np.where(rank <= counts, threshold[0], np.inf)


def adaptive_thresholds(
    scores: np.ndarray,
    level: float,
    *,
    step_size: float = ADAPTIVE_STEP,
    look_back: int = LOOK_BACK,
    delays: Sequence[int] | np.ndarray = (0,),
) -> np.ndarray:
    """Return thresholds by adaptive conformal inference: the level follows the misses.

    The share of misses that is aimed at rises by a little with each hit and falls by more with
    each miss, so that in the long run as many miss as should, whatever happens to the series.
    It may become negative, when the threshold is infinite.

    Parameters
    ----------
    scores : float array of shape (T, ..., H)
        In the order of time; NaN where there is none, which changes nothing.
    level : float
        In percent.
    step_size : float
        By how much the level moves at a miss.
    look_back : int
        How many of the last scores thresholds are taken from.
    delays : int array of shape (H,)
        How much later than the next one the score of each step is known.

    Returns
    -------
    float array of shape (T + 1, ..., H)
        The threshold in force at each time, made of scores known before it; the last one is
        that of the time to come.

    References
    ----------
    Gibbs and Candès, "Adaptive conformal inference under distribution shift", NeurIPS 2021,
    eq. 2; proposition 4.1 bounds the share of misses.
    """
    target = 1 - level / 100
    aimed = np.full(scores.shape[1:], target)

    def threshold(scores_before: np.ndarray, missed: np.ndarray, seen: np.ndarray) -> np.ndarray:
        nonlocal aimed
        aimed = np.where(seen, aimed + step_size * (target - missed), aimed)
        counts = (~np.isnan(scores_before)).sum(axis=0)
        rank = np.ceil(counts * (1 - aimed) - 1e-9).astype(np.int64)
        ordered = np.sort(scores_before, axis=0)
        place = np.clip(rank, 1, np.maximum(counts, 1)) - 1
        ranked = np.take_along_axis(ordered, place[None], axis=0)[0]
        ranked = np.where(rank < 1, -np.inf, ranked)
        return np.where((aimed < 0) | (counts == 0), np.inf, ranked)

    return _in_turn(scores, threshold, look_back, np.asarray(delays))


def pid_thresholds(
    scores: np.ndarray,
    level: float,
    start: np.ndarray | float = 0.0,
    *,
    step_size: float = TRACKING_STEP,
    look_back: int = LOOK_BACK,
    delays: Sequence[int] | np.ndarray = (0,),
) -> np.ndarray:
    """Return thresholds by conformal PID control: the threshold itself follows the misses.

    The proportional part moves the threshold up at a miss and down at a hit; the integral
    part adds what the sum of all misses asks for. There is no third part, which would forecast
    the scores.

    Parameters
    ----------
    scores : float array of shape (T, ..., H)
        In the order of time; NaN where there is none, which changes nothing.
    level : float
        In percent.
    start : float array of shape (..., H) or float
        The first threshold.
    step_size : float
        By how much the threshold moves at a miss, in units of the range of the last scores.
    look_back : int
        How many of the last scores that range is taken from.
    delays : int array of shape (H,)
        How much later than the next one the score of each step is known.

    Returns
    -------
    float array of shape (T + 1, ..., H)
        As :func:`adaptive_thresholds` does, but always finite.

    References
    ----------
    Angelopoulos, Candès and Tibshirani, "Conformal PID control for time series prediction",
    NeurIPS 2023, section 2; the integral part has the tangent of section 2.2, which is held
    at a finite value here.
    """
    target = 1 - level / 100
    tracked = np.broadcast_to(np.asarray(start, dtype=np.float64), scores.shape[1:]).copy()
    excess, count = np.zeros_like(tracked), np.zeros_like(tracked)
    horizon = np.log(max(len(scores), 2))
    saturation = 2 / np.pi * (np.ceil(0.01 * horizon) - 1 / max(horizon, 2.0))

    def threshold(scores_before: np.ndarray, missed: np.ndarray, seen: np.ndarray) -> np.ndarray:
        nonlocal tracked, excess, count
        held = np.where(np.isnan(scores_before), -np.inf, scores_before).max(
            axis=0, initial=-np.inf
        )
        least = np.where(np.isnan(scores_before), np.inf, scores_before).min(axis=0, initial=np.inf)
        extent = np.where(held > least, held - least, np.maximum(np.abs(held), 0.0))
        extent = np.where(np.isfinite(extent), extent, 0.0)
        surplus = np.where(seen, missed - target, 0.0)
        tracked = tracked + step_size * extent * surplus
        excess, count = excess + surplus, count + seen
        turned = excess * np.log(count + 1) / (saturation * (count + 1))
        # The tangent has no value at a right angle, and another sign beyond it.
        limit = 0.95 * np.pi / 2
        return tracked + extent * np.tan(np.clip(turned, -limit, limit)) * (count > 0)

    return _in_turn(scores, threshold, look_back, np.asarray(delays))


def _in_turn(
    scores: np.ndarray,
    threshold: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    look_back: int,
    delays: np.ndarray,
) -> np.ndarray:
    """Go through time, telling ``threshold`` of each score when it is known.

    It is given the last scores (look_back, ..., H), whether the newest one missed, and whether
    there is a newest one.
    """
    n_times = len(scores)
    delays = np.broadcast_to(delays, scores.shape[-1:])
    thresholds = np.empty((n_times + 1, *scores.shape[1:]))
    scores_before = np.full((look_back, *scores.shape[1:]), np.nan)
    steps = np.arange(scores.shape[-1])
    n_known = np.zeros(scores.shape[1:], dtype=np.int64)
    for time in range(n_times + 1):
        # The newest score that is known at this time, for each step.
        newest = time - 1 - delays
        there = np.clip(newest, 0, max(n_times - 1, 0))
        score = np.moveaxis(scores[there, ..., steps], 0, -1) if n_times else np.nan
        score = np.where(newest >= 0, score, np.nan)
        seen = ~np.isnan(score)
        used = np.moveaxis(thresholds[there, ..., steps], 0, -1)
        missed = seen & (score > used)
        place = np.where(seen, n_known % look_back, 0)[None]
        before = np.take_along_axis(scores_before, place, axis=0)
        np.put_along_axis(scores_before, place, np.where(seen, score, before[0])[None], axis=0)
        n_known = n_known + seen
        thresholds[time] = threshold(scores_before, missed.astype(np.float64), seen)
    return thresholds
