"""Fixtures for all tests. Nothing here touches the network."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs an accelerator where there is none."""
    if torch.accelerator.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no accelerator on this machine"))


@pytest.fixture(scope="session")
def published_data() -> Path:
    """Return the folder of published files; skip where it is not given."""
    folder = os.environ.get("TSAR_DATA")
    if not folder or not Path(folder, "ETT-small/ETTh1.csv").is_file():
        pytest.skip("TSAR_DATA names no folder with the published data sets")
    return Path(folder)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the error output pass for a terminal though it is captured: bars are drawn there only."""
    monkeypatch.setattr("tsar.progress.on_terminal", lambda: True)


@pytest.fixture
def wide() -> pd.DataFrame:
    """Return 211 hours of three variates: a daily wave, a trend, both and a little noise."""
    index = pd.date_range("2024-02-28", periods=211, freq="h")
    steps = np.arange(len(index))
    noise = np.random.default_rng(7).normal(scale=0.1, size=(len(index), 3))
    wave = np.sin(2 * np.pi * steps / 24)
    values = np.stack([5 * wave, 0.05 * steps, 100 + wave + 0.02 * steps], axis=1) + noise
    return pd.DataFrame(values, index=index, columns=["load", "trend", "price"])
