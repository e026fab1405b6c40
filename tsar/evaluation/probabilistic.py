"""Scores of quantiles, intervals and samples, as plain functions on arrays.

Entries that the truth does not know (NaN) are left out, as in :mod:`tsar.evaluation.metrics`;
of what is scored jointly, a vector with one unknown entry is left out as a whole. Smaller
scores are better. Dimension letters: M samples, D entries of a joint forecast, Q quantiles.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsar.evaluation.metrics import check_pair, mean_known, mean_scaled
from tsar.exceptions import DataError, ParameterError

__all__ = [
    "coverage",
    "crps",
    "crps_from_quantiles",
    "energy_score",
    "energy_scores",
    "interval_score",
    "interval_width",
    "pit",
    "quantile_loss",
    "scaled_quantile_loss",
    "variogram_score",
    "variogram_scores",
]

Floats = NDArray[np.float64]


def quantile_loss(
    truth: ArrayLike,
    forecast: ArrayLike,
    quantiles: float | Sequence[float],
    *,
    weights: ArrayLike | None = None,
) -> float:
    r"""Quantile (pinball) loss, averaged over entries and levels.

    .. math:: \max(\tau (y - \hat y), (\tau - 1) (y - \hat y))

    Parameters
    ----------
    truth : array_like of any shape
        NaN marks what was not observed.
    forecast : array_like of the shape of ``truth``, with a last axis Q for several levels
        Forecasts of the quantiles.
    quantiles : float or sequence of float of length Q
        Their levels, in (0, 1).
    weights : array_like or None
        How much each entry of the truth counts.

    Returns
    -------
    float
        NaN where nothing was observed. For the level 0.5 it is half of the absolute error.

    Raises
    ------
    DataError, ParameterError
        If the shapes do not fit, or a level is outside (0, 1).

    References
    ----------
    R. Koenker and G. Bassett, "Regression quantiles", Econometrica 46(1), 1978, eq. 2.1.

    Examples
    --------
    >>> from tsar.evaluation import quantile_loss
    >>> quantile_loss([10.0], [[8.0, 11.0]], [0.1, 0.9])
    0.15
    """
    losses = _pinball("quantile_loss", truth, forecast, quantiles)
    return mean_known("quantile_loss", _floats(truth), losses.mean(axis=-1), weights)


def scaled_quantile_loss(
    truth: ArrayLike,
    forecast: ArrayLike,
    quantiles: float | Sequence[float],
    history: ArrayLike,
    season_length: int = 1,
    *,
    weights: ArrayLike | None = None,
) -> float:
    """Quantile loss in units of the mean absolute seasonal change of the history.

    The quantile error of the M5 competition, which takes a season of 1.

    Parameters
    ----------
    truth : array_like of shape (horizon,) or (horizon, n_variates)
        NaN marks what was not observed.
    forecast : array_like of the shape of ``truth``, with a last axis Q for several levels
        Forecasts of the quantiles.
    quantiles : float or sequence of float of length Q
        Their levels, in (0, 1).
    history : array_like of shape (n_steps,) or (n_steps, n_variates)
        What was known before the forecast; pairs with NaN are left out.
    season_length : int
        Steps in a season.
    weights : array_like or None
        How much each entry of the truth counts within its variate.

    Returns
    -------
    float
        Averaged over the variates that have a scale, as in :func:`mase`.

    Raises
    ------
    DataError, ParameterError
        If the shapes do not fit, or a level is outside (0, 1).

    References
    ----------
    S. Makridakis et al., "The M5 uncertainty competition: Results, findings and
    conclusions", International Journal of Forecasting 38(4), 2022, eq. 1.
    """
    name = "scaled_quantile_loss"
    losses = _pinball(name, truth, forecast, quantiles).mean(axis=-1)
    return mean_scaled(name, _floats(truth), losses, history, season_length, weights)


def crps_from_quantiles(
    truth: ArrayLike,
    forecast: ArrayLike,
    quantiles: Sequence[float],
    *,
    weights: ArrayLike | None = None,
) -> float:
    """Continuous ranked probability score, approximated from quantiles.

    The score is twice the integral of the quantile loss over all levels; its value here is
    twice the mean over the given ones, which should be spread evenly.

    Parameters
    ----------
    truth : array_like of any shape
        NaN marks what was not observed.
    forecast : array_like of the shape of ``truth`` and a last axis Q
        Forecasts of the quantiles.
    quantiles : sequence of float of length Q
        Their levels, in (0, 1).
    weights : array_like or None
        How much each entry of the truth counts.

    Returns
    -------
    float
        In units of the data.

    Raises
    ------
    DataError, ParameterError
        If the shapes do not fit, or a level is outside (0, 1).

    References
    ----------
    T. Gneiting and R. Ranjan, "Comparing density forecasts using threshold- and
    quantile-weighted scoring rules", Journal of Business and Economic Statistics 29(3),
    2011, eq. 11.
    """
    losses = 2 * _pinball("crps_from_quantiles", truth, forecast, quantiles)
    return mean_known("crps_from_quantiles", _floats(truth), losses.mean(axis=-1), weights)


def crps(truth: ArrayLike, samples: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    r"""Continuous ranked probability score of samples.

    .. math:: \operatorname{E} |X - y| - \tfrac12 \operatorname{E} |X - X'|

    for the empirical distribution of the samples. Of one sample it is the absolute error.

    Parameters
    ----------
    truth : array_like of any shape
        NaN marks what was not observed.
    samples : array_like of the shape of ``truth`` and a last axis M
        Samples of every entry.
    weights : array_like or None
        How much each entry of the truth counts.

    Returns
    -------
    float
        In units of the data.

    Raises
    ------
    DataError
        If the shapes do not fit.

    References
    ----------
    T. Gneiting and A. E. Raftery, "Strictly proper scoring rules, prediction, and
    estimation", Journal of the American Statistical Association 102(477), 2007, eq. 21.

    Examples
    --------
    >>> from tsar.evaluation import crps
    >>> crps([1.0], [[0.0, 2.0]])
    0.5
    """
    truth, samples = _with_samples("crps", truth, samples)
    ordered = np.sort(samples, axis=-1)
    count = ordered.shape[-1]
    # In order, the k-th sample is the larger one of k pairs, and the smaller of the others.
    ranks = 2 * np.arange(count) - count + 1
    spread = (ordered * ranks).sum(axis=-1) / count**2
    scores = np.abs(ordered - truth[..., None]).mean(axis=-1) - spread
    return mean_known("crps", truth, scores, weights)


def energy_score(
    truth: ArrayLike, samples: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    r"""Energy score of joint samples, for example of all steps of a horizon.

    .. math:: \operatorname{E} \|X - y\| - \tfrac12 \operatorname{E} \|X - X'\|

    Parameters
    ----------
    truth : array_like of shape (..., D)
        A vector with NaN is left out.
    samples : array_like of shape (..., M, D)
        Joint samples of every vector.
    weights : array_like of shape (...) or None
        How much each vector counts.

    Returns
    -------
    float
        In units of the data.

    Raises
    ------
    DataError
        If the shapes do not fit.

    References
    ----------
    T. Gneiting and A. E. Raftery, "Strictly proper scoring rules, prediction, and
    estimation", Journal of the American Statistical Association 102(477), 2007, eq. 22.
    """
    truth, samples = _with_joint_samples("energy_score", truth, samples)
    scores = energy_scores(truth, samples)
    return mean_known("energy_score", truth.sum(axis=-1), scores, weights)


def energy_scores(truth: Floats, samples: Floats) -> Floats:
    """Return the energy score of each vector (..., D) from samples (..., M, D)."""
    apart = np.linalg.norm(samples - truth[..., None, :], axis=-1).mean(axis=-1)
    spread = np.zeros(truth.shape[:-1])
    # One sample against all others: the memory of all pairs would grow with their square.
    for place in range(samples.shape[-2]):
        spread += np.linalg.norm(samples - samples[..., [place], :], axis=-1).mean(axis=-1)
    return np.asarray(apart - spread / samples.shape[-2] / 2)


def variogram_score(
    truth: ArrayLike,
    samples: ArrayLike,
    *,
    order: float = 0.5,
    weights: ArrayLike | None = None,
) -> float:
    r"""Variogram score of joint samples, which tells whether entries move together.

    .. math:: \sum_{i,j} \left(|y_i - y_j|^p - \operatorname{E} |X_i - X_j|^p\right)^2

    Parameters
    ----------
    truth : array_like of shape (..., D)
        A vector with NaN is left out.
    samples : array_like of shape (..., M, D)
        Joint samples of every vector.
    order : float
        The power p.
    weights : array_like of shape (...) or None
        How much each vector counts.

    Returns
    -------
    float
        Summed over all pairs of entries.

    Raises
    ------
    DataError, ParameterError
        If the shapes do not fit, or the power is not positive.

    References
    ----------
    M. Scheuerer and T. M. Hamill, "Variogram-based proper scoring rules for probabilistic
    forecasts of multivariate quantities", Monthly Weather Review 143(4), 2015, eq. 7.
    """
    if not order > 0:
        raise ParameterError(f"variogram_score: order must be positive, got {order!r}")
    truth, samples = _with_joint_samples("variogram_score", truth, samples)
    scores = variogram_scores(truth, samples, order)
    return mean_known("variogram_score", truth.sum(axis=-1), scores, weights)


def variogram_scores(truth: Floats, samples: Floats, order: float = 0.5) -> Floats:
    """Return the variogram score of each vector (..., D) from samples (..., M, D)."""
    scores = np.zeros(truth.shape[:-1])
    # One entry against all others, for the same reason as above.
    for place in range(truth.shape[-1]):
        seen = np.abs(truth - truth[..., [place]]) ** order
        expected = (np.abs(samples - samples[..., [place]]) ** order).mean(axis=-2)
        scores += np.square(seen - expected).sum(axis=-1)
    return scores


def pit(truth: ArrayLike, samples: ArrayLike) -> Floats:
    """Probability integral transform: where the truth lies among the samples.

    For calibrated forecasts the values are uniform on [0, 1]; a heap at both ends says that
    forecasts are too narrow, one in the middle that they are too wide.

    Parameters
    ----------
    truth : array_like of any shape
        NaN marks what was not observed.
    samples : array_like of the shape of ``truth`` and a last axis M
        Samples of every entry.

    Returns
    -------
    float64 array of the shape of ``truth``
        The share of samples below the truth, and half of those that equal it; NaN where
        the truth is not known.

    Raises
    ------
    DataError
        If the shapes do not fit.

    References
    ----------
    A. P. Dawid, "Present position and potential developments: Some personal views:
    Statistical theory: The prequential approach", Journal of the Royal Statistical
    Society A 147(2), 1984.
    """
    truth, samples = _with_samples("pit", truth, samples)
    below, equal = samples < truth[..., None], samples == truth[..., None]
    values = (below + 0.5 * equal).mean(axis=-1)
    return np.where(np.isnan(truth) | np.isnan(samples).any(axis=-1), np.nan, values)


def coverage(
    truth: ArrayLike, lower: ArrayLike, upper: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Share of the truth that lies within its interval, ends included.

    Parameters
    ----------
    truth, lower, upper : array_like of the same shape
        NaN in ``truth`` marks what was not observed.
    weights : array_like or None
        How much each entry counts.

    Returns
    -------
    float
        Between 0 and 1; NaN where nothing was observed.

    Raises
    ------
    DataError
        If the shapes differ.

    Examples
    --------
    >>> from tsar.evaluation import coverage
    >>> coverage([1.0, 2.0, 3.0, 9.0], [0.0, 0.0, 3.0, 3.0], [2.0, 2.0, 4.0, 4.0])
    0.75
    """
    truth, lower, upper = _interval("coverage", truth, lower, upper)
    inside = np.where(
        np.isnan(lower) | np.isnan(upper), np.nan, (truth >= lower) & (truth <= upper)
    )
    return mean_known("coverage", truth, inside, weights)


def interval_width(
    lower: ArrayLike, upper: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Mean width of intervals.

    Parameters
    ----------
    lower, upper : array_like of the same shape
        Ends of the intervals.
    weights : array_like or None
        How much each interval counts.

    Returns
    -------
    float
        In units of the data.

    Raises
    ------
    DataError
        If the shapes differ.
    """
    lower, upper = check_pair("interval_width", lower, upper)
    return mean_known("interval_width", np.zeros(lower.shape), upper - lower, weights)


def interval_score(
    truth: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    level: float,
    *,
    weights: ArrayLike | None = None,
) -> float:
    r"""Interval (Winkler) score: the width, and a fine for what lies outside.

    .. math:: (u - l) + \tfrac{2}{\alpha} (l - y)_+ + \tfrac{2}{\alpha} (y - u)_+,
              \qquad \alpha = 1 - \text{level} / 100

    Parameters
    ----------
    truth, lower, upper : array_like of the same shape
        NaN in ``truth`` marks what was not observed.
    level : float
        Percentage that the interval is to cover, in (0, 100), as in ``predict``.
    weights : array_like or None
        How much each entry counts.

    Returns
    -------
    float
        In units of the data.

    Raises
    ------
    DataError, ParameterError
        If the shapes differ, or the level is outside (0, 100).

    References
    ----------
    T. Gneiting and A. E. Raftery, "Strictly proper scoring rules, prediction, and
    estimation", Journal of the American Statistical Association 102(477), 2007, eq. 43.

    Examples
    --------
    >>> from tsar.evaluation import interval_score
    >>> interval_score([5.0, 8.0], [4.0, 4.0], [6.0, 6.0], level=80)
    12.0
    """
    truth, lower, upper = _interval("interval_score", truth, lower, upper)
    return mean_known("interval_score", truth, winkler(truth, lower, upper, level), weights)


def winkler(truth: Floats, lower: Floats, upper: Floats, level: float) -> Floats:
    """Return the interval score of each entry."""
    if not 0 < level < 100:
        raise ParameterError(
            f"interval_score: level must be a percentage in (0, 100), such as 80, got {level!r}"
        )
    # A share below one hundred has no exact complement to 1 in binary.
    fine = 200 / (100 - level)
    outside = np.maximum(lower - truth, 0.0) + np.maximum(truth - upper, 0.0)
    return np.asarray(upper - lower + fine * outside)


def pinball(truth: Floats, forecast: Floats, levels: Floats) -> Floats:
    """Return the quantile loss of each entry; the arguments broadcast."""
    errors = truth - forecast
    return np.maximum(levels * errors, (levels - 1) * errors)


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _pinball(
    name: str, truth: ArrayLike, forecast: ArrayLike, quantiles: float | Sequence[float]
) -> Floats:
    """Return the loss of each entry and level, shape (..., Q)."""
    truth, forecast, levels = _floats(truth), _floats(forecast), _floats(quantiles)
    if levels.ndim > 1 or not levels.size or not ((levels > 0) & (levels < 1)).all():
        raise ParameterError(f"{name}: quantiles must be levels in (0, 1), got {quantiles!r}")
    if levels.ndim == 0 and forecast.shape == truth.shape:
        forecast = forecast[..., None]
    if forecast.shape != (*truth.shape, levels.size):
        raise DataError(
            f"{name}: forecast must have the shape of truth and a last axis of {levels.size} "
            f"quantiles, got {truth.shape} and {forecast.shape}"
        )
    return pinball(truth[..., None], forecast, np.atleast_1d(levels))


def _with_samples(name: str, truth: ArrayLike, samples: ArrayLike) -> tuple[Floats, Floats]:
    truth, samples = _floats(truth), _floats(samples)
    if samples.ndim != truth.ndim + 1 or samples.shape[:-1] != truth.shape or not samples.shape[-1]:
        raise DataError(
            f"{name}: samples must have the shape of truth and a last axis of samples, got "
            f"{truth.shape} and {samples.shape}"
        )
    return truth, samples


def _with_joint_samples(name: str, truth: ArrayLike, samples: ArrayLike) -> tuple[Floats, Floats]:
    truth, samples = _floats(truth), _floats(samples)
    shape = (*samples.shape[:-2], *samples.shape[-1:])
    if (
        truth.ndim < 1
        or samples.ndim != truth.ndim + 1
        or shape != truth.shape
        or 0 in samples.shape[-2:]
    ):
        raise DataError(
            f"{name}: truth must be (..., D) and samples (..., M, D), got {truth.shape} and "
            f"{samples.shape}"
        )
    return truth, samples


def _interval(
    name: str, truth: ArrayLike, lower: ArrayLike, upper: ArrayLike
) -> tuple[Floats, Floats, Floats]:
    truth, lower = check_pair(name, truth, lower)
    return truth, lower, check_pair(name, truth, upper)[1]
