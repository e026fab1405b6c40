"""Spellings of a frequency, and offsets as JSON."""

import datetime
import json

import numpy as np
import pandas as pd
import pytest

from tsar.data.offsets import describe_offset, parse_offset, rebuild_offset
from tsar.exceptions import DataError, PersistenceError


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(("H", "h"), ("T", "min"), ("S", "s"), ("L", "ms"), ("U", "us"), ("N", "ns")),
        *(("M", "ME"), ("BM", "BME"), ("SM", "SME"), ("Q", "QE"), ("BQ", "BQE"), ("CBM", "CBME")),
        *(("A", "YE"), ("Y", "YE"), ("BA", "BYE"), ("BY", "BYE"), ("AS", "YS"), ("BAS", "BYS")),
        *(
            ("2H", "2h"),
            ("1H30T", "90min"),
            ("3M", "3ME"),
            ("A-MAR", "YE-MAR"),
            ("2Q-FEB", "2QE-FEB"),
        ),
        *(
            ("SM-10", "SME-10"),
            ("AS-APR", "YS-APR"),
            ("BH", "bh"),
            (" d ", "D"),
            ("w-tue", "W-TUE"),
        ),
    ],
)
def test_old_spellings(old, new):
    assert parse_offset(old) == pd.tseries.frequencies.to_offset(new)


@pytest.mark.parametrize(
    ("length", "offset"),
    [
        (datetime.timedelta(days=1), pd.offsets.Day()),
        (datetime.timedelta(weeks=2), pd.offsets.Day(14)),
        (datetime.timedelta(hours=36), pd.offsets.Hour(36)),
        (pd.Timedelta(milliseconds=20), pd.offsets.Milli(20)),
        (np.timedelta64(15, "m"), pd.offsets.Minute(15)),
    ],
)
def test_lengths(length, offset):
    assert parse_offset(length) == offset
    assert type(parse_offset(length)) is type(offset)


@pytest.mark.parametrize("freq", ["", "week", "3", "h-MON", [], 1.5, b"h"])
def test_what_is_no_frequency(freq):
    with pytest.raises(DataError, match="freq must be a pandas alias such as 'h'") as error:
        parse_offset(freq)
    assert str(error.value).endswith(f"got {freq!r}")


@pytest.mark.parametrize(
    "offset",
    [
        pd.offsets.CustomBusinessDay(weekmask=[1, 1, 1, 0, 0, 1, 1], holidays=["2024-05-01"]),
        pd.offsets.CustomBusinessHour(2, start="08:30", holidays=["2024-05-01"]),
        pd.offsets.CustomBusinessMonthBegin(weekmask="1111110"),
    ],
    ids=repr,
)
def test_calendars_are_stored(offset):
    again = rebuild_offset(json.loads(json.dumps(describe_offset(offset))))
    assert type(again) is type(offset) and again.n == offset.n
    stamps = [pd.date_range("2024-04-20", periods=99, freq=freq) for freq in (offset, again)]
    assert list(stamps[0]) == list(stamps[1])


def test_offset_that_cannot_be_stored():
    with pytest.raises(PersistenceError, match="cannot be stored; use an offset that its alias"):
        describe_offset(pd.offsets.Easter())
