"""Engines that are installed, and files for them. Nothing here imports one before it is used."""

import importlib.util
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch

LIBRARY = {"ray": "ray", "dask": "distributed", "spark": "pyspark"}


@pytest.fixture(params=LIBRARY)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of an engine, one after the other."""
    library = LIBRARY[request.param]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed; make test-engines installs it")
    if request.param == "spark" and shutil.which("java") is None:
        pytest.skip("Spark takes a Java runtime; Debian has default-jre-headless")
    # Sessions of a test take the python3 of the path otherwise.
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    return request.param


@pytest.fixture
def panel(tmp_path, monkeypatch) -> pd.DataFrame:
    """Return 22 series, some of them bad; it is in `in.parquet`, in the current folder."""
    # As the workers, of which there is one for each core.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    days = pd.date_range("2024-01-01", periods=60)
    rng = np.random.default_rng(0)
    series = [
        pd.DataFrame({"unique_id": f"s{k:02}", "ds": days, "y": rng.normal(size=60).cumsum()})
        for k in range(20)
    ]
    series[1] = series[1].drop(index=[10])
    series.append(pd.DataFrame({"unique_id": "t nothing", "ds": days, "y": np.nan}))
    series.append(pd.DataFrame({"unique_id": "t short", "ds": days[:5], "y": 1.0}))
    frame = pd.concat(series, ignore_index=True)
    frame.to_parquet("in.parquet", index=False)
    yield frame
    torch.set_num_threads(threads)
