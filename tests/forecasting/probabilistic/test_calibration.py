"""Calibrated intervals of fitted forecasters: coverage, closed forms, what is kept and refused."""

import warnings

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.evaluation import backtest
from tsar.exceptions import DataError, InterruptedWarning, NotFittedError, ParameterError

HORIZON = 4


def _panel(n_series: int, rows: int, seed: int = 0) -> pd.DataFrame:
    """Stationary autoregressions on scales from 0.1 to 100."""
    rng = np.random.default_rng(seed)
    values = np.zeros((n_series, rows + 50))
    noise = rng.normal(size=values.shape)
    for step in range(1, rows + 50):
        values[:, step] = 0.7 * values[:, step - 1] + noise[:, step]
    values = values[:, 50:] * np.geomspace(0.1, 100, n_series)[:, None]
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(n_series), rows),
            "ds": np.tile(np.arange(rows), n_series),
            "y": values.ravel(),
        }
    )


def _linear(**options) -> tsar.NLinear:
    settings = {"context_length": 8, "horizon": HORIZON, "max_epochs": 3, "random_state": 0}
    return tsar.NLinear(**(settings | {"device": "cpu", "batch_size": 128} | options))


def _naive(**options) -> tsar.SeasonalNaive:
    return tsar.SeasonalNaive(horizon=HORIZON, season_length=2, **options)


MODELS = {
    "naive": _naive,
    "linear": _linear,
    "quantiles": lambda: _linear(loss="quantile", quantiles=[0.2, 0.8]),
    "gaussian": lambda: _linear(loss="gaussian"),
}


@pytest.mark.parametrize("name", MODELS)
def test_intervals_cover_at_every_step(name):
    """90 % intervals of a stationary panel cover 88 to 92 % of what comes later, and 50 % half."""
    panel = _panel(100, 400)
    fitted = panel[panel["ds"] < 200]
    model = MODELS[name]().fit(fitted).calibrate(fitted)
    inside = {50: [], 90: []}
    for cutoff in range(200, 396, 6):
        forecast = model.predict(df=panel[panel["ds"] < cutoff], level=[50, 90])
        truth = panel[(panel["ds"] >= cutoff) & (panel["ds"] < cutoff + HORIZON)]["y"].to_numpy()
        for level, found in inside.items():
            within = (forecast[f"y_lo{level}"] <= truth) & (truth <= forecast[f"y_hi{level}"])
            found.append(within.to_numpy().reshape(-1, HORIZON))
    assert (np.abs(np.concatenate(inside[90]).mean(axis=0) - 0.9) <= 0.02).all()
    assert (np.abs(np.concatenate(inside[50]).mean(axis=0) - 0.5) <= 0.05).all()


@pytest.mark.parametrize("method", ["aci", "pid"])
def test_adaptive_intervals_follow_a_change(method):
    """Noise that trebles in the last third: what covers now, not what covered on the whole."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=900)
    values[600:] *= 3
    series = pd.Series(values, index=pd.RangeIndex(900))
    model = _naive().fit(series[:20])
    still = model.calibrate(series[:800]).predict(df=series[:800], level=90)
    moved = model.calibrate(series[:800], method=method).predict(df=series[:800], level=90)

    def width(frame: pd.DataFrame) -> np.ndarray:
        return (frame["y_hi90"] - frame["y_lo90"]).to_numpy()

    # Twice 1.645 deviations of a difference of two values.
    right = 2 * 1.645 * 3 * np.sqrt(2)
    assert (np.abs(width(moved) - right) < np.abs(width(still) - right)).all()
    np.testing.assert_allclose(width(moved), right, rtol=0.3)


def _split_by_hand(series: pd.Series, begin: int, level: float) -> np.ndarray:
    """Half widths of the intervals of a seasonal naive forecast with a season of 2."""
    values, found = series.to_numpy(), []
    for step in range(HORIZON):
        errors = [
            abs(values[cutoff + step] - values[cutoff - 2 + step % 2])
            for cutoff in range(begin, len(values) - step)
        ]
        found.append(sorted(errors)[int(np.ceil((len(errors) + 1) * level / 100)) - 1])
    return np.array(found)


def test_split_conformal_is_the_closed_form():
    series = pd.Series(np.random.default_rng(3).normal(size=60), index=pd.RangeIndex(60))
    model = _naive().fit(series).calibrate(series)
    found = model.predict(level=[50, 90])
    for level in (50, 90):
        expected = _split_by_hand(series, 2, level)
        np.testing.assert_array_equal(found[f"y_lo{level}"], found["y"] - expected)
        np.testing.assert_array_equal(found[f"y_hi{level}"], found["y"] + expected)


def test_quantile_regression_is_moved_by_the_closed_form():
    series = pd.Series(np.random.default_rng(3).normal(size=90), index=pd.RangeIndex(90))
    model = _linear(loss="quantile", quantiles=[0.2, 0.8]).fit(series[:60])
    plain = model.predict(df=series, quantiles=[0.2, 0.8])
    found = model.calibrate(series).predict(df=series, level=[20, 80])
    # The last fifth of what was fitted was held out, and what follows was not seen either.
    scores = [[] for _ in range(HORIZON)]
    for cutoff in range(48, 90):
        bounds = model.predict(df=series[:cutoff], quantiles=[0.2, 0.8])
        for step in range(min(HORIZON, 90 - cutoff)):
            low, high = bounds["y_q0.2"].iloc[step], bounds["y_q0.8"].iloc[step]
            y = series[cutoff + step]
            scores[step].append(max(low - y, y - high))
    for level in (20, 80):
        margin = [sorted(s)[int(np.ceil((len(s) + 1) * level / 100)) - 1] for s in scores]
        low = np.minimum(plain["y_q0.2"] - margin, plain["y"])
        high = np.maximum(plain["y_q0.8"] + margin, plain["y"])
        np.testing.assert_allclose(found[f"y_lo{level}"], low, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found[f"y_hi{level}"], high, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["split", "cqr", "aci", "pid"])
@pytest.mark.parametrize("name", ["quantiles", "gaussian"])
def test_intervals_nest_around_the_point_forecast(name, method):
    panel = _panel(3, 150)
    model = MODELS[name]().fit(panel).calibrate(panel, method=method, level=[10, 50, 80])
    forecast = model.predict(level=[50, 10, 80])
    columns = ["y_lo80", "y_lo50", "y_lo10", "y", "y_hi10", "y_hi50", "y_hi80"]
    assert list(forecast.columns)[2:] == [
        *("y", "y_lo50", "y_hi50", "y_lo10", "y_hi10", "y_lo80", "y_hi80")
    ]
    assert (np.diff(forecast[columns], axis=1) >= 0).all()
    pd.testing.assert_frame_equal(forecast[["unique_id", "ds", "y"]], model.predict())


@pytest.mark.parametrize("method", ["split", "cqr", "aci", "pid"])
def test_a_calibration_is_saved(method, tmp_path):
    panel = _panel(3, 150)
    model = _linear(loss="gaussian").fit(panel).calibrate(panel, method=method)
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    for asked in ({"level": [80, 90]}, {"level": 95, "df": panel[panel["ds"] < 90]}):
        if method in ("split", "cqr"):
            asked = asked | {"level": [70, 81.5]}
        pd.testing.assert_frame_equal(loaded.predict(**asked), model.predict(**asked))
    again = model.fit(panel)
    assert again.predict(level=80)["y_lo80"].equals(again.predict(quantiles=[0.1])["y_q0.1"])


def test_only_rows_that_were_not_trained_on_count():
    """Errors on the training rows are zero here, and those of the held-out tail are not."""
    panel = _panel(1, 100)
    model = _linear(early_stopping=30).fit(panel)
    altered = panel.copy()
    altered.loc[altered["ds"] < 70 - 8, "y"] += 1e3
    expected = model.calibrate(panel).predict(level=50)
    pd.testing.assert_frame_equal(model.calibrate(altered).predict(level=50), expected)
    altered.loc[70, "y"] += 1e3
    assert not model.calibrate(altered).predict(level=50).equals(expected)
    # Longer and shorter frames hold the same row of the fit at other places.
    shorter = panel[panel["ds"] >= 40]
    pd.testing.assert_frame_equal(model.calibrate(shorter).predict(level=50), expected)
    whole = _linear(early_stopping=False).fit(panel)
    with pytest.raises(DataError, match="calibrate needs rows that the model was not trained on"):
        whole.calibrate(panel)
    later = panel.assign(ds=panel["ds"] + 100)
    assert whole.calibrate(later).predict(level=80).shape == (HORIZON, 5)


def test_stamps_of_another_resolution_are_the_same_times():
    days = pd.date_range("2024-01-01", periods=100, freq="D")
    series = pd.Series(np.random.default_rng(0).normal(size=100), index=days.as_unit("ns"))
    model = _linear().fit(series)
    expected = model.calibrate(series).predict(level=80)
    coarse = series.set_axis(days.as_unit("s"))
    pd.testing.assert_frame_equal(model.calibrate(coarse).predict(level=80), expected)


def test_series_that_were_not_calibrated_have_intervals_of_their_size():
    panel = _panel(5, 200)
    model = _naive().fit(panel).calibrate(panel)
    new = panel[panel["unique_id"] == 0].assign(unique_id="new")
    for factor in (1.0, 1e3):
        scaled = new.assign(y=new["y"] * factor)
        forecast = model.predict(df=scaled, level=80)
        known = model.predict(df=new.assign(unique_id=0), level=80)
        width, usual = (f["y_hi80"] - f["y_lo80"] for f in (forecast, known))
        np.testing.assert_allclose(width, usual * factor, rtol=0.3)


def test_a_panel_of_any_scale_has_intervals_in_its_units():
    panel = _panel(4, 120)
    expected = _naive().fit(panel).calibrate(panel).predict(level=80)["y_lo80"]
    large = panel.assign(y=panel["y"] * 1e6)
    found = _naive().fit(large).calibrate(large).predict(level=80)["y_lo80"]
    np.testing.assert_allclose(found, expected * 1e6, rtol=1e-6)


def test_constant_series_among_others_have_no_width():
    panel = _panel(4, 120)
    panel.loc[panel["unique_id"] == 2, "y"] = 7.0
    forecast = _naive().fit(panel).calibrate(panel).predict(level=80)
    constant = forecast[forecast["unique_id"] == 2]
    np.testing.assert_allclose(constant[["y", "y_lo80", "y_hi80"]], 7.0)
    assert np.isfinite(forecast["y_hi80"]).all()


def test_nothing_is_fitted_again(monkeypatch):
    panel = _panel(2, 150)
    model = _linear().fit(panel)
    weights = {name: value.clone() for name, value in model.module_.state_dict().items()}
    monkeypatch.setattr(tsar.NLinear, "_learn", None)
    model.calibrate(panel).predict(level=80)
    assert all((value == weights[name]).all() for name, value in model.module_.state_dict().items())


def _without_last(panel: pd.DataFrame, rows: int) -> pd.DataFrame:
    lengths = panel.groupby("unique_id")["y"].transform("size")
    return panel[panel.groupby("unique_id").cumcount() < lengths - rows]


REFITTED = {
    "autoreg": lambda: tsar.AutoReg(horizon=HORIZON, season_length=1),
    "linear": lambda: _linear(early_stopping=False),
    "ensemble": lambda: tsar.Ensemble(models=[tsar.AutoReg(), _linear()], horizon=HORIZON),
}


@pytest.mark.parametrize("name", REFITTED)
def test_a_copy_without_the_last_rows_stands_in(name):
    """Its intervals, around the forecasts of the model that read all rows."""
    panel = _panel(3, 100)
    whole = REFITTED[name]().fit(panel)
    with pytest.raises(DataError, match=r"calibrate\(df, refit=True\)"):
        whole.calibrate(panel)
    less = REFITTED[name]().fit(_without_last(panel, 20)).calibrate(panel, level=80)
    expected, point = less.predict(df=panel, level=[50, 80]), whole.predict()
    found = whole.calibrate(panel, level=80, refit=True).predict(level=[50, 80])
    np.testing.assert_array_equal(found["y"], point["y"])
    assert (found["y"] - expected["y"]).abs().max() > 0
    for column in ("y_lo50", "y_hi50", "y_lo80", "y_hi80"):
        reach = expected[column] - expected["y"]
        np.testing.assert_allclose(found[column] - found["y"], reach, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("n_series", "rows", "level", "held_out"),
    [
        # A fifth of the rows; what a level takes; less of each where there are several; a half.
        (1, 200, 80, 40),
        (1, 60, 95, HORIZON - 1 + 19),
        (4, 20, 95, HORIZON - 1 + 5),
        (1, 20, 80, HORIZON - 1 + 4),
        (3, 8, 50, HORIZON),
    ],
)
def test_rows_that_are_held_out(n_series, rows, level, held_out, monkeypatch):
    panel = _panel(n_series, rows)
    model = tsar.AutoReg(horizon=HORIZON, season_length=1).fit(panel)
    seen = []
    plain = tsar.AutoReg.fit_panel

    def fit_panel(self, part, go_on):
        seen.append(part.lengths)
        return plain(self, part, go_on)

    monkeypatch.setattr(tsar.AutoReg, "fit_panel", fit_panel)
    model.calibrate(panel, level=level, refit=True)
    (lengths,) = seen
    np.testing.assert_array_equal(lengths, rows - held_out)
    assert (model.calibration_.counts[-1] == n_series * (held_out - HORIZON + 1)).all()


def test_what_was_held_out_in_fit_is_enough(monkeypatch):
    panel = _panel(2, 150)
    model = _linear().fit(panel)
    expected = model.calibrate(panel).predict(level=80)
    monkeypatch.setattr(tsar.NLinear, "_learn", None)
    found = model.calibrate(panel, level=80, refit=True).predict(level=80)
    pd.testing.assert_frame_equal(found, expected)
    naive = _naive().fit(panel)
    pd.testing.assert_frame_equal(
        naive.calibrate(panel, refit=True).predict(level=80),
        naive.calibrate(panel).predict(level=80),
    )


def test_a_copy_for_what_was_held_out_is_too_little_for_a_level():
    series = pd.Series(np.random.default_rng(3).normal(size=60), index=pd.RangeIndex(60))
    model = _linear().fit(series)
    with pytest.raises(ParameterError, match="level=95 needs at least 19 windows .* there were 9"):
        model.calibrate(series, level=95)
    model.calibrate(series, level=95, refit=True)
    assert np.isfinite(model.predict(level=95).to_numpy()).all()
    with pytest.raises(ParameterError, match="level=99 needs at least 99 windows"):
        model.calibrate(series, level=99, refit=True)
    short = _linear(context_length=28).fit(series)
    with pytest.raises(DataError, match="holds out 30 rows .* the rest is too little: NLinear"):
        short.calibrate(series, level=99, refit=True)


def test_the_copy_keeps_a_context_and_a_horizon():
    """A fifth, 12 rows, would leave 48 rows, and the network reads 52."""
    panel = _panel(3, 60)
    model = _linear(context_length=48, early_stopping=False).fit(panel)
    model.calibrate(panel, level=80, refit=True)
    assert model.calibration_.counts.ravel().tolist() == [24, 21, 18, 15]


def test_what_was_not_observed_is_made_up_for_by_more_rows():
    """The end of a series is missing: a fifth of the other one is enough for 4, not for 12."""
    panel = _panel(2, 50)
    panel.loc[25:49, "y"] = np.nan
    model = tsar.AutoReg(horizon=HORIZON, season_length=1).fit(panel)
    model.calibrate(panel, level=80, refit=True)
    assert model.calibration_.counts[-1].tolist() == [7]
    model.calibrate(panel, level=92, refit=True)
    assert model.calibration_.counts[-1].tolist() == [12]


def test_covariates_and_the_calendar_are_cut_with_the_rows():
    hours = pd.date_range("2024-03-25", periods=160, freq="h", tz="Europe/Berlin")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"price": rng.normal(size=160), "wind": rng.normal(size=160)}, hours)
    frame["load"] = 3 * frame["price"] + rng.normal(size=160)
    options = {"target": "load", "future_covariates": "price", "past_covariates": "wind"}
    options |= {"calendar_features": True, "early_stopping": False}
    less = _linear(**options).fit(frame[:128]).calibrate(frame)
    whole = _linear(**options).fit(frame).calibrate(frame, refit=True)
    future = whole.make_future_frame().assign(price=0.5)
    reach = [
        (found["load_hi80"] - found["load"]).to_numpy()
        for found in (
            less.predict(df=frame, future=future, level=80),
            whole.predict(future=future, level=80),
        )
    ]
    np.testing.assert_allclose(*reach, rtol=1e-5)


def test_an_interrupted_copy_changes_nothing(monkeypatch):
    panel = _panel(2, 60)
    model = _linear(early_stopping=False).fit(panel)

    def learn(self, part, go_on):
        warnings.warn("half done", InterruptedWarning, stacklevel=1)

    monkeypatch.setattr(tsar.NLinear, "_learn", learn)
    with pytest.raises(KeyboardInterrupt):
        model.calibrate(panel, refit=True)
    assert model.calibration_ is None


def test_missing_values_are_left_out():
    series = pd.Series(np.random.default_rng(3).normal(size=60), index=pd.RangeIndex(60))
    model = _naive().fit(series)
    holes = series.copy()
    holes[30] = np.nan
    forecast = model.calibrate(holes).predict(level=80)
    assert np.isfinite(forecast.to_numpy()).all()
    with pytest.raises(DataError, match="needs observed rows of every step"):
        model.calibrate(holes.where(holes.index < 3))


def test_longer_horizons_are_calibrated_when_asked_for():
    series = pd.Series(np.random.default_rng(3).normal(size=200).cumsum(), index=range(200))
    model = tsar.Naive(horizon=2).fit(series).calibrate(series, horizon=40)
    forecast = model.predict(40, level=80)
    width = (forecast["y_hi80"] - forecast["y_lo80"]).to_numpy()
    assert width[39] > 3 * width[0]
    model.calibrate(series)
    with pytest.raises(ParameterError, match=r"calibrated for 2 steps, got horizon=3; .*horizon=3"):
        model.predict(3, level=80)


def test_output_range_holds_for_intervals():
    series = pd.Series(np.arange(40.0) % 3, index=pd.RangeIndex(40))
    model = _naive(output_range=(0, 2)).fit(series).calibrate(series)
    forecast = model.predict(level=90)
    assert forecast.min(axis=None) == 0 and forecast.max(axis=None) == 2


def test_wide_frames_in_any_order():
    index = pd.date_range("2024-01-01", periods=120, freq="h")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(120, 3)), index, list("abc"))
    frame["b"] *= 100
    model = _naive().fit(frame).calibrate(frame)
    expected = model.predict(level=80)
    turned = model.calibrate(frame[["c", "a", "b"]]).predict(df=frame[["b", "c", "a"]], level=80)
    assert list(turned.columns)[:3] == ["b", "b_lo80", "b_hi80"]
    pd.testing.assert_frame_equal(turned[expected.columns], expected)
    more = frame.assign(new=frame["a"])
    with pytest.raises(ParameterError, match=r"calibrated for the fitted variates, got \['new'\]"):
        model.predict(df=more, level=80, allow_new_variates=True)


def test_thinned_scores_of_a_large_panel_agree():
    panel = _panel(60, 200)
    model = _naive().fit(panel).calibrate(panel)
    assert len(model.calibration_.ordered) == 2000
    assert int(model.calibration_.counts.min()) > 10_000


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "spilt"}, "method must be one of .*did you mean 'split'"),
        ({"method": "cqr"}, "method='cqr' moves quantiles"),
        ({"level": 0}, r"level must be percentages between 0 and 100"),
        ({"level": [80, 100]}, r"level must be percentages between 0 and 100"),
        ({"level": 99}, "level=99 needs at least 99 windows to calibrate on, there were 35"),
        ({"horizon": 0}, "horizon must be an integer"),
    ],
)
def test_calibrations_that_are_refused(asked, message):
    series = pd.Series(np.random.default_rng(3).normal(size=40), index=pd.RangeIndex(40))
    model = _naive().fit(series)
    with pytest.raises(ParameterError, match=f"SeasonalNaive: {message}"):
        model.calibrate(series, **asked)


def test_levels_that_were_not_calibrated():
    series = pd.Series(np.random.default_rng(3).normal(size=90), index=pd.RangeIndex(90))
    model = _naive().fit(series)
    with pytest.raises(ParameterError, match=r"call calibrate\(df\)"):
        model.predict(level=80)
    model.calibrate(series, method="pid", level=[60, 70])
    assert "y_hi60" in model.predict(level=60)
    with pytest.raises(ParameterError, match="level=80 is none of the calibrated ones, 60, 70"):
        model.predict(level=80)
    with pytest.raises(ParameterError, match="level=98 needs at least 49 windows"):
        model.calibrate(series[:40]).predict(level=98)
    with pytest.raises(NotFittedError):
        _naive().calibrate(series)


@pytest.mark.parametrize(
    ("make", "can_hold_out"),
    [
        (lambda: _linear(early_stopping=False), True),
        (lambda: tsar.Ensemble(models=[_linear(early_stopping=False)], horizon=HORIZON), False),
        (
            lambda: tsar.TransformedTarget(model=_linear(early_stopping=False), horizon=HORIZON),
            False,
        ),
    ],
)
def test_the_repair_of_a_calibration_is_one_that_the_model_has(make, can_hold_out):
    frame = _panel(2, 60)
    model = make().fit(frame)
    with pytest.raises(DataError, match=r"calibrate\(df, refit=True\)") as raised:
        model.calibrate(frame)
    assert ("early_stopping=True" in str(raised.value)) == can_hold_out
    assert model.calibrate(frame, refit=True).calibration_ is not None


def test_quantiles_of_points_are_those_of_the_signed_errors():
    steps = np.arange(140)
    noise = np.random.default_rng(5).exponential(size=140)
    series = pd.Series(np.sin(steps / 3) + noise, index=pd.RangeIndex(140), name="y")
    model = tsar.Naive(horizon=3).fit(series[:60]).calibrate(series[60:])
    shares = [0.05, 0.5, 0.9]
    forecast = model.predict(df=series, quantiles=shares)
    values = series.to_numpy()
    for step in (1, 2, 3):
        # Naive forecasts the last value; all of its forecasts whose three steps are known count.
        cutoffs = np.arange(60, len(values) - 2)
        errors = np.sort(values[cutoffs + step - 1] - values[cutoffs - 1])
        n_errors = len(errors)
        ranks = {0.05: int(np.floor((n_errors + 1) * 0.05)), 0.5: int(np.ceil((n_errors + 1) / 2))}
        ranks[0.9] = int(np.ceil((n_errors + 1) * 0.9))
        for share, rank in ranks.items():
            expected = series.iloc[-1] + errors[rank - 1]
            assert forecast[f"y_q{share:g}"].iloc[step - 1] == pytest.approx(expected, rel=1e-9)


def test_quantiles_of_points_cover_on_each_side_where_errors_are_skewed():
    rng = np.random.default_rng(3)
    values = rng.gamma(2, size=(40, 400))
    ids, times = np.repeat(np.arange(40), 400), np.tile(np.arange(400), 40)
    panel = pd.DataFrame({"unique_id": ids, "ds": times, "y": values.ravel()})
    # Apart from the fit, so that no error is flattered.
    calibrated = panel[(panel["ds"] >= 100) & (panel["ds"] < 200)]
    model = _linear(max_epochs=6).fit(panel[panel["ds"] < 100]).calibrate(calibrated)
    later = panel[panel["ds"] >= 150]
    table = backtest(model, later, windows=50, step=4, quantiles=[0.1, 0.9], level=80)
    below = (table["y"].to_numpy()[:, None] <= table[["NLinear_q0.1", "NLinear_q0.9"]]).mean()
    # Of 8,000 values with noise of their own the standard error is .004.
    np.testing.assert_allclose(below, [0.1, 0.9], atol=0.015)
    # An interval that is as wide on both sides is left on one of them.
    outside = [
        (table["y"] < table["NLinear_lo80"]).mean(),
        (table["y"] > table["NLinear_hi80"]).mean(),
    ]
    assert sum(outside) == pytest.approx(0.2, abs=0.02) and outside[1] > 1.5 * outside[0]


def test_quantiles_of_points_are_kept_and_stay_in_their_range(tmp_path):
    panel = _panel(5, 80)
    panel["y"] = panel["y"].abs()
    model = tsar.Naive(horizon=HORIZON, output_range=(0, None)).fit(panel).calibrate(panel)
    forecast = model.predict(quantiles=[0.02, 0.97])
    assert (forecast["y_q0.02"] >= 0).all() and (forecast["y_q0.97"] > forecast["y"]).all()
    model.save(tmp_path / "model")
    again = tsar.load(tmp_path / "model").predict(quantiles=[0.02, 0.97])
    pd.testing.assert_frame_equal(again, forecast)


def test_quantiles_of_points_are_refused_with_the_reason():
    panel = _panel(2, 30)
    model = _naive().fit(panel)
    with pytest.raises(ParameterError, match=r"call calibrate\(df\)"):
        model.predict(quantiles=[0.9])
    model.calibrate(panel)
    with pytest.raises(ParameterError, match="quantile 0.999 needs at least 999 windows"):
        model.predict(quantiles=[0.999])
    with pytest.raises(ParameterError, match="inside|between|in \\(0, 1\\)"):
        model.predict(quantiles=[1.5])
    model.calibrate(panel, method="pid", level=80)
    with pytest.raises(ParameterError, match="needs the calibration 'split', got 'pid'"):
        model.predict(quantiles=[0.9])
