"""Whether values are distributed as those of the training were.

Dimension letters: B bins.
"""

import numpy as np
from numpy.typing import ArrayLike

from tsar.exceptions import ParameterError

__all__ = ["population_stability"]

# An empty bin would make the index infinite.
SMALLEST_SHARE = 1e-4


def population_stability(expected: ArrayLike, actual: ArrayLike) -> float:
    """Return the population stability index of two distributions over the same bins.

    Parameters
    ----------
    expected, actual : array-like of shape (B,)
        Shares of the bins, each with the sum 1; one below 0.0001 is taken for that.

    Returns
    -------
    float
        The sum of ``(actual - expected) * log(actual / expected)``; 0 if they are the same. By
        convention, up to 0.1 is stable, and beyond 0.25 something has changed.

    Raises
    ------
    ParameterError
        They are no shares, or not of the same bins.

    Notes
    -----
    With n independent values from the expected distribution, n times the index has a chi-squared
    distribution with B - 1 degrees of freedom in the limit (Yurdakul, 2018). Values of a series
    are not independent: the convention is what there is.

    References
    ----------
    Siddiqi, "Credit risk scorecards", Wiley 2006; Yurdakul, "Statistical properties of population
    stability index", Western Michigan University 2018.

    Examples
    --------
    >>> from tsar.monitoring import population_stability
    >>> round(population_stability([0.5, 0.5], [0.25, 0.75]), 4)
    0.2747
    """
    shares = [np.asarray(one, dtype=np.float64) for one in (expected, actual)]
    for name, one in zip(("expected", "actual"), shares, strict=True):
        right = one.ndim == 1 and len(one) and (one >= 0).all() and abs(one.sum() - 1) < 1e-6
        if not right or len(one) != len(shares[0]):
            raise ParameterError(
                f"population_stability: {name} must be shares of the same bins with the sum 1, got "
                f"{one!r}; divide counts by their sum"
            )
    old, new = (np.maximum(one, SMALLEST_SHARE) for one in shares)
    return float(((new - old) * np.log(new / old)).sum())
