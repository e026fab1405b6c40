"""Labels and parameters through JSON text and back."""

import datetime
import json

import numpy as np
import pandas as pd
import pytest

from tsar.data.codec import decode, decode_index, encode, encode_index
from tsar.exceptions import PersistenceError


def _through_text(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        0.1,
        "text",
        (1, "a", (2.5, None)),
        [0.1, 0.9],
        pd.Timestamp("2024-03-01 12:00:00.000000001"),
        pd.Timestamp("2024-03-01", tz="Europe/Berlin"),
        pd.Timestamp("2024-07-01 12:00", tz="Asia/Kolkata"),
        datetime.date(2024, 2, 29),
        datetime.timedelta(days=1, hours=6, microseconds=5),
        pd.Period("2024-05", freq="M"),
        pd.offsets.BusinessDay(2),
        pd.offsets.Week(weekday=2),
        pd.offsets.QuarterEnd(startingMonth=2),
        pd.DateOffset(months=3),
        pd.offsets.CustomBusinessDay(weekmask="Mon Wed Fri", holidays=["2024-05-01"]),
        pd.offsets.BusinessHour(start="08:30", end="12:00"),
    ],
    ids=repr,
)
def test_value_is_read_as_it_was_written(value):
    again = decode(_through_text(encode(value)))
    assert again == value and type(again) is type(value)
    if isinstance(value, pd.Timestamp):
        assert str(again.tz) == str(value.tz)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int32(3), 3),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (
            np.datetime64("2024-01-01T00:00:00.000000001"),
            pd.Timestamp("2024-01-01") + pd.Timedelta(1),
        ),
    ],
)
def test_numpy_values_become_plain_ones(value, plain):
    again = decode(_through_text(encode(value)))
    assert again == plain and type(again) is type(plain)


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", {"a": 1}, 1 + 2j])
def test_other_values_are_refused(value):
    with pytest.raises(PersistenceError, match="cannot be stored; use numbers, strings"):
        encode(value)


@pytest.mark.parametrize("stored", [{"pickle": "x"}, {"timestamp": "2024", "and": 1}, {}])
def test_unknown_kinds_are_refused(stored):
    with pytest.raises(PersistenceError, match="unknown kind of value"):
        decode(stored)


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["a", "b"]),
        pd.Index(["a", "b"], dtype=object),
        pd.Index(["a", "b"], dtype="string"),
        pd.Index([None], dtype=object),
        pd.Index([1, "b", 2.5], dtype=object, name="mixed"),
        pd.Index([3, 1, 2], dtype="int16", name="shop"),
        pd.Index([3, 1, 2], dtype="uint8"),
        pd.Index([3, 1], dtype="Int64"),
        pd.Index([0.5, 1.5]),
        pd.Index([True, False]),
        pd.date_range("2024", periods=3, unit="s"),
        pd.date_range("2024-03-30", periods=3, tz="Europe/Berlin", name=("a", 1)),
        pd.period_range("2024", periods=3, freq="Q"),
        pd.CategoricalIndex(["u", "v", "u"], categories=["w", "v", "u"], ordered=True),
        pd.CategoricalIndex([2, 1], categories=[1, 2, 3]),
    ],
    ids=repr,
)
def test_index_is_read_as_it_was_written(index):
    again = decode_index(_through_text(encode_index(index)))
    assert type(again) is type(index) and again.dtype == index.dtype and again.name == index.name
    assert again.equals(index)
