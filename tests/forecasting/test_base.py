"""What the base class promises beyond the public checks."""

import concurrent.futures
import inspect
import logging
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import tsar
from tsar.exceptions import (
    DataError,
    DataWarning,
    InterruptedWarning,
    ParameterError,
    TrainingError,
)

SMALL = {"context_length": 24, "horizon": 6, "max_epochs": 2, "random_state": 0, "device": "cpu"}


def test_forecast_windows_is_the_loop_of_predict(wide):
    model = tsar.NLinear(**SMALL).fit(wide[:150])
    cutoffs = [30, 111, 150, 205]
    windows = model.forecast_windows(wide, cutoffs)
    for window, cutoff in zip(windows, cutoffs, strict=True):
        np.testing.assert_allclose(window, model.predict(df=wide[:cutoff]), rtol=1e-5, atol=1e-5)


def test_forecast_windows_rejects_what_is_no_window(wide):
    model = tsar.Naive(horizon=2).fit(wide)
    for cutoffs in ([0], [len(wide) + 1]):
        with pytest.raises(DataError, match="cutoffs must lie in"):
            model.forecast_windows(wide, cutoffs)


def test_score_is_the_mean_absolute_error_of_rolling_forecasts(wide):
    model = tsar.SeasonalNaive(horizon=24).fit(wide[:120])
    truth = wide[120:]
    # By hand: each block of 24 hours is forecast by the 24 hours before it.
    expected = np.abs(truth.to_numpy() - wide.to_numpy()[96 : 96 + len(truth)]).mean()
    assert model.score(truth) == pytest.approx(-expected, rel=1e-12)


def test_score_of_a_series_that_does_not_follow(wide):
    model = tsar.Naive(horizon=3).fit(wide[:50])
    apart = wide[60:70]
    # Half of the rows are history; origins at 1 because Naive reads one row.
    values = apart.to_numpy()
    origins = np.repeat([0, 3, 6], 3)
    expected = np.abs(values[1:] - values[origins]).mean()
    assert model.score(apart) == pytest.approx(-expected)


def test_a_frame_in_the_first_place_is_data(wide):
    model = tsar.Naive(horizon=2).fit(wide)
    pd.testing.assert_frame_equal(model.predict(wide[:50]), model.predict(df=wide[:50]))


def test_a_horizon_may_follow_the_data(wide):
    model = tsar.Naive(horizon=2).fit(wide)
    expected = model.predict(horizon=7, df=wide[:50])
    pd.testing.assert_frame_equal(model.predict(wide[:50], 7), expected)
    pd.testing.assert_frame_equal(model.predict(wide[:50], horizon=7), expected)
    steps = make_pipeline(FunctionTransformer(), tsar.Naive(horizon=2))
    pd.testing.assert_frame_equal(steps.fit(wide).predict(wide[:50], horizon=7), expected)
    assert list(inspect.signature(model.predict).parameters)[:2] == ["horizon", "df"]
    with pytest.raises(TypeError, match="multiple values for .*argument 'df'"):
        model.predict(wide, df=wide)


@pytest.mark.parametrize("trained", [False, True])
def test_new_data_are_read_as_fitted_whatever_set_params_says(wide, trained):
    """What predict depends on is what was fitted; the parameters are for the next fit."""
    long = wide.reset_index(names="when").melt("when", var_name="who", value_name="sold")
    holes = long.drop(index=[30, 300])
    cls, options = (tsar.NLinear, SMALL) if trained else (tsar.Naive, {"horizon": 6})
    roles = {"id_column": "who", "time_column": "when", "target": "sold"}
    model = cls(**options, **roles, gaps="mask", freq="h").fit(long)
    new = holes.assign(who=holes["who"] + "2")
    expected = model.predict(df=new)
    score = model.score(new)
    others = {"id_column": None, "time_column": "ds", "target": "y", "gaps": "raise", "freq": "D"}
    if trained:
        others |= {"scaler": None, "future_covariates": ["price"], "calendar_features": True}
    model.set_params(**others)
    pd.testing.assert_frame_equal(model.predict(df=new), expected, check_exact=True)
    assert model.score(new) == score


def test_predict_keeps_the_fitted_horizon_after_set_params(wide):
    model = tsar.NLinear(**SMALL).fit(wide)
    before = model.predict()
    model.set_params(horizon=9, context_length=12)
    pd.testing.assert_frame_equal(model.predict(), before)


def test_a_known_series_keeps_its_statistics_a_new_one_brings_its_own(wide):
    long = wide.reset_index(names="ds").melt("ds", var_name="unique_id", value_name="y")
    model = tsar.NLinear(**SMALL).fit(long)
    moved = long[long["unique_id"] == "load"].assign(unique_id="new")
    moved["y"] = 1e5 + 1e3 * moved["y"]
    forecast = model.predict(df=pd.concat([long, moved])).set_index("unique_id")["y"]
    np.testing.assert_allclose((forecast["new"] - 1e5) / 1e3, forecast["load"], rtol=0.05, atol=0.3)


def test_a_series_without_history_is_forecast_at_the_level_of_the_others():
    stamps = pd.date_range("2024-01-01", periods=40)
    frame = pd.DataFrame({"unique_id": "a", "ds": stamps, "y": 10.0})
    other = frame.assign(unique_id="b", y=30.0)
    model = tsar.Naive(horizon=2).fit(pd.concat([frame, other]))
    silent = frame.assign(unique_id="c", y=np.nan)
    assert model.predict(df=silent)["y"].tolist() == [20.0, 20.0]
    assert model.predict(df=silent).attrs["short_history"] == ["c"]


def test_too_long_a_context_names_both_lengths(wide):
    with pytest.raises(DataError, match="need 230 rows, the longest series has 211"):
        tsar.NLinear(context_length=200, horizon=30).fit(wide)


def test_no_room_for_validation_is_said(wide):
    model = tsar.NLinear(context_length=190, horizon=20, max_epochs=1)
    with pytest.warns(DataWarning, match="without validation") as caught:
        model.fit(wide)
    # Whoever reads it finds the line of their own that led to it.
    assert caught[0].filename == __file__
    assert "val_loss" not in model.history_ and model.best_epoch_ == 1


def test_short_series_train_beside_long_ones(wide):
    long = wide.reset_index(names="ds").melt("ds", var_name="unique_id", value_name="y")
    short = long.groupby("unique_id").head(5).assign(unique_id=lambda f: f["unique_id"] + "s")
    with_short = tsar.NLinear(**SMALL).fit(pd.concat([long, short]))
    without = tsar.NLinear(**SMALL).fit(long)
    assert with_short.history_["train_loss"] != without.history_["train_loss"]
    assert np.isfinite(with_short.predict()["y"]).all()


def test_history_is_in_original_units_where_it_says_so(wide):
    model = tsar.NLinear(**SMALL).fit(wide)
    scaled = tsar.NLinear(**SMALL).fit(wide * 1000)
    np.testing.assert_allclose(
        scaled.history_["val_mae"], np.multiply(1000, model.history_["val_mae"]), rtol=1e-4
    )
    np.testing.assert_allclose(scaled.history_["val_loss"], model.history_["val_loss"], rtol=1e-4)


def test_validation_is_the_error_over_the_tail(wide):
    """By hand: the kept network on every window whose target lies in the tail."""
    model = tsar.NLinear(**SMALL, early_stopping=40).fit(wide)
    cutoffs = np.arange(len(wide) - 40, len(wide) - 6 + 1)
    forecast = model.forecast_windows(wide, cutoffs)
    truth = wide.to_numpy()[cutoffs[:, None] + np.arange(6)]
    assert min(model.history_["val_mae"]) == pytest.approx(
        np.abs(forecast - truth).mean(), rel=1e-5
    )
    scale = wide[: len(wide) - 40].std(ddof=0).to_numpy()
    loss = np.square((forecast - truth) / scale).mean()
    assert min(model.history_["val_loss"]) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"early_stopping": 3}, "early_stopping must hold out at least horizon=6 rows, got 3"),
        ({"quantiles": [0.1]}, "needs loss='quantile'"),
        ({"loss": "quantil"}, "did you mean 'quantile'"),
        ({"device": "tpu"}, "device must be one of"),
        ({"learning_rate": 0}, r"learning_rate must be a number in \(0, inf\) or None, got 0"),
        ({"context_length": 0}, r"NLinear: context_length must be an integer in .* or None, got 0"),
    ],
)
def test_bad_parameters_stop_before_any_work(wide, parameters, message):
    model = tsar.NLinear(**(SMALL | parameters))
    with pytest.raises(ParameterError, match=message):
        model.fit(wide)
    assert not hasattr(model, "module_")


def test_a_diverging_loss_is_one_error_and_leaves_the_old_fit(wide):
    model = tsar.NLinear(**SMALL).fit(wide)
    before = model.predict()
    with pytest.raises(TrainingError, match="learning_rate"):
        model.set_params(learning_rate=1e30, max_epochs=5).fit(wide)
    pd.testing.assert_frame_equal(model.predict(), before)


def test_an_interrupt_leaves_a_usable_model(wide, monkeypatch):
    steps = []

    def interrupt(self, inputs):
        steps.append(1)
        if len(steps) == 30:
            raise KeyboardInterrupt
        return forward(self, inputs)

    from tsar.forecasting.nlinear import NLinearNetwork

    forward = NLinearNetwork.forward
    monkeypatch.setattr(NLinearNetwork, "forward", interrupt)
    model = tsar.NLinear(**(SMALL | {"max_epochs": 50}))
    with pytest.warns(InterruptedWarning, match="training was interrupted after"):
        model.fit(wide)
    assert model.interrupted_ and model.n_epochs_ < 50
    assert np.isfinite(model.predict().to_numpy()).all()


def test_verbose_is_a_line_per_epoch(wide, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="tsar"):
        tsar.NLinear(**SMALL, verbose=1).fit(wide)
    assert len(caplog.records) == 2
    assert capsys.readouterr().out == ""


def test_log_lines_begin_on_a_line_of_their_own(wide, capsys, terminal):
    """As a terminal shows it: what follows a carriage return overwrites the line."""
    logger = logging.getLogger("tsar")
    handler = logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        tsar.NLinear(**SMALL, verbose=1).fit(wide)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    shown = [line.rpartition("\r")[2] for line in capsys.readouterr().err.split("\n")]
    assert [line for line in shown if line.startswith("epoch ")] == [
        line for line in shown if "epoch 1:" in line or "epoch 2:" in line
    ]
    assert len(shown) >= 3


def test_concurrent_fits_agree_with_one_alone(wide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = tsar.PatchTST(**SMALL).fit(wide).predict()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(lambda: tsar.PatchTST(**SMALL).fit(wide).predict()) for _ in range(8)]
        for job in jobs:
            pd.testing.assert_frame_equal(job.result(), alone, check_exact=True)
    assert os.listdir(tmp_path) == []


PROGRAM = """
import numpy as np, pandas as pd, tsar
index = pd.date_range("2024-01-01", periods=120, freq="h")
frame = pd.DataFrame({"a": np.sin(np.arange(120) / 4)}, index=index)
model = tsar.PatchTST(context_length=24, horizon=6, max_epochs=2, random_state=3, device="cpu")
print(model.fit(frame).predict().to_numpy().tobytes().hex())
"""


def test_two_processes_agree_bit_for_bit(capsys):
    exec(PROGRAM, {})
    here = capsys.readouterr().out
    there = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stdout
    assert len(here) > 50 and here == there


def test_missing_values_cost_little(published_data):
    """ETTh1 with a tenth of the values missing: the test error rises by at most 15 %."""
    frame = tsar.load_dataset("ETTh1")[["OT", "HUFL"]]
    holes = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.1)
    cutoffs = np.arange(11520, 14400 - 24, 24)
    truth = frame.to_numpy()[cutoffs[:, None] + np.arange(24)]
    scale = frame[:8640].std().to_numpy()
    errors = []
    for data in (frame, holes):
        model = tsar.NLinear(
            context_length=96, horizon=24, max_epochs=3, learning_rate=5e-3, random_state=0
        )
        model.fit(data[:11520])
        forecast = model.forecast_windows(data, cutoffs)
        errors.append(np.abs((forecast - truth) / scale).mean())
    assert errors[1] <= 1.15 * errors[0], errors


def test_a_quantile_never_overwrites_a_variate(wide):
    clash = wide.rename(columns={"trend": "load_q0.1"})
    model = tsar.NLinear(**SMALL, loss="quantile")
    with pytest.raises(ParameterError, match="'load_q0.1' would hold a quantile of 'load'"):
        model.fit(clash)
    assert not hasattr(model, "module_")


@pytest.mark.parametrize("freq", ["h", "D", "MS", "B", "QE"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_stamps_that_have_no_future_stop_before_training(freq, zone):
    """Nanoseconds end on 2262-04-11."""
    end = {"h": "2262-04-11 20:00", "QE": "2261-12-31"}.get(freq, "2262-04-01")
    index = pd.date_range(end=end, periods=60, freq=freq, tz=zone).as_unit("ns")
    series = pd.Series(np.arange(60.0), index=index)
    model = tsar.NLinear(context_length=8, horizon=12, max_epochs=1, device="cpu")
    with pytest.raises(DataError, match="NLinear: the stamps that follow 2.* do not fit"):
        model.fit(series)
    assert not hasattr(model, "module_")


@pytest.mark.parametrize("model", [tsar.NLinear, tsar.PatchTST])
def test_neighbours_change_no_bit(wide, model):
    long = wide.reset_index(names="ds").melt("ds", var_name="unique_id", value_name="y")
    fitted = model(**SMALL).fit(long)
    together = fitted.predict(df=long)
    for name, rows in long.groupby("unique_id"):
        expected = together[together["unique_id"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(fitted.predict(df=rows), expected, check_exact=True)


def test_values_beyond_float32_name_the_model(wide):
    with pytest.raises(DataError, match="NLinear: the values reach"):
        tsar.NLinear(**SMALL, scaler=None).fit(wide * 1e40)


@pytest.mark.parametrize("model", [tsar.NLinear, tsar.DLinear, tsar.PatchTST])
def test_a_variate_observed_only_in_the_validation_tail(wide, model):
    level = 500 + 10 * np.sin(np.arange(len(wide)))
    wide["new"] = np.where(np.arange(len(wide)) >= 180, level, np.nan)
    fitted = model(**SMALL).fit(wide)
    assert fitted.predict()["new"].between(450, 550).all()
    pd.testing.assert_frame_equal(fitted.predict(), fitted.predict(df=wide), check_exact=True)
    assert fitted.predict().attrs["short_history"] == []


def test_an_unobserved_tail_is_no_validation(wide):
    holes = wide.copy()
    holes.iloc[150:] = np.nan
    with pytest.warns(DataWarning, match="observed validation tail"):
        model = tsar.NLinear(**SMALL).fit(holes)
    assert "val_loss" not in model.history_ and model.n_epochs_ == 2


def test_a_failed_continuation_leaves_the_fitted_model(wide):
    model = tsar.NLinear(**SMALL).fit(wide)
    before = model.predict()
    model.set_params(learning_rate=1e30, max_epochs=5)
    with pytest.raises(TrainingError, match="NLinear"):
        model.partial_fit(wide)
    pd.testing.assert_frame_equal(model.predict(), before, check_exact=True)


def test_fit_does_not_depend_on_global_torch_settings(wide):
    expected = tsar.NLinear(**SMALL).fit(wide).predict()
    with torch.inference_mode():
        frozen = tsar.NLinear(**SMALL).fit(wide).predict()
    pd.testing.assert_frame_equal(frozen, expected, check_exact=True)


@pytest.mark.parametrize("cutoffs", [50, [[50]], [50.7], ["a"]])
def test_cutoffs_are_integers(wide, cutoffs):
    model = tsar.Naive(horizon=2).fit(wide)
    with pytest.raises(ParameterError, match="cutoffs must be a list or 1-D array of integers"):
        model.forecast_windows(wide, cutoffs)
    assert model.forecast_windows(wide, []).shape == (0, 2, 3)


@pytest.mark.parametrize("model", [tsar.NLinear, tsar.iTransformer])
@pytest.mark.parametrize("warm_start", [False, True])
def test_training_goes_on_with_columns_in_another_order(wide, model, warm_start):
    mixed = wide[["price", "load", "trend"]].astype({"load": "float32"})
    expected = model(**SMALL).fit(wide).partial_fit(wide.astype({"load": "float32"})).predict()
    found = model(**SMALL, warm_start=warm_start).fit(wide)
    found = (found.fit if warm_start else found.partial_fit)(mixed)
    pd.testing.assert_frame_equal(found.predict(), expected, check_exact=True)
    assert found.variates_ == list(wide.columns)
    assert expected["load"].dtype == "float32"
    other = wide.rename(columns={"price": "cost"})
    with pytest.raises(ParameterError, match="the network or the variates changed"):
        found.partial_fit(other)


def test_zones_with_the_same_clock_are_one_zone(wide):
    model = tsar.Naive(horizon=2).fit(wide.tz_localize("UTC"))
    later = wide.tz_localize("Etc/UTC") + 1
    forecast = model.predict(df=later)
    assert str(forecast.index.tz) == "Etc/UTC"
    np.testing.assert_array_equal(forecast, model.predict() + 1)
    assert model.score(later) == pytest.approx(model.score(wide.tz_localize("UTC") + 1))
    with pytest.raises(DataError, match="time zone UTC.*got timestamp, time zone Europe/London"):
        model.predict(df=wide.tz_localize("Europe/London"))


def test_a_series_is_told_from_a_frame(wide):
    of_series = tsar.Naive(horizon=2).fit(wide["load"])
    with pytest.raises(DataError, match=r"fitted on a Series, got .* 'load', .* df\['load'\]"):
        of_series.predict(df=wide)
    of_column = tsar.Naive(horizon=2).fit(wide[["load"]])
    with pytest.raises(DataError, match=r"got a Series; pass series.to_frame\('load'\)"):
        of_column.predict(df=wide["load"])
    with pytest.raises(DataError, match="the columns 'load', 'trend', 'price', got a Series"):
        tsar.Naive(horizon=2).fit(wide).predict(df=wide["load"])


def test_a_target_named_twice_stops_before_training(wide):
    with pytest.raises(DataError, match="NLinear: target: column 'load' is named twice"):
        tsar.NLinear(**SMALL, target=["load", "load"]).fit(wide)
