"""Calendar features against a loop over timestamps."""

import numpy as np
import pandas as pd
import pytest

from tsar.data.calendar import CALENDAR_FEATURES, CALENDARS, calendar_features, clock_readings


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "Asia/Kolkata", "America/Sao_Paulo"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_features_against_a_loop(zone, unit):
    index = pd.date_range("2024-02-27 21:00", periods=700, freq="7h", tz="UTC").as_unit(unit)
    index = index.tz_localize(None) if zone is None else index.tz_convert(zone)
    found = calendar_features(index)
    assert found.shape == (700, len(CALENDAR_FEATURES)) and found.dtype == np.float32
    for row, stamp in zip(found, index, strict=True):
        expected = [
            stamp.hour / 23,
            stamp.weekday() / 6,
            (stamp.day - 1) / 30,
            (stamp.timetuple().tm_yday - 1) / 365,
        ]
        np.testing.assert_allclose(row, np.array(expected) - 0.5, atol=1e-6)
    assert found.min() >= -0.5 and found.max() <= 0.5


def test_features_are_those_of_the_local_clock():
    stamps = pd.date_range("2024-03-30 20:00", periods=8, freq="h", tz="UTC")
    hours = (calendar_features(stamps.tz_convert("Europe/Berlin"))[:, 0] + 0.5) * 23
    # 02:00 does not exist on the last Sunday of March.
    np.testing.assert_allclose(hours, [21, 22, 23, 0, 1, 3, 4, 5], atol=1e-5)


@pytest.mark.parametrize("freq", ["h", "D", "W", "M", "Q"])
def test_periods_are_read_at_their_start_or_day(freq):
    periods = pd.period_range("2024-01-01", periods=20, freq=freq)
    found = calendar_features(periods)
    expected = [
        [p.hour / 23, p.day_of_week / 6, (p.day - 1) / 30, (p.day_of_year - 1) / 365]
        for p in periods
    ]
    np.testing.assert_allclose(found, np.array(expected) - 0.5, atol=1e-6)


def test_integers_have_no_calendar():
    found = calendar_features(pd.Index([5, 6, 7]))
    assert found.shape == (3, 4) and not found.any()


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "Asia/Kolkata"])
@pytest.mark.parametrize("first", ["1931-05-07 21:00:59", "2024-02-27 21:00"])
def test_readings_tell_the_time(zone, first):
    """From them the stamps can be written again, on the local clock."""
    index = pd.date_range(first, periods=300, freq="7h13min", tz="UTC")
    index = index.tz_localize(None) if zone is None else index.tz_convert(zone)
    days, seconds = clock_readings(index).T
    assert days.dtype == np.float32
    told = pd.to_timedelta(days.astype(int), "D") + pd.to_timedelta(seconds.astype(int), "s")
    shown = index if zone is None else index.tz_localize(None)
    np.testing.assert_array_equal(pd.Timestamp(0) + told, shown)
    periods = clock_readings(pd.period_range("2024-01", periods=3, freq="M"))
    assert periods.tolist() == [[19723, 0], [19754, 0], [19783, 0]]
    assert not clock_readings(pd.Index([5, 6])).any()


@pytest.mark.parametrize("name", CALENDARS)
def test_every_calendar_has_its_width(name):
    index = pd.date_range("2024-01-01", periods=5)
    assert CALENDARS[name].read(index).shape == (5, CALENDARS[name].width)
