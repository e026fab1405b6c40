"""Theta against statsmodels called directly."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.forecasting.theta import ThetaModel

from tsar.exceptions import DataWarning
from tsar.forecasting import Theta

HORIZON = 9


def months(n_rows, swing=8.0):
    rng = np.random.default_rng(2)
    steps = np.arange(n_rows)
    values = 80 + 0.4 * steps + swing * np.sin(2 * np.pi * steps / 12) + rng.normal(size=n_rows)
    return pd.Series(values, index=pd.date_range("2010-01-01", periods=n_rows, freq="MS"))


@pytest.mark.parametrize("seasonal", ["add", "mul"])
@pytest.mark.parametrize("n_rows", [60, 67])
def test_forecast_is_that_of_statsmodels(seasonal, n_rows):
    y = months(n_rows)
    expected = ThetaModel(y.to_numpy(), period=12, method=seasonal).fit().forecast(HORIZON)
    forecast = Theta(horizon=HORIZON, seasonal=seasonal).fit(y).predict()
    np.testing.assert_allclose(forecast, expected, rtol=1e-5)


def test_without_a_season_to_be_found():
    y = months(50, swing=0.0)
    expected = ThetaModel(y.to_numpy(), deseasonalize=False).fit().forecast(HORIZON)
    for seasonal in ("add", None):
        forecast = Theta(horizon=HORIZON, seasonal=seasonal).fit(y).predict()
        np.testing.assert_allclose(forecast, expected, rtol=1e-5)


def test_later_rows_move_the_level_only():
    """From every origin: the season and the slope as fitted, the level smoothed to there."""
    y = months(80)
    model = Theta(horizon=HORIZON).fit(y[:60])
    direct = ThetaModel(y.to_numpy()[:60], period=12, method="add").fit()
    slope, smoothing = direct.params
    season = np.roll(np.asarray(direct.forecast_components(12).seasonal), 60 % 12)
    level = y.iloc[0] - season[0]
    for row in range(1, 71):
        level = smoothing * (y.iloc[row] - season[row % 12]) + (1 - smoothing) * level
    lead = (1 - (1 - smoothing) ** 71) / smoothing
    steps = np.arange(HORIZON)
    expected = level + 0.5 * slope * (steps + lead) + season[(71 + steps) % 12]
    found = model.forecast_windows(y, [71])[0, :, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_multiplicative_season_needs_positive_values():
    with pytest.warns(DataWarning, match="needs positive values"):
        Theta(horizon=3, seasonal="mul").fit(months(60) - 90)
