"""What became of series that were forecast, but not by the model that was asked for."""

import json

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.batch import forecast
from tsar.exceptions import DataWarning

HORIZON = 3


def _series(name, n=40):
    days = pd.date_range("2024-01-01", periods=n)
    values = np.sin(np.arange(n) / 3) + np.random.default_rng(n).normal(size=n)
    return pd.DataFrame({"unique_id": name, "ds": days, "y": values})


def _panel():
    return pd.concat([_series("s0"), _series("s1", 50)], ignore_index=True)


def _exploding(name):
    rows = _series(name, 60)
    rows.loc[rows.index[-2:], "y"] = 1e6
    return rows


def test_a_model_that_fails_on_a_series_is_told(tmp_path):
    pd.concat([_panel(), _exploding("bad"), _series("tiny", 4)]).to_csv(
        tmp_path / "in.csv", index=False
    )
    with pytest.warns(DataWarning, match="AutoReg: 2 of 4 models failed") as caught:
        done = forecast(
            tmp_path / "in.csv", model="AutoReg", horizon=HORIZON, report=tmp_path / "r.json"
        )
    assert len(caught) == 1
    status = done.forecast.groupby("unique_id")["status"].first()
    expected = {"bad": "fallback", "s0": "ok", "s1": "ok", "tiny": "short_history"}
    assert status.to_dict() == expected
    assert done.forecast["y"].notna().all() and done.forecast["y"].abs().max() <= 1e6
    assert (done.n_series, done.n_failed, done.n_short, done.n_fallback) == (4, 0, 1, 1)
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["n_ok"], report["n_fallback"]) == (2, 1)
    reasons = {row["id"]: row["reason"] for row in report["series"]}
    assert "far outside of the history" in reasons["bad"]


def test_warnings_of_all_blocks_come_once(tmp_path):
    parts = [_exploding(f"bad{place}") for place in range(3)]
    pd.concat([_panel(), *parts]).to_csv(tmp_path / "in.csv", index=False)
    fitted = tsar.AutoReg(horizon=HORIZON).fit(_panel())
    with pytest.warns(DataWarning, match=r"forecasts of 1 of 1 series .* \[given 3 times\]"):
        done = forecast(tmp_path / "in.csv", model=fitted, block_rows=60)
    assert done.n_fallback == 3
