"""Quantiles, intervals and samples of networks that forecast distributions; output_range."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.exceptions import DataError, ParameterError

DISTRIBUTIONS = ["gaussian", "student_t", "gaussian_mixture", "negative_binomial"]
HORIZON = 5


def _counts(ids: str = "abc", rows: int = 90) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    frames = []
    for place, name in enumerate(ids):
        mean = (1 + 30 * place) * (1.5 + np.sin(2 * np.pi * np.arange(rows) / 7))
        stamps = pd.date_range("2024-02-01", periods=rows, freq="D")
        frames.append(pd.DataFrame({"unique_id": name, "ds": stamps, "y": rng.poisson(mean)}))
    return pd.concat(frames, ignore_index=True)


def _model(loss: str, **options) -> tsar.NLinear:
    settings = {"context_length": 14, "horizon": HORIZON, "max_epochs": 2, "random_state": 3}
    return tsar.NLinear(**(settings | {"loss": loss, "device": "cpu", "batch_size": 64} | options))


@pytest.fixture(scope="module")
def fitted() -> dict[str, tsar.NLinear]:
    return {loss: _model(loss).fit(_counts()) for loss in DISTRIBUTIONS}


@pytest.mark.parametrize("loss", DISTRIBUTIONS)
def test_any_quantile_and_interval(fitted, loss):
    levels = [0.013, 0.1, 0.5, 0.9]
    forecast = fitted[loss].predict(quantiles=levels, level=[80, 97.5])
    named = [f"y_q{level}" for level in levels]
    assert list(forecast.columns) == [
        *("unique_id", "ds", "y"),
        *(*named, "y_lo80", "y_hi80", "y_lo97.5", "y_hi97.5"),
    ]
    assert (np.diff(forecast[named], axis=1) >= 0).all()
    np.testing.assert_array_equal(forecast["y_q0.5"], forecast["y"])
    np.testing.assert_array_equal(forecast["y_lo80"], forecast["y_q0.1"])
    np.testing.assert_array_equal(forecast["y_hi80"], forecast["y_q0.9"])
    assert (forecast["y_lo97.5"] <= forecast["y_lo80"]).all()
    assert (forecast["y_hi97.5"] >= forecast["y_hi80"]).all()
    plain = fitted[loss].predict()
    pd.testing.assert_frame_equal(forecast[plain.columns], plain)


@pytest.mark.parametrize("loss", DISTRIBUTIONS)
def test_samples_have_the_quantiles(fitted, loss):
    model = fitted[loss]
    drawn = model.predict(samples=2000)
    assert list(drawn.columns) == ["unique_id", "ds", "y", "sample"]
    assert drawn["sample"].tolist() == np.tile(np.repeat(range(2000), HORIZON), 3).tolist()
    stamps = model.predict()["ds"]
    assert drawn["ds"][: 2 * HORIZON].tolist() == [*stamps[:HORIZON]] * 2
    quantiles = model.predict(quantiles=[0.2, 0.45, 0.8])
    values = drawn["y"].to_numpy().reshape(3, 2000, HORIZON)
    for level in (0.2, 0.45, 0.8):
        bound = quantiles[f"y_q{level}"].to_numpy().reshape(3, 1, HORIZON)
        assert ((values < bound).mean(axis=1) <= level + 0.04).all()
        assert ((values <= bound).mean(axis=1) >= level - 0.04).all()


@pytest.mark.parametrize("loss", DISTRIBUTIONS)
def test_samples_are_those_of_the_seed(fitted, loss, tmp_path):
    model = fitted[loss]
    drawn = model.predict(12, samples=3)
    pd.testing.assert_frame_equal(model.predict(12, samples=3), drawn)
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(12, samples=3), drawn)
    asked = {"horizon": 7, "quantiles": [0.3], "level": 90}
    pd.testing.assert_frame_equal(loaded.predict(**asked), model.predict(**asked))
    other = _model(loss, random_state=4, max_epochs=1).fit(_counts())
    assert not other.predict(12, samples=3)["y"].equals(drawn["y"])


@pytest.mark.parametrize("steps", [3, 12])
def test_samples_do_not_depend_on_what_else_is_forecast(fitted, steps):
    model = fitted["gaussian"]
    together = model.predict(steps, samples=4)
    alone = model.predict(steps, df=_counts().query("unique_id == 'b'"), samples=4)
    part = together.query("unique_id == 'b'").reset_index(drop=True)
    np.testing.assert_array_equal(part["y"], alone["y"])


def test_a_shorter_sample_is_the_beginning_of_a_longer_one(fitted):
    model = fitted["gaussian_mixture"]

    def paths(steps: int) -> np.ndarray:
        return model.predict(steps, samples=4)["y"].to_numpy().reshape(3, 4, steps)

    np.testing.assert_array_equal(paths(2), paths(HORIZON)[:, :, :2])
    np.testing.assert_array_equal(paths(HORIZON), paths(13)[:, :, :HORIZON])
    np.testing.assert_array_equal(paths(11), paths(13)[:, :, :11])


def test_paths_beyond_the_fitted_horizon_spread_as_a_random_walk():
    """One step at a time, each from what was drawn: the variance grows with the steps."""
    rng = np.random.default_rng(0)
    walk = pd.DataFrame({"y": rng.normal(size=600).cumsum()}, index=pd.RangeIndex(600))
    model = _model("gaussian", horizon=1, context_length=1, max_epochs=30, learning_rate=0.01)
    drawn = model.fit(walk).predict(16, samples=400)
    assert drawn["extrapolated"].tolist() == [step > 0 for step in range(16)] * 400
    values = drawn["y"].to_numpy().reshape(400, 16)
    spread = values.std(axis=0)
    np.testing.assert_allclose(spread, np.sqrt(np.arange(1, 17)), rtol=0.25)
    # Quantiles say what they assume: what is rolled on is the mean, without its uncertainty.
    interval = model.predict(16, level=68.27)
    width = (interval["y_hi68.27"] - interval["y_lo68.27"]).to_numpy() / 2
    np.testing.assert_allclose(width, width[0], rtol=1e-4)


def test_counts_stay_counts(fitted):
    model = fitted["negative_binomial"]
    for found in (model.predict(8, samples=20), model.predict(quantiles=[0.05, 0.6, 0.99])):
        values = found.drop(columns=["unique_id", "ds"]).to_numpy(float)
        assert (values >= 0).all() and (values == np.floor(values)).all()


@pytest.mark.parametrize("wrong", [-1.0, 0.5])
def test_what_is_no_count_is_refused(wrong):
    frame = _counts()
    frame["y"] = frame["y"].astype(float)
    frame.loc[100, "y"] = wrong
    with pytest.raises(DataError, match=rf"needs counts.*got {wrong:g} in column 'y' of id 'b'"):
        _model("negative_binomial").fit(frame)


def test_a_negative_binomial_learns_rates_of_any_size():
    """Means of 0.5 and of 500 in one panel, and their spread."""
    rng = np.random.default_rng(1)
    stamps = pd.date_range("2024-01-01", periods=400, freq="D")
    frames = [
        pd.DataFrame({"unique_id": name, "ds": stamps, "y": drawn})
        for name, drawn in (
            ("small", rng.poisson(0.5, 400)),
            ("large", rng.negative_binomial(5, 5 / (5 + 500), 400)),
        )
    ]
    model = _model("negative_binomial", max_epochs=40, learning_rate=0.003, batch_size=32)
    drawn = model.fit(pd.concat(frames)).predict(samples=500).groupby("unique_id")["y"]
    assert drawn.mean()["small"] == pytest.approx(0.5, rel=0.4)
    assert drawn.mean()["large"] == pytest.approx(500, rel=0.25)
    assert drawn.std()["large"] == pytest.approx(np.sqrt(500 + 500**2 / 5), rel=0.5)


@pytest.mark.parametrize("loss", DISTRIBUTIONS)
def test_missing_values_and_covariates(loss):
    frame = _counts().astype({"y": float})
    frame["promotion"] = np.random.default_rng(0).integers(0, 2, len(frame))
    frame["y"] += 9 * frame["promotion"]
    frame.loc[frame.sample(frac=0.1, random_state=0).index, "y"] = np.nan
    model = _model(loss, future_covariates="promotion", max_epochs=3, learning_rate=0.01)
    model.fit(frame)
    future = model.make_future_frame()
    without, with_it = (
        model.predict(future=future.assign(promotion=given), quantiles=[0.1, 0.9])
        for given in (0, 1)
    )
    assert np.isfinite(with_it.drop(columns=["unique_id", "ds"]).to_numpy(float)).all()
    assert with_it["y"].mean() > without["y"].mean()
    narrow = without["y_q0.9"] - without["y_q0.1"]
    if loss in ("gaussian", "student_t"):
        # The effect moves a distribution and does not widen it.
        np.testing.assert_allclose(with_it["y_q0.9"] - with_it["y_q0.1"], narrow, rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    [name for name in tsar.forecasting.__all__ if "loss" in getattr(tsar, name)().get_params()],
)
@pytest.mark.parametrize("loss", DISTRIBUTIONS)
def test_every_network_forecasts_every_distribution(name, loss):
    from tsar.checks import small_forecaster

    model = small_forecaster(getattr(tsar, name), loss=loss, max_epochs=1)
    frame = _counts("ab").pivot(index="ds", columns="unique_id", values="y")
    found = model.fit(frame).predict(8, quantiles=[0.1, 0.9])
    assert np.isfinite(found.to_numpy(float)).all()
    assert (found["a_q0.1"] <= found["a"]).all() and (found["b"] <= found["b_q0.9"]).all()
    assert np.isfinite(model.history_["train_loss"]).all()


@pytest.mark.parametrize("loss", ["mse", "quantile", "gaussian"])
def test_output_range_holds_for_everything(loss):
    index = pd.date_range("2024-01-01", periods=90, freq="D")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"u": np.maximum(rng.normal(size=90), 0)}, index=index)
    trained = {"max_epochs": 20, "learning_rate": 0.01}
    free = _model(loss, **trained).fit(frame)
    held = _model(loss, **trained, output_range=(0.5, 1)).fit(frame)
    asked = {"quantiles": [0.1, 0.9], "level": 80} if loss != "mse" else {}
    # What lies beyond a limit is moved to it, and nothing else is.
    pd.testing.assert_frame_equal(
        held.predict(7, **asked).drop(columns="extrapolated"),
        free.predict(7, **asked).drop(columns="extrapolated").clip(0.5, 1),
    )
    assert not held.predict(7, **asked).equals(free.predict(7, **asked))
    if loss == "gaussian":
        drawn = held.predict(7, samples=50)["u"]
        assert drawn.min() == 0.5 and drawn.max() == 1
    windows = held.forecast_windows(frame, [30, 60, 90])
    np.testing.assert_array_equal(
        windows, np.clip(free.forecast_windows(frame, [30, 60, 90]), 0.5, 1)
    )


def test_output_range_of_a_baseline_with_one_limit():
    series = pd.Series([3.0, -2.0, 1.0], index=pd.RangeIndex(3))
    model = tsar.SeasonalNaive(season_length=3, horizon=3, output_range=(0, None)).fit(series)
    assert model.predict().tolist() == [3.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([3.0, 0.0, np.nan], (0, None)),
        ([3.0, -1e-9, 1.0], None),
        ([3.0, np.nan, -1.0], None),
        ([5, 2, 1], (0, None)),
    ],
)
def test_an_inferred_range_is_that_of_the_data(values, limits, tmp_path):
    series = pd.Series(values, index=pd.RangeIndex(3), name="sold")
    model = tsar.Naive(horizon=2, output_range="infer").fit(series)
    assert model.output_range_ == limits
    model.save(tmp_path / "model")
    assert tsar.load(tmp_path / "model").output_range_ == limits
    assert tsar.Naive(horizon=2).fit(series).output_range_ is None


def test_an_inferred_range_holds_for_everything():
    draw = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=90)
    frame = pd.DataFrame({"sold": draw.poisson(0.7, 90).astype(float)}, index=index)
    options = {"horizon": 3, "context_length": 8, "loss": "gaussian", "max_epochs": 2}
    options |= {"random_state": 0, "device": "cpu"}
    free = tsar.NLinear(**options).fit(frame)
    held = tsar.NLinear(**options, output_range="infer").fit(frame)
    asked = {"horizon": 7, "level": [80, 95]}
    expected = free.predict(**asked)
    assert expected["sold_lo95"].min() < 0
    number = expected.drop(columns="extrapolated")
    found = held.predict(**asked).drop(columns="extrapolated")
    pd.testing.assert_frame_equal(found, number.clip(lower=0))


def test_going_on_keeps_a_range_that_was_none():
    index = pd.date_range("2024-01-01", periods=40)
    frame = pd.DataFrame({"sold": np.sin(np.arange(40.0))}, index=index)
    options = {"horizon": 2, "context_length": 4, "max_epochs": 1, "random_state": 0}
    model = tsar.NLinear(**options, output_range="infer").fit(frame)
    assert model.partial_fit(frame.abs()).output_range_ is None
    assert model.fit(frame.abs()).output_range_ == (0, None)


@pytest.mark.parametrize("wrong", [(1, 0), (0, 0), (0,), (0, 1, 2), (0, float("nan"))])
def test_ranges_that_are_none(wrong):
    with pytest.raises(ParameterError, match="Naive: output_range must be a pair of numbers"):
        tsar.Naive(output_range=wrong).fit(pd.Series([1.0, 2, 3]))


@pytest.mark.parametrize("level", [0, 100, -5, 120, [80, 100], "80", [None], float("nan"), True])
def test_levels_outside_of_0_to_100(fitted, level):
    with pytest.raises(ParameterError, match="NLinear: level must be percentages between 0 and"):
        fitted["gaussian"].predict(level=level)


def test_a_level_that_looks_like_a_share(fitted):
    with pytest.raises(ParameterError, match=r"got \[0.8, 0.95\]; did you mean 80\?"):
        fitted["gaussian"].predict(level=[0.8, 0.95])


@pytest.mark.parametrize("quantiles", [[0.0], [1], [0.5, 1.5], "0.5", [None], [-0.1]])
def test_quantiles_outside_of_0_to_1(fitted, quantiles):
    with pytest.raises(ParameterError, match="quantiles must be numbers between 0 and 1"):
        fitted["gaussian"].predict(quantiles=quantiles)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"samples": 0}, r"samples must be an integer in \[1, inf\), got 0"),
        ({"samples": 2.5}, "samples must be an integer"),
        ({"samples": 5, "level": 80}, "samples come in a frame of their own"),
    ],
)
def test_samples_that_cannot_be_had(fitted, asked, message):
    with pytest.raises(ParameterError, match=message):
        fitted["gaussian"].predict(**asked)


def test_models_without_a_distribution_say_what_to_do():
    series = pd.Series(np.arange(30.0), index=pd.RangeIndex(30))
    naive = tsar.Naive(horizon=2).fit(series)
    with pytest.raises(ParameterError, match="Naive: predict.level=.* call calibrate"):
        naive.predict(level=80)
    with pytest.raises(ParameterError, match="samples=.* needs a calibrated model, or"):
        naive.predict(samples=3)
    quantiles = _model("quantile", context_length=4, horizon=2).fit(series)
    found = quantiles.predict(level=80)
    assert list(found.columns) == ["y", "y_lo80", "y_hi80"]
    with pytest.raises(ParameterError, match="level=90 needs the quantiles 0.05 and 0.95"):
        quantiles.predict(level=90)


@pytest.mark.parametrize("name", ["sold", None])
def test_samples_of_a_series_are_a_frame(name):
    series = pd.Series(np.arange(60.0), index=pd.date_range("2024", periods=60), name=name)
    model = _model("gaussian", max_epochs=1).fit(series)
    for samples in (1, 2):
        drawn = model.predict(samples=samples)
        assert list(drawn.columns) == [name or "y", "sample"]
        assert len(drawn) == samples * HORIZON


def test_samples_of_other_forms():
    long = _counts()
    wide = long.pivot(index="ds", columns="unique_id", values="y")
    drawn = _model("gaussian", max_epochs=1).fit(wide).predict(samples=3)
    assert list(drawn.columns) == ["a", "b", "c", "sample"] and drawn.index.name == "ds"
    indexed = _model("gaussian", max_epochs=1).fit(long.set_index(["unique_id", "ds"]))
    drawn = indexed.predict(samples=3)
    assert drawn.index.names == ["unique_id", "ds"] and list(drawn.columns) == ["y", "sample"]
    of_b = drawn[drawn.index.get_level_values("unique_id") == "b"]
    assert of_b["sample"].tolist() == np.repeat(range(3), HORIZON).tolist()
