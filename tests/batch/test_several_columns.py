"""Ids and times of several columns of a file: read as one, and written as they were."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.batch import FileFormat, forecast
from tsar.exceptions import DataError, ParameterError

KEYS = ["store", "product"]
SALES = {"horizon": 2, "id_column": KEYS, "target": ["sold"]}
# The parts are told apart by nothing but the pair, and 007 is no number.
PAIRS = [("north", "007"), ("north", "A"), ("south", "007"), ("south", "7")]


@pytest.fixture
def sales(tmp_path, monkeypatch):
    """Return the rows of four series, whose ids are pairs."""
    monkeypatch.chdir(tmp_path)
    days = pd.date_range("2024-01-01", periods=20).strftime("%Y-%m-%d")
    frame = pd.DataFrame([(*pair, day) for pair in PAIRS for day in days], columns=[*KEYS, "day"])
    return frame.assign(sold=np.random.default_rng(0).poisson(9, len(frame)).astype(float))


def _write(frame, name):
    writers = {"csv": frame.to_csv, "parquet": frame.to_parquet, "xlsx": frame.to_excel}
    writers[name.split(".")[-1]](name, index=False)


def _read(name):
    readers = {"csv": pd.read_csv, "parquet": pd.read_parquet, "xlsx": pd.read_excel}
    texts = {} if name.endswith("parquet") else {"dtype": dict.fromkeys(KEYS, str)}
    return readers[name.split(".")[-1]](name, **texts)


@pytest.mark.parametrize("source", ["in.csv", "in.parquet", "in.xlsx"])
@pytest.mark.parametrize("block_rows", [1000, 45])
def test_pairs_are_series_as_in_python(sales, source, block_rows):
    _write(sales, source)
    forecast(source, model="SeasonalNaive", out="out.csv", block_rows=block_rows, **SALES)
    model = tsar.SeasonalNaive(horizon=2, id_column=KEYS, time_column="day", target="sold")
    expected = model.fit(sales).predict()
    written = _read("out.csv")
    assert list(written.columns) == [*KEYS, "day", "sold", "status"]
    assert list(written[KEYS].itertuples(index=False, name=None))[::2] == PAIRS
    pd.testing.assert_frame_equal(written[expected.columns], expected, check_dtype=False)


@pytest.mark.parametrize("block_rows", [1000, 45])
def test_integers_are_integers_column_by_column(sales, block_rows):
    ids = {"north": 1, "south": 2}
    numbered = sales[sales["product"] != "A"].assign(store=sales["store"].map(ids))
    numbered.to_csv("in.csv", index=False)
    done = forecast("in.csv", model="Naive", block_rows=block_rows, **SALES)
    assert done.forecast["store"].tolist() == [1, 1, 2, 2, 2, 2]
    assert done.forecast["product"].tolist()[::2] == ["007", "007", "7"]


@pytest.mark.parametrize("block_rows", [1000, 45])
def test_a_bad_pair_costs_its_neighbours_nothing(sales, block_rows):
    sales["sold"] = sales["sold"].astype(object)
    sales.loc[25, "sold"] = "many"
    sales.to_csv("in.csv", index=False)
    done = forecast(
        "in.csv", model="Naive", out="out.csv", report="r.json", block_rows=block_rows, **SALES
    )
    assert done.series["id"].tolist() == [("north", "A")] and done.n_failed == 1
    written = _read("out.csv")
    assert written["status"].tolist()[::2] == ["ok", "non-numeric", "ok", "ok"]
    assert list(written[KEYS].itertuples(index=False, name=None))[::2] == PAIRS
    assert written["day"].tolist() == ["2024-01-21", "2024-01-22"] * 4
    assert json.loads(Path("r.json").read_text())["series"][0]["id"] == ["north", "A"]


def test_parts_and_stopped_runs_are_the_whole(sales):
    sales.loc[30, "sold"] = np.inf
    sales.to_csv("in.csv", index=False)
    options = {"model": tsar.Naive(horizon=2), "block_rows": 20, **SALES}
    whole = forecast("in.csv", **options)
    shards = [forecast("in.csv", shard=(k, 2), **options).forecast for k in (1, 2)]
    pd.testing.assert_frame_equal(pd.concat(shards, ignore_index=True), whole.forecast)

    def stop(done, n_series):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forecast("in.csv", out="out.csv", on_progress=stop, **options)
    resumed = forecast("in.csv", out="out.csv", resume=True, **options)
    written = _read("out.csv")
    pd.testing.assert_frame_equal(written, whole.forecast, check_dtype=False)
    pd.testing.assert_frame_equal(resumed.series, whole.series)


def test_pairs_in_the_future_in_events_and_under_policies(sales):
    doubled = pd.concat([sales, sales.iloc[[3]]]).drop(index=range(60, 65)).assign(price=2.0)
    doubled.to_csv("in.csv", index=False)
    pd.DataFrame({"store": ["north"], "product": ["A"], "date": ["2024-01-21"]}).to_csv(
        "fairs.csv", index=False
    )
    days = pd.date_range("2024-01-16", periods=8).strftime("%Y-%m-%d")
    rows = [(*pair, day, 3.0) for pair in PAIRS for day in days]
    pd.DataFrame(rows, columns=[*KEYS, "day", "price"]).to_csv("future.csv", index=False)
    model = tsar.ARIMA(horizon=2, order=(0, 0, 0), future_covariates="price")
    policies = {"duplicates": "first", "ended": "skip", "events": "fairs.csv"}
    done = forecast("in.csv", model=model, future="future.csv", **policies, **SALES)
    assert done.series["id"].tolist() == [] and done.n_ended == 0
    assert done.notes["id"].tolist() == [PAIRS[0]]
    short = doubled[~((doubled["product"] == "7") & (doubled["day"] > "2024-01-15"))]
    short.to_csv("in.csv", index=False)
    done = forecast("in.csv", model=model, future="future.csv", **policies, **SALES)
    assert done.series[["id", "status"]].to_numpy().tolist() == [[PAIRS[3], "ended"]]
    assert len(done.forecast) == 6


def test_a_saved_model_reads_pairs_by_itself(sales):
    sales.to_csv("in.csv", index=False)
    tsar.Naive(horizon=2, id_column=KEYS, time_column="day", target="sold").fit(sales).save("m")
    own = forecast("in.csv", model="m").forecast
    named = forecast("in.csv", model="m", id_column=("store", "product"))
    pd.testing.assert_frame_equal(own, named.forecast)
    with pytest.raises(ParameterError, match="id_column must be \\['store', 'product'\\] as the"):
        forecast("in.csv", model="m", id_column="store")


@pytest.mark.parametrize("block_rows", [1000, 45])
@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["store", "store"], ParameterError, "names each column once, got \\['store', 'store'\\]"),
        ([], ParameterError, "names each column once, got \\[\\]"),
        (["store", "shelf"], DataError, "no column 'shelf'"),
        (["store", "day"], ParameterError, "'day' cannot be both the id and the time"),
    ],
)
def test_ids_that_are_none(sales, names, error, message, block_rows):
    sales.to_csv("in.csv", index=False)
    options = {**SALES, "id_column": names, "time_column": "day", "block_rows": block_rows}
    with pytest.raises(error, match=message):
        forecast("in.csv", model="Naive", **options)


@pytest.mark.parametrize("source", ["in.csv", "in.parquet"])
@pytest.mark.parametrize("block_rows", [1000, 45])
def test_a_pair_without_one_part_is_no_id(sales, source, block_rows):
    sales.loc[27, "product"] = None
    _write(sales, source)
    with pytest.raises(DataError, match="1 rows have no id in column \\['store', 'product'\\]"):
        forecast(source, model="Naive", block_rows=block_rows, **SALES)


# ------------------------------------------------------------- date and clock

HOURS = pd.date_range("2024-01-13 20:00", periods=60, freq="h")
AHEAD = pd.date_range(HOURS[-1], periods=6, freq="h")[1:]
LOAD = {"model": "SeasonalNaive", "horizon": 5}
SPELLINGS = [
    ("%Y-%m-%d", "%H:%M"),
    ("%Y%m%d", "%H%M"),
    ("%d.%m.%Y", "%H:%M:%S"),
    ("%d %b %Y", "%I:%M %p"),
    ("%m/%d/%Y", "%H"),
    ("%Y/%m/%d", "%-H:%M"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("date", "clock"), SPELLINGS)
@pytest.mark.parametrize("stated", [False, True])
def test_a_date_and_a_clock_are_one_time(folder, date, clock, stated):
    frame = pd.DataFrame({"clock": HOURS.strftime(clock), "date": HOURS.strftime(date)})
    frame.assign(load=np.arange(60.0)).to_csv("in.csv", index=False)
    options = {"time_column": ["date", "clock"]}
    if stated:
        options["file_format"] = FileFormat(time_format=f"{date} {clock}")
    done = forecast("in.csv", out="out.csv", **options, **LOAD)
    written = pd.read_csv("out.csv", dtype=str)
    assert list(written.columns) == ["date", "clock", "load"]
    assert written["date"].tolist() == AHEAD.strftime(date).tolist()
    assert written["clock"].tolist() == AHEAD.strftime(clock).tolist()
    assert written["load"].astype(float).tolist() == list(range(36, 41))
    assert "times in 'date' and 'clock'" in done.reading


@pytest.mark.parametrize("source", ["in.parquet", "in.xlsx"])
@pytest.mark.parametrize(
    ("dates", "clocks"),
    [
        (lambda times: times.normalize(), lambda times: times.time),
        (lambda times: times.date, lambda times: times.strftime("%H:%M")),
        (lambda times: times.strftime("%Y-%m-%d"), lambda times: times.hour.astype("int64")),
    ],
)
def test_dates_and_clocks_that_are_no_text(folder, source, dates, clocks):
    load = np.arange(60.0)
    frame = pd.DataFrame({"date": dates(HOURS), "clock": clocks(HOURS), "load": load})
    _write(frame, source)
    forecast(source, out=f"out_{source}", time_column=["date", "clock"], **LOAD)
    # What the file would hold of the next hours.
    expected = pd.DataFrame({"date": dates(AHEAD), "clock": clocks(AHEAD), "load": load[36:41]})
    _write(expected, f"expected_{source}")
    pd.testing.assert_frame_equal(
        _read(f"out_{source}"), _read(f"expected_{source}"), check_dtype=source == "in.parquet"
    )


@pytest.mark.parametrize("block_rows", [1000, 70])
def test_clocks_of_many_series_and_their_future(folder, block_rows):
    parts = [
        pd.DataFrame({"unique_id": name, "date": HOURS.date, "clock": HOURS.strftime("%H:%M")})
        for name in "abc"
    ]
    frame = pd.concat(parts, ignore_index=True).assign(y=np.arange(180.0), warm=1.0)
    frame = frame.drop(index=[70])
    frame.to_csv("in.csv", index=False)
    rows = [(name, time.date(), time.strftime("%H:%M"), 1.0) for name in "abc" for time in AHEAD]
    pd.DataFrame(rows, columns=["unique_id", "date", "clock", "warm"]).to_csv("f.csv", index=False)
    model = tsar.ARIMA(horizon=5, order=(0, 0, 0), future_covariates="warm")
    done = forecast(
        "in.csv", model=model, future="f.csv", time_column=("date", "clock"), block_rows=block_rows
    )
    written = done.forecast
    assert written["status"].tolist()[::5] == ["ok", "gap", "ok"]
    assert written["date"].tolist() == list(AHEAD.strftime("%Y-%m-%d")) * 3
    assert written["clock"].tolist() == list(AHEAD.strftime("%H:%M")) * 3


def test_a_clock_that_is_left_out_is_told(folder):
    frame = pd.DataFrame({"date": HOURS.date, "clock": HOURS.strftime("%H:%M"), "load": 1.0})
    frame.to_csv("in.csv", index=False)
    with pytest.raises(DataError, match="duplicate(.|\n)*join a date and its clock"):
        forecast("in.csv", time_column="date", target=["load"], **LOAD)
    frame.assign(unique_id="a").to_csv("in.csv", index=False)
    with pytest.raises(DataError, match="duplicate(.|\n)*join a date and its clock"):
        forecast("in.csv", time_column="date", target=["load"], **LOAD)
    frame.rename(columns={"load": "date clock"}).to_csv("in.csv", index=False)
    with pytest.raises(DataError, match="read as one column 'date clock', and there is another"):
        forecast("in.csv", time_column=["date", "clock"], **LOAD)
    with pytest.raises(DataError, match="no column 'hour'"):
        forecast("in.csv", time_column=["date", "hour"], **LOAD)


def test_a_saved_model_is_told_both_columns_again(folder):
    frame = pd.DataFrame({"date": HOURS.date, "clock": HOURS.strftime("%H:%M")})
    frame = frame.assign(load=np.arange(60.0))
    frame.to_csv("in.csv", index=False)
    joined = pd.DataFrame({"date clock": HOURS.strftime("%Y-%m-%d %H:%M"), "load": frame["load"]})
    tsar.SeasonalNaive(horizon=5, time_column="date clock").fit(joined).save("m")
    done = forecast("in.csv", model="m", time_column=["date", "clock"])
    assert done.forecast["clock"].tolist() == AHEAD.strftime("%H:%M").tolist()
