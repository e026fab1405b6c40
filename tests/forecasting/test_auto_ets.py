"""The choice of a form against the criterion of statsmodels, computed for each of them."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

from tsar.forecasting import ETS, AutoETS

SEASON = 4


def quarters(n_rows, slope, swing, seed):
    rng = np.random.default_rng(seed)
    steps = np.arange(n_rows)
    values = 30 + slope * steps + swing * np.sin(2 * np.pi * steps / SEASON)
    index = pd.date_range("2000-01-01", periods=n_rows, freq="QS")
    return pd.Series(values + rng.normal(size=n_rows), index=index, name="y")


def criteria(y):
    """Return the AICc of each form, the states of a season counted once."""
    z = (y - y.mean()) / y.std()
    found = {}
    for seasonal in (None, "add"):
        for trend, damped in ((None, False), ("add", False), ("add", True)):
            fitted = ETSModel(
                z,
                trend=trend,
                damped_trend=damped,
                seasonal=seasonal,
                seasonal_periods=SEASON if seasonal else None,
            ).fit(disp=0)
            count = len(fitted.params) - (seasonal is not None) + 1
            form = "A" + ("A" if trend else "N") + "d" * damped + ("A" if seasonal else "N")
            correction = 2 * count * len(z) / (len(z) - count - 1)
            found[form] = -2 * fitted.llf + correction
    return found


@pytest.mark.parametrize(
    "slope, swing, expected",
    [(0.0, 0.0, "ANN"), (0.9, 0.0, "AAN"), (0.0, 4.0, "ANA"), (0.8, 4.0, "AAA")],
)
def test_the_form_has_the_least_criterion(slope, swing, expected):
    y = quarters(48, slope, swing, seed=1)
    model = AutoETS(horizon=5).fit(y)
    assert model.forms_["form"].tolist() == [expected]
    by_form = criteria(y.to_numpy())
    assert by_form[expected] <= min(by_form.values()) + 1e-3


def test_it_forecasts_as_the_form_that_it_chose():
    y = quarters(48, 0.8, 4.0, seed=1)
    expected = ETS(horizon=5, damped_trend=False).fit(y)
    model = AutoETS(horizon=5).fit(y)
    np.testing.assert_array_equal(model.predict(), expected.predict())
    windows = model.forecast_windows(y, [30, 40]), expected.forecast_windows(y, [30, 40])
    np.testing.assert_array_equal(*windows)


def test_rows_that_carry_no_season_choose_among_the_others():
    short = quarters(10, 0.0, 4.0, seed=2)
    model = AutoETS(horizon=2).fit(short)
    assert model.status_["status"].tolist() == ["ok"]
    assert model.forms_["form"][0][-1] == "N"
