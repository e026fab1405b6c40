"""The baselines against values written out by hand."""

import numpy as np
import pandas as pd
import pytest

from tsar.forecasting import Naive, SeasonalNaive


def daily(values, **options):
    return pd.Series(values, index=pd.date_range("2024-01-01", periods=len(values), **options))


def test_naive_repeats_the_last_observed_value():
    forecast = Naive(horizon=3).fit(daily([1.0, 0.1, np.nan, np.nan])).predict(horizon=5)
    assert forecast.tolist() == [0.1] * 5


def test_seasonal_naive_repeats_the_season():
    series = daily([9.0, 1.0, 2.0, 3.0])
    forecast = SeasonalNaive(horizon=2, season_length=3).fit(series).predict(horizon=7)
    assert forecast.tolist() == [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]


def test_a_hole_in_the_season_is_filled_by_the_last_value():
    series = daily([4.0, 5.0, np.nan, 7.0])
    forecast = SeasonalNaive(horizon=3, season_length=3).fit(series).predict()
    assert forecast.tolist() == [5.0, 7.0, 7.0]


def test_a_series_shorter_than_its_season():
    model = SeasonalNaive(horizon=5, season_length=4, freq="D").fit(daily([5.0, 6.0]))
    forecast = model.predict()
    assert forecast.tolist() == [6.0, 6.0, 5.0, 6.0, 6.0]


@pytest.mark.parametrize(
    "freq, season",
    [("h", 24), ("15min", 96), ("D", 7), ("W-WED", 52), ("MS", 12), ("QE", 4), ("YE", 1), ("B", 5)],
)
def test_the_season_follows_from_the_frequency(freq, season):
    series = daily(np.arange(40.0), freq=freq)
    assert SeasonalNaive().fit(series).season_length_ == season
