"""ARIMA against statsmodels called directly."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.statespace.sarimax import SARIMAX

from tsar.checks.forecasting import check_future_covariate
from tsar.exceptions import ParameterError
from tsar.forecasting import ARIMA

ROWS, HORIZON = 70, 5

# Where the optimiser starts from is no concern of these tests.
pytestmark = pytest.mark.filterwarnings("ignore:Non-(stationary|invertible) starting")


@pytest.fixture
def months() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    steps = np.arange(ROWS + HORIZON)
    spent = rng.normal(3.0, 1.0, len(steps))
    noise = np.cumsum(rng.normal(size=len(steps)))
    values = 100 + 0.3 * steps + 6 * np.sin(2 * np.pi * steps / 4) + noise + 2 * spent
    index = pd.date_range("2018-01-01", periods=len(steps), freq="MS")
    return pd.DataFrame({"y": values, "spent": spent}, index=index)


def standardised(values):
    mean, scale = np.nanmean(values), np.nanstd(values)
    return np.round((values - mean) / scale, 8), mean, scale


@pytest.mark.parametrize(
    "order, seasonal, constant",
    [((2, 0, 1), (0, 0, 0), True), ((0, 1, 1), (0, 1, 1), False), ((1, 1, 0), (0, 0, 0), True)],
)
def test_forecast_is_that_of_statsmodels(months, order, seasonal, constant):
    y = months["y"].to_numpy()
    z, mean, scale = standardised(y[:ROWS])
    season = (*seasonal, 4 if any(seasonal) else 0)
    trend = "c" if constant else "n"
    direct = SARIMAX(z, order=order, seasonal_order=season, trend=trend).fit(disp=0)
    model = ARIMA(
        horizon=HORIZON, order=order, seasonal_order=seasonal, constant=constant, season_length=4
    ).fit(months["y"][:ROWS])
    expected = direct.forecast(HORIZON) * scale + mean
    np.testing.assert_allclose(model.predict(), expected, rtol=1e-7)
    cutoffs = [50, ROWS + 2]
    windows = model.forecast_windows(months["y"], cutoffs)[:, :, 0]
    for found, cutoff in zip(windows, cutoffs, strict=True):
        later = direct.apply((y[:cutoff] - mean) / scale).forecast(HORIZON)
        np.testing.assert_allclose(found, later * scale + mean, rtol=1e-7)


def test_missing_values_are_left_to_the_filter(months):
    y = months["y"][:ROWS].copy()
    y.iloc[[20, 21, 40, ROWS - 1]] = np.nan
    z, mean, scale = standardised(y.to_numpy())
    direct = SARIMAX(z, order=(1, 0, 0)).fit(disp=0)
    forecast = ARIMA(horizon=HORIZON, order=(1, 0, 0)).fit(y).predict()
    np.testing.assert_allclose(forecast, direct.forecast(HORIZON) * scale + mean, rtol=1e-7)


def test_covariates_are_a_regression_with_arima_errors(months):
    z, mean, scale = standardised(months["y"].to_numpy()[:ROWS])
    spent = months["spent"].to_numpy()
    # As covariates are: standardised by the fitted rows, in float32.
    x = ((spent - spent[:ROWS].mean()) / spent[:ROWS].std()).astype(np.float32).astype(float)
    direct = SARIMAX(z, x[:ROWS], order=(1, 1, 0)).fit(disp=0)
    expected = direct.forecast(HORIZON, exog=x[ROWS:, None]) * scale + mean
    model = ARIMA(horizon=HORIZON, order=(1, 1, 0), target="y", future_covariates="spent")
    forecast = model.fit(months[:ROWS]).predict(future=months[ROWS:])
    np.testing.assert_allclose(forecast["y"], expected, rtol=1e-7)


def test_a_planted_covariate_is_found():
    # Two lags hold a season.
    check_future_covariate(ARIMA(horizon=6, order=(2, 0, 0), season_length=12))


def test_a_series_without_season_has_no_seasonal_terms(months):
    plain = ARIMA(horizon=3, order=(1, 1, 0)).fit(months["y"]).predict()
    asked = ARIMA(horizon=3, order=(1, 1, 0), seasonal_order=(1, 0, 0), season_length=1)
    pd.testing.assert_series_equal(asked.fit(months["y"]).predict(), plain)


def test_orders_have_three_numbers(months):
    with pytest.raises(ParameterError, match="ARIMA: seasonal_order must be three integers"):
        ARIMA(seasonal_order=(0, 1, 1, 12)).fit(months["y"])
    with pytest.raises(ParameterError, match="ARIMA: order must be a list or tuple"):
        ARIMA(order=(1, -1, 0)).fit(months["y"])
