"""From forecasts of all series to those at the bottom: the methods of reconciliation.

Letters: n nodes, b of them at the bottom, u above it, T errors of each.
"""

import numpy as np

from tsar.exceptions import DataError
from tsar.hierarchy.summing import Hierarchy

__all__ = ["METHODS", "NEED_ERRORS", "covariance_of", "projection", "shrunk_covariance"]

METHODS = ("bottom_up", "ols", "wls_struct", "wls_var", "mint_shrink")
# Those that weigh series by how they were forecast.
NEED_ERRORS = ("wls_var", "mint_shrink")


def projection(hierarchy: Hierarchy, covariance: np.ndarray) -> np.ndarray:
    """Return the map from forecasts of all series to reconciled ones at the bottom.

    With S the summing matrix and W the covariance of the errors of the forecasts it is

        G = (S' W^-1 S)^-1 S' W^-1 = J - J W U (U' W U)^-1 U'

    of which the second form is computed: U' takes what forecasts disagree by, the upper ones
    less the sums of those at the bottom, J takes those at the bottom. W need not be
    invertible, and forecasts that agree stay as they are.

    Parameters
    ----------
    hierarchy : Hierarchy
    covariance : float64 array of shape (n, n), or (n,) of a diagonal one
        In any unit.

    Returns
    -------
    float64 array of shape (b, n)

    References
    ----------
    Wickramasuriya, Athanasopoulos and Hyndman, "Optimal forecast reconciliation for
    hierarchical and grouped time series through trace minimization", JASA 114 (2019),
    equations 8 and 10.
    """
    from scipy.linalg import pinvh

    upper, bottom = hierarchy.upper, hierarchy.bottom
    parts = hierarchy.summing[upper]  # (u, b)
    size = float(np.abs(covariance).max(initial=0.0))
    weights = covariance / size if size > 0 else covariance
    if weights.ndim == 1:
        at_bottom = -weights[bottom, None] * parts.T  # J W U
        apart = np.diag(weights[upper]) - parts @ at_bottom  # U' W U
    else:
        moved = weights[:, upper] - weights[:, bottom] @ parts.T  # W U
        at_bottom = moved[bottom]
        apart = moved[upper] - parts @ at_bottom
    gain = at_bottom @ pinvh((apart + apart.T) / 2)
    matrix = np.zeros((len(bottom), len(hierarchy.labels)))
    matrix[:, upper] = -gain
    matrix[:, bottom] = np.eye(len(bottom)) + gain @ parts
    return matrix


def covariance_of(
    owner: str, hierarchy: Hierarchy, method: str, errors: np.ndarray | None
) -> np.ndarray:
    """Return the covariance of errors that a method supposes.

    Parameters
    ----------
    owner : str
        Who asks, for messages.
    hierarchy : Hierarchy
    method : str
        One of :data:`METHODS`.
    errors : float64 array of shape (T, n) or None
        NaN where one is not known; for the methods that need them.

    Returns
    -------
    float64 array of shape (n, n), or (n,) of a diagonal one

    Raises
    ------
    DataError
        There are too few errors.
    """
    if method == "ols":
        return np.ones(len(hierarchy.labels))
    if method == "wls_struct":
        return hierarchy.summing.sum(axis=1)
    if method == "bottom_up":
        # As if those at the bottom were known: they stay, and the others follow.
        variances = np.ones(len(hierarchy.labels))
        variances[hierarchy.bottom] = 0.0
        return variances
    assert errors is not None, "checked by the caller"
    # Squares of large numbers are none: the unit is that of the largest error.
    size = float(np.nanmax(np.abs(errors), initial=0.0))
    errors = errors / size if size > 0 else errors
    observed = ~np.isnan(errors)
    if method == "wls_var":
        counts = observed.sum(axis=0)
        if not counts.all():
            lacking = hierarchy.ids[int(counts.argmin())]
            raise DataError(
                f"{owner}: method='wls_var' needs an error of every series, {lacking!r} has none; "
                f"pass errors of more rows, or take method='wls_struct'"
            )
        return np.asarray(np.nansum(np.square(errors), axis=0) / counts)
    whole = errors[observed.all(axis=1)]
    if len(whole) < 3:
        raise DataError(
            f"{owner}: method='mint_shrink' needs three times or more at which the errors of all "
            f"series are known, there are {len(whole)}; pass errors of more rows, or take "
            f"method='wls_var'"
        )
    return shrunk_covariance(whole)


def shrunk_covariance(errors: np.ndarray) -> np.ndarray:
    """Return a covariance whose correlations are shrunk towards none.

    The share that is taken off follows from how uncertain the correlations are.

    Parameters
    ----------
    errors : float64 array of shape (T, n)

    Returns
    -------
    float64 array of shape (n, n)

    References
    ----------
    Schäfer and Strimmer, "A shrinkage approach to large-scale covariance matrix estimation and
    implications for functional genomics", Statistical Applications in Genetics and Molecular
    Biology 4 (2005), target D with correlations, as Wickramasuriya et al. 2019 take it.
    """
    n_errors = len(errors)
    centred = errors - errors.mean(axis=0)
    deviation = np.sqrt(np.square(centred).sum(axis=0) / (n_errors - 1))
    z = centred / np.where(deviation > 0, deviation, 1.0)
    product = z.T @ z
    correlation = product / (n_errors - 1)
    spread = np.square(z).T @ np.square(z) - np.square(product) / n_errors
    variance = spread * n_errors / (n_errors - 1) ** 3
    apart = ~np.eye(len(correlation), dtype=bool)
    total = float(np.square(correlation[apart]).sum())
    share = min(max(float(variance[apart].sum()) / total, 0.0), 1.0) if total > 0 else 1.0
    shrunk = np.where(apart, (1 - share) * correlation, 1.0)
    return np.asarray(shrunk * np.outer(deviation, deviation))
