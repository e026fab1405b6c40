"""Doubled and missing rows, series that ended and broken ones, against pandas."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.data.panel import Panel
from tsar.exceptions import DataError, ParameterError

DAYS = pd.date_range("2024-03-01", periods=20)


def _sales(n_series=3, days=DAYS):
    draw = np.random.default_rng(5)
    n_days = len(days)
    return pd.DataFrame(
        {
            "unique_id": np.repeat([f"p{k}" for k in range(n_series)], n_days),
            "ds": np.tile(days, n_series),
            "y": draw.poisson(6, n_series * n_days),
            "price": draw.choice([1.5, 2.0, 2.1], n_series * n_days),
            "promotion": draw.random(n_series * n_days) < 0.3,
            "kind": pd.Categorical(draw.choice(["a", "b"], n_series * n_days)),
        }
    )


def _rows(frame):
    """Return what a frame holds, whatever the order of its rows is."""
    return frame.sort_values(["unique_id", "ds"], ignore_index=True)


# ------------------------------------------------------------------ duplicates


@pytest.mark.parametrize("how", ["sum", "mean", "first", "last"])
def test_doubled_rows_equal_an_aggregation_of_pandas(how):
    frame = _sales()
    again = frame.iloc[[3, 3, 25, 40]].assign(y=[10, 20, 30, 40], price=9.0, promotion=True)
    doubled = pd.concat([frame, again], ignore_index=True).sample(frac=1, random_state=1)
    numbers = how if how in ("first", "last") else "mean"
    others = "last" if how == "last" else "first"
    expected = doubled.groupby(["unique_id", "ds"], as_index=False).agg(
        {"y": how, "price": numbers, "promotion": others, "kind": others}
    )
    clean = tsar.tidy(doubled, duplicates=how)
    pd.testing.assert_frame_equal(
        _rows(clean.frame)[list(expected)], expected, check_dtype=False, check_categorical=False
    )
    assert clean.frame.dtypes["kind"] == frame.dtypes["kind"]
    assert clean.frame.dtypes["y"] == (np.float64 if how == "mean" else np.int64)
    notes = clean.notes.sort_values("id")
    assert notes[["id", "kind", "count", "handling"]].to_numpy().tolist() == [
        ["p0", "duplicate", 2, how],
        ["p1", "duplicate", 1, how],
        ["p2", "duplicate", 1, how],
    ]
    assert notes["first"].tolist() == [str(DAYS[3]), str(DAYS[5]), str(DAYS[0])]


def test_a_sum_leaves_missing_values_out_and_keeps_what_is_equal():
    days = list(DAYS[:4].repeat(2)) + [DAYS[3]]
    values = [np.nan, np.nan, np.nan, 2.0, 1.0, 2.0, 5.0, 5.0, 5.0]
    price = [0.1, 0.1, 1.0, 3.0, 2.0, np.nan, 0.1, 0.1, 0.1]
    frame = pd.DataFrame({"unique_id": "a", "ds": days, "y": values, "price": price})
    clean = tsar.tidy(frame, duplicates="sum", freq="D").frame
    np.testing.assert_array_equal(clean["y"], [np.nan, 2.0, 3.0, 15.0])
    # The mean of three times 0.1 is not 0.1.
    np.testing.assert_array_equal(clean["price"], [0.1, 2.0, 2.0, 0.1])


def test_times_are_the_same_however_they_are_written():
    days = ["2024-03-01", "2024-03-02 00:00:00", "2024-03-02", "2024-03-03"]
    stamps = [pd.Timestamp(day) for day in days]
    frame = pd.DataFrame({"unique_id": 7, "ds": pd.Series(stamps, dtype=object), "y": [1, 2, 3, 4]})
    assert tsar.tidy(frame, duplicates="sum").frame["y"].tolist() == [1, 5, 4]


def test_the_frame_is_left_as_it_is():
    frame = pd.concat([_sales(), _sales().iloc[[4]]], ignore_index=True).drop(index=[7])
    before = frame.copy()
    tsar.tidy(frame, duplicates="sum", gaps="zero", ended="extend")
    pd.testing.assert_frame_equal(frame, before)


# ------------------------------------------------------------------------ gaps


@pytest.mark.parametrize("gaps", ["zero", "mask"])
@pytest.mark.parametrize(
    "days",
    [
        DAYS,
        DAYS.strftime("%d/%m/%Y"),
        DAYS.astype(object),
        pd.date_range("2024-03-25", periods=20, tz="Europe/Berlin"),
        pd.date_range("2024-03-31", periods=20, freq="h", tz="Europe/Berlin"),
        pd.date_range("2024-01-31", periods=20, freq="ME"),
        pd.period_range("2024-01", periods=20, freq="M"),
        pd.Index(np.arange(0, 100, 5)),
    ],
    ids=["days", "text", "objects", "zone", "hours", "months", "periods", "integers"],
)
def test_missing_rows_equal_the_reindexed_frame(gaps, days):
    frame = _sales(days=days)
    kept = frame.drop(index=[2, 3, 27, 45])
    clean = tsar.tidy(kept.sample(frac=1, random_state=0), gaps=gaps)
    assert clean.frame.dtypes["ds"] == frame.dtypes["ds"]
    expected = kept.set_index(["unique_id", "ds"])["y"].reindex(
        pd.MultiIndex.from_frame(frame[["unique_id", "ds"]])
    )
    found = clean.frame.set_index(["unique_id", "ds"])["y"].reindex(expected.index)
    np.testing.assert_array_equal(found, expected.fillna(0) if gaps == "zero" else expected)
    assert len(clean.frame) == len(frame)
    added = clean.frame[clean.frame["price"].isna()]
    assert len(added) == 4 and (gaps == "mask" or (added["y"] == 0).all())
    counts = clean.notes.set_index("id")["count"].to_dict()
    assert counts == {"p0": 2, "p1": 1, "p2": 1} and set(clean.notes["handling"]) == {gaps}


@pytest.mark.parametrize("gaps", ["zero", "mask"])
def test_an_estimator_reads_missing_rows_as_the_tidied_frame(gaps):
    frame = _sales().drop(index=[2, 3, 27, 45])
    options = {"horizon": 3, "context_length": 4, "max_epochs": 2, "random_state": 0}
    own = tsar.NLinear(**options, gaps=gaps).fit(frame).predict()
    clean = tsar.NLinear(**options).fit(tsar.tidy(frame, gaps=gaps).frame).predict()
    pd.testing.assert_frame_equal(own, clean)


def test_zeros_stand_for_rows_and_not_for_missing_values():
    frame = _sales(1).astype({"y": float}).drop(index=[2])
    frame.loc[5, "y"] = np.nan
    values = Panel.from_frame(frame, gaps="zero", target="y").values[:, 0]
    assert values[2] == 0 and np.isnan(values[5]) and np.isnan(values).sum() == 1


# ----------------------------------------------------------------------- ended


def _ended(days=DAYS):
    """Series 1 ends four days early, series 2 begins late."""
    frame = _sales(days=days)
    return frame.drop(index=[*range(36, 40), *range(40, 45)])


def test_ended_series_are_left_out_and_listed():
    clean = tsar.tidy(_ended(), ended="skip")
    assert clean.frame["unique_id"].unique().tolist() == ["p0", "p2"]
    (row,) = clean.status.itertuples()
    assert (row.id, row.status) == ("p1", "ended") and "4 steps" in row.reason
    assert str(DAYS[15]) in row.reason
    (note,) = clean.notes.itertuples()
    assert (note.kind, note.count, note.handling) == ("ended", 4, "skip")


def test_ended_series_are_forecast_from_their_end():
    clean = tsar.tidy(_ended(), ended="forecast")
    pd.testing.assert_frame_equal(clean.frame, _ended().reset_index(drop=True))
    assert clean.status.empty and clean.notes["handling"].tolist() == ["forecast"]
    result = tsar.Naive(horizon=1).fit(clean.frame).predict()
    assert result["ds"].tolist() == [DAYS[-1] + DAYS.freq, DAYS[16], DAYS[-1] + DAYS.freq]


@pytest.mark.parametrize("gaps", ["zero", "mask"])
def test_ended_series_go_on_to_the_last_time(gaps):
    clean = tsar.tidy(_ended().drop(index=[7]), ended="extend", gaps=gaps)
    assert clean.frame.groupby("unique_id")["ds"].max().eq(DAYS[-1]).all()
    added = clean.frame[(clean.frame["unique_id"] == "p1") & (clean.frame["ds"] > DAYS[15])]
    assert added["ds"].tolist() == DAYS[16:].tolist()
    assert added["y"].isna().all() if gaps == "mask" else added["y"].eq(0).all()
    assert clean.notes[["kind", "count"]].to_numpy().tolist() == [["ended", 4], ["gap", 1]]
    assert tsar.Naive(horizon=2).fit(clean.frame).predict()["ds"].nunique() == 2


def test_another_weekday_is_no_end():
    mondays, sundays = (
        pd.date_range("2024-01-01", periods=9, freq=f"W-{d}") for d in ("MON", "SUN")
    )
    frame = pd.concat(
        pd.DataFrame({"unique_id": name, "ds": days, "y": 1.0})
        for name, days in (("a", mondays), ("b", mondays), ("c", sundays))
    )
    frame = frame[frame["unique_id"] != "c"]
    late = pd.concat([frame, frame.iloc[[-1]].assign(ds=mondays[-1] + pd.Timedelta(days=7))])
    assert tsar.tidy(frame, ended="skip").status.empty
    assert tsar.tidy(late, ended="skip").status["id"].tolist() == ["a"]


def test_extend_needs_to_know_what_rows_hold():
    with pytest.raises(ParameterError, match="gaps must say what they hold, 'zero' or 'mask'"):
        tsar.tidy(_ended(), ended="extend")


# -------------------------------------------------------------------- trailing


def test_rows_without_a_target_at_the_end_are_the_future():
    frame = _sales().astype({"y": float})
    frame.loc[[18, 19, 38, 39, 58, 59, 50], "y"] = np.nan
    clean = tsar.tidy(frame.sample(frac=1, random_state=2), trailing="future")
    future = _rows(clean.future)
    pd.testing.assert_frame_equal(
        future, frame.loc[[18, 19, 38, 39, 58, 59]].drop(columns="y").reset_index(drop=True)
    )
    assert len(clean.frame) == 54 and clean.frame["y"].isna().sum() == 1
    options = {"horizon": 2, "context_length": 4, "max_epochs": 1, "random_state": 0}
    model = tsar.NLinear(**options, future_covariates="price").fit(clean.frame)
    assert model.predict(future=clean.future)["ds"].tolist() == DAYS[18:].tolist() * 3


# ------------------------------------------------------------------ quarantine


def _broken():
    frame = _sales(6).astype({"y": object, "ds": object})
    frame.loc[5, "y"] = "many"
    frame.loc[25, "ds"] = "soon"
    frame = frame.drop(index=[47, 48])
    return pd.concat([frame, frame.loc[[61]]], ignore_index=True)


def test_broken_series_are_set_aside_and_the_others_are_forecast():
    clean = tsar.tidy(_broken(), on_error="quarantine")
    found = dict(zip(clean.status["id"], clean.status["status"], strict=True))
    assert found == {"p0": "non-numeric", "p1": "timestamp", "p2": "gap", "p3": "duplicate"}
    assert "'many'" in clean.status["reason"].iloc[0]
    good = _sales(6).query("unique_id in ['p4', 'p5']")
    expected = tsar.Naive(horizon=2, target="y").fit(good).predict()
    result = tsar.Naive(horizon=2, target="y").fit(clean.frame).predict()
    np.testing.assert_array_equal(result["y"], expected["y"])
    # A policy mends what it is for.
    mended = tsar.tidy(_broken(), on_error="quarantine", duplicates="first", gaps="mask")
    assert mended.status["id"].tolist() == ["p0", "p1"]


def test_without_quarantine_all_faults_are_one_error():
    with pytest.raises(DataError) as caught:
        tsar.tidy(_broken(), target="y")
    assert set(caught.value.faults["kind"]) == {"non-numeric", "timestamp", "gap", "duplicate"}


def test_a_series_without_its_future_is_set_aside():
    frame = _sales()
    ahead = pd.date_range(DAYS[-1], periods=4)[1:]
    future = pd.DataFrame({"unique_id": np.repeat(["p0", "p2"], 3), "ds": np.tile(ahead, 2)})
    asked = {"future": future.assign(price=1.0), "future_covariates": "price", "horizon": 3}
    clean = tsar.tidy(frame, on_error="quarantine", **asked)
    assert clean.frame["unique_id"].unique().tolist() == ["p0", "p2"]
    assert "'price' is missing for id 'p1'" in clean.status["reason"].iloc[0]
    with pytest.raises(DataError, match="'price' is missing for id 'p1'"):
        tsar.tidy(frame, **asked)


def test_nothing_left_is_an_error_that_says_why():
    frame = pd.concat([_sales(1), _sales(1).iloc[[3]]])
    with pytest.raises(DataError, match="none of 1 series is left.*'p0': duplicate, count 1"):
        tsar.tidy(frame, on_error="quarantine")


@pytest.mark.parametrize(
    ("option", "choices"),
    [("duplicates", "'mean'"), ("gaps", "'zero'"), ("ended", "'skip'"), ("on_error", "'raise'")],
)
def test_unknown_policies_are_named(option, choices):
    with pytest.raises(ParameterError, match=f"tidy: {option} must be one of .*{choices}"):
        tsar.tidy(_sales(), **{option: "maybe"})


# ----------------------------------------------------------------------- forms


def test_the_form_of_the_data_comes_back():
    frame = _sales()[["unique_id", "ds", "y"]]
    kept = pd.concat([frame.drop(index=[7]), frame.loc[[9, 30]]])
    policies = {"duplicates": "first", "gaps": "zero"}
    expected = frame.assign(y=frame["y"].mask(frame.index == 7, 0))
    indexed = tsar.tidy(kept.set_index(["unique_id", "ds"]), **policies).frame
    pd.testing.assert_frame_equal(
        indexed.sort_index(), expected.set_index(["unique_id", "ds"]), check_dtype=False
    )
    wide = frame.pivot(index="ds", columns="unique_id", values="y")
    found = tsar.tidy(pd.concat([wide.drop(index=DAYS[4]), wide.iloc[[6]]]), **policies).frame
    shown = wide.copy()
    shown.loc[DAYS[4]] = 0
    pd.testing.assert_frame_equal(found, shown, check_freq=False, check_column_type=False)
    series = tsar.tidy(wide["p0"].drop(index=DAYS[4]), **policies).frame
    pd.testing.assert_series_equal(series, shown["p0"], check_freq=False)


def test_several_columns_are_one_id():
    frame = _sales(4)
    parts = {"store": frame["unique_id"].isin(["p0", "p1"]).map({True: "N", False: "S"})}
    parts["item"] = frame["unique_id"].isin(["p1", "p3"]).astype("int16")
    two = frame.assign(**parts).drop(columns="unique_id")
    kept = pd.concat([two.drop(index=[7, 30]), two.iloc[[9]]])
    ids = ["store", "item"]
    clean = tsar.tidy(kept, id_column=ids, target="y", duplicates="first", gaps="zero")
    assert clean.frame.dtypes["item"] == np.int16 and len(clean.frame) == len(two)
    assert set(clean.notes["id"]) == {("N", 0), ("N", 1)}
    model = tsar.SeasonalNaive(horizon=2, id_column=ids, target="y").fit(clean.frame)
    one = clean.frame.assign(unique_id=clean.frame["store"] + clean.frame["item"].astype(str))
    plain = tsar.SeasonalNaive(horizon=2, target="y").fit(one.drop(columns=ids)).predict()
    result = model.predict()
    assert result.dtypes["item"] == np.int16 and result.columns.tolist() == [*ids, "ds", "y"]
    np.testing.assert_array_equal(result["y"], plain["y"])
    assert (result["store"] + result["item"].astype(str)).tolist() == plain["unique_id"].tolist()


def test_ids_of_several_columns_are_saved_and_matched(tmp_path):
    frame = _sales(2).assign(store="N", item=lambda rows: rows["unique_id"].str[1:].astype(int))
    ids = ["store", "item"]
    options = {"horizon": 2, "context_length": 4, "max_epochs": 1, "random_state": 0}
    model = tsar.NLinear(**options, id_column=ids, target="y", future_covariates="price")
    model.fit(frame).save(tmp_path / "model")
    future = model.make_future_frame().assign(price=[1.0, 2.0, 3.0, 4.0])
    loaded = tsar.load(tmp_path / "model")
    expected = model.predict(future=future)
    pd.testing.assert_frame_equal(loaded.predict(future=future.iloc[::-1]), expected)
    backwards = frame.sort_values("item", ascending=False, kind="stable")
    found = loaded.predict(df=backwards, future=future)
    assert found["item"].tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(found["y"].iloc[[2, 3, 0, 1]], expected["y"], rtol=1e-6)


def test_a_missing_part_of_an_id_is_a_fault():
    frame = _sales(2).assign(store="N", item="x")
    frame.loc[3, "item"] = None
    with pytest.raises(DataError, match="id, count 1"):
        tsar.Naive(id_column=["store", "item"], target="y").fit(frame[:20])
    with pytest.raises(DataError, match="id_column: the frame has no column 'shop'"):
        tsar.Naive(id_column=["store", "shop"], target="y").fit(frame)


def test_few_days_of_the_future_are_read_as_the_data_were():
    days = pd.date_range("2024-01-01", periods=31).strftime("%d/%m/%Y")
    frame = pd.DataFrame({"unique_id": "a", "ds": days, "y": np.arange(31.0), "price": 1.0})
    options = {"horizon": 2, "context_length": 4, "max_epochs": 1, "random_state": 0}
    model = tsar.NLinear(**options, future_covariates="price").fit(frame)
    future = pd.DataFrame({"unique_id": "a", "ds": ["01/02/2024", "02/02/2024"], "price": 1.0})
    assert model.predict(future=future)["ds"].tolist() == future["ds"].tolist()
    # All of these could be the second day of a month.
    later = frame.iloc[:5].assign(ds=pd.date_range("2024-05-02", periods=5).strftime("%d/%m/%Y"))
    ahead = future.assign(ds=["07/05/2024", "08/05/2024"])
    assert model.predict(df=later, future=ahead)["ds"].tolist() == ahead["ds"].tolist()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"future_covariates": "price"}, "go together, got future_covariates='price' and horizon="),
        ({"horizon": 3}, "go together, got future_covariates=None and horizon=3"),
        ({"future_covariates": "price", "horizon": 3}, "neither was passed"),
    ],
)
def test_what_would_not_be_looked_at_is_refused(asked, message):
    frame = pd.DataFrame({"ds": pd.date_range("2024-01-01", periods=5), "y": 1.0, "price": 2.0})
    with pytest.raises(ParameterError, match=message):
        tsar.tidy(frame, **asked)
