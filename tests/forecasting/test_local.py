"""What all models of single series share: fallbacks, continuing, storing, several processes."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import tsar
from tsar.evaluation import backtest, compare
from tsar.exceptions import DataWarning, ParameterError, own_warnings

HORIZON = 5


def wave(n_rows, level, seed):
    rng = np.random.default_rng(seed)
    return level + 3 * np.sin(2 * np.pi * np.arange(n_rows) / 7) + rng.normal(size=n_rows)


def panel(**lengths):
    """Return daily series of some lengths in a long frame."""
    parts = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": pd.date_range("2024-01-01", periods=length),
                "y": wave(length, 10.0 * place, place),
            }
        )
        for place, (name, length) in enumerate(lengths.items(), start=1)
    ]
    return pd.concat(parts, ignore_index=True)


def values_of(forecast, name):
    return forecast.loc[forecast["unique_id"] == name, "y"].to_numpy()


@pytest.fixture
def weeks() -> pd.DataFrame:
    index = pd.date_range("2024-01-01", periods=80)
    return pd.DataFrame({"a": wave(80, 5.0, 1), "b": wave(80, -40.0, 2)}, index=index)


def test_what_cannot_be_estimated_is_forecast_by_seasonal_naive():
    frame = panel(short=9, good=60, tiny=2)
    frame.loc[7, "y"] = np.nan
    model = tsar.AutoReg(horizon=HORIZON)
    with pytest.warns(DataWarning, match=r"2 of 3 models .* \(the first: 18 observed") as caught:
        model.fit(frame)
    assert len(caught) == 1
    status = model.status_
    assert list(status.columns) == ["id", "variate", "status", "message"]
    assert status["id"].tolist() == ["short", "good", "tiny"]
    assert status["status"].tolist() == ["fallback", "ok", "fallback"]
    assert "18 observed rows are needed, there are 8" in status["message"][0]
    forecast = model.predict(9)
    naive = tsar.SeasonalNaive(horizon=9).fit(frame).predict()
    for name in ("short", "tiny"):
        np.testing.assert_array_equal(values_of(forecast, name), values_of(naive, name))
    alone = tsar.AutoReg(horizon=HORIZON).fit(frame[frame["unique_id"] == "good"]).predict(9)
    np.testing.assert_array_equal(values_of(forecast, "good"), values_of(alone, "good"))
    assert forecast.attrs["short_history"] == ["short", "tiny"]


def test_an_error_of_an_estimation_is_caught_and_told(weeks, monkeypatch):
    from statsmodels.regression.linear_model import OLS

    fit, season = OLS.fit, 7

    def fail_at_times(self, *args, **kwargs):
        # As many rows as have all lags.
        if self.endog.shape[0] == 70 - (season + 1):
            raise np.linalg.LinAlgError("SVD did not converge")
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(OLS, "fit", fail_at_times)
    weeks.loc[weeks.index[:10], "b"] = np.nan
    with pytest.warns(DataWarning, match="1 of 2 models"):
        model = tsar.AutoReg(horizon=HORIZON).fit(weeks)
    assert model.status_["status"].tolist() == ["ok", "fallback"]
    assert model.status_["message"][1] == "LinAlgError: SVD did not converge"
    naive = tsar.SeasonalNaive(horizon=HORIZON).fit(weeks).predict()
    # What failed once is not tried again by every forecast.
    np.testing.assert_array_equal(model.predict()["b"], naive["b"])
    np.testing.assert_array_equal(model.predict(df=weeks)["b"], naive["b"])


def test_a_series_without_values_is_no_failure():
    frame = panel(good=60, empty=50)
    frame.loc[frame["unique_id"] == "empty", "y"] = np.nan
    model = tsar.Theta(horizon=HORIZON).fit(frame)
    assert model.status_["status"].tolist() == ["ok", "unobserved"]
    good = frame.loc[frame["unique_id"] == "good", "y"]
    np.testing.assert_allclose(values_of(model.predict(), "empty"), good.mean())


def test_a_window_before_the_first_value_is_forecast_at_the_level_of_all(weeks):
    late = weeks.copy()
    late.iloc[:30, 0] = np.nan
    model = tsar.Theta(horizon=HORIZON).fit(late)
    windows = model.forecast_windows(late, [20, 75])
    np.testing.assert_allclose(windows[0, :, 0], late["a"].mean())
    assert (windows[0, :, 1] < -30).all() and np.ptp(windows[1, :, 0]) > 0.1


def test_a_series_from_its_beginning_keeps_its_parameters(weeks):
    model = tsar.AutoReg(horizon=HORIZON, lags=3).fit(weeks[:60])
    continued = model.predict(df=weeks)
    np.testing.assert_allclose(continued.to_numpy(), model.forecast_windows(weeks, [80])[0])
    assert not np.allclose(continued, tsar.AutoReg(horizon=HORIZON, lags=3).fit(weeks).predict())
    coarse = weeks.set_axis(weeks.index.as_unit("s"))
    np.testing.assert_array_equal(model.predict(df=coarse), continued)


def test_any_other_series_is_estimated_anew(weeks):
    model = tsar.AutoReg(horizon=HORIZON, lags=3).fit(weeks[:60])
    # Without its beginning, later, and with a first observation elsewhere.
    holed = weeks.copy()
    holed.iloc[:2, 0] = np.nan
    for frame in (weeks[1:], weeks[20:], holed):
        anew = tsar.AutoReg(horizon=HORIZON, lags=3).fit(frame).predict()
        np.testing.assert_array_equal(model.predict(df=frame)["a"], anew["a"])
    kept = model.predict(df=weeks)["b"]
    np.testing.assert_array_equal(model.predict(df=holed)["b"], kept)
    new = model.predict(df=weeks.assign(c=weeks["a"] * 2), allow_new_variates=True)
    alone = tsar.AutoReg(horizon=HORIZON, lags=3).fit(weeks[["a"]] * 2).predict()
    np.testing.assert_allclose(new["c"], alone["a"], rtol=1e-9)


def test_new_ids_are_estimated_on_their_own_rows():
    frame = panel(a=60, b=50)
    model = tsar.Theta(horizon=HORIZON).fit(frame[frame["unique_id"] == "a"])
    both = model.predict(df=frame)
    np.testing.assert_array_equal(values_of(both, "a"), model.predict()["y"])
    alone = tsar.Theta(horizon=HORIZON).fit(frame[frame["unique_id"] == "b"]).predict()
    np.testing.assert_array_equal(values_of(both, "b"), alone["y"])


def test_a_window_of_an_unknown_series_knows_nothing_after_its_origin(weeks):
    model = tsar.AutoReg(horizon=HORIZON, lags=2).fit(weeks[5:60])
    altered = weeks.copy()
    altered.iloc[50:] = 1e6
    honest = model.forecast_windows(weeks, [45, 50])
    np.testing.assert_array_equal(model.forecast_windows(altered, [45, 50]), honest)
    anew = tsar.AutoReg(horizon=HORIZON, lags=2).fit(weeks[:45]).predict()
    np.testing.assert_array_equal(honest[0], anew.to_numpy())


def test_score_continues_the_fitted_series(weeks):
    model = tsar.AutoReg(horizon=HORIZON, lags=3).fit(weeks[:60])
    windows = model.forecast_windows(weeks, np.arange(60, 80, HORIZON))
    truth = weeks.to_numpy()[60:].reshape(windows.shape)
    assert model.score(weeks[60:]) == pytest.approx(-np.abs(windows - truth).mean(), rel=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        tsar.AutoReg(horizon=HORIZON, target="y", future_covariates="cost"),
        tsar.ARIMA(horizon=HORIZON, order=(1, 0, 0), target="y", future_covariates="cost"),
        tsar.ETS(horizon=HORIZON, initialization="heuristic"),
        tsar.Theta(horizon=HORIZON),
        tsar.STLETS(horizon=HORIZON),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("known", [True, False])
def test_a_backtest_knows_nothing_after_its_cutoffs(model, known):
    frame = panel(a=60, b=55)
    frame["cost"] = np.sin(np.arange(len(frame)))
    if known:
        model = clone(model)
    else:
        model = clone(model).fit(frame[frame["unique_id"] == "a"][:40])
        frame = frame[frame["unique_id"] == "b"]
    cutoff = pd.Timestamp("2024-02-15")
    altered = frame.assign(y=frame["y"].where(frame["ds"] < cutoff, 1e6))
    # An id that ends earlier begins its windows earlier: what is fitted on is the same.
    honest = backtest(model, frame, windows=3, step=4)
    # After a step up to 1e6 some autoregressions explode, and are caught.
    with own_warnings("ignore", DataWarning):
        disturbed = backtest(model, altered, windows=3, step=4)
    before = honest["cutoff"] <= cutoff
    name = honest.columns[-1]
    assert before.any() and np.isfinite(honest[name]).all()
    np.testing.assert_array_equal(disturbed.loc[before, name], honest.loc[before, name])


def test_a_loaded_model_goes_on_alike(weeks, tmp_path):
    frame = weeks.assign(cost=wave(80, 0.0, 9))
    model = tsar.ARIMA(
        horizon=HORIZON, order=(1, 0, 0), target=["a", "b"], future_covariates="cost"
    )
    model.fit(frame[:60]).save(tmp_path / "model")
    twin = tsar.load(tmp_path / "model")
    pd.testing.assert_frame_equal(twin.status_, model.status_)
    future = model.make_future_frame(df=frame).assign(cost=0.5)
    for longer in (frame, frame[10:]):
        pd.testing.assert_frame_equal(
            twin.predict(df=longer, future=future), model.predict(df=longer, future=future)
        )


def test_a_change_of_parameters_waits_for_the_next_fit(weeks):
    model = tsar.AutoReg(horizon=HORIZON, lags=3).fit(weeks)
    before = model.predict()
    pd.testing.assert_frame_equal(model.set_params(lags=9).predict(), before)


def test_forecasts_do_not_depend_on_the_number_of_processes():
    frame = panel(a=60, b=50, c=40)
    alone = tsar.Theta(horizon=HORIZON).fit(frame)
    together = tsar.Theta(horizon=HORIZON, n_jobs=2).fit(frame)
    pd.testing.assert_frame_equal(together.status_, alone.status_)
    pd.testing.assert_frame_equal(together.predict(), alone.predict(), check_exact=True)


@pytest.mark.parametrize("n_jobs", [0, -2, 1.5])
def test_a_number_of_processes_that_is_none(weeks, n_jobs):
    with pytest.raises(ParameterError, match="Theta: n_jobs must be an integer"):
        tsar.Theta(n_jobs=n_jobs).fit(weeks)


def test_the_first_warnings_of_a_process_are_held_back_too():
    """Filters that statsmodels makes when it is imported do not go before ours, and do not stay."""
    code = """
import warnings, numpy as np, pandas as pd, tsar
before = warnings.filters[:]
index = pd.date_range("2024-01-01", periods=40)
# A straight line is known from two of its values: three lags are one too many.
tsar.AutoReg(horizon=3, lags=3).fit(pd.Series(np.arange(40.0), index=index)).predict()
assert warnings.filters == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


# ------------------------------------------------------------- what failed, and who is told


def exploding(n_rows=60):
    """Return a series whose autoregression explodes: it steps up at its end."""
    y = wave(n_rows, 10.0, 0)
    y[-2:] = 1e6
    return y


@pytest.fixture
def two() -> pd.DataFrame:
    frame = panel(good=60, bad=60)
    frame.loc[frame["unique_id"] == "bad", "y"] = exploding()
    return frame


def test_a_forecast_far_outside_falls_back_and_says_so(two):
    with pytest.warns(DataWarning, match="1 of 2 models failed, SeasonalNaive .*far outside"):
        model = tsar.AutoReg(horizon=HORIZON).fit(two)
    assert model.status_["status"].tolist() == ["ok", "fallback"]
    forecast = model.predict()
    naive = tsar.SeasonalNaive(horizon=HORIZON).fit(two).predict()
    np.testing.assert_array_equal(values_of(forecast, "bad"), values_of(naive, "bad"))
    assert forecast.attrs["fallback"] == {"bad": model.status_["message"][1]}
    alone = tsar.AutoReg(horizon=HORIZON).fit(two[two["unique_id"] == "good"]).predict()
    np.testing.assert_array_equal(values_of(forecast, "good"), values_of(alone, "good"))


def test_a_series_estimated_by_predict_is_guarded_as_well(two):
    model = tsar.AutoReg(horizon=HORIZON).fit(two[two["unique_id"] == "good"])
    with pytest.warns(DataWarning, match="forecasts of 1 of 2 series failed") as caught:
        forecast = model.predict(df=two)
    assert len(caught) == 1 and list(forecast.attrs["fallback"]) == ["bad"]
    with own_warnings("ignore", DataWarning):
        fitted = tsar.AutoReg(horizon=HORIZON).fit(two).predict()
    pd.testing.assert_frame_equal(forecast, fitted)


@pytest.mark.parametrize("missing", [[], [3, 20, 21], [58]])
@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e30, 1e100])
def test_the_guard_does_not_depend_on_units(factor, missing):
    index = pd.date_range("2024-01-01", periods=60)
    frame = pd.DataFrame({"good": wave(60, 5.0, 1), "bad": exploding()}, index=index) * factor
    frame.iloc[missing] = np.nan
    model = tsar.AutoReg(horizon=HORIZON)
    with pytest.warns(DataWarning, match="1 of 2 models failed"):
        forecast = model.fit(frame).predict()
    assert model.status_["status"].tolist() == ["ok", "fallback"]
    assert list(forecast.attrs["fallback"]) == ["bad"]
    with own_warnings("ignore", DataWarning):
        plain = tsar.AutoReg(horizon=HORIZON).fit(frame / factor).predict()
    np.testing.assert_allclose(forecast / factor, plain, rtol=1e-6)


@pytest.mark.parametrize("kind", ["trend", "rise", "level"])
def test_all_models_leave_plain_series_alone(kind):
    t = np.arange(48.0)
    y = {"trend": 3 * t, "rise": 1.03**t, "level": np.full(48, 2.0)}[kind]
    y = pd.Series(y + 5, index=pd.date_range("2020-01-01", periods=48, freq="MS"))
    for model in (
        tsar.AutoReg(),
        tsar.ARIMA(order=(0, 1, 1)),
        tsar.ETS(initialization="heuristic"),
        tsar.Theta(),
        tsar.STLETS(),
    ):
        model.set_params(horizon=24).fit(y)
        assert model.status_["status"].tolist() == ["ok"], model
        assert model.predict(48).attrs["fallback"] == {}


def test_a_longer_horizon_falls_back_from_where_it_explodes():
    """What is within the fitted horizon is the same, whatever is asked for."""
    index = pd.date_range("2024-01-01", periods=40)
    y = pd.Series(1.25 ** np.arange(40.0) + np.sin(np.arange(40)), index=index)
    model = tsar.AutoReg(horizon=3, lags=1).fit(y)
    assert model.status_["status"].tolist() == ["ok"]
    short = model.predict()
    with pytest.warns(DataWarning, match="forecasts of 1 of 1 series failed"):
        long = model.predict(200)
    np.testing.assert_array_equal(long[:3], short)
    naive = tsar.SeasonalNaive(horizon=200).fit(y).predict()
    begin = int(np.flatnonzero(long.to_numpy() == naive.to_numpy())[0])
    assert begin > 40
    np.testing.assert_array_equal(long[begin:], naive[begin:])
    with own_warnings("ignore", DataWarning):
        np.testing.assert_array_equal(model.predict(120)[:100], long[:100])


def test_results_of_backtests_and_intervals_are_those_of_the_fallback(two):
    frame = two[two["unique_id"] == "bad"]
    cutoffs = {"windows": 1, "level": 80}
    with pytest.warns(DataWarning, match="1 of 1 models failed") as caught:
        tested = backtest(tsar.AutoReg(horizon=1), frame, **cutoffs)
    assert len(caught) == 1
    expected = backtest(tsar.SeasonalNaive(horizon=1), frame, **cutoffs)
    np.testing.assert_array_equal(tested["AutoReg"], expected["SeasonalNaive"])
    assert np.isfinite(tested[["AutoReg_lo80", "AutoReg_hi80"]]).all().all()


def test_comparisons_and_ensembles_warn_once_and_say_so(two):
    steps = two.copy()
    steps.iloc[-4:, 2] = 1e6
    models = {"one": tsar.AutoReg(horizon=1), "two": tsar.AutoReg(horizon=1, lags=5)}
    with pytest.warns(DataWarning, match="1 of 2 models failed") as caught:
        board = compare(models, steps, windows=3, step=1, refit=True)
    # Two models, fitted three times.
    kinds = [str(one.message) for one in caught]
    assert len(kinds) == 1 and kinds[0].endswith("times]")
    status = board.frame.set_index("model")["status"]
    assert status["SeasonalNaive"] == "ok"
    assert status["one"].startswith("fallback in ") and status["one"].endswith(" of 6 windows")
    assert "fallback in" in str(board)
    with pytest.warns(DataWarning, match="AutoReg: 1 of 2 models failed") as caught:
        mixed = tsar.Ensemble(horizon=HORIZON).fit(two)
    assert len(caught) == 1
    assert mixed.predict().attrs["fallback"]["bad"].startswith("AutoReg: step")
