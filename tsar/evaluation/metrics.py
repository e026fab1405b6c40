"""Errors of point forecasts, as plain functions on arrays.

Entries that the truth does not know (NaN) are left out. A forecast of NaN where the
truth is known is not: the result is then NaN.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsar.exceptions import DataError

__all__ = ["mae", "mase", "mse", "rmse"]


def mse(truth: ArrayLike, forecast: ArrayLike) -> float:
    """Mean squared error.

    Parameters
    ----------
    truth, forecast : array_like of the same shape
        NaN in ``truth`` marks what was not observed.

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
    return _mean(_known_errors("mse", truth, forecast) ** 2)


def mae(truth: ArrayLike, forecast: ArrayLike) -> float:
    """Mean absolute error.

    Parameters
    ----------
    truth, forecast : array_like of the same shape
        NaN in ``truth`` marks what was not observed.

    Returns
    -------
    float
        NaN where nothing was observed.

    Raises
    ------
    DataError
        If the shapes differ; nothing is broadcast.
    """
    return _mean(np.abs(_known_errors("mae", truth, forecast)))


def rmse(truth: ArrayLike, forecast: ArrayLike) -> float:
    """Root of the mean squared error.

    Parameters
    ----------
    truth, forecast : array_like of the same shape
        NaN in ``truth`` marks what was not observed.

    Returns
    -------
    float
        NaN where nothing was observed.

    Raises
    ------
    DataError
        If the shapes differ; nothing is broadcast.
    """
    return float(np.sqrt(_mean(_known_errors("rmse", truth, forecast) ** 2)))


def mase(
    truth: ArrayLike, forecast: ArrayLike, history: ArrayLike, season_length: int = 1
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
    truth, forecast = _pair("mase", truth, forecast)
    known = np.asarray(history, dtype=np.float64)
    if truth.ndim not in (1, 2) or known.shape[1:] != truth.shape[1:]:
        raise DataError(
            f"mase: truth must be (horizon,) or (horizon, n_variates) and history alike, "
            f"got {truth.shape} and {known.shape}"
        )
    if not 0 < season_length < len(known):
        raise DataError(
            f"mase: history has {len(known)} steps, season_length={season_length} needs "
            f"at least {season_length + 1}"
        )
    changes = np.abs(known[season_length:] - known[:-season_length])
    columns = (np.atleast_2d(values.T) for values in (truth, forecast, changes))
    scaled = []
    for true, predicted, change in zip(*columns, strict=True):
        scale = _mean(change[~np.isnan(change)])
        if scale > 0 and not np.isnan(true).all():
            scaled.append(mae(true, predicted) / scale)
    return _mean(np.array(scaled))


def _pair(
    name: str, truth: ArrayLike, forecast: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both as float64 arrays of one shape."""
    truth, forecast = (np.asarray(values, dtype=np.float64) for values in (truth, forecast))
    if truth.shape != forecast.shape:
        raise DataError(
            f"{name}: truth and forecast must have one shape, got {truth.shape} and "
            f"{forecast.shape}"
        )
    return truth, forecast


def _known_errors(name: str, truth: ArrayLike, forecast: ArrayLike) -> NDArray[np.float64]:
    """Return truth - forecast where the truth is known, shape (n_known,)."""
    truth, forecast = _pair(name, truth, forecast)
    return (truth - forecast)[~np.isnan(truth)]


def _mean(values: NDArray[np.float64]) -> float:
    """Average; NaN, without a warning, of nothing."""
    return float(values.mean()) if values.size else float("nan")
