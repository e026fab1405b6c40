"""Scores against scoringrules, scikit-learn and closed forms."""

import numpy as np
import pytest
import scoringrules
from scipy import stats
from sklearn.metrics import mean_pinball_loss

from tsar.evaluation import (
    coverage,
    crps,
    crps_from_quantiles,
    energy_score,
    interval_score,
    interval_width,
    mae,
    mase,
    pit,
    quantile_loss,
    scaled_quantile_loss,
    variogram_score,
)
from tsar.exceptions import DataError, ParameterError

LEVELS = [0.1, 0.25, 0.5, 0.9]


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def _truth(rng, shape):
    truth = rng.normal(size=shape)
    truth[rng.random(shape) < 0.2] = np.nan
    return truth


def test_quantile_loss_is_that_of_scikit_learn(rng):
    truth, forecast = _truth(rng, (5, 7)), rng.normal(size=(5, 7, 4))
    known, weights = ~np.isnan(truth), rng.random((5, 7))
    each = [
        mean_pinball_loss(truth[known], forecast[known, k], alpha=level)
        for k, level in enumerate(LEVELS)
    ]
    assert quantile_loss(truth, forecast, LEVELS) == pytest.approx(np.mean(each))
    assert quantile_loss(truth, forecast[..., 1], 0.25) == pytest.approx(each[1])
    weighted = mean_pinball_loss(
        truth[known], forecast[known, 3], alpha=0.9, sample_weight=weights[known]
    )
    assert quantile_loss(truth, forecast[..., 3], 0.9, weights=weights) == pytest.approx(weighted)


def test_scaled_quantile_loss_of_the_median_is_half_of_mase(rng):
    truth, forecast, history = _truth(rng, (6, 3)), rng.normal(size=(6, 3)), rng.normal(size=(9, 3))
    expected = mase(truth, forecast, history, 4) / 2
    assert scaled_quantile_loss(truth, forecast, 0.5, history, 4) == pytest.approx(expected)
    both = np.stack([forecast, forecast + 1], axis=-1)
    each = [
        scaled_quantile_loss(truth, both[..., k], level, history)
        for k, level in enumerate([0.2, 0.7])
    ]
    found = scaled_quantile_loss(truth, both, [0.2, 0.7], history)
    assert found == pytest.approx(np.mean(each))


def test_crps_is_that_of_scoringrules(rng):
    truth, samples = _truth(rng, (5, 7)), rng.normal(size=(5, 7, 13))
    known = ~np.isnan(truth)
    each = scoringrules.crps_ensemble(truth[known], samples[known], estimator="nrg")
    assert crps(truth, samples) == pytest.approx(each.mean(), rel=1e-12)
    weights = rng.random((5, 7))
    expected = np.average(each, weights=weights[known])
    assert crps(truth, samples, weights=weights) == pytest.approx(expected)
    assert crps(truth, samples[..., :1]) == pytest.approx(mae(truth, samples[..., 0]))


def test_crps_from_quantiles_is_that_of_scoringrules(rng):
    truth, forecast = rng.normal(size=(5, 7)), np.sort(rng.normal(size=(5, 7, 4)))
    expected = scoringrules.crps_quantile(truth, forecast, np.array(LEVELS)).mean()
    assert crps_from_quantiles(truth, forecast, LEVELS) == pytest.approx(expected)


def test_crps_of_a_normal_distribution(rng):
    """Samples and quantiles both come near the closed form (Gneiting and Raftery 2007)."""
    exact = scoringrules.crps_normal(0.7, 0.0, 1.0)
    levels = (np.arange(999) + 0.5) / 999
    quantiles = stats.norm.ppf(levels)
    assert crps_from_quantiles([0.7], quantiles[None], levels) == pytest.approx(exact, rel=2e-3)
    assert crps([0.7], quantiles[None]) == pytest.approx(exact, rel=2e-3)


def test_joint_scores_are_those_of_scoringrules(rng):
    truth, samples = rng.normal(size=(4, 5)), rng.normal(size=(4, 17, 5))
    truth[2, 3] = np.nan
    known, weights = [0, 1, 3], np.array([1.0, 2.0, 5.0, 0.5])
    energy = scoringrules.es_ensemble(truth[known], samples[known], estimator="nrg")
    assert energy_score(truth, samples) == pytest.approx(energy.mean())
    expected = np.average(energy, weights=weights[known])
    assert energy_score(truth, samples, weights=weights) == pytest.approx(expected)
    for order in (0.5, 1.0):
        variogram = scoringrules.vs_ensemble(
            truth[known], samples[known], p=order, estimator="nrg"
        ).mean()
        assert variogram_score(truth, samples, order=order) == pytest.approx(variogram)


def test_energy_score_of_one_entry_is_the_crps(rng):
    truth, samples = rng.normal(size=6), rng.normal(size=(6, 9))
    found = energy_score(truth[:, None], samples[..., None])
    assert found == pytest.approx(crps(truth, samples))


def test_variogram_score_sees_what_moves_together(rng):
    """The energy score hardly tells a wrong correlation, the variogram score does."""
    common = rng.normal(size=(400, 1))
    truth = common + 0.1 * rng.normal(size=(400, 6))
    right = rng.normal(size=(400, 50, 1)) + 0.1 * rng.normal(size=(400, 50, 6))
    wrong = rng.normal(size=(400, 50, 6))
    assert variogram_score(truth, right) < 0.3 * variogram_score(truth, wrong)


def test_pit_is_uniform_for_the_right_distribution(rng):
    truth, samples = rng.normal(size=2000), rng.normal(size=(2000, 200))
    assert stats.kstest(pit(truth, samples), "uniform").pvalue > 0.01
    assert stats.kstest(pit(truth, samples * 2), "uniform").pvalue < 1e-6


def test_pit_by_hand():
    found = pit([1.0, np.nan, 9.0], [[0.0, 1.0, 2.0, 3.0]] * 3)
    np.testing.assert_array_equal(found, [0.375, np.nan, 1.0])


def test_interval_score_is_that_of_scoringrules(rng):
    truth = _truth(rng, (5, 7))
    lower, upper = np.sort(rng.normal(size=(2, 5, 7)), axis=0)
    known, weights = ~np.isnan(truth), rng.random((5, 7))
    each = scoringrules.interval_score(truth[known], lower[known], upper[known], 0.2)
    assert interval_score(truth, lower, upper, 80) == pytest.approx(each.mean())
    expected = np.average(each, weights=weights[known])
    assert interval_score(truth, lower, upper, 80, weights=weights) == pytest.approx(expected)
    # By the pinball loss of both ends (Gneiting and Raftery 2007, section 6.2).
    both = quantile_loss(truth, np.stack([lower, upper], axis=-1), [0.1, 0.9])
    assert interval_score(truth, lower, upper, 80) == pytest.approx(both * 4 / 0.2)


def test_coverage_and_width(rng):
    truth = _truth(rng, (50, 7))
    lower, upper = np.full((50, 7), -1.0), np.full((50, 7), 1.5)
    known = ~np.isnan(truth)
    inside = (truth[known] >= -1.0) & (truth[known] <= 1.5)
    assert coverage(truth, lower, upper) == pytest.approx(inside.mean())
    assert interval_width(lower, upper) == 2.5
    assert interval_width([0.0, 0.0], [1.0, 4.0], weights=[3, 1]) == 1.75
    assert np.isnan(coverage([0.0], [np.nan], [1.0]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: quantile_loss([1.0], [1.0], [0.5]), DataError, r"last axis of 1 quantiles"),
        (lambda: quantile_loss([1.0], [[1.0]], [1.5]), ParameterError, r"levels in \(0, 1\)"),
        (lambda: crps([1.0, 2.0], [[1.0], [2.0], [3.0]]), DataError, r"\(2,\) and \(3, 1\)"),
        (lambda: energy_score([1.0], [[1.0, 2.0]]), DataError, r"samples \(\.\.\., M, D\)"),
        (lambda: variogram_score([1.0], [[1.0]], order=0), ParameterError, "must be positive"),
        (lambda: interval_score([1.0], [0.0], [2.0], 100), ParameterError, r"in \(0, 100\)"),
        (lambda: coverage([1.0], [0.0], [2.0, 3.0]), DataError, "one shape"),
        (
            lambda: scaled_quantile_loss([1.0], [[1.0]], [0.5], [[1.0]]),
            DataError,
            "history alike",
        ),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_infinite_interval_covers():
    lower, upper = [-np.inf, -np.inf, 0.0, -np.inf], [np.inf, 1.0, np.inf, 1.0]
    assert coverage([5.0, 1.0, 0.0, 2.0], lower, upper) == 0.75
    assert np.isnan(coverage([1.0], [np.nan], [np.inf]))
