"""Real engines forecast what one process forecasts: Ray, Dask and Spark on this machine.

`make test-engines` installs what these tests take.
"""

import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.batch import forecast, forecast_partitioned
from tsar.batch.engines.choosing import NEEDED
from tsar.exceptions import DataError, EngineError

pytestmark = [
    pytest.mark.slow,
    # Engines warn of the versions of each other, and leave sockets to their processes.
    pytest.mark.filterwarnings("default"),
]
FAST = {"context_length": 12, "max_steps": 5, "random_state": 0}
# Blocks of about two series.
BLOCK_ROWS = 70


@pytest.fixture(params=["ray", "dask", "spark"])
def engine(request):
    for library in NEEDED[request.param]:
        pytest.importorskip(library, reason=f"make test-engines installs tsar[{request.param}]")
    return request.param


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def panel(n_series=7, broken=True):
    rng = np.random.default_rng(0)
    frames = []
    for number in range(n_series):
        rows = 30 + 2 * number
        steps = np.arange(rows)
        frames.append(
            pd.DataFrame(
                {
                    "unique_id": f"s{number}",
                    "ds": pd.date_range("2024-01-01", periods=rows),
                    "y": np.sin(steps / 3) + number + rng.normal(size=rows) / 10,
                }
            )
        )
    if broken:
        frames[2].loc[5, "y"] = np.inf
        frames[4] = frames[4].drop(index=[9, 10])
    return pd.concat(frames, ignore_index=True)


def in_order(frame):
    return frame.sort_values(["unique_id", "ds"], ignore_index=True)


class DiesOnce(tsar.SeasonalNaive):
    """Kills the first worker that it forecasts in."""

    def forecast(self, *args, **kwargs):
        mark = Path(os.environ["TSAR_TEST_MARK"])
        if os.getpid() != int(os.environ["TSAR_TEST_PARENT"]) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forecast(*args, **kwargs)


@pytest.mark.parametrize(
    ("model", "params", "level"),
    [("SeasonalNaive", {}, 80), ("Theta", {}, None), ("NLinear", FAST, None)],
)
def test_files_are_forecast_to_the_bit(engine, model, params, level):
    panel().to_parquet("in.parquet")
    reports = {}
    for name in ("local", engine):
        reports[name] = forecast(
            "in.parquet",
            out=f"{name}.parquet",
            model=model,
            params=params,
            horizon=3,
            level=level,
            block_rows=BLOCK_ROWS,
            engine=name,
        )
    local, shared = (pd.read_parquet(f"{name}.parquet") for name in ("local", engine))
    pd.testing.assert_frame_equal(shared, local, check_exact=True)
    assert set(local["status"]) >= {"ok", "infinite", "gap"}
    pd.testing.assert_frame_equal(reports[engine].series, reports["local"].series)


def test_frames_of_the_engine_are_taken_and_returned(engine):
    data = panel()
    data.to_parquet("in.parquet")
    options = {"model": "NLinear", "params": FAST, "horizon": 3}
    forecast("in.parquet", out="local.parquet", block_rows=BLOCK_ROWS, **options)
    local = in_order(pd.read_parquet("local.parquet"))
    if engine == "ray":
        import ray

        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            frame = ray.data.from_pandas(data)
            ahead = forecast_partitioned(frame, block_rows=BLOCK_ROWS, **options)
            assert isinstance(ahead, ray.data.Dataset)
            ahead = ahead.to_pandas()
        finally:
            ray.shutdown()
    elif engine == "dask":
        import dask.dataframe as dd

        ahead = forecast_partitioned(dd.from_pandas(data, npartitions=3), **options)
        assert isinstance(ahead, dd.DataFrame)
        ahead = ahead.compute()
    else:
        from pyspark.sql import DataFrame, SparkSession

        session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        session = session.getOrCreate()
        try:
            frame = session.createDataFrame(data)
            ahead = forecast_partitioned(frame, block_rows=BLOCK_ROWS, **options)
            assert isinstance(ahead, DataFrame)
            ahead = ahead.toPandas()
        finally:
            session.stop()
    ahead = in_order(ahead)
    assert list(ahead["unique_id"]) == list(local["unique_id"])
    np.testing.assert_array_equal(ahead["y"].to_numpy(), local["y"].to_numpy())
    np.testing.assert_array_equal(ahead["status"].to_numpy(), local["status"].to_numpy())
    times = pd.to_datetime(ahead["ds"]).dt.tz_localize(None).to_numpy()
    assert (times.astype("datetime64[us]") == local["ds"].to_numpy("datetime64[us]")).all()


def test_a_killed_worker_loses_nothing(engine, folder, monkeypatch):
    data = panel(broken=False)
    data.to_parquet("in.parquet")
    monkeypatch.setenv("TSAR_TEST_MARK", str(folder / "killed"))
    monkeypatch.setenv("TSAR_TEST_PARENT", str(os.getpid()))
    model = DiesOnce(horizon=3, season_length=7).fit(data)
    forecast("in.parquet", out="out.parquet", model=model, block_rows=BLOCK_ROWS, engine=engine)
    assert (folder / "killed").exists()
    whole = tsar.SeasonalNaive(horizon=3, season_length=7).fit(data).predict()
    np.testing.assert_array_equal(pd.read_parquet("out.parquet")["y"], whole["y"])


def test_a_cluster_that_is_not_there_is_one_error(engine, folder, monkeypatch):
    panel().to_parquet("in.parquet")
    if engine == "ray":
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    elif engine == "dask":
        import dask

        monkeypatch.setitem(dask.config.config, "scheduler-address", "tcp://127.0.0.1:1")
        comm = dask.config.config.get("distributed", {}).get("comm", {})
        monkeypatch.setitem(comm.get("timeouts", {}), "connect", "1s")
    else:
        monkeypatch.setenv("JAVA_HOME", str(folder))
        monkeypatch.setenv("PATH", str(folder))
    before = sorted(os.listdir())
    with pytest.raises(EngineError, match="there is no"):
        forecast("in.parquet", out="out.parquet", model="SeasonalNaive", horizon=3, engine=engine)
    assert sorted(os.listdir()) == before


def test_wrong_frames_are_one_error(engine):
    with pytest.raises(DataError, match="must be a Ray Dataset, a Dask DataFrame or a Spark"):
        forecast_partitioned(panel(), model="SeasonalNaive", horizon=3)
