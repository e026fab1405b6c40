"""Files that appear whole, and places that one run at a time writes to."""

import multiprocessing
import os
import re
import signal
import stat
import threading

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar import files
from tsar.batch import forecast
from tsar.batch.parts import write_json
from tsar.data.tables import write_table
from tsar.evaluation import compare
from tsar.exceptions import OutputInUseError
from tsar.training.checkpoint import Checkpoint
from tsar.training.state import Snapshot, TrainingState

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def _series(n=1):
    rng, days = np.random.default_rng(0), pd.date_range("2024-01-01", periods=40)
    parts = [
        pd.DataFrame({"unique_id": f"s{i}", "ds": days, "y": rng.normal(size=40)}) for i in range(n)
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(params=[0o022, 0o027, 0o077, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="no umask on this system")
def test_every_writer_leaves_the_permissions_to_the_umask(umask, tmp_path):
    frame = _series(3)
    net = tsar.NLinear(horizon=3, context_length=7, max_epochs=1, random_state=0).fit(frame)
    net.save(tmp_path / "model")
    net.save(tmp_path / "model")  # in the place of another one
    write_table(frame, tmp_path / "table.csv")
    write_table(frame, tmp_path / "table.parquet")
    write_json({"a": 1}, tmp_path / "report.json")
    left = Checkpoint(tmp_path / "training")
    left.write(Snapshot(TrainingState(), 1))
    compare({"naive": tsar.Naive(horizon=2)}, frame, windows=2, folder=tmp_path / "runs")
    forecast(
        tmp_path / "table.csv",
        model="Naive",
        horizon=2,
        out=tmp_path / "out.parquet",
        report=tmp_path / "batch.json",
    )
    found = [path for path in tmp_path.rglob("*")]
    assert len([path for path in found if path.is_file()]) >= 10
    for path in found:
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), files.whole_file(path) as unfinished:
        unfinished.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.txt"]


@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path):
    path = tmp_path / "a.txt"

    def killed():
        with files.whole_file(path) as unfinished:
            unfinished.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join(60)
    with files.whole_file(path) as mine:
        assert len(os.listdir(tmp_path)) == 2
        files.remove_unfinished(path)
        # That of a process that lives stays.
        assert os.listdir(tmp_path) == [mine.name]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_second_writer_is_told_who_writes(tmp_path):
    lock = tmp_path / "lock"
    with files.only_writer("here", tmp_path / "out", lock):
        told = []

        def other():
            try:
                with files.only_writer("there", tmp_path / "out", lock):
                    told.append("entered")
            except OutputInUseError as error:
                told.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    host, number = files.process_name().rsplit(":", 1)
    (message,) = told
    assert message.startswith(f"there: '{tmp_path / 'out'}' is being written by process {number} ")
    assert re.search(rf"on {re.escape(host)}, since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d", message)
    with files.only_writer("there", tmp_path / "out", lock):
        pass
    assert os.listdir(tmp_path) == []


@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["batch", "compare"])
def test_two_runs_of_one_output_do_not_mix(kind, tmp_path):
    """The second one is refused while the first works, also where that is killed later."""
    frame = _series(6)
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_table(frame, source)
    fork = multiprocessing.get_context("fork")
    working, go_on = fork.Event(), fork.Event()

    class Slow(tsar.Naive):
        def forecast(self, *args, **kwargs):
            working.set()
            assert go_on.wait(60)
            return super().forecast(*args, **kwargs)

    def run(model):
        if kind == "batch":
            return forecast(source, model=model, out=out, block_rows=80)
        return compare({"model": model}, frame, windows=2, folder=tmp_path / "runs")

    process = fork.Process(target=lambda: run(Slow(horizon=7)))
    process.start()
    assert working.wait(60)
    second = tsar.SeasonalNaive(horizon=7) if kind == "batch" else tsar.Naive(horizon=7)
    with pytest.raises(OutputInUseError, match=f"is being written by process {process.pid} on"):
        run(second)
    process.kill()
    process.join(60)
    run(second)
    left = {"in.csv", "out.csv"} if kind == "batch" else {"in.csv", "runs"}
    assert set(os.listdir(tmp_path)) == left
    if kind == "batch":
        expected = second.fit(frame).predict()
        np.testing.assert_array_equal(pd.read_csv(out)["y"], expected["y"])
    else:
        assert not [name for name in os.listdir(tmp_path / "runs") if name.startswith(".")]
