"""Names of dtypes lead back to the dtypes, and say what they are."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import tsar
from tsar.data.codec import decode_index, encode_index
from tsar.data.dtypes import dtype_called, dtype_name, float_dtype

TEXTS = [
    pd.StringDtype("python"),
    pd.StringDtype("pyarrow"),
    pd.Series(["a"], dtype="str").dtype,
    pd.ArrowDtype(pa.string()),
    pd.ArrowDtype(pa.large_string()),
]
OTHERS = [
    np.dtype("float32"),
    np.dtype("datetime64[us]"),
    np.dtype(object),
    pd.DatetimeTZDtype("ns", "Europe/Berlin"),
    pd.Int16Dtype(),
    pd.PeriodDtype("M"),
    pd.ArrowDtype(pa.int32()),
    pd.ArrowDtype(pa.float64()),
    pd.ArrowDtype(pa.timestamp("us", "UTC")),
]


@pytest.mark.parametrize("dtype", [*TEXTS, *OTHERS], ids=repr)
def test_a_name_leads_back(dtype):
    found = dtype_called(json.loads(json.dumps(dtype_name(dtype))))
    assert found == dtype and type(found) is type(dtype)
    if isinstance(dtype, pd.StringDtype):
        assert (found.storage, repr(found.na_value)) == (dtype.storage, repr(dtype.na_value))


def test_what_has_no_name_is_an_object():
    dictionary = pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
    assert dtype_called(dtype_name(dictionary)) == np.dtype(object)
    assert dtype_name(pd.CategoricalDtype(["a"])) == "category"


@pytest.mark.parametrize("dtype", TEXTS, ids=repr)
def test_an_index_is_stored_with_its_dtype(dtype):
    index = pd.Index(["a", "b"], dtype=dtype, name="unique_id")
    again = decode_index(json.loads(json.dumps(encode_index(index))))
    pd.testing.assert_index_equal(again, index, exact=True)
    assert type(again.dtype) is type(dtype) and again.dtype == dtype


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pd.ArrowDtype(pa.float64()), pd.ArrowDtype(pa.float64())),
        (pd.ArrowDtype(pa.float32()), pd.ArrowDtype(pa.float32())),
        (pd.ArrowDtype(pa.float16()), np.dtype("float64")),
        (pd.ArrowDtype(pa.int64()), np.dtype("float64")),
        (pd.Float32Dtype(), pd.Float32Dtype()),
        (pd.Int64Dtype(), np.dtype("float64")),
        (np.dtype("float32"), np.dtype("float32")),
        (np.dtype("float16"), np.dtype("float64")),
        (np.dtype("int8"), np.dtype("float64")),
        (np.dtype(object), np.dtype("float64")),
    ],
    ids=repr,
)
def test_a_forecast_has_the_floating_dtype_of_its_column(given, expected):
    assert float_dtype(dtype_name(given)) == expected
    days = pd.date_range("2024-01-01", periods=20)
    column = pd.Series(np.arange(20) % 7, dtype=np.int64).astype(given).set_axis(days)
    forecast = tsar.SeasonalNaive(horizon=3).fit(column.to_frame("sold")).predict()
    assert forecast["sold"].dtype == expected
    assert forecast["sold"].astype(float).tolist() == [6.0, 0.0, 1.0]


@pytest.mark.parametrize("dtype", [*TEXTS, "category", object], ids=repr)
def test_ids_and_times_of_any_text_come_back_as_they_were(dtype):
    days = np.tile(pd.date_range("2024-01-01", periods=20).strftime("%Y-%m-%d"), 2)
    data = pd.DataFrame(
        {
            "unique_id": pd.Series(np.repeat(["a", "b"], 20)).astype(dtype),
            "ds": pd.Series(days).astype(object if dtype == "category" else dtype),
            "y": np.arange(40.0) % 7,
        }
    )
    forecast = tsar.SeasonalNaive(horizon=2).fit(data).predict()
    for name in ("unique_id", "ds"):
        assert forecast[name].dtype == data[name].dtype
        assert type(forecast[name].dtype) is type(data[name].dtype)
    assert forecast["ds"].tolist() == ["2024-01-21", "2024-01-22"] * 2
