"""Cycles against stamps that pandas counts, and lengths written out."""

import numpy as np
import pandas as pd
import pytest

from tsar.data.cycles import cycles_of_offset
from tsar.data.frequency import Frequency
from tsar.data.timeaxis import TimeAxis, read_times


def cycles(freq):
    return Frequency.parse(freq, TimeAxis()).cycles


@pytest.mark.parametrize(
    ("freq", "expected"),
    [
        ("h", (24, 168, 8760)),
        ("30min", (48, 336, 17520)),
        ("15min", (96, 672, 35040)),
        ("3h", (8, 56, 2920)),
        ("s", (60, 3600, 86400, 604800, 31536000)),
        ("90s", (960, 6720, 350400)),
        # A day has no whole number of these, a week has.
        ("7h", (24,)),
        # Nor has a week of these; a year of 365 days has.
        ("5h", (1752,)),
        ("9h", ()),
        ("D", (7, 365)),
        ("2D", ()),
        ("5D", (73,)),
        ("W", (52,)),
        ("2W", (26,)),
        ("3W", ()),
        ("4W", (13,)),
        ("13W", (4,)),
        ("MS", (12,)),
        ("2MS", (6,)),
        ("5MS", ()),
        ("6ME", (2,)),
        ("QS", (4,)),
        ("2QE", (2,)),
        ("3QE", ()),
        ("YS", ()),
        ("12MS", ()),
        ("B", (5,)),
        ("2B", ()),
        ("5B", ()),
        ("bh", (8, 40)),
        ("2bh", (4, 20)),
        ("3bh", ()),
        ("5bh", (8,)),
    ],
)
def test_a_step_has_the_cycles_that_it_divides(freq, expected):
    assert cycles(freq) == expected


@pytest.mark.parametrize(
    "offset",
    [
        pd.offsets.BusinessHour(start="08:00", end="20:00"),
        pd.offsets.BusinessHour(start="09:00", end="10:00"),
        pd.offsets.BusinessHour(start=["06:00", "15:00"], end=["09:00", "21:00"]),
        # Half an hour that is left in the morning is worked off after the break.
        pd.offsets.BusinessHour(start=["08:00", "13:30"], end=["12:30", "17:00"]),
        pd.offsets.CustomBusinessHour(start="09:00", end="16:00", weekmask="Sun Mon Tue Wed"),
    ],
)
def test_business_hours_are_counted_by_the_day_and_the_week(offset):
    stamps = pd.date_range("2024-01-07", "2024-02-04", freq=offset)
    inside = stamps[(stamps >= "2024-01-14") & (stamps < "2024-01-28")]
    by_day = pd.Series(1, index=inside).groupby(inside.date).sum()
    assert by_day.nunique() == 1
    expected = [int(by_day.iloc[0]), len(inside) // 2]
    assert cycles_of_offset(offset) == tuple(steps for steps in expected if steps > 1)


def test_a_day_of_six_and_a_half_hours_has_no_cycle():
    assert cycles_of_offset(pd.offsets.BusinessHour(start="09:30", end="16:00")) == ()


@pytest.mark.parametrize("alias", ["BME", "BMS", "SME", "SMS", "BQE", "BYE", "WOM-3FRI"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_others_are_counted_by_the_year(alias, n):
    offset = pd.tseries.frequencies.to_offset(alias) * n
    yearly = len(pd.date_range("2023-01-01", "2023-12-31", freq=alias))
    assert cycles_of_offset(offset) == ((yearly // n,) if yearly % n == 0 and yearly > n else ())


@pytest.mark.parametrize("variation", ["last", "nearest"])
@pytest.mark.parametrize("month", [1, 6, 12])
def test_a_year_of_52_or_53_weeks_has_four_quarters(variation, month):
    options = {"weekday": 5, "startingMonth": month, "variation": variation}
    assert cycles_of_offset(pd.offsets.FY5253Quarter(**options, qtr_with_extra_week=1)) == (4,)
    assert cycles_of_offset(pd.offsets.FY5253(**options)) == ()


def test_business_days_are_counted_by_the_week():
    week = pd.offsets.CustomBusinessDay(weekmask="Sun Mon Tue Wed", holidays=["2024-01-01"])
    assert cycles_of_offset(week) == (4,) and cycles_of_offset(week * 2) == (2,)


@pytest.mark.parametrize("freq", ["h", "D", "W-SUN", "M", "Q-DEC", "Y-DEC"])
def test_periods_have_the_cycles_of_their_offset(freq):
    axis = read_times(pd.period_range("2024", periods=4, freq=freq)).axis
    expected = {"h": 24, "D": 7, "W-SUN": 52, "M": 12, "Q-DEC": 4, "Y-DEC": 1}[freq]
    assert Frequency.of_periods(axis).season_length == expected
    assert all(
        isinstance(steps, int) and not isinstance(steps, np.integer)
        for steps in Frequency.of_periods(axis).cycles
    )
