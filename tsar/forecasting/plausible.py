"""How far a forecast may leave its history before it is taken for a failure.

Parameters from too few rows, or from covariates that cannot be told apart, forecast anything: a
recursion grows by a factor with every step. What is possible is not known; how a series moved is.

Dimension letters: n rows, W windows, H horizon, K numbers that describe the covariates of a step.
"""

import numpy as np

__all__ = ["first_beyond"]

# How often as far as the history moved.
SLACK = 2.0
# Shares of the rows between which the range of a third lies: an outlier is no growth.
INNER = (10, 90)
# Rows of which the growth can be told.
FEWEST = 9
# Ranges that a covariate may leave its own by and count: beyond, its effect was never seen.
FARTHEST = 10.0


def first_beyond(
    values: np.ndarray,
    z: np.ndarray,
    x: np.ndarray,
    cutoffs: np.ndarray,
    season: int,
    least: float,
) -> np.ndarray:
    """Return the first step of each window that is beyond what its history allows.

    A forecast of step h may lie outside of the range of the rows before its cutoff by

        2 * max(R, ceil(h / m) * D) * G ** min(h, n) * (1 + X)

    with R their range, m the season, D the largest change of the mean of a season to that of the
    next, G the growth per row of the range (10 % to 90 %) from the first third of the rows to the
    last, of those from the first movement on, 1 where it does not grow; and X by how many of their
    ranges covariates lie outside of theirs, at most ten.

    Parameters
    ----------
    values : float64 array of shape (W, H)
        What is forecast.
    z : float64 array of shape (n,)
        History without missing values, in the same units.
    x : float64 array of shape (n + H at least, K)
        Covariates.
    cutoffs : int64 array of shape (W,)
        First row of each forecast, 1 at least.
    season : int
    least : float
        What R is at least, for a history that did not move yet.

    Returns
    -------
    int64 array of shape (W,)
        H where no step is beyond.
    """
    horizon = values.shape[1]
    top, bottom = np.maximum.accumulate(z)[cutoffs - 1], np.minimum.accumulate(z)[cutoffs - 1]
    size = np.maximum(top - bottom, least)
    outside = np.maximum(values - top[:, None], bottom[:, None] - values)
    first = np.full(len(cutoffs), horizon)
    inside = outside <= SLACK * size[:, None]
    # Most forecasts need no closer look; what is no number does.
    if inside.all():
        return first
    for place in np.flatnonzero(~inside.all(axis=1)):
        cutoff = cutoffs[place]
        reach = _reach(z[:cutoff], size[place], horizon, season)
        reach = reach * (1.0 + _excess(x[:cutoff], x[cutoff : cutoff + horizon]))
        wrong = ~(outside[place] <= reach)
        if wrong.any():
            first[place] = wrong.argmax()
    return first


def _reach(z: np.ndarray, size: float, horizon: int, season: int) -> np.ndarray:
    """Return how far each step may be from the range of the history, shape (H,)."""
    steps = np.arange(1, horizon + 1)
    change = 0.0
    if len(z) >= 2 * season:
        means = np.convolve(z, np.full(season, 1.0 / season), mode="valid")
        change = np.abs(means[season:] - means[:-season]).max()
    spread = np.maximum(size, np.ceil(steps / season) * change)
    return SLACK * spread * _growth(z) ** np.minimum(steps, len(z))


def _growth(z: np.ndarray) -> float:
    """Return by what factor the range of a series grows with a row, 1 at least."""
    # Before its first movement a series says nothing of how it grows.
    z = z[max(int((z != z[0]).argmax()) - 1, 0) :]
    third = len(z) // 3
    if len(z) < FEWEST:
        return 1.0
    early, late = (np.ptp(np.percentile(part, INNER)) for part in (z[:third], z[-third:]))
    if not late > early > 0:
        return 1.0
    return float((late / early) ** (1.0 / (len(z) - third)))


def _excess(before: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Return by how many ranges covariates have left theirs, the most so far, shape (H,)."""
    if not before.shape[1]:
        return np.zeros(len(ahead))
    top, bottom = before.max(axis=0), before.min(axis=0)
    outside = np.maximum(np.maximum(ahead - top, bottom - ahead), 0.0)
    # What has not moved yet leaves its range by one of it, as a step up from 0 to 1 does.
    moved = top > bottom
    excess = np.where(moved, outside / np.where(moved, top - bottom, 1.0), outside > 0)
    most: np.ndarray = np.maximum.accumulate(excess.max(axis=1))
    return np.minimum(most, FARTHEST)
