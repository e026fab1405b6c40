"""The panel: one error for every fault, gaps as missing values, and what survives storage."""

import numpy as np
import pandas as pd
import pytest

from tsar.data.panel import Panel
from tsar.exceptions import DataError

HOURS = pd.date_range("2024-01-01", periods=60, freq="h")


def _panel(n_series: int, rows: int, freq: str = "h", seed: int = 3) -> pd.DataFrame:
    stamps = pd.date_range("2015-01-01", periods=rows, freq=freq)
    values = np.random.default_rng(seed).normal(size=n_series * rows)
    ids = np.repeat([f"s{place:04d}" for place in range(n_series)], rows)
    return pd.DataFrame({"unique_id": ids, "ds": np.tile(stamps, n_series), "y": values})


def _faults(error: pytest.ExceptionInfo[DataError]) -> set[tuple[object, ...]]:
    assert error.value.faults is not None
    assert list(error.value.faults.columns) == ["id", "kind", "count", "first", "column"]
    found = error.value.faults.astype(object)
    return set(found.where(found.notna(), None).itertuples(index=False, name=None))


# ----------------------------------------------------------------- every fault


def _spoil(frame: pd.DataFrame, rows: int) -> tuple[pd.DataFrame, set[tuple[object, ...]]]:
    """Seed one fault of every kind; return the frame and what has to be found."""
    stamps = frame["ds"].iloc[:rows].reset_index(drop=True)
    text = frame["ds"].dt.strftime("%Y-%m-%d %H:%M:%S").astype(object)
    frame = frame.assign(ds=text).copy()

    def at(series: int, row: int) -> int:
        return series * rows + row

    def show(stamp: pd.Timestamp) -> str:
        return stamp.strftime("%Y-%m-%d %H:%M:%S")

    frame.loc[at(9, 0) : at(9, rows - 1), "ds"] = [
        show(stamp) for stamp in pd.date_range(stamps[0], periods=rows, freq="D")
    ]
    frame.loc[at(4, 20), "ds"] = show(stamps[20] + pd.Timedelta(minutes=7))
    frame.loc[at(5, 8), "ds"] = "the 30th of February"
    frame.loc[[at(6, 2), at(6, 17)], "y"] = [np.inf, -np.inf]
    dropped = [at(1, 10), at(1, 11), at(1, 30), at(8, 40)]
    doubled = frame.loc[[at(3, 5), at(3, 6), at(3, 6)]]
    # Series 8 has a gap and an off-grid stamp elsewhere.
    frame.loc[at(8, 12), "ds"] = show(stamps[12] - pd.Timedelta(minutes=7))
    frame = pd.concat([frame.drop(index=dropped), doubled])
    expected = {
        ("s0001", "gap", 3, show(stamps[10]), None),
        ("s0003", "duplicate", 3, show(stamps[5]), None),
        ("s0004", "off-grid", 1, show(stamps[20] + pd.Timedelta(minutes=7)), None),
        ("s0005", "timestamp", 1, "'the 30th of February'", None),
        ("s0006", "infinite", 2, show(stamps[2]), "y"),
        ("s0008", "gap", 1, show(stamps[40]), None),
        ("s0008", "off-grid", 1, show(stamps[12] - pd.Timedelta(minutes=7)), None),
        ("s0009", "frequency", rows, show(stamps[0]), None),
    }
    return frame.sample(frac=1, random_state=1), expected


@pytest.mark.parametrize(
    ("n_series", "rows", "freq"), [(12, 60, None), (12, 60, "h"), (1000, 1000, None)]
)
def test_every_fault_is_in_one_error(n_series, rows, freq):
    frame, expected = _spoil(_panel(n_series, rows), rows)
    with pytest.raises(DataError) as error:
        Panel.from_frame(frame, freq=freq)
    assert _faults(error) == expected
    message = str(error.value)
    first = message.splitlines()[0]
    assert first.startswith("the data have 8 faults in 7 series (expected freq='h'")
    assert ("most series" in first) == (freq is None)
    for series, kind, count, stamp, column in expected:
        where = f"id {series!r}" if column is None else f"id {series!r}, column {column!r}"
        step = ", has 'D'" if kind == "frequency" else ""
        assert f"  {where}: {kind}, count {count}, first at {stamp}{step}\n" in message
    assert "how to repair:" in message and "gaps='mask'" in message


def test_fault_kinds_are_found_in_stamps_as_well():
    """The same as datetimes, where an unparsable date is NaT."""
    frame, expected = _spoil(_panel(12, 60), 60)
    frame["ds"] = pd.to_datetime(frame["ds"], errors="coerce")
    with pytest.raises(DataError) as error:
        Panel.from_frame(frame)
    as_stamps = {
        (series, kind, count, "NaT" if kind == "timestamp" else stamp, column)
        for series, kind, count, stamp, column in expected
    }
    assert _faults(error) == as_stamps


def test_missing_id_is_a_fault():
    frame = _panel(4, 9)
    frame.loc[[3, 20], "unique_id"] = None
    with pytest.raises(DataError) as error:
        Panel.from_frame(frame)
    assert (None, "id", 2, str(frame["ds"][3]), None) in _faults(error)


def test_many_faults_are_counted_and_kept_on_the_error():
    frame = _panel(250, 9)
    frame = frame.drop(index=[series * 9 + 4 for series in range(250)])
    with pytest.raises(DataError) as error:
        Panel.from_frame(frame)
    assert len(error.value.faults) == 250
    assert "and 150 more, all in the error's `faults` frame" in str(error.value)
    assert len(str(error.value).splitlines()) == 104


@pytest.mark.parametrize("kind", ["infinite", "non-numeric"])
def test_bad_values_name_series_column_and_stamp(kind):
    frame = pd.DataFrame({"a": 1.0, "b": 2.0, "c": 3.0}, index=HOURS)
    if kind == "non-numeric":
        frame = frame.astype({"b": object})
    frame.loc[HOURS[7], "b"] = np.inf if kind == "infinite" else "broken"
    frame.loc[HOURS[9], "b"] = -np.inf if kind == "infinite" else "worse"
    frame.loc[HOURS[3], "c"] = np.inf
    with pytest.raises(DataError) as error:
        Panel.from_frame(frame)
    assert _faults(error) == {
        (None, kind, 2, str(HOURS[7]), "b"),
        (None, "infinite", 1, str(HOURS[3]), "c"),
    }
    assert f"the frame, column 'b': {kind}, count 2, first at {HOURS[7]}" in str(error.value)
    assert "expected freq" not in str(error.value)


def test_values_of_a_series_are_in_no_column():
    series = pd.Series(np.arange(60.0), index=HOURS, name="load")
    series.iloc[7] = np.inf
    with pytest.raises(DataError, match=f"  the Series: infinite, count 1, first at {HOURS[7]}"):
        Panel.from_frame(series)


def test_values_too_large_to_be_squared_are_refused():
    values = np.full((60, 2), 1e149)
    values[::2] *= -1
    assert Panel.from_frame(pd.DataFrame(values, index=HOURS)).values.max() == 1e149
    values[[5, 8], 1] = -1e160, 1.7e308
    values[6, 1] = np.nan
    with pytest.raises(DataError, match="column 1: infinite, count 2, .*\n.*\n.* beyond 1e150"):
        Panel.from_frame(pd.DataFrame(values, index=HOURS))
    single = np.full(60, 3e38, dtype=np.float32)
    assert Panel.from_frame(pd.Series(single, index=HOURS)).values.dtype == np.float32


def test_mixed_zones_name_the_series():
    frame = _panel(3, 9)
    frame["ds"] = frame["ds"].dt.tz_localize("UTC").astype(object)
    frame.loc[12:13, "ds"] = frame.loc[12:13, "ds"].map(
        lambda stamp: stamp.tz_convert("Asia/Tokyo")
    )
    with pytest.raises(DataError, match="to one zone") as error:
        Panel.from_frame(frame)
    assert _faults(error) == {("s0001", "time zone", 2, repr(frame["ds"][12]), None)}


def test_ids_in_messages_are_plain():
    frame = pd.DataFrame(
        {"unique_id": np.repeat([4, 7], 5), "ds": np.tile(np.arange(5), 2), "y": 1.0}
    )
    with pytest.raises(DataError, match="id 7: gap, count 1, first at 2") as error:
        Panel.from_frame(frame.drop(index=7))
    assert _faults(error) == {(7, "gap", 1, "2", None)}


def test_single_series_is_called_the_frame():
    frame = pd.DataFrame({"y": np.arange(60.0)}, index=HOURS)
    with pytest.raises(DataError, match=r"the frame: gap, count 2, first at 2024-01-01 04:00:00"):
        Panel.from_frame(frame.drop(index=HOURS[4:6]))
    with pytest.raises(
        DataError, match=r"the frame: duplicate, count 1, first at 2024-01-01 05:00"
    ):
        Panel.from_frame(pd.concat([frame, frame.iloc[5:6]]))


# Rows kept of 40 hours or days, and what is wrong with them.
HOLES = {
    "one": (np.delete(np.arange(40), 7), "gap", 1),
    "two": (np.delete(np.arange(40), [7, 20]), "gap", 2),
    "long": (np.delete(np.arange(40), range(5, 30)), "gap", 25),
    "every other row": (np.arange(0, 40, 2), "frequency", 20),
    "mostly every other row": (np.append(np.arange(0, 38, 2), 39), "frequency", 20),
}


@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("freq", ["h", "D", "B", "MS", "W-WED", "BME"])
def test_gaps_against_a_written_out_grid(hole, freq):
    rows, kind, count = HOLES[hole]
    grid = pd.date_range("2024-01-03", periods=40, freq=freq)
    whole = pd.DataFrame({"unique_id": "whole", "ds": grid, "y": 1.0})
    frame = pd.concat([whole, whole.iloc[rows].assign(unique_id="holes")])
    with pytest.raises(DataError) as error:
        Panel.from_frame(frame, freq=freq)
    first = next(stamp for place, stamp in enumerate(grid) if kind != "gap" or place not in rows)
    assert _faults(error) == {("holes", kind, count, str(first), None)}


@pytest.mark.parametrize("freq", ["h", "D"])
def test_series_of_other_frequencies(freq):
    other = {"h": ["30min", "2h", "D", "MS"], "D": ["h", "2D", "W", "MS"]}[freq]
    frames = [
        pd.DataFrame(
            {"unique_id": name, "ds": pd.date_range("2020", periods=30, freq=name), "y": 1}
        )
        for name in [freq, *other]
    ]
    with pytest.raises(DataError) as error:
        Panel.from_frame(pd.concat(frames), freq=freq)
    assert _faults(error) == {
        (str(frame["unique_id"][0]), "frequency", 30, str(frame["ds"][0]), None)
        for frame in frames[1:]
    }


def test_daily_rows_are_not_hourly_whatever_is_said():
    frame = pd.DataFrame({"y": np.arange(30.0)}, index=pd.date_range("2024", periods=30, freq="D"))
    for gaps in ("raise", "mask"):
        with pytest.raises(DataError, match="the frame: frequency, count 30"):
            Panel.from_frame(frame, freq="h", gaps=gaps)


# --------------------------------------------------------------- rows and order


@pytest.mark.parametrize("layout", ["long", "multiindex"])
def test_shuffled_rows_give_the_same_panel(layout):
    frame = _panel(40, 50)
    mixed = frame.sample(frac=1, random_state=2)
    if layout == "multiindex":
        frame, mixed = (df.set_index(["unique_id", "ds"]) for df in (frame, mixed))
    expected, found = Panel.from_frame(frame), Panel.from_frame(mixed)
    place = found.ids.get_indexer(expected.ids)
    for row, series in enumerate(place):
        part = slice(found.offsets[series], found.offsets[series + 1])
        whole = slice(expected.offsets[row], expected.offsets[row + 1])
        np.testing.assert_array_equal(found.values[part], expected.values[whole])
    np.testing.assert_array_equal(found.first[place], expected.first)
    np.testing.assert_array_equal(found.last[place], expected.last)
    assert found.frequency == expected.frequency


def test_shuffled_wide_rows_give_the_same_panel():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), index=HOURS)
    found = Panel.from_frame(frame.sample(frac=1, random_state=2))
    np.testing.assert_array_equal(found.values, frame.to_numpy())


def test_panel_of_a_clean_frame_is_a_view():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), index=HOURS)
    panel = Panel.from_frame(frame)
    assert np.shares_memory(panel.values, frame.to_numpy())
    assert (panel.n_series, panel.n_variates, panel.lengths.tolist()) == (1, 3, [60])


@pytest.mark.parametrize("freq", ["h", "D", "B", "MS", "W-WED", "QE", "15min"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_masked_gaps_equal_the_reindexed_frame(freq, zone):
    grid = pd.date_range("2024-01-03", periods=50, freq=freq, tz=zone)
    rng = np.random.default_rng(5)
    whole = pd.DataFrame(rng.normal(size=(50, 3)), index=grid, columns=list("abc"))
    kept = np.sort(rng.choice(np.arange(1, 49), size=30, replace=False))
    part = whole.iloc[[0, *kept, 49]]
    expected = Panel.from_frame(part.reindex(grid), freq=freq)
    found = Panel.from_frame(part.sample(frac=1, random_state=0), freq=freq, gaps="mask")
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    assert found.future_index(5).equals(expected.future_index(5))


def test_masked_gaps_of_many_series():
    frame = _panel(30, 40)
    rng = np.random.default_rng(1)
    # Ends stay, so that the reindexed series are as long.
    inner = frame.index[(frame.index % 40 > 0) & (frame.index % 40 < 39)]
    dropped = rng.choice(inner, size=200, replace=False)
    expected = frame.copy()
    expected.loc[dropped, "y"] = np.nan
    found = Panel.from_frame(frame.drop(index=dropped), gaps="mask")
    np.testing.assert_array_equal(found.values, Panel.from_frame(expected).values)
    np.testing.assert_array_equal(found.lengths, 40)


def test_masked_gaps_are_still_checked_for_other_faults():
    frame = pd.DataFrame({"y": np.arange(60.0)}, index=HOURS).drop(index=HOURS[4:9])
    with pytest.raises(DataError) as error:
        Panel.from_frame(pd.concat([frame, frame.iloc[5:6]]), gaps="mask")
    assert _faults(error) == {(None, "duplicate", 1, str(frame.index[5]), None)}


def test_covariates_follow_their_rows():
    frame = _panel(3, 20).assign(price=np.arange(60.0), promo=np.arange(60) % 2 == 0)
    frame["size"] = frame["unique_id"].map({"s0000": 4, "s0001": 5, "s0002": 6})
    roles = {
        "past_covariates": ["price"],
        "future_covariates": ["promo"],
        "static_covariates": ["size"],
    }
    expected = Panel.from_frame(frame, **roles)
    np.testing.assert_array_equal(expected.past["price"], np.arange(60.0))
    np.testing.assert_array_equal(expected.static["size"], [4, 5, 6])
    found = Panel.from_frame(frame.sample(frac=1, random_state=0).sort_values("unique_id"), **roles)
    np.testing.assert_array_equal(found.past["price"], expected.past["price"])
    np.testing.assert_array_equal(found.future["promo"], expected.future["promo"])
    gappy = Panel.from_frame(frame.drop(index=[5, 45]), gaps="mask", **roles)
    assert np.isnan(gappy.past["price"][[5, 45]]).all() and np.isnan(gappy.values[[5, 45]]).all()
    with pytest.raises(DataError, match="static covariate 'price' changes within id 's0000'"):
        Panel.from_frame(frame, static_covariates=["price"])


@pytest.mark.parametrize(
    "dtype", ["object", "str", "string", "category", "Int64", "float64", "string[pyarrow]"]
)
@pytest.mark.parametrize("gone", [[0], [0, 1, 5], [5], [19], [20, 25], list(range(19)), []])
def test_static_values_may_be_missing_in_any_row(dtype, gone):
    frame = _panel(3, 20)
    numbers = dtype in ("Int64", "float64")
    names = [4, 5, 6] if numbers else ["north", "south", "north"]
    frame["shop"] = pd.Series(np.repeat(names, 20)).astype(dtype)
    frame.loc[gone, "shop"] = np.nan if dtype == "float64" else None
    frame.loc[40:, "shop"] = np.nan if dtype == "float64" else None
    static = Panel.from_frame(frame, static_covariates=["shop"]).static["shop"]
    assert list(static[:2]) == names[:2] and pd.isna(static[2])
    shuffled = frame.sample(frac=1, random_state=0).sort_values("unique_id", kind="stable")
    again = Panel.from_frame(shuffled, static_covariates=["shop"]).static["shop"]
    assert list(again[:2]) == names[:2] and pd.isna(again[2])
    frame.loc[12, "shop"] = 9 if numbers else "south"
    if set(range(19)) - set(gone) - {12}:
        with pytest.raises(DataError, match="'shop' changes within id 's0000'"):
            Panel.from_frame(frame, static_covariates=["shop"])


def test_empty_frames_are_refused():
    for frame in (_panel(2, 5).iloc[:0], pd.DataFrame({"a": []}, index=HOURS[:0])):
        with pytest.raises(DataError, match="no rows; pass at least one observation"):
            Panel.from_frame(frame)
    timeless = _panel(2, 5).assign(ds=pd.NaT)
    with pytest.raises(DataError, match="timestamp, count 5"):
        Panel.from_frame(timeless)


@pytest.mark.parametrize("freq", [None, "W-WED", "D"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_series_without_any_time_is_named(freq, place):
    stamps = pd.date_range("2024-01-03", periods=5, freq=freq or "D")
    frame = pd.DataFrame({"unique_id": np.repeat([4, 5, 6], 5), "ds": np.tile(stamps, 3), "y": 1.0})
    frame.loc[place * 5 : place * 5 + 4, "ds"] = pd.NaT
    other = 4 if place else 6
    frame.loc[frame.index[frame["unique_id"] == other][3], "y"] = np.inf
    with pytest.raises(DataError) as error:
        Panel.from_frame(frame, freq=freq)
    assert _faults(error) == {
        (4 + place, "timestamp", 5, "NaT", None),
        (other, "infinite", 1, str(stamps[3]), "y"),
    }


def test_missing_times_in_the_index_are_faults():
    frame = pd.DataFrame({"a": np.arange(60.0), "b": 1.0}, index=HOURS)
    frame.index = frame.index.where(np.arange(60) != 7)
    with pytest.raises(DataError) as error:
        Panel.from_frame(frame)
    assert _faults(error) == {(None, "timestamp", 1, "NaT", None)}


def test_mask_of_a_wrong_date_is_refused():
    """One stamp in another century, and a mask of billions of rows."""
    frame = _panel(2, 60, "s")
    frame.loc[119, "ds"] = pd.Timestamp("2205-01-01")
    with pytest.raises(
        DataError, match="gaps='mask' would add 5[0-9]{9} rows .* id 's0001', which"
    ):
        Panel.from_frame(frame, gaps="mask")


def test_frequency_of_another_kind_of_time_is_refused():
    fitted = Panel.from_frame(pd.Series(np.arange(60.0), index=HOURS)).frequency
    with pytest.raises(DataError, match="holds integers, which do not go with the fitted freq='h'"):
        Panel.from_frame(pd.Series(np.arange(60.0)), freq=fitted)
    fitted = Panel.from_frame(pd.Series(np.arange(60.0))).frequency
    with pytest.raises(
        DataError, match="holds timestamps, which do not go with the fitted freq='1'"
    ):
        Panel.from_frame(pd.Series(np.arange(60.0), index=HOURS), freq=fitted)


def test_frequency_is_asked_for_when_it_cannot_be_known():
    frame = _panel(5, 2)
    with pytest.raises(DataError, match="no series has 3 rows; pass it to the estimator"):
        Panel.from_frame(frame)
    assert Panel.from_frame(frame, freq="h").lengths.tolist() == [2] * 5
    # What is wrong for certain is said first.
    frame.loc[3, "y"] = np.inf
    with pytest.raises(DataError, match="infinite, count 1"):
        Panel.from_frame(frame)


def test_index_that_states_its_frequency_is_believed():
    """Monday to Friday may be five days or five business days."""
    week = pd.date_range("2024-01-01", periods=5, freq="B")
    frame = pd.DataFrame({"y": np.arange(5.0)}, index=week)
    assert Panel.from_frame(frame).future_index(1)[0] == pd.Timestamp("2024-01-08")
    frame.index = pd.DatetimeIndex(list(week))
    assert Panel.from_frame(frame).future_index(1)[0] == pd.Timestamp("2024-01-06")
    backwards = frame.set_axis(week)[::-1]
    assert Panel.from_frame(backwards).future_index(1)[0] == pd.Timestamp("2024-01-06")


# ------------------------------------------------------------------- the tail


def test_tail_is_the_end_of_every_series():
    panel = Panel.from_frame(_panel(4, 30).drop(index=range(5)))
    tail = panel.tail(7)
    assert tail.lengths.tolist() == [7] * 4
    for series in range(4):
        end = panel.offsets[series + 1]
        np.testing.assert_array_equal(
            tail.values[7 * series : 7 * series + 7], panel.values[end - 7 : end]
        )
    assert tail.future_index(3).equals(panel.future_index(3))
    assert panel.tail(1000).lengths.tolist() == panel.lengths.tolist()
    assert not np.shares_memory(tail.values, panel.values)


def test_tail_reaches_back_to_the_last_observation():
    values = np.arange(20.0).reshape(10, 2)
    values[5:8, 0] = np.nan
    values[7, 1] = np.nan
    panel = Panel.from_frame(pd.DataFrame(values, index=HOURS[:10]))
    assert panel.tail(3).lengths.tolist() == [6]  # row 4 is the last observation of column 0
    assert panel.tail(2).lengths.tolist() == [2]
    values[:8, 0] = np.nan
    assert Panel.from_frame(pd.DataFrame(values, index=HOURS[:10])).tail(3).lengths.tolist() == [4]


def test_history_goes_before_what_follows_it():
    frame = _panel(3, 30)
    row = frame.index % 30
    history = Panel.from_frame(frame[row < 20])
    later = frame[row >= 20]
    joined = Panel.from_frame(later).after(history)
    np.testing.assert_array_equal(joined.values, Panel.from_frame(frame).values)
    # Another resolution of the stamps is the same time.
    coarse = later.assign(ds=later["ds"].astype("datetime64[s]"))
    np.testing.assert_array_equal(Panel.from_frame(coarse).after(history).values, joined.values)
    # A series that does not adjoin, or is new, stays as it is.
    apart = Panel.from_frame(frame[row >= 21]).after(history)
    assert apart.lengths.tolist() == [9] * 3
    new = Panel.from_frame(later.assign(unique_id=later["unique_id"] + "!")).after(history)
    assert new.lengths.tolist() == [10] * 3


@pytest.mark.parametrize(
    "frame",
    [
        _panel(3, 9),
        _panel(3, 9).astype({"unique_id": "category"}),
        _panel(3, 9).assign(unique_id=np.repeat(np.array([5, 6, 7], dtype="int32"), 9)),
        _panel(3, 9).assign(ds=np.tile(np.arange(9, dtype="uint8"), 3)),
        _panel(3, 9).assign(ds=np.tile(pd.period_range("2024", periods=9, freq="Q"), 3)),
        _panel(3, 9).set_index(["unique_id", "ds"]),
        pd.DataFrame(np.ones((60, 2)), index=HOURS.tz_localize("Asia/Kolkata"), columns=[3, 1]),
        pd.Series(np.ones(60), index=HOURS.strftime("%d.%m.%Y %H:%M"), name="load"),
    ],
    ids=["long", "category", "int ids", "uint time", "periods", "multiindex", "zone", "series"],
)
def test_panel_survives_storage(frame):
    import json

    panel = Panel.from_frame(frame).tail(4)
    record, arrays = panel.to_state()
    again = Panel.from_state(json.loads(json.dumps(record)), arrays)
    columns = {name: np.arange(panel.n_series * 5.0) for name in panel.variates}
    found, expected = again.write(5, columns, {}), panel.write(5, columns, {})
    if isinstance(found, pd.Series):
        pd.testing.assert_series_equal(found, expected)
    else:
        pd.testing.assert_frame_equal(found, expected)
    assert again.frequency == panel.frequency and again.ids.dtype == panel.ids.dtype


def test_skipped_midnight_survives_storage():
    days = pd.date_range("2018-10-25", periods=20, freq="D")
    stamps = days.tz_localize("America/Sao_Paulo", nonexistent="shift_forward")
    panel = Panel.from_frame(pd.Series(np.ones(11), index=stamps[:11])).tail(3)
    assert list(panel.future_index(9)) == list(stamps[11:])
    record, arrays = panel.to_state()
    assert list(Panel.from_state(record, arrays).future_index(9)) == list(stamps[11:])


def test_integers_that_are_dates_are_told_so():
    days = pd.date_range("2024-01-20", periods=30).strftime("%Y%m%d").astype(int)
    series = pd.Series(np.arange(30.0), index=days)
    with pytest.raises(DataError, match=r"such as 20240120, .* format='%Y%m%d'\) makes them dates"):
        Panel.from_frame(series)
    # Within one month as well: they would be counted on to its 32nd day.
    with pytest.raises(DataError, match="makes them dates"):
        Panel.from_frame(series[:10])
    # Who means numbers says so, and what is no date is an integer like others.
    assert list(Panel.from_frame(series[:10], freq=1).future_index(3)) == [
        *range(20240130, 20240133)
    ]
    with pytest.raises(DataError, match="a gap"):
        Panel.from_frame(pd.Series(1.0, index=[20240101, 20240102, 20240103, 20249999]))


@pytest.mark.parametrize(
    ("alias", "asked"),
    [("W-MON", "W"), ("W-WED", "W-SUN"), ("ME", "MS"), ("QS-FEB", "QS"), ("D", "h"), ("2h", "h")],
)
def test_another_frequency_is_named(alias, asked):
    days = pd.date_range("2024-01-01", periods=12, freq=alias)
    frame = pd.DataFrame({"unique_id": "a", "ds": days, "y": 1.0})
    with pytest.raises(DataError) as caught:
        Panel.from_frame(frame, freq=asked)
    message = str(caught.value)
    assert f", has {alias!r}" in message and f"freq={alias!r} reads the series" in message
    assert Panel.from_frame(frame, freq=alias).frequency.name == alias


def test_the_frequency_of_each_other_series_is_named():
    days = {name: pd.date_range("2024-01-01", periods=12, freq=name) for name in ("W-MON", "MS")}
    parts = [("a", "W-MON"), ("b", "W-MON"), ("c", "MS")]
    frame = pd.concat(
        pd.DataFrame({"unique_id": name, "ds": days[freq], "y": 1.0}) for name, freq in parts
    )
    with pytest.raises(DataError, match="id 'c': frequency, count 12, .*, has 'MS'"):
        Panel.from_frame(frame)


@pytest.mark.parametrize(
    ("times", "step", "repair"),
    [
        ("jitter", "h", "df.index.round('h')"),
        ("events", "30min", "df.resample('30min').mean()"),
        ("month", "MS", "df.index.to_period('M')"),
    ],
)
def test_times_without_a_step_are_told_the_nearest_one(times, step, repair):
    """What is advised makes them regular."""
    rng = np.random.default_rng(0)
    hours = pd.date_range("2024-01-01", periods=60, freq="h")
    index = {
        "jitter": hours + pd.to_timedelta(rng.integers(0, 59, 60), unit="s"),
        "events": hours[0] + pd.to_timedelta(np.cumsum(rng.integers(300, 4000, 60)), unit="s"),
        "month": pd.date_range("2024-01-01", periods=24, freq="MS")
        + pd.to_timedelta(rng.integers(12, 17, 24), unit="D"),
    }[times]
    frame = pd.DataFrame({"y": rng.normal(size=len(index))}, index=index)
    with pytest.raises(DataError) as caught:
        Panel.from_frame(frame)
    message = str(caught.value)
    assert f"irregular, count {len(index)}" in message and repair in message
    assert f"with {step!r}, which is nearest" in message
    if "resample" in repair:
        mended = frame.resample(step).mean()
    elif step == "MS":
        mended = frame.set_axis(frame.index.to_period("M"))
    else:
        mended = frame.set_axis(frame.index.round(step))
    assert len(Panel.from_frame(mended).values) > 20
