"""MSTL against the decomposition of statsmodels and the smoothing of its rest."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.seasonal import MSTL as Decomposition

from tsar.exceptions import ParameterError
from tsar.forecasting import ETS, MSTL

HORIZON = 8


@pytest.fixture
def hours() -> pd.Series:
    rng = np.random.default_rng(7)
    steps = np.arange(130)
    values = 3 * np.sin(2 * np.pi * steps / 6) + 5 * np.sin(2 * np.pi * steps / 21) + 0.02 * steps
    index = pd.date_range("2024-01-01", periods=len(steps), freq="h")
    return pd.Series(50 + values + 0.3 * rng.normal(size=len(steps)), index=index, name="y")


def test_the_rest_is_smoothed_and_the_seasons_repeated(hours):
    history = hours[:120]
    model = MSTL(horizon=HORIZON, season_length=[21, 6]).fit(history)
    assert model.season_lengths_ == (6, 21) and model.season_length_ == 6
    seasons = Decomposition(history.to_numpy(), periods=(6, 21)).fit().seasonal
    rest = ETS(horizon=HORIZON, seasonal=None).fit(history - seasons.sum(axis=1)).predict()
    steps = np.arange(HORIZON)
    repeated = seasons[120 - 6 + steps % 6, 0] + seasons[120 - 21 + steps, 1]
    np.testing.assert_allclose(model.predict(), rest + repeated, rtol=1e-5)


def test_it_knows_both_seasons(hours):
    def error(model):
        return np.abs(model.fit(hours[:120]).predict() - hours[120:128]).mean()

    both = error(MSTL(horizon=HORIZON, season_length=[6, 21]))
    assert both < 0.5 * error(MSTL(horizon=HORIZON, season_length=6))


def test_seasons_are_the_cycles_that_the_data_have_twice(hours):
    assert MSTL(horizon=2).fit(hours).season_lengths_ == (24,)
    longer = pd.Series(np.sin(np.arange(340.0)), pd.date_range("2024-01-01", periods=340, freq="h"))
    assert MSTL(horizon=2).fit(longer).season_lengths_ == (24, 168)
    years = pd.Series(np.arange(20.0) ** 1.5, pd.date_range("2000", periods=20, freq="YS"))
    assert MSTL(horizon=2).fit(years).season_lengths_ == (1,)


def test_seasons_that_are_the_same_are_refused(hours):
    with pytest.raises(ParameterError, match="season_length must have entries that differ"):
        MSTL(season_length=[6, 6]).fit(hours)
