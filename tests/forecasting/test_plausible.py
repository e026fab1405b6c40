"""What a history allows: a closed form, which explosions break and honest forecasts keep."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.exceptions import DataWarning, own_warnings
from tsar.forecasting.plausible import first_beyond

SEASON, HORIZON = 7, 20


def beyond(forecast, z, x=None, ahead=None, least=0.0):
    """Ask for one window at the end of a history."""
    found = np.asarray(forecast, dtype=float)[None]
    known = np.empty((len(z) + found.shape[1], 0))
    if x is not None:
        known = np.concatenate([x, ahead])[:, None]
    return first_beyond(found, np.asarray(z, float), known, np.array([len(z)]), SEASON, least)[0]


def far(z, step):
    """How far the rule lets a step leave the range of a history, written out."""
    n, third = len(z), len(z) // 3
    inner = [np.ptp(np.quantile(part, [0.1, 0.9])) for part in (z[:third], z[-third:])]
    growth = max(1.0, inner[1] / inner[0]) ** (1 / (n - third)) if inner[0] > 0 else 1.0
    means = pd.Series(z).rolling(SEASON).mean()
    change = means.diff(SEASON).abs().max()
    seasons = -(-step // SEASON)
    return 2 * max(np.ptp(z), seasons * change) * growth ** min(step, n)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("up", [1, -1])
def test_the_rule_is_that_of_the_documentation(seed, up):
    rng = np.random.default_rng(seed)
    z = up * np.cumsum(rng.normal(0.1 * (seed % 3), 1, 40 + seed)) * 1.02 ** np.arange(40 + seed)
    for step in (1, 9, HORIZON):
        limit = z.max() + far(z, step) if up > 0 else z.min() - far(z, step)
        forecast = np.full(HORIZON, z[-1])
        forecast[step - 1] = limit - up * 1e-6 * abs(limit)
        assert beyond(forecast, z) == HORIZON
        forecast[step - 1] = limit + up * 1e-6 * abs(limit)
        assert beyond(forecast, z) == step - 1


def test_covariates_that_leave_their_range_take_the_forecast_along():
    z, x = np.tile([0.0, 1.0], 10), np.tile([0.0, 5.0], 10)
    forecast = np.array([1.0, 6.0, 6.0])
    assert beyond(forecast, z) == 1
    # One and a half of their ranges beyond, from the second step on: 1 + 2 * (1 + 1.5) = 6.
    assert beyond(forecast, z, x, np.array([5.0, 12.6, 5.0])) == 3
    assert beyond(forecast, z, x, np.array([5.0, 12.4, 5.0])) == 1
    assert beyond(forecast, z, x, np.array([5.0, -7.6, 5.0])) == 3
    # A later step does not excuse an earlier one.
    assert beyond(forecast, z, x, np.array([5.0, 5.0, 12.6])) == 1
    # Ten ranges at most: 1 + 2 * (1 + 10) = 23.
    assert beyond([22.9], z, x, np.array([1e9])) == 1
    assert beyond([23.1], z, x, np.array([1e9])) == 0
    # What moves for the first time moves by one range.
    assert beyond([5.1], z, np.zeros(20), np.ones(1)) == 0
    assert beyond([4.9], z, np.zeros(20), np.ones(1)) == 1


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_beyond(broken):
    forecast = np.zeros(HORIZON)
    forecast[4] = broken
    assert beyond(forecast, np.arange(30.0)) == 4


def test_nothing_after_a_cutoff_counts():
    z = np.r_[np.tile([0.0, 1.0], 20), 1e6]
    forecast = np.full((2, 1), 1e5)
    x = np.empty((len(z) + 1, 0))
    found = first_beyond(forecast, z, x, np.array([40, 41]), SEASON, 0.0)
    np.testing.assert_array_equal(found, [0, 1])


# ----------------------------------------------------------------- honest forecasts

ROWS = {"D": 60, "MS": 48, "YS": 30}
T = {freq: np.arange(rows) for freq, rows in ROWS.items()}
BY_SEASON = {"D": 7, "MS": 12, "YS": 1}


def _made(kind, freq, rng):
    t, n, m = T[freq], ROWS[freq], max(BY_SEASON[freq], 4)
    noise = rng.normal(size=n)
    wave = np.sin(2 * np.pi * t / m)
    return {
        "trend": 5.0 * t + 3 * noise,
        "fall": 1000 - 5.0 * t + 3 * noise,
        "quadratic": 0.1 * t**2 + 3 * noise,
        "walk": np.cumsum(noise),
        "drift": np.cumsum(noise + 0.5),
        "season": 10 * wave + noise,
        "growing season": (10 + 0.5 * t) * (1 + 0.5 * wave) + noise,
        "growth": 10 * 2.0 ** (t / m) * np.exp(0.02 * noise),
        "growth and season": 10 * 1.5 ** (t / m) * (1 + 0.4 * wave) * np.exp(0.02 * noise),
        "outlier": np.where(t == rng.integers(n), 1e4, 0.0) + noise,
        "intermittent": rng.poisson(0.2, n).astype(float),
        "shift": np.where(t > 0.7 * n, 100.0, 0.0) + noise,
        "launch": np.where(t < n // 2, 0.0, 10 * 1.08 ** (t - n // 2)),
        "constant": np.full(n, 5.0),
        "noise": 100 + noise,
    }[kind]


KINDS = (
    "trend,fall,quadratic,walk,drift,season,growing season,growth,growth and season,outlier,"
    "intermittent,shift,launch,constant,noise"
).split(",")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("freq", list(ROWS))
def test_honest_forecasts_are_left_alone(kind, freq):
    """Of models that cannot explode, over up to as many steps as there are rows."""
    parts = []
    for seed in range(8):
        y = _made(kind, freq, np.random.default_rng(seed))
        days = pd.date_range("1990-01-01", periods=len(y), freq=freq)
        parts.append(pd.DataFrame({"unique_id": f"{seed:02}", "ds": days, "y": y}))
    frame = pd.concat(parts)
    model = tsar.Theta(horizon=ROWS[freq] // 2).fit(frame)
    assert model.status_["status"].eq("ok").all()
    forecast = model.predict(ROWS[freq])
    assert forecast.attrs["fallback"] == {}
    # And as if the truth had gone on: what continues the series exactly is no explosion.
    if kind in ("trend", "fall", "quadratic", "growth"):
        t = np.arange(ROWS[freq] + ROWS[freq] // 2)
        whole = {
            "trend": 5.0 * t,
            "fall": 1000 - 5.0 * t,
            "quadratic": 0.1 * t**2,
            "growth": 2.0 ** (t / max(BY_SEASON[freq], 4)),
        }[kind]
        before, after = np.split(whole, [ROWS[freq]])
        x = np.empty((len(t), 0))
        found = first_beyond(
            after[None], before, x, np.array([len(before)]), BY_SEASON[freq], least=0.0
        )
        np.testing.assert_array_equal(found, [len(after)])


@pytest.mark.parametrize("name", ["ETS", "STLETS", "ARIMA"])
def test_slopes_of_other_models_are_left_alone(name):
    options = {
        "ETS": {"damped_trend": False, "initialization": "heuristic"},
        "STLETS": {"damped_trend": False},
        "ARIMA": {"order": (0, 2, 1)},
    }[name]
    index = pd.date_range("2024-01-01", periods=ROWS["D"])
    for kind in ("trend", "walk"):
        y = pd.Series(_made(kind, "D", np.random.default_rng(1)), index=index)
        model = getattr(tsar, name)(horizon=28, **options).fit(y)
        assert model.status_["status"].tolist() == ["ok"]


# ---------------------------------------------------------------------- explosions


@pytest.mark.parametrize("factor", [1.3, 1.6, 3.0, -1.4])
@pytest.mark.parametrize("kind", ["season", "walk", "intermittent", "noise", "trend"])
def test_recursions_that_explode_are_caught(kind, factor):
    """A forecast whose distance from the level grows by a factor with every step."""
    caught = 0
    for seed in range(30):
        z = _made(kind, "D", np.random.default_rng(seed))
        away = np.std(z) * factor ** np.arange(1, 29)
        found = first_beyond(
            (z[-1] + away)[None], z, np.empty((len(z) + 28, 0)), np.array([len(z)]), 7, 0.0
        )
        caught += int(found[0] < 28)
    assert caught == 30


@pytest.mark.parametrize("n_rows", [19, 22, 26])
def test_autoregressions_of_short_counts_stay_near_what_was_seen(n_rows):
    parts = []
    for seed in range(40):
        y = np.random.default_rng(seed).negative_binomial(4, 4 / 24, n_rows).astype(float)
        days = pd.date_range("2025-01-01", periods=n_rows)
        parts.append(pd.DataFrame({"unique_id": seed, "ds": days, "y": y}))
    frame = pd.concat(parts)
    with own_warnings("ignore", DataWarning):
        forecast = tsar.AutoReg(horizon=28).fit(frame).predict()
    top = frame.groupby("unique_id")["y"].max()
    reach = forecast["y"].abs().groupby(forecast["unique_id"]).max() / top
    assert reach.max() < 10 and (reach > 2).mean() < 0.05
