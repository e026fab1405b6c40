"""Events and holidays as columns, against dates that are written out."""

import datetime
import sys
import types

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.exceptions import DataError, DataWarning, MissingExtraError, ParameterError

CHRISTMAS = {datetime.date(2024, 12, 25), datetime.date(2024, 12, 26), datetime.date(2025, 1, 1)}


@pytest.fixture
def holidays(monkeypatch):
    """Stand in for the library, which need not be installed."""
    asked = []

    def country_holidays(code, subdiv=None, years=()):
        if code != "DE":
            raise NotImplementedError(f"Country {code} not available")
        asked.append((code, subdiv, list(years)))
        return {day: "Feiertag" for day in CHRISTMAS if day.year in years}

    module = types.SimpleNamespace(country_holidays=country_holidays)
    monkeypatch.setitem(sys.modules, "holidays", module)
    return asked


def _frame(days, **columns):
    return pd.DataFrame({"y": np.arange(len(days)), **columns}, index=days)


def test_days_of_an_event_are_those_from_its_date_to_its_end():
    days = pd.date_range("2024-11-27", periods=8)
    events = pd.DataFrame(
        {
            "date": ["2024-11-28", "2024-12-01", "2024-11-29"],
            "end": ["2024-11-30", None, None],
            "name": ["sale", "sale", "closed"],
        }
    )
    found = tsar.add_events(_frame(days), events)
    assert found["sale"].tolist() == [0, 1, 1, 1, 1, 0, 0, 0]
    assert found["closed"].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert found.columns.tolist() == ["y", "sale", "closed"]
    unnamed = tsar.add_events(_frame(days), events.drop(columns="name"))
    assert unnamed["event"].tolist() == [0, 1, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("ids", ["shop", ["shop", "item"]])
def test_events_of_some_series(ids):
    days = pd.date_range("2024-11-27", periods=3).strftime("%d/%m/%Y")
    frame = pd.DataFrame({"shop": ["a"] * 3 + ["b"] * 3, "item": 1, "day": [*days, *days], "y": 1})
    events = pd.DataFrame(
        {"date": ["27/11/2024", "29/11/2024"], "shop": ["b", None], "item": [1, None]}
    )
    found = tsar.add_events(frame, events, id_column=ids, time_column="day")
    assert found["event"].tolist() == [0, 0, 1, 1, 0, 1]
    indexed = tsar.add_events(
        frame.set_index(["shop", "day"]), events.assign(unique_id=["b", None])
    )
    assert indexed["event"].tolist() == [0, 0, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (pd.date_range("2024-12-24", periods=4), [0, 1, 1, 0]),
        (pd.date_range("2024-12-24 22:00", periods=4, freq="h", tz="Europe/Berlin"), [0, 0, 1, 1]),
        (pd.date_range("2024-12-16", periods=4, freq="W-MON"), [0, 2, 1, 0]),
        (pd.date_range("2024-11-01", periods=4, freq="MS"), [0, 2, 1, 0]),
        (pd.date_range("2024-11-30", periods=4, freq="ME"), [0, 2, 1, 0]),
        (pd.date_range("2024-09-30", periods=3, freq="QE"), [0, 2, 1]),
        (pd.period_range("2024-11", periods=4, freq="M"), [0, 2, 1, 0]),
        (pd.date_range("2024-12-23", periods=5, freq="B"), [0, 0, 1, 1, 0]),
    ],
    ids=["days", "hours", "weeks", "months", "ends", "quarters", "periods", "business"],
)
def test_holidays_of_steps_of_any_length(index, expected, holidays):
    # Three rows tell the step, and five more that of business days.
    more = pd.date_range(index[-1], periods=8, freq=index.freq)[1:] if index.freqstr == "B" else []
    frame = _frame(index if len(more) == 0 else index.append(more))
    found = tsar.add_events(frame, country_holidays="de-by")
    assert found["holiday"].tolist()[: len(expected)] == expected
    assert holidays[0][:2] == ("DE", "BY") and "holiday" not in frame


def test_a_few_rows_need_to_be_told_their_step():
    frame, events = _frame(pd.DatetimeIndex(["2024-11-25"])), pd.DataFrame({"date": ["2024-11-29"]})
    with pytest.raises(DataError, match="add_events: freq cannot be told from so few rows"):
        tsar.add_events(frame, events)
    assert tsar.add_events(frame, events, freq="W-MON")["event"].tolist() == [1]
    assert tsar.add_events(frame, events, freq="D")["event"].tolist() == [0]


def test_history_and_future_make_a_covariate():
    days = pd.date_range("2024-01-01", periods=90)
    events = pd.DataFrame({"date": days[::9].append(pd.DatetimeIndex(["2024-04-01"]))})
    sold = pd.DataFrame({"sold": 10.0 + 20 * (np.arange(90) % 9 == 0)}, index=days)
    history = tsar.add_events(sold, events)
    model = tsar.ARIMA(order=(0, 0, 0), horizon=3, future_covariates="event").fit(history)
    future = tsar.add_events(model.make_future_frame().drop(columns="event"), events)
    found = model.predict(future=future)["sold"]
    np.testing.assert_allclose(found, [10, 30, 10], atol=1.0)
    assert found.index[1] == pd.Timestamp("2024-04-01")


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ({"day": ["2024-01-01"]}, "events: the frame has no column 'date'"),
        ({"date": ["2024-01-02"], "end": ["2024-01-01"]}, "ends before it begins"),
        ({"date": ["soon"]}, "text that is no time"),
        ({"date": ["2024-01-02"], "name": ["y"]}, "the frame has a column 'y' already"),
    ],
)
def test_unusable_events_are_named(events, message):
    with pytest.raises(DataError, match=message):
        tsar.add_events(_frame(pd.date_range("2024-01-01", periods=4)), pd.DataFrame(events))


def test_events_that_are_no_frame_are_named():
    with pytest.raises(DataError, match="events: they must be a DataFrame, got dict"):
        tsar.add_events(_frame(pd.date_range("2024-01-01", periods=4)), {"date": ["2024-01-02"]})


@pytest.mark.parametrize("dtype", ["str", object, "datetime64[ns]"])
def test_a_table_without_events_adds_no_days(dtype):
    frame = _frame(pd.date_range("2024-01-01", periods=4))
    none = pd.DataFrame({"date": pd.Series(dtype=dtype)})
    assert tsar.add_events(frame, none)["event"].tolist() == [0, 0, 0, 0]
    assert list(tsar.add_events(frame, none.assign(name="sale"))) == ["y"]


def test_an_event_without_a_name_is_called_event():
    events = pd.DataFrame({"date": ["2024-01-02", "2024-01-03"], "name": ["sale", None]})
    found = tsar.add_events(_frame(pd.date_range("2024-01-01", periods=4)), events)
    assert found["sale"].tolist() == [0, 1, 0, 0] and found["event"].tolist() == [0, 0, 1, 0]


def test_ids_of_events_under_another_name_are_told_of():
    """The ids of another name would make each event one of all series."""
    days = pd.date_range("2024-01-01", periods=4)
    frame = pd.DataFrame({"shop": ["A"] * 4 + ["B"] * 4, "ds": [*days, *days], "y": 1.0})
    events = pd.DataFrame({"date": ["2024-01-02"], "store": ["A"]})
    with pytest.warns(DataWarning, match=r"columns \['store'\] are not read.*\['shop'\]"):
        tsar.add_events(frame, events, id_column="shop")
    events = events.rename(columns={"store": "shop"})
    found = tsar.add_events(frame, events, id_column="shop")
    assert found["event"].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]


def test_integers_have_no_calendar():
    with pytest.raises(DataError, match="integers, which have no calendar"):
        tsar.add_events(_frame(range(5)), pd.DataFrame({"date": ["2024-01-01"]}))


def test_unknown_countries_and_a_missing_library(holidays, monkeypatch):
    with pytest.raises(ParameterError, match="country must be a code .* got 'XX'"):
        tsar.public_holidays("XX", 2024, 2025)
    found = tsar.public_holidays("DE", 2024, 2025)
    assert found["date"].tolist() == [pd.Timestamp(day) for day in sorted(CHRISTMAS)]
    monkeypatch.setitem(sys.modules, "holidays", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsar\[calendar\]'"):
        tsar.public_holidays("DE", 2024, 2025)


def test_the_library_knows_the_days_themselves():
    pytest.importorskip("holidays")
    found = tsar.public_holidays("DE", 2024, 2024).set_index("date")
    assert len(found) == 9 and pd.Timestamp("2024-10-03") in found.index
    assert len(tsar.public_holidays("DE-BY", 2024, 2024)) > 9
