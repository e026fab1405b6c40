"""Sums by groups against pandas, and what cannot be added up."""

import numpy as np
import pandas as pd
import pytest

from tsar.exceptions import DataError, ParameterError
from tsar.hierarchy import Hierarchy, aggregate


def sales(n_times: int = 7, seed: int = 0) -> pd.DataFrame:
    """Three states of one, two and three regions, two products each."""
    rng = np.random.default_rng(seed)
    rows = [
        (state, f"{state}{number}", product, time)
        for state, n_regions in (("a", 2), ("b", 1), ("c", 3))
        for number in range(n_regions)
        for product in ("x", "y")
        for time in pd.date_range("2024-01-01", periods=n_times, freq="D")
    ]
    frame = pd.DataFrame(rows, columns=["state", "region", "product", "ds"])
    return frame.assign(y=rng.normal(10, 2, len(frame)))


def test_each_level_is_what_pandas_adds_up():
    frame = sales()
    found = aggregate(frame.sample(frac=1, random_state=0), ["state", "region", "product"])
    for columns in ([], ["state"], ["state", "region"], ["state", "region", "product"]):
        summed = frame.groupby([*columns, "ds"])["y"].sum()
        rest = [name for name in ("state", "region", "product") if name not in columns]
        here = (found[rest] == "total").all(axis=1) & (found[columns] != "total").all(axis=1)
        own = found[here].set_index([*columns, "ds"])["y"].sort_index()
        np.testing.assert_allclose(own.to_numpy(), summed.sort_index().to_numpy(), rtol=1e-12)
    assert len(found) == 7 * (1 + 3 + 6 + 12)
    assert found.iloc[0]["unique_id"] == "total"
    assert {"a", "a/a1", "a/a1/x"} <= set(found["unique_id"])


def test_groups_that_cross_each_other():
    frame = sales()
    levels = [["state", "product"], [], ["product"], ["state"]]
    merged = frame.groupby(["state", "product", "ds"], as_index=False)["y"].sum()
    found = aggregate(merged, levels)
    assert set(found["unique_id"]) == {
        *("total", "total/x", "total/y", "a", "b", "c"),
        *(f"{state}/{product}" for state in "abc" for product in "xy"),
    }
    own = found[found["unique_id"] == "total/x"].set_index("ds")["y"]
    expected = frame[frame["product"] == "x"].groupby("ds")["y"].sum()
    np.testing.assert_allclose(own, expected)


def test_the_summing_matrix_by_hand():
    labels = pd.DataFrame({"g": ["a", "total", "b", "a"], "h": ["1", "total", "1", "total"]})
    found = Hierarchy.of("test", labels)
    np.testing.assert_array_equal(found.bottom, [0, 2])
    np.testing.assert_array_equal(found.summing, [[1, 0], [1, 1], [0, 1], [1, 0]])
    assert found.ids.tolist() == ["a/1", "total", "b/1", "a"]


def test_what_is_not_observed_reaches_its_own_sums_only():
    frame = sales()
    row = frame.index[(frame["state"] == "a") & (frame["ds"] == "2024-01-03")][0]
    frame.loc[row, "y"] = np.nan
    found = aggregate(frame, ["state", "region", "product"])
    missing = found[found["y"].isna()]
    assert set(missing["unique_id"]) == {"total", "a", "a/a0", "a/a0/x"}
    assert (missing["ds"] == "2024-01-03").all()


@pytest.mark.parametrize("dtype", ["object", "category", "str"])
def test_labels_of_any_kind(dtype):
    frame = sales()
    plain = aggregate(frame, ["state", "region"] + ["product"])
    kinds = aggregate(frame.astype({"state": dtype}), ["state", "region", "product"])
    np.testing.assert_array_equal(plain["y"], kinds["y"])
    numbers = frame.assign(state=frame["state"].map({"a": 1, "b": 2, "c": 3}))
    found = aggregate(numbers, ["state", "region", "product"])
    assert {"1", "3/c2"} <= set(found["unique_id"])


WRONG = {
    "no groups": ([], {}, ParameterError, "groups must be a list of columns"),
    "a word": ("state", {}, ParameterError, "groups must be a list of columns"),
    "twice": (["state", "state"], {}, ParameterError, "name each column once"),
    "mixed": (["state", ["region"]], {}, ParameterError, "all columns, or all lists"),
    "no bottom": ([["state"], ["product"]], {}, ParameterError, "a level of all columns"),
    "unknown": (["city"], {}, DataError, "no column 'city'"),
    "the target": (["state", "y"], {}, ParameterError, "must be different columns"),
    "no time": (["state"], {"time_column": "when"}, DataError, "no column 'when'"),
    "too few groups": (["state"], {}, DataError, "'a' has the time 2024-01-01 00:00:00 twice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    groups, options, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        aggregate(sales(), groups, **options)


def test_wrong_frames():
    frame, groups = sales(), ["state", "region", "product"]
    with pytest.raises(DataError, match="1 have fewer: 'a/a0/x' has none for 2024-01-02"):
        aggregate(frame.drop(index=1), groups)
    with pytest.raises(DataError, match="'state' must not be missing, 1 rows"):
        aggregate(frame.assign(state=[None, *frame["state"][1:]]), groups)
    with pytest.raises(DataError, match="'total' in 'region' is what sums"):
        aggregate(frame.replace({"region": {"a0": "total"}}), groups)
    with pytest.raises(DataError, match="'a/0' in 'region' has a '/'"):
        aggregate(frame.replace({"region": {"a0": "a/0"}}), groups)
    with pytest.raises(DataError, match="'1' in 'state' is the text of two labels"):
        aggregate(frame.assign(state=frame["state"].map({"a": 1, "b": "1", "c": 3})), groups)
    with pytest.raises(DataError, match="must be numbers"):
        aggregate(frame.assign(y="much"), groups)
    with pytest.raises(DataError, match="long DataFrame, got Series"):
        aggregate(frame["y"], groups)
    with pytest.raises(DataError, match="no rows"):
        aggregate(frame[:0], groups)
    with pytest.raises(DataError, match="'ds' must not be missing"):
        aggregate(frame.assign(ds=[pd.NaT, *frame["ds"][1:]]), groups)
