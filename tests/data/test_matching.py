"""Ids of frames and files are compared as they are written."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.data.matching import id_places


@pytest.mark.parametrize(
    ("ids", "among", "places"),
    [
        ([2, 3], [1, 2, 3], [1, 2]),
        (["2", "W3", "1"], [1, 2], [1, -1, 0]),
        ([1, 2, 5], ["2", "1", "W3"], [1, 0, -1]),
        (["1", "007"], [1, 7], [0, -1]),
        # Somebody tells them apart.
        (["1", 1], pd.Index([1, "1"], dtype=object), [1, 0]),
        ([2], pd.Index([1, "1"], dtype=object), [-1]),
        ([1.0], ["1.0"], [-1]),
        ([True], ["True"], [-1]),
        ([pd.Timestamp("2024-01-01")], ["2024-01-01"], [-1]),
    ],
)
def test_places_of_ids(ids, among, places):
    assert id_places(pd.Index(ids), pd.Index(among)).tolist() == places


def _shops(ids, n=60):
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=n)
    level = {1: 10.0, 2: 500.0}
    return pd.concat(
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": days,
                "p": np.arange(n) % 3,
                "y": level.get(int(name), 0.0) * (1 + 0.1 * rng.normal(size=n)),
            }
        )
        for name in ids
    )


def test_a_fitted_series_is_known_however_its_id_is_typed():
    frame = _shops([1, 2])
    model = tsar.NLinear(context_length=8, horizon=2, max_epochs=1, random_state=0)
    model.fit(frame.drop(columns="p")).calibrate(frame.drop(columns="p"), level=80)
    text = frame.drop(columns="p").astype({"unique_id": str})
    expected = model.predict(df=frame.drop(columns="p"), level=80)
    got = model.predict(df=text, level=80)
    assert got["unique_id"].tolist() == expected["unique_id"].astype(str).tolist()
    columns = ["y", "y_lo80", "y_hi80"]
    pd.testing.assert_frame_equal(got[columns], expected[columns])


def test_future_covariates_may_name_further_series():
    frame = _shops([1, 2])
    model = tsar.AutoReg(horizon=2, future_covariates="p").fit(frame)
    ahead = pd.date_range("2024-03-01", periods=2)
    future = pd.DataFrame(
        {"unique_id": np.repeat(["2", "total", "1"], 2), "ds": np.tile(ahead, 3), "p": [0, 1] * 3}
    )
    numbers = future[future["unique_id"] != "total"].astype({"unique_id": int})
    pd.testing.assert_frame_equal(model.predict(future=future), model.predict(future=numbers))


def test_ids_of_several_columns_are_found_by_value_or_by_the_way_they_are_written():
    def ids(*labels):
        return pd.Index(list(labels), dtype=object, tupleize_cols=False)

    among = ids(("a", 1), ("a", 2), ("b", 1))
    assert id_places(ids(("b", 1), ("a", 3), ("a", 1)), among).tolist() == [2, -1, 0]
    assert id_places(ids(("b", "1"), ("a", "3"), ("a", "01")), among).tolist() == [2, -1, -1]
    assert id_places(ids(("b", np.int64(1)), ("a", True)), among).tolist() == [2, 0]
    both = ids(("a", 1), ("a", "1"))
    assert id_places(ids(("a", "1"), ("a", 1)), both).tolist() == [1, 0]
