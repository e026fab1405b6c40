"""New rows without a fit: the same forecasts as of all rows, and what is refused."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.exceptions import DataError, NotFittedError

NETWORK = {"context_length": 24, "max_epochs": 2, "random_state": 4, "device": "cpu"}
MODELS = {
    "NLinear": lambda: tsar.NLinear(horizon=6, **NETWORK),
    "quantiles": lambda: tsar.DLinear(horizon=6, loss="quantile", **NETWORK),
    "ARNet": lambda: tsar.ARNet(horizon=6, future_covariates=["event"], **NETWORK),
    "LagRegressor": lambda: tsar.LagRegressor(horizon=6, random_state=0),
    "SeasonalNaive": lambda: tsar.SeasonalNaive(horizon=6),
    "Mean": lambda: tsar.Mean(horizon=6),
    "Drift": lambda: tsar.Drift(horizon=6),
    "ETS": lambda: tsar.ETS(horizon=6),
    "Theta": lambda: tsar.Theta(horizon=6),
    "AutoReg": lambda: tsar.AutoReg(horizon=6, future_covariates=["event"]),
    "Ensemble": lambda: tsar.Ensemble(
        models={"network": tsar.NLinear(**NETWORK), "lags": tsar.AutoReg()},
        weights="backtest",
        horizon=6,
    ),
    "AutoForecaster": lambda: tsar.AutoForecaster(horizon=6, time_limit=1e-6, random_state=0),
    "TransformedTarget": lambda: tsar.TransformedTarget(
        model=tsar.NLinear(**NETWORK), transform="log1p", horizon=6
    ),
}


@pytest.fixture(scope="module")
def long():
    """Return 160 hours of three series that differ in size, with an event."""
    generator = np.random.default_rng(11)
    hours = pd.date_range("2024-03-01", periods=160, freq="h")
    wave = 5 + np.sin(2 * np.pi * np.arange(len(hours)) / 24)
    parts = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": hours,
                "y": size * (wave + 0.1 * generator.random(len(hours))),
                "event": generator.integers(0, 2, len(hours)),
            }
        )
        for name, size in (("b", 1.0), ("a", 40.0), ("c", 7.0))
    ]
    return pd.concat(parts, ignore_index=True)


def _until(frame, hour):
    return frame[frame["ds"] < pd.Timestamp("2024-03-01") + pd.Timedelta(hours=hour)]


def _from(frame, hour):
    return frame.drop(index=_until(frame, hour).index)


def _forecast(model, df=None):
    future = None
    if model.future_names:
        future = model.make_future_frame(df=df).fillna(1)
    return model.predict(df=df, future=future)


@pytest.mark.parametrize("name", MODELS)
def test_an_updated_model_forecasts_as_of_all_rows_bit_for_bit(name, long, tmp_path):
    model = MODELS[name]().fit(_until(long, 130))
    before = _forecast(model)
    expected = _forecast(model, long)
    assert not np.array_equal(before["y"], expected["y"])
    model.update(_from(_until(long, 131), 130)).update(_from(long, 131))
    pd.testing.assert_frame_equal(_forecast(model), expected, check_exact=True)
    pd.testing.assert_frame_equal(_forecast(model, long), expected, check_exact=True)
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    pd.testing.assert_frame_equal(_forecast(loaded), expected, check_exact=True)
    assert loaded.manifest_.updated_rows == 90
    assert loaded.manifest_.updated_to == str(long["ds"].max())


def test_some_of_the_series_go_on_and_the_others_stay(long):
    model = tsar.NLinear(horizon=6, **NETWORK).fit(_until(long, 130))
    before = model.predict()
    news = _from(long, 130).query("unique_id == 'a'")
    after = model.update(news).predict()
    one, other = (frame.query("unique_id != 'a'") for frame in (before, after))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    expected = model.predict(df=long).query("unique_id == 'a'")
    pd.testing.assert_frame_equal(
        after.query("unique_id == 'a'").reset_index(drop=True),
        expected.reset_index(drop=True),
        check_exact=True,
    )


@pytest.mark.parametrize("name", ["NLinear", "SeasonalNaive", "LagRegressor", "TransformedTarget"])
def test_new_series_are_added_where_one_model_forecasts_all(name, long):
    fitted = _until(long[long["unique_id"] != "c"], 130)
    model = MODELS[name]().fit(fitted)
    rows = pd.concat([_from(long[long["unique_id"] != "c"], 130), long[long["unique_id"] == "c"]])
    expected = model.predict(df=long)
    model.update(rows)
    assert model.n_series_ == 3
    pd.testing.assert_frame_equal(model.predict(), expected, check_exact=True)


@pytest.mark.parametrize("name", ["ETS", "Ensemble"])
def test_new_series_that_need_a_fit_are_refused_and_nothing_changes(name, long):
    model = MODELS[name]().fit(_until(long[long["unique_id"] != "c"], 130))
    before = model.predict()
    with pytest.raises(DataError, match="got 1 others, the first 'c'; fit again"):
        model.update(pd.concat([_from(long, 130), _until(long[long["unique_id"] == "c"], 130)]))
    pd.testing.assert_frame_equal(model.predict(), before, check_exact=True)


def test_gaps_and_overlaps_are_one_error_that_names_each(long):
    model = tsar.SeasonalNaive(horizon=6).fit(_until(long, 130))
    a, b = (long[long["unique_id"] == name] for name in "ab")
    before = model.predict()
    with pytest.raises(DataError, match="2 of 2 do not") as caught:
        model.update(pd.concat([_from(a, 129), _from(b, 132)]))
    assert "id 'a': overlap, begins at 2024-03-06 09:00:00" in str(caught.value)
    assert "must begin at 2024-03-06 10:00:00" in str(caught.value)
    assert caught.value.faults["kind"].tolist() == ["overlap", "gap"]
    pd.testing.assert_frame_equal(model.predict(), before, check_exact=True)
    with pytest.raises(DataError, match="overlap"):
        model.update(a).update(a)


def test_a_wide_frame_in_another_order_and_resolution_goes_on(wide):
    model = tsar.NLinear(horizon=6, **NETWORK).fit(wide[:180])
    expected = model.predict(df=wide)
    news = wide[180:][["price", "load", "trend"]]
    news.index = news.index.as_unit("s")
    pd.testing.assert_frame_equal(model.update(news).predict(), expected, check_exact=True)


def test_local_days_go_on_across_a_clock_change():
    days = pd.date_range("2024-03-01", "2024-04-20", tz="Europe/Berlin", freq="D")
    df = pd.DataFrame({"y": np.random.default_rng(1).random(len(days))}, index=days)
    model = tsar.SeasonalNaive(horizon=3).fit(df[:28])
    expected = model.predict(df=df)
    pd.testing.assert_frame_equal(model.update(df[28:]).predict(), expected, check_freq=False)


def test_missing_values_and_a_series_that_was_constant(wide):
    df = wide.copy()
    df.iloc[:180, 1] = 3.0
    df.iloc[170:205, 0] = np.nan
    model = tsar.NLinear(horizon=6, gaps="mask", **NETWORK).fit(df[:180])
    model.update(df[180:])
    once = model.predict()
    pd.testing.assert_frame_equal(model.predict(df=df), once, check_exact=True)
    assert np.isfinite(once.to_numpy()).all()


def test_other_variates_and_unfitted_models_are_refused(wide):
    with pytest.raises(NotFittedError):
        tsar.SeasonalNaive().update(wide)
    model = tsar.SeasonalNaive(horizon=6).fit(wide[:180])
    with pytest.raises(DataError, match="missing"):
        model.update(wide[180:][["load"]])
