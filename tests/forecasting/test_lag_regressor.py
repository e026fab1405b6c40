"""The regression on lags against features written out by hand, and scikit-learn called directly."""

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, QuantileRegressor, Ridge

import tsar
from tsar.exceptions import DataError, ParameterError, PersistenceError
from tsar.forecasting.boosted_trees import BoostedTrees

PLAIN = {"calendar_features": False, "season_length": 1}


def daily(values, **columns):
    index = pd.date_range("2024-01-01", periods=len(values))
    return pd.DataFrame({"y": values, **columns}, index=index)


def autoregression(n_rows=300, seed=0):
    """Return an AR(2) process without noise, which a linear regression on lags continues."""
    rng = np.random.default_rng(seed)
    y = list(rng.normal(size=2))
    for _ in range(n_rows - 2):
        y.append(1.6 * y[-1] - 0.9 * y[-2] + rng.normal())
    return np.array(y)


class Echo(DummyRegressor):
    """Answers with one of its columns, and keeps what it was fitted with."""

    column = 0

    def fit(self, X, y, sample_weight=None):
        type(self).seen = X, y, sample_weight
        self.fitted_ = True
        return self

    def predict(self, X):
        return X[:, self.column]


def test_rows_are_lags_steps_and_differences_in_the_units_of_a_window():
    y = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0])
    model = tsar.LagRegressor(horizon=2, lags=(1, 3), estimator=Echo(), **PLAIN)
    model.fit(daily(y))
    x, target, _ = Echo.seen
    # A context is twice as many rows as there are lags.
    cutoff, step = 5, 2
    context = y[cutoff - 4 : cutoff]
    level, scale = context.mean(), context.std()
    z = (context - level) / scale
    window = context[-2:]
    rolling = [(window.mean() - level) / scale, window.std() / scale]
    change = rolling[0] - z[:2].mean()
    row = [z[-1], z[-3], *rolling, change, step]
    place = np.flatnonzero(np.isclose(x, row, atol=1e-12).all(axis=1))
    assert len(place) == 1
    # The difference to the last value.
    expected = (y[cutoff + step - 1] - y[cutoff - 1]) / scale
    assert target[place[0]] == pytest.approx(expected)
    # Cutoffs 4 to 7, two steps each, but for the last one.
    assert len(x) == 7


def test_values_of_a_phase_are_read_from_the_seasons_before():
    y = np.arange(40.0) ** 2
    model = tsar.LagRegressor(
        horizon=5, lags=1, estimator=Echo(), season_length=3, calendar_features=False
    )
    Echo.column = 1 + 3 + 1 + 1
    try:
        forecast = model.fit(daily(y)).predict()["y"].to_numpy()
    finally:
        Echo.column = 0
    context = y[-12:]
    reference = y[[37, 38, 39, 37, 38]]
    # The column is the value of the phase two seasons before, to which the reference is added.
    second = y[[34, 35, 36, 34, 35]]
    expected = (second - context.mean()) + reference
    np.testing.assert_allclose(forecast, expected, rtol=1e-12)


def test_a_linear_regression_step_by_step_goes_on_with_a_wave():
    """A wave around any level is a linear recursion of three lags, whose weights add up to 1."""
    y = 5.0 + np.sin(0.7 * np.arange(80.0))
    options = {"estimator": LinearRegression(), "strategy": "recursive", **PLAIN}
    model = tsar.LagRegressor(horizon=4, lags=3, **options).fit(daily(y[:60]))
    np.testing.assert_allclose(model.predict(20)["y"], y[60:], atol=1e-7)
    # Of another size, level and variate as well.
    other = daily(40.0 - 300.0 * y[20:60])
    np.testing.assert_allclose(model.predict(20, df=other)["y"], 40.0 - 300.0 * y[60:], atol=1e-4)


def test_direct_steps_know_their_covariates():
    rng = np.random.default_rng(1)
    promotion = (rng.random(206) < 0.3).astype(float)
    sold = 10 + 6 * promotion + 0.1 * rng.normal(size=206)
    frame = daily(sold[:200], promotion=promotion[:200])
    options = {"target": "y", "future_covariates": "promotion", "random_state": 0}
    model = tsar.LagRegressor(horizon=6, **options).fit(frame)
    future = model.make_future_frame().assign(promotion=promotion[200:])
    np.testing.assert_allclose(model.predict(future=future)["y"], sold[200:], atol=1.0)


def test_categories_are_columns_of_their_own():
    days = pd.date_range("2024-01-01", periods=60)
    rng = np.random.default_rng(2)
    parts = [
        pd.DataFrame(
            {"unique_id": i, "ds": days, "y": slope * np.arange(60.0) + rng.normal(size=60)}
        ).assign(kind=kind)
        for i, (kind, slope) in enumerate(
            [("up", 1.0), ("down", -1.0), ("up", 1.0), ("down", -1.0)]
        )
    ]
    model = tsar.LagRegressor(
        horizon=3, static_covariates="kind", lags=1, estimator=Echo(), **PLAIN
    )
    model.fit(pd.concat(parts))
    x = Echo.seen[0]
    np.testing.assert_array_equal(np.unique(x[:, -2:], axis=0), [[0, 1], [1, 0]])


def test_weights_count_for_the_rows_that_are_forecast():
    y = np.arange(30.0)
    weight = np.r_[np.zeros(20), np.full(10, 2.0)]
    model = tsar.LagRegressor(horizon=1, lags=2, estimator=Echo(), **PLAIN)
    model.fit(daily(y), sample_weight=weight)
    x, _, weights = Echo.seen
    assert len(x) == 10 and (weights == 2.0).all()
    with pytest.raises(ParameterError, match="sample_weight needs an estimator whose fit takes it"):

        class Weightless(Echo):
            def fit(self, X, y):
                return super().fit(X, y)

        model.set_params(estimator=Weightless()).fit(daily(y), sample_weight=weight)


def test_missing_values_are_no_rows_and_read_as_the_mean_of_the_window():
    y = np.array([2.0, 4.0, np.nan, 8.0, np.nan, 5.0])
    tsar.LagRegressor(horizon=1, lags=2, estimator=Echo(), **PLAIN).fit(daily(y))
    x, _, _ = Echo.seen
    # The row of the last value: the one before it is missing, of four rows two are not.
    assert len(x) == 2
    np.testing.assert_allclose(x[1, :2], [0.0, (8 - 6) / 2], atol=1e-12)
    short = daily(np.array([1.0, 3.0, 2.0, 5.0]))
    forecast = tsar.LagRegressor(horizon=2, season_length=12, random_state=0).fit(short).predict()
    assert np.isfinite(forecast["y"]).all()


def test_quantiles_are_regressions_of_their_own():
    rng = np.random.default_rng(4)
    y = rng.normal(size=400)
    model = tsar.LagRegressor(horizon=2, quantiles=[0.1, 0.9], random_state=0, **PLAIN)
    forecast = model.fit(daily(y)).predict(quantiles=[0.1, 0.9], level=80)
    assert len(model.estimators_) == 3
    assert (forecast["y_q0.1"] < forecast["y"]).all() and (forecast["y"] < forecast["y_q0.9"]).all()
    np.testing.assert_array_equal(forecast["y_q0.1"], forecast["y_lo80"])
    own = tsar.LagRegressor(
        horizon=2, quantiles=[0.9], estimator=QuantileRegressor(alpha=0.0), lags=1, **PLAIN
    )
    assert own.fit(daily(y[:60])).predict(quantiles=[0.9])["y_q0.9"].notna().all()
    with pytest.raises(ParameterError, match="needs an estimator with the parameter 'quantile'"):
        own.set_params(estimator=Ridge()).fit(daily(y))
    with pytest.raises(PersistenceError, match="several regressors, which are not saved"):
        own.save("model")


def test_trees_say_what_scikit_learn_says():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(500, 4))
    x[rng.random(x.shape) < 0.1] = np.nan
    y = np.nan_to_num(x[:, 0]) ** 2 + np.isnan(x[:, 1])
    fitted = HistGradientBoostingRegressor(max_iter=20, loss="absolute_error").fit(x, y)
    trees = BoostedTrees.of(fitted)
    np.testing.assert_array_equal(trees.predict(x), fitted.predict(x))
    again = BoostedTrees.from_arrays(trees.to_arrays(), 4)
    np.testing.assert_array_equal(again.predict(x), fitted.predict(x))
    for name, value in (("left", 0), ("right", 10**6), ("feature_idx", 4), ("value", np.nan)):
        arrays = trees.to_arrays()
        arrays[name][0] = value
        with pytest.raises(PersistenceError, match="hold no trees of 4 features"):
            BoostedTrees.from_arrays(arrays, 4)


def test_an_estimator_of_ones_own_is_passed_again(tmp_path):
    frame = daily(autoregression(60))
    model = tsar.LagRegressor(horizon=3, estimator=Ridge(), **PLAIN).fit(frame)
    model.save(tmp_path / "model")
    again = tsar.load(tmp_path / "model", estimator=model.estimators_[0])
    pd.testing.assert_frame_equal(again.predict(), model.predict())
    for other in (Ridge(), Ridge().fit(np.eye(3), np.ones(3))):
        with pytest.raises(PersistenceError, match="estimator is not the one that the model was"):
            tsar.load(tmp_path / "model", estimator=other)
    with pytest.raises(PersistenceError, match="estimator"):
        tsar.load(tmp_path / "model")


def test_seasons_are_those_of_the_calendar_that_the_data_have():
    hours = pd.date_range("2024-01-01", periods=900, freq="h")
    y = pd.Series(np.sin(np.arange(900.0)), index=hours)
    options = {"horizon": 2, "estimator": Ridge(), "max_rows": 50}
    assert tsar.LagRegressor(**options).fit(y).season_length_ == (24, 168)
    assert tsar.LagRegressor(**options).fit(y[:800]).season_length_ == (24,)
    assert tsar.LagRegressor(season_length=[7, 5], **options).fit(y).season_length_ == (5, 7)
    assert tsar.LagRegressor(season_length=1, **options).fit(y).season_length_ == ()


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"estimator": Ridge}, "estimator must be a regressor with fit and predict"),
        ({"estimator": "ridge"}, "estimator must be a regressor with fit and predict"),
        ({"lags": [1, 1]}, "lags must have entries that differ"),
        ({"quantiles": []}, "quantiles must have entries that differ"),
        ({"season_length": [0]}, "season_length must be"),
    ],
)
def test_parameters_that_cannot_be_are_refused(parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.LagRegressor(**parameters).fit(daily(np.arange(20.0)))


def test_a_single_row_has_no_history():
    with pytest.raises(DataError, match="no value has a history"):
        tsar.LagRegressor(horizon=1, freq="D").fit(daily(np.array([1.0])))
