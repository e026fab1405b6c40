"""Files of messy rows are forecast as what tsar.tidy makes of them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.batch import forecast
from tsar.exceptions import DataError, ParameterError

DAYS = pd.date_range("2024-01-01", periods=40)
POLICIES = {"duplicates": "sum", "gaps": "zero", "ended": "skip", "ended_after": 3}
NAIVE = {"model": "SeasonalNaive", "horizon": 2}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sales(folder):
    """Return five products: doubled rows, a gap, one that stopped, one that missed a day."""
    draw = np.random.default_rng(3)
    ids = np.repeat([f"p{k}" for k in range(5)], len(DAYS))
    frame = pd.DataFrame({"unique_id": ids, "ds": np.tile(DAYS, 5), "y": draw.poisson(9, len(ids))})
    frame = frame.drop(index=[50, 51, *range(110, 120), 159])
    frame = pd.concat([frame, frame.loc[[5, 90]]], ignore_index=True)
    frame = frame.sort_values("unique_id", kind="stable", ignore_index=True)
    frame.assign(ds=frame["ds"].dt.strftime("%Y-%m-%d")).to_csv("sales.csv", index=False)
    return frame


@pytest.mark.parametrize("block_rows", [10_000, 80, 45])
def test_policies_are_those_of_tidy_whatever_the_blocks(sales, block_rows):
    done = forecast("sales.csv", **NAIVE, **POLICIES, block_rows=block_rows)
    clean = tsar.tidy(sales, **POLICIES)
    expected = tsar.SeasonalNaive(horizon=2).fit(clean.frame).predict()
    assert done.forecast["unique_id"].tolist() == expected["unique_id"].tolist()
    assert done.forecast["ds"].tolist() == expected["ds"].dt.strftime("%Y-%m-%d").tolist()
    np.testing.assert_array_equal(done.forecast["y"], expected["y"])
    assert done.forecast["status"].eq("ok").all()
    assert (done.n_series, done.n_failed, done.n_ended) == (5, 0, 1)
    (ended,) = done.series.itertuples()
    assert (ended.id, ended.status) == ("p2", "ended") and "10 steps" in ended.reason
    listed = ["id", "kind", "count", "handling"]
    found, wanted = (one[listed].sort_values(listed[:2]) for one in (done.notes, clean.notes))
    assert found.to_numpy().tolist() == wanted.to_numpy().tolist()
    assert ["p3", "gap", 1, "zero"] in found.to_numpy().tolist()


def test_the_report_holds_it(sales):
    done = forecast("sales.csv", **NAIVE, **POLICIES, out="out.csv", report="report.json")
    report = json.loads(Path("report.json").read_text())
    assert (report["n_ok"], report["n_ended"], report["n_failed"]) == (4, 1, 0)
    assert pd.DataFrame(report["notes"]).equals(done.notes)


def test_a_run_that_was_stopped_goes_on_with_the_same_policies_only(sales, monkeypatch):
    options = {**NAIVE, **POLICIES, "block_rows": 80, "out": "out.csv"}
    whole = forecast("sales.csv", **{**options, "out": "whole.csv"})

    def stop(done, n_series):
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forecast("sales.csv", **options, on_progress=stop)
    with pytest.raises(ParameterError):
        forecast("sales.csv", **{**options, "duplicates": "first"}, resume=True)
    again = forecast("sales.csv", **options, resume=True)
    assert Path("out.csv").read_text() == Path("whole.csv").read_text()
    assert again.notes.equals(whole.notes) and again.n_ended == 1


def test_series_at_other_times_are_counted(sales):
    done = forecast("sales.csv", **NAIVE, duplicates="first", gaps="mask")
    # One stopped, and one lacks the last day.
    assert (done.n_failed, done.n_other_times) == (0, 2)
    assert (
        forecast("sales.csv", **NAIVE, duplicates="first", gaps="mask", ended="extend")
        .forecast["ds"]
        .nunique()
        == 2
    )


def test_the_error_for_a_file_of_bad_series_says_what_to_do(sales):
    sales[sales["unique_id"].isin(["p0", "p1"])].to_csv("bad.csv", index=False)
    with pytest.raises(DataError) as caught:
        forecast("bad.csv", **NAIVE)
    assert "duplicates='sum'" in str(caught.value) and "gaps='mask'" in str(caught.value)


def test_events_are_covariates_of_history_and_future(sales):
    events = pd.DataFrame({"date": ["2024-01-10", "2024-02-10"], "name": "fair"})
    events.to_csv("events.csv", index=False)
    options = {"context_length": 8, "max_epochs": 2, "random_state": 0}
    net = tsar.NLinear(horizon=2, **options)
    done = forecast("sales.csv", model=net, events="events.csv", **POLICIES)
    history = tsar.add_events(tsar.tidy(sales, **POLICIES).frame, events)
    model = tsar.NLinear(horizon=2, **options, future_covariates="fair").fit(history)
    future = tsar.add_events(model.make_future_frame().drop(columns="fair"), events, freq="D")
    expected = model.predict(future=future)
    assert future["fair"].tolist() == [1, 0] * 4
    np.testing.assert_allclose(done.forecast["y"], expected["y"], rtol=1e-6)
    # The estimator of the caller is as it was, and a saved model needs to know the events.
    assert net.future_covariates is None
    model.save("fair")
    saved = forecast("sales.csv", model="fair", horizon=2, events=events, **POLICIES)
    np.testing.assert_allclose(saved.forecast["y"], expected["y"], rtol=1e-6)
    tsar.NLinear(horizon=2, **options).fit(history).save("plain")
    with pytest.raises(ParameterError, match="was fitted without the future covariate 'fair'"):
        forecast("sales.csv", model="plain", horizon=2, events=events, **POLICIES)
    with pytest.raises(ParameterError, match="SeasonalNaive takes no future covariates"):
        forecast("sales.csv", **NAIVE, events=events, **POLICIES)


def test_rows_at_the_end_without_a_target_are_forecast(sales):
    clean = tsar.tidy(sales, **POLICIES).frame.astype({"y": float})
    price = np.random.default_rng(0).choice([1.0, 2.0], len(clean))
    frame = clean.assign(price=price)
    ahead = frame["ds"] > DAYS[-3]
    held = frame.assign(y=frame["y"].mask(ahead))
    held.to_csv("plan.csv", index=False)
    options = {"context_length": 8, "max_epochs": 2, "random_state": 0}
    net = tsar.NLinear(horizon=2, **options, future_covariates="price")
    done = forecast("plan.csv", model=net, trailing="future")
    expected = net.fit(frame[~ahead]).predict(future=frame[ahead].drop(columns="y"))
    assert done.forecast["ds"].tolist() == expected["ds"].dt.strftime("%Y-%m-%d").tolist()
    np.testing.assert_allclose(done.forecast["y"], expected["y"], rtol=1e-6)


def test_a_file_of_one_series_is_tidied_as_well(folder):
    days = DAYS.delete([7, 8]).append(DAYS[[3]])
    frame = pd.DataFrame({"day": days.strftime("%Y-%m-%d"), "sold": np.arange(len(days)) % 7})
    frame.to_csv("one.csv", index=False)
    done = forecast("one.csv", **NAIVE, duplicates="first", gaps="zero")
    clean = tsar.tidy(frame, time_column="day", duplicates="first", gaps="zero").frame
    expected = tsar.SeasonalNaive(horizon=2, time_column="day").fit(clean).predict()
    np.testing.assert_array_equal(done.forecast["sold"], expected["sold"])
    assert done.notes["kind"].tolist() == ["duplicate", "gap"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id_column": ["unique_id", "ds"], "time_column": "ds"}, "'ds' cannot be both the id"),
        ({"duplicates": "add"}, "batch: duplicates must be one of 'raise', 'sum'"),
        ({"ended": "extend"}, "batch: ended='extend' adds the rows"),
        ({"ended_after": 0}, "batch: ended_after must be"),
    ],
)
def test_unknown_policies_are_told_before_work(sales, options, message):
    with pytest.raises(ParameterError, match=message):
        forecast("sales.csv", **NAIVE, **options)
