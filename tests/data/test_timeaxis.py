"""Time columns of every kind: what is read, and that the same is written."""

import datetime
import json
import zoneinfo

import dateutil.tz
import numpy as np
import pandas as pd
import pytest

from tsar.data.timeaxis import UNIT, TimeAxis, read_times, same_zone
from tsar.exceptions import DataError, PersistenceError

DAYS = pd.date_range("2024-02-27", periods=5, freq="D")
HOURS = pd.date_range("2024-10-26 22:00", periods=7, freq="h", tz="Europe/Berlin")


def _text(style: str, dtype: object = object) -> pd.Index:
    return pd.Index(DAYS.strftime(style), dtype=dtype)


COLUMNS = {
    **{f"datetime {unit}": DAYS.as_unit(unit) for unit in UNIT},
    **{f"aware {unit}": HOURS.as_unit(unit) for unit in UNIT},
    "fixed offset": DAYS.tz_localize(datetime.timezone(datetime.timedelta(hours=5, minutes=30))),
    "utc": DAYS.tz_localize("UTC"),
    "days as text": _text("%Y-%m-%d"),
    "minutes as text": _text("%Y-%m-%d %H:%M"),
    "seconds as text": _text("%Y-%m-%dT%H:%M:%S"),
    "compact text": _text("%Y%m%d"),
    "german text": _text("%d.%m.%Y"),
    "american text": pd.Index(
        pd.date_range("2024-01-12", periods=5).strftime("%m/%d/%Y"), dtype=object
    ),
    "words": _text("%d %b %Y"),
    "months as text": pd.Index(["2024-01", "2024-02", "2024-03"], dtype=object),
    "years as text": pd.Index(["2019", "2020", "2021"], dtype=object),
    "utc text": _text("%Y-%m-%dT%H:%M:%SZ"),
    "offset text": _text("%Y-%m-%d %H:%M:%S+05:30"),
    "short offset text": _text("%Y-%m-%d %H:%M:%S-0300"),
    "text of the default dtype": pd.Index(list(_text("%Y-%m-%d"))),
    "text of dtype string": _text("%Y-%m-%d", "string"),
    "dates": pd.Index(DAYS.date, dtype=object),
    "datetimes": pd.Index(DAYS.to_pydatetime(), dtype=object),
    "aware datetimes": pd.Index(list(HOURS), dtype=object),
    "periods": pd.period_range("2024-01", periods=5, freq="M"),
    "periods as objects": pd.period_range("2024-01", periods=5, freq="M").astype(object),
    **{kind: pd.Index([3, 4, 5], dtype=kind) for kind in ("int64", "int32", "uint8", "Int64")},
    "integers as objects": pd.Index([3, 4, 5], dtype=object),
}
# Written as what pandas makes of them.
COARSER = {"periods as objects": "periods", "integers as objects": "Int64"}


@pytest.mark.parametrize("name", COLUMNS)
def test_what_is_read_is_written(name):
    column = COLUMNS[name]
    read = read_times(column)
    assert read.stamps.dtype == np.int64 and not read.faults
    written = read.axis.index(read.stamps)
    expected = COLUMNS[COARSER.get(name, name)]
    assert written.dtype == expected.dtype
    assert list(written) == list(expected)
    if name not in COARSER:
        assert [type(value) for value in written] == [type(value) for value in column]
    # Any order and repetition.
    order = np.array([2, 0, 0, 1])
    assert list(read.axis.index(read.stamps[order])) == list(expected[order])


@pytest.mark.parametrize(
    "name", [n for n in COLUMNS if "period" not in n and "int" not in n.lower()]
)
def test_stamps_are_instants(name):
    column, read = COLUMNS[name], read_times(COLUMNS[name])
    aware = read.axis.tz is not None
    days_first = name == "german text"
    parsed = column if aware else pd.to_datetime(column, dayfirst=days_first)
    expected = [pd.Timestamp(value) for value in parsed]
    found = pd.DatetimeIndex(read.stamps.view(f"M8[{read.axis.unit}]"))
    assert list(found.tz_localize("UTC") if aware else found) == expected


@pytest.mark.parametrize("name", COLUMNS)
def test_axis_survives_storage(name):
    read = read_times(COLUMNS[name])
    again = TimeAxis.from_dict(json.loads(json.dumps(read.axis.to_dict())))
    written, expected = again.index(read.stamps), read.axis.index(read.stamps)
    assert written.dtype == expected.dtype and list(written) == list(expected)
    assert str(again.tz) == str(read.axis.tz)


def test_zone_without_a_name_is_not_stored():
    class Odd(datetime.tzinfo):
        def __str__(self):
            return "odd"

    with pytest.raises(PersistenceError, match="convert the data to a zone with a name"):
        TimeAxis(tz=Odd()).to_dict()


def test_categories_are_read_once():
    codes = [2, 0, 1, 1, -1]
    days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    column = pd.CategoricalIndex(pd.Categorical.from_codes(codes, days))
    read = read_times(column)
    plain = read_times(pd.Index(["2024-01-03", "2024-01-01", "2024-01-02", "2024-01-02"]))
    np.testing.assert_array_equal(read.stamps[:4], plain.stamps)
    np.testing.assert_array_equal(read.faults["timestamp"], [False] * 4 + [True])


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        (["2024-01-01", "someday", "2024-01-03"], [1]),
        (["someday", "2024-01-02", "2024-01-03"], [0]),
        (["2024-01-01", None, "2024-01-03"], [1]),
        (["2024-01-01", "2024-02-30", "2024-01-03"], [1]),
        ([pd.Timestamp("2024-01-01"), "someday", pd.Timestamp("2024-01-03")], [1]),
        ([datetime.date(2024, 1, 1), None, 17], [1, 2]),
        ([1, 2, None], [2]),
    ],
)
def test_unparsable_times_are_marked(values, wrong):
    read = read_times(pd.Index(values, dtype=object))
    np.testing.assert_array_equal(np.flatnonzero(read.faults["timestamp"]), wrong)
    assert set(read.faults) == {"timestamp"}


@pytest.mark.parametrize("dtype", ["str", "string", "object"])
@pytest.mark.parametrize("values", [[], [None, None]])
def test_a_column_without_times_is_named(values, dtype):
    with pytest.raises(DataError, match="holds no times; fill it in"):
        read_times(pd.Index(values, dtype=dtype))


def test_missing_stamps_are_marked():
    for column in (DAYS.insert(2, pd.NaT), pd.PeriodIndex(["2024-01", "NaT"], freq="M")):
        read = read_times(column)
        np.testing.assert_array_equal(read.faults["timestamp"], column.isna())


def test_day_or_month_first_is_decided_by_the_whole_column():
    american = pd.Index([f"01/{day:02d}/2024" for day in range(1, 29)], dtype=object)
    german = pd.Index([f"{day:02d}/01/2024" for day in range(1, 29)], dtype=object)
    expected = pd.date_range("2024-01-01", periods=28, freq="D")
    for column in (american, german, german[::-1]):
        read = read_times(column)
        assert not read.faults
        assert sorted(read.axis.times(read.stamps)) == list(expected)
        assert list(read.axis.index(read.stamps)) == list(column)


def test_day_or_month_first_is_never_guessed():
    """Twelve days of January, or the first of twelve months?"""
    column = pd.Index([f"{number:02d}/01/2024" for number in range(1, 13)], dtype=object)
    with pytest.raises(
        DataError, match=r"'01/01/2024' .* use pd.to_datetime\(..., dayfirst=True\)"
    ):
        read_times(column)
    # With points the day comes first wherever points are used.
    read = read_times(pd.Index([text.replace("/", ".") for text in column]))
    assert list(read.axis.times(read.stamps)) == list(pd.date_range("2024-01-01", periods=12))
    same = read_times(pd.Index(["03/03/2024", "04/04/2024"]))
    assert list(same.axis.index(same.stamps)) == ["03/03/2024", "04/04/2024"]


@pytest.mark.parametrize("as_text", [False, True])
def test_rows_of_another_zone_are_marked(as_text):
    stamps = list(HOURS[:5])
    stamps[3] = stamps[3].tz_convert("Asia/Kolkata")
    values = [str(stamp) for stamp in stamps] if as_text else stamps
    read = read_times(pd.Index(values, dtype=object))
    np.testing.assert_array_equal(np.flatnonzero(read.faults["time zone"]), [3])
    assert set(read.faults) == {"time zone"}


def test_text_across_a_clock_change_says_no_zone():
    """+02:00 and +01:00 may be one zone, but which one the text does not say."""
    read = read_times(pd.Index([str(stamp) for stamp in HOURS], dtype=object))
    marked = read.faults["time zone"]
    assert marked.sum() == 2 and marked.dtype == bool


def test_naive_among_aware_times_is_another_zone():
    values = [*HOURS[:3], HOURS[3].tz_localize(None)]
    read = read_times(pd.Index(values, dtype=object))
    np.testing.assert_array_equal(np.flatnonzero(read.faults["time zone"]), [3])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            pd.Index([1.5, 2.5]),
            "must hold timestamps, periods, integers or text, got dtype float64",
        ),
        (pd.Index([True, False]), "got dtype bool"),
        (pd.Index(["red", "green"]), "text that is no time, for example 'red'"),
        (pd.Index([(1, 2), 3.5], dtype=object), "for example .* convert it with pd.to_datetime"),
        (pd.Index([None, None], dtype=object), "holds no times; fill it in"),
        (pd.to_timedelta([1, 2], unit="h"), "got dtype timedelta64"),
    ],
)
def test_columns_that_hold_no_time(column, message):
    with pytest.raises(DataError, match=message) as error:
        read_times(column)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "dtype",
    ["timestamp[us][pyarrow]", "timestamp[ns, tz=Europe/Berlin][pyarrow]", "int64[pyarrow]"],
)
def test_arrow_columns(dtype):
    pytest.importorskip("pyarrow")
    plain = HOURS if "tz" in dtype else (pd.Index([3, 4]) if "int" in dtype else DAYS)
    column = pd.Index(pd.Series(plain).astype(dtype))
    read = read_times(column)
    assert list(read.axis.times(read.stamps)) == list(plain)
    written = read.axis.index(read.stamps)
    assert list(written) == list(plain)
    assert str(written.dtype) == ("int64" if "int" in dtype else dtype)


def test_wall_clock_and_back():
    read = read_times(HOURS)
    local = read.axis.local(read.stamps)
    wall = pd.DatetimeIndex(local.view(f"M8[{read.axis.unit}]"))
    assert list(wall) == [stamp.tz_localize(None) for stamp in HOURS]
    # 02:00 occurs twice: the first is taken. Before and after nothing is ambiguous.
    again = read.axis.universal(local)
    assert (again != read.stamps).tolist() == [False] * 5 + [True] + [False]
    skipped = pd.DatetimeIndex(["2024-03-31 02:30"]).as_unit(read.axis.unit).asi8
    found = read.axis.index(read.axis.universal(np.asarray(skipped)))
    assert found[0] == pd.Timestamp("2024-03-31 03:00", tz="Europe/Berlin")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("UTC", "Etc/UTC", True),
        ("UTC", datetime.UTC, True),
        ("UTC", dateutil.tz.tzutc(), True),
        ("America/New_York", "US/Eastern", True),
        ("Europe/Berlin", dateutil.tz.gettz("Europe/Berlin"), True),
        # The same winter, another summer.
        ("Europe/London", "UTC", False),
        ("Europe/Berlin", datetime.timezone(datetime.timedelta(hours=1)), False),
        ("Europe/Berlin", "Europe/Moscow", False),
        ("UTC", None, False),
    ],
)
def test_zones_are_the_same_by_what_they_show(one, other, same):
    zones = [zoneinfo.ZoneInfo(z) if isinstance(z, str) else z for z in (one, other)]
    assert same_zone(*zones) is same and same_zone(*zones[::-1]) is same


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        (zoneinfo.ZoneInfo("Asia/Kolkata"), "Asia/Kolkata"),
        (dateutil.tz.gettz("Europe/Berlin"), "Europe/Berlin"),
        (dateutil.tz.tzutc(), "UTC"),
        (dateutil.tz.tzoffset(None, -5400), "UTC-01:30"),
        (datetime.timezone(datetime.timedelta(hours=5.5)), "UTC+05:30"),
    ],
)
def test_zones_are_stored_by_name(zone, name):
    axis = TimeAxis("timestamp", "us", zone)
    stored = axis.to_dict()
    assert stored["tz"] == name
    stamps = np.array([0, 1_720_000_000_000_000])
    assert list(TimeAxis.from_dict(stored).index(stamps)) == list(axis.index(stamps))


@pytest.mark.parametrize("zone", [dateutil.tz.tzlocal(), dateutil.tz.tzrange("X", -18000, "Y")])
def test_zones_of_this_machine_are_not_stored(zone):
    with pytest.raises(PersistenceError, match=r"cannot be stored; .* tz_convert\('Europe/Berlin'"):
        TimeAxis("timestamp", "us", zone).to_dict()


@pytest.mark.parametrize(
    "column",
    [
        np.array([2**63 - 1, 2**63], dtype=np.uint64),
        pd.array([2**63, None], dtype="UInt64"),
        pd.Index([1, 2**70], dtype=object),
    ],
    ids=["uint64", "UInt64", "object"],
)
def test_integers_beyond_64_bits_with_a_sign(column):
    with pytest.raises(DataError, match="holds the integer [0-9]{19,}, times are at most"):
        read_times(pd.Index(column))
    read = read_times(pd.Index(np.array([2**63 - 2, 2**63 - 1], dtype=np.uint64)))
    assert read.stamps.tolist() == [2**63 - 2, 2**63 - 1]
