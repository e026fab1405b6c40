"""Whether models differ by more than chance: tests on tables of losses.

A table has a row for each time (or series) and a column for each model; smaller losses are
better. Rows are in the order of time where a test says so. Dimension letters: T rows, M models.
"""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tsar.exceptions import DataError, ParameterError
from tsar.params.constraints import Interval, check_count, check_value

__all__ = [
    "CriticalDifference",
    "Outcome",
    "critical_difference",
    "diebold_mariano",
    "giacomini_white",
    "model_confidence_set",
    "stationary_bootstrap",
]

Floats = NDArray[np.float64]


class Outcome(NamedTuple):
    """What a test of two models found.

    Attributes
    ----------
    statistic : float
        Of :func:`diebold_mariano`, negative where the first model has the smaller loss.
    p_value : float
        How often a difference as large as this comes by chance from models as good as each
        other.
    """

    statistic: float
    p_value: float


def diebold_mariano(losses: ArrayLike, others: ArrayLike, *, overlap: int = 1) -> Outcome:
    r"""Test of Diebold and Mariano, with the correction of Harvey, Leybourne and Newbold.

    The null hypothesis is that both models have the same expected loss. With the mean
    :math:`\bar d` of the differences and their autocovariances :math:`\gamma_k`,

    .. math:: \sqrt{\frac{T + 1 - 2h + h (h - 1) / T}{T}} \cdot
              \frac{\bar d}{\sqrt{(\gamma_0 + 2 \sum_{k=1}^{h-1} \gamma_k) / T}}

    is compared with Student's t of T - 1 degrees of freedom, on both sides. Where the
    variance is not positive, its terms get the weights of Bartlett, which keep it so.

    Parameters
    ----------
    losses, others : array_like of shape (T,)
        In the order of time.
    overlap : int
        h, how many forecasts in a row share a step: the horizon, where every step is a
        cutoff, and 1 where windows do not overlap.

    Returns
    -------
    Outcome
        NaN where there are too few rows.

    Raises
    ------
    DataError, ParameterError
        The losses do not fit together, or the overlap is no number of rows.

    References
    ----------
    F. X. Diebold and R. S. Mariano, "Comparing predictive accuracy", Journal of Business and
    Economic Statistics 13(3), 1995, section 1.1; D. Harvey, S. Leybourne and P. Newbold,
    "Testing the equality of prediction mean squared errors", International Journal of
    Forecasting 13(2), 1997, eq. 9.

    Examples
    --------
    >>> from tsar.evaluation import diebold_mariano
    >>> found = diebold_mariano([1.0, 2.0, 1.0, 2.0, 1.0], [2.0, 2.5, 2.5, 3.0, 1.5])
    >>> round(found.statistic, 2), round(found.p_value, 3)
    (-4.81, 0.009)
    """
    change = _differences("diebold_mariano", losses, others, overlap)
    count = len(change)
    factor = (count + 1 - 2 * overlap + overlap * (overlap - 1) / count) / count
    if count < 2 or overlap >= count or factor <= 0:
        return Outcome(np.nan, np.nan)
    if not change.any():
        return Outcome(0.0, 1.0)
    mean = change.mean()
    apart = change - mean
    covariances = np.array([apart[lag:] @ apart[: count - lag] for lag in range(overlap)]) / count
    weights = np.where(np.arange(overlap) == 0, 1.0, 2.0)
    variance = float(weights @ covariances)
    if variance <= 0:
        variance = float((weights * (1 - np.arange(overlap) / overlap)) @ covariances)
    with np.errstate(divide="ignore"):
        statistic = np.sqrt(factor) * mean / np.sqrt(max(variance, 0.0) / count)
    return Outcome(float(statistic), float(2 * stats.t.sf(abs(statistic), count - 1)))


def giacomini_white(losses: ArrayLike, others: ArrayLike, *, overlap: int = 1) -> Outcome:
    r"""Test of Giacomini and White of equal conditional predictive ability.

    The null hypothesis is that nothing known when a forecast is made tells which of two
    models will have the smaller loss: neither a constant nor the last known difference. With
    :math:`z_t = (1, d_{t-h})' d_t`, the statistic :math:`n \bar z' \Omega^{-1} \bar z` has
    the distribution chi square of two degrees of freedom.

    Parameters
    ----------
    losses, others : array_like of shape (T,)
        In the order of time.
    overlap : int
        h, how many forecasts in a row share a step, as in :func:`diebold_mariano`; beyond
        1, the covariance has the weights of Bartlett for h - 1 lags.

    Returns
    -------
    Outcome
        NaN where there are too few rows.

    Raises
    ------
    DataError, ParameterError
        The losses do not fit together, or the overlap is no number of rows.

    References
    ----------
    R. Giacomini and H. White, "Tests of conditional predictive ability", Econometrica 74(6),
    2006, theorems 1 and 3.
    """
    change = _differences("giacomini_white", losses, others, overlap)
    count = len(change) - overlap
    if count < 4:
        return Outcome(np.nan, np.nan)
    if not change.any():
        return Outcome(0.0, 1.0)
    moments = np.stack([np.ones(count), change[:-overlap]], axis=1) * change[overlap:, None]
    covariance = moments.T @ moments / count
    for lag in range(1, overlap):
        crossed = moments[lag:].T @ moments[:-lag] / count
        covariance += (1 - lag / overlap) * (crossed + crossed.T)
    mean = moments.mean(axis=0)
    # Differences that never change give the same condition twice.
    statistic = count * float(mean @ np.linalg.pinv(covariance, hermitian=True) @ mean)
    degrees = int(np.linalg.matrix_rank(covariance, hermitian=True))
    return Outcome(statistic, float(stats.chi2.sf(statistic, max(degrees, 1))))


def model_confidence_set(
    losses: ArrayLike | pd.DataFrame,
    *,
    block_length: float | None = None,
    n_resamples: int = 2000,
    random_state: int | None = 0,
) -> pd.Series:
    """Model confidence set: which models may be the best one.

    The worst model is taken away as long as the others differ from each other: by the
    largest mean loss above that of all, in units of its standard deviation under the
    stationary bootstrap.

    Parameters
    ----------
    losses : array_like or DataFrame of shape (T, M)
        In the order of time.
    block_length : float or None
        Mean length of the stretches that are drawn; None takes the cube root of T.
    n_resamples : int
        How often to draw.
    random_state : int or None
        Seed of the draws.

    Returns
    -------
    Series of shape (M,)
        The p-value of each model. The set that holds the best one with a probability of 90 %
        is made of those above 0.1; the model that is left at the end has 1.

    Raises
    ------
    DataError, ParameterError
        The losses are no table of at least two rows, or there is nothing to draw.

    References
    ----------
    P. R. Hansen, A. Lunde and J. M. Nason, "The model confidence set", Econometrica 79(2),
    2011, section 3.1.2 (the statistic T_max) and definition 4.
    """
    table = _table("model_confidence_set", losses)
    rows = len(table)
    if rows < 2:
        raise DataError(f"model_confidence_set: at least 2 rows are needed, got {rows}")
    check_count("model_confidence_set", "n_resamples", n_resamples)
    limits = Annotated[float, Interval(1)] | None
    check_value("model_confidence_set", "block_length", block_length, limits)
    length = max(rows ** (1 / 3), 1.0) if block_length is None else float(block_length)
    drawn = stationary_bootstrap(rows, length, n_resamples, np.random.default_rng(random_state))
    return pd.Series(confidence_p_values(table.to_numpy(), drawn), table.columns)


def confidence_p_values(losses: Floats, drawn: NDArray[np.int64]) -> Floats:
    """Return the p-values of a model confidence set, given the rows that were drawn.

    Parameters
    ----------
    losses : float array of shape (T, M)
    drawn : int64 array of shape (n_resamples, T)
    """
    means = losses.mean(axis=0)
    resampled = losses[drawn].mean(axis=1) - means  # (n_resamples, M)
    left = np.arange(losses.shape[1])
    p_values, reached = np.ones(len(left)), 0.0
    while len(left) > 1:
        # By how much each is above the mean of those that are left.
        above = means[left] - means[left].mean()
        noise = resampled[:, left] - resampled[:, left].mean(axis=1, keepdims=True)
        spread = np.sqrt(np.square(noise).mean(axis=0))
        if not (above > 0).any():
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = np.where(above == 0, 0.0, above / spread)
            largest = np.where(spread > 0, noise / spread, 0.0).max(axis=1)
        worst = int(scores.argmax())
        # Whoever goes later is at least as good as whoever went before.
        reached = max(reached, float((largest > scores[worst]).mean()))
        p_values[left[worst]] = reached
        left = np.delete(left, worst)
    return p_values


def stationary_bootstrap(
    n_rows: int, block_length: float, n_resamples: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draw rows in stretches of random length, which keep the order of time.

    Parameters
    ----------
    n_rows : int
        T.
    block_length : float
        Mean length of a stretch, at least 1; the end is followed by the beginning.
    n_resamples : int
    generator : numpy.random.Generator

    Returns
    -------
    int64 array of shape (n_resamples, T)

    References
    ----------
    D. N. Politis and J. P. Romano, "The stationary bootstrap", Journal of the American
    Statistical Association 89(428), 1994, section 2.
    """
    shape = (n_resamples, n_rows)
    begins = generator.random(shape) < 1 / block_length
    begins[:, 0] = True
    starts = generator.integers(0, n_rows, shape)
    # Each place belongs to the last stretch that began at or before it.
    steps = np.arange(n_rows)
    since = np.maximum.accumulate(np.where(begins, steps, 0), axis=1)
    return (np.take_along_axis(starts, since, axis=1) + steps - since) % n_rows


@dataclass(frozen=True)
class CriticalDifference:
    """Mean ranks of models, and by how much they have to differ.

    Attributes
    ----------
    ranks : Series of shape (M,)
        Mean rank of each model, 1 for the best; the best model first.
    statistic, p_value : float
        Of the test of Friedman, that all models are as good as each other.
    difference : float
        The critical difference of mean ranks.
    p_values : DataFrame of shape (M, M)
        Of the test of Nemenyi, for each pair.
    groups : list of list
        Models, best first, that do not differ critically; those in no group differ from all
        others.
    n_rows : int
        How many rankings there were.
    """

    ranks: pd.Series
    statistic: float
    p_value: float
    difference: float
    p_values: pd.DataFrame
    groups: list[list[Any]]
    n_rows: int


def critical_difference(
    losses: ArrayLike | pd.DataFrame, *, alpha: float = 0.05
) -> CriticalDifference:
    r"""Test of Friedman over many series, and of Nemenyi for each pair of models.

    Models are ranked on each row. Two of them differ where their mean ranks do by

    .. math:: q_\alpha \sqrt{\frac{M (M + 1)}{6 T}}

    Parameters
    ----------
    losses : array_like or DataFrame of shape (T, M)
        A row for each series or data set; in any order.
    alpha : float
        How often models as good as each other may be told apart, in (0, 1).

    Returns
    -------
    CriticalDifference

    Raises
    ------
    DataError, ParameterError
        The losses are no table, or ``alpha`` is outside (0, 1).

    References
    ----------
    J. Demšar, "Statistical comparisons of classifiers over multiple data sets", Journal of
    Machine Learning Research 7, 2006, section 3.2.

    Examples
    --------
    >>> from tsar.evaluation import critical_difference
    >>> found = critical_difference([[1, 2, 3], [1, 3, 2], [1, 2, 3], [2, 1, 3]])
    >>> found.ranks.tolist(), round(found.difference, 3)
    ([1.25, 2.0, 2.75], 1.657)
    """
    if not 0 < alpha < 1:
        raise ParameterError(f"critical_difference: alpha must lie in (0, 1), got {alpha!r}")
    table = _table("critical_difference", losses)
    n_rows, n_models = table.shape
    ranked = stats.rankdata(table.to_numpy(), axis=1)
    ranks = pd.Series(ranked.mean(axis=0), table.columns).sort_values(kind="stable")
    middle = (n_models + 1) / 2
    spread = np.square(ranked - middle).sum()
    between = n_rows**2 * np.square(ranks.to_numpy() - middle).sum()
    statistic = float((n_models - 1) * between / spread) if spread > 0 else 0.0
    unit = np.sqrt(n_models * (n_models + 1) / (12 * n_rows))
    apart = np.abs(ranks.to_numpy()[:, None] - ranks.to_numpy())
    p_values = stats.studentized_range.sf(apart / unit, n_models, np.inf)
    difference = float(stats.studentized_range.ppf(1 - alpha, n_models, np.inf) * unit)
    return CriticalDifference(
        ranks,
        statistic,
        float(stats.chi2.sf(statistic, n_models - 1)),
        difference,
        pd.DataFrame(p_values, ranks.index, ranks.index),
        _groups(ranks, difference),
        n_rows,
    )


def _groups(ranks: pd.Series, difference: float) -> list[list[Any]]:
    """Return the longest runs of models within a difference, those of one model left out."""
    values, names = ranks.to_numpy(), list(ranks.index)
    groups: list[list[Any]] = []
    reached = 0
    for first in range(len(values)):
        last = int(np.searchsorted(values, values[first] + difference, side="right"))
        if last > reached and last - first > 1:
            groups.append(names[first:last])
        reached = max(reached, last)
    return groups


def _differences(name: str, losses: ArrayLike, others: ArrayLike, overlap: int) -> Floats:
    one, two = (np.asarray(values, dtype=np.float64) for values in (losses, others))
    if one.ndim != 1 or one.shape != two.shape or not len(one):
        raise DataError(
            f"{name}: the losses must be two lists of one length, got {one.shape} and {two.shape}"
        )
    if not (np.isfinite(one) & np.isfinite(two)).all():
        raise DataError(f"{name}: the losses must be finite; leave out what was not observed")
    if isinstance(overlap, bool) or not isinstance(overlap, int | np.integer) or overlap < 1:
        raise ParameterError(f"{name}: overlap must be an integer in [1, inf), got {overlap!r}")
    return one - two


def _table(name: str, losses: Any) -> pd.DataFrame:
    table = pd.DataFrame(losses).astype(np.float64)
    if table.shape[1] < 2 or not len(table):
        raise DataError(
            f"{name}: the losses must be a table with a column for each of at least two models, "
            f"got shape {table.shape}"
        )
    if not np.isfinite(table.to_numpy()).all():
        raise DataError(f"{name}: the losses must be finite; leave out what was not observed")
    return table
