"""Errors of point forecasts, as plain functions on arrays.

Entries that the truth does not know (NaN) are left out. A forecast of NaN where the
truth is known is not: the result is then NaN. Weights say how much an entry counts; they
have the shape of the truth, or one that numpy broadcasts to it.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsar.exceptions import DataError, ParameterError

__all__ = ["corr", "mae", "mape", "mase", "mse", "owa", "rmse", "rmsse", "rse", "smape"]

Floats = NDArray[np.float64]


def mse(truth: ArrayLike, forecast: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Mean squared error.

    Parameters
    ----------
    truth, forecast : array_like of the same shape
        NaN in ``truth`` marks what was not observed.
    weights : array_like or None
        How much each entry counts.

    Returns
    -------
    float
        NaN where nothing was observed.

    Raises
    ------
    DataError
        If the shapes differ; nothing is broadcast.

    Examples
    --------
    >>> from tsar.evaluation import mse
    >>> mse([1.0, float("nan"), 3.0], [1.0, 7.0, 5.0])
    2.0
    """
    truth, forecast = check_pair("mse", truth, forecast)
    return mean_known("mse", truth, (truth - forecast) ** 2, weights)


def mae(truth: ArrayLike, forecast: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Mean absolute error.

    Parameters
    ----------
    truth, forecast : array_like of the same shape
        NaN in ``truth`` marks what was not observed.
    weights : array_like or None
        How much each entry counts.

    Returns
    -------
    float
        NaN where nothing was observed.

    Raises
    ------
    DataError
        If the shapes differ; nothing is broadcast.
    """
    truth, forecast = check_pair("mae", truth, forecast)
    return mean_known("mae", truth, np.abs(truth - forecast), weights)


def rmse(truth: ArrayLike, forecast: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Root of the mean squared error.

    Parameters
    ----------
    truth, forecast : array_like of the same shape
        NaN in ``truth`` marks what was not observed.
    weights : array_like or None
        How much each entry counts.

    Returns
    -------
    float
        NaN where nothing was observed.

    Raises
    ------
    DataError
        If the shapes differ; nothing is broadcast.
    """
    truth, forecast = check_pair("rmse", truth, forecast)
    return float(np.sqrt(mean_known("rmse", truth, (truth - forecast) ** 2, weights)))


def rse(truth: ArrayLike, forecast: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    r"""Root relative squared error: the RMSE in units of how far the truth is from its mean.

    .. math:: \sqrt{\frac{\sum (y - \hat y)^2}{\sum (y - \bar y)^2}}

    All entries count alike, whichever variate they are of, and there is one mean of them.

    Parameters
    ----------
    truth, forecast : array_like of the same shape
        NaN in ``truth`` marks what was not observed.
    weights : array_like or None
        How much each entry counts, in both sums and in the mean.

    Returns
    -------
    float
        0 is best, 1 is as good as the mean of the truth; NaN where the truth does not move.

    Raises
    ------
    DataError
        If the shapes differ; nothing is broadcast.

    References
    ----------
    G. Lai, W.-C. Chang, Y. Yang and H. Liu, "Modeling long- and short-term temporal patterns
    with deep neural networks", SIGIR 2018, section 4.2.

    Examples
    --------
    >>> from tsar.evaluation import rse
    >>> rse([1.0, 3.0], [2.0, 3.0])
    0.7071067811865476
    """
    truth, forecast = check_pair("rse", truth, forecast)
    spread = mean_known(
        "rse", truth, (truth - mean_known("rse", truth, truth, weights)) ** 2, weights
    )
    error = mean_known("rse", truth, (truth - forecast) ** 2, weights)
    return float(np.sqrt(error / spread)) if spread > 0 else float("nan")


def corr(truth: ArrayLike, forecast: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Pearson's correlation of truth and forecast, averaged over the variates.

    It does not see errors of level and of scale; look at :func:`rse` beside it.

    Parameters
    ----------
    truth, forecast : array_like of shape (n,) or (n, n_variates)
        NaN in ``truth`` marks what was not observed.
    weights : array_like or None
        How much each entry counts within its variate.

    Returns
    -------
    float
        1 is best. A variate whose truth does not move is left out; NaN where none is left, or
        where a forecast does not move.

    Raises
    ------
    DataError
        If the shapes differ, or there are more than two axes.

    References
    ----------
    G. Lai, W.-C. Chang, Y. Yang and H. Liu, "Modeling long- and short-term temporal patterns
    with deep neural networks", SIGIR 2018, section 4.2.

    Examples
    --------
    >>> from tsar.evaluation import corr
    >>> round(corr([1.0, 2.0, 3.0], [5.0, 7.0, 9.0]), 9)
    1.0
    """
    truth, forecast = check_pair("corr", truth, forecast)
    if truth.ndim not in (1, 2):
        raise DataError(
            f"corr: truth must be (n,) or (n, n_variates), got {truth.shape}; reshape it so that "
            f"the last axis is the variates"
        )
    counted = None if weights is None else _as_weights("corr", weights, truth.shape)
    correlations = []
    for place in np.ndindex(truth.shape[1:]):
        one = (slice(None), *place)
        true, guess = truth[one], forecast[one]
        weight = None if counted is None else counted[one]
        moved, guessed = (x - mean_known("corr", true, x, weight) for x in (true, guess))
        spread = mean_known("corr", true, moved**2, weight)
        if spread > 0:
            covariance = mean_known("corr", true, moved * guessed, weight)
            product = spread * mean_known("corr", true, guessed**2, weight)
            correlations.append(covariance / np.sqrt(product) if product else np.nan)
    return _mean(np.array(correlations))


def mape(truth: ArrayLike, forecast: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Mean absolute error as a share of the truth.

    It punishes forecasts above the truth more than those below, and says nothing where the
    truth comes near zero; see :func:`mase`.

    Parameters
    ----------
    truth, forecast : array_like of the same shape
        NaN in ``truth`` marks what was not observed.
    weights : array_like or None
        How much each entry counts.

    Returns
    -------
    float
        A share, 0.1 for ten percent; infinite if an entry of the truth is zero and its
        forecast is not.

    Raises
    ------
    DataError
        If the shapes differ; nothing is broadcast.

    Examples
    --------
    >>> from tsar.evaluation import mape
    >>> mape([10.0, 20.0], [11.0, 18.0])
    0.1
    """
    truth, forecast = check_pair("mape", truth, forecast)
    return mean_known("mape", truth, relative_errors(truth, forecast), weights)


def smape(truth: ArrayLike, forecast: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    r"""Symmetric mean absolute percentage error, as a share.

    .. math:: \operatorname{mean} \frac{2 |y - \hat y|}{|y| + |\hat y|}

    Parameters
    ----------
    truth, forecast : array_like of the same shape
        NaN in ``truth`` marks what was not observed.
    weights : array_like or None
        How much each entry counts.

    Returns
    -------
    float
        Between 0 and 2; the M4 competition reports a hundred times this. An entry where
        truth and forecast are both zero counts as 0.

    Raises
    ------
    DataError
        If the shapes differ; nothing is broadcast.

    References
    ----------
    S. Makridakis, E. Spiliotis and V. Assimakopoulos, "The M4 Competition: 100,000 time
    series and 61 forecasting methods", International Journal of Forecasting 36(1), 2020,
    section 2.3.
    """
    truth, forecast = check_pair("smape", truth, forecast)
    return mean_known("smape", truth, symmetric_errors(truth, forecast), weights)


def mase(
    truth: ArrayLike,
    forecast: ArrayLike,
    history: ArrayLike,
    season_length: int = 1,
    *,
    weights: ArrayLike | None = None,
) -> float:
    r"""Mean absolute scaled error (Hyndman and Koehler 2006, section 3).

    The absolute error, in units of what the forecast "as one season ago" errs on the
    history on average:

    .. math:: \frac{\operatorname{mean}_h |y_h - \hat y_h|}
                   {\operatorname{mean}_t |y_t - y_{t-m}|}

    Parameters
    ----------
    truth, forecast : array_like of shape (horizon,) or (horizon, n_variates)
        NaN in ``truth`` marks what was not observed.
    history : array_like of shape (n_steps,) or (n_steps, n_variates)
        What was known before the forecast; pairs with NaN are left out.
    season_length : int
        Steps m in a season.
    weights : array_like or None
        How much each entry counts within its variate.

    Returns
    -------
    float
        Averaged over the variates. A variate whose history does not change from season
        to season, or holds no pair of observations, has no scale and is left out; NaN
        where none is left.

    Raises
    ------
    DataError
        If the shapes do not fit, or the history is not longer than a season.

    References
    ----------
    R. J. Hyndman and A. B. Koehler, "Another look at measures of forecast accuracy",
    International Journal of Forecasting 22(4), 2006.

    Examples
    --------
    >>> from tsar.evaluation import mase
    >>> mase([5.0, 6.0], [4.0, 6.0], history=[1.0, 2.0, 3.0, 4.0])
    0.5
    """
    truth, forecast = check_pair("mase", truth, forecast)
    return mean_scaled("mase", truth, np.abs(truth - forecast), history, season_length, weights)


def rmsse(
    truth: ArrayLike,
    forecast: ArrayLike,
    history: ArrayLike,
    season_length: int = 1,
    *,
    weights: ArrayLike | None = None,
) -> float:
    r"""Root mean squared scaled error, the point error of the M5 competition.

    .. math:: \sqrt{\frac{\operatorname{mean}_h (y_h - \hat y_h)^2}
                         {\operatorname{mean}_t (y_t - y_{t-m})^2}}

    Parameters
    ----------
    truth, forecast : array_like of shape (horizon,) or (horizon, n_variates)
        NaN in ``truth`` marks what was not observed.
    history : array_like of shape (n_steps,) or (n_steps, n_variates)
        What was known before the forecast; pairs with NaN are left out.
    season_length : int
        Steps m in a season; the competition takes 1.
    weights : array_like or None
        How much each entry counts within its variate.

    Returns
    -------
    float
        Averaged over the variates that have a scale, as in :func:`mase`.

    Raises
    ------
    DataError
        If the shapes do not fit, or the history is not longer than a season.

    References
    ----------
    S. Makridakis, E. Spiliotis and V. Assimakopoulos, "M5 accuracy competition: Results,
    findings, and conclusions", International Journal of Forecasting 38(4), 2022,
    section 2.3.
    """
    truth, forecast = check_pair("rmsse", truth, forecast)
    errors = (truth - forecast) ** 2
    return mean_scaled("rmsse", truth, errors, history, season_length, weights, squared=True)


def owa(
    truth: ArrayLike,
    forecast: ArrayLike,
    benchmark: ArrayLike,
    history: ArrayLike,
    season_length: int = 1,
    *,
    weights: ArrayLike | None = None,
) -> float:
    """Overall weighted average of the M4 competition.

    The mean of :func:`smape` and of :func:`mase`, each in units of what a benchmark has.

    Parameters
    ----------
    truth, forecast, benchmark : array_like of shape (horizon,) or (horizon, n_variates)
        NaN in ``truth`` marks what was not observed. The competition takes the seasonally
        adjusted naive forecast as its benchmark.
    history : array_like of shape (n_steps,) or (n_steps, n_variates)
        What was known before the forecast.
    season_length : int
        Steps in a season.
    weights : array_like or None
        How much each entry counts.

    Returns
    -------
    float
        1 is as good as the benchmark, less is better.

    Raises
    ------
    DataError
        If the shapes do not fit, or the history is not longer than a season.

    References
    ----------
    S. Makridakis, E. Spiliotis and V. Assimakopoulos, "The M4 Competition: 100,000 time
    series and 61 forecasting methods", International Journal of Forecasting 36(1), 2020,
    section 2.3.
    """
    symmetric, scaled = (
        [
            smape(truth, values, weights=weights),
            mase(truth, values, history, season_length, weights=weights),
        ]
        for values in (forecast, benchmark)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean(np.divide(symmetric, scaled)))


def relative_errors(truth: Floats, forecast: Floats) -> Floats:
    """Return the absolute error of each entry as a share of the truth, 0 where both are 0."""
    errors = np.abs(truth - forecast)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(errors == 0, 0.0, errors / np.abs(truth))


def symmetric_errors(truth: Floats, forecast: Floats) -> Floats:
    """Return twice the absolute error of each entry as a share of both, 0 where both are 0."""
    errors = np.abs(truth - forecast)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(errors == 0, 0.0, 2 * errors / (np.abs(truth) + np.abs(forecast)))


def check_pair(name: str, truth: ArrayLike, forecast: ArrayLike) -> tuple[Floats, Floats]:
    """Return both as float64 arrays of one shape."""
    truth, forecast = (np.asarray(values, dtype=np.float64) for values in (truth, forecast))
    if truth.shape != forecast.shape:
        raise DataError(
            f"{name}: truth and forecast must have one shape, got {truth.shape} and "
            f"{forecast.shape}"
        )
    return truth, forecast


def mean_known(name: str, truth: Floats, losses: Floats, weights: ArrayLike | None = None) -> float:
    """Average the losses of shape ``truth.shape`` where the truth is known; NaN of nothing."""
    observed = ~np.isnan(truth)
    if weights is None:
        return _mean(losses[observed])
    counted = _as_weights(name, weights, truth.shape)[observed]
    total = counted.sum()
    # What counts nothing does so even where it is infinite or missing.
    losses = np.where(counted > 0, losses[observed], 0.0)
    return float((losses * counted).sum() / total) if total > 0 else float("nan")


def _as_weights(name: str, weights: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """Return weights of a shape, or raise a :class:`DataError`."""
    weight = np.asarray(weights, dtype=np.float64)
    try:
        weight = np.broadcast_to(weight, shape)
    except ValueError:
        raise DataError(
            f"{name}: weights must have the shape of truth, {shape}, or one that broadcasts to "
            f"it, got {weight.shape}"
        ) from None
    if weight.size and not (np.isfinite(weight).all() and weight.min() >= 0):
        raise DataError(f"{name}: weights must be finite and not negative, got {weights!r}")
    return weight


def mean_scaled(
    name: str,
    truth: Floats,
    losses: Floats,
    history: ArrayLike,
    season_length: int,
    weights: ArrayLike | None,
    squared: bool = False,
) -> float:
    """Average losses by variate in units of the seasonal changes, then over the variates.

    Squared losses are in units of the squared changes, and their root is averaged.
    """
    values = np.asarray(history, dtype=np.float64)
    if truth.ndim not in (1, 2) or values.shape[1:] != truth.shape[1:]:
        raise DataError(
            f"{name}: truth must be (horizon,) or (horizon, n_variates) and history alike, "
            f"got {truth.shape} and {values.shape}"
        )
    if isinstance(season_length, bool) or not isinstance(season_length, int | np.integer):
        raise ParameterError(f"{name}: season_length must be an integer, got {season_length!r}")
    if not 0 < season_length < len(values):
        raise DataError(
            f"{name}: history has {len(values)} steps, season_length={season_length} needs "
            f"at least {season_length + 1}"
        )
    changes = np.abs(values[season_length:] - values[:-season_length])
    counted = None if weights is None else _as_weights(name, weights, truth.shape)
    scaled = []
    for place in np.ndindex(truth.shape[1:]):
        one = (slice(None), *place)
        change = changes[one][~np.isnan(changes[one])]
        scale = _mean(change**2 if squared else change)
        loss = mean_known(name, truth[one], losses[one], None if counted is None else counted[one])
        used = ~np.isnan(truth[one]) & (True if counted is None else counted[one] > 0)
        if scale > 0 and used.any():
            scaled.append(np.sqrt(loss / scale) if squared else loss / scale)
    return _mean(np.array(scaled))


def _mean(values: Floats) -> float:
    """Average; NaN, without a warning, of nothing."""
    return float(values.mean()) if values.size else float("nan")
