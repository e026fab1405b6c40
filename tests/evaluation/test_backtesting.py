"""Backtests against the loop of fit and predict that they stand for."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

import tsar
from tsar.checks import small_forecaster
from tsar.evaluation import backtest
from tsar.exceptions import DataError, DataWarning, ParameterError, own_warnings
from tsar.forecasting.registry import forecaster_class, forecaster_names

SMALL = {"context_length": 24, "horizon": 6, "max_epochs": 2, "random_state": 0, "device": "cpu"}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture
def long(wide):
    """Three series with ids, the last of them shorter."""
    stacked = wide.reset_index(names="ds").melt("ds", var_name="unique_id", value_name="y")
    return stacked[(stacked["unique_id"] != "price") | (stacked["ds"] >= "2024-03-03")]


def _by_hand(fitted, df, frame, horizon):
    """Predict from the rows before each cutoff, and pick what the backtest has in each row."""
    found = []
    for (name, cutoff), rows in frame.groupby(["id", "cutoff"], sort=False):
        own = df[(df["unique_id"] == name) & (df["ds"] < cutoff)]
        forecast = fitted.predict(horizon, df=own)
        assert forecast["ds"].tolist() == rows["time"].tolist()
        found.append(forecast["y"].to_numpy())
    return np.concatenate(found)


@pytest.mark.parametrize("horizon", [4, 6, 15])
def test_windows_are_the_loop_of_predict(long, horizon):
    start = long[long["ds"] < "2024-03-05"]
    fitted = tsar.NLinear(**SMALL).fit(start)
    frame = backtest(fitted, long, horizon=horizon, windows=3, step=5)
    assert list(frame.columns) == ["id", "cutoff", "time", "step", "y", "NLinear"]
    assert len(frame) == 3 * 3 * horizon
    np.testing.assert_allclose(frame["NLinear"], _by_hand(fitted, long, frame, horizon), **CLOSE)
    truth = frame.merge(long, left_on=["id", "time"], right_on=["unique_id", "ds"])
    np.testing.assert_array_equal(truth["y_x"], truth["y_y"])
    # Cutoffs end with the data, one step apart.
    ends = frame.groupby("id")["time"].max()
    assert (ends == long["ds"].max()).all()
    cutoffs = pd.Series(frame["cutoff"].unique())
    assert (cutoffs.diff().dropna() == pd.Timedelta(hours=5)).all()


def test_new_series_are_scaled_window_by_window(long, monkeypatch):
    """Their statistics are those of the rows before each cutoff, as in predict."""
    monkeypatch.setattr("tsar.forecasting.fitted.windowed.COPIED_VALUES", 300)
    fitted = tsar.NLinear(**SMALL).fit(long[long["unique_id"] == "trend"])
    frame = backtest(fitted, long[long["unique_id"] != "trend"], windows=4, step=3)
    expected = _by_hand(fitted, long, frame, 6)
    np.testing.assert_allclose(frame["NLinear"], expected, **CLOSE)


def test_series_constant_in_the_fit(wide):
    """Nothing that comes later gives them a scale."""
    data = wide[["load"]].copy()
    data.iloc[:100] = 3.0
    fitted = tsar.NLinear(**SMALL).fit(data[:100])
    altered = data.copy()
    altered.iloc[150:] *= 1e6
    for cutoff in (104, 130, 150):
        expected = fitted.predict(df=data[:cutoff]).to_numpy()
        for frame in (data, altered):
            np.testing.assert_allclose(fitted.forecast_windows(frame, [cutoff])[0], expected, 1e-5)


@pytest.mark.parametrize("refit", [True, 2])
def test_refits_are_the_loop_of_fit_and_predict(wide, refit):
    model = tsar.NLinear(**SMALL)
    frame = backtest(model, wide, windows=4, step=7, refit=refit)
    assert not hasattr(model, "horizon_")
    expected, fitted = [], None
    for number, cutoff in enumerate(range(211 - 6 - 21, 211 - 5, 7)):
        if refit is True or number % 2 == 0:
            fitted = tsar.NLinear(**SMALL).fit(wide[:cutoff])
        expected.append(fitted.predict(df=wide[:cutoff]).to_numpy().T)
    # (windows, variates, steps), while the frame goes variate by variate.
    expected = np.stack(expected, axis=1)
    np.testing.assert_allclose(frame["NLinear"], expected.reshape(-1), **CLOSE)
    assert frame["variate"].unique().tolist() == list(wide.columns)
    assert (frame["id"] == 0).all()


def test_an_unfitted_model_is_fitted_before_the_first_cutoff(long):
    model = tsar.NLinear(**SMALL)
    frame = backtest(model, long, windows=3)
    fitted = tsar.NLinear(**SMALL).fit(long[long["ds"] < frame["cutoff"].min()])
    pd.testing.assert_frame_equal(frame, backtest(fitted, long, windows=3), check_exact=True)


def test_every_form_gives_the_same(long):
    turned = long.sort_values("ds", kind="stable")
    forms = {"long": turned, "multi": long.set_index(["unique_id", "ds"])}
    frames = {name: backtest(tsar.NLinear(**SMALL), data) for name, data in forms.items()}
    order = ["id", "cutoff", "step"]
    one, other = (frame.sort_values(order, ignore_index=True) for frame in frames.values())
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    series = long[long["unique_id"] == "load"].set_index("ds")["y"].rename("load")
    alone = backtest(tsar.NLinear(**SMALL), series)
    frame = backtest(tsar.NLinear(**SMALL), series.to_frame())
    assert (alone["id"] == "load").all() and (frame["id"] == 0).all()
    pd.testing.assert_frame_equal(alone.drop(columns="id"), frame.drop(columns="id"))


def test_rows_that_continue_the_fit_have_its_history(wide):
    fitted = tsar.NLinear(**SMALL).fit(wide[:150])
    whole = backtest(fitted, wide, windows=10)
    rest = backtest(fitted, wide[151 - 1 :], windows=10)
    pd.testing.assert_frame_equal(whole, rest, check_exact=True)
    all_of_it = backtest(fitted, wide[150:156], windows=1)
    np.testing.assert_allclose(
        all_of_it["NLinear"], fitted.predict().to_numpy().T.reshape(-1), **CLOSE
    )


def test_quantiles_and_levels(wide):
    model = tsar.NLinear(**SMALL, loss="quantile", quantiles=[0.1, 0.25, 0.75, 0.9])
    fitted = model.fit(wide[:170])
    frame = backtest({"net": fitted}, wide, windows=2, level=[80, 50], quantiles=[0.1, 0.5])
    labels = ["net_q0.1", "net_q0.5", "net_lo80", "net_hi80", "net_lo50", "net_hi50"]
    assert list(frame.columns[6:]) == ["net", *labels]
    cutoff = frame["cutoff"].max()
    expected = fitted.predict(df=wide[wide.index < cutoff], quantiles=[0.1], level=50)
    rows = frame[(frame["variate"] == "trend") & (frame["cutoff"] == cutoff)]
    for label in ("q0.1", "lo50", "hi50"):
        np.testing.assert_allclose(rows[f"net_{label}"], expected[f"trend_{label}"], **CLOSE)
    with pytest.raises(ParameterError, match="NLinear: level=90 needs the quantiles 0.05 and"):
        backtest(fitted, wide[171:], level=90)


def test_distributions_give_any_level(wide):
    fitted = tsar.NLinear(**SMALL, loss="gaussian").fit(wide[:170])
    frame = backtest(fitted, wide, windows=3, level=72, quantiles=[0.3])
    cutoff = frame["cutoff"].max()
    expected = fitted.predict(df=wide[wide.index < cutoff], quantiles=[0.3], level=72)
    rows = frame[(frame["variate"] == "load") & (frame["cutoff"] == cutoff)]
    for label in ("q0.3", "lo72", "hi72"):
        np.testing.assert_allclose(rows[f"NLinear_{label}"], expected[f"load_{label}"], **CLOSE)


@pytest.mark.parametrize("loss", ["mse", "quantile"])
def test_calibrated_intervals(wide, long, loss):
    """Of fitted series, and of new ones."""
    fitted = tsar.NLinear(**SMALL, loss=loss)
    fitted.fit(long[long["unique_id"] != "price"]).calibrate(long[long["unique_id"] != "price"])
    with warnings.catch_warnings():
        # These rows were fitted, which is of no concern here.
        warnings.simplefilter("ignore", DataWarning)
        frame = backtest(fitted, long, windows=3, level=[60, 80])
    found = []
    for (name, cutoff), _ in frame.groupby(["id", "cutoff"], sort=False):
        own = long[(long["unique_id"] == name) & (long["ds"] < cutoff)]
        found.append(fitted.predict(df=own, level=[60, 80]))
    expected = pd.concat(found)
    for label in ("lo60", "hi60", "lo80", "hi80"):
        np.testing.assert_allclose(frame[f"NLinear_{label}"], expected[f"y_{label}"], **CLOSE)


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("name", ["NLinear", "Theta"])
def test_models_without_intervals_are_calibrated_before_the_cutoff(long, name, refit):
    """As by hand, and bit by bit the same whatever comes later."""
    make = {
        "NLinear": lambda: tsar.NLinear(**SMALL),
        "Theta": lambda: tsar.Theta(horizon=6, season_length=2),
    }[name]
    long = long[long["unique_id"] != "price"]
    frame = backtest(make(), long, windows=2, level=80, refit=refit)
    assert list(frame.columns[-3:]) == [name, f"{name}_lo80", f"{name}_hi80"]
    first, last = frame["cutoff"].min(), frame["cutoff"].max()
    before = long[long["ds"] < (last if refit else first)]
    fitted = make().fit(before).calibrate(before, level=80, refit=True)
    expected = fitted.predict(df=long[long["ds"] < last], level=80)
    rows = frame[frame["cutoff"] == last]
    for label in ("lo80", "hi80"):
        np.testing.assert_allclose(rows[f"{name}_{label}"], expected[f"y_{label}"], **CLOSE)
    later = long["ds"] >= last
    altered = long.assign(y=long["y"].where(~later, long["y"] * 3 + 1e4))
    again = backtest(make(), altered, windows=2, level=80, refit=refit)
    pd.testing.assert_frame_equal(
        again.drop(columns="y"), frame.drop(columns="y"), check_exact=True
    )


def test_levels_that_the_rows_before_a_cutoff_cannot_show(wide):
    data = wide[["load"]][:30]
    with pytest.raises(ParameterError, match="level=95 needs at least 19 windows"):
        backtest(tsar.Naive(horizon=6), data, windows=2, level=95)
    fitted = tsar.Naive(horizon=6).fit(data[:20])
    with pytest.raises(ParameterError, match=r"call calibrate\(df\)"):
        backtest(fitted, data, windows=1, level=80)


def test_future_covariates_come_from_the_frame(wide):
    data = wide[["load", "price"]].assign(plan=np.sin(np.arange(len(wide))))
    fitted = tsar.NLinear(**SMALL, future_covariates="plan", calendar_features=True)
    fitted.fit(data[:150])
    frame = backtest(fitted, data, horizon=4, windows=3, step=9)
    for cutoff, rows in frame.groupby("cutoff"):
        history = data[data.index < cutoff]
        after = data.loc[data.index >= cutoff, ["plan"]][:4]
        expected = fitted.predict(4, df=history, future=after).to_numpy().T
        np.testing.assert_allclose(rows["NLinear"], expected.reshape(-1), **CLOSE)


def test_covariates_of_new_series(long):
    data = long.assign(plan=np.sin(np.arange(len(long))), size=long["unique_id"].str.len())
    fitted = tsar.NLinear(
        **SMALL,
        future_covariates="plan",
        static_covariates="size",
        calendar_features=True,
        target="y",
    )
    fitted.fit(data[data["unique_id"] == "trend"])
    frame = backtest(fitted, data[data["unique_id"] != "trend"], windows=3, step=4)
    found = []
    for (name, cutoff), _ in frame.groupby(["id", "cutoff"], sort=False):
        own = data[data["unique_id"] == name]
        future = own.loc[own["ds"] >= cutoff, ["unique_id", "ds", "plan"]]
        found.append(fitted.predict(df=own[own["ds"] < cutoff], future=future)["y"])
    np.testing.assert_allclose(frame["NLinear"], np.concatenate(found), **CLOSE)


@pytest.mark.parametrize(
    ("name", "scaler"),
    [
        (name, scaler)
        for name in forecaster_names()
        for scaler in ("standard", None)
        if scaler or "scaler" in forecaster_class(name)().get_params()
    ],
)
def test_nothing_after_a_cutoff_reaches_its_forecast(wide, name, scaler):
    """Bit for bit, with one fit, with a fit at each cutoff, and for series never seen."""
    fresh = small_forecaster(forecaster_class(name), horizon=5)
    own = fresh.get_params()
    data = wide.iloc[:120].copy()
    data["load"] += np.where(np.arange(len(data)) % 17 == 3, np.nan, 0.0)
    if "scaler" in own:
        fresh.set_params(scaler=scaler, max_epochs=1)
    if "past_covariates" in own:
        data["heat"] = np.cos(np.arange(len(data)))
        fresh.set_params(past_covariates="heat")
    cutoff = data.index[-10]
    altered = data.copy()
    altered.loc[altered.index >= cutoff] = 1e6
    earlier = data.set_axis(data.index - pd.Timedelta(days=40))
    fitted = clone(fresh).fit(earlier)
    for model, refit in ((fresh, False), (fresh, True), (fitted, False)):
        honest = backtest(model, data, windows=3, step=5, refit=refit)
        # After a step up to 1e6 some autoregressions explode, and are caught.
        with own_warnings("ignore", DataWarning):
            disturbed = backtest(model, altered, windows=3, step=5, refit=refit)
        before = honest["cutoff"] <= cutoff
        assert 0 < before.sum() < len(before)
        pd.testing.assert_series_equal(
            disturbed.loc[before, name], honest.loc[before, name], check_exact=True
        )


def test_series_never_seen_do_not_look_ahead(long):
    fitted = tsar.NLinear(**SMALL).fit(long[long["unique_id"] == "trend"])
    rest = long[long["unique_id"] != "trend"]
    cutoff = rest["ds"].max() - pd.Timedelta(hours=12)
    altered = rest.assign(y=rest["y"].where(rest["ds"] < cutoff, 1e6))
    honest, disturbed = (backtest(fitted, data, windows=4, step=3) for data in (rest, altered))
    before = honest["cutoff"] <= cutoff
    assert before.sum() == 2 * 6
    pd.testing.assert_series_equal(
        disturbed.loc[before, "NLinear"], honest.loc[before, "NLinear"], check_exact=True
    )


def test_several_models_share_the_frame(wide):
    models = [tsar.Naive(horizon=3), tsar.SeasonalNaive(horizon=3, season_length=24)]
    frame = backtest(models, wide["load"], windows=6)
    assert list(frame.columns[-3:]) == ["y", "Naive", "SeasonalNaive"]
    values = wide["load"].to_numpy()
    np.testing.assert_array_equal(frame["y"], values[-18:])
    np.testing.assert_array_equal(frame["SeasonalNaive"], values[-42:-24])
    np.testing.assert_array_equal(frame["Naive"], np.repeat(values[-19:-1:3], 3))


def test_a_search_is_refitted_as_a_whole(wide):
    search = GridSearchCV(
        tsar.NLinear(**SMALL), {"context_length": [12, 24]}, cv=TimeSeriesSplit(2)
    )
    frame = backtest(search, wide[["load"]], windows=2)
    assert frame.columns[-1] == "NLinear" and not hasattr(search, "best_estimator_")
    fitted = search.fit(wide[["load"]][: 211 - 12])
    pd.testing.assert_frame_equal(frame, backtest(fitted, wide[["load"]], windows=2))


def test_gaps_time_zones_and_missing_truth(wide):
    data = (
        wide[["load"]]
        .tz_localize("Europe/Berlin")
        .drop(wide.index[205].tz_localize("Europe/Berlin"))
    )
    data.iloc[-1] = np.nan
    frame = backtest(tsar.Naive(horizon=4, gaps="mask"), data, windows=2)
    assert frame["time"].dtype == data.index.dtype
    assert frame["y"].isna().tolist() == [False, False, True, False, False, False, False, True]
    assert frame["time"].tolist()[2] == wide.index[205].tz_localize("Europe/Berlin")


def test_windows_longer_than_the_data(long):
    message = "backtest: windows=40 .* need 241 rows .* has 211; at most windows=35 fit"
    with pytest.raises(DataError, match=message):
        backtest(tsar.NLinear(**SMALL), long, windows=40)
    with pytest.raises(DataError, match="backtest: .* lie before the first cutoff: NLinear: cont"):
        backtest(tsar.NLinear(**SMALL), long[long["unique_id"] != "price"], windows=32)
    fitted = tsar.NLinear(**SMALL).fit(long[long["ds"] < "2024-03-01"])
    with pytest.warns(DataWarning, match="1 of 3 series are too short .* fewer: 'price'"):
        frame = backtest(fitted, long, windows=25)
    assert frame.groupby("id")["cutoff"].nunique().tolist() == [25, 19, 25]


def test_rows_a_model_was_fitted_on(wide):
    fitted = tsar.Naive(horizon=6).fit(wide[:200])
    with pytest.warns(
        DataWarning, match="Naive: 1 of 2 windows of the backtest forecast rows that the model was"
    ):
        backtest(fitted, wide, windows=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"windows": 0},
        {"windows": 2.5},
        {"step": -1},
        {"refit": 0},
        {"refit": "always"},
        {"level": 100},
        {"level": [80, 0]},
        {"horizon": 0.5},
        {"horizon": 0},
        {"quantiles": 0.3},
    ],
)
def test_wrong_arguments(wide, wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        backtest(tsar.Naive(horizon=3), wide, **wrong)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (tsar.Naive, "got the class Naive; write Naive()"),
        ("Naive", "got str"),
        ([], "got none"),
        ([tsar.Naive(), tsar.Naive()], "two called Naive"),
        ({"y": tsar.Naive()}, "cannot be called 'y'"),
        ({"a_q1": tsar.Naive(), "a": tsar.Naive()}, "'a_q1' beside one called 'a'"),
        ({"a": tsar.Naive(), "a_lo80": tsar.Naive()}, "'a_lo80' beside one called 'a'"),
    ],
)
def test_what_is_no_model(wide, model, message):
    with pytest.raises(ParameterError) as error:
        backtest(model, wide)
    assert message in str(error.value)
