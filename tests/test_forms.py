"""From a frame to a forecast in the same form: layout, names, dtypes, time zone, stamps."""

import datetime

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.exceptions import DataError
from tsar.forecasting import Naive, NLinear, SeasonalNaive

ROWS, SEASON, HORIZON = 60, 5, 7
START = "2024-02-20"


def _values(n_variates: int = 3, rows: int = ROWS, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(loc=10, size=(rows, n_variates))


def _wide(freq: str = "h", zone: str | None = None, n_variates: int = 3) -> pd.DataFrame:
    index = pd.DatetimeIndex(list(pd.date_range(START, periods=ROWS, freq=freq, tz=zone)))
    return pd.DataFrame(_values(n_variates), index=index, columns=["a", "b", "c"][:n_variates])


def _long(freq: str = "h", zone: str | None = None) -> pd.DataFrame:
    """Lay three series of different ends out one below the other."""
    wide = _wide(freq, zone)
    parts = [
        pd.DataFrame({"unique_id": name, "ds": wide.index, "y": wide[name].to_numpy()}).iloc[:rows]
        for name, rows in zip("abc", (ROWS, ROWS - 4, ROWS), strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def _seasonal(**options) -> SeasonalNaive:
    return SeasonalNaive(horizon=HORIZON, season_length=SEASON, **options)


def _linear(**options) -> NLinear:
    settings = {"context_length": 12, "horizon": HORIZON, "max_epochs": 1, "random_state": 3}
    return NLinear(**(settings | {"early_stopping": False, "device": "cpu"} | options))


def _repeated(values: np.ndarray) -> np.ndarray:
    """Repeat the last season, step by step."""
    return np.array([values[len(values) - SEASON + step % SEASON] for step in range(HORIZON)])


MODELS = {"SeasonalNaive": _seasonal, "NLinear": _linear}


# ----------------------------------------------------------------------- layout


def test_wide_in_wide_out():
    frame = _wide().rename_axis(index="when", columns="what")
    found = _seasonal().fit(frame).predict()
    assert list(found.index) == list(pd.date_range(START, periods=ROWS + 7, freq="h")[ROWS:])
    assert found.index.name == "when" and found.index.dtype == frame.index.dtype
    assert found.columns.equals(frame.columns) and found.columns.name == "what"
    assert (found.dtypes == "float64").all()
    np.testing.assert_array_equal(found.to_numpy(), _repeated(frame.to_numpy()))


def test_long_in_long_out():
    frame = _long()
    found = _seasonal().fit(frame).predict()
    assert list(found.columns) == ["unique_id", "ds", "y"] and (found.dtypes == frame.dtypes).all()
    assert found.index.equals(pd.RangeIndex(3 * HORIZON))
    for name, part in frame.groupby("unique_id"):
        forecast = found[found["unique_id"] == name]
        np.testing.assert_array_equal(forecast["y"], _repeated(part["y"].to_numpy()))
        expected = pd.date_range(part["ds"].iloc[-1], periods=HORIZON + 1, freq="h")[1:]
        assert list(forecast["ds"]) == list(expected)


def test_named_columns_of_a_long_frame():
    frame = _long().rename(columns={"unique_id": "shop", "ds": "day", "y": "sales"})
    frame = frame.assign(stock=frame["sales"] * 2, note="text")
    names = {"id_column": "shop", "time_column": "day", "target": ["sales", "stock"]}
    found = _seasonal(**names).fit(frame).predict()
    assert list(found.columns) == ["shop", "day", "sales", "stock"]
    np.testing.assert_array_equal(found["stock"], found["sales"] * 2)
    alone = _seasonal().fit(_long()).predict()
    np.testing.assert_array_equal(found["sales"], alone["y"])


def test_time_column_without_ids():
    frame = _wide().reset_index(names="ds")
    found = _seasonal().fit(frame).predict()
    assert list(found.columns) == ["ds", "a", "b", "c"]
    expected = _seasonal().fit(_wide()).predict()
    np.testing.assert_array_equal(found[["a", "b", "c"]], expected)
    assert list(found["ds"]) == list(expected.index)


def test_multiindex_in_multiindex_out():
    frame = _long().set_index(["unique_id", "ds"]).rename_axis(["shop", "day"])
    found = _seasonal().fit(frame).predict()
    expected = _seasonal().fit(_long()).predict().set_index(["unique_id", "ds"])
    assert found.index.names == ["shop", "day"] and list(found.columns) == ["y"]
    assert list(found.index) == list(expected.index)
    np.testing.assert_array_equal(found["y"], expected["y"])


@pytest.mark.parametrize("name", ["load", None, 3, ("a", 1)])
def test_series_in_series_out(name):
    series = _wide()["b"].rename(name).rename_axis("when")
    found = _seasonal().fit(series).predict()
    assert isinstance(found, pd.Series) and found.name == name and found.index.name == "when"
    np.testing.assert_array_equal(found, _repeated(series.to_numpy()))


def test_series_of_many_ids():
    series = _long().set_index(["unique_id", "ds"])["y"].rename("sales")
    found = _seasonal().fit(series).predict()
    assert isinstance(found, pd.Series) and found.name == "sales"
    assert found.index.names == ["unique_id", "ds"] and len(found) == 3 * HORIZON


def test_one_column_frame_stays_a_frame():
    found = _seasonal().fit(_wide(n_variates=1)).predict()
    assert isinstance(found, pd.DataFrame) and list(found.columns) == ["a"]


def test_range_index_is_integer_time():
    found = _seasonal().fit(_wide().reset_index(drop=True)).predict()
    assert found.index.tolist() == list(range(ROWS, ROWS + HORIZON))


@pytest.mark.parametrize(
    "labels", [[0, 1, 2], list(pd.date_range("2001", periods=3)), [1, "b", None]], ids=str
)
def test_any_labels(labels):
    frame = _wide().set_axis(labels, axis=1)
    for make in MODELS.values():
        found = make().fit(frame).predict(horizon=3)
        assert list(found.columns) == labels and found.columns.dtype == frame.columns.dtype
        again = make().fit(frame).predict(horizon=3, df=frame)
        pd.testing.assert_frame_equal(again, found)


def test_marks_do_not_hide_a_variate():
    frame = _wide().rename(columns={"b": "extrapolated"})
    found = _seasonal().fit(frame).predict(horizon=9)
    expected = _seasonal().fit(_wide()).predict(horizon=9)
    np.testing.assert_array_equal(found["extrapolated"], expected["b"])
    assert found["extrapolated_"].tolist() == [False] * 7 + [True] * 2


@pytest.mark.parametrize("model", MODELS)
def test_forms_agree(model):
    """The same numbers, however the series are laid out."""
    make = MODELS[model]
    long = _long()
    expected = make().fit(long).predict()["y"].to_numpy()
    indexed = long.set_index(["unique_id", "ds"])
    np.testing.assert_array_equal(make().fit(indexed).predict()["y"], expected)
    np.testing.assert_array_equal(make().fit(indexed["y"]).predict(), expected)
    names = {"id_column": "i", "time_column": "t", "target": "v"}
    renamed = long.set_axis(["i", "t", "v"], axis=1)
    np.testing.assert_array_equal(make(**names).fit(renamed).predict()["v"], expected)
    fitted = make().fit(long)
    for name, part in long.groupby("unique_id"):
        found = fitted.predict(df=part)["y"].to_numpy()
        place = list("abc").index(name)
        wanted = expected[place * HORIZON : (place + 1) * HORIZON]
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


# ----------------------------------------------------------------------- dtypes


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("Float32", "Float32"),
        ("Float64", "Float64"),
        ("int64", "float64"),
        ("uint8", "float64"),
        ("Int64", "float64"),
        ("object", "float64"),
    ],
)
@pytest.mark.parametrize("model", MODELS)
def test_dtype_of_the_forecast(model, dtype, expected):
    frame = (_wide() * 10).round().astype(dtype)
    found = MODELS[model]().fit(frame).predict()
    assert (found.dtypes == expected).all()
    plain = MODELS[model]().fit((_wide() * 10).round()).predict()
    np.testing.assert_allclose(found.astype("float64"), plain, rtol=1e-6)


def test_columns_of_different_dtypes():
    frame = _wide().astype({"a": "float32", "b": "Float64"})
    found = _seasonal().fit(frame).predict()
    assert found.dtypes.astype(str).tolist() == ["float32", "Float64", "float64"]


DAYS = pd.date_range(START, periods=ROWS, freq="D")
TIMES = {
    **{f"datetime64[{unit}]": DAYS.as_unit(unit) for unit in ("s", "ms", "us", "ns")},
    "text": pd.Index(DAYS.strftime("%Y-%m-%d")),
    "text objects": pd.Index(DAYS.strftime("%d.%m.%Y"), dtype=object),
    "string": pd.Index(DAYS.strftime("%Y%m%d"), dtype="string"),
    "dates": pd.Index(DAYS.date, dtype=object),
    "datetimes": pd.Index(DAYS.to_pydatetime(), dtype=object),
    "periods": DAYS.to_period("D"),
    "category": pd.CategoricalIndex(DAYS),
    **{kind: pd.Index(np.arange(5, 5 + ROWS), dtype=kind) for kind in ("int64", "int32", "Int64")},
    **{kind: pd.Index(np.arange(5, 5 + ROWS), dtype=kind) for kind in ("uint8", "uint32")},
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("times", TIMES)
def test_any_time_dtype_gives_the_same_forecast(times, model):
    wide = _wide("D")
    expected = MODELS[model]().fit(wide).predict()
    found = MODELS[model]().fit(wide.set_axis(TIMES[times], axis=0)).predict()
    np.testing.assert_array_equal(found.to_numpy(), expected.to_numpy())
    dtype = DAYS.dtype if times == "category" else TIMES[times].dtype
    assert found.index.dtype == dtype
    long = pd.DataFrame({"ds": TIMES[times], "y": wide["a"].to_numpy()})
    assert long["ds"].dtype == TIMES[times].dtype
    found = MODELS[model]().fit(long).predict()
    assert found["ds"].dtype == dtype
    ahead = pd.date_range(DAYS[-1], periods=HORIZON + 1, freq="D")[1:]
    if "int" in times.lower():
        assert found["ds"].tolist() == list(range(ROWS + 5, ROWS + 5 + HORIZON))
    elif times == "periods":
        assert list(found["ds"]) == list(ahead.to_period("D"))
    else:
        parsed = pd.to_datetime(found["ds"], **({"dayfirst": True} if "objects" in times else {}))
        assert list(parsed) == list(ahead)
        assert type(found["ds"].iloc[0]) is type(long["ds"].iloc[0])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "dtype", ["object", "str", "string", "category", "int64", "int32", "uint8", "Int64", "float64"]
)
def test_any_id_dtype_gives_the_same_forecast(dtype, model):
    frame = _long()
    expected = MODELS[model]().fit(frame).predict()
    numbers = "int" in dtype.lower() or dtype == "float64"
    ids = frame["unique_id"].map(
        {"a": 7, "b": 3, "c": 5} if numbers else {"a": "x", "b": "p", "c": "q"}
    )
    frame["unique_id"] = ids.astype(dtype)
    fitted = MODELS[model]().fit(frame)
    for found in (fitted.predict(), fitted.predict(df=frame)):
        np.testing.assert_array_equal(found["y"], expected["y"])
        assert found["unique_id"].dtype == frame["unique_id"].dtype
        assert found["unique_id"].tolist() == list(frame["unique_id"].unique().repeat(HORIZON))
    indexed = frame.set_index(["unique_id", "ds"])
    found = MODELS[model]().fit(indexed).predict()
    assert found.index.get_level_values(0).dtype == indexed.index.get_level_values(0).dtype


# ------------------------------------------------------------------- time zones


@pytest.mark.parametrize("form", ["wide", "long", "multiindex", "series", "text"])
def test_every_form_keeps_its_zone(form):
    zone = "Europe/Berlin"
    wide, long = _wide(zone=zone), _long(zone=zone)
    frames = {"wide": wide, "long": long, "series": wide["a"]}
    frames["multiindex"] = long.set_index(["unique_id", "ds"])
    frames["text"] = long.assign(ds=long["ds"].map(str).astype(object))
    found = _seasonal().fit(frames[form]).predict()
    if form in ("wide", "series"):
        times, given = found.index, wide.index
    elif form == "multiindex":
        times, given = found.index.get_level_values(1), frames[form].index.get_level_values(1)
    else:
        times, given = pd.Index(found["ds"]), pd.Index(frames[form]["ds"])
    assert times.dtype == given.dtype
    first = str(times[0]) if form == "text" else times[0]
    assert first == type(first)(long["ds"].iloc[ROWS - 1] + pd.Timedelta(hours=1))


@pytest.mark.parametrize("change", ["2024-03-31", "2024-10-27"])
@pytest.mark.parametrize("model", MODELS)
def test_hours_across_a_clock_change_equal_those_in_utc(model, change):
    start = pd.Timestamp(change, tz="Europe/Berlin") - pd.Timedelta(hours=ROWS)
    index = pd.date_range(start, periods=ROWS + 30, freq="h")
    frame = pd.DataFrame(_values(), index=index[:ROWS], columns=list("abc"))
    found = MODELS[model]().fit(frame).predict(horizon=30)
    assert list(found.index) == list(index[ROWS:])
    day = found.index.tz_localize(None).normalize() == pd.Timestamp(change)
    assert day.sum() == (23 if change == "2024-03-31" else 25)
    in_utc = MODELS[model]().fit(frame.tz_convert("UTC")).predict(horizon=30)
    np.testing.assert_array_equal(found.to_numpy(), in_utc.to_numpy())
    assert list(in_utc.index) == list(found.index)


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        ("Europe/Berlin", "2024-02-10"),
        ("Europe/Berlin", "2024-09-05"),
        ("America/Sao_Paulo", "2018-09-10"),
        ("Asia/Kolkata", "2024-02-10"),
    ],
)
def test_days_stay_at_local_midnight(zone, start):
    days = pd.date_range(start, periods=ROWS + 20, freq="D")
    local = days.tz_localize(zone, nonexistent="shift_forward")
    for rows in range(ROWS - 12, ROWS):
        frame = pd.DataFrame({"y": _values()[:rows, 0]}, index=local[:rows])
        found = _seasonal().fit(frame).predict(horizon=20)
        assert list(found.index) == list(local[rows : rows + 20])
        naive = _seasonal().fit(frame.set_axis(days[:rows], axis=0)).predict(horizon=20)
        np.testing.assert_array_equal(found["y"], naive["y"])


def test_mixed_zones_are_refused():
    frame = _long(zone="Europe/Berlin").astype({"ds": object})
    frame.loc[5, "ds"] = frame.loc[5, "ds"].tz_convert("UTC")
    with pytest.raises(
        DataError, match="SeasonalNaive: .*\n  id 'a': time zone, count 1, first at"
    ):
        _seasonal().fit(frame)
    fitted = _seasonal().fit(_wide(zone="Europe/Berlin"))
    for zone in (None, "UTC", "Asia/Kolkata"):
        with pytest.raises(
            DataError, match="time zone Europe/Berlin.*use tz_convert or tz_localize"
        ):
            fitted.predict(df=_wide(zone=zone))


# ------------------------------------------------- missing, shuffled, new, short


@pytest.mark.parametrize("model", MODELS)
def test_masked_gaps_equal_the_reindexed_frame(model):
    frame = _wide()
    kept = frame.drop(index=frame.index[[3, 20, 21, 22, 50]])
    expected = MODELS[model]().fit(kept.reindex(frame.index)).predict()
    found = MODELS[model](gaps="mask").fit(kept.sample(frac=1, random_state=0)).predict()
    pd.testing.assert_frame_equal(found, expected)
    fitted = MODELS[model](gaps="mask").fit(frame)
    pd.testing.assert_frame_equal(
        fitted.predict(df=kept), fitted.predict(df=kept.reindex(frame.index))
    )
    with pytest.raises(DataError, match=f"{model}: .*\n  the frame: gap, count 5, first at "):
        MODELS[model]().fit(kept)


@pytest.mark.parametrize("model", MODELS)
def test_shuffled_rows_give_the_same_forecast(model):
    frame = _wide()
    expected = MODELS[model]().fit(frame).predict()
    found = MODELS[model]().fit(frame.sample(frac=1, random_state=1)).predict()
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("model", MODELS)
def test_missing_values_never_reach_the_forecast(model):
    frame = _wide()
    rng = np.random.default_rng(8)
    frame = frame.mask(rng.random(frame.shape) < 0.4)
    frame.iloc[-9:, 1] = np.nan
    frame.iloc[:30, 2] = np.nan
    found = MODELS[model]().fit(frame).predict(horizon=20)
    assert np.isfinite(found[["a", "b", "c"]].to_numpy()).all()


@pytest.mark.parametrize("model", MODELS)
def test_bad_values_are_refused_before_training(model):
    frame = _wide()
    frame.iloc[4, 1] = np.inf
    stamp = str(frame.index[4])
    with pytest.raises(DataError, match=f"column 'b': infinite, count 1, first at {stamp}"):
        MODELS[model]().fit(frame)
    frame = _wide().astype({"b": object})
    frame.iloc[4, 1] = "broken"
    with pytest.raises(DataError, match=f"column 'b': non-numeric, count 1, first at {stamp}"):
        MODELS[model]().fit(frame)
    long = _long()
    long.loc[ROWS + 2, "y"] = -np.inf
    with pytest.raises(DataError, match="id 'b', column 'y': infinite, count 1"):
        MODELS[model]().fit(_long()).predict(df=long)
    series = _wide()["b"].rename("load")
    series.iloc[4] = np.inf
    with pytest.raises(DataError, match=f"the Series: infinite, count 1, first at {stamp}"):
        MODELS[model]().fit(series)
    with pytest.raises(DataError, match="no value is observed"):
        MODELS[model]().fit(_wide() * np.nan)


@pytest.mark.parametrize("model", MODELS)
def test_new_series_change_no_other_row(model):
    fitted = MODELS[model]().fit(_long())
    frame = _long()
    expected = fitted.predict(df=frame)
    stamps = pd.date_range("2024-02-21", periods=47, freq="h")
    values = np.random.default_rng(0).normal(size=47) * 1e5
    values[::3] = np.nan
    new = pd.DataFrame({"unique_id": "new", "ds": stamps, "y": values})
    for rows in (1, 2, 11, 47):
        found = fitted.predict(df=pd.concat([new.iloc[-rows:], frame]))
        pd.testing.assert_frame_equal(found.iloc[HORIZON:].reset_index(drop=True), expected)
        assert np.isfinite(found["y"]).all()
        alone = fitted.predict(df=new.iloc[-rows:])
        np.testing.assert_array_equal(alone["y"], found["y"][:HORIZON])


@pytest.mark.parametrize("model", MODELS)
def test_permuted_columns_permute_the_forecast(model):
    frame = _wide()
    fitted = MODELS[model]().fit(frame)
    expected = fitted.predict(df=frame)
    pd.testing.assert_frame_equal(
        fitted.predict(df=frame[["c", "a", "b"]]), expected[["c", "a", "b"]]
    )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_forecast_moves_with_the_data(model, scale):
    frame = _wide()
    expected = MODELS[model]().fit(frame).predict() * scale - 3 * scale
    found = MODELS[model]().fit(frame * scale - 3 * scale).predict()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("level", [0.1, 1e9, -1e-9, 0.0])
def test_constant_series_stay_constant(model, level):
    frame = _wide().assign(a=level)
    found = MODELS[model]().fit(frame).predict()
    np.testing.assert_allclose(found["a"], level, rtol=1e-6)


def test_frequency_is_asked_for():
    frame = _long().groupby("unique_id").head(2)
    with pytest.raises(
        DataError, match="Naive: freq cannot be inferred because no series has 3 rows"
    ):
        Naive(horizon=3).fit(frame)
    found = Naive(horizon=3, freq="h").fit(frame).predict()
    assert len(found) == 9
    found = Naive(horizon=3, freq=datetime.timedelta(hours=1)).fit(frame).predict()
    assert found["ds"].iloc[0] == frame["ds"].iloc[1] + pd.Timedelta(hours=1)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("zone", "freq"),
    [(None, "h"), ("Asia/Kolkata", "h"), (None, "MS"), (None, "B"), ("America/Sao_Paulo", "W-WED")],
)
def test_saved_models_write_the_same_form(model, zone, freq, tmp_path):
    import tsar

    for frame in (_wide(freq, zone), _long(freq, zone).astype({"unique_id": "category"})):
        fitted = MODELS[model]().fit(frame)
        fitted.save(tmp_path / "model")
        found, expected = tsar.load(tmp_path / "model").predict(), fitted.predict()
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    ("freq", "zone"),
    [("h", "Europe/Berlin"), ("D", None), ("W-WED", None), ("MS", None), ("B", "UTC")],
)
@pytest.mark.parametrize("squeeze", [False, True])
def test_an_index_that_states_its_frequency_comes_back_with_it(freq, zone, squeeze, tmp_path):
    index = pd.date_range("2024-03-18", periods=40, freq=freq, tz=zone)
    data = pd.DataFrame({"a": np.arange(40.0)}, index=index)
    data = data["a"] if squeeze else data
    model = tsar.Naive(horizon=3).fit(data)
    following = pd.date_range(index[-1], periods=4, freq=freq)[1:]
    model.save(tmp_path / "model")
    for fitted in (model, tsar.load(tmp_path / "model")):
        found = fitted.predict().index
        assert found.equals(following) and found.freq == index.freq
    # One that states nothing comes back so.
    silent = data.set_axis(pd.DatetimeIndex(index, freq=None))
    assert model.predict(df=silent).index.freq is None


def test_days_across_a_clock_change_have_a_frequency_only_if_pandas_says_so():
    index = pd.date_range("2024-03-01", periods=29, freq="D", tz="Europe/Berlin")
    found = tsar.Naive(horizon=4).fit(pd.Series(np.arange(29.0), index=index)).predict().index
    assert list(found.strftime("%m-%d %H")) == ["03-30 00", "03-31 00", "04-01 00", "04-02 00"]
    assert found.freq in (None, pd.offsets.Day())


@pytest.mark.parametrize("named", ["columns", "ids"])
def test_tuples_are_labels_of_one_level(named, tmp_path):
    days = pd.date_range("2024-01-01", periods=9, freq="D")
    labels = [("a", 1), ("b", 2)]
    if named == "columns":
        data = pd.DataFrame({"x": np.arange(9.0), "z": np.arange(9.0) + 50}, index=days)
        data.columns = pd.Index(labels, tupleize_cols=False)
        last = {labels[0]: 8.0, labels[1]: 58.0}
    else:
        ids = np.empty(18, dtype=object)
        ids[:] = labels[:1] * 9 + labels[1:] * 9
        data = pd.DataFrame({"unique_id": ids, "ds": [*days, *days], "y": np.arange(18.0)})
        last = {labels[0]: 8.0, labels[1]: 17.0}
    model = tsar.Naive(horizon=1).fit(data)
    model.save(tmp_path / "model")
    for forecast in (model.predict(), tsar.load(tmp_path / "model").predict(df=data)):
        assert forecast.columns.nlevels == 1
        row = forecast.iloc[0] if named == "columns" else forecast.set_index("unique_id")["y"]
        assert dict(zip(row.index, row, strict=True)) == last
