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
    [("h", 24), ("15min", 96), ("D", 7), ("W-WED", 1), ("MS", 12), ("QE", 4), ("YE", 1), ("B", 5)],
)
def test_the_season_follows_from_the_frequency(freq, season):
    series = daily(np.arange(40.0), freq=freq)
    assert SeasonalNaive().fit(series).season_length_ == season


def test_weeks_have_a_season_where_two_years_are_there():
    weeks = daily(np.arange(104.0), freq="W-WED")
    assert SeasonalNaive().fit(weeks).season_length_ == 52
    assert SeasonalNaive().fit(weeks[1:]).season_length_ == 1
    assert SeasonalNaive(season_length=52).fit(weeks[1:]).season_length_ == 52
    assert SeasonalNaive().fit(weeks[1:]).cycles_ == (52,)


def test_cycles_are_what_a_season_can_be():
    model = SeasonalNaive(horizon=3).fit(daily(np.arange(40.0), freq="30min"))
    assert model.cycles_ == (48, 7 * 48, 365 * 48) and model.season_length_ == 48


@pytest.mark.parametrize(
    "offset, cycle",
    [
        (pd.offsets.BusinessHour(start="08:00", end="20:00"), 12),
        (pd.offsets.CustomBusinessHour(start="09:00", end="16:00"), 7),
        (pd.offsets.BusinessHour(start=["08:00", "13:00"], end=["12:00", "18:00"]), 9),
        (pd.offsets.BusinessHour(start="22:00", end="06:00"), 8),
        (pd.offsets.FY5253Quarter(weekday=5, startingMonth=1, qtr_with_extra_week=4), 4),
    ],
)
def test_a_pattern_of_the_opening_times_is_repeated(offset, cycle):
    stamps = pd.DatetimeIndex(pd.date_range("2020-01-01", periods=120, freq=offset).to_numpy())
    pattern = pd.Series(np.arange(120.0) % cycle, index=stamps)
    forecast = SeasonalNaive(horizon=cycle, freq=offset).fit(pattern).predict()
    np.testing.assert_array_equal(forecast, np.arange(120, 120 + cycle) % cycle)
