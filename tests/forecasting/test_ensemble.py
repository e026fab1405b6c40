"""Ensemble: combinations of what the members forecast, weights against other solvers."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from torch import nn

import tsar
from tsar import checks
from tsar.checks import contract, forecasting
from tsar.evaluation import backtest
from tsar.exceptions import DataError, DataWarning, ParameterError, PersistenceError
from tsar.forecasting.member_weights import inverse_error_weights, stacking_weights
from tsar.training import on_epoch

HORIZON = 4
SMALL = {"context_length": 12, "max_epochs": 1, "random_state": 0, "device": "cpu"}


@pytest.fixture
def days() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    steps = np.arange(90)[:, None]
    values = np.sin(2 * np.pi * steps / 7) * [3.0, 40.0] + [20.0, -300.0]
    values = values + np.cumsum(rng.normal(size=(90, 2)) * [0.2, 6.0], axis=0)
    return pd.DataFrame(values, index=pd.date_range("2024-01-01", periods=90), columns=["a", "b"])


def members():
    return [tsar.Naive(), tsar.SeasonalNaive(), tsar.AutoReg(lags=3)]


def forecasts_of(frame, horizon=HORIZON):
    fitted = [one.set_params(horizon=horizon).fit(frame) for one in members()]
    return np.stack([one.predict().to_numpy() for one in fitted])


@pytest.mark.parametrize("weights, combine", [("mean", np.mean), ("median", np.median)])
def test_mean_and_median_of_the_members(days, weights, combine):
    model = tsar.Ensemble(models=members(), weights=weights, horizon=HORIZON).fit(days)
    np.testing.assert_allclose(model.predict(), combine(forecasts_of(days), axis=0), rtol=1e-12)
    assert list(model.models_) == ["Naive", "SeasonalNaive", "AutoReg"]
    if weights == "mean":
        np.testing.assert_allclose(model.weights_, 1 / 3)
        assert list(model.weights_.columns) == ["a", "b"]
    else:
        assert model.weights_ is None


@pytest.mark.parametrize("weights", ["backtest", "stacking"])
def test_weights_are_learned_from_the_last_windows(days, weights):
    model = tsar.Ensemble(models=members(), weights=weights, windows=3, horizon=HORIZON).fit(days)
    tested = backtest([one.set_params(horizon=HORIZON) for one in members()], days, windows=3)
    for variate in ("a", "b"):
        rows = tested[tested["variate"] == variate]
        errors = rows[list(model.models_)].sub(rows["y"], axis=0).to_numpy()
        found = model.weights_[variate].to_numpy()
        if weights == "backtest":
            expected = 1 / np.abs(errors).mean(axis=0)
            np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-9)
        else:
            best = least_squares_on_the_simplex(errors)
            assert np.sum((errors @ found) ** 2) == pytest.approx(best, rel=1e-4)
            assert (found >= 0).all() and found.sum() == pytest.approx(1)
    # The members of the forecast know all rows.
    weighted = np.einsum("mhc,mc->hc", forecasts_of(days), model.weights_.to_numpy())
    np.testing.assert_allclose(model.predict(), weighted, rtol=1e-9)


def least_squares_on_the_simplex(errors):
    """Return the least sum of squared weighted errors, as SLSQP finds it."""
    n_members = errors.shape[1]
    unit = np.abs(errors).max()
    solved = minimize(
        lambda weights: np.sum((errors @ weights / unit) ** 2),
        np.full(n_members, 1 / n_members),
        bounds=[(0, 1)] * n_members,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    return solved.fun * unit**2


def test_stacking_finds_planted_weights():
    rng = np.random.default_rng(0)
    forecasts = 1000 + rng.normal(size=(200, 3))
    np.testing.assert_allclose(
        stacking_weights(forecasts, forecasts @ [0.7, 0.3, 0.0]), [0.7, 0.3, 0.0], atol=1e-6
    )
    # One that only harms is left out, though a negative weight would fit better.
    mirrored = np.stack([forecasts[:, 0], 2000 - forecasts[:, 0]], axis=1)
    np.testing.assert_allclose(stacking_weights(mirrored, forecasts[:, 0]), [1.0, 0.0], atol=1e-6)
    same = np.ones((5, 2))
    assert stacking_weights(same, np.ones(5)).sum() == pytest.approx(1)


def test_a_member_without_errors_takes_all():
    truth = np.array([1.0, 2.0, 4.0])
    forecasts = np.stack([truth + 1, truth, truth - 3], axis=1)
    np.testing.assert_array_equal(inverse_error_weights(forecasts, truth), [0, 1, 0])
    np.testing.assert_allclose(inverse_error_weights(forecasts[:, ::2], truth), [0.75, 0.25])


def test_series_of_a_panel_count_in_their_own_units(days):
    long = days.reset_index(names="ds").melt("ds", var_name="unique_id", value_name="y")
    model = tsar.Ensemble(models=members(), weights="backtest", horizon=HORIZON)
    once = model.fit(long).weights_
    scaled = long.assign(y=long["y"].where(long["unique_id"] == "a", long["y"] * 1e6 + 5))
    np.testing.assert_allclose(model.fit(scaled).weights_, once, rtol=1e-6)


def test_short_series_take_no_part_in_the_weights(days):
    long = days.reset_index(names="ds").melt("ds", var_name="unique_id", value_name="y")
    short = long[(long["unique_id"] == "a") & (long["ds"] < "2024-01-08")].assign(unique_id="s")
    model = tsar.Ensemble(models=[tsar.Naive(), tsar.SeasonalNaive()], weights="stacking")
    model.set_params(horizon=HORIZON)
    alone = model.fit(long).weights_
    pd.testing.assert_frame_equal(model.fit(pd.concat([long, short])).weights_, alone)
    with pytest.warns(DataWarning, match="needs a series of 8 rows, the longest has 7"):
        model.fit(short)
    np.testing.assert_array_equal(model.weights_, 0.5)


def test_parameters_of_members_are_parameters(days):
    model = tsar.Ensemble(models={"one": tsar.AutoReg(lags=2), "other": tsar.Naive()})
    assert model.get_params()["one__lags"] == 2
    twin = clone(model).set_params(one__lags=5, horizon=HORIZON)
    assert (twin.models["one"].lags, model.models["one"].lags) == (5, 2)
    twin.fit(days)
    assert twin.models_["one"].lags == 5 and twin.models_["one"].horizon == HORIZON
    assert not hasattr(twin.models["one"], "horizon_"), "a member that was given is not fitted"
    search = GridSearchCV(twin, {"one__lags": [1, 3]}, cv=TimeSeriesSplit(2)).fit(days)
    assert search.best_params_["one__lags"] in (1, 3)
    with pytest.raises(ParameterError, match="two__lags names no member, there are one, other"):
        model.set_params(two__lags=1)


def test_members_read_their_own_covariates(days):
    rng = np.random.default_rng(1)
    frame = days.assign(cost=rng.normal(size=90), kind=rng.choice(["x", "y"], size=90))
    known = tsar.AutoReg(lags=2, future_covariates=["cost"])
    network = tsar.NLinear(**SMALL, past_covariates="kind", calendar_features=True)
    model = tsar.Ensemble(
        models=[known, network], weights="backtest", horizon=HORIZON, target=["a", "b"], windows=2
    )
    model.fit(frame[:80])
    future = frame[80:84][["cost"]]
    own = {"horizon": HORIZON, "target": ["a", "b"]}
    expected = np.stack(
        [
            clone(known).set_params(**own).fit(frame[:80]).predict(future=future),
            clone(network).set_params(**own).fit(frame[:80]).predict(),
        ]
    )
    weighted = np.einsum("mhc,mc->hc", expected, model.weights_.to_numpy())
    np.testing.assert_allclose(model.predict(future=future), weighted, rtol=1e-5)
    np.testing.assert_allclose(model.predict(df=frame[:80], future=future), weighted, rtol=1e-5)
    np.testing.assert_allclose(model.forecast_windows(frame, [80])[0], weighted, rtol=1e-5)
    assert list(model.make_future_frame().columns) == ["cost"]
    with pytest.raises(DataError, match="'cost' is missing from"):
        model.predict()


def test_a_backtest_of_an_ensemble_is_the_mean_of_backtests(days):
    model = tsar.Ensemble(models=members(), horizon=HORIZON)
    tested = backtest([*members(), model], days, windows=3, horizon=HORIZON)
    mean = tested[["Naive", "SeasonalNaive", "AutoReg"]].mean(axis=1)
    np.testing.assert_allclose(tested["Ensemble"], mean, rtol=1e-9)
    fitted = clone(model).fit(days[:70])
    later = backtest(fitted, days[70:], windows=2)
    expected = backtest(
        [one.set_params(horizon=HORIZON).fit(days[:70]) for one in members()], days[70:], windows=2
    )
    mean = expected[["Naive", "SeasonalNaive", "AutoReg"]].mean(axis=1)
    np.testing.assert_allclose(later["Ensemble"], mean, rtol=1e-9)


@pytest.mark.parametrize("weights", ["median", "stacking"])
def test_members_and_weights_are_saved(days, weights, tmp_path):
    given = {"net": tsar.NLinear(**SMALL), "etc": tsar.Ensemble(models=[tsar.Naive()])}
    model = tsar.Ensemble(models=given, weights=weights, horizon=HORIZON).fit(days)
    model.save(tmp_path / "model")
    twin = tsar.load(tmp_path / "model")
    pd.testing.assert_frame_equal(twin.predict(9), model.predict(9), check_exact=True)
    pd.testing.assert_frame_equal(twin.predict(df=days[9:]), model.predict(df=days[9:]))
    assert isinstance(twin.models["net"], tsar.NLinear) and twin.models["net"].max_epochs == 1
    if weights == "stacking":
        pd.testing.assert_frame_equal(twin.weights_, model.weights_)
    pd.testing.assert_frame_equal(twin.fit(days).predict(), model.predict(), check_exact=True)


@pytest.mark.parametrize("weights", ["backtest", "stacking", "median"])
@pytest.mark.parametrize(
    "check",
    [
        forecasting.check_scale,
        forecasting.check_missing_values,
        forecasting.check_no_look_ahead,
        forecasting.check_variates,
        forecasting.check_constant_series,
    ],
    ids=checks.check_id,
)
def test_checks_hold_for_all_weights(check, weights):
    check(tsar.Ensemble(weights=weights, horizon=6))


@pytest.mark.parametrize("form", [dict, list])
@pytest.mark.parametrize(
    "check",
    [
        contract.check_clone,
        contract.check_refit_equals_fresh_fit,
        contract.check_pickle,
        contract.check_save_load,
    ],
    ids=checks.check_id,
)
def test_checks_hold_for_members_that_were_given(check, form):
    """The Ensemble of tests/test_checks.py has members of its own choice."""
    given = {"net": checks.small_forecaster(tsar.NLinear, max_epochs=1), "auto": tsar.AutoReg()}
    models = given if form is dict else list(given.values())
    model = tsar.Ensemble(models=models, weights="backtest", windows=2, horizon=6)
    check(model, forecasting.Forecasting())


@pytest.mark.parametrize(
    "models, message",
    [
        ([], "at least one forecaster"),
        ([tsar.Naive(), tsar.Naive()], "several of one class"),
        ({"a__b": tsar.Naive()}, "without '__', got 'a__b'"),
        ({"a": 3}, "models must be forecasters, got 3 as 'a'"),
        ([tsar.Naive], "models must be"),
        (
            [
                tsar.AutoReg(future_covariates="b"),
                tsar.NLinear(**SMALL, past_covariates=["b"]),
            ],
            "'b' must have one role, got past_covariates of NLinear and future_covariates",
        ),
        ([tsar.AutoReg(lags=())], "AutoReg: lags must be"),
    ],
)
def test_members_that_cannot_be(days, models, message):
    with pytest.raises(ParameterError, match=message):
        tsar.Ensemble(models=models, horizon=HORIZON).fit(days)


def test_too_much_is_held_out(days):
    model = tsar.Ensemble(models=[tsar.NLinear(**SMALL | {"context_length": 60}), tsar.Naive()])
    model.set_params(weights="stacking", horizon=8)
    with pytest.raises(DataError, match="holds out 40 rows .* NLinear: .* choose fewer windows"):
        model.fit(days)


def test_parameters_that_are_set_after_the_fit_do_not_reach_it(days, tmp_path):
    net = checks.small_forecaster(tsar.NLinear, max_epochs=1)
    model = tsar.Ensemble(models={"net": net}, horizon=6).fit(days)
    before = model.predict(df=days)
    model.set_params(net__past_covariates=["nowhere"], net__context_length=12)
    pd.testing.assert_frame_equal(model.predict(df=days), before, check_exact=True)
    model.save(tmp_path / "model")
    twin = tsar.load(tmp_path / "model")
    pd.testing.assert_frame_equal(twin.predict(df=days), before, check_exact=True)
    assert twin.models["net"].context_length == 24


def test_a_member_with_an_object_says_how_to_save_it(days, tmp_path):
    net = checks.small_forecaster(tsar.NLinear, max_epochs=1, loss=nn.MSELoss(reduction="none"))
    model = tsar.Ensemble(models={"net": net}, horizon=6).fit(days)
    with pytest.raises(PersistenceError, match="loss of the NLinear .* type MSELoss.*; name it"):
        model.save(tmp_path / "model")


def test_an_interrupt_in_a_member_ends_the_fit(wide):
    """What is half trained is no member, and the members after it are not begun."""
    seen = []

    def press(record):
        seen.append(record["epoch"])
        raise KeyboardInterrupt

    options = {"context_length": 24, "max_epochs": 3, "random_state": 0}
    members = [tsar.NLinear(**options), tsar.DLinear(**options)]
    model = tsar.Ensemble(models=members, horizon=6)
    with on_epoch(press), pytest.raises(KeyboardInterrupt):
        model.fit(wide)
    assert seen == [1] and not model.__sklearn_is_fitted__()


@pytest.mark.parametrize("weights", ["mean", "stacking"])
def test_what_all_trained_members_held_out_is_there_to_calibrate_on(days, weights):
    options = {"context_length": 8, "max_epochs": 1, "random_state": 0, "device": "cpu"}
    networks = {str(size): tsar.NLinear(early_stopping=size, **options) for size in (0.2, 0.4)}
    models = {**networks, "naive": tsar.Naive()}
    model = tsar.Ensemble(models=models, weights=weights, horizon=HORIZON).fit(days)
    held_out = [model.models_[name].learned_.held_out for name in networks]
    assert (held_out[0] < held_out[1]).any()
    expected = np.minimum(*held_out) if weights == "mean" else 0 * held_out[0]
    np.testing.assert_array_equal(model.learned_.held_out, expected)
