"""ETS and STLETS against statsmodels called directly."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from statsmodels.tsa.forecasting.stl import STLForecast
from statsmodels.tsa.seasonal import STL

from tsar.exceptions import DataWarning, ParameterError
from tsar.forecasting import ETS, STLETS

ROWS, HORIZON, SEASON = 60, 10, 4


@pytest.fixture
def quarters() -> pd.Series:
    rng = np.random.default_rng(3)
    steps = np.arange(ROWS + HORIZON)
    level = 50 + 0.5 * steps + np.cumsum(rng.normal(size=len(steps)))
    values = level * (1 + 0.2 * np.sin(2 * np.pi * steps / SEASON)) + rng.normal(size=len(steps))
    index = pd.date_range("2005-01-01", periods=len(steps), freq="QS")
    return pd.Series(values, index=index, name="y")


@pytest.mark.parametrize("initialization", ["estimated", "heuristic"])
@pytest.mark.parametrize(
    "trend, damped, seasonal",
    [("add", True, "add"), (None, False, None), ("add", False, "mul"), (None, False, "add")],
)
def test_it_fits_no_worse_than_statsmodels(quarters, trend, damped, seasonal, initialization):
    """And at the parameters that it finds, it forecasts what statsmodels does."""
    options = {"trend": trend, "damped_trend": damped, "seasonal": seasonal}
    y = quarters.to_numpy()
    mean, scale = y[:ROWS].mean(), y[:ROWS].std()
    if seasonal == "mul":
        # Factors belong to values that are not centred.
        mean, scale = 0.0, np.abs(y[:ROWS]).mean()
    z = np.round((y - mean) / scale, 8)
    periods = SEASON if seasonal else None
    smoothing = ETSModel(
        z[:ROWS], seasonal_periods=periods, initialization_method=initialization, **options
    )
    direct = smoothing.fit(disp=0)
    model = ETS(horizon=HORIZON, initialization=initialization, **options).fit(quarters[:ROWS])
    assert model.status_["status"].tolist() == ["ok"]
    parameters = model._estimates.grid[0].parameters
    n_weights = len(parameters) - (1 + (trend is not None) + SEASON * (seasonal is not None))
    weights, states = np.split(parameters, [n_weights])
    initial = {"initial_level": states[0]}
    if trend:
        initial["initial_trend"] = states[1]
    if seasonal:
        initial["initial_seasonal"] = states[-SEASON:][::-1]

    def at_these(n_rows):
        known = {"initialization_method": "known", **initial}
        own = ETSModel(z[:n_rows], seasonal_periods=periods, **known, **options)
        return own.smooth(weights)

    own = at_these(ROWS)
    assert own.llf >= direct.llf - 1e-6
    np.testing.assert_allclose(model.predict(), own.forecast(HORIZON) * scale + mean, rtol=1e-6)
    cutoff = ROWS + 3
    found = model.forecast_windows(quarters, [30, cutoff])[1, :, 0]
    later = at_these(cutoff).forecast(HORIZON)
    np.testing.assert_allclose(found, later * scale + mean, rtol=1e-6)


def test_a_multiplicative_season_needs_positive_values(quarters):
    model = ETS(horizon=3, seasonal="mul")
    with pytest.warns(DataWarning, match="1 of 1 models .* needs positive values"):
        model.fit(quarters - quarters.mean())
    assert model.status_["status"].tolist() == ["fallback"]


@pytest.mark.parametrize("robust", [False, True])
def test_stl_with_smoothing_is_that_of_statsmodels(quarters, robust):
    y = quarters.to_numpy()
    mean, scale = y[:ROWS].mean(), y[:ROWS].std()
    direct = STLForecast(
        np.round((y[:ROWS] - mean) / scale, 8),
        ETSModel,
        model_kwargs={"trend": "add", "damped_trend": True},
        period=SEASON,
        seasonal=11,
        robust=robust,
    ).fit(fit_kwargs={"disp": 0})
    model = STLETS(horizon=HORIZON, seasonal_window=11, robust=robust).fit(quarters[:ROWS])
    # The season is that of statsmodels; the rest is smoothed at least as well.
    stl = STL(np.round((y[:ROWS] - mean) / scale, 8), period=SEASON, seasonal=11, robust=robust)
    season = np.asarray(stl.fit().seasonal)
    rest = np.round((y[:ROWS] - mean) / scale, 8) - season
    plain = ETS(horizon=HORIZON, seasonal=None).fit(pd.Series(rest, index=quarters.index[:ROWS]))
    expected = plain.predict().to_numpy() + season[-SEASON + np.arange(HORIZON) % SEASON]
    np.testing.assert_allclose(model.predict(), expected * scale + mean, rtol=1e-4)
    np.testing.assert_allclose(
        direct.forecast(HORIZON) * scale + mean, expected * scale + mean, rtol=0.05
    )


def test_stl_without_season_is_smoothing(quarters):
    model = STLETS(horizon=4, season_length=1, trend=None, damped_trend=False)
    plain = ETS(horizon=4, seasonal=None, trend=None, damped_trend=False)
    forecast = model.fit(quarters).predict()
    np.testing.assert_allclose(forecast, plain.fit(quarters).predict(), rtol=1e-12)


@pytest.mark.parametrize(
    "model, message",
    [
        (ETS(trend=None), "ETS: damped_trend=True needs a trend"),
        (STLETS(trend=None), "STLETS: damped_trend=True needs a trend"),
        (STLETS(seasonal_window=8), "STLETS: seasonal_window must be odd, got 8; take 9"),
        (ETS(seasonal="multiplicative"), "ETS: seasonal must be one of 'add', 'mul' or None"),
    ],
)
def test_options_that_contradict(quarters, model, message):
    with pytest.raises(ParameterError, match=message):
        model.fit(quarters)
