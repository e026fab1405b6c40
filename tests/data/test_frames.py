"""Frames taken apart and written again, form by form."""

import decimal

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.data.frames import read_rows
from tsar.exceptions import DataError, ParameterError

HOURS = pd.date_range("2024-02-28", periods=4, freq="h")
STRING = str(pd.Index(["a"]).dtype)


def _wide() -> pd.DataFrame:
    values = np.arange(12.0).reshape(4, 3)
    return pd.DataFrame(values, index=HOURS, columns=["a", "b", "c"])


def _long() -> pd.DataFrame:
    ids = np.repeat(["x", "y", "z"], 4)
    return pd.DataFrame({"unique_id": ids, "ds": list(HOURS) * 3, "y": np.arange(12.0)})


# --------------------------------------------------------------------- reading


def test_wide_frame_is_a_view():
    frame = _wide()
    rows = read_rows(frame)
    assert rows.form.kind == "wide" and not rows.form.has_ids
    assert list(rows.ids) == [None] and rows.codes.tolist() == [0, 0, 0, 0]
    assert list(rows.variates) == ["a", "b", "c"]
    assert np.shares_memory(rows.values, frame.to_numpy())
    np.testing.assert_array_equal(rows.values, np.arange(12.0).reshape(4, 3))


def test_long_frame():
    rows = read_rows(_long())
    assert rows.form.kind == "long" and rows.form.has_ids
    assert list(rows.ids) == ["x", "y", "z"]
    assert rows.codes.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    np.testing.assert_array_equal(rows.values[:, 0], np.arange(12.0))


def test_columns_of_a_long_frame_are_found_or_named():
    frame = _long().assign(other=1.0, label="red")
    assert list(read_rows(frame).variates) == ["y"]
    assert list(read_rows(frame, target=["other", "y"]).variates) == ["other", "y"]
    renamed = frame.rename(columns={"unique_id": "shop", "ds": "day", "y": "sales"})
    rows = read_rows(renamed, id_column="shop", time_column="day", target="sales")
    assert (rows.form.id_name, rows.form.time_name) == ("shop", "day")
    # One column beside id and time can only be the target.
    rows = read_rows(renamed[["shop", "day", "sales"]], id_column="shop", time_column="day")
    assert list(rows.variates) == ["sales"]
    # The order of the columns does not matter.
    assert list(read_rows(_long()[["y", "ds", "unique_id"]]).ids) == ["x", "y", "z"]


def test_time_as_a_column_without_ids():
    frame = _wide().reset_index(names="ds")
    rows = read_rows(frame)
    assert rows.form.kind == "long" and not rows.form.has_ids
    assert list(rows.variates) == ["a", "b", "c"]
    assert list(read_rows(frame.rename(columns={"b": "y"})).variates) == ["y"]
    by_name = read_rows(frame.rename(columns={"ds": "when"}), time_column="when")
    assert list(by_name.variates) == ["a", "b", "c"] and by_name.form.time_name == "when"


def test_time_column_may_name_the_index():
    rows = read_rows(_wide().rename_axis("when"), time_column="when")
    assert rows.form.kind == "wide" and rows.form.time_name == "when"


def test_multiindex_frame():
    rows = read_rows(_long().set_index(["unique_id", "ds"]))
    assert rows.form.kind == "multiindex"
    assert (rows.form.id_name, rows.form.time_name) == ("unique_id", "ds")
    assert list(rows.ids) == ["x", "y", "z"] and list(rows.variates) == ["y"]


def test_series_and_its_name():
    rows = read_rows(_wide()["b"])
    assert rows.form.squeeze and list(rows.ids) == ["b"]
    assert list(read_rows(_wide()["b"].rename(None)).ids) == [None]
    rows = read_rows(_long().set_index(["unique_id", "ds"])["y"])
    assert (
        rows.form.squeeze and rows.form.kind == "multiindex" and list(rows.ids) == ["x", "y", "z"]
    )


@pytest.mark.parametrize(
    "labels", [[0, 1, 2], list(pd.date_range("2001", periods=3)), [1, "b", 2.5]]
)
def test_columns_may_be_any_labels(labels):
    frame = _wide().set_axis(labels, axis=1)
    rows = read_rows(frame)
    assert list(rows.variates) == labels
    assert list(read_rows(frame, target=labels[1]).variates) == labels[1:2]
    assert list(read_rows(frame, target=labels[::-2]).variates) == labels[::-2]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float64", "float64"),
        ("float32", "float32"),
        ("float16", "float32"),
        ("int64", "float64"),
        ("uint8", "float64"),
        ("Float64", "float64"),
        ("Float32", "float64"),
        ("Int64", "float64"),
        ("object", "float64"),
    ],
)
def test_numeric_dtypes(dtype, expected):
    frame = pd.DataFrame({"a": [1, 2, 3, 5], "b": [3, 4, 5, 7]}, index=HOURS).astype(dtype)
    rows = read_rows(frame)
    assert rows.values.dtype == expected and rows.form.dtypes == (dtype, dtype)
    np.testing.assert_array_equal(rows.values, [[1, 3], [2, 4], [3, 5], [5, 7]])
    assert not rows.not_numeric


def test_tuples_may_be_labels():
    frame = _wide().set_axis([("a", 1), ("b", 2), "c"], axis=1).set_axis(HOURS, axis=0)
    assert list(read_rows(frame, target=("a", 1)).variates) == [("a", 1)]
    assert list(read_rows(frame, target=("c", ("b", 2))).variates) == ["c", ("b", 2)]


def test_missing_values_of_every_kind_are_nan():
    frame = pd.DataFrame(
        {
            "float": [1.5, np.nan],
            "nullable": pd.array([1, None], dtype="Int64"),
            "object": np.array([2.5, None], dtype=object),
            "numpy": np.array([np.float32(2.5), np.nan], dtype=object),
            "exact": np.array([decimal.Decimal("0.5"), pd.NA], dtype=object),
        },
        index=HOURS[:2],
    )
    rows = read_rows(frame)
    np.testing.assert_array_equal(rows.values, [[1.5, 1, 2.5, 2.5, 0.5], [np.nan] * 5])
    assert not rows.not_numeric


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        (pd.Series([1.0, "2", 3.0, "x"], dtype=object), [1, 3]),
        (pd.Series(["1", "2", None, "x"]), [3]),
        (pd.Series(["1", "2", None, "3"]), [0, 1, 3]),
        (pd.Series([True, False, True, True]), [0, 1, 2, 3]),
        (pd.Series([True, None, 1, 1.5], dtype=object), [0]),
        (pd.Series(pd.array([True, None, False, True], dtype="boolean")), [0, 2, 3]),
        (pd.Series([1 + 2j, 0, 0, 0]), [0, 1, 2, 3]),
        (pd.Series(HOURS), [0, 1, 2, 3]),
        (pd.Series([1, 2, 1, 2], dtype="category"), [0, 1, 2, 3]),
        (pd.Series(pd.to_timedelta([1, 2, 3, 4], unit="h")), [0, 1, 2, 3]),
    ],
)
def test_values_that_are_no_numbers_are_marked(column, wrong):
    frame = pd.DataFrame({"right": [1.0, 2.0, 3.0, 4.0], "wrong": column})
    frame.index = HOURS
    rows = read_rows(frame)
    assert list(rows.not_numeric) == ["wrong"]
    np.testing.assert_array_equal(np.flatnonzero(rows.not_numeric["wrong"]), wrong)
    np.testing.assert_array_equal(rows.values[:, 0], [1, 2, 3, 4])


def test_covariates_are_set_apart():
    frame = _long().assign(price=2.0, promo=True, region="north")
    rows = read_rows(
        frame, covariates={"past": ["price"], "future": ["promo"], "static": ["region"]}
    )
    assert list(rows.variates) == ["y"]
    assert rows.covariates["future"]["promo"].dtype == bool
    assert list(rows.covariates["static"]["region"]) == ["north"] * 12
    wide = read_rows(_wide(), covariates={"past": ["b"]})
    assert list(wide.variates) == ["a", "c"]


# -------------------------------------------------------------- what is refused


def _renamed(**names: str) -> pd.DataFrame:
    return _long().rename(columns=names)


REFUSED = {
    "no frame": ([1.0, 2.0], {}, "must be a pandas DataFrame .* or a pyarrow Table, got list"),
    "array": (np.zeros((3, 2)), {}, "got ndarray"),
    "no columns": (_wide()[[]], {}, "no column to forecast; add one, or name it by target="),
    "doubled": (_wide().set_axis(list("aba"), axis=1), {}, "column 'a' occurs more than once"),
    "column levels": (
        _wide().set_axis(pd.MultiIndex.from_product([["a"], list("bcd")]), axis=1),
        {},
        "must have one level, got a MultiIndex of 2 levels; join the levels",
    ),
    "float index": (
        _wide().set_axis([0.5, 1.5, 2.5, 3.5], axis=0),
        {},
        "needs a time index .* got an index of dtype float64; use df.set_index",
    ),
    "date column": (
        _wide().reset_index(names="date"),
        {},
        r"no time index, but its column 'date' holds times; use df.set_index\('date'\), or pass "
        r"time_column='date'",
    ),
    "text date column": (
        _wide().reset_index(names="date").astype({"date": str}),
        {},
        "column 'date' holds times",
    ),
    "long without ds": (
        _renamed(ds="date"),
        {},
        "time_column: the frame has no column 'ds', its columns are 'unique_id', 'date', 'y'; "
        "name one of them",
    ),
    "id but no ds": (
        _long().set_index("ds"),
        {},
        r"no column 'ds', its columns are 'unique_id', 'y'; use df.reset_index\(\)",
    ),
    "ids in the index": (
        _long().set_index("unique_id"),
        {},
        r"the ids 'unique_id' are the index of the frame .*; use df.reset_index\(\)",
    ),
    "unknown id": (_long(), {"id_column": "shop"}, "id_column: the frame has no column 'shop'"),
    "unknown time": (_long(), {"time_column": "t"}, "time_column: the frame has no column 't'"),
    "unknown target": (_long(), {"target": "z"}, "target: the frame has no column 'z'"),
    "which target": (_renamed(y="u").assign(v=1.0), {}, "target: the frame has no column 'y'"),
    "target is time": (_long(), {"target": "ds"}, "'ds' is the target and has another role"),
    "target is covariate": (
        _long().assign(p=1.0),
        {"target": ["y", "p"], "covariates": {"past": ["p"]}},
        "'p' is the target and has another role as well",
    ),
    "unknown covariate": (
        _long(),
        {"covariates": {"future": ["promo"]}},
        "future_covariates: the frame has no column 'promo'",
    ),
    "three levels": (
        _long().assign(z=1).set_index(["z", "unique_id", "ds"]),
        {},
        r"the two levels \(id, time\), got 3 levels; use df.reset_index\(\)",
    ),
    "time first": (
        _long().set_index(["ds", "unique_id"]),
        {},
        r"got the time in the first one, 'ds'; use df.swaplevel\(\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_frame_is_refused_with_one_clear_error(name):
    frame, options, message = REFUSED[name]
    with pytest.raises(DataError, match=message) as error:
        read_rows(frame, **options)
    assert len(str(error.value).splitlines()) == 1


def test_long_lists_of_columns_are_cut():
    frame = pd.DataFrame(np.zeros((3, 50)), columns=[f"c{i}" for i in range(50)])
    with pytest.raises(DataError, match="'c19', ...; name one of them"):
        read_rows(frame, target="z")


@pytest.mark.parametrize("flag", [True, "red", None])
def test_range_index_with_other_columns_is_integer_time(flag):
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "flag": [flag] * 3})
    rows = read_rows(frame)
    assert rows.form.kind == "wide" and rows.times.equals(pd.RangeIndex(3))


def test_ids_that_cannot_be_ids():
    days = pd.date_range("2024-01-01", periods=3)
    frame = pd.DataFrame({"unique_id": [[1], [1], [2]], "ds": days, "y": 1.0})
    with pytest.raises(DataError, match="the ids cannot be told apart: unhashable type: 'list'"):
        read_rows(frame)
    with pytest.raises(DataError, match="'ds' cannot be both the id and the time"):
        read_rows(frame, id_column="ds")


@pytest.mark.parametrize("columns", [[], ["shop", "shop"], ["shop", "item", "shop"]])
def test_columns_of_an_id_are_named_once(columns):
    frame = pd.DataFrame({"shop": "a", "item": "x", "ds": range(9), "y": 1.0})
    message = r"id_column must be a column, or a list that names each .* leave it out"
    with pytest.raises(ParameterError, match=message):
        tsar.Naive(id_column=columns, horizon=1).fit(frame)
    with pytest.raises(ParameterError, match=message):
        tsar.add_events(frame, id_column=columns, country_holidays="DE")
