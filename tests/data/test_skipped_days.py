"""Zones that went over the date line have a day that never was, or one that was twice."""

import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.data.frequency import Frequency
from tsar.data.timeaxis import read_times
from tsar.exceptions import DataError

SKIPPED = {
    "Pacific/Apia": "2011-12-30",
    "Pacific/Fakaofo": "2011-12-30",
    "Pacific/Kwajalein": "1993-08-21",
    "Pacific/Enderbury": "1994-12-31",
    "Pacific/Kiritimati": "1994-12-31",
}
# pandas before 3 knows clocks from 1901 on only.
if int(pd.__version__.split(".")[0]) >= 3:
    SKIPPED |= {"Asia/Manila": "1844-12-31", "Pacific/Guam": "1844-12-31"}
DOUBLED = {
    "Pacific/Kwajalein": "1969-09-30",
    "Pacific/Apia": "1892-07-04",
    "Pacific/Pago_Pago": "1892-07-04",
    "America/Sitka": "1867-10-18",
}
MODERN = ["Pacific/Apia", "Pacific/Kwajalein", "Pacific/Kiritimati"]


def _exists(time, zone):
    """Say whether a wall clock showed a time, as the standard library has it."""
    aware = time.to_pydatetime().replace(tzinfo=ZoneInfo(zone))
    there = aware.astimezone(datetime.UTC).astimezone(ZoneInfo(zone))
    return there.replace(tzinfo=None) == time.to_pydatetime()


def _that_exist(times, zone):
    times = times[[_exists(time, zone) for time in times]]
    return times.tz_localize(zone, ambiguous=np.ones(len(times), dtype=bool))


def _around(zone, freq, hour=0, steps=30):
    middle = pd.Timestamp(SKIPPED[zone]) + pd.Timedelta(hours=hour)
    begin, end = (middle + days * pd.Timedelta(days=steps) for days in (-1, 1))
    return pd.date_range(begin, end, freq=freq)


def _next(history, steps, **options):
    series = pd.Series(np.arange(len(history), dtype=float), index=history)
    return tsar.Naive(horizon=steps, **options).fit(series).predict().index


@pytest.mark.parametrize("zone", SKIPPED)
@pytest.mark.parametrize("hour", [0, 7])
def test_days_follow_each_other_over_one_that_never_was(zone, hour):
    days = _that_exist(_around(zone, "D", hour), zone)
    place = int(np.argmax(days > pd.Timestamp(SKIPPED[zone]).tz_localize("UTC")))
    # It ends well before, right before and right after it, and well after.
    for end in (place - 9, place - 1, place, place + 1, place + 9):
        ahead = _next(days[:end], 8)
        assert list(ahead) == list(days[end : end + 8])


@pytest.mark.parametrize("zone", MODERN)
@pytest.mark.parametrize("freq", ["B", pd.offsets.BusinessHour(), pd.offsets.CustomBusinessDay()])
def test_business_days_and_hours(zone, freq):
    times = _that_exist(_around(zone, freq, steps=40), zone)
    for end in (len(times) // 2 - 5, len(times) // 2, len(times) // 2 + 5):
        assert list(_next(times[:end], 12, freq=freq)) == list(times[end : end + 12])


@pytest.mark.parametrize("zone", MODERN)
def test_opening_hours(zone):
    hours = _around(zone, "h", steps=35)
    # Saturdays count, as one of the days that were skipped is one.
    hours = _that_exist(hours[hours.hour.isin([9, 10, 11]) & (hours.strftime("%a") != "Sun")], zone)
    ends = [np.searchsorted(hours, hours[0] + pd.Timedelta(days=days)) for days in (33, 34, 36)]
    for end in ends:
        panel = tsar.Panel.from_frame(pd.Series(1.0, index=hours[:end]))
        assert panel.frequency.rule == "week"
        assert list(panel.future_index(9)) == list(hours[end : end + 9])


@pytest.mark.parametrize("zone", MODERN)
@pytest.mark.parametrize("weeks", [1, 2])
def test_weeks_keep_their_number_and_the_next_day_takes_the_place(zone, weeks):
    day = pd.Timestamp(SKIPPED[zone])
    dates = pd.date_range(day - pd.Timedelta(weeks=6), periods=14, freq="7D")[::weeks]
    expected = dates.where(dates != day, day + pd.Timedelta(days=1)).tz_localize(zone)
    place = list(dates).index(day)
    for end in (place, place + 1, place + 2):
        # What was forecast is read again as it is.
        assert list(_next(expected[:end], 2, freq=f"{7 * weeks}D")) == list(expected[end : end + 2])


@pytest.mark.parametrize("zone", ["Pacific/Enderbury", "Pacific/Kiritimati"])
@pytest.mark.parametrize("freq", ["ME", "QE"])
def test_months_end_on_the_last_day_there_was(zone, freq):
    ends = pd.date_range("1993-12-31", periods=20, freq=freq)
    expected = ends.where(ends != SKIPPED[zone], ends - pd.Timedelta(days=1)).tz_localize(zone)
    place = list(ends).index(pd.Timestamp(SKIPPED[zone]))
    for end in (place, place + 1, place + 3):
        assert list(_next(expected[:end], 3, freq=freq)) == list(expected[end : end + 3])


def test_days_that_are_missing_are_still_told():
    days = _that_exist(_around("Pacific/Apia", "D"), "Pacific/Apia")
    with pytest.raises(DataError, match=r"gap, count 1, first at 2011-12-29 00:00:00-10:00"):
        tsar.Naive().fit(pd.Series(1.0, index=days[days != "2011-12-29"]))
    doubled = pd.Series(1.0, index=days.insert(3, days[3]))
    with pytest.raises(DataError, match="duplicate, count 1"):
        tsar.Naive().fit(doubled)
    gap = pd.Series(np.arange(61.0)[: len(days)], index=days).drop(days[[28, 30]])
    clean = tsar.tidy(gap, gaps="mask").frame
    assert list(clean.index) == list(days)


@pytest.mark.parametrize("zone", DOUBLED)
@pytest.mark.parametrize("freq", ["D", "W", "h", "MS"])
def test_a_day_that_was_twice_is_one_step_of_days(zone, freq):
    day = pd.Timestamp(DOUBLED[zone])
    if freq == "h":
        utc = pd.date_range(day - pd.Timedelta(days=2), periods=120, freq="h", tz="UTC")
        times = utc.tz_convert(zone)
    else:
        times = pd.date_range(day - pd.offsets.Day(200), day + pd.offsets.Day(200), freq=freq)
        times = _that_exist(times, zone)
    for end in range(9, len(times) - 3, len(times) // 6):
        assert list(_next(times[:end], 3, freq=freq)) == list(times[end : end + 3])


@pytest.mark.parametrize("zone", [*SKIPPED, "Europe/Berlin", "America/Sao_Paulo", "Africa/Cairo"])
def test_a_wall_clock_that_was_never_shown_moves_to_the_next_time_that_was(zone):
    day = pd.Timestamp(SKIPPED.get(zone, "2018-11-04"))
    local = pd.date_range(day - pd.offsets.Day(2), day + pd.offsets.Day(2), freq="15min")
    axis = read_times(local.tz_localize("UTC").tz_convert(zone)).axis
    read = axis.universal(np.asarray(local.as_unit(axis.unit).asi8))
    shown = pd.DatetimeIndex(axis.times(read)).tz_localize(None)
    there = np.array([_exists(time, zone) for time in local])
    assert (shown[there] == local[there]).all() and (np.diff(read) >= 0).all()
    for time, instead in zip(local[~there], shown[~there], strict=True):
        assert instead == min(other for other in local[there] if other > time)
    skipped = axis.skipped_days(np.asarray(local.as_unit(axis.unit).asi8))
    assert pd.to_datetime(skipped, unit="D").tolist() == [day] * (zone in SKIPPED)


def test_months_without_the_day_and_without_a_zone_are_as_before():
    axis = read_times(pd.date_range("2011-12-01", periods=3)).axis
    frequency = Frequency.parse("D", axis)
    last = np.asarray(pd.DatetimeIndex(["2011-12-29"]).as_unit(axis.unit).asi8)
    assert axis.index(frequency.future(last, 1, axis)[0]).tolist() == [pd.Timestamp("2011-12-30")]
