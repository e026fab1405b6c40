"""The commands of a nightly run."""

import json

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.evaluation import backtest
from tsar.monitoring import watch_model


@pytest.fixture
def model(wide, tmp_path):
    folder = tmp_path / "model"
    options = {"context_length": 24, "horizon": 6, "max_epochs": 2, "random_state": 0}
    tsar.NLinear(**options, device="cpu").fit(wide).save(folder)
    return folder


def test_describe_prints_what_the_python_api_says(model, run):
    code, out, errors = run("describe", model, "--json")
    assert (code, errors) == (0, "")
    held = json.loads(out)
    assert held == tsar.load(model).describe()
    code, out, errors = run("describe", model)
    assert (code, errors) == (0, "")
    assert held["manifest"]["fingerprint"] in out and out.startswith("NLinear\n")
    assert "best_epoch" in out and "context_length" in out


def test_describe_says_that_an_older_model_has_no_manifest(run, request):
    folder = request.config.rootpath / "tests" / "golden" / "1" / "seasonal_naive_months" / "model"
    code, out, _ = run("describe", folder)
    assert code == 0 and "saved by a version before there were any" in " ".join(out.split())


def test_describe_of_what_is_no_model_is_an_error(tmp_path, run):
    code, _, errors = run("describe", tmp_path)
    assert code == 1 and "is no saved model" in errors


@pytest.fixture(params=[0, 4], ids=["steady", "drifting"])
def rows(request, tmp_path):
    """Return a saved model, the file of what came after its fit, and whether that drifts."""
    index = pd.date_range("2024-01-01", periods=900, freq="h", name="when")
    df = pd.DataFrame({"load": np.random.default_rng(9).normal(size=900)}, index=index)
    df.iloc[750:] += request.param
    df = df.reset_index()
    tsar.Mean(horizon=6, time_column="when").fit(df[:600]).save(tmp_path / "mean")
    df[600:].to_csv(tmp_path / "new.csv", index=False)
    return tmp_path / "mean", tmp_path / "new.csv", request.param > 0


def test_monitor_exits_with_4_where_something_drifts(rows, run, tmp_path):
    model, new, drifts = rows
    code, out, errors = run("monitor", model, new, "--level", 80, "--json")
    assert (code, errors) == (4 if drifts else 0, "")
    report = watch_model(tsar.load(model), pd.read_csv(new), level=80)
    assert json.loads(out) == json.loads(report.table.to_json(orient="records"))
    code, out, _ = run("monitor", model, new, "--level", 80)
    assert code == (4 if drifts else 0) and "coverage 80" in out

    done = backtest(tsar.load(model), pd.read_csv(new), windows=50, level=80)
    done.to_csv(tmp_path / "done.csv", index=False)
    code, again, _ = run("monitor", tmp_path / "done.csv", "--against", model)
    assert code == (4 if drifts else 0) and again == out


def test_monitor_refuses_what_does_not_go_together(model, csv, run):
    code, _, errors = run("monitor", model)
    assert code == 1 and "tsar monitor MODEL DATA" in errors
    code, _, errors = run("monitor", csv, "--level", 80)
    assert code == 1 and "leave out the second file and --level" in errors
    code, _, errors = run("monitor", csv)
    assert code == 1 and "must have the columns id, cutoff, time, y" in errors
