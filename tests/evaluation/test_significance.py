"""Tests of models against scipy, statsmodels, arch and published tables."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from arch.bootstrap import MCS
from scipy import stats

from tsar.evaluation import (
    critical_difference,
    diebold_mariano,
    giacomini_white,
    model_confidence_set,
)
from tsar.evaluation.significance import confidence_p_values, stationary_bootstrap
from tsar.exceptions import DataError, ParameterError


@pytest.fixture
def rng():
    return np.random.default_rng(17)


def test_diebold_mariano_without_overlap_is_a_t_test(rng):
    one, two = rng.gamma(2.0, size=(2, 23))
    found = diebold_mariano(one, two)
    expected = stats.ttest_rel(one, two)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("overlap", [2, 5])
def test_diebold_mariano_is_a_regression_on_a_constant(rng, overlap):
    """With a rectangular kernel, as in the paper; the correction is by hand."""
    noise = rng.normal(size=60).cumsum()
    one = 3 + rng.normal(size=60) + 0.2 * np.convolve(noise, np.ones(overlap), "same")
    two = 3.4 + rng.normal(size=60)
    fitted = sm.OLS(one - two, np.ones(60)).fit(
        cov_type="HAC",
        cov_kwds={
            "maxlags": overlap - 1,
            "kernel": "uniform",
            "use_correction": False,
        },
    )
    correction = np.sqrt((61 - 2 * overlap + overlap * (overlap - 1) / 60) / 60)
    found = diebold_mariano(one, two, overlap=overlap)
    assert found.statistic == pytest.approx(correction * fitted.tvalues[0])
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(found.statistic), 59))


def test_diebold_mariano_where_the_variance_is_not_positive():
    """Differences that alternate have a negative sum of covariances."""
    one = np.tile([1.0, 3.0], 10) + 0.1 * np.arange(20) / 20
    found = diebold_mariano(one, np.full(20, 1.5), overlap=2)
    change = one - 1.5
    apart = change - change.mean()
    variance = (apart @ apart + apart[1:] @ apart[:-1]) / 20
    assert apart @ apart + 2 * apart[1:] @ apart[:-1] < 0 < variance
    expected = change.mean() / np.sqrt(variance / 20) * np.sqrt((21 - 4 + 0.1) / 20)
    assert found.statistic == pytest.approx(expected)


def test_models_that_are_the_same(rng):
    losses = rng.random(9)
    assert diebold_mariano(losses, losses) == (0.0, 1.0)
    assert giacomini_white(losses, losses) == (0.0, 1.0)
    # A difference that never varies leaves no doubt.
    found = diebold_mariano(np.ones(8), np.full(8, 2.0))
    assert found.statistic == -np.inf and found.p_value == 0.0


@pytest.mark.parametrize("test", [diebold_mariano, giacomini_white])
def test_too_few_rows(test):
    assert np.isnan(test([1.0], [2.0])).all()
    assert np.isnan(test([1.0, 2.0, 4.0], [2.0, 5.0, 3.0], overlap=3)).all()


def test_diebold_mariano_rejects_as_often_as_it_should(rng):
    """Forecasts three steps ahead that overlap; a test without the correction rejects more."""
    rejected = 0
    for _ in range(1000):
        noise = rng.normal(size=(2, 42))
        one, two = (noise[:, 2:] + noise[:, 1:-1] + noise[:, :-2]) ** 2
        rejected += diebold_mariano(one, two, overlap=3).p_value < 0.05
    assert 25 <= rejected <= 80


def test_giacomini_white_is_a_regression_of_ones(rng):
    """Without overlap the statistic is n times the uncentred R2 (Giacomini and White, eq. 6)."""
    one, two = rng.gamma(2.0, size=(2, 41))
    change = one - two
    moments = np.stack([change[1:], change[:-1] * change[1:]], axis=1)
    fitted = sm.OLS(np.ones(40), moments).fit()
    found = giacomini_white(one, two)
    assert found.statistic == pytest.approx(40 * (1 - fitted.ssr / 40))
    assert found.p_value == pytest.approx(stats.chi2.sf(found.statistic, 2))


def test_giacomini_white_with_overlap_is_the_sum_over_lags(rng):
    one, two = rng.gamma(2.0, size=(2, 33))
    change, overlap = one - two, 3
    moments = [np.array([1.0, change[t - overlap]]) * change[t] for t in range(overlap, 33)]
    count = len(moments)
    covariance = np.zeros((2, 2))
    for first in range(count):
        for second in range(count):
            weight = max(1 - abs(first - second) / overlap, 0)
            covariance += weight * np.outer(moments[first], moments[second]) / count
    mean = np.mean(moments, axis=0)
    expected = count * mean @ np.linalg.inv(covariance) @ mean
    assert giacomini_white(one, two, overlap=overlap).statistic == pytest.approx(expected)


def test_giacomini_white_sees_what_the_mean_does_not(rng):
    """Each model is better half of the time, and which one is known before."""
    regime = np.repeat(np.tile([1.0, -1.0], 5), 20)
    one, two = 3 + regime + 0.3 * rng.normal(size=200), np.full(200, 3.0)
    assert diebold_mariano(one, two).p_value > 0.5
    assert giacomini_white(one, two).p_value < 1e-6


def test_model_confidence_set_is_that_of_arch(rng):
    """The same rows drawn give the same p-values."""
    losses = rng.gamma(2.0, size=(70, 5)) + np.array([0.0, 0.1, 0.6, 0.2, 1.5])
    theirs = MCS(losses, 0.1, reps=500, block_size=3, method="max", seed=1)
    theirs.compute()
    drawn = np.array(theirs._bootstrap_indices)
    found = confidence_p_values(losses, drawn)
    # arch gives each model the p-value of its own step, the set the largest so far.
    steps = theirs.pvalues["Pvalue"]
    expected = steps.cummax().reindex(range(5))
    np.testing.assert_allclose(found, expected)
    named = pd.DataFrame(losses, columns=list("abcde"))
    ours = model_confidence_set(named, block_length=3, n_resamples=4000)
    assert list(ours.index) == list("abcde")
    np.testing.assert_allclose(ours, expected, atol=0.06)


def test_model_confidence_set_keeps_the_best_model(rng):
    kept = []
    for seed in range(60):
        losses = rng.normal(size=(80, 4)) + np.array([0.0, 0.0, 0.3, 1.0])
        kept.append(model_confidence_set(losses, n_resamples=300, random_state=seed) > 0.1)
    share = np.mean(kept, axis=0)
    assert share[0] >= 0.85 and share[1] >= 0.85 and share[3] == 0.0


def test_models_of_equal_losses_are_all_in_the_set():
    losses = np.repeat(np.arange(6.0)[:, None], 3, axis=1)
    assert (model_confidence_set(losses) == 1.0).all()


def test_stationary_bootstrap_draws_stretches_of_the_mean_length():
    drawn = stationary_bootstrap(50, 4.0, 2000, np.random.default_rng(0))
    assert drawn.shape == (2000, 50) and drawn.min() == 0 and drawn.max() == 49
    follows = (np.diff(drawn, axis=1) % 50 == 1).mean()
    # A stretch goes on with probability 3/4; a new one follows by chance with 1/50.
    assert follows == pytest.approx(0.75 + 0.25 / 50, abs=0.01)
    np.testing.assert_allclose(np.bincount(drawn.ravel()) / drawn.size, 1 / 50, rtol=0.1)


@pytest.mark.parametrize("decimals", [9, 0])
def test_friedman_is_that_of_scipy(rng, decimals):
    """Also with ties."""
    losses = np.round(rng.normal(size=(14, 4)) + [0, 0.5, 0.2, 1], decimals)
    found = critical_difference(losses)
    expected = stats.friedmanchisquare(*losses.T)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    ranks = stats.rankdata(losses, axis=1).mean(axis=0)
    np.testing.assert_allclose(found.ranks[[0, 1, 2, 3]], ranks)


@pytest.mark.parametrize(
    ("n_models", "alpha", "published"),
    [(2, 0.05, 1.960), (5, 0.05, 2.728), (10, 0.05, 3.164), (4, 0.10, 2.291), (9, 0.10, 2.855)],
)
def test_critical_values_are_those_of_demsar(rng, n_models, alpha, published):
    """Table 5(a) of the paper."""
    found = critical_difference(rng.normal(size=(30, n_models)), alpha=alpha)
    value = found.difference / np.sqrt(n_models * (n_models + 1) / (6 * 30))
    assert value == pytest.approx(published, abs=6e-4)


def test_groups_and_pairs_agree(rng):
    losses = pd.DataFrame(
        rng.normal(size=(25, 5)) + [0, 0.3, 0.6, 2.5, 2.6], columns=["a", "b", "c", "d", "e"]
    )
    found = critical_difference(losses)
    together = {
        frozenset((one, two))
        for group in found.groups
        for one in group
        for two in group
        if one != two
    }
    for one in losses:
        for two in losses:
            if one != two:
                differ = found.p_values.loc[one, two] < 0.05
                assert differ == (frozenset((one, two)) not in together)
    assert len(found.groups) == 2 and set(found.groups[1]) == {"d", "e"}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: diebold_mariano([1.0, 2.0], [1.0]), DataError, "two lists of one length"),
        (lambda: diebold_mariano([1.0, np.nan], [1.0, 2.0]), DataError, "must be finite"),
        (lambda: giacomini_white([1.0, 2.0], [1.0, 2.0], overlap=0), ParameterError, "overlap"),
        (lambda: model_confidence_set([[1.0, 2.0]]), DataError, "at least 2 rows"),
        (lambda: model_confidence_set([[1.0], [2.0]]), DataError, "at least two models"),
        (lambda: critical_difference([[1.0, np.inf]]), DataError, "must be finite"),
        (lambda: critical_difference([[1.0, 2.0]], alpha=5), ParameterError, r"in \(0, 1\)"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("wrong", [{"n_resamples": 0}, {"block_length": 0}, {"block_length": -2}])
def test_a_confidence_set_of_no_draws(wrong):
    losses = np.random.default_rng(5).random((8, 3))
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        model_confidence_set(losses, **wrong)
