import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    root_mean_squared_error,
)

from tsar.evaluation import corr, mae, mape, mase, mse, owa, rmse, rmsse, rse, smape
from tsar.exceptions import DataError, ParameterError

PAIRS = [
    (mse, mean_squared_error),
    (mae, mean_absolute_error),
    (rmse, root_mean_squared_error),
    (mape, mean_absolute_percentage_error),
]


def _pair(shape, missing=0.0, seed=3):
    generator = np.random.default_rng(seed)
    truth, forecast = generator.normal(size=(2, *shape))
    truth[generator.random(shape) < missing] = np.nan
    return truth, forecast


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_metric_equals_scikit_learn_on_what_was_observed(ours, theirs, missing):
    truth, forecast = _pair((5, 7, 3), missing)
    known = ~np.isnan(truth)
    assert ours(truth, forecast) == pytest.approx(theirs(truth[known], forecast[known]), rel=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_weights_are_those_of_scikit_learn(ours, theirs):
    truth, forecast = _pair((5, 7, 3), 0.3)
    weights = np.random.default_rng(4).integers(0, 4, truth.shape)
    known = ~np.isnan(truth)
    expected = theirs(truth[known], forecast[known], sample_weight=weights[known])
    assert ours(truth, forecast, weights=weights) == pytest.approx(expected, rel=1e-12)
    # Weights of the last axis hold for every row.
    steps = np.array([1.0, 0.0, 2.5])
    expected = ours(truth, forecast, weights=np.broadcast_to(steps, truth.shape))
    assert ours(truth, forecast, weights=steps) == expected


def test_what_counts_nothing_is_not_looked_at():
    truth, forecast = [1.0, 0.0, 3.0], [2.0, 5.0, np.nan]
    assert mape(truth, forecast, weights=[2, 0, 0]) == 1.0
    assert mape(truth, forecast, weights=[1, 1, 0]) == np.inf
    assert np.isnan(mae(truth, forecast, weights=[0, 0, 0]))


@pytest.mark.parametrize("weights", [[1, 2], [1, -1, 1], [1, np.nan, 1], [[1], [2]]])
def test_wrong_weights(weights):
    with pytest.raises(DataError, match="mae: weights must"):
        mae([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], weights=weights)


def test_smape_by_hand():
    # |1 - 3| / 2 = 1 and |4 - 4| = 0; two zeros count as nothing missed.
    assert smape([1.0, 4.0, 0.0, np.nan], [3.0, 4.0, 0.0, 1.0]) == pytest.approx(1 / 3)
    assert smape([0.0, -1.0], [2.0, 1.0]) == 2.0
    truth, forecast = _pair((6, 2))
    assert smape(truth, forecast) == pytest.approx(smape(forecast, truth))


def test_rmsse_by_hand():
    # Squared errors 4 and 0, squared changes 1, 9 and 1.
    history = [1.0, 2.0, 5.0, 4.0]
    assert rmsse([6.0, 3.0], [4.0, 3.0], history) == pytest.approx(np.sqrt(2 / (11 / 3)))
    assert rmsse(history[2:], history[:2], history, 2) == pytest.approx(1.0)


def test_rse_by_hand():
    # Squared errors 1 and 0 and 4; the truth is 2, 0 and 2 from its mean of 3.
    assert rse([1.0, 3.0, 5.0], [2.0, 3.0, 3.0]) == pytest.approx(np.sqrt(5 / 8))
    truth, forecast = _pair((6, 2))
    assert rse(truth, np.full_like(truth, truth.mean())) == pytest.approx(1.0)
    assert rse(truth, forecast, weights=2.0) == pytest.approx(rse(truth, forecast))
    assert np.isnan(rse([2.0, 2.0], [1.0, 2.0]))


def test_corr_is_the_mean_of_those_of_numpy():
    truth, forecast = _pair((9, 3))
    expected = np.mean([np.corrcoef(truth[:, c], forecast[:, c])[0, 1] for c in range(3)])
    assert corr(truth, forecast) == pytest.approx(expected)
    assert corr(truth, 5 * truth - 2) == pytest.approx(1.0)
    holes = truth.copy()
    holes[2, 1] = np.nan
    own = np.corrcoef(np.delete(truth[:, 1], 2), np.delete(forecast[:, 1], 2))[0, 1]
    assert corr(holes[:, 1], forecast[:, 1]) == pytest.approx(own)
    weights = np.ones(9)
    weights[2] = 0
    assert corr(truth[:, 1], forecast[:, 1], weights=weights) == pytest.approx(own)


def test_corr_leaves_out_a_truth_that_does_not_move():
    truth, forecast = _pair((9, 2))
    first = corr(truth[:, 0], forecast[:, 0])
    truth[:, 1] = 4.0
    assert corr(truth, forecast) == pytest.approx(first)
    assert np.isnan(corr(truth[:, 1], forecast[:, 1]))
    assert np.isnan(corr(forecast[:, 1], truth[:, 1]))
    with pytest.raises(DataError, match=r"corr: truth must be \(n,\) or"):
        corr(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))


def test_owa_is_one_for_the_benchmark_and_the_mean_of_two_ratios():
    truth, forecast = _pair((5, 2))
    history, benchmark = np.random.default_rng(9).normal(size=(11, 2)), truth + 1.0
    assert owa(truth, benchmark, benchmark, history, 3) == pytest.approx(1.0)
    ratios = [
        smape(truth, forecast) / smape(truth, benchmark),
        mase(truth, forecast, history, 3) / mase(truth, benchmark, history, 3),
    ]
    assert owa(truth, forecast, benchmark, history, 3) == pytest.approx(np.mean(ratios))


@pytest.mark.parametrize("metric", [mse, mae, rmse])
def test_nothing_observed_gives_nan(metric):
    assert np.isnan(metric([np.nan, np.nan], [1.0, 2.0]))


@pytest.mark.parametrize("metric", [mse, mae, rmse])
def test_missing_forecast_is_not_hidden(metric):
    assert np.isnan(metric([1.0, 2.0], [1.0, np.nan]))
    assert metric([1.0, np.nan], [3.0, np.nan]) > 0


@pytest.mark.parametrize("metric", [mse, mae, rmse])
def test_shapes_are_not_broadcast(metric):
    with pytest.raises(DataError, match=r"got \(2, 3\) and \(3,\)"):
        metric(np.zeros((2, 3)), np.zeros(3))


@given(
    arrays(np.float64, (11, 2), elements=st.floats(-1e3, 1e3)),
    st.floats(0.01, 100),
    st.integers(1, 9),
)
def test_mase_has_no_unit(history, factor, season):
    history = history + np.arange(22).reshape(11, 2) ** 2
    truth, forecast = _pair((4, 2))
    once = mase(truth, forecast, history, season)
    again = mase(factor * truth, factor * forecast, factor * history, season)
    assert again == pytest.approx(once, rel=1e-9)


def test_mase_of_the_seasonal_naive_forecast_on_its_own_history_is_one():
    history = np.random.default_rng(0).normal(size=29)
    season = 4
    assert mase(history[season:], history[:-season], history, season) == pytest.approx(1.0)


def test_mase_is_the_mean_over_variates():
    generator = np.random.default_rng(1)
    truth, forecast = generator.normal(size=(2, 5, 3))
    history = generator.normal(size=(17, 3))
    each = [mase(truth[:, c], forecast[:, c], history[:, c], 2) for c in range(3)]
    assert mase(truth, forecast, history, 2) == pytest.approx(np.mean(each))


def test_mase_leaves_out_unobserved_pairs():
    history = [1.0, np.nan, 2.0, 5.0]
    assert mase([5.0, np.nan], [8.0, 0.0], history) == pytest.approx(3.0 / 3.0)


def test_mase_leaves_out_a_variate_without_scale():
    truth, forecast = np.ones((2, 2)), np.zeros((2, 2))
    history = np.array([[1.0, 4.0], [3.0, 4.0]])
    assert mase(truth, forecast, history) == pytest.approx(0.5)
    assert np.isnan(mase(truth[:, 1], forecast[:, 1], history[:, 1]))


def test_mase_does_not_hide_a_missing_forecast():
    assert np.isnan(mase([1.0, 2.0], [1.0, np.nan], [1.0, 2.0, 4.0]))


@pytest.mark.parametrize(
    ("history", "season", "message"),
    [(np.zeros((6, 2)), 1, "history alike"), (np.zeros(6), 6, "at least 7"), (np.zeros(6), 0, "6")],
)
def test_mase_refuses_a_history_that_does_not_fit(history, season, message):
    with pytest.raises(DataError, match=message):
        mase(np.zeros(3), np.zeros(3), history, season)


@pytest.mark.parametrize("metric", [mase, rmsse])
def test_a_variate_without_weight_is_left_out(metric):
    draw = np.random.default_rng(4)
    truth, forecast, history = (
        draw.normal(size=(5, 2)),
        draw.normal(size=(5, 2)),
        draw.normal(size=(9, 2)),
    )
    first = metric(truth[:, 0], forecast[:, 0], history[:, 0])
    assert metric(truth, forecast, history, weights=[1.0, 0.0]) == pytest.approx(first)


@pytest.mark.parametrize("season_length", ["week", 1.5, True])
def test_a_season_is_a_number_of_steps(season_length):
    with pytest.raises(ParameterError, match="mase: season_length must be an integer, got"):
        mase([1.0], [1.0], [1.0, 2.0, 4.0], season_length)
