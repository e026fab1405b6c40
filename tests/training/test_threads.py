import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import tsar
from tsar.forecasting import network_insight
from tsar.training import on_epoch, threads
from tsar.training.threads import working_threads

SMALL = 32


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data():
    values = np.random.default_rng(0).normal(size=(120, 2))
    return pd.DataFrame(values, index=pd.date_range("2024-01-01", periods=120, freq="h"))


CPU = torch.device("cpu")


def _large():
    return 100_000, nn.Linear(100, threads.SMALL // 100_000 // 100 + 1)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Let the machine be quiet, whatever else runs on it."""
    monkeypatch.setattr(threads, "CROWDED", 1e9)
    monkeypatch.setattr(threads, "_crowd", threads._Crowd())


def _in_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def _companions():
    return [one for one in threading.enumerate() if one.name == "tsar-companion"]


def test_small_work_has_one_thread_and_leaves_no_trace():
    for error in (None, KeyError, KeyboardInterrupt):
        try:
            with working_threads(nn.Linear(8, 8), SMALL, CPU):
                assert torch.get_num_threads() == 1
                assert _in_new_thread() == 2
                if error:
                    raise error
        except (KeyError, KeyboardInterrupt):
            pass
        assert torch.get_num_threads() == _in_new_thread() == 2
    assert not _companions()


def test_large_work_keeps_the_threads_of_the_caller(monkeypatch):
    values, network = _large()
    with working_threads(network, values, CPU):
        assert torch.get_num_threads() == 2 and not _companions()
    monkeypatch.setattr(threads, "is_crowded", lambda: True)
    with working_threads(network, values, CPU):
        assert torch.get_num_threads() == 2 and len(_companions()) == 1
        assert _in_new_thread() == 2
    assert not _companions()


@pytest.mark.parametrize("size", ["small", "large"])
def test_one_thread_stays_one(size):
    torch.set_num_threads(1)
    values, network = (SMALL, nn.Linear(8, 8)) if size == "small" else _large()
    with working_threads(network, values, CPU):
        assert torch.get_num_threads() == 1 and not _companions()
    assert torch.get_num_threads() == 1


def test_a_crowded_machine_is_waited_for_patiently(monkeypatch):
    used = iter([(0, 0), (1, 0.05), (2, 0.1), (3, 0.6), (4, 1.2), (5, 1.25)])
    monkeypatch.setattr(threads, "_schedule", lambda: next(used))
    monkeypatch.setattr(threads, "BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(threads, "CROWDED", 0.2)
    monkeypatch.setattr(threads, "_crowd", threads._Crowd())
    values, network = _large()
    with working_threads(network, values, CPU) as working:
        working.look()
        assert not _companions()
        working.look()
        assert len(_companions()) == 1
        working.look()
        assert len(_companions()) == 1
    assert not _companions()
    # What comes next knows it from the beginning, until it is over.
    with working_threads(network, values, CPU):
        assert len(_companions()) == 1
    with working_threads(network, values, CPU):
        assert not _companions()


@pytest.mark.skipif(not Path(threads.SCHEDULE_STATISTICS).exists(), reason="Linux tells, no other")
def test_the_system_tells_how_long_a_thread_waited():
    began = threads._schedule()
    own = time.thread_time()
    while time.thread_time() - own < 0.05:
        pass
    worked, waited = np.subtract(threads._schedule(), began)
    assert worked == pytest.approx(time.thread_time() - own, rel=0.2) and waited >= 0


def test_where_the_system_does_not_tell_nobody_waits_patiently(monkeypatch):
    monkeypatch.setattr(threads, "SCHEDULE_STATISTICS", "/nowhere")
    monkeypatch.setattr(threads, "BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(threads, "CROWDED", 0.2)
    monkeypatch.setattr(threads, "_crowd", threads._Crowd())
    assert not threads.is_crowded()


def test_few_numbers_are_forecast_by_one_thread_on_a_crowded_machine(data, monkeypatch):
    model = tsar.NLinear(context_length=24, horizon=4, max_steps=2, random_state=0, device="cpu")
    model.fit(data)
    seen = []
    model.module_.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    forecasts = []
    for crowded in (False, True):
        monkeypatch.setattr(network_insight, "is_crowded", lambda there=crowded: there)
        forecasts.append(model.predict())
    assert seen == [2, 1] and torch.get_num_threads() == 2
    pd.testing.assert_frame_equal(*forecasts, check_exact=True)


def test_fit_and_predict_work_with_one_thread_and_give_it_back(data):
    seen = []
    model = tsar.NLinear(
        context_length=24, horizon=4, max_epochs=2, random_state=0, device="cpu", batch_size=16
    )
    with on_epoch(lambda record: seen.append(torch.get_num_threads())):
        model.fit(data)
    assert set(seen) == {1} and torch.get_num_threads() == 2
    model.module_.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    model.forecast_windows(data, range(24, 116))
    assert set(seen) == {1} and torch.get_num_threads() == 2

    def fail(record):
        raise RuntimeError("stop")

    with on_epoch(fail), pytest.raises(RuntimeError, match="stop"):
        model.fit(data)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("work", ["fit", "predict"])
def test_a_thread_that_begins_while_another_sets_its_number_has_that_of_all(data, work):
    """For an instant, the number of one thread alone is that of threads to come."""
    model = tsar.NLinear(context_length=24, horizon=4, max_epochs=1, random_state=0).fit(data)
    counts = []

    def begin():
        model.fit(data) if work == "fit" else model.predict(df=data)
        counts.append(torch.get_num_threads())

    thread = threading.Thread(target=begin)
    with threads._lock:
        torch.set_num_threads(1)
        thread.start()
        thread.join(0.5)
        torch.set_num_threads(2)
    thread.join()
    assert counts == [2]


def test_fits_in_threads_leave_the_number_and_give_what_they_give_alone(data):
    def make():
        return tsar.NLinear(context_length=24, horizon=4, max_epochs=2, random_state=0)

    alone = make().fit(data).predict()
    found, counts = [], []

    def work():
        for _ in range(3):
            found.append(make().fit(data).predict())
        counts.append(torch.get_num_threads())

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert counts == [2, 2, 2] and torch.get_num_threads() == _in_new_thread() == 2
    for one in found:
        pd.testing.assert_frame_equal(one, alone, check_exact=True)


@pytest.mark.parametrize("name", ["NLinear", "PatchTST", "iTransformer"])
def test_a_forecast_does_not_depend_on_the_number_of_threads(name, data, monkeypatch):
    model = getattr(tsar, name)(context_length=24, horizon=4, max_steps=2, random_state=0)
    model.fit(data)
    frame = pd.concat(
        [data + place for place in range(60)], keys=range(60), names=["unique_id", "ds"]
    )
    found = []
    for small in (0, 2**62):
        monkeypatch.setattr(threads, "SMALL", small)
        found += [model.predict(df=frame), model.predict(df=frame.loc[[7]])]
    pd.testing.assert_frame_equal(found[0], found[2], check_exact=True)
    pd.testing.assert_frame_equal(found[1], found[3], check_exact=True)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_process_fits_and_forecasts():
    code = """
        import os, warnings
        import numpy as np, pandas as pd, torch
        import tsar
        warnings.simplefilter("ignore")
        torch.set_num_threads(2)
        torch.zeros(1 << 20).add_(1)
        data = pd.Series(np.arange(80.0) % 7, index=pd.date_range("2024-01-01", periods=80))
        model = tsar.NLinear(horizon=7, context_length=28, max_steps=2, random_state=0).fit(data)
        expected = model.predict(df=data)
        pid = os.fork()
        if pid == 0:
            try:
                torch.zeros(1 << 20).add_(1)
                assert torch.get_num_threads() == 1
                pd.testing.assert_series_equal(model.predict(df=data), expected)
                pd.testing.assert_series_equal(model.fit(data).predict(df=data), expected)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        assert torch.get_num_threads() == 2
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
