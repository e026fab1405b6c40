"""Forecasts in the form of the data: wide, long, with a multiindex, as a Series."""

import numpy as np
import pandas as pd
import pytest

from tsar.data.frames import FrameForm, read_rows
from tsar.data.writing import write_frame

HOURS = pd.date_range("2024-02-28", periods=4, freq="h")
STRING = str(pd.Index(["a"]).dtype)


def test_wide_is_written():
    form = FrameForm("wide", time_name="when", columns_name="what", columns_dtype=STRING)
    columns = {"a": np.arange(3.0), "b": np.arange(3.0) + 5}
    found = write_frame(form, pd.Index([None]), HOURS[:3], columns, {})
    expected = pd.DataFrame(columns, index=HOURS[:3].rename("when"))
    expected.index.freq = found.index.freq
    pd.testing.assert_frame_equal(found, expected.rename_axis(columns="what"))


def test_long_is_written():
    form = FrameForm("long", id_name="shop", time_name="day", columns_dtype=STRING)
    ids = pd.CategoricalIndex(["u", "v"], categories=["w", "v", "u"])
    times = HOURS[:3].append(HOURS[1:4])
    found = write_frame(form, ids, times, {"y": np.arange(6.0)}, {"mark": np.arange(6) > 3})
    assert list(found.columns) == ["shop", "day", "y", "mark"]
    assert found["shop"].dtype == ids.dtype and list(found["shop"]) == list("uuuvvv")
    assert list(found["day"]) == list(times) and found.index.equals(pd.RangeIndex(6))


def test_columns_of_a_written_frame_are_its_own():
    rows = read_rows(
        pd.DataFrame({"unique_id": ["a", "b"], "ds": HOURS[:2], "y": [1.0, 2.0], "z": [3.0, 4.0]})
    )
    median = np.arange(4.0)
    times = HOURS[:2].append(HOURS[:2])
    found = write_frame(rows.form, rows.ids, times, {"y": median, "y_q0.5": median}, {})
    found.loc[0, "y"] = 9.0
    found.loc[0, "ds"] = HOURS[3]
    assert found["y_q0.5"].tolist() == median.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert times[0] == HOURS[0]


def test_multiindex_is_written():
    form = FrameForm("multiindex", id_name="shop", time_name=None, columns_dtype=STRING)
    times = HOURS[:2].append(HOURS[:2])
    found = write_frame(form, pd.Index([7, 3]), times, {"y": np.arange(4.0)}, {})
    expected = pd.MultiIndex.from_product([[7, 3], HOURS[:2]], names=["shop", None])
    assert found.index.equals(expected) and found.index.names == ["shop", None]


def test_series_is_written():
    form = FrameForm("wide", squeeze=True, time_name="when")
    found = write_frame(
        form, pd.Index(["load"]), HOURS, {"y": np.arange(4.0)}, {"mark": [True] * 4}
    )
    assert found.name == "load" and found.index.name == "when"
    form = FrameForm("multiindex", squeeze=True, id_name="i", time_name="t")
    found = write_frame(form, pd.Index([1]), HOURS, {"sales": np.arange(4.0)}, {})
    assert found.name == "sales" and found.index.names == ["i", "t"]


def test_series_with_several_columns_becomes_a_frame_under_its_name():
    form = FrameForm("wide", squeeze=True)
    columns = {"y": np.zeros(4), "y_q0.1": np.zeros(4)}
    found = write_frame(form, pd.Index(["load"], dtype=object), HOURS, columns, {})
    assert list(found.columns) == ["load", "load_q0.1"]
    found = write_frame(form, pd.Index([None], dtype=object), HOURS, columns, {})
    assert list(found.columns) == ["y", "y_q0.1"]


@pytest.mark.parametrize("kind", ["wide", "long", "multiindex"])
def test_marks_never_replace_a_variate(kind):
    form = FrameForm(kind, id_name=None if kind == "wide" else "mark_", time_name="t")
    columns = {"mark": np.arange(4.0)}
    found = write_frame(form, pd.Index(["i"]), HOURS, columns, {"mark": np.ones(4, dtype=bool)})
    name = "mark__" if kind == "long" else "mark_"
    assert found["mark"].tolist() == [0, 1, 2, 3] and found[name].dtype == bool


@pytest.mark.parametrize(
    "labels",
    [
        pd.Index([3, 1]),
        pd.Index(["a", "b"], dtype=object),
        pd.Index(["a", "b"]),
        pd.date_range("2001", periods=2),
        pd.Index([1, "b"], dtype=object),
    ],
)
def test_labels_keep_their_dtype(labels):
    frame = pd.DataFrame(np.zeros((4, 2)), index=HOURS, columns=labels)
    rows = read_rows(frame)
    columns = {name: np.zeros(4) for name in rows.variates}
    found = write_frame(rows.form, rows.ids, HOURS, columns, {})
    assert found.columns.dtype == labels.dtype and list(found.columns) == list(labels)


def test_a_frame_shares_nothing_with_its_columns_or_with_another_frame():
    """Labels and blocks are made once for many frames."""
    form = FrameForm("wide", columns_dtype=STRING)
    median = pd.array(np.arange(4.0), dtype=np.dtype("float64"), copy=False)
    first, second = (
        write_frame(form, pd.Index([None]), HOURS, {"y": median, "y_q0.5": median}, {})
        for _ in range(2)
    )
    first.iloc[0] = 9.0
    first.columns.name = "mine"
    assert second["y"].tolist() == list(median) == [0.0, 1.0, 2.0, 3.0]
    assert second.columns.name is None


def test_labels_that_are_equal_and_not_the_same():
    for labels in ([1, 2], [True, 2], [1.0, 2.0]):
        form = FrameForm("wide", columns_dtype="object")
        columns = dict.fromkeys(labels, np.zeros(4))
        written = write_frame(form, pd.Index(labels, dtype=object), HOURS, columns, {})
        assert [type(label) for label in written.columns] == [type(label) for label in labels]


@pytest.mark.parametrize("freq, has", [("h", True), ("2h", False), ("bh", False)])
def test_an_index_states_a_frequency_that_it_has(freq, has):
    form = FrameForm("wide", freq=pd.tseries.frequencies.to_offset(freq))
    written = write_frame(form, pd.Index([None]), HOURS, {"y": np.zeros(4), "z": np.ones(4)}, {})
    assert written.index.equals(HOURS) and (written.index.freq == form.freq) == has
