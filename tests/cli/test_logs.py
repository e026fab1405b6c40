"""The error output as JSON, an object a line."""

import json
import logging

import pandas as pd

FAST = ["--set", "context_length=24", "--set", "max_epochs=2", "--set", "random_state=5"]
WARNING = ("warning", "message")


def _events(errors):
    return [json.loads(line) for line in errors.splitlines()]


def test_a_forecast_tells_its_epochs_and_its_end(csv, run):
    call = ["forecast", csv, "--model", "NLinear", "--horizon", 4, *FAST]
    _, plain, _ = run(*call)
    code, out, errors = run(*call, "--log", "json")
    assert (code, out) == (0, plain)
    events = _events(errors)
    assert [one["event"] for one in events] == ["begin", "epoch", "epoch", "end"]
    assert all({"time", "level", "event"} <= one.keys() for one in events)
    assert pd.to_datetime([one["time"] for one in events]).is_monotonic_increasing
    assert events[0]["command"] == "tsar forecast" and events[0]["options"]["horizon"] == 4
    assert [one["epoch"] for one in events[1:3]] == [1, 2] and events[1]["train_loss"] > 0
    assert events[-1]["exit_code"] == 0 and events[-1]["seconds"] > 0


def test_errors_and_warnings_are_objects_and_the_exit_code_stays(csv, tmp_path, run):
    code, out, errors = run("forecast", tmp_path / "no.csv", "--horizon", 4, "--log", "json")
    events = _events(errors)
    assert (code, out) == (1, "")
    assert [one["event"] for one in events] == ["begin", "message", "end"]
    assert events[1]["level"] == "error" and "no.csv" in events[1]["text"]
    assert events[-1]["exit_code"] == 1

    days = pd.date_range("2024-01-01", periods=30)
    good, bad = (pd.DataFrame({"unique_id": name, "ds": days, "y": 1.0}) for name in "ab")
    pd.concat([good, bad.drop(index=[4])]).to_csv(tmp_path / "two.csv", index=False)
    call = ["forecast", tmp_path / "two.csv", "--id", "unique_id", "--horizon", 2]
    code, _, errors = run(*call, "--model", "SeasonalNaive", "--log", "json")
    events = _events(errors)
    assert code == events[-1]["exit_code"] == 3
    assert any(
        "1 of 2 series" in one.get("text", "") for one in events if one["level"] == "warning"
    )


def test_the_logger_is_left_as_it_was(csv, run):
    logger = logging.getLogger("tsar")
    before = logger.level, logger.propagate, list(logger.handlers)
    run("forecast", csv, "--model", "Naive", "--horizon", 4, "--log", "json")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_other_forms_are_refused_and_text_is_the_default(csv, run):
    call = ["forecast", csv, "--model", "Naive", "--horizon", 4]
    code, _, errors = run(*call, "--log", "xml")
    assert code == 1 and "--log" in errors and "'xml'" in errors
    assert run(*call, "--log", "text") == run(*call)
