"""Times in text come back as they were spelt, and are never read in two ways."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.data.timestyle import date_style, guess_style, parse_text, spelling, write_text
from tsar.exceptions import DataError

DAYS = pd.date_range("2024-01-25", periods=48)
LATE_DAYS = pd.date_range("2023-10-10", periods=150)
HOURS = pd.date_range("2024-01-25", periods=48, freq="h")
MONTHS = pd.date_range("2023-01-01", periods=24, freq="MS")
QUARTERS = pd.date_range("1998-01-01", periods=20, freq="QS")
WEEKS = pd.date_range("2024-01-01", periods=120, freq="7D")
# By hand, where strftime of all systems cannot write them.
SPELLINGS = {
    "milliseconds and Z": (HOURS, lambda t: f"{t:%Y-%m-%dT%H:%M:%S}.000Z"),
    "milliseconds": (HOURS, lambda t: f"{t:%Y-%m-%d %H:%M:%S}.000"),
    "tenths": (HOURS, lambda t: f"{t:%Y-%m-%d %H:%M:%S}.0"),
    "nanoseconds": (HOURS, lambda t: f"{t:%Y-%m-%d %H:%M:%S}.000000000"),
    "milliseconds and offset": (HOURS, lambda t: f"{t:%Y-%m-%dT%H:%M:%S}.000+01:00"),
    "offset of hours": (HOURS, lambda t: f"{t:%Y-%m-%d %H:%M:%S}+00"),
    "spreadsheet": (DAYS, lambda t: f"{t.month}/{t.day}/{t.year}"),
    "spreadsheet from October on": (LATE_DAYS, lambda t: f"{t.month}/{t.day}/{t.year}"),
    "spreadsheet with clock": (
        pd.date_range("2023-10-10", periods=3000, freq="h"),
        lambda t: f"{t.month}/{t.day}/{t.year} {t.hour}:{t.minute:02}",
    ),
    "clock in front": (LATE_DAYS, lambda t: f"{t.hour}:{t.minute:02} {t.day}.{t.month}.{t.year}"),
    "german": (DAYS, lambda t: f"{t.day}.{t.month}.{t.year}"),
    "day without month": (DAYS, lambda t: f"{t.day}.{t.month:02}.{t.year}"),
    "iso without zeros": (DAYS, lambda t: f"{t.year}-{t.month}-{t.day}"),
    "hour without zero": (HOURS, lambda t: f"{t:%Y-%m-%d} {t.hour}:{t.minute:02}"),
    "only October to December": (
        pd.date_range("2023-11-01", periods=40),
        lambda t: f"{t.month}/{t.day}/{t.year}",
    ),
    "quarters": (QUARTERS, lambda t: f"{t.year} Q{t.quarter}"),
    "quarters without space": (QUARTERS, lambda t: f"{t.year}Q{t.quarter}"),
    "quarters with hyphen": (QUARTERS, lambda t: f"{t.year}-Q{t.quarter}"),
    "quarters in front": (QUARTERS, lambda t: f"Q{t.quarter}/{t.year}"),
    "small quarters": (QUARTERS, lambda t: f"{t.year}q{t.quarter}"),
    "weeks": (WEEKS, lambda t: "{}-W{:02}".format(*t.isocalendar())),
    "compact weeks": (WEEKS, lambda t: "{}W{:02}".format(*t.isocalendar())),
    "weeks without zero": (WEEKS, lambda t: "{}-W{}".format(*t.isocalendar())),
    "week days": (DAYS, lambda t: "{}-W{:02}-{}".format(*t.isocalendar())),
    "clock of twelve hours": (
        pd.date_range("2024-01-25 13:00", periods=48, freq="h"),
        lambda t: f"{t:%m/%d/%Y} {t.hour % 12 or 12:02}:{t.minute:02} {'AP'[t.hour // 12]}M",
    ),
    "clock of twelve hours without zero": (
        pd.date_range("2024-01-25 13:00", periods=48, freq="h"),
        lambda t: f"{t.month}/{t.day}/{t.year} {t.hour % 12 or 12}:{t:%M:%S} {'AP'[t.hour // 12]}M",
    ),
    "clock of twelve hours in small letters": (
        HOURS,
        lambda t: f"{t:%Y-%m-%d} {t.hour % 12 or 12:02}:{t.minute:02}{'ap'[t.hour // 12]}m",
    ),
    "clock of twelve hours in front": (
        HOURS,
        lambda t: f"{t.hour % 12 or 12} {'ap'[t.hour // 12]}m {t:%Y-%m-%d}",
    ),
    "mornings only": (DAYS, lambda t: f"{t:%Y-%m-%d} 12:30 am"),
    "headers of the web": (HOURS, lambda t: f"{t:%a, %d %b %Y %H:%M:%S} GMT"),
    "universal time": (HOURS, lambda t: f"{t:%Y-%m-%d %H:%M:%S} UTC"),
    "months of offices": (MONTHS, lambda t: f"{t.year}M{t.month:02}"),
    "months of offices without zero": (MONTHS, lambda t: f"{t.year}-M{t.month}"),
}


def _continued(texts, steps, **params):
    known = pd.Series(np.arange(len(texts) - steps) * 1.0, index=pd.Index(texts[:-steps]))
    model = tsar.SeasonalNaive(horizon=steps, season_length=1, **params).fit(known)
    return model.predict().index


@pytest.mark.parametrize("name", SPELLINGS)
def test_text_goes_on_in_its_spelling(name):
    times, spelt = SPELLINGS[name]
    texts = [spelt(time) for time in times]
    assert list(_continued(texts, 7)) == texts[-7:]


def test_quarters_and_weeks_have_a_season():
    for name, season in (("quarters", 4), ("weeks", 52), ("months of offices", 12)):
        times, spelt = SPELLINGS[name]
        series = pd.Series(np.arange(len(times)) * 1.0, index=[spelt(time) for time in times])
        assert tsar.SeasonalNaive(horizon=2).fit(series).season_length_ == season


def test_a_week_that_is_not_there_is_no_time():
    texts = pd.Index(["2024-W52", "2024-W53", "2026-W53", "2024-W00"])
    read = parse_text(texts, "%G-W%V")
    assert list(read.isna()) == [False, True, False, True]
    assert read[2] == pd.Timestamp.fromisocalendar(2026, 53, 1)
    assert list(parse_text(pd.Index(["2024Q4", "2024Q5", None]), "%YQ%q").isna()) == [0, 1, 1]
    with pytest.raises(ValueError, match="a quarter goes with a year"):
        parse_text(texts, "%q")


@pytest.mark.parametrize("separator", ["/", "-", " "])
@pytest.mark.parametrize(
    "around", ["{}", "%a {}", "%A, {}", "%H:%M {}", "%H:%M:%S, {}", "{} %H:%M", "%Hh {}"]
)
def test_day_or_month_first_is_refused_wherever_the_date_stands(around, separator):
    style = around.format(f"%d{separator}%m{separator}%Y")
    with pytest.raises(DataError, match="with the day or with the month first"):
        _continued(list(MONTHS[:12].strftime(style)), 2)
    # A day beyond the twelfth settles it, in both orders.
    days = pd.date_range("2023-01-01", periods=30)
    american = around.format(f"%m{separator}%d{separator}%Y")
    for order in (style, american):
        texts = list(days.strftime(order))
        assert list(_continued(texts, 4)) == texts[-4:]


@pytest.mark.parametrize("style", ["%Y/%m/%d", "%Y-%m-%d", "%H:%M %Y-%m-%d", "%Y %m %d"])
def test_a_year_in_front_says_the_order(style):
    texts = list(MONTHS[:12].strftime(style))
    assert list(_continued(texts, 2)) == texts[-2:]


def test_a_clock_with_points_is_no_date():
    assert guess_style("13.30.15 2024-01-05") in (None, "%H.%M.%S %Y-%m-%d")


def test_a_morning_goes_on_in_the_afternoon():
    """Letters that no format knows were copied: 11:00 am was followed by 12:00 am and 13:00 am."""
    times = pd.date_range("2024-01-25 01:00", periods=14, freq="h")
    texts = [f"{t:%Y-%m-%d} {t.hour % 12 or 12:02}:00 {'ap'[t.hour // 12]}m" for t in times]
    assert list(_continued(texts, 4)) == texts[-4:]
    assert parse_text(pd.Index(texts), guess_style(texts[0])).equals(times)
    for text in ("2024-01-25 01:00:00 a.m.", "2024-01-25 01:00 a. m.", "2024-01-25 1:00 Pm"):
        assert guess_style(text) is None


@pytest.mark.parametrize("style", ["%d-%b-%Y", "%a %d %B %Y"])
def test_names_in_capitals_are_written_so_again(style):
    texts = pd.Index([text.upper() for text in DAYS.strftime(style)])
    parsed = parse_text(texts, style)
    assert list(parsed) == list(DAYS)
    spelt = spelling(texts, parsed, style, None)
    assert write_text(DAYS, spelt) == list(texts)
    assert parse_text(texts, spelt).equals(parsed)
    assert spelling(DAYS.strftime(style), DAYS, style, None) == style


def test_few_rows_are_read_as_the_fitted_ones():
    """A model knows that the day comes first, and so do its future and other series."""
    days = pd.date_range("2024-01-01", periods=60)
    style = "%d/%m/%Y"
    frame = pd.DataFrame({"y": np.arange(60.0), "p": 1.0}, index=days.strftime(style))
    params = {"context_length": 8, "max_epochs": 1, "random_state": 0}
    model = tsar.NLinear(horizon=2, future_covariates="p", **params).fit(frame)
    ahead = pd.date_range("2024-03-01", periods=2).strftime(style)
    got = model.predict(future=pd.DataFrame({"p": 1.0}, index=ahead))
    assert list(got.index) == list(ahead)
    short = pd.Series(np.arange(8.0), index=pd.date_range("2024-05-01", periods=8).strftime(style))
    model = tsar.Naive(horizon=2).fit(frame["y"])
    assert list(model.predict(df=short.rename("y")).index) == ["09/05/2024", "10/05/2024"]
    with pytest.raises(DataError, match="day or with the month first"):
        tsar.Naive(horizon=2).fit(short)


def test_what_new_rows_do_not_show_is_spelt_as_the_fitted_ones():
    texts = [f"{t.month}/{t.day}/{t.year}" for t in pd.date_range("2024-01-01", periods=60)]
    model = tsar.Naive(horizon=2).fit(pd.Series(np.arange(60.0), index=texts))
    late = [f"{t.month}/{t.day}/{t.year}" for t in pd.date_range("2024-12-11", periods=21)]
    got = model.predict(df=pd.Series(np.arange(21.0), index=late))
    assert list(got.index) == ["1/1/2025", "1/2/2025"]


DATES = {
    "%Y%m": [202401 + place for place in range(10)],
    "%Y%m%d": [20240101 + place for place in range(28)],
    "%G%V": [202401 + place for place in range(52)],
    "%Y%j": [2024001 + place for place in range(100)],
    "%Y%q": [20231, 20232, 20233, 20234],
    "%Y%m%d%H": [2024010100 + place for place in range(24)],
    "%Y%m%d%H%M": [202401010000 + place for place in range(60)],
    "%Y%m%d%H%M%S": [20240101000000 + place for place in range(60)],
    "%y%m": [2401 + place for place in range(12)],
    "%y%m%d": [240101 + place for place in range(20)],
    "%d%m%Y": [1012024 + 1_000_000 * place for place in range(20)],
}


@pytest.mark.parametrize("style", DATES)
@pytest.mark.parametrize("gaps", ["raise", "mask"])
def test_integers_that_are_dates_are_not_counted_on(style, gaps):
    stamps = DATES[style]
    assert date_style(np.array(stamps)) == style
    words = (
        f"{stamps[0]}, which are dates of the form {style}.* freq={stamps[1] - stamps[0]} counts"
    )
    with pytest.raises(DataError, match=words):
        tsar.SeasonalNaive(horizon=3, gaps=gaps).fit(pd.Series(1.0, index=stamps))
    step = stamps[1] - stamps[0]
    got = tsar.SeasonalNaive(horizon=3, freq=step).fit(pd.Series(1.0, index=stamps)).predict()
    assert list(got.index) == [stamps[-1] + ahead * step for ahead in (1, 2, 3)]


def test_dates_over_a_new_year_are_no_gaps():
    months = [100 * year + month for year in (2022, 2023) for month in range(1, 13)]
    with pytest.raises(DataError, match="are dates of the form %Y%m;") as error:
        tsar.Naive().fit(pd.Series(1.0, index=months))
    assert "gap" not in str(error.value)


def test_short_dates_over_a_new_year_are_dates_and_their_format_reads_them():
    months = [911, 912, 1001, 1002, 1003]
    with pytest.raises(DataError, match="dates of the form %y%m; pd.to_datetime"):
        tsar.Naive().fit(pd.Series(1.0, index=months))
    read = parse_text(pd.Series(["911", "912", "1001"]), "%y%m")
    assert list(read.strftime("%Y-%m")) == ["2009-11", "2009-12", "2010-01"]
    assert list(parse_text(pd.Series(["1012024"]), "%d%m%Y").strftime("%F")) == ["2024-01-01"]


@pytest.mark.parametrize("spelling", ["{}-{}", "{}-0{}"])
def test_four_months_of_each_year_are_quarters(spelling):
    texts = [spelling.format(year, part) for year in (2020, 2021, 2022) for part in (1, 2, 3, 4)]
    with pytest.raises(DataError, match="are quarters, or the months of a third of each year"):
        tsar.Naive().fit(pd.Series(1.0, index=texts))
    numbers = [100 * year + part for year in (2020, 2021) for part in (1, 2, 3, 4)]
    with pytest.raises(DataError, match="are quarters of the form %Y0%q, or months") as error:
        tsar.Naive().fit(pd.Series(1.0, index=numbers))
    # What the message says is what makes them quarters.
    assert "times.astype(str).str.replace(r'0(.)$', r'Q\\1', regex=True)" in str(error.value)
    quarters = pd.Series(numbers).astype(str).str.replace(r"0(.)$", r"Q\1", regex=True)
    after = tsar.Naive(horizon=1).fit(pd.Series(1.0, index=quarters)).predict()
    assert list(after.index) == ["2022Q1"]
    # Four months of one year are months.
    spring = tsar.Naive(horizon=1).fit(pd.Series(1.0, index=texts[:4])).predict()
    assert list(spring.index) == [spelling.format(2020, 5)]


@pytest.mark.parametrize("style", ["mixed", "ISO8601", "date"])
def test_a_format_has_a_directive(style):
    with pytest.raises(ValueError, match="it has no directive"):
        parse_text(pd.Series(["2024-01-01"]), style)


@pytest.mark.parametrize(
    "stamps",
    [
        range(100),
        range(2001, 2013),
        range(1001, 1009),
        range(1990, 2025),
        range(200000, 200500),
        range(1704067200, 1704067200 + 86400 * 30, 86400),
        [202411, 202412, 202413, 202414, *range(202415, 202460)],
        range(18990101, 18990120),
    ],
)
def test_other_integers_are_counted(stamps):
    assert date_style(np.array(stamps)) is None
    got = tsar.Naive(horizon=1).fit(pd.Series(1.0, index=list(stamps))).predict()
    assert got.index[0] == 2 * stamps[-1] - stamps[-2]


def test_steps_finer_than_what_was_seen_are_not_cut_off():
    times = pd.DatetimeIndex(["2024-01-01 00:00:00.250", "2024-01-01 00:00:01"])
    assert write_text(times, "%H:%M:%S.%1f") == ["00:00:00.25", "00:00:01.0"]


NAMED = [
    *(
        "%b %Y",
        "%B %Y",
        "%b-%Y",
        "%b%Y",
        "%Y %B",
        "%Y-%b",
        "%b. %Y",
        "%d-%b-%Y",
        "%d %B %Y",
        "%d%b%Y",
    ),
    *("%a %d %b %Y", "%A, %d %B %Y", "%B %d, %Y", "%d-%b-%Y %H:%M", "%d%b%Y:%H:%M:%S"),
]


@pytest.mark.parametrize("case", [str, str.upper, str.lower])
@pytest.mark.parametrize("start", ["2020-05-01", "2020-01-01"])
@pytest.mark.parametrize("style", NAMED)
def test_months_by_name_are_read_and_written_in_any_letters(style, start, case):
    # May is long and short at once: what comes after it says which it is.
    times = pd.date_range(start, periods=42, freq="D" if "d" in style else "MS")
    texts = [case(text) for text in times.strftime(style)]
    frame = pd.DataFrame({"ds": texts[:40], "y": np.arange(40.0)})
    model = tsar.Naive(horizon=2, time_column="ds", target="y").fit(frame)
    assert model.predict()["ds"].tolist() == texts[40:]


@pytest.mark.parametrize("text", ["Jan-20", "Jan 2020 1", "Foo 2020", "Janus 2020", "2020 May 1st"])
def test_what_is_no_month_of_a_year_is_not_taken_for_one(text):
    style = guess_style(text)
    assert style is None or "%d" in style
