"""What every forecaster promises beside the contract of all estimators."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import Pipeline

from tsar.checks.contract import Check, Family, made_small, raises
from tsar.core.mixers import MIXERS, causal_mixers
from tsar.exceptions import DataError, NotFittedError, ParameterError, foreign_warnings
from tsar.forecasting.autoreg import AutoReg
from tsar.forecasting.base import Forecaster
from tsar.forecasting.fitted.windowed import in_window_order, window_keys
from tsar.forecasting.naive import SeasonalNaive
from tsar.forecasting.probabilistic.output_request import answer, read_request
from tsar.persistence import load

__all__ = ["Forecasting", "small_forecaster"]

# By the one vocabulary that all models share, these make any of them small.
SMALL = {
    **{"context_length": 24, "horizon": 6, "max_epochs": 1, "batch_size": 16},
    **{"patch_length": 8, "stride": 4, "d_model": 8, "n_heads": 2, "d_ff": 12, "n_layers": 2},
    **{"segment_length": 4, "kernel": 5, "season_length": 12, "random_state": 0, "device": "cpu"},
    **{"initialization": "heuristic", "order": (1, 0, 0)},
    **{"d_state": 2, "n_steps": 4, "n_samples": 4, "n_iterations": 3},
    **{"n_experts": 3, "horizon_lengths": (1, 3)},
    **{"max_terms": 1, "max_seasonal_terms": 0},
    "candidates": [SeasonalNaive(season_length=12), AutoReg(lags=3)],
}
# Most schedules depend on how long training lasts, and so do then the first epochs.
STEADY = {"learning_rate_schedule": "constant"}
# Enough to learn what a covariate does.
ABLE = {
    **{"max_epochs": 10, "learning_rate": 1e-2, **STEADY},
    **{"d_model": 16, "d_ff": 32, "d_state": 8, "random_state": 0},
    **{"n_steps": 20, "n_sampling_steps": 4},
}


def small_forecaster(cls: type[Forecaster], **parameters: Any) -> Forecaster:
    """Return a forecaster that fits in a moment.

    Parameters
    ----------
    cls : type
        Its class.
    **parameters
        Set on top of the small settings.
    """
    estimator: Forecaster = made_small(cls, SMALL, **parameters)
    return estimator


class Forecasting(Family):
    """Forecasters: they fit a wide frame and forecast what follows."""

    def covers(self, estimator: Any) -> bool:
        return isinstance(estimator, Forecaster)

    def small(self, cls: type[Any]) -> Any:
        return small_forecaster(cls)

    def data(self, seed: int = 0) -> Any:
        return _wide(seed=seed)

    def answer(self, fitted: Any) -> np.ndarray:
        return np.asarray(fitted.predict().to_numpy())

    def checks(self, estimator: Any) -> tuple[Check, ...]:
        parameters = estimator.get_params()
        checks = GENERAL_CHECKS
        if "max_epochs" in parameters:
            checks += NETWORK_CHECKS
        if "loss" in parameters:
            checks += LOSS_CHECKS
        if "mixer" in parameters:
            checks += ENCODER_CHECKS
        return checks


# ---------------------------------------------------------------- the data


def _wide(rows: int = 150, n_variates: int = 3, seed: int = 0) -> pd.DataFrame:
    """Return hourly series with a season of 12, noise, and different levels."""
    rng = np.random.default_rng(seed)
    steps = np.arange(rows)[:, None]
    season = np.sin(2 * np.pi * (steps / 12 + np.linspace(0, 1, n_variates)))
    values = season * np.array([1.0, 4.0, 0.3, 2.0][:n_variates]) + 0.2 * rng.normal(
        size=(rows, n_variates)
    )
    values += np.array([2.0, -5.0, 30.0, 0.0][:n_variates])
    index = pd.date_range("2024-03-01", periods=rows, freq="h", name="time")
    return pd.DataFrame(values, index=index, columns=["a", "b", "c", "d"][:n_variates])


def _windows(
    fitted: Forecaster, long: pd.DataFrame, steps: int, origins: pd.DatetimeIndex
) -> pd.DataFrame:
    """Forecast windows as a backtest does, each origin in each series."""
    panel = fitted.read_new(long)
    stamps = panel.axis.index(panel.stamps())
    rows = np.flatnonzero(stamps.isin(origins))
    owners = np.searchsorted(panel.offsets, rows, side="right") - 1
    levels = read_request(fitted, None, [50, 80], None)
    answers = answer(fitted, levels, panel, owners, rows, steps)
    keys = window_keys(panel, owners, rows, steps)
    columns = {
        f"model_{key}" if key else "model": in_window_order(values, owners, rows)
        for key, values in answers.values.items()
    }
    return keys.assign(**columns)


def _long(rows: int = 150, n_series: int = 3) -> pd.DataFrame:
    wide = _wide(rows, n_series)
    long = wide.reset_index().melt("time", var_name="unique_id", value_name="y")
    return long.rename(columns={"time": "ds"})[["unique_id", "ds", "y"]]


# ------------------------------------------------------- scikit-learn contract


def check_pipeline(estimator: Forecaster) -> None:
    """A Pipeline sets nested parameters, fits and predicts."""
    pipeline = Pipeline([("model", clone(estimator))]).set_params(model__horizon=4)
    forecast = pipeline.fit(_wide()).predict(_wide())
    assert forecast.shape == (4, 3), f"the forecast has shape {forecast.shape}"


def check_grid_search(estimator: Forecaster) -> None:
    """``GridSearchCV`` agrees on one and on two processes."""
    scores = []
    for n_jobs in (1, 2):
        # The scores are compared, for which nothing is fitted again at the end.
        search = GridSearchCV(
            clone(estimator),
            {"horizon": [4, 6]},
            cv=TimeSeriesSplit(2),
            n_jobs=n_jobs,
            refit=False,
        )
        # Early folds are too short to hold out validation rows, which fit says; it says so in
        # other processes, which are given filters, too.
        with foreign_warnings("ignore", UserWarning):
            scores.append(search.fit(_wide(180)).cv_results_["mean_test_score"])
    assert np.isfinite(scores[0]).all(), "a score is not finite"
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)


# ------------------------------------------------------------------- forecasts


def check_forms(estimator: Forecaster) -> None:
    """The form of the data comes back, with the stamps that follow."""
    wide, long, horizon = _wide(75), _long(75), estimator.horizon
    stamps = pd.date_range(wide.index[-1], periods=horizon + 1, freq="h")[1:]
    forecast = clone(estimator).fit(wide).predict()
    assert list(forecast.columns) == ["a", "b", "c"] and forecast.index.name == "time"
    assert list(forecast.index) == list(stamps), "wide: wrong stamps"
    series = clone(estimator).fit(wide["b"]).predict()
    assert isinstance(series, pd.Series) and series.name == "b", "Series: wrong form"
    assert list(series.index) == list(stamps), "Series: wrong stamps"
    rows = clone(estimator).fit(long).predict()
    assert list(rows.columns) == ["unique_id", "ds", "y"], f"long: {list(rows.columns)}"
    assert rows["unique_id"].tolist() == [name for name in "abc" for _ in range(horizon)]
    assert rows["ds"].tolist() == list(stamps) * 3, "long: wrong stamps"
    assert rows.dtypes.tolist() == long.dtypes.tolist(), "long: a dtype changed"
    indexed = clone(estimator).fit(long.set_index(["unique_id", "ds"])).predict()
    assert indexed.index.names == ["unique_id", "ds"] and list(indexed.columns) == ["y"]
    np.testing.assert_array_equal(indexed["y"], rows["y"])
    small = clone(estimator).fit(wide.astype(np.float32)).predict()
    assert (small.dtypes == np.float32).all(), "float32 did not stay float32"


def check_time_zone(estimator: Forecaster) -> None:
    """Aware stamps stay aware, and a clock change moves no value."""
    wide = _wide(75)
    wide.index = pd.date_range("2024-10-25", periods=len(wide), freq="h", tz="Europe/Berlin")
    forecast = clone(estimator).fit(wide).predict()
    expected = pd.date_range(wide.index[-1], periods=estimator.horizon + 1, freq="h")[1:]
    assert list(forecast.index) == list(expected), "wrong stamps"
    plain = clone(estimator)
    if "calendar_features" in plain.get_params():
        # Elsewhere, the clock shows another time.
        plain.set_params(calendar_features=False)
    universal = clone(plain).fit(wide.tz_convert("UTC")).predict()
    np.testing.assert_array_equal(plain.fit(wide).predict().to_numpy(), universal.to_numpy())
    fitted = clone(estimator).fit(wide)
    raises(DataError, "time zone", lambda: fitted.predict(df=wide.tz_convert("UTC")))


def check_horizon(estimator: Forecaster) -> None:
    """Any horizon: a shorter one is a prefix, a longer one is marked."""
    fitted = clone(estimator).fit(_wide())
    full, horizon = fitted.predict(), estimator.horizon
    for steps in range(1, horizon + 1):
        pd.testing.assert_frame_equal(fitted.predict(steps), full[:steps], check_exact=True)
    longer = fitted.predict(horizon=10 * horizon)
    assert len(longer) == 10 * horizon and np.isfinite(longer.to_numpy(float)).all()
    assert longer["extrapolated"].tolist() == [step >= horizon for step in range(10 * horizon)]
    np.testing.assert_array_equal(longer[full.columns][:horizon], full)
    for wrong in (0, -1, 2.5, "6", True):
        raises(ParameterError, "horizon", functools.partial(fitted.predict, wrong))


def check_scale(estimator: Forecaster) -> None:
    """Other units give the same forecast in other units."""
    wide = _wide()
    forecast = clone(estimator).fit(wide).predict()
    for factor in (1e-6, 1.0, 1e6):
        shift = 3 * factor
        other = clone(estimator).fit(wide * factor + shift).predict()
        back = (other - shift) / factor
        np.testing.assert_allclose(back, forecast, atol=1e-4 * wide.std().max(), rtol=1e-4)


def check_constant_series(estimator: Forecaster) -> None:
    """A constant is forecast as that constant, one that hardly moves as finite values."""
    wide = _wide()
    wide["a"], wide["b"] = 7.25, 1e3 + 1e-9 * wide["b"]
    forecast = clone(estimator).fit(wide).predict()
    np.testing.assert_allclose(forecast["a"], 7.25, rtol=1e-12)
    np.testing.assert_allclose(forecast["b"], 1e3, atol=1e-6)


def check_missing_values(estimator: Forecaster) -> None:
    """Missing values are masked: whatever stands behind them, no forecast is missing."""
    long = _long()
    rng = np.random.default_rng(1)
    long.loc[rng.random(len(long)) < 0.2, "y"] = np.nan
    long.loc[long.groupby("unique_id").tail(3).index, "y"] = np.nan
    empty = long[long["unique_id"] == "a"].assign(unique_id="empty", y=np.nan)
    forecast = clone(estimator).fit(pd.concat([long, empty])).predict()
    assert np.isfinite(forecast["y"]).all(), "a forecast is missing"
    holes = long.dropna()
    last = long.groupby("unique_id").tail(1).fillna({"y": 0.0})
    holes = pd.concat([holes, last])
    filled = holes.set_index(["unique_id", "ds"]).unstack(0).asfreq("h").stack(future_stack=True)
    filled = filled.swaplevel().sort_index().reset_index()
    gaps = clone(estimator).set_params(gaps="mask").fit(holes).predict()
    whole = clone(estimator).fit(filled).predict()
    gaps = gaps.sort_values(["unique_id", "ds"], ignore_index=True)
    np.testing.assert_array_equal(gaps["y"], whole["y"])


def check_short_series(estimator: Forecaster) -> None:
    """New and short series are forecast and flagged, and change no other row."""
    long = _long()
    fitted = clone(estimator).fit(long)
    alone = fitted.predict(df=long)
    new = pd.DataFrame(
        {"unique_id": "new", "ds": pd.date_range("2024-03-02", periods=3, freq="h"), "y": 1.0}
    )
    new["y"] = [1.0, 2.0, 1.5]
    both = fitted.predict(df=pd.concat([long, new, new.head(1).assign(unique_id="one")]))
    pd.testing.assert_frame_equal(both.head(len(alone)), alone, check_exact=True)
    assert np.isfinite(both["y"]).all(), "a short series has no forecast"
    short = both.attrs["short_history"]
    assert set(short) <= {"new", "one"}, f"flagged as short: {short}"
    assert fitted.context_rows <= 3 or short == ["new", "one"], f"flagged as short: {short}"


def check_no_look_ahead(estimator: Forecaster) -> None:
    """Nothing after the origin reaches a forecast."""
    wide, cutoff = _wide(), 100
    fitted = clone(estimator).fit(wide[:cutoff])
    altered = wide.copy()
    altered.iloc[cutoff:] = 1e6
    honest = fitted.forecast_windows(wide, [cutoff - 5, cutoff])
    np.testing.assert_array_equal(fitted.forecast_windows(altered, [cutoff - 5, cutoff]), honest)
    direct = fitted.predict(df=wide[:cutoff])
    np.testing.assert_allclose(honest[1], direct, rtol=1e-5, atol=1e-6)
    pd.testing.assert_frame_equal(direct, fitted.predict(), check_exact=True)


def check_batches(estimator: Forecaster) -> None:
    """A window is forecast alike alone and among many."""
    wide = _wide()
    fitted = clone(estimator).fit(wide)
    cutoffs = np.arange(60, 120)
    together = fitted.forecast_windows(wide, cutoffs)[::4]
    alone = np.concatenate([fitted.forecast_windows(wide, [cutoff]) for cutoff in cutoffs[::4]])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


def check_variates(estimator: Forecaster) -> None:
    """Variates are matched by name, and their number is never asked for."""
    wide = _wide()
    fitted = clone(estimator).fit(wide)
    turned = fitted.predict(df=wide[["c", "a", "b"]])
    assert list(turned.columns) == ["c", "a", "b"], "the order of the frame was lost"
    np.testing.assert_allclose(turned[["a", "b", "c"]], fitted.predict(), rtol=1e-5)
    raises(DataError, "missing ['c']", lambda: fitted.predict(df=wide[["a", "b"]]))
    more = wide.assign(new=wide["a"])
    raises(DataError, "not fitted ['new']", lambda: fitted.predict(df=more))
    if not type(fitted).takes_any_variates:
        raises(DataError, "fitted", lambda: fitted.predict(df=more, allow_new_variates=True))
        return
    grown = fitted.predict(df=more, allow_new_variates=True)
    assert list(grown.columns) == list(more.columns) and np.isfinite(grown.to_numpy()).all()
    if type(fitted).channel_independent:
        np.testing.assert_allclose(grown[["a", "b", "c"]], fitted.predict(), rtol=1e-5)


def check_one_route(estimator: Forecaster) -> None:
    """Predict, backtests, levels and samples of one window are the same numbers.

    With holes, a range and intervals, at horizons below and beyond the fitted one, for a series
    of the fit and for a new one.
    """
    long, horizon = _long(172), estimator.horizon
    long.loc[long.index % 17 == 3, "y"] = np.nan
    ranged = clone(estimator).set_params(output_range=(float(long["y"].quantile(0.2)), None))
    before = long[long.groupby("unique_id").cumcount() < 150]
    fitted = ranged.fit(before[before["unique_id"] != "c"])
    fitted.calibrate(long[long["unique_id"] != "c"], horizon=2 * horizon)
    origins = pd.date_range("2024-03-01", periods=172, freq="h")[[150, 153]]
    for steps in (1, horizon, 2 * horizon):
        past = _windows(fitted, long, steps, origins)
        for origin in origins:
            history = long[long["ds"] < origin]
            direct = fitted.predict(steps, df=history, level=[50, 80])
            at_origin = past[past["cutoff"] == origin]
            for name in ("", "_lo50", "_hi50", "_lo80", "_hi80"):
                np.testing.assert_allclose(
                    at_origin[f"model{name}"],
                    direct[f"y{name}"],
                    rtol=1e-5,
                    err_msg=f"backtest and predict differ in model{name} at horizon {steps}",
                )


# --------------------------------------------------------------- good manners


def check_intervals(estimator: Forecaster) -> None:
    """Calibrated intervals nest around the point forecast, in the same form, and are saved."""
    wide = _wide(170)
    fitted = clone(estimator).fit(wide[:150])
    raises(ParameterError, "level must be percentages", lambda: fitted.predict(level=100))
    fitted.calibrate(wide)
    point, forecast = fitted.predict(), fitted.predict(level=[80, 50])
    pd.testing.assert_frame_equal(forecast[point.columns], point, check_exact=True)
    for name in point:
        ends = ["lo80", "lo50", None, "hi50", "hi80"]
        columns = forecast[[name if end is None else f"{name}_{end}" for end in ends]]
        assert (np.diff(columns, axis=1) >= 0).all(), "intervals do not nest"
    assert list(forecast.index) == list(point.index), "other stamps than the point forecast"
    with tempfile.TemporaryDirectory() as folder:
        fitted.save(Path(folder) / "model")
        twin = load(Path(folder) / "model", cls=type(estimator)).predict(level=[80, 50])
    pd.testing.assert_frame_equal(twin, forecast, check_exact=True)


def check_saved_ids(estimator: Forecaster) -> None:
    """A model saved with several series forecasts each of them the same, beyond its horizon."""
    fitted = clone(estimator).fit(_long())
    with tempfile.TemporaryDirectory() as folder:
        fitted.save(Path(folder) / "model")
        twin = load(Path(folder) / "model", cls=type(estimator))
    pd.testing.assert_frame_equal(twin.predict(9), fitted.predict(9), check_exact=True)


def check_bad_input(estimator: Forecaster) -> None:
    """Bad input gets one clear error, and a fitted model survives it."""
    wide = _wide()
    fitted = clone(estimator).fit(wide)
    before = fitted.predict()
    name = type(estimator).__name__
    raises(NotFittedError, name, clone(estimator).predict)
    raises(ParameterError, name, lambda: clone(estimator).set_params(horizon=0).fit(wide))
    raises(ParameterError, "y must be None", lambda: fitted.fit(wide, wide["a"]))
    raises(DataError, "DataFrame", lambda: fitted.fit([1.0, 2.0]))
    raises(DataError, "no rows", lambda: fitted.fit(wide[:0]))
    raises(DataError, "infinite", lambda: fitted.fit(wide.mask(wide == wide.iloc[7, 1], np.inf)))
    raises(DataError, "duplicate", lambda: fitted.fit(pd.concat([wide, wide.tail(1)])))
    raises(DataError, "gap", lambda: fitted.fit(wide.drop(index=wide.index[20])))
    raises(DataError, "observed", lambda: fitted.fit(wide * np.nan))
    pd.testing.assert_frame_equal(fitted.predict(), before, check_exact=True)


# -------------------------------------------------------------------- networks


def check_early_stopping(estimator: Forecaster) -> None:
    """The weights kept are those of the best validation."""
    steady = clone(estimator).set_params(early_stopping=True, **STEADY)
    short_tail = steady.set_params(max_epochs=4, patience=2)
    fitted = short_tail.fit(_wide())
    losses = fitted.history_["val_loss"]
    assert len(losses) == fitted.n_epochs_ <= 4
    assert losses[fitted.best_epoch_ - 1] == min(losses), "best_epoch_ is not the best"
    stopped = clone(short_tail).set_params(max_epochs=fitted.best_epoch_).fit(_wide())
    pd.testing.assert_frame_equal(stopped.predict(), fitted.predict(), check_exact=True)


def check_continued_training(estimator: Forecaster) -> None:
    """Twice one epoch is two epochs, also over a saved model."""
    steady = clone(estimator).set_params(early_stopping=False, **STEADY)
    whole = clone(steady).set_params(max_epochs=2).fit(_wide())
    half = clone(steady).set_params(max_epochs=1).fit(_wide())
    with tempfile.TemporaryDirectory() as folder:
        half.save(Path(folder) / "model")
        stored = load(Path(folder) / "model", cls=type(estimator))
    warm = clone(half).set_params(warm_start=True).fit(_wide()).fit(_wide())
    for continued in (half.partial_fit(_wide()), stored.partial_fit(_wide()), warm):
        assert continued.n_epochs_ == 2 and len(continued.history_["train_loss"]) == 2
        pd.testing.assert_frame_equal(continued.predict(), whole.predict(), rtol=1e-6)


def check_quantiles(estimator: Forecaster) -> None:
    """Quantiles never cross, at any horizon, and the median is the point forecast."""
    levels = [0.05, 0.25, 0.5, 0.9]
    model = clone(estimator).set_params(loss="quantile", quantiles=[0.9, 0.05, 0.25])
    forecast = model.fit(_wide()).predict(horizon=3 * estimator.horizon, quantiles=levels)
    for name in "abc":
        columns = forecast[[f"{name}_q{level:g}" for level in levels]].to_numpy()
        assert (np.diff(columns, axis=1) >= 0).all(), "quantiles cross"
        np.testing.assert_array_equal(forecast[f"{name}_q0.5"], forecast[name])
    raises(ParameterError, "0.3", lambda: model.predict(quantiles=[0.3]))
    point = clone(estimator).set_params(loss="mse").fit(_wide())
    raises(ParameterError, "loss='quantile'", lambda: point.predict(quantiles=[0.5]))


def check_mixers(estimator: Forecaster) -> None:
    """Any mixer (of a decoder: any causal one) fits; missing steps are no obstacle."""
    # There are many of them, and a few steps of training show what many do.
    whole = _wide(rows=75)
    holed = whole.copy()
    holed.iloc[20:23, 0], holed.iloc[-5:, 1] = np.nan, np.nan
    for name in causal_mixers() if getattr(estimator, "_causal", False) else MIXERS:
        fitted = clone(estimator).set_params(mixer=name, max_epochs=1).fit(holed)
        for frame in (holed, whole):
            forecast = fitted.predict(df=frame)
            assert np.isfinite(forecast.to_numpy()).all(), f"mixer {name}: a forecast is missing"


def check_learning(estimator: Forecaster) -> None:
    """The training loss falls."""
    longer = clone(estimator).set_params(
        max_epochs=4, learning_rate=1e-2, early_stopping=False, **STEADY
    )
    losses = longer.fit(_wide(300)).history_["train_loss"]
    assert losses[-1] < 0.9 * losses[0], f"the loss went from {losses[0]:.3g} to {losses[-1]:.3g}"


def check_future_covariate(estimator: Forecaster) -> None:
    """A future covariate that explains 80 % of the variance halves the error, and is found.

    The error is half of what the best forecast has that knows all but the covariate and the noise.
    """
    rng = np.random.default_rng(3)
    steps, horizon = np.arange(300), estimator.horizon
    planted = rng.normal(size=(len(steps), 1))
    season = np.sin(2 * np.pi * steps[:, None] / 12)
    rest = season + 0.3 * rng.normal(size=(len(steps), 2))
    share, size, level = np.sqrt(0.2) / rest.std(axis=0), [3.0, 0.5], [10.0, -2.0]
    values = (np.sqrt(0.8) * planted * [1, -1] + share * rest) * size + level
    index = pd.date_range("2024-03-01", periods=len(steps), freq="h")
    frame = pd.DataFrame(values, index=index, columns=["a", "b"]).assign(planted=planted * 5 + 1)
    frame["decoy"] = rng.normal(size=len(steps))
    able = {name: value for name, value in ABLE.items() if name in estimator.get_params()}
    helped = clone(estimator).set_params(**able, future_covariates=["decoy", "planted"])
    cutoffs = np.arange(230, len(steps) - horizon + 1, 3)
    forecast = helped.fit(frame[:230]).forecast_windows(frame, cutoffs)
    rows = cutoffs[:, None] + np.arange(horizon)
    without = share * season * size + level
    error, bound = (
        float(np.mean(np.abs(guess - values[rows]) / size)) for guess in (forecast, without[rows])
    )
    assert error <= bound / 2, f"the error is {error:.3g}, without the covariate {bound:.3g}"
    explained = (
        helped.explain(frame, windows=8).query("role == 'future'").groupby("variate").first()
    )
    assert (explained["input"] == "planted").all(), "explain puts a decoy first"
    raises(DataError, "'decoy' is missing from", helped.predict)
    future = helped.make_future_frame().assign(planted=0.3, decoy=0.1)
    assert list(helped.predict(future=future).columns) == ["a", "b"]


GENERAL_CHECKS: tuple[Check, ...] = (
    check_pipeline,
    check_grid_search,
    check_forms,
    check_time_zone,
    check_horizon,
    check_scale,
    check_constant_series,
    check_missing_values,
    check_short_series,
    check_no_look_ahead,
    check_batches,
    check_variates,
    check_one_route,
    check_intervals,
    check_saved_ids,
    check_bad_input,
)
NETWORK_CHECKS: tuple[Check, ...] = (
    check_early_stopping,
    check_continued_training,
    check_learning,
    check_future_covariate,
)
LOSS_CHECKS: tuple[Check, ...] = (check_quantiles,)
ENCODER_CHECKS: tuple[Check, ...] = (check_mixers,)
