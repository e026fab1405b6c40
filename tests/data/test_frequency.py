"""Frequencies against pandas' own date_range."""

import datetime
import json

import numpy as np
import pandas as pd
import pytest

from tsar.data.frequency import Frequency, month_day
from tsar.data.inference import infer_frequency
from tsar.data.timeaxis import TimeAxis, read_times
from tsar.exceptions import DataError

HOLIDAYS = ["2024-01-01", "2024-01-15", "2024-02-19", "2024-03-29", "2024-05-27"]
TRADING = pd.offsets.CustomBusinessDay(holidays=HOLIDAYS)
SIX_DAYS = pd.offsets.CustomBusinessDay(weekmask="Mon Tue Wed Thu Fri Sat")
NEW_PANDAS = int(pd.__version__.split(".")[0]) >= 3


def _mid_month(months: int, day: int, periods: int) -> pd.DatetimeIndex:
    """Write the stamps out: the given day of every so many months."""
    stamps = []
    for step in range(periods):
        year, month = divmod(months * step, 12)
        last = (pd.Timestamp(2019 + year, month + 1, 1) + pd.offsets.MonthEnd(0)).day
        stamps.append(pd.Timestamp(2019 + year, month + 1, min(day, last)))
    return pd.DatetimeIndex(stamps)


# What the user writes, and what pandas calls it: 30 stamps are given, 12 asked for.
SPELLINGS = {
    **{"h": "h", "H": "h", "2h": "2h", "12H": "12h", "24h": "24h"},
    **{"15min": "15min", "15T": "15min", "min": "min", "1h30min": "90min", "1H30T": "90min"},
    **{"s": "s", "10S": "10s", "250ms": "250ms", "L": "ms"},
    **{"D": "D", "d": "D", "2D": "2D", "7D": "7D", "10D": "10D"},
    **{"W": "W-SUN", "W-WED": "W-WED", "w-wed": "W-WED", "2W-FRI": "2W-FRI"},
    **{"B": "B", "b": "B", "2B": "2B", "MS": "MS", "ME": "ME", "M": "ME", "2MS": "2MS"},
    **{"QS": "QS", "QE": "QE", "Q": "QE", "QS-FEB": "QS-FEB", "Q-NOV": "QE-NOV"},
    **{"YS": "YS", "AS": "YS", "YE": "YE", "A": "YE", "Y-JUN": "YE-JUN", "5YS": "5YS"},
    **{"BME": "BME", "BM": "BME", "BMS": "BMS", "SM": "SME", "SMS": "SMS", "SME-10": "SME-10"},
    **{"BQ": "BQE", "BQE-OCT": "BQE-OCT", "BQS": "BQS", "BA": "BYE", "BYS": "BYS"},
    **{"WOM-3FRI": "WOM-3FRI", "bh": "bh", "BH": "bh"},
}
# Given, but too uneven or too special to be inferred.
GIVEN_ONLY = {"2B", "SME-10", "BA", "BYS", "WOM-3FRI", "bh", "BH"}
OFFSETS = {
    "holidays": TRADING,
    "two trading days": TRADING * 2,
    "six days": SIX_DAYS,
    "month ends of business": pd.offsets.CustomBusinessMonthEnd(holidays=["2024-01-31"]),
    "short day": pd.offsets.BusinessHour(start="10:00", end="14:00"),
    "date offset of a month": pd.DateOffset(months=1),
    "date offset of a year": pd.DateOffset(years=1),
    "date offset of days": pd.DateOffset(days=3),
    "date offset of a week": pd.DateOffset(weeks=1),
    "date offset of hours": pd.DateOffset(hours=6),
    "day": pd.offsets.Day(),
    "quarter": pd.offsets.QuarterEnd(startingMonth=11),
    "timedelta": datetime.timedelta(minutes=5),
    "timedelta of a day": datetime.timedelta(days=1),
    "pandas timedelta": pd.Timedelta(hours=8),
}


def _same(found: pd.Index, expected: pd.Index) -> None:
    assert found.dtype == expected.dtype and type(found) is type(expected)
    assert list(found) == list(expected)


def _next(index: pd.Index, freq: object, horizon: int = 12) -> tuple[pd.Index, Frequency]:
    read = read_times(index)
    offsets = np.array([0, len(index)])
    if freq is None:
        frequency = infer_frequency(read.stamps, offsets, read.axis)
    else:
        frequency = Frequency.parse(freq, read.axis).settle(read.stamps, read.axis)
    positions, phases = frequency.positions(read.stamps, offsets, read.axis)
    np.testing.assert_array_equal(np.diff(positions), 1)
    assert len(np.unique(phases)) == 1 and frequency.on_grid(phases, read.axis).all()
    stamps = frequency.future(read.stamps[-1:], horizon, read.axis)
    assert stamps.shape == (1, horizon)
    return read.axis.index(stamps[0]), frequency


@pytest.mark.parametrize("freq", SPELLINGS)
def test_given_alias_gives_the_next_stamps(freq):
    expected = pd.date_range("2024-01-03 09:00", periods=42, freq=SPELLINGS[freq])
    found, _ = _next(expected[:30], freq)
    _same(found, expected[30:])


@pytest.mark.parametrize("freq", sorted(set(SPELLINGS.values()) - GIVEN_ONLY - {"bh"}))
def test_inferred_frequency_gives_the_next_stamps(freq):
    expected = pd.date_range("2024-01-03 09:00", periods=42, freq=freq)
    found, frequency = _next(expected[:30], None)
    _same(found, expected[30:])
    # The name can be given back, to pandas and to tsar.
    assert pd.date_range(expected[0], periods=42, freq=frequency.name).equals(expected)
    assert Frequency.parse(frequency.name, read_times(expected).axis).step == frequency.step


@pytest.mark.parametrize("name", OFFSETS)
def test_given_offset_gives_the_next_stamps(name):
    expected = pd.date_range("2024-01-02 10:00", periods=42, freq=OFFSETS[name])
    found, _ = _next(expected[:30], OFFSETS[name])
    _same(found, expected[30:])


@pytest.mark.skipif(not NEW_PANDAS, reason="pandas 2 has no half-years")
@pytest.mark.parametrize("freq", ["HYS", "HYE"])
def test_half_years(freq):
    expected = pd.date_range("2001-01-01", periods=42, freq=freq)
    for given in (freq, None):
        found, _ = _next(expected[:30], given)
        _same(found, expected[30:])


@pytest.mark.parametrize("step", [1, 5, 600])
@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "uint16", "Int64"])
def test_integers(step, dtype):
    expected = pd.Index(np.arange(42) * step + 7, dtype=dtype)
    for freq in (None, step, np.int64(step)):
        found, frequency = _next(expected[:30], freq)
        _same(found, expected[30:])
        assert frequency.name == str(step)


def test_integers_that_no_longer_fit_get_a_wider_dtype():
    found, _ = _next(pd.Index(np.arange(120, 128), dtype="int8"), None, horizon=3)
    _same(found, pd.Index([128, 129, 130], dtype="int64"))


@pytest.mark.parametrize(
    "freq", ["s", "min", "h", "D", "2D", "W-WED", "M", "3M", "Q-DEC", "Q-JAN", "Y-DEC"]
)
def test_periods(freq):
    expected = pd.period_range("2023-05-09", periods=42, freq=freq)
    for given in (None, freq):
        found, frequency = _next(expected[:30], given)
        _same(found, expected[30:])
        assert frequency.name == expected.freqstr


@pytest.mark.parametrize(("months", "day"), [(1, 15), (1, 28), (1, 30), (1, 31), (3, 15), (12, 29)])
def test_days_within_the_month(months, day):
    expected = _mid_month(months, day, 42)
    found, frequency = _next(expected[:30], None)
    assert list(found) == list(expected[30:])
    assert frequency.rule == "months" and frequency.step == months
    found, _ = _next(expected[:30], pd.DateOffset(months=months))
    assert list(found) == list(expected[30:])


def test_few_rows_of_the_30th_are_not_taken_for_month_ends():
    expected = _mid_month(1, 30, 9)
    found, _ = _next(expected[:5], None, horizon=4)
    assert list(found) == list(expected[5:])


@pytest.mark.parametrize("weekday", ["MON", "WED", "SUN"])
def test_weeks_are_named_by_their_day(weekday):
    index = pd.date_range("2024-01-01", periods=9, freq=f"W-{weekday}")
    assert _next(index, None)[1].name == f"W-{weekday}"


def test_six_day_week_is_inferred():
    expected = pd.date_range("2024-01-02", periods=52, freq=SIX_DAYS)
    found, frequency = _next(expected[:40], None)
    _same(found, expected[40:])
    assert frequency.name == "C (Mon Tue Wed Thu Fri Sat)" and frequency.season_length == 6


def test_friday_week_is_inferred():
    """Sunday to Thursday, as in much of the Near East."""
    offset = pd.offsets.CustomBusinessDay(weekmask="Sun Mon Tue Wed Thu")
    expected = pd.date_range("2024-01-02", periods=52, freq=offset)
    found, _ = _next(expected[:40], None)
    _same(found, expected[40:])


def test_monday_to_friday_alone_is_daily():
    week = pd.date_range("2024-01-01", periods=5, freq="D")
    assert _next(week, None)[1].name == "D"
    assert _next(pd.date_range("2024-01-01", periods=6, freq="B"), None)[1].name == "B"


def test_daily_series_with_missing_sundays_stays_daily():
    index = pd.date_range("2024-01-01", periods=20, freq="D").delete([6, 13])
    read = read_times(index)
    assert infer_frequency(read.stamps, np.array([0, len(index)]), read.axis).name == "D"


def test_a_few_stray_rows_do_not_change_what_is_inferred():
    stray = pd.Timestamp("2024-03-03 11:17")
    for freq in ("h", "D", "B", "W-WED", "MS", "ME", "QE-DEC", "QS-FEB", "BME", "15min"):
        index = pd.date_range("2024-01-03", periods=24, freq=freq)
        read = read_times(index.append(pd.DatetimeIndex([stray]).as_unit(index.unit)).sort_values())
        assert infer_frequency(read.stamps, np.array([0, 25]), read.axis).name == freq


def test_most_series_decide_and_not_the_longest():
    stamps, lengths = [], []
    for month in range(5):
        stamps.append(pd.date_range(f"202{month}-01-01", periods=30, freq="MS"))
        lengths.append(30)
    stamps.append(pd.date_range("2020-01-01", periods=4000, freq="D"))
    lengths.append(4000)
    read = read_times(stamps[0].append(stamps[1:]))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    assert infer_frequency(read.stamps, offsets, read.axis).name == "MS"
    # Of two series the longer one decides.
    two = np.concatenate([read.stamps[:30], read.stamps[-4000:]])
    assert infer_frequency(two, np.array([0, 30, 4030]), read.axis).name == "D"


def test_large_panel_is_inferred_from_a_sample():
    minutes = pd.date_range("2020", periods=300_000, freq="5min")
    read = read_times(minutes)
    assert infer_frequency(read.stamps, np.array([0, 300_000]), read.axis).name == "5min"
    short = read.stamps[:9]
    many = np.concatenate([short] * 30_000)
    assert infer_frequency(many, np.arange(30_001) * 9, read.axis).name == "5min"


@pytest.mark.parametrize("rows", [1, 2])
def test_fewer_than_three_rows_ask_for_the_frequency(rows):
    read = read_times(pd.date_range("2024", periods=rows, freq="D"))
    with pytest.raises(DataError, match="no series has 3 rows; pass it to the estimator"):
        infer_frequency(read.stamps, np.array([0, rows]), read.axis)
    # Periods say their frequency themselves.
    read = read_times(pd.period_range("2024", periods=rows, freq="M"))
    assert infer_frequency(read.stamps, np.array([0, rows]), read.axis).name == "M"


def test_repeated_stamps_alone_ask_for_the_frequency():
    read = read_times(pd.DatetimeIndex(["2024-01-01"] * 4))
    with pytest.raises(DataError, match="every timestamp is repeated; pass freq="):
        infer_frequency(read.stamps, np.array([0, 4]), read.axis)


@pytest.mark.parametrize(
    ("freq", "index", "message"),
    [
        ("fortnight", "stamps", r"freq must be a pandas alias such as 'h'.*got 'fortnight'"),
        ("", "stamps", "freq must be a pandas alias"),
        ("-1D", "stamps", r"freq must point forward in time, got '-1D'"),
        ("0D", "stamps", r"freq must point forward in time, got '0D'"),
        (datetime.timedelta(0), "stamps", "freq must point forward"),
        (3, "stamps", "freq must be a pandas alias such as 'h' because the time column holds"),
        ("h", "integers", "freq must be an integer step because the time column holds integers"),
        (0, "integers", "freq must be at least 1, got 0"),
        (-2, "integers", "freq must be at least 1, got -2"),
        ("D", "periods", "freq must be that of the periods, 'M', got 'D'"),
        (1, "periods", "because the time column holds periods, got 1"),
        (pd.DateOffset(months=1, days=2), "stamps", "does not step by months, days or lengths"),
        (pd.DateOffset(day=3), "stamps", "does not step by months, days or lengths"),
    ],
)
def test_unusable_frequency_is_one_clear_error(freq, index, message):
    indexes = {
        "stamps": pd.date_range("2024", periods=3),
        "integers": pd.Index([1, 2, 3]),
        "periods": pd.period_range("2024", periods=3, freq="M"),
    }
    with pytest.raises(DataError, match=message) as error:
        Frequency.parse(freq, read_times(indexes[index]).axis)
    assert len(str(error.value).splitlines()) == 1


def test_frequency_finer_than_the_stamps_is_refused():
    read = read_times(pd.date_range("2024", periods=5, freq="s", unit="s"))
    frequency = Frequency.parse("250ms", read.axis)
    with pytest.raises(DataError, match="finer than the 's' resolution"):
        frequency.positions(read.stamps, np.array([0, 5]), read.axis)


@pytest.mark.parametrize("freq", ["MS", "ME"])
def test_periods_accept_their_frequency_in_other_words(freq):
    read = read_times(pd.period_range("2024", periods=3, freq="M"))
    assert Frequency.parse(freq, read.axis).name == "M"


# ------------------------------------------------------------------ time zones


def _stamps_of(index: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray, TimeAxis]:
    read = read_times(index)
    return read.stamps, np.array([0, len(index)]), read.axis


@pytest.mark.parametrize("change", ["2024-03-31", "2024-10-27"])
def test_hours_go_on_through_a_clock_change(change):
    start = pd.Timestamp(change, tz="Europe/Berlin") - pd.Timedelta(days=1)
    expected = pd.date_range(start, periods=72, freq="h")
    for freq in ("h", None):
        found, _ = _next(expected[:20], freq, horizon=52)
        _same(found, expected[20:])
    days = found[found.normalize() == pd.Timestamp(change, tz="Europe/Berlin")]
    assert len(days) == (23 if change == "2024-03-31" else 25)


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        ("Europe/Berlin", "2024-03-20"),
        ("Europe/Berlin", "2024-10-15"),
        ("America/Sao_Paulo", "2018-10-25"),
        ("America/Sao_Paulo", "2018-02-01"),
        ("Asia/Kolkata", "2024-03-20"),
        ("America/Havana", "2024-10-25"),
        ("Asia/Beirut", "2024-03-20"),
    ],
)
def test_days_stay_at_local_midnight(zone, start):
    days = pd.date_range(start, periods=30, freq="D")
    expected = days.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.ones(30, bool))
    for freq in ("D", None):
        found, frequency = _next(expected[:8], freq, horizon=22)
        _same(found, expected[8:])
        assert frequency.name == "D"


@pytest.mark.parametrize("last", [10, 11, 12])
def test_series_that_ends_where_midnight_is_skipped_returns_to_midnight(last):
    """On 4 November 2018 the day began at 01:00 in Sao Paulo."""
    days = pd.date_range("2018-10-25", periods=30, freq="D")
    expected = days.tz_localize("America/Sao_Paulo", nonexistent="shift_forward")
    assert expected[10].hour == 1
    stamps, _, axis = _stamps_of(expected[: last + 1])
    offsets = np.array([0, last + 1])
    frequency = infer_frequency(stamps, offsets, axis)
    positions, phases = frequency.positions(stamps, offsets, axis)
    assert len(np.unique(phases)) == 1 and (np.diff(positions) == 1).all()
    moved = frequency.moved(stamps, offsets, axis)
    found = frequency.future(stamps[-1:], 8, axis, None if moved is None else moved[-1:])
    assert axis.index(found[0]).equals(expected[last + 1 : last + 9])


def test_series_at_another_hour_is_not_moved_by_its_neighbours():
    """A series of 01:00 is regular, whatever the one before it does."""
    days = pd.date_range("2018-10-25", periods=30, freq="D")
    zone = "America/Sao_Paulo"
    midnight = days.tz_localize(zone, nonexistent="shift_forward")
    one = (days + pd.Timedelta(hours=1)).tz_localize(zone)[10:]
    read = read_times(midnight.append(one))
    offsets = np.array([0, 30, 50])
    frequency = Frequency.parse("D", read.axis)
    positions, phases = frequency.positions(read.stamps, offsets, read.axis)
    assert len(np.unique(phases[:30])) == 1 and len(np.unique(phases[30:])) == 1
    assert phases[0] != phases[30]
    assert (np.diff(positions[:30]) == 1).all() and (np.diff(positions[30:]) == 1).all()


def test_stray_stamp_before_a_skipped_midnight_moves_nothing_else():
    days = pd.date_range("2018-10-25", periods=30, freq="D")
    index = days.tz_localize("America/Sao_Paulo", nonexistent="shift_forward")
    stray = list(index)
    stray[9] += pd.Timedelta(seconds=37)
    stamps, offsets, axis = _stamps_of(pd.DatetimeIndex(stray))
    _, phases = Frequency.parse("D", axis).positions(stamps, offsets, axis)
    assert np.flatnonzero(phases != phases[0]).tolist() == [9]


def test_midnights_of_another_zone_are_lengths_of_time():
    index = pd.date_range("2024-03-01", periods=90, freq="D", tz="UTC").tz_convert("Europe/Berlin")
    found, frequency = _next(index[:60], None, horizon=30)
    _same(found, index[60:])
    assert frequency.name == "24h"


@pytest.mark.parametrize("freq", ["W-SUN", "MS", "ME", "QS", "B", "BME"])
def test_calendar_steps_keep_the_local_hour(freq):
    naive = pd.date_range("2023-01-01", periods=42, freq=freq)
    expected = naive.tz_localize("America/New_York")
    for given in (freq, None):
        found, _ = _next(expected[:30], given)
        _same(found, expected[30:])


# ------------------------------------------------------------------- details


def test_time_of_day_is_part_of_the_grid():
    frequency = Frequency.parse("MS", TimeAxis(unit="s"))
    index = pd.DatetimeIndex(["2024-01-01 09:00", "2024-02-01 10:00"]).as_unit("s")
    _, phases = frequency.positions(np.asarray(index.asi8), np.array([0, 2]), TimeAxis(unit="s"))
    assert phases[0] != phases[1]


@pytest.mark.parametrize(
    ("freq", "right", "wrong"),
    [
        ("MS", "2024-05-01", "2024-05-15"),
        ("ME", "2024-02-29", "2024-02-28"),
        ("QS", "2024-04-01", "2024-05-01"),
        ("QE-NOV", "2024-05-31", "2024-06-30"),
        ("YS", "2024-01-01", "2024-07-01"),
        ("W-WED", "2024-05-01", "2024-05-02"),
        ("B", "2024-05-03", "2024-05-04"),
        ("BME", "2024-03-29", "2024-03-31"),
    ],
)
def test_grid_admits_its_own_stamps_only(freq, right, wrong):
    index = pd.DatetimeIndex([right, wrong])
    stamps, _, axis = _stamps_of(index)
    frequency = Frequency.parse(freq, axis)
    _, phases = frequency.positions(stamps, np.arange(3), axis)
    assert frequency.on_grid(phases, axis).tolist() == [True, False]


def test_multiples_of_an_offset_keep_their_phase_in_every_series():
    """Two series of every second business day, one of them a day later."""
    first = pd.date_range("2024-01-01", periods=10, freq="2B")
    second = pd.date_range("2024-01-02", periods=10, freq="2B")
    read = read_times(first.append(second))
    frequency = Frequency.parse("2B", read.axis)
    positions, phases = frequency.positions(read.stamps, np.array([0, 10, 20]), read.axis)
    assert frequency.on_grid(phases, read.axis).all()
    assert len(np.unique(phases[:10])) == len(np.unique(phases[10:])) == 1
    assert (np.diff(positions)[np.arange(19) != 9] == 1).all()


def test_series_that_end_apart_are_continued_apart():
    index = pd.date_range("2024-01-01", periods=50, freq="B")
    stamps, _, axis = _stamps_of(index)
    for freq in ("B", TRADING, "BME", "MS", "D"):
        frequency = Frequency.parse(freq, axis)
        ends = stamps[[20, 3, 20, 44]]
        together = frequency.future(ends, 7, axis)
        for row, end in enumerate(ends):
            alone = frequency.future(np.array([end]), 7, axis)
            np.testing.assert_array_equal(together[row], alone[0])


@pytest.mark.parametrize(
    ("freq", "season"),
    [
        ("h", 24), ("15min", 96), ("D", 7), ("W-WED", 52), ("MS", 12), ("QE", 4), ("YS", 1),
        ("B", 5), ("BME", 12), ("SME", 24), ("2h", 12), ("s", 60), ("7D", 52), ("2D", 1),
        ("24h", 7), ("WOM-3FRI", 12), ("BQE", 4), ("bh", 8), (SIX_DAYS, 6),
    ],
)  # fmt: skip
def test_season_follows_from_the_frequency(freq, season):
    assert Frequency.parse(freq, TimeAxis()).season_length == season


@pytest.mark.parametrize(("freq", "season"), [("h", 24), ("D", 7), ("M", 12), ("Q-DEC", 4)])
def test_season_of_periods(freq, season):
    read = read_times(pd.period_range("2024", periods=4, freq=freq))
    assert Frequency.of_periods(read.axis).season_length == season
    assert Frequency.steps(3).season_length == 1


@pytest.mark.parametrize("freq", ["W-WED", "7D", "W", pd.offsets.Week(), pd.DateOffset(weeks=1)])
def test_a_year_of_weeks_is_a_season_of_two_years(freq):
    frequency = Frequency.parse(freq, TimeAxis())
    assert frequency.cycles == (52,)
    assert [frequency.season_of(n_rows) for n_rows in (0, 51, 103, 104, 500)] == [1, 1, 1, 52, 52]
    periods = read_times(pd.period_range("2024", periods=4, freq="W"))
    assert Frequency.of_periods(periods.axis).season_of(103) == 1


def test_an_exact_cycle_is_the_season_of_any_data():
    for freq, season in (("h", 24), ("D", 7), ("MS", 12), ("QE", 4), ("B", 5)):
        assert Frequency.parse(freq, TimeAxis()).season_of(3) == season


def test_stored_frequencies_of_before_have_their_season():
    stored = Frequency.parse("h", TimeAxis()).to_dict()
    for name in ("cycles", "inexact"):
        del stored[name]
    assert Frequency.from_dict({**stored, "season_length": 24}).season_of(1) == 24
    assert Frequency.from_dict({**stored, "season_length": 1}).cycles == ()


@pytest.mark.parametrize("freq", [*SPELLINGS, *OFFSETS])
def test_frequency_survives_storage(freq):
    import json

    given = OFFSETS.get(freq, freq)
    axis = TimeAxis()
    frequency = Frequency.parse(given, axis)
    stored = json.loads(json.dumps(frequency.to_dict()))
    again = Frequency.from_dict(stored)
    index = pd.date_range("2024-01-02 10:00", periods=20, freq=SPELLINGS.get(freq, given))
    last = index.as_unit("ns").asi8[-1:]
    frequency, again = (f.settle(last, axis) for f in (frequency, again))
    np.testing.assert_array_equal(frequency.future(last, 9, axis), again.future(last, 9, axis))
    assert (again.name, again.season_length) == (frequency.name, frequency.season_length)


def test_day_of_the_month_and_its_share():
    days = pd.DatetimeIndex(["2024-01-31", "2024-02-29", "2024-04-30", "2024-05-07"])
    assert month_day(days.to_numpy().astype("M8[D]")) == (0, 0.75)
    days = pd.DatetimeIndex(["2024-01-30", "2024-02-29", "2024-03-30", "2024-04-30"])
    assert month_day(days.to_numpy().astype("M8[D]")) == (30, 1.0)


@pytest.mark.parametrize("freq", ["h", "D", "MS"])
def test_end_of_nanoseconds_is_no_earlier_time(freq):
    index = pd.date_range("2262-01-01", periods=3, freq=freq).as_unit("ns")
    read = read_times(index)
    frequency = Frequency.parse(freq, read.axis)
    assert frequency.future(read.stamps[-1:], 1, read.axis)[0, 0] > read.stamps[-1]
    with pytest.raises(DataError, match=r"do not fit into the time column \(unit 'ns'\)"):
        frequency.future(read.stamps[-1:], 100_000 if freq == "h" else 2000, read.axis)


def _opening(step, days, first, last, *, tz=None, weeks=12):
    """Write out the stamps of opening hours, weekdays from 0 for Monday."""
    stamps = pd.date_range("2024-01-01", periods=weeks * 7 * 24 * 60, freq="min", tz=tz)
    minutes = stamps.hour * 60 + stamps.minute
    opens, closes = (int(clock[:2]) * 60 + int(clock[3:]) for clock in (first, last))
    stamps = stamps[
        stamps.day_of_week.isin(days)
        & (minutes >= opens)
        & (minutes <= closes)
        & ((minutes - opens) % step == 0)
    ]
    return pd.DatetimeIndex(stamps, freq=None)


OPENING = {
    "trading bars": (
        _opening(30, range(5), "09:30", "15:30"),
        "30min (Mon-Fri 09:30-15:30)",
        (13, 65),
    ),
    "five minutes": (
        _opening(5, range(5), "09:30", "15:55", tz="America/New_York"),
        "5min (Mon-Fri 09:30-15:55)",
        (78, 390),
    ),
    "weekdays": (_opening(60, range(5), "00:00", "23:00"), "h (Mon-Fri 00:00-23:00)", (24, 120)),
    "six days": (_opening(60, range(6), "08:00", "17:00"), "h (Mon-Sat 08:00-17:00)", (10, 60)),
    "every day": (_opening(60, range(7), "10:00", "19:00"), "h (Mon-Sun 10:00-19:00)", (10, 70)),
    "two days": (
        _opening(15, [1, 4], "12:00", "13:45"),
        "15min (Tue Fri 12:00-13:45)",
        (8, 16),
    ),
    "short Saturday": (
        _opening(60, range(5), "08:00", "17:00")
        .append(_opening(60, [5], "09:00", "12:00"))
        .sort_values(),
        "h (54 a week)",
        (54,),
    ),
}


@pytest.mark.parametrize("name", OPENING)
def test_opening_hours_are_inferred_and_go_on(name):
    index, label, cycles = OPENING[name]
    known, ahead = index[:-40], index[-40:]
    axis = read_times(known).axis
    stamps = read_times(known).stamps
    offsets = np.array([0, len(stamps)])
    frequency = infer_frequency(stamps, offsets, axis)
    assert (frequency.name, frequency.cycles) == (label, cycles)
    positions, phases = frequency.positions(stamps, offsets, axis)
    assert (np.diff(positions) == 1).all() and frequency.on_grid(phases, axis).all()
    following = axis.times(frequency.future(stamps[-1:], 40, axis)[0])
    assert list(following) == list(ahead)
    again = Frequency.from_dict(json.loads(json.dumps(frequency.to_dict())))
    assert again == frequency
    # Some rows are missing and some are astray: the hours are the same.
    kept = np.random.default_rng(0).random(len(stamps)) > 0.05
    kept[[0, -1]] = True
    some = np.sort(np.append(stamps[kept], stamps[7] + 1))
    assert infer_frequency(some, np.array([0, len(some)]), axis).slots == frequency.slots


def test_breaks_that_follow_no_week_are_gaps():
    hours = pd.date_range("2024-01-01", "2024-12-31", freq="h")
    half = 6 + 2.5 * np.sin((hours.day_of_year - 80) / 365 * 2 * np.pi)
    daylight = hours[abs(hours.hour - 12) < half]
    here_and_there = hours[np.random.default_rng(0).random(len(hours)) > 0.1]
    one_break = hours[:200].append(hours[260:500])
    few = [
        hours[:n][np.random.default_rng(n).random(n) > share]
        for n in (100, 200, 400, 800)
        for share in (0.05, 0.1, 0.2, 0.3, 0.4)
    ]
    for index in (daylight, here_and_there, one_break, *few):
        read = read_times(pd.DatetimeIndex(index, freq=None))
        assert infer_frequency(read.stamps, np.array([0, len(index)]), read.axis).name == "h"
