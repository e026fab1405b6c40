"""Columns beside a forecast have names of their own, whatever the names of the data are."""

import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import tsar
from tsar.data.forecasts import plain_label
from tsar.exceptions import ParameterError

DAYS = pd.date_range("2024-01-01", periods=60)
VALUES = np.random.default_rng(0).normal(size=(60, 2))
NAMES = {
    "integers": [0, 1],
    "small integers": pd.Index([3, 4], dtype="uint8"),
    "nullable integers": pd.Index([3, 4], dtype="Int64"),
    "integers of pyarrow": pd.Index([3, 4], dtype=pd.ArrowDtype(pa.int64())),
    "floats": [0.5, 1.5],
    "truth values": [True, False],
    "times": pd.DatetimeIndex(["2024-01-01", "2025-01-01"]),
    "times of a zone": pd.DatetimeIndex(["2024-01-01", "2025-01-01"], tz="Europe/Berlin"),
    "dates": [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)],
    "lengths": pd.to_timedelta([1, 2], unit="D"),
    "periods": pd.period_range("2024", periods=2, freq="M"),
    "tuples": pd.Index([("a", 1), ("b", 2)], tupleize_cols=False),
    "text": ["a", "b"],
    "nullable text": pd.Index(["a", "b"], dtype="string"),
    "text of pyarrow": pd.Index(["a", "b"], dtype=pd.ArrowDtype(pa.string())),
    "both": [0, "b"],
}
CATEGORIES = {"categories": pd.CategoricalIndex(["a", "b"]), "numbers": pd.CategoricalIndex([3, 4])}


@pytest.fixture(params=[*NAMES, *CATEGORIES])
def wide(request):
    names = {**NAMES, **CATEGORIES}[request.param]
    return pd.DataFrame(VALUES, index=DAYS, columns=names)


def test_ends_of_intervals_are_written_beside_any_name(wide):
    model = tsar.SeasonalNaive(horizon=4).fit(wide).calibrate(wide)
    point, found = model.predict(), model.predict(level=80)
    names = list(wide.columns)
    if not isinstance(wide.columns, pd.CategoricalIndex):
        pd.testing.assert_index_equal(point.columns, wide.columns, exact="equiv")
    expected = [label for name in names for label in (name, f"{name}_lo80", f"{name}_hi80")]
    assert list(found.columns) == expected
    for name in names:
        np.testing.assert_array_equal(found[name], point[name])
        assert (found[f"{name}_lo80"] < found[name]).all()


def test_quantiles_and_marks_are_written_beside_any_name(wide, tmp_path):
    model = tsar.NLinear(
        horizon=2, context_length=8, max_epochs=1, loss="quantile", random_state=0
    ).fit(wide)
    found = model.predict(horizon=3, quantiles=[0.1])
    expected = [label for name in wide.columns for label in (name, f"{name}_q0.1")]
    assert list(found.columns) == [*expected, "extrapolated"]
    assert found["extrapolated"].tolist() == [False, False, True]
    model.save(tmp_path / "model")
    again = tsar.load(tmp_path / "model").predict(horizon=3, quantiles=[0.1])
    pd.testing.assert_frame_equal(again, found)


@pytest.mark.parametrize("form", ["long", "multiindex"])
def test_long_and_multiindex_frames_of_numbers(form):
    data = pd.DataFrame({0: np.repeat([7, 8], 60), 1: np.tile(DAYS, 2), 2: np.arange(120.0) % 7})
    options = {"id_column": 0, "time_column": 1, "target": 2}
    if form == "multiindex":
        data, options = data.set_index([0, 1]), {}
    model = tsar.SeasonalNaive(horizon=4, **options).fit(data).calibrate(data)
    keys = [0, 1] if form == "long" else []
    assert list(model.predict(level=80).columns) == [*keys, 2, "2_lo80", "2_hi80"]
    assert model.predict().columns.dtype == data.columns.dtype
    assert list(model.predict(horizon=5).columns) == [*keys, 2, "extrapolated"]


def test_quantiles_of_two_names_that_are_written_alike_are_refused():
    wide = pd.DataFrame(VALUES, index=DAYS, columns=pd.Index([1, "1"], dtype=object))
    model = tsar.SeasonalNaive(horizon=4).fit(wide).calibrate(wide)
    assert list(model.predict().columns) == [1, "1"]
    with pytest.raises(ParameterError, match="two variates are both written '1'"):
        model.predict(level=80)


@pytest.mark.parametrize(
    ("label", "plain"),
    [
        (np.int64(3), 3),
        (np.bool_(True), True),
        ("a", "a"),
        (None, None),
        (pd.Timestamp("2024-01-01"), "2024-01-01 00:00:00"),
        (pd.Period("2024-01"), "2024-01"),
        (datetime.date(2024, 1, 1), "2024-01-01"),
        (("a", np.int64(1)), ("a", 1)),
    ],
)
def test_plain_labels(label, plain):
    found = plain_label(label)
    assert found == plain and type(found) is type(plain)


@pytest.mark.parametrize(
    "ids",
    [[1, 2], pd.DatetimeIndex(["2024", "2025"]), pd.period_range("2024", periods=2), ["a", "b"]],
)
def test_attributes_are_kept_in_parquet(ids, tmp_path):
    data = pd.DataFrame(
        {
            "unique_id": pd.Index(ids).repeat([60, 5]),
            "ds": np.concatenate([DAYS, DAYS[:5]]),
            "y": np.arange(65.0),
        }
    )
    forecast = tsar.SeasonalNaive(horizon=2, season_length=7).fit(data).predict()
    assert forecast.attrs["short_history"] == [plain_label(pd.Index(ids)[1])]
    forecast.to_parquet(tmp_path / "forecast.parquet")
    again = pd.read_parquet(tmp_path / "forecast.parquet")
    assert again.attrs == forecast.attrs
