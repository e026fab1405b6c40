"""Frames of polars and pyarrow: the numbers of pandas, in the library that the data came in."""

import datetime
import decimal
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tsar
from tsar import batch, plot
from tsar.data.libraries import PANDAS, FrameLibrary, as_pandas, library_of
from tsar.evaluation import backtest, compare, measure
from tsar.exceptions import DataError, MissingExtraError, ParameterError, PersistenceError
from tsar.hierarchy import aggregate
from tsar.tuning import OptunaSearch

ROWS, HORIZON = 40, 4
DAYS = pd.date_range("2024-03-01", periods=ROWS, freq="D")


def _long(ids: str = "ab") -> pd.DataFrame:
    values = np.random.default_rng(5).normal(10, 2, (len(ids), ROWS)).round(3)
    return pd.DataFrame(
        {
            "unique_id": np.repeat(list(ids), ROWS),
            "ds": np.tile(DAYS, len(ids)),
            "y": values.reshape(-1),
        }
    )


def _arrow(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


class Stream:
    """A frame of a library that is neither: all it has is the protocol."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._table = _arrow(frame)

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


LIBRARIES = {
    "polars": (pl.from_pandas, pl.DataFrame),
    "pyarrow": (_arrow, pa.Table),
    "stream": (Stream, pd.DataFrame),
}
library = pytest.mark.parametrize("made, kind", LIBRARIES.values(), ids=LIBRARIES)
both = pytest.mark.parametrize("made", [pl.from_pandas, _arrow], ids=["polars", "pyarrow"])


def _seasonal(**options) -> tsar.SeasonalNaive:
    return tsar.SeasonalNaive(horizon=HORIZON, **options)


def _linear(**options) -> tsar.NLinear:
    settings = {"context_length": 8, "horizon": HORIZON, "max_epochs": 1, "random_state": 3}
    return tsar.NLinear(**settings, early_stopping=False, device="cpu", **options)


def _same(got, expected: pd.DataFrame) -> None:
    """Compare the numbers to the bit, and what they belong to."""
    got = as_pandas(got)
    assert list(got.columns) == list(expected.columns)
    for name in expected:
        assert got[name].tolist() == expected[name].tolist(), name


# ------------------------------------------------------------------ forecasts


@library
@pytest.mark.parametrize("model", [_seasonal, _linear], ids=["SeasonalNaive", "NLinear"])
def test_the_numbers_of_pandas_in_the_library_of_the_data(model, made, kind):
    frame = _long()
    reference = model().fit(frame)
    fitted = model().fit(made(frame))
    for steps in (HORIZON, 2 * HORIZON):
        forecast = fitted.predict(steps)
        assert isinstance(forecast, kind)
        _same(forecast, reference.predict(steps))
    later = _long("cd")
    for placed in ((made(later), 3), (3, made(later))):
        forecast = reference.predict(*placed)
        assert isinstance(forecast, kind)
        _same(forecast, reference.predict(3, later))
    assert fitted.score(made(frame)) == reference.score(frame)


@library
def test_intervals_samples_and_fitted_values(made, kind):
    frame = _long()
    reference = _seasonal().fit(frame).calibrate(frame)
    fitted = _seasonal().fit(made(frame)).calibrate(made(frame))
    for options in ({"level": [50, 80]}, {"samples": 3}):
        forecast = fitted.predict(**options)
        assert isinstance(forecast, kind)
        _same(forecast, reference.predict(**options))
    values = fitted.fitted_values(made(frame), horizon=1)
    assert isinstance(values, kind)
    _same(values, reference.fitted_values(frame, horizon=1))


def test_the_fit_says_what_predict_gives_and_df_what_it_gives():
    frame = _long()
    by_polars, by_pandas = _seasonal().fit(pl.from_pandas(frame)), _seasonal().fit(frame)
    assert isinstance(by_polars.predict(), pl.DataFrame)
    assert isinstance(by_polars.predict(df=frame), pd.DataFrame)
    assert isinstance(by_polars.predict(df=_arrow(frame)), pa.Table)
    assert isinstance(by_pandas.predict(df=pl.from_pandas(frame)), pl.DataFrame)
    assert isinstance(by_pandas.predict(), pd.DataFrame)


@both
def test_a_saved_model_knows_the_library(made, tmp_path):
    fitted = _seasonal().fit(made(_long()))
    fitted.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model").predict()
    assert loaded.equals(fitted.predict()) and isinstance(loaded, type(fitted.predict()))


@both
def test_future_covariates(made):
    frame = _long().assign(promotion=np.tile([0.0, 1.0, 0.0, 2.0], ROWS // 2))
    options = {"future_covariates": ["promotion"]}
    reference, fitted = _linear(**options).fit(frame), _linear(**options).fit(made(frame))
    asked = fitted.make_future_frame()
    assert isinstance(asked, type(made(frame)))
    expected = reference.make_future_frame()
    assert as_pandas(asked)["ds"].tolist() == expected["ds"].tolist()
    assert as_pandas(asked)["promotion"].isna().all()
    future = expected.assign(promotion=1.0)
    _same(fitted.predict(future=made(future)), reference.predict(future=future))
    # A future of another library than the data is read as well.
    _same(reference.predict(future=made(future)), reference.predict(future=future))


@both
def test_several_columns_of_the_id_and_other_names(made):
    frame = _long().rename(columns={"unique_id": "shop", "ds": "day", "y": "sold"})
    frame = frame.assign(item=np.repeat([7, 8], ROWS), note="unread")
    options = {"id_column": ["shop", "item"], "time_column": "day", "target": ["sold"]}
    forecast = _seasonal(**options).fit(made(frame)).predict()
    _same(forecast, _seasonal(**options).fit(frame).predict())
    assert as_pandas(forecast)["item"].dtype == np.int64


@both
def test_a_column_of_times_and_no_ids_is_a_frame_of_variates(made):
    frame = pd.DataFrame({"ds": DAYS, "a": np.arange(ROWS) % 7, "b": np.arange(ROWS) % 5})
    forecast = _seasonal().fit(made(frame)).predict()
    _same(forecast, _seasonal().fit(frame).predict())


# --------------------------------------------------------------------- dtypes

TIMES = {
    "ms": pl.Datetime("ms"),
    "us": pl.Datetime("us"),
    "ns": pl.Datetime("ns"),
    "zone": pl.Datetime("us", "Europe/Berlin"),
    "date": pl.Date,
    "text": pl.String,
    "integer": pl.Int32,
}
IDS = {
    "text": pl.String,
    "categorical": pl.Categorical,
    "enum": pl.Enum(["b", "z", "a"]),
}


def _times(dtype) -> pl.Series:
    if dtype == pl.Int32:
        return pl.Series("ds", range(ROWS), dtype=dtype)
    days = pl.Series("ds", DAYS.to_numpy())
    if dtype == pl.String:
        return days.dt.strftime("%Y-%m-%d")
    zone = getattr(dtype, "time_zone", None)
    return days.dt.replace_time_zone(zone).cast(dtype) if zone else days.cast(dtype)


@pytest.mark.parametrize("dtype", TIMES.values(), ids=TIMES)
def test_times_keep_their_type(dtype):
    frame = pl.DataFrame({"ds": _times(dtype), "y": np.arange(ROWS, dtype=float) % 7})
    forecast = _seasonal(season_length=7).fit(frame).predict()
    assert forecast.schema == frame.schema
    # The steps are the next ones, which polars counts by itself.
    if dtype == pl.String:
        expected = ["2024-04-10", "2024-04-11", "2024-04-12", "2024-04-13"]
        assert forecast["ds"].to_list() == expected
        return
    step = 1 if dtype == pl.Int32 else datetime.timedelta(days=1)
    last = frame["ds"].to_list()[-1]
    assert forecast["ds"].to_list() == [last + step * (one + 1) for one in range(HORIZON)]
    table = _seasonal(season_length=7).fit(frame.to_arrow()).predict()
    assert table.schema.types == frame.to_arrow().schema.types


@pytest.mark.parametrize("dtype", IDS.values(), ids=IDS)
def test_ids_keep_their_type(dtype):
    frame = pl.from_pandas(_long()).with_columns(pl.col("unique_id").cast(dtype))
    fitted = _seasonal().fit(frame)
    assert fitted.predict().schema == frame.schema
    assert fitted.predict()["unique_id"].cast(pl.String).to_list() == ["a"] * 4 + ["b"] * 4
    table = _arrow(_long())
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int16(), pa.large_string())):
        plain = table.column("unique_id").cast(pa.large_string())
        column = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain
        if pa.types.is_dictionary(kind):
            coded = column.combine_chunks()
            indices = coded.indices.cast(pa.int16())
            column = pa.DictionaryArray.from_arrays(indices, coded.dictionary)
        else:
            column = column.cast(kind)
        typed = table.set_column(0, "unique_id", column)
        assert _seasonal().fit(typed).predict().schema.field("unique_id").type == kind


def test_large_ids_beside_missing_ones_are_not_rounded():
    large = 2**53 + 1
    frame = pl.from_pandas(_long()).with_columns(
        pl.Series("unique_id", np.repeat([large, large + 1], ROWS), dtype=pl.Int64)
    )
    assert _seasonal().fit(frame).predict()["unique_id"].unique().sort().to_list() == [
        large,
        large + 1,
    ]
    broken = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 5).then(None).otherwise("unique_id").alias("unique_id")
    )
    with pytest.raises(DataError, match="id"):
        _seasonal().fit(broken)
    assert as_pandas(broken)["unique_id"].dropna().astype(int).tolist() == [
        *[large] * (ROWS - 1),
        *[large + 1] * ROWS,
    ]


VALUES = {
    "nullable integers": (pl.Int64, [1, None, 3], "Float64"),
    "unsigned": (pl.UInt8, [1, 2, 250], "Float64"),
    "decimals": (pl.Decimal(12, 2), [decimal.Decimal("0.10"), None, decimal.Decimal(3)], "Float64"),
    "float32": (pl.Float32, [0.1, None, 3.0], "Float32"),
    "null": (pl.Float64, [0.1, None, 3.0], "Float64"),
    "NaN": (pl.Float64, [0.1, float("nan"), 3.0], "Float64"),
}


@pytest.mark.parametrize("dtype, cycle, floats", VALUES.values(), ids=VALUES)
def test_values_are_read_as_they_are(dtype, cycle, floats):
    rows = 30
    values = pl.Series("y", cycle * (rows // 3), dtype=dtype)
    frame = pl.DataFrame({"ds": _times(pl.Date).head(rows), "y": values})
    forecast = _seasonal(season_length=3).fit(frame).predict(3)
    assert str(forecast["y"].dtype) == floats
    # A missing value is forecast by the season before, or not at all: null, and not NaN.
    exact = [None if one is None or one != one else float(one) for one in cycle]
    kept = [np.float32(one) if dtype == pl.Float32 else one for one in exact if one is not None]
    held = forecast["y"].to_list()
    assert [held[0], held[2]] == kept[:1] + kept[-1:]
    assert not any(one is not None and one != one for one in held)
    panel = tsar.Panel.from_frame(frame)
    missing = [one is None for one in exact] * (rows // 3)
    np.testing.assert_array_equal(np.isnan(panel.values[:, 0]), missing)


def test_truth_values_and_text_are_no_numbers():
    for values, dtype in (([True, None] * 5, pl.Boolean), (["1", "2"] * 5, pl.String)):
        frame = pl.DataFrame({"ds": range(10), "y": pl.Series(values, dtype=dtype)})
        with pytest.raises(DataError, match="non-numeric"):
            _seasonal().fit(frame)


def test_a_time_within_a_day_does_not_become_a_date():
    library = library_of(pl.DataFrame({"ds": pl.Series([datetime.date(2024, 1, 1)])}))
    noon = pd.DataFrame({"ds": pd.DatetimeIndex(["2024-01-01 12:00"])})
    midnight = pd.DataFrame({"ds": pd.DatetimeIndex(["2024-01-01", None])})
    assert library.restored(noon)["ds"].to_list() == [datetime.datetime(2024, 1, 1, 12)]
    assert library.restored(midnight)["ds"].to_list() == [datetime.date(2024, 1, 1), None]


def test_weights_are_columns_of_the_library():
    frame = _long()
    weight = pd.Series(np.linspace(0, 1, len(frame)))
    reference = _linear().fit(frame, sample_weight=weight).predict()
    for made in (pl.Series(weight.to_numpy()), pa.chunked_array([weight.to_numpy()])):
        got = _linear().fit(pl.from_pandas(frame), sample_weight=made).predict()
        _same(got, reference)


# ------------------------------------------------------------ other functions


@library
def test_backtests_measures_and_leaderboards(made, kind):
    frame = _long()
    options = {"windows": 3, "level": 80}
    expected = backtest(_seasonal(), frame, **options)
    got = backtest(_seasonal(), made(frame), **options)
    assert isinstance(got, kind)
    _same(got, expected)
    names = ["mae", "mase"]
    pd.testing.assert_frame_equal(
        measure(got, names, history=made(frame)), measure(expected, names, history=frame)
    )
    boards = [
        compare([_seasonal(), tsar.Naive(horizon=HORIZON)], data, windows=3).frame
        for data in (frame, made(frame))
    ]
    pd.testing.assert_frame_equal(*(board[["model", "mase", "mae", "rmse"]] for board in boards))


def test_a_folder_of_runs_is_that_of_the_same_data(tmp_path):
    frame = _long()
    first = compare([_seasonal()], pl.from_pandas(frame), windows=3, folder=tmp_path)
    again = compare([_seasonal()], pl.from_pandas(frame), windows=3, folder=tmp_path)
    assert first.frame["mase"].tolist() == again.frame["mase"].tolist()


@both
def test_tidy_and_events_answer_in_the_library(made):
    frame = _long().drop(index=[5, 50]).assign(y=lambda rows: rows["y"].round().astype(int))
    plain = tsar.tidy(frame, freq="D", gaps="mask")
    tidied = tsar.tidy(made(frame), freq="D", gaps="mask")
    assert isinstance(tidied.frame, type(made(frame)))
    got, expected = as_pandas(tidied.frame), plain.frame
    assert got["ds"].tolist() == expected["ds"].tolist()
    assert (
        got["y"].isna().sum() == 2 and got["y"].dropna().tolist() == expected["y"].dropna().tolist()
    )
    days = pd.DataFrame({"date": [DAYS[3]], "name": ["sale"]})
    marked = tsar.add_events(made(frame), made(days))
    assert isinstance(marked, type(made(frame)))
    _same(marked, tsar.add_events(frame, days))


@both
def test_hierarchies_answer_in_the_library(made):
    frame = _long().rename(columns={"unique_id": "shop"})
    _same(aggregate(made(frame), ["shop"]), aggregate(frame, ["shop"]))
    model = tsar.Reconciled(model=_seasonal(), groups=["shop"])
    fitted, reference = (model.__sklearn_clone__() for _ in range(2))
    fitted.fit(made(frame)), reference.fit(frame)
    for forecast in (fitted.predict(), reference.predict(df=made(frame))):
        assert isinstance(forecast, type(made(frame)))
        _same(forecast, reference.predict())
    assert isinstance(fitted.predict(df=frame), pd.DataFrame)
    base = reference.model_.predict()
    agreed = tsar.reconcile(made(base), ["shop"])
    _same(agreed, tsar.reconcile(base, ["shop"]))


def test_a_saved_hierarchy_knows_the_library(tmp_path):
    frame = pl.from_pandas(_long().rename(columns={"unique_id": "shop"}))
    fitted = tsar.Reconciled(model=_seasonal(), groups=["shop"]).fit(frame)
    fitted.save(tmp_path / "model")
    assert tsar.load(tmp_path / "model").predict().equals(fitted.predict())


@both
def test_searches_read_them(made):
    space = {"season_length": [3, 7]}
    frame = _long()
    searches = [
        OptunaSearch(_seasonal(), space, n_trials=2, windows=2, random_state=0).fit(data)
        for data in (made(frame), frame)
    ]
    assert searches[0].best_score_ == searches[1].best_score_
    _same(searches[0].predict(), searches[1].predict())


@both
def test_plots_draw_them(made):
    pytest.importorskip("matplotlib")
    frame = _long("a")
    forecast = _seasonal().fit(frame).predict()
    lines = [
        plot.forecast(predicted, history).get_lines()[1].get_ydata()
        for predicted, history in ((forecast, frame), (made(forecast), made(frame)))
    ]
    np.testing.assert_array_equal(*lines)
    assert len(plot.forecasts(made(frame), made(forecast))) == 1
    tested = backtest(_seasonal(), made(frame), windows=3, level=80)
    plot.backtest(tested, history=made(frame))
    plot.reliability(tested)
    plot.residuals(tested)
    plot.error_by_step(tested)


# --------------------------------------------------------------------- errors


def test_a_lazy_frame_is_refused_with_the_repair():
    lazy, fitted = pl.from_pandas(_long()).lazy(), _seasonal().fit(_long())
    calls = [
        lambda: _seasonal().fit(lazy),
        lambda: fitted.predict(lazy),
        lambda: fitted.predict(df=lazy),
        lambda: backtest(_seasonal(), lazy),
        lambda: compare([_seasonal()], lazy),
        lambda: tsar.tidy(lazy),
    ]
    for call in calls:
        with pytest.raises(DataError, match=r"LazyFrame of polars.*call \.collect\(\)"):
            call()


@pytest.mark.parametrize(
    "column", [pl.Series([1.0, 2.0]), pa.chunked_array([[1.0, 2.0]]), pa.array([1.0])]
)
def test_a_column_is_no_frame(column):
    with pytest.raises(DataError, match="must be a"):
        _seasonal().fit(column)


def test_without_an_index_the_times_have_to_be_named():
    frame = pl.from_pandas(_long()).rename({"unique_id": "shop", "ds": "day"})
    with pytest.raises(DataError, match="no index.*time_column=.*'shop', 'day', 'y'"):
        _seasonal().fit(frame)
    with pytest.raises(DataError, match="time_column: the frame has no column 'date'"):
        _seasonal(time_column="date", id_column="shop").fit(frame)
    with pytest.raises(DataError, match="no rows"):
        _seasonal().fit(pl.from_pandas(_long()).clear())
    twice = _arrow(_long()).append_column("y", pa.array(_long()["y"]))
    with pytest.raises(DataError, match="'y' occurs more than once"):
        _seasonal().fit(twice)


def test_faults_are_those_of_pandas():
    frame = _long().drop(index=[5])
    errors = []
    for data in (frame, pl.from_pandas(frame), _arrow(frame)):
        with pytest.raises(DataError, match="gap") as raised:
            _seasonal().fit(data)
        errors.append(str(raised.value))
    assert len(set(errors)) == 1


def test_more_arguments_by_place_than_there_are():
    with pytest.raises(ParameterError, match="by place"):
        _seasonal().fit(_long()).predict(pl.from_pandas(_long()), 1, None, None)


def test_missing_packages_name_their_extra(monkeypatch):
    frame, fitted = pl.from_pandas(_long()), _seasonal().fit(pl.from_pandas(_long()))
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda: _seasonal().fit(frame), fitted.predict):
        with pytest.raises(MissingExtraError, match=r"pip install 'tsar\[polars\]'"):
            call()
    with pytest.raises(MissingExtraError, match=r"pip install 'tsar\[arrow\]'"):
        FrameLibrary("pyarrow").restored(_long())
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs polars: pip install 'tsar\[polars\]'"):
        fitted.predict()


def test_damaged_types_are_noticed():
    for types in ("no base64", "AAAA", "8J+Yig=="):
        with pytest.raises(PersistenceError, match="types of the columns"):
            FrameLibrary("pyarrow", types).restored(_long())


def test_frames_of_pandas_are_left_alone():
    frame = _long()
    assert as_pandas(frame) is frame and as_pandas(frame["y"]) is not None
    assert library_of(frame) is PANDAS and PANDAS.restored(frame) is frame
    assert as_pandas("no frame") == "no frame"


def test_a_batch_reads_files_whatever_the_model_was_fitted_on(tmp_path):
    later = _long("xy").assign(y=lambda rows: rows["y"] + 1)
    broken = later.assign(y=["no number"] * ROWS + later["y"].iloc[ROWS:].astype(str).tolist())
    broken.to_csv(tmp_path / "later.csv", index=False)
    tables = []
    for data in (_long(), pl.from_pandas(_long())):
        fitted = _seasonal().fit(data)
        # The first block has no series that could be forecast.
        done = batch.forecast(tmp_path / "later.csv", model=fitted, block_rows=ROWS)
        assert done.n_failed == 1
        tables.append(done.forecast)
    pd.testing.assert_frame_equal(*tables)
