"""AutoReg against statsmodels called directly."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.ar_model import AutoReg as Regression

import tsar
from tsar.checks.forecasting import check_future_covariate
from tsar.exceptions import DataWarning, ParameterError
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


# ------------------------------------------------- orders and covariates that data cannot carry


def counts(n_rows, seed):
    y = np.random.default_rng(seed).negative_binomial(4, 4 / 24, n_rows).astype(float)
    return pd.Series(y, index=pd.date_range("2025-01-01", periods=n_rows))


def test_short_series_get_the_lags_that_they_carry():
    """Three rows for each weight, after those that only give lags: those of the season stay."""
    for n_rows, lags in ((22, [1, 7, 8]), (26, [1, 2, 3, 7, 8]), (35, [1, 2, 3, 4, 5, 6, 7, 8])):
        y = counts(n_rows, 3)
        model = AutoReg(horizon=5).fit(y)
        expected = Regression(y.to_numpy(), lags).fit().forecast(5)
        np.testing.assert_allclose(model.predict(), expected, rtol=1e-9)
        note = model.status_["message"][0]
        shown = ", ".join(map(str, lags))
        assert note == (
            "" if n_rows == 35 else f"{n_rows} observed rows carry {len(lags)} lags ({shown})"
        )
        assert model.status_["status"].tolist() == ["ok"]


def test_lags_that_are_asked_for_and_not_carried_are_told():
    y = counts(20, 3)
    with pytest.warns(DataWarning, match="1 of 1 models were estimated in a smaller"):
        model = AutoReg(horizon=5, lags=6).fit(y)
    assert model.status_["status"].tolist() == ["reduced"]
    expected = Regression(y.to_numpy(), 4).fit().forecast(5)
    np.testing.assert_allclose(model.predict(), expected, rtol=1e-9)


def test_a_reduced_model_is_saved(tmp_path):
    model = AutoReg(horizon=5).fit(counts(22, 3))
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(tsar.load(tmp_path / "model").predict(), model.predict())


@pytest.fixture
def shop() -> pd.DataFrame:
    """Return sales with a price that falls whenever there is a promotion."""
    rng = np.random.default_rng(0)
    promotion = (rng.random(200) < 0.25).astype(float)
    return pd.DataFrame(
        {
            "y": 20 + 15 * promotion + rng.normal(size=200),
            "price": np.where(promotion, 2.28, 2.85),
            "promotion": promotion,
        },
        index=pd.date_range("2024-01-01", periods=200),
    )


COLLINEAR = {
    "price": lambda shop: {},
    "twice": lambda shop: {"copy": shop["price"]},
    "in cents": lambda shop: {"cents": 100 * shop["price"] + 3},
    "sum": lambda shop: {
        "net": np.sin(np.arange(len(shop))),
        "gross": np.sin(np.arange(len(shop))) + shop["price"],
    },
    "yesterday": lambda shop: {"before": shop["y"].shift(1).bfill()},
    "only at the beginning": lambda shop: {"early": (np.arange(len(shop)) < 1).astype(float)},
}


@pytest.mark.parametrize("kind", list(COLLINEAR))
@pytest.mark.parametrize("name", ["AutoReg", "ARIMA"])
def test_covariates_that_follow_from_others_share_their_effects(shop, kind, name):
    frame = shop.assign(**COLLINEAR[kind](shop))
    names = [column for column in frame if column != "y"]
    options = {"AutoReg": {"lags": 2}, "ARIMA": {"order": (1, 0, 0), "constant": True}}[name]
    model = getattr(tsar, name)(horizon=7, target="y", future_covariates=names, **options)
    with pytest.warns(DataWarning, match="1 of 1 models were estimated in a smaller form"):
        model.fit(frame)
    status = model.status_.iloc[0]
    assert status["status"] == "reduced" and "follow from the others" in status["message"]
    one = getattr(tsar, name)(horizon=7, target="y", future_covariates=["promotion"], **options)
    one.fit(shop)
    on = np.array([0, 1, 0, 0, 1, 1, 0.0])
    plan = {"promotion": on, "price": np.where(on, 2.28, 2.85)}
    # Further columns as they were: what they say of the plan is the same again.
    rest = {column: frame[column].to_numpy()[:7] for column in names if column not in plan}
    if kind == "twice":
        rest = {"copy": plan["price"]}
    elif kind == "in cents":
        rest = {"cents": 100 * plan["price"] + 3}
    elif kind == "sum":
        rest = {"net": np.zeros(7), "gross": plan["price"]}
    elif kind == "only at the beginning":
        rest = {"early": np.zeros(7)}
    future = model.make_future_frame().assign(**plan, **rest)
    expected = one.predict(future=one.make_future_frame().assign(promotion=on))["y"]
    found = model.predict(future=future)["y"]
    # On plan, as if one of them was there alone.
    np.testing.assert_allclose(found, expected, atol=1.5 if kind in ("sum", "yesterday") else 0.05)
    # A cent off plan changes little, and half of the price does not explode.
    for off, much in ((0.01, 0.5), (-0.5, 20)):
        moved = model.predict(future=future.assign(price=future["price"] + off))["y"]
        assert np.abs(moved - found).max() < much


def test_covariates_with_effects_of_their_own_keep_them(sales):
    """The check for what follows from others changes no digit where nothing does."""
    frame = sales[:ROWS].assign(other=np.cos(np.arange(ROWS) ** 2))
    y = frame["y"].to_numpy()
    direct = Regression(y, [1, 3], exog=frame[["price", "other"]].to_numpy()).fit()
    model = AutoReg(horizon=1, lags=(1, 3), target="y", future_covariates=["price", "other"])
    forecast = model.fit(frame).predict(future=model.make_future_frame().assign(price=1, other=2))
    expected = direct.forecast(1, exog=np.array([[1.0, 2.0]]))
    np.testing.assert_allclose(forecast["y"], expected, rtol=1e-5)
    assert model.status_["status"].tolist() == ["ok"]


def test_plans_far_from_all_that_was_seen_fall_back(shop):
    """Nearly collinear: a few hundredths of a cent makes a price worth thousands, off plan."""
    rng = np.random.default_rng(5)
    frame = shop.assign(price=shop["price"] + rng.normal(scale=2e-4, size=len(shop)))
    model = AutoReg(horizon=7, lags=1, target="y", future_covariates=["price", "promotion"])
    model.fit(frame)
    assert model.status_["status"].tolist() == ["ok"]
    future = model.make_future_frame().assign(price=2.85, promotion=0.0)
    assert model.predict(future=future).attrs["fallback"] == {}
    with pytest.warns(DataWarning, match=r"forecasts of 1 of 1 series failed, SeasonalNaive"):
        moved = model.predict(future=future.assign(price=2.28))
    assert list(moved.attrs["fallback"]) == ["y"] and "far outside" in moved.attrs["fallback"]["y"]
    naive = tsar.SeasonalNaive(horizon=7, target="y").fit(frame[["y"]]).predict()
    np.testing.assert_array_equal(moved["y"], naive["y"])


def test_a_window_is_forecast_alike_alone_and_among_others():
    rng = np.random.default_rng(0)
    y = pd.DataFrame(
        {"y": np.cumsum(rng.normal(size=150))},
        index=pd.date_range("2024-01-01", periods=150, freq="D"),
    )
    model = tsar.AutoReg(lags=25, horizon=6).fit(y)
    panel = model.read_new(y, allow_new_variates=False)
    rows = np.arange(100, 140)
    together = model.forecast(panel, np.zeros(40, dtype=int), rows, 6).point
    for place, row in enumerate(rows):
        alone = model.forecast(panel, np.array([0]), np.array([row]), 6).point
        np.testing.assert_array_equal(together[place], alone[0])
