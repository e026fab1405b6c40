import hashlib
from importlib import resources

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load

import tsar
from tsar.exceptions import NotFittedError, ParameterError
from tsar.forecasting import pretrained
from tsar.forecasting.pretrained import WEIGHTS
from tsar.training.phases import train_phases

# Of the weights that docs/pretraining.md has the figures of.
SHA256 = "976df2e90e21615c803078a7bc46a9c19bf103d9eb16160ca5d7e18f65c42664"


def _file(name="tiny"):
    return resources.files("tsar.forecasting") / WEIGHTS[name]


def _hours(n_rows=24 * 7 * 5, seed=0):
    """Days and weeks that repeat, and a little noise."""
    rng = np.random.default_rng(seed)
    hours = np.arange(n_rows)
    day = np.sin(2 * np.pi * hours / 24) + 0.5 * np.sin(4 * np.pi * hours / 24 + 1)
    resting = (hours // 24) % 7 >= 5
    values = 100 + 20 * np.where(resting, 0.3 * day - 1, day) + rng.normal(0, 0.5, n_rows)
    return pd.Series(values, index=pd.date_range("2024-01-01", periods=n_rows, freq="h"))


# ------------------------------------------------------------------- the file


def test_weights_are_those_of_the_documentation():
    content = _file().read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256
    assert len(content) <= 5_000_000
    weights = load(content)
    assert sum(part.numel() for part in weights.values()) <= 2_000_000
    assert {part.dtype for part in weights.values()} == {torch.float16}
    assert all(part.isfinite().all() for part in weights.values())


# ------------------------------------------------------------------ forecasts


def test_predicts_without_fit_what_it_would_after_it():
    series = _hours()
    model = tsar.load_pretrained("tiny")
    forecast = model.predict(36, df=series, quantiles=[0.1, 0.9])
    fitted = tsar.PretrainedForecaster(horizon=36).fit(series)
    pd.testing.assert_frame_equal(forecast, fitted.predict(quantiles=[0.1, 0.9]))
    assert forecast.index[0] == series.index[-1] + pd.Timedelta(hours=1)
    with pytest.raises(NotFittedError, match="pass df="):
        model.predict(36)
    with pytest.raises(NotFittedError, match="fine_tuning_steps=0"):
        model.set_params(fine_tuning_steps=5).predict(36, df=series)


def test_weekends_are_forecast_from_weekends():
    series = _hours(24 * 7 * 5)
    history, truth = series[: -24 * 3], series[-24 * 3 :]  # the last day but two is a Friday
    forecast = tsar.load_pretrained("tiny").predict(24 * 3, df=history)
    naive = tsar.SeasonalNaive(horizon=24 * 3).fit(history).predict()
    error, naive_error = ((one - truth).abs().mean() for one in (forecast, naive))
    assert error < 0.25 * naive_error


def test_random_walk_is_continued_near_its_last_value():
    rng = np.random.default_rng(0)
    walks = pd.DataFrame(
        np.cumsum(rng.normal(size=(400, 40)), axis=0),
        index=pd.date_range("2024-01-01", periods=400, freq="D"),
    ).add_prefix("walk ")
    forecast = tsar.load_pretrained("tiny").predict(10, df=walks)
    # The last step is expected to be 3.2 away from the last value, that of a week ago farther.
    moved = (forecast - walks.iloc[-1]).abs().to_numpy().mean()
    assert moved < 1.0


def test_trend_goes_on():
    line = pd.Series(
        np.arange(200.0) + np.random.default_rng(0).normal(0, 0.5, 200),
        index=pd.date_range("2010-01-01", periods=200, freq="MS"),
    )
    forecast = tsar.load_pretrained("tiny").predict(12, df=line).to_numpy()
    np.testing.assert_allclose(forecast, np.arange(200, 212), atol=4)


def test_a_constant_stays_one():
    index = pd.date_range("2024-01-01", periods=60, freq="D")
    forecast = tsar.load_pretrained("tiny").predict(9, df=pd.Series(7.25, index=index))
    assert (forecast == 7.25).all()


def test_intervals_cover_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    days = pd.DataFrame(
        rng.normal(size=(228, 150)), index=pd.date_range("2024-01-01", periods=228, freq="D")
    ).add_prefix("noise ")
    history, truth = days[:200], days[200:].to_numpy()
    forecast = tsar.load_pretrained("tiny").predict(28, df=history, level=80)
    low = forecast.filter(like="_lo80").to_numpy()
    high = forecast.filter(like="_hi80").to_numpy()
    # Of white noise; 4,200 values.
    assert 0.72 < ((truth >= low) & (truth <= high)).mean() < 0.88


# ----------------------------------------------------------------- parameters


def test_cycles_are_those_of_the_calendar_or_as_told():
    assert tsar.PretrainedForecaster().fit(_hours()).season_lengths_ == (24, 168)
    # Two weeks are not there.
    assert tsar.PretrainedForecaster().fit(_hours(300)).season_lengths_ == (24, 24)
    minutes = pd.Series(
        np.sin(np.arange(4000.0)), index=pd.date_range("2024-01-01", periods=4000, freq="min")
    )
    assert tsar.PretrainedForecaster().fit(minutes).season_lengths_ == (1, 1)
    told = tsar.PretrainedForecaster(season_lengths=(12,)).fit(_hours())
    assert told.season_lengths_ == (12, 12)
    for wrong in ((24, 12), (1, 2, 3), ()):
        with pytest.raises(ParameterError, match="one or two increasing numbers"):
            tsar.PretrainedForecaster(season_lengths=wrong).fit(_hours())


def test_unknown_weights_are_named():
    with pytest.raises(ParameterError, match="pretrained must be"):
        tsar.load_pretrained("huge")


def test_fine_tuning_learns_what_the_weights_do_not_know(tmp_path):
    # A cycle that no calendar has.
    steps = np.arange(600)
    values = np.where(steps % 31 < 4, 5.0, 0.0) + np.where(steps % 7 == 3, 1.0, 0.0)
    series = pd.Series(values, index=pd.date_range("2024-01-01", periods=600, freq="D"))
    history, truth = series[:-28], series[-28:]
    zero_shot = tsar.PretrainedForecaster(horizon=28, context_length=128).fit(history)
    tuned = tsar.PretrainedForecaster(
        horizon=28, context_length=128, fine_tuning_steps=80, learning_rate=3e-3
    ).fit(history)
    errors = [(one.predict() - truth).abs().mean() for one in (zero_shot, tuned)]
    assert errors[1] < 0.7 * errors[0]
    assert zero_shot.is_trained is False and tuned.is_trained is True
    tuned.save(tmp_path / "model")
    pd.testing.assert_series_equal(tsar.load(tmp_path / "model").predict(), tuned.predict())


def test_fine_tuning_trains_the_head_first(monkeypatch):
    seen = []

    def watched(network, *others, phases, **how):
        for phase in phases:
            before = {name: part.clone() for name, part in network.state_dict().items()}
            train_phases(network, *others, phases=[phase], **how)
            after = network.state_dict()
            seen.append({name for name in after if not torch.equal(after[name], before[name])})

    monkeypatch.setattr(pretrained, "train_phases", watched)
    model = tsar.PretrainedForecaster(horizon=8, context_length=64, fine_tuning_steps=4)
    model.fit(_hours())
    head, everything = seen
    assert head == {"patches.head.weight", "patches.head.bias"}
    assert everything >= head | {"patches.embed_history.weight", "patches.embed_ahead.bias"}
