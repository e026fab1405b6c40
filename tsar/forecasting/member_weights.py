"""Weights of the members of a combined forecast, learned from forecasts of what is known.

Dimension letters: n forecasts of single values, M members.
"""

import numpy as np

__all__ = ["inverse_error_weights", "selection_weights", "stacking_weights"]

# How much a sum other than one costs in the least squares problem of stacking.
SUM_PRICE = 1e3
# Picks of the selection: a weight is a multiple of one part in so many at least.
MOST_PICKS = 50


def inverse_error_weights(forecasts: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return weights in inverse proportion to the mean absolute errors; they sum to one.

    Parameters
    ----------
    forecasts : float array of shape (n, M)
    truth : float array of shape (n,)

    Returns
    -------
    float64 array of shape (M,)
    """
    errors = np.abs(forecasts - truth[:, None]).mean(axis=0)
    # Members without any error share everything.
    weights = (errors == 0).astype(np.float64) if (errors == 0).any() else 1.0 / errors
    return weights / weights.sum()


def stacking_weights(forecasts: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the weights, none negative and one in sum, of the least squared error.

    Parameters
    ----------
    forecasts : float array of shape (n, M)
    truth : float array of shape (n,)

    Returns
    -------
    float64 array of shape (M,)

    References
    ----------
    Breiman, "Stacked regressions", Machine Learning 24 (1996), section 2; solved by
    ``scipy.optimize.nnls`` with a row that prices a sum other than one.
    """
    from scipy.optimize import nnls

    # With weights that sum to one, a level that all have in common does not matter.
    level = truth.mean()
    matrix, target = forecasts - level, truth - level
    unit = float(np.abs(matrix).max())
    if unit == 0:
        return np.full(matrix.shape[1], 1.0 / matrix.shape[1])
    matrix = np.concatenate([matrix / unit, np.full((1, matrix.shape[1]), SUM_PRICE)])
    weights, _ = nnls(matrix, np.append(target / unit, SUM_PRICE))
    return np.asarray(weights / weights.sum())


def selection_weights(
    forecasts: np.ndarray, truth: np.ndarray, counts: np.ndarray | None = None
) -> np.ndarray:
    """Return the weights of an ensemble selection with replacement; they sum to one.

    Beginning with the best member, the one is added, again and again, whose addition to the mean
    of those that were added before leaves the least absolute error. The shortest such list with
    the least error counts; a member has the share of it that is its own.

    Parameters
    ----------
    forecasts : float array of shape (n, M)
    truth : float array of shape (n,)
    counts : float array of shape (n,), optional
        How much each error counts; None counts all alike.

    Returns
    -------
    float64 array of shape (M,)

    References
    ----------
    Caruana et al., "Ensemble selection from libraries of models", ICML 2004, section 2.
    """
    counts = np.ones(len(truth)) if counts is None else counts
    total = np.zeros(len(truth))
    picks: list[int] = []
    least, best = np.inf, 1
    for number in range(1, MOST_PICKS + 1):
        errors = np.abs((total[:, None] + forecasts) / number - truth[:, None])
        means = counts @ errors / counts.sum()
        pick = int(means.argmin())
        picks.append(pick)
        total += forecasts[:, pick]
        # Rounding alone is no gain.
        if means[pick] < least * (1 - 1e-9):
            least, best = float(means[pick]), number
    chosen = np.bincount(picks[:best], minlength=forecasts.shape[1])
    return np.asarray(chosen / best)
