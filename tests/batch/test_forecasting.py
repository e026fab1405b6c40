"""Whole files are forecast as the Python API does, whatever some of their series are like."""

import json
import multiprocessing
import os
import re
import signal
import warnings

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.batch import forecast
from tsar.batch import forecasting as module
from tsar.batch.source import share_of_series
from tsar.exceptions import DataError, ParameterError
from tsar.training import on_epoch

HORIZON = 3
COLUMNS = ["unique_id", "ds", "y"]


def _series(name, n=40, level=0.0, freq="D"):
    days = pd.date_range("2024-01-01", periods=n, freq=freq).strftime("%Y-%m-%d %H:%M:%S")
    steps = np.arange(n)
    values = np.sin(steps / 3 + level) + level + 0.01 * steps
    return pd.DataFrame({"unique_id": name, "ds": days, "y": values})


def _panel(n_series=7):
    return pd.concat(
        [_series(f"s{k}", 30 + 2 * k, level=k) for k in range(n_series)], ignore_index=True
    )


def _broken():
    """One series for every way to be bad that a file can hold."""
    one_row = _series("one row", 1)
    nothing = _series("nothing").assign(y=np.nan)
    infinite, gap, doubled = _series("infinite"), _series("gap"), _series("doubled")
    infinite.loc[11, "y"] = np.inf
    gap = gap.drop(index=[9, 10])
    doubled = pd.concat([doubled, doubled.iloc[[4]]])
    words, unread = _series("words"), _series("unread")
    words["y"] = words["y"].astype(object)
    words.loc[2, "y"] = "many"
    unread["ds"] = unread["ds"].astype(object)
    unread.loc[5, "ds"] = "soon"
    return [
        *(one_row, nothing, infinite, gap, doubled, words, unread),
        _series("hourly", freq="h"),
    ]


KINDS = {
    "nothing": "no values",
    "infinite": "infinite",
    "gap": "gap",
    "doubled": "duplicate",
    "words": "non-numeric",
    "unread": "timestamp",
    "hourly": "frequency",
}


def _model(**params):
    options = {"horizon": HORIZON, "context_length": 12, "max_epochs": 2, "random_state": 0}
    return tsar.NLinear(**{**options, **params})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(frame, name):
    frame.to_parquet(name, index=False) if name.endswith("t") else frame.to_csv(name, index=False)


def _read(name):
    return pd.read_parquet(name) if name.endswith("t") else pd.read_csv(name)


@pytest.mark.parametrize("source", ["in.csv", "in.parquet"])
@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("block_rows", [10_000, 70])
def test_equals_the_python_api_bit_for_bit(source, out, block_rows, folder):
    panel = _panel()
    _write(panel, source)
    done = forecast(
        source, model=_model(), horizon=HORIZON, out=out, block_rows=block_rows, fit_rows=None
    )
    # As pandas reads it: older versions miss the last digit of some numbers of a text.
    read = _read(source).astype({"ds": panel["ds"].dtype})
    expected = _model().fit(read).predict(horizon=HORIZON, df=read)
    found = _read(out)
    assert found["status"].eq("ok").all() and list(found.columns) == [*COLUMNS, "status"]
    pd.testing.assert_frame_equal(
        found[COLUMNS], expected, check_dtype=False, check_exact=out.endswith("t"), rtol=1e-15
    )
    assert (done.n_series, done.n_failed, done.n_short) == (7, 0, 0)
    assert done.fitted_on == "7 of 7 series, 252 of 252 rows"
    assert sorted(os.listdir()) == sorted([source, out])


@pytest.mark.parametrize("source", ["in.csv", "in.parquet"])
def test_bad_series_are_set_aside_and_cost_the_others_nothing(source, folder):
    good = _panel()
    parts = [rows for _, rows in good.groupby("unique_id", sort=False)]
    bad = _broken()
    mixed = pd.concat([parts[0], *bad[:4], *parts[1:4], *bad[4:], *parts[4:]], ignore_index=True)
    if source.endswith("t"):
        mixed = mixed[mixed["unique_id"] != "words"].astype({"y": float})
    _write(mixed, source)
    alone = source.replace("in", "good")
    _write(good, alone)
    done = forecast(source, model=_model(), horizon=HORIZON, out="out.csv", report="r.json")
    forecast(alone, model=_model(), horizon=HORIZON, out="good_out.csv")
    found, alone = _read("out.csv"), _read("good_out.csv")
    ids = mixed["unique_id"].unique()
    assert len(found) == len(ids) * HORIZON
    assert found["unique_id"].tolist() == np.repeat(ids, HORIZON).tolist()
    kept = found[found["unique_id"].isin(good["unique_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, alone, check_exact=True)
    status = dict(zip(found["unique_id"], found["status"], strict=True))
    for name, kind in KINDS.items():
        if name in ids:
            assert status[name] == kind
            assert found.loc[found["unique_id"] == name, "y"].isna().all()
    assert status["one row"] == "short_history"
    # Steps after the last usable time, for those that have one on the grid.
    gap = found.loc[found["unique_id"] == "gap", "ds"]
    assert gap.tolist() == [f"2024-02-{day:02} 00:00:00" for day in (10, 11, 12)]
    report = json.loads((folder / "r.json").read_text())
    assert report["n_series"] == len(ids) and report["n_failed"] == done.n_failed
    assert report["n_ok"] == 7 and report["n_short_history"] == 1
    listed = {row["id"]: row for row in report["series"]}
    assert listed["infinite"]["reason"] == "infinite, count 1, first at 2024-01-12 00:00:00"
    assert set(listed) == set(ids) - set(good["unique_id"])


def test_intervals_are_passed_through(folder):
    _write(_panel(), "in.csv")
    model = _model(loss="gaussian")
    forecast("in.csv", model=model, out="out.csv", level=[80, 95])
    found = _read("out.csv")
    expected = _model(loss="gaussian").fit(_panel()).predict(df=_panel(), level=[80, 95])
    assert list(found.columns) == [*expected.columns, "status"]
    np.testing.assert_allclose(found["y_hi95"], expected["y_hi95"], rtol=1e-12)


ANY = {
    "SeasonalNaive": lambda: tsar.SeasonalNaive(horizon=HORIZON),
    "NLinear": _model,
    "no validation": lambda: _model(early_stopping=False),
    "AutoReg": lambda: tsar.AutoReg(horizon=HORIZON),
    "quantiles": lambda: _model(loss="quantile"),
}


@pytest.mark.parametrize("name", ANY)
def test_intervals_of_models_that_have_none(name, folder):
    """Fitted and calibrated on the file, as by hand."""
    panel = _panel()
    _write(panel, "in.parquet")
    done = forecast("in.parquet", model=ANY[name](), out="out.parquet", level=[90, 50])
    expected = ANY[name]().fit(panel).calibrate(panel, level=90, refit=True)
    intervals = expected.predict(df=panel, level=[90, 50])
    found = _read("out.parquet").drop(columns="status")
    pd.testing.assert_frame_equal(found, intervals, check_dtype=False)
    n_windows = expected.calibration_.counts
    assert done.calibrated_on == f"{n_windows.min()} to {n_windows.max()} windows, by step"
    assert done.to_json()["calibrated_on"] == done.calibrated_on
    # Asking for intervals does not change the forecast.
    plain = forecast("in.parquet", model=ANY[name]())
    assert plain.calibrated_on is None
    pd.testing.assert_frame_equal(plain.forecast[COLUMNS], found[COLUMNS])


def test_intervals_cover_series_in_the_sample_and_others(folder):
    """90 % intervals of a stationary panel cover 88 to 92 % at every step."""
    rng = np.random.default_rng(0)
    n_series, rows = 4000, 80
    values = np.zeros((n_series, 30 + rows + HORIZON))
    noise = rng.normal(size=values.shape)
    for step in range(1, values.shape[1]):
        values[:, step] = 0.7 * values[:, step - 1] + noise[:, step]
    values = values[:, 30:] * np.geomspace(0.1, 100, n_series)[rng.permutation(n_series), None]
    panel = pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(n_series), rows),
            "ds": np.tile(pd.date_range("2024-01-01", periods=rows), n_series),
            "y": values[:, :rows].ravel(),
        }
    )
    _write(panel, "in.parquet")
    found = forecast(
        "in.parquet", model=_model(batch_size=256), level=90, fit_rows=n_series * rows // 2
    )
    truth = values[:, rows:]
    low, high = (
        found.forecast[f"y_{end}90"].to_numpy().reshape(truth.shape) for end in ("lo", "hi")
    )
    inside = (low <= truth) & (truth <= high)
    sample = share_of_series(np.full(n_series, rows), n_series * rows // 2)
    assert found.fitted_on.startswith(f"{sample.sum()} of {n_series} series")
    for part in (sample, ~sample):
        assert (np.abs(inside[part].mean(axis=0) - 0.9) <= 0.02).all()


def test_saved_calibrations_are_used_and_missing_ones_are_an_error(folder):
    # Parquet: older pandas miss the last digit of some numbers of a text.
    panel = _panel()
    _write(panel, "in.parquet")
    model = _model().fit(panel[panel["unique_id"] < "s4"])
    model.save("plain")
    message = "needs a calibrated model.*save it again; a model that is not fitted is calibrated"
    for given in (model, "plain"):
        with pytest.raises(ParameterError, match=message):
            forecast("in.parquet", model=given, level=80)
    model.calibrate(panel).save("saved")
    done = forecast("in.parquet", model="saved", level=80, horizon=2)
    expected = model.predict(2, df=panel, level=80)
    np.testing.assert_array_equal(done.forecast["y_lo80"], expected["y_lo80"])
    with pytest.raises(ParameterError, match="calibrated for 3 steps, got horizon=4"):
        forecast("in.parquet", model="saved", level=80, horizon=4)


def test_too_few_rows_for_a_level(folder):
    _write(_series("a", 12), "in.csv")
    with pytest.raises(ParameterError, match="level=95 needs at least 19 windows"):
        forecast("in.csv", model="SeasonalNaive", horizon=2, level=95, out="out.csv")
    with pytest.raises(ParameterError, match="level=90 needs at least 9 windows .* there were 4"):
        forecast("in.csv", model=tsar.AutoReg(season_length=1), horizon=3, level=90, out="out.csv")
    assert os.listdir() == ["in.csv"]


def test_saved_models_forecast_what_they_never_saw(folder):
    model = _model().fit(_panel(3))
    model.save("saved")
    _write(_panel(), "in.parquet")
    done = forecast("in.parquet", model="saved", horizon=5, out="out.parquet", block_rows=80)
    expected = model.predict(horizon=5, df=_panel())
    found = _read("out.parquet")
    pd.testing.assert_frame_equal(found.drop(columns="status"), expected, check_dtype=False)
    assert done.fitted_on == "before"
    with pytest.raises(ParameterError, match="time_column must be .* as the NLinear was fitted"):
        forecast("in.parquet", model="saved", time_column="when", out="out.parquet")


def test_future_covariates_that_are_missing_cost_one_series(folder):
    panel = _panel(4).assign(price=lambda rows: rows["y"] * 2)
    model = _model(future_covariates="price", target=["y"])
    future = tsar.SeasonalNaive(horizon=HORIZON).fit(panel).make_future_frame()
    future["price"] = 1.5
    _write(future[future["unique_id"] != "s2"], "future.csv")
    _write(panel, "in.csv")
    done = forecast("in.csv", model=model, out="out.csv", future="future.csv")
    assert done.series["id"].tolist() == ["s2"]
    assert "'price' is missing for id 's2'" in done.series["reason"].iloc[0]
    found = _read("out.csv")
    assert found["y"].notna().sum() == 3 * HORIZON
    assert found.loc[found["unique_id"] == "s2", "ds"].notna().all()


def test_a_sample_is_fitted_where_the_file_is_long(folder):
    _write(_panel(), "in.csv")
    done = forecast("in.csv", model="SeasonalNaive", horizon=2, out="out.csv", fit_rows=80)
    assert re.fullmatch(r"[12] of 7 series, \d\d of 252 rows", done.fitted_on)
    assert done.n_failed == 0


def _killed_after(blocks):
    def stop(done, n_series):
        if done >= blocks:
            os.kill(os.getpid(), signal.SIGKILL)

    return stop


CALL = {"model": "NLinear", "horizon": HORIZON, "out": "out.csv", "block_rows": 70}
FAST = {"context_length": 12, "max_epochs": 2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_run_leaves_no_file_and_is_resumed(folder, monkeypatch):
    """The model is not fitted again, finished blocks are not forecast again, nothing is left."""
    _write(_panel(), "in.csv")
    fork = multiprocessing.get_context("fork")
    call = {**CALL, "params": FAST, "level": 80}
    process = fork.Process(target=lambda: forecast("in.csv", **call, on_progress=_killed_after(4)))
    with warnings.catch_warnings():
        # Python warns of forks beside threads; those of torch and of pytest hold no lock here.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert sorted(os.listdir()) == [".out.csv.parts", "in.csv"]
    kept = tsar.load(".out.csv.parts/model")
    with pytest.raises(ParameterError, match="its horizon was 3 and is 4; call it without resume"):
        forecast("in.csv", **{**call, "horizon": 4}, resume=True)
    steps = []
    done = forecast("in.csv", **call, resume=True, on_progress=lambda *step: steps.append(step))
    assert steps[0] == (4, 7) and steps[-1] == (7, 7)
    assert (done.n_series, done.fitted_on) == (7, "7 of 7 series, 252 of 252 rows")
    expected = kept.predict(df=_panel(), level=80)
    for column in ("y", "y_lo80", "y_hi80"):
        np.testing.assert_allclose(_read("out.csv")[column], expected[column], rtol=1e-12)
    assert done.calibrated_on == "34 to 48 windows, by step"
    assert sorted(os.listdir()) == ["in.csv", "out.csv"]


def test_without_resume_a_run_begins_anew(folder, monkeypatch):
    _write(_panel(), "in.csv")

    def stop(done, n_series):
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forecast("in.csv", **CALL, params=FAST, on_progress=stop)
    steps = []
    forecast("in.csv", **CALL, params=FAST, on_progress=lambda *step: steps.append(step))
    assert steps[0] == (0, 7)


def test_an_interrupted_fit_leaves_nothing(folder):
    _write(_panel(), "in.csv")

    def press(record):
        # As the interpreter does on Ctrl-C; a shell may have told it to take no such signal.
        raise KeyboardInterrupt

    for end in (1, 2):
        with on_epoch(lambda record, end=end: record["epoch"] == end and press(record)):
            with pytest.raises(KeyboardInterrupt):
                forecast("in.csv", **CALL, params=FAST)
        assert os.listdir() == ["in.csv"]


def test_output_of_before_stays_until_there_is_another(folder):
    _write(_panel(), "in.csv")
    (folder / "out.csv").write_text("before")
    with pytest.raises(ZeroDivisionError):
        forecast("in.csv", **CALL, params=FAST, on_progress=lambda done, n: 1 / (n - done - 3))
    assert (folder / "out.csv").read_text() == "before"


def test_a_folder_that_is_not_ours_is_left_alone(folder):
    _write(_panel(), "in.csv")
    (folder / ".out.csv.parts").mkdir()
    (folder / ".out.csv.parts" / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="is in the way; it was not made by tsar"):
        forecast("in.csv", **CALL, params=FAST)
    assert (folder / ".out.csv.parts" / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"source": "no.csv"}, DataError, "there is no file no.csv"),
        ({"source": "bad.parquet"}, DataError, "bad.parquet cannot be read as a table"),
        ({"out": "out.txt"}, DataError, "must end in .csv, .parquet or .xlsx"),
        ({"out": "in.csv"}, DataError, "is the file that is read"),
        ({"out": "in.csv/out.csv"}, DataError, "is no writable folder"),
        ({"report": "nowhere/r.json"}, DataError, "report nowhere/r.json cannot be written"),
        ({"model": "PatchTTS"}, ParameterError, "did you mean 'PatchTST'"),
        ({"level": 0}, ParameterError, "level must be percentages between 0 and 100"),
        ({"level": [80, 100]}, ParameterError, "level must be percentages between 0 and 100"),
        ({"quantiles": [0.3]}, ParameterError, "needs a model fitted for quantiles"),
        ({"horizon": 0}, ParameterError, "horizon must be an integer"),
        ({"block_rows": 0}, ParameterError, "block_rows must be an integer in"),
        ({"out": None, "resume": True}, ParameterError, "resume needs out="),
        ({"params": {"context_length": 0}}, ParameterError, "NLinear: context_length must be"),
        ({"model": _model(), "params": {"dropout": 1}}, ParameterError, "params are for a model"),
    ],
)
def test_faults_are_one_error_before_any_work(change, error, message, folder, monkeypatch):
    _write(_panel(), "in.csv")
    (folder / "bad.parquet").write_bytes(b"PAR1 and then nothing of the kind PAR1")
    monkeypatch.setattr(module.BlockForecaster, "fit", None)
    before = sorted(os.listdir())
    with pytest.raises(error, match=message):
        forecast(**{"source": "in.csv", **CALL, "params": FAST, **change})
    assert sorted(os.listdir()) == before


def test_all_bad_is_an_error_with_the_first_reason(folder):
    _write(pd.concat([_series("a").assign(y=np.inf)] * 2), "in.csv")
    with pytest.raises(DataError, match="none of 1 series can be forecast; the first one, 'a'"):
        forecast("in.csv", **CALL, params=FAST)


def test_one_series_without_ids_is_forecast_as_it_is(folder):
    frame = _series("a")[["ds", "y"]]
    _write(frame, "in.csv")
    done = forecast("in.csv", model=_model(), horizon=4)
    expected = _model(time_column="ds").fit(frame).predict(horizon=4)
    pd.testing.assert_frame_equal(done.forecast, expected)
    assert done.n_series == 1
    calibrated = forecast("in.csv", model=_model(), horizon=4, level=60)
    model = _model(time_column="ds").fit(frame).calibrate(frame, level=60, horizon=4)
    pd.testing.assert_frame_equal(calibrated.forecast, model.predict(4, level=60))
    assert calibrated.calibrated_on == "5 to 8 windows, by step"


# ---------------------------------------------------------------------- shards


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("block_rows", [100, 1_000_000])
def test_shards_one_after_the_other_are_the_single_run(folder, suffix, block_rows):
    # Among three parts, all of the second are bad.
    bad = [_series(f"bad{k}").assign(y=np.nan) for k in range(4)]
    halves = [[_series(f"{half}{k}", 30 + k, level=k) for k in range(4)] for half in "ab"]
    _write(pd.concat([*halves[0], *bad, *halves[1]], ignore_index=True), f"panel.{suffix}")

    def run(out, **options):
        return forecast(
            f"panel.{suffix}",
            model=_model(),
            out=out,
            level=80,
            block_rows=block_rows,
            **options,
        )

    whole = run(f"whole.{suffix}")
    done = [run(f"part{number}.{suffix}", shard=(number, 3)) for number in (1, 2, 3)]
    assert [one.n_series for one in done] == [4, 4, 4]
    assert [one.n_failed for one in done] == [0, 4, 0] and whole.n_failed == 4
    parts = [_read(f"part{number}.{suffix}") for number in (1, 2, 3)]
    pd.testing.assert_frame_equal(
        pd.concat(parts, ignore_index=True), _read(f"whole.{suffix}"), check_exact=True
    )


def test_shards_of_covariates_known_ahead(folder):
    bad = _series("a bad one").assign(y=np.nan)
    panel = pd.concat([bad, _panel(3)], ignore_index=True).assign(price=1.0)
    model = _model(future_covariates="price").fit(panel[panel["unique_id"] != "a bad one"])
    _write(panel, "panel.csv")
    ahead = model.make_future_frame(df=panel.fillna({"y": 0.0})).assign(price=2.0)
    _write(ahead, "future.csv")
    model.save("model")
    options = {"model": "model", "future": "future.csv", "block_rows": 50}
    whole = forecast("panel.csv", **options).forecast
    parts = [forecast("panel.csv", **options, shard=(n, 4)).forecast for n in (1, 2, 3, 4)]
    pd.testing.assert_frame_equal(
        pd.concat(parts, ignore_index=True), whole, check_exact=True, check_dtype=False
    )
    assert set(parts[0]["status"]) == {"no values"} and len(parts[0]) == HORIZON


@pytest.mark.parametrize("shard", [(0, 2), (3, 2), (1, 2.0), (True, 2), 2, "1/2", (1, 2, 3)])
def test_shards_that_are_none(folder, shard):
    _write(_panel(2), "panel.csv")
    with pytest.raises(ParameterError, match="batch: shard must be a pair of integers such as"):
        forecast("panel.csv", model=_model(), shard=shard)


def test_shards_that_could_not_be_put_together(folder):
    _write(_panel(2), "panel.csv")
    with pytest.raises(ParameterError, match="same for every part, but random_state is None"):
        forecast("panel.csv", model=_model(random_state=None), shard=(1, 2))
    with pytest.raises(ParameterError, match="one part of 3, but there are 2 series"):
        forecast("panel.csv", model=_model(), shard=(1, 3))
    _write(_series("one").drop(columns="unique_id"), "one.csv")
    with pytest.raises(ParameterError, match="shard is for files of several series"):
        forecast("one.csv", model=_model(), shard=(1, 2))
    members = tsar.Ensemble(models=[_model(random_state=None), tsar.Naive()], horizon=HORIZON)
    with pytest.raises(ParameterError, match="but NLinear__random_state is None"):
        forecast("panel.csv", model=members, shard=(1, 2))
    assert sorted(path.name for path in folder.iterdir()) == ["one.csv", "panel.csv"]


@pytest.mark.parametrize("report", ["./panel.csv", "out.csv", "known.csv"])
def test_a_report_takes_no_place_of_another_file(folder, report):
    for name in ("panel.csv", "known.csv"):
        _write(_panel(2), name)
    before = (folder / "panel.csv").read_bytes()
    with pytest.raises(DataError, match="is the file of the data; write to another one"):
        forecast("panel.csv", model="Naive", out="out.csv", future="known.csv", report=report)
    assert (folder / "panel.csv").read_bytes() == before == (folder / "known.csv").read_bytes()


@pytest.mark.parametrize("role", ["id_column", "time_column", "target"])
def test_a_column_called_status_is_not_written_over(folder, role):
    own = {"id_column": "unique_id", "time_column": "ds", "target": "y"}
    _write(_panel(2).rename(columns={own[role]: "status"}), "panel.csv")
    with pytest.raises(DataError, match="'status' is the column that says"):
        forecast("panel.csv", model="Naive", horizon=2, **{**own, role: "status"})


@pytest.mark.parametrize("damage", ["part gone", "part cut", "facts cut"])
def test_a_damaged_part_is_made_again(folder, damage):
    _write(_panel(4), "panel.csv")
    options = {"model": _model(), "block_rows": 40}

    def stop(done, n_series):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forecast("panel.csv", out="out.csv", on_progress=stop, **options)
    part = folder / ".out.csv.parts" / "part-000000.csv"
    if damage == "part gone":
        part.unlink()
    else:
        cut = part if damage == "part cut" else part.with_suffix(".json")
        cut.write_bytes(cut.read_bytes()[:20])
    forecast("panel.csv", out="out.csv", resume=True, **options)
    forecast("panel.csv", out="whole.csv", **options)
    assert (folder / "out.csv").read_bytes() == (folder / "whole.csv").read_bytes()


@pytest.mark.parametrize("block_rows", [40, 1_000_000])
@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (["007", "7", "10"], str),
        (["1e5", "2", "3"], str),
        (["7", "-3", "0"], int),
        (["NA", "null", "nan"], str),
    ],
)
def test_ids_are_kept_as_they_are_written(folder, ids, kind, block_rows):
    panel = _panel(3)
    panel["unique_id"] = panel["unique_id"].map(dict(zip(["s0", "s1", "s2"], ids, strict=True)))
    _write(panel, "panel.csv")
    found = forecast("panel.csv", model="Naive", horizon=1, block_rows=block_rows).forecast
    assert found["unique_id"].tolist() == list(map(kind, ids))
    assert (found["status"] == "ok").all()


@pytest.mark.parametrize("block_rows", [40, 1_000_000])
def test_the_index_of_a_parquet_file_is_a_column(folder, block_rows):
    panel = _panel(3).assign(ds=lambda rows: pd.to_datetime(rows["ds"]))
    panel.to_parquet("plain.parquet", index=False)
    expected = forecast("plain.parquet", model="Naive", horizon=2).forecast
    for number, index in enumerate((["ds"], ["unique_id", "ds"])):
        panel.set_index(index).to_parquet(f"{number}.parquet")
        found = forecast(f"{number}.parquet", model="Naive", horizon=2, block_rows=block_rows)
        assert found.forecast[expected.columns].to_dict() == expected.to_dict()
    wide = panel.pivot(index="ds", columns="unique_id", values="y").dropna()
    wide.rename_axis(columns=None).to_parquet("wide.parquet")
    assert forecast("wide.parquet", model="Naive", horizon=2).forecast["s1"].notna().all()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_without_rows(folder, suffix):
    _write(_panel(1).iloc[:0], f"panel.{suffix}")
    with pytest.raises(DataError, match="has no rows"):
        forecast(f"panel.{suffix}", model="Naive", horizon=2)


@pytest.mark.parametrize(
    "wrong", [{"fit_rows": "all"}, {"block_rows": float("nan")}, {"model": tsar.Naive}]
)
def test_arguments_of_another_kind(folder, wrong):
    _write(_panel(1), "panel.csv")
    with pytest.raises(ParameterError, match=f"batch: {next(iter(wrong))} must be"):
        forecast("panel.csv", **{"model": "Naive", **wrong})


@pytest.mark.parametrize(("horizon", "context"), [(1, 9), (7, 14), (3, 5)])
def test_shards_of_short_contexts_are_the_single_run_to_the_bit(folder, horizon, context):
    draw, days = np.random.default_rng(0), pd.date_range("2024-01-01", periods=60)
    data = pd.concat(
        pd.DataFrame({"unique_id": f"s{number:02d}", "ds": days, "y": draw.normal(size=60)})
        for number in range(21)
    )
    data.to_parquet("many.parquet", index=False)
    params = {"context_length": context, "max_epochs": 1, "random_state": 0}
    options = {"model": "NLinear", "horizon": horizon, "params": params}
    whole = forecast("many.parquet", **options).forecast
    parts = [forecast("many.parquet", **options, shard=(n, 6)).forecast for n in range(1, 7)]
    together = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(together, whole, check_exact=True)
