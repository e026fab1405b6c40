"""Frames of future covariates, aligned with the series they belong to."""

import numpy as np
import pandas as pd
import pytest

from tsar.data.future import make_future_frame, read_future
from tsar.data.panel import Panel
from tsar.exceptions import DataError

HOURS = pd.date_range("2024-03-30 20:00", periods=6, freq="h", tz="Europe/Berlin")


def _long() -> pd.DataFrame:
    frame = pd.DataFrame({"unique_id": np.repeat(["b", "a", "c"], 6), "ds": np.tile(HOURS, 3)})
    return frame.assign(y=1.0, price=np.arange(18.0), event="none")


def _forms() -> dict[str, pd.DataFrame]:
    long = _long()
    return {
        "long": long,
        "multiindex": long.set_index(["unique_id", "ds"]),
        "wide": long[:6].drop(columns="unique_id").set_index("ds"),
        "one long": long[:6].drop(columns="unique_id"),
    }


def _panel(frame: pd.DataFrame) -> Panel:
    return Panel.from_frame(frame, future_covariates=["price", "event"])


@pytest.mark.parametrize("form", _forms())
def test_a_filled_frame_is_read_back_in_any_order(form):
    panel = _panel(_forms()[form])
    frame = make_future_frame(panel, ["price", "event"], 4)
    assert frame["price"].isna().all() and len(frame) == 4 * panel.n_series
    values = np.arange(4.0 * panel.n_series)
    frame = frame.assign(price=values, event=[f"e{value:g}" for value in values], other=1)
    found = read_future(frame.sample(frac=1, random_state=0), panel, ["price", "event"], 4)
    np.testing.assert_array_equal(found["price"], values.reshape(-1, 4))
    assert found["event"][-1, -1] == f"e{values[-1]:g}"
    # More steps than asked for do no harm.
    fewer = read_future(frame, panel, ["price"], 3)
    np.testing.assert_array_equal(fewer["price"], found["price"][:, :3])


def test_times_of_another_resolution_are_the_same_times():
    panel = _panel(_long())
    frame = make_future_frame(panel, ["price"], 3).assign(price=np.arange(9.0))
    expected = read_future(frame, panel, ["price"], 3)["price"]
    for unit in ("s", "ms", "ns"):
        other = frame.assign(ds=frame["ds"].dt.as_unit(unit))
        np.testing.assert_array_equal(read_future(other, panel, ["price"], 3)["price"], expected)


def test_what_is_missing_is_named_in_a_few_lines():
    panel = _panel(_long())
    frame = make_future_frame(panel, ["price", "event"], 3).assign(price=2.0, event="fair")
    frame.loc[7, "event"] = None
    with pytest.raises(DataError) as error:
        read_future(frame, panel, ["price", "event"], 3)
    message = str(error.value)
    assert len(message.splitlines()) <= 5
    for part in (
        "'event' is missing for id 'c' from 2024-03-31 04:00:00+02:00 on (1 missing in all)",
        "all 3 steps from 2024-03-31 03:00:00+02:00 to 2024-03-31 05:00:00+02:00",
        "make_future_frame(3)",
    ):
        assert part in message
    with pytest.raises(DataError, match="'price' is missing for id .a. from .* .3 missing in all"):
        read_future(frame[frame["unique_id"] != "a"], panel, ["price"], 3)
    with pytest.raises(DataError, match="9 missing in all"):
        read_future(frame[:0], panel, ["price"], 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.to_dict(), "future must be a DataFrame with the columns 'price', got dict"),
        (lambda f: f.drop(columns="price"), "future has no column 'price', its columns are"),
        (lambda f: f.drop(columns="unique_id"), "future has no column 'unique_id'"),
        (lambda f: pd.concat([f, f[4:5]]), "future has two rows for id 'a' at 2024-03-31 04"),
        (lambda f: f.assign(ds=f["ds"].dt.tz_localize(None)), "time of future must be like"),
        (lambda f: pd.concat([f, f[["price"]]], axis=1), "the column 'price' more than once"),
        (lambda f: f.assign(ds=np.arange(9)), "time of future must be like the fitted one"),
        (lambda f: f.assign(ds=f["ds"].where(f["ds"] != f["ds"][0])), "3 rows without a usable"),
    ],
)
def test_unusable_frames_are_refused(change, words):
    panel = _panel(_long())
    frame = make_future_frame(panel, ["price"], 3).assign(price=2.0)
    with pytest.raises(DataError, match=words):
        read_future(change(frame), panel, ["price"], 3)
