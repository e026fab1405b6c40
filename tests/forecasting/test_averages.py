"""The mean and the drift against the formulas of the book, and a regression that is the same."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS

from tsar.forecasting import Drift, Mean

HORIZON = 4


def daily(values):
    return pd.Series(values, index=pd.date_range("2024-01-01", periods=len(values)), name="y")


@pytest.fixture
def walk() -> pd.Series:
    rng = np.random.default_rng(5)
    return daily(20 + np.cumsum(0.3 + rng.normal(size=31)))


def test_mean_is_a_regression_on_a_constant(walk):
    """Its forecast and deviation are those that least squares give for a new row."""
    fitted = OLS(walk.to_numpy(), np.ones(len(walk))).fit()
    new = fitted.get_prediction(np.ones((1, 1)))
    forecast = Mean(horizon=HORIZON).fit(walk).predict(level=90)
    half = stats.norm.ppf(0.95) * new.se_obs[0]
    np.testing.assert_allclose(forecast["y"], new.predicted_mean[0], rtol=1e-12)
    np.testing.assert_allclose(forecast["y_hi90"], new.predicted_mean[0] + half, rtol=1e-12)
    np.testing.assert_allclose(forecast["y_lo90"], new.predicted_mean[0] - half, rtol=1e-12)


def test_drift_is_a_regression_of_the_changes(walk):
    """The slope is their mean, whose uncertainty grows with the step, beside that of the walk."""
    changes = np.diff(walk.to_numpy())
    fitted = OLS(changes, np.ones(len(changes))).fit()
    forecast = Drift(horizon=HORIZON).fit(walk).predict(quantiles=[0.1], level=80)
    steps = np.arange(1, HORIZON + 1)
    expected = walk.iloc[-1] + steps * fitted.params[0]
    deviation = np.sqrt(fitted.scale * steps + (steps * fitted.bse[0]) ** 2)
    np.testing.assert_allclose(forecast["y"], expected, rtol=1e-12)
    low = expected + stats.norm.ppf(0.1) * deviation
    np.testing.assert_allclose(forecast["y_q0.1"], low, rtol=1e-12)
    np.testing.assert_allclose(forecast["y_lo80"], low, rtol=1e-12)


@pytest.mark.parametrize("model, widest", [(Mean(), 1), (Drift(), 8)])
def test_beyond_the_fitted_horizon_the_formula_goes_on(walk, model, widest):
    short = model.set_params(horizon=2).fit(walk).predict(8, level=80)
    whole = model.set_params(horizon=8).fit(walk).predict(level=80)
    pd.testing.assert_frame_equal(short.drop(columns="extrapolated"), whole)
    width = (whole["y_hi80"] - whole["y_lo80"]).to_numpy()
    reach = 30
    assert width[-1] / width[0] == pytest.approx(
        np.sqrt(widest * (1 + widest / reach) / (1 + 1 / reach)) if widest > 1 else 1.0
    )


def test_missing_steps_are_passed_over():
    series = daily([2.0, np.nan, 4.0, 5.0, 7.0, np.nan, np.nan])
    forecast = Drift(horizon=2).fit(series).predict(level=80)
    # A slope of 5 / 4; the changes that were observed are 1 and 2.
    np.testing.assert_allclose(forecast["y"], [10.75, 12.0])
    deviation = np.sqrt((0.25**2 + 0.75**2) * np.array([3, 4]) * (1 + np.array([3, 4]) / 4))
    np.testing.assert_allclose(
        forecast["y_hi80"] - forecast["y"], stats.norm.ppf(0.9) * deviation, rtol=1e-12
    )
    assert Mean(horizon=2).fit(series).predict().tolist() == [4.5, 4.5]


def test_a_series_too_short_to_tell_its_errors_has_those_of_the_others():
    days = pd.date_range("2024-01-01", periods=4)
    long = pd.DataFrame({"unique_id": "a", "ds": days, "y": [1.0, 2.0, 4.0, 5.0]})
    one = pd.DataFrame({"unique_id": "b", "ds": days[:1], "y": [9.0]})
    forecast = Mean(horizon=1).fit(pd.concat([long, one])).predict(level=80)
    half = (forecast["y_hi80"] - forecast["y"]).to_numpy()
    deviation = np.std(long["y"], ddof=1)
    expected = stats.norm.ppf(0.9) * deviation * np.sqrt([1 + 1 / 4, 1 + 1])
    np.testing.assert_allclose(half, expected, rtol=1e-12)


def test_samples_have_the_deviation_of_the_formula(walk):
    samples = Mean(horizon=3).fit(walk).predict(samples=4000)
    expected = np.std(walk, ddof=1) * np.sqrt(1 + 1 / len(walk))
    assert samples["y"].std() == pytest.approx(expected, rel=0.03)
    assert samples["y"].mean() == pytest.approx(walk.mean(), abs=4 * expected / np.sqrt(12000))
