"""One route: predict, backtests, samples and levels of one window are the same numbers.

The plain cases are a check of every forecaster, ``check_one_route`` in ``tsar.checks``.
"""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar import checks
from tsar.evaluation import backtest

HORIZON, ROWS = 6, 190
# By class: those that read future covariates in ways of their own.
WITH_COVARIATES = ["ARIMA", "ARNet", "AutoTimes", "AutoformerForecaster", "NLinear", "iTransformer"]


def _priced(rows=ROWS):
    """Two variates that a price moves, and the price, which is known in advance."""
    rng = np.random.default_rng(0)
    price, steps = rng.normal(size=rows), np.arange(rows)
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    values = {
        "y": np.sin(steps / 4) + 2 * price + 0.1 * rng.normal(size=rows),
        "z": np.cos(steps / 4) - price,
        "price": price,
    }
    return pd.DataFrame(values, index=index)


@pytest.fixture(scope="module", params=WITH_COVARIATES)
def priced(request):
    estimator = checks.small_forecaster(getattr(tsar, request.param))
    estimator.set_params(future_covariates="price", target=["y", "z"])
    return estimator.fit(_priced()[:150])


@pytest.mark.parametrize("steps", [1, 3, HORIZON, HORIZON + 2])
def test_windows_with_future_covariates_are_prefixes_and_those_of_predict(priced, steps):
    frame, cutoffs = _priced(), [155, 163]
    longest = priced.forecast_windows(frame, cutoffs, horizon=2 * HORIZON)
    found = priced.forecast_windows(frame, cutoffs, horizon=steps)
    np.testing.assert_allclose(found, longest[:, :steps], rtol=1e-5, atol=1e-6)
    for cutoff, window in zip(cutoffs, found, strict=True):
        future = frame[["price"]][cutoff : cutoff + 2 * HORIZON]
        direct = priced.predict(steps, df=frame[:cutoff], future=future)
        np.testing.assert_allclose(window, direct[["y", "z"]], rtol=1e-5, atol=1e-6)


def test_a_backtest_at_the_end_reads_what_predict_is_given(priced):
    """Beyond the rows that are there, both keep the last known value."""
    frame = _priced()[:163]
    past = backtest(priced, frame, horizon=3, windows=1)
    direct = priced.predict(3, df=frame[:160], future=frame[["price"]][160:])
    name = type(priced).__name__
    for variate in ("y", "z"):
        found = past[past["variate"] == variate][name]
        np.testing.assert_allclose(found, direct[variate], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["split", "cqr", "aci", "pid"])
def test_calibrated_intervals_with_a_range_are_those_of_predict(method):
    rng = np.random.default_rng(1)
    series = pd.DataFrame({"y": 2 + rng.normal(size=300)}, index=pd.RangeIndex(300))
    model = tsar.NLinear(
        context_length=8,
        horizon=3,
        max_epochs=10,
        learning_rate=1e-2,
        loss="quantile",
        quantiles=[0.1, 0.9],
        output_range=(1.5, None),
        random_state=0,
        device="cpu",
    )
    model.fit(series[:200]).calibrate(series[:260], method=method, level=[20, 50, 80])
    past = backtest(model, series, horizon=3, windows=13, level=[20, 50, 80])
    ends = [f"{end}{level}" for end in ("lo", "hi") for level in (20, 50, 80)]
    direct = pd.concat(
        [model.predict(df=series[:cutoff], level=[20, 50, 80]) for cutoff in range(261, 300, 3)]
    )
    assert (direct["y_lo80"] == 1.5).any(), "the range is reached, or nothing is shown"
    for end in ends:
        np.testing.assert_allclose(past[f"NLinear_{end}"], direct[f"y_{end}"], rtol=1e-6)


def _counts():
    """Six series of counts of very different sizes, with a season of 7."""
    rng, rows = np.random.default_rng(4), 120
    days, frames = pd.date_range("2024-02-01", periods=rows), []
    for place, name in enumerate("abcdef"):
        mean = (1 + 300 * place) * (1.5 + np.sin(2 * np.pi * np.arange(rows) / 7))
        counts = rng.poisson(mean).astype(float)
        frames.append(pd.DataFrame({"unique_id": name, "ds": days, "y": counts}))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(
    scope="module",
    params=[
        (name, loss)
        for name in ("NLinear", "PatchTST")
        for loss in ("gaussian", "negative_binomial")
    ],
    ids="-".join,
)
def sampler(request):
    name, loss = request.param
    estimator = checks.small_forecaster(getattr(tsar, name), loss=loss, horizon=5)
    return estimator.fit(_counts())


def test_samples_of_a_series_depend_on_no_other_series(sampler):
    holed = _counts()
    holed.loc[(holed["unique_id"] == "f") & (holed["ds"] >= "2024-05-25"), "y"] = np.nan
    many = sampler.predict(23, df=holed, samples=50)
    whole = sampler.predict(23, df=holed[holed["unique_id"] != "f"], samples=50)
    alone = sampler.predict(23, df=holed[holed["unique_id"] == "c"], samples=50)
    of_c = many["unique_id"] == "c"
    np.testing.assert_array_equal(many.loc[of_c, "y"], alone["y"])
    np.testing.assert_array_equal(many.loc[many["unique_id"] != "f", "y"], whole["y"])


def test_samples_of_a_shorter_horizon_are_the_first_of_a_longer_one(sampler):
    def paths(horizon):
        drawn = sampler.predict(horizon, samples=20)
        return drawn["y"].to_numpy().reshape(6, 20, horizon)

    longest = paths(17)
    for horizon in (2, 5, 8):
        np.testing.assert_array_equal(paths(horizon), longest[:, :, :horizon])


def test_samples_are_drawn_from_the_quantiles_that_predict_gives(sampler):
    levels = [0.1, 0.5, 0.9]
    quantiles = sampler.predict(quantiles=levels)
    drawn = sampler.predict(samples=4000)["y"].to_numpy().reshape(6, 4000, 5)
    for level in levels:
        share = (drawn <= quantiles[f"y_q{level}"].to_numpy().reshape(6, 1, 5)).mean(axis=1)
        # Quantiles of counts are whole numbers, at which a level is reached or passed.
        assert (share > level - 0.03).all(), f"too few samples below the quantile {level}"


def test_samples_keep_inside_of_the_range():
    model = checks.small_forecaster(tsar.NLinear, loss="gaussian", output_range=(0, 400))
    drawn = model.fit(_counts()).predict(15, samples=30)["y"]
    assert drawn.min() == 0 and drawn.max() == 400


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_frame_a_horizon_and_a_future_by_place(place):
    frame = _priced()
    model = checks.small_forecaster(
        tsar.NLinear, future_covariates="price", target=["y", "z"], max_epochs=1
    ).fit(frame[:150])
    by_name = {"df": frame[:160], "horizon": HORIZON, "future": frame[["price"]][160:166]}
    placed = list(by_name.values())[:place]
    rest = dict(list(by_name.items())[place:])
    pd.testing.assert_frame_equal(model.predict(*placed, **rest), model.predict(**by_name))


def test_more_arguments_by_place_are_refused_by_name():
    model = tsar.Naive(horizon=2).fit(_priced()[["y"]])
    with pytest.raises(tsar.exceptions.ParameterError, match="pass the others by name"):
        model.predict(_priced()[["y"]], 2, None, [0.5])
