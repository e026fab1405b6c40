"""AutoReg against statsmodels called directly."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.ar_model import AutoReg as Regression

from tsar.checks.forecasting import check_future_covariate
from tsar.exceptions import ParameterError
from tsar.forecasting import AutoReg

ROWS, HORIZON = 90, 7


@pytest.fixture
def sales() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    index = pd.date_range("2024-01-01", periods=ROWS + HORIZON)
    price = rng.normal(5.0, 2.0, len(index))
    values = np.zeros(len(index))
    for step in range(3, len(index)):
        pull = 0.5 * values[step - 1] - 0.3 * values[step - 3]
        values[step] = 20.0 + pull + 1.5 * price[step] + rng.normal()
    return pd.DataFrame({"y": values, "price": price}, index=index)


@pytest.mark.parametrize("lags", [4, (1, 7), (7, 1), None])
def test_forecast_is_that_of_statsmodels(sales, lags):
    y = sales["y"][:ROWS]
    asked = {4: [1, 2, 3, 4], None: list(range(1, 9))}.get(lags, [1, 7])
    expected = Regression(y.to_numpy(), asked).fit().forecast(HORIZON)
    forecast = AutoReg(horizon=HORIZON, lags=lags).fit(y).predict()
    np.testing.assert_allclose(forecast, expected, rtol=1e-9)


def test_covariates_are_those_of_the_step(sales):
    past, ahead = sales[:ROWS], sales[ROWS:]
    direct = Regression(past["y"].to_numpy(), [1, 3], exog=past[["price"]].to_numpy()).fit()
    model = AutoReg(horizon=HORIZON, lags=(1, 3), target="y", future_covariates="price").fit(past)
    forecast = model.predict(future=ahead[["price"]])
    expected = direct.forecast(HORIZON, exog=ahead[["price"]].to_numpy())
    # Covariates are coded in float32.
    np.testing.assert_allclose(forecast["y"], expected, rtol=1e-5)


def test_a_category_is_compared_with_the_first():
    rng = np.random.default_rng(0)
    kind = rng.choice(["a", "b", "c"], size=60)
    effect = pd.Series({"a": 0.0, "b": 4.0, "c": -2.0})[kind].to_numpy()
    index = pd.date_range("2024-01-01", periods=60)
    frame = pd.DataFrame({"y": effect + rng.normal(size=60), "kind": kind}, index=index)
    dummies = pd.get_dummies(frame["kind"], dtype=float)[["b", "c"]].to_numpy()
    direct = Regression(frame["y"].to_numpy()[:50], [1], exog=dummies[:50]).fit()
    model = AutoReg(horizon=10, lags=1, target="y", future_covariates=["kind"]).fit(frame[:50])
    forecast = model.predict(future=frame[50:])
    np.testing.assert_allclose(forecast["y"], direct.forecast(10, exog=dummies[50:]), rtol=1e-9)


def test_a_covariate_that_never_moved_has_no_effect(sales):
    still = sales.assign(price=np.where(np.arange(len(sales)) < ROWS, 2.0, 9.0))
    model = AutoReg(horizon=HORIZON, lags=2, target="y", future_covariates="price")
    forecast = model.fit(still[:ROWS]).predict(future=still[ROWS:])
    without = AutoReg(horizon=HORIZON, lags=2).fit(sales[["y"]][:ROWS]).predict()
    pd.testing.assert_frame_equal(forecast, without)


def test_windows_are_forecast_with_the_fitted_weights(sales):
    y = sales["y"].to_numpy()
    fitted = Regression(y[:ROWS], [1, 2, 5]).fit()
    cutoffs = [40, ROWS, ROWS + 3]
    model = AutoReg(horizon=HORIZON, lags=(1, 2, 5)).fit(sales["y"][:ROWS])
    found = model.forecast_windows(sales["y"], cutoffs)[:, :, 0]
    expected = [fitted.apply(y[:cutoff]).forecast(HORIZON) for cutoff in cutoffs]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_planted_covariate_is_found():
    check_future_covariate(AutoReg(horizon=6, season_length=12))


@pytest.mark.parametrize("lags", [(), (1, 1), 0, (0, 1)])
def test_lags_that_are_none(sales, lags):
    with pytest.raises(ParameterError, match="AutoReg: lags must be"):
        AutoReg(lags=lags).fit(sales["y"])
