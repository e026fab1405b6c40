"""The commands of a nightly run."""

import json

import pytest

import tsar


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
