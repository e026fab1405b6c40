"""Files are forecast by the workers of an engine as by one process, to the bit."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tsar.batch import forecast
from tsar.exceptions import EngineError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

SCRIPT = Path(__file__).with_name("ending.py")
NETWORK = {
    "model": "NLinear",
    "params": {"context_length": 12, "max_epochs": 1, "random_state": 0},
    "level": 80,
}
# It is fitted inside of the workers, series by series.
LOCAL = {"model": "Theta"}


def _forecast(options, **others):
    return forecast("in.parquet", horizon=3, block_rows=300, **options, **others)


@pytest.mark.parametrize("options", [NETWORK, LOCAL], ids=["network", "local model"])
def test_forecast_and_report_are_those_of_one_process(engine, options, panel):
    here = _forecast(options)
    there = _forecast(options, engine=engine)
    pd.testing.assert_frame_equal(there.forecast, here.forecast, check_exact=True)
    told, expected = there.to_json(), here.to_json()
    del told["seconds"], expected["seconds"]
    assert told == expected
    assert {"ok", "gap", "no values", "short_history"} == set(there.forecast["status"])


def test_a_run_goes_on_with_another_engine(engine, panel):
    def stop(done, n_series):
        if done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _forecast(NETWORK, engine=engine, out="out.parquet", on_progress=stop)
    assert Path(".out.parquet.parts").is_dir() and not Path("out.parquet").exists()
    begun = []
    _forecast(
        NETWORK, out="out.parquet", resume=True, on_progress=lambda done, _: begun.append(done)
    )
    # What was finished is not forecast again.
    assert begun[0] > 0
    expected = _forecast(NETWORK).forecast
    pd.testing.assert_frame_equal(pd.read_parquet("out.parquet"), expected, check_exact=True)


@pytest.mark.parametrize("what", ["worker", "cluster"])
def test_what_is_killed_loses_nothing(engine, what, panel):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), engine, what], capture_output=True, text=True, check=False
    )
    # Ray writes of lost nodes before it.
    said = done.stdout.strip().rpartition("\n")[2]
    # Ray ends the process that called when the node on its own machine is gone.
    ended = engine == "ray" and what == "cluster" and done.returncode != 0
    assert ended or int(re.search(r"killed (\d+)", said)[1]) > 0, done.stderr
    options = {key: value for key, value in NETWORK.items() if key != "level"}
    if ended or said.startswith("EngineError"):
        assert what == "cluster", said
        assert ended or "resume=True" in said
        assert not Path("out.parquet").exists()
        again = {"out": "out.parquet", "resume": True}
        forecast("in.parquet", horizon=3, block_rows=120, **options, **again)
    found = pd.read_parquet("out.parquet")
    expected = forecast("in.parquet", horizon=3, block_rows=120, **options).forecast
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize("engine", ["ray", "dask"], indirect=True)
def test_a_cluster_that_is_not_there_is_an_error_before_any_work(engine, panel, monkeypatch):
    with contextlib.ExitStack() as stack:
        if engine == "ray":
            monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        else:
            import dask

            # What it makes of DASK_SCHEDULER_ADDRESS, which it reads but once.
            at = {"scheduler-address": "tcp://127.0.0.1:1"}
            stack.enter_context(dask.config.set(at | {"distributed.comm.timeouts.connect": "1s"}))
        with pytest.raises(EngineError, match="there is no (Ray|Dask) cluster"):
            _forecast(NETWORK, engine=engine, out="out.parquet")
    assert sorted(path.name for path in Path().iterdir()) == ["in.parquet"]


def test_a_cluster_of_the_caller_is_used_and_left_running(engine, panel):
    if engine == "ray":
        import ray

        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        try:
            there = _forecast(LOCAL, engine=engine)
            assert ray.is_initialized()
        finally:
            ray.shutdown()
    elif engine == "dask":
        import distributed

        with distributed.Client(n_workers=1, threads_per_worker=2, dashboard_address=None) as own:
            there = _forecast(LOCAL, engine=engine)
            assert own.status == "running"
    else:
        from pyspark.sql import SparkSession

        own = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
        session = own.getOrCreate()
        try:
            there = _forecast(LOCAL, engine=engine)
            assert session.range(2).count() == 2
        finally:
            session.stop()
    pd.testing.assert_frame_equal(there.forecast, _forecast(LOCAL).forecast, check_exact=True)
