"""Blocks are mapped in their order, and what cannot be mapped is one clear error."""

import importlib.util
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from tsar.batch import forecast, forecast_partitioned
from tsar.batch.engines.engine import BLOCKS_PER_WORKER, Cluster
from tsar.batch.engines.splitting import BUCKET, rows_of_series, whole_series, with_bucket
from tsar.batch.engines.worker import packed, run_packed
from tsar.exceptions import (
    DataError,
    DataWarning,
    EngineError,
    MissingExtraError,
    ParameterError,
    warn,
)


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """Leave the threads of this process as they are: it is no worker."""
    monkeypatch.setattr("tsar.batch.engines.worker._use_one_thread", lambda: None)


@pytest.fixture
def source(tmp_path):
    days = pd.date_range("2024-01-01", periods=10).astype(str)
    path = tmp_path / "in.csv"
    pd.concat([pd.DataFrame({"unique_id": k, "ds": days, "y": 1.0}) for k in "ab"]).to_csv(
        path, index=False
    )
    return path


def _only_what_is_there(source):
    assert sorted(path.name for path in source.parent.iterdir()) == ["in.csv"]


def test_an_engine_that_does_not_exist_is_named_with_those_that_do(source):
    with pytest.raises(ParameterError, match="'local', 'ray', 'dask', 'spark', got 'rai'.*'ray'"):
        forecast(source, model="Naive", horizon=1, engine="rai", out=source.with_name("out.csv"))
    _only_what_is_there(source)


@pytest.mark.parametrize(
    "engine, library", [("ray", "ray"), ("dask", "distributed"), ("spark", "pyspark")]
)
def test_a_library_that_is_missing_is_an_error_before_any_work(
    engine, library, source, monkeypatch
):
    there = importlib.util.find_spec
    monkeypatch.delitem(sys.modules, library, raising=False)
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == library else there(name, *rest) or True,
    )
    out = source.with_name("out.csv")
    with pytest.raises(MissingExtraError, match=rf"{library}: pip install 'tsar\[{engine}\]'"):
        forecast(source, model="Naive", horizon=1, engine=engine, out=out)
    _only_what_is_there(source)


def test_a_frame_of_no_engine_says_what_it_is(source):
    with pytest.raises(DataError, match="Spark DataFrame, got a pandas.*a file is for"):
        forecast_partitioned(pd.read_csv(source), model="Naive", horizon=1)
    with pytest.raises(ParameterError, match="got a DataFrame; frames of Ray.*partitioned"):
        forecast(pd.read_csv(source), model="Naive", horizon=1)


def _cluster(threads, ahead):
    def submit(task):
        ahead["waiting"] += 1
        ahead["most"] = max(ahead["most"], ahead["waiting"])
        function = packed(([], packed(_square)))
        return threads.submit(run_packed, "square", lambda: function, task)

    def result(future):
        ahead["waiting"] -= 1
        return future.result()

    return Cluster("Threads", 2, submit, result, (OSError,))


def _square(number):
    if number == 3:
        warn("three", DataWarning)
    if number == 9:
        raise DataError("nine")
    return number * number


def test_results_come_in_order_and_few_blocks_are_read_ahead():
    ahead = {"waiting": 0, "most": 0}
    with ThreadPoolExecutor(2) as threads:
        results = _cluster(threads, ahead).map(iter([5, 4, 1, 2, 0, 7, 6, 8]))
        assert list(results) == [25, 16, 1, 4, 0, 49, 36, 64]
    assert ahead == {"waiting": 0, "most": 2 * BLOCKS_PER_WORKER}


def test_errors_and_warnings_of_a_worker_are_those_of_the_caller():
    with ThreadPoolExecutor(2) as threads:
        results = _cluster(threads, {"waiting": 0, "most": 0}).map([3, 9])
        with pytest.warns(DataWarning, match="three"):
            assert next(results) == 9
        with pytest.raises(DataError, match="^nine") as raised:
            next(results)
    # Where it happened is told, since the trace of another process is lost.
    assert "in _square" in "".join(raised.value.__notes__)


def test_a_cluster_that_ends_is_one_error_that_says_how_to_go_on():
    def gone(task):
        raise ConnectionError("the scheduler is gone\nand a long trace")

    cluster = Cluster("Threads", 2, gone, lambda future: b"", (OSError,))
    with pytest.raises(EngineError, match="Threads gave up .*scheduler is gone; .*resume=True"):
        list(cluster.map([1]))


def test_what_a_worker_cannot_import_is_said():
    missing = packed(([], b"cno_such_module_of_tsar\nThing\n."))
    results = []

    def work():
        results.append(run_packed("missing", lambda: missing, packed(1)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    cluster = Cluster("Threads", 1, lambda task: task, lambda task: results[0], (OSError,))
    with pytest.raises(EngineError, match="no_such_module_of_tsar.*on every machine"):
        list(cluster.map([1]))


def test_a_function_is_loaded_once_for_many_tasks():
    loads = []

    def content():
        loads.append(1)
        return packed(([], packed(_square)))

    for number in (1, 2, 4):
        run_packed("counted", content, packed(number))
    assert len(loads) == 1


@pytest.mark.parametrize("ids", [["id"], ["shop", "item"]])
@pytest.mark.parametrize("piece", [1, 3, 50])
def test_parts_hold_whole_series_whatever_the_pieces(ids, piece):
    lengths = [4, 1, 7, 20, 2, 2]
    number = np.repeat(np.arange(len(lengths)), lengths)
    frame = pd.DataFrame({name: number for name in ids}).assign(row=np.arange(len(number)))
    pieces = [frame.iloc[begin : begin + piece] for begin in range(0, len(frame), piece)]
    parts = list(whole_series(pieces, ids if len(ids) > 1 else ids[0], rows=6))
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), frame)
    in_parts = [part[ids[0]].unique().tolist() for part in parts]
    assert sum(map(len, in_parts)) == len(lengths)
    assert len(parts) > 1


def test_the_rows_of_a_series_have_one_bucket_in_every_piece():
    frame = pd.DataFrame({"shop": list("aabbcc"), "item": [1, 2, 1, 2, 1, 2]})
    frame = pd.concat([frame] * 5, ignore_index=True)
    parts = [with_bucket(part, ["shop", "item"], 4) for part in (frame[:13], frame[13:])]
    buckets = pd.concat(parts).groupby(["shop", "item"])[BUCKET]
    assert (buckets.nunique() == 1).all() and buckets.first().between(0, 3).all()
    wanted = pd.DataFrame({"shop": ["a", "c"], "item": [2, 1]})
    rows = rows_of_series(frame, wanted)
    assert len(rows) == 10 and set(zip(rows["shop"], rows["item"], strict=True)) == {
        ("a", 2),
        ("c", 1),
    }
