"""AutoARIMA: the orders that are chosen, against simulations and a whole search."""

import warnings

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.arima_process import arma_generate_sample
from statsmodels.tsa.statespace.sarimax import SARIMAX

import tsar
from tsar.forecasting.auto_arima import AutoARIMAModel


def days(values, **columns):
    index = pd.date_range("2020-01-01", periods=len(values))
    return pd.DataFrame({"y": values, **columns}, index=index)


def simulated(seed, n=300, ar=(), ma=()):
    rng = np.random.default_rng(seed)
    ar, ma = np.r_[1, -np.asarray(ar)], np.r_[1, np.asarray(ma)]
    return arma_generate_sample(ar, ma, n, distrvs=lambda size: rng.normal(size=size), burnin=100)


def chosen(frame, **parameters):
    model = tsar.AutoARIMA(horizon=4, **parameters).fit(frame)
    (order,) = model.orders_["order"]
    return model, order


@pytest.mark.parametrize(
    ("process", "n_differences"), [((), 0), ((0.6,), 0), ("walk", 1), ("sums", 2)]
)
def test_differences_are_as_many_as_it_takes(process, n_differences):
    for seed in range(3):
        if process in ("walk", "sums"):
            y = simulated(seed).cumsum()
            y = y.cumsum() if process == "sums" else y
        else:
            y = simulated(seed, ar=process)
        _, order = chosen(days(y), season_length=1, max_terms=1)
        assert order[1:6].split(",")[1] == str(n_differences), (seed, order)
        # Two differences have no constant, one has a drift.
        assert order.endswith("+c") == (n_differences < 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("ar", "ma"), [((0.5, 0.3), ()), ((), (0.8,)), ((0.7,), (0.5,)), ((), ())])
def test_as_likely_as_the_orders_it_was_simulated_with(seed, ar, ma):
    """Ranking by least squares loses no order that explains the series as well as the true one."""
    y = 5 + simulated(seed, ar=ar, ma=ma)
    _, order = chosen(days(y), season_length=1, max_terms=2)
    p, d, q = map(int, order[1 : order.index(")")].split(","))
    z = (y - y.mean()) / y.std()

    def aicc(p, q):
        with warnings.catch_warnings():
            # Of starting values, and of optimisers that stop: what they found counts.
            warnings.simplefilter("ignore")
            process = SARIMAX(np.round(z, 8), order=(p, d, q), trend="c")
            return process.fit(disp=0, cov_type="none").aicc

    assert d == 0
    # Within two of the least, one is about as good as the other (Burnham and Anderson 2002, 2.6).
    assert aicc(p, q) <= aicc(len(ar), len(ma)) + 2


def test_a_strong_season_is_differenced_and_a_weak_one_is_not():
    week = np.tile([0.0, 3, 5, 2, -2, -5, -3], 40)
    _, order = chosen(days(week + simulated(0, 280)), max_terms=1)
    assert order.split(")")[1].startswith("(") and order.split(",")[3] == "1" and "[7]" in order
    _, order = chosen(days(week / 50 + simulated(0, 280)), max_terms=1)
    assert "[7]" not in order or order.split(",")[3] == "0"
    # Without seasonal terms, or three seasons, there is none.
    _, order = chosen(days(week + simulated(0, 280)), max_terms=1, max_seasonal_terms=0)
    assert "[7]" not in order
    _, order = chosen(days((week + simulated(0, 280))[:20]), max_terms=1)
    assert "[7]" not in order


def test_forecasts_are_those_of_the_orders_that_were_chosen():
    rng = np.random.default_rng(3)
    cost = rng.normal(size=244)
    frame = days(4 * cost + simulated(3, 244, ar=(0.7,)), cost=cost)
    frame.loc[frame.index[50:60], "y"] = np.nan
    past, future = frame[:240], frame[240:].drop(columns="y")
    roles = {"target": "y", "future_covariates": "cost"}
    model, order = chosen(past, season_length=1, max_terms=2, **roles)
    p, d, q = map(int, order[1 : order.index(")")].split(","))
    twin = tsar.ARIMA(horizon=4, order=(p, d, q), constant="+c" in order, season_length=1, **roles)
    expected = twin.fit(past).predict(future=future)
    pd.testing.assert_frame_equal(model.predict(future=future), expected)
    np.testing.assert_allclose(expected["y"], frame["y"][240:], atol=4.0)


def test_few_rows_have_few_terms():
    y = simulated(1, 12).cumsum()
    model, order = chosen(days(y), season_length=1)
    assert sum(map(int, order[1:6].split(","))) <= 2
    assert model.status_["status"].tolist() == ["ok"]
    constant, order = chosen(days(np.full(30, 7.0)), season_length=1)
    np.testing.assert_allclose(constant.predict()["y"], 7.0)


def test_no_terms_are_a_mean():
    y = simulated(2, 100)
    model, order = chosen(days(y), season_length=1, max_terms=0)
    assert order == "(0,0,0)+c"
    np.testing.assert_allclose(model.predict()["y"], y.mean(), rtol=1e-3)
    assert AutoARIMAModel(7, 3, 1).needed(0) == AutoARIMAModel(1, 0, 0).needed(0)
