"""What is done to the rows of a file before models read them, and what is said of it."""

import numpy as np
import pandas as pd
import pytest

import tsar

FAST = ["--set", "context_length=24", "--set", "max_epochs=2", "--set", "random_state=5"]


@pytest.fixture
def messy(tmp_path, monkeypatch):
    """Return a file of three products: doubled rows, a gap, and one that stopped."""
    monkeypatch.chdir(tmp_path)
    days = pd.date_range("2024-01-01", periods=60)
    frame = pd.DataFrame({"item": np.repeat(["a", "b", "c"], 60), "day": np.tile(days, 3)})
    frame["sold"] = np.random.default_rng(0).poisson(6, len(frame))
    frame = frame.drop(index=[4, 5, 70, *range(150, 180)])
    frame = pd.concat([frame, frame.loc[[9, 9, 20]]], ignore_index=True)
    frame.assign(day=frame["day"].dt.strftime("%d/%m/%Y")).to_csv("sales.csv", index=False)
    return frame


MESSY = ["--id", "item", "--time", "day", "--target", "sold", "--horizon", 3]
POLICIES = ["--duplicates", "sum", "--gaps", "zero", "--ended", "skip"]


def test_series_without_a_forecast_are_told_the_remedy(messy, run):
    code, _, errors = run("forecast", "sales.csv", *MESSY, "--model", "Naive", "--out", "f.csv")
    assert code == 3 and "2 of 3 series have no forecast" in errors
    assert "--duplicates sum" in errors and "--gaps zero" in errors
    code, _, errors = run(
        *("forecast", "sales.csv", *MESSY, "--model", "Naive", "--out", "f.csv", *POLICIES)
    )
    assert code == 0
    assert errors.splitlines() == [
        "Note: 3 doubled rows of 1 series (--duplicates sum)",
        "Note: 1 series ended before the others (--ended skip)",
        "Note: 3 missing rows of 2 series (--gaps zero)",
    ]
    written = pd.read_csv("f.csv")
    read = {"id_column": "item", "time_column": "day", "target": "sold"}
    clean = tsar.tidy(messy, **read, duplicates="sum", gaps="zero", ended="skip").frame
    expected = tsar.Naive(horizon=3, **read).fit(clean).predict()
    assert written["item"].unique().tolist() == ["a", "b"]
    np.testing.assert_array_equal(written["sold"], expected["sold"])


def test_ended_series_are_noted_unless_a_policy_says_what_to_do(messy, run):
    options = ["--duplicates", "first", "--gaps", "mask", "--out", "f.csv", "--model", "Naive"]
    _, _, errors = run("forecast", "sales.csv", *MESSY, *options)
    assert "1 of 3 series begin at another time than most" in errors and "--ended skip" in errors
    _, _, errors = run("forecast", "sales.csv", *MESSY, *options, "--ended", "extend")
    assert "another time" not in errors
    assert pd.read_csv("f.csv")["day"].nunique() == 3


@pytest.mark.parametrize("command", ["backtest", "tune"])
def test_backtest_and_tune_read_by_the_same_policies(messy, run, command):
    model = ["--model", "NLinear", *FAST, "--windows", 2]
    model += ["--trials", 1, "--space", "dropout=0,0.1"] if command == "tune" else []
    model = model if command == "backtest" else [*model[:-1], "learning_rate=1e-3,1e-2"]
    code, printed, errors = run(command, "sales.csv", *MESSY, *model, "--on-error", "raise")
    assert (code, printed) == (1, "") and "--duplicates sum" in errors and "left out" not in errors
    code, printed, errors = run(command, "sales.csv", *MESSY, *model, *POLICIES)
    assert code == 0, errors
    assert "Note: 3 doubled rows" in errors and "'c' is left out, ended" in errors
    code, printed, errors = run(command, "sales.csv", *MESSY, *model, "--gaps", "mask")
    assert code == 3 and printed
    assert errors.splitlines()[-4:-1] == [
        "Warning: 1 of 3 series cannot be read and are left out:",
        "  'a': duplicate, count 3, first at 10/01/2024",
        "how to repair:",
    ]
    assert "--duplicates sum" in errors.splitlines()[-1]


def test_events_of_a_file(messy, run, tmp_path):
    (tmp_path / "events.csv").write_text("date,name\n10/01/2024,fair\n01/03/2024,fair\n")
    options = ["--model", "NLinear", *FAST, *POLICIES, "--events", "events.csv"]
    code, _, errors = run("forecast", "sales.csv", *MESSY, *options, "--out", "f.csv")
    assert code == 0, errors
    code, _, errors = run(
        *("forecast", "sales.csv", *MESSY, "--model", "Naive", "--events", "events.csv")
    )
    assert code == 1 and "Naive takes no future covariates" in errors
    code, printed, errors = run("backtest", "sales.csv", *MESSY, *options, "--windows", 2)
    assert code == 0 and "NLinear" in printed, errors


def test_dates_of_events_are_written_as_the_times_or_in_a_form_of_their_own(run, tmp_path, messy):
    """Ids are integers in one file and text in the other; hours are in one of them only."""
    hours = pd.date_range("2024-01-01", periods=96, freq="h").strftime("%d/%m/%Y %H:%M")
    rows = pd.DataFrame({"item": np.repeat(["1", "b"], 96), "day": np.tile(hours, 2)})
    rows.assign(sold=np.tile(np.arange(96.0), 2)).to_csv("hours.csv", index=False)
    forecasts = []
    for dates in ("2024-01-02", "02/01/2024 00:00", "2024/01/02"):
        (tmp_path / "events.csv").write_text(f"date,name,item\n{dates},fair,1\n{dates},fair,1\n")
        options = ["--model", "NLinear", *FAST, "--events", "events.csv", "--out", "f.csv"]
        options += ["--time-format", "%d/%m/%Y %H:%M"]
        code, _, errors = run("forecast", "hours.csv", *MESSY, *options)
        assert (code, errors) == (0, "")
        forecasts.append(pd.read_csv("f.csv"))
    for other in forecasts[1:]:
        pd.testing.assert_frame_equal(other, forecasts[0])
    (tmp_path / "events.csv").write_text("date,name,item\n2024-01-02,fair,c\n")
    run("forecast", "hours.csv", *MESSY, *options)
    # The event of series 1 was seen there.
    moved = np.abs(pd.read_csv("f.csv")["sold"] - forecasts[0]["sold"])
    assert moved[:3].min() > 0


def test_ids_that_are_numbers_are_named_as_they_are_written(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    days = pd.date_range("2024-01-01", periods=60)
    rows = pd.DataFrame({"item": np.repeat([1, 2, 3], 60), "day": np.tile(days, 3)})
    rows = rows.assign(sold=np.arange(180.0)).drop(index=[5, *range(170, 180)])
    rows.to_csv("sales.csv", index=False)
    options = ["sales.csv", *MESSY, "--model", "Naive", "--ended", "skip"]
    code, _, errors = run("forecast", *options)
    assert code == 3 and "the first is 1: gap" in errors
    code, _, errors = run("backtest", *options, "--windows", 2)
    assert code == 3 and "\n  1: gap" in errors and "Note: 3 is left out, ended" in errors


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    """Return the options for a file of two stores that sell the same product."""
    monkeypatch.chdir(tmp_path)
    days = pd.date_range("2024-01-01", periods=30).strftime("%Y-%m-%d")
    frame = pd.DataFrame({"store": np.repeat(["n", "s"], 30), "product": "007"})
    frame = frame.assign(day=np.tile(days, 2), sold=37 * np.arange(60) % 11)
    frame.to_csv("sales.csv", index=False)
    return ["sales.csv", "--id", "store", "--id", "product", "--target", "sold", "--horizon", 2]


def test_several_options_of_the_id_are_one_id(pairs, run):
    code, printed, errors = run("forecast", *pairs, "--model", "SeasonalNaive")
    assert (code, errors) == (0, "")
    assert printed.splitlines() == [
        "store,product,day,sold,status",
        *("n,007,2024-01-31,4.0,ok", "n,007,2024-02-01,8.0,ok"),
        *("s,007,2024-01-31,3.0,ok", "s,007,2024-02-01,7.0,ok"),
    ]
    with open("recipe.toml", "w", encoding="utf-8") as recipe:
        recipe.write(
            'data = "sales.csv"\nid = ["store", "product"]\ntarget = "sold"\nhorizon = 2\n'
            'model = "SeasonalNaive"\n'
        )
    assert run("forecast", "--recipe", "recipe.toml") == (0, printed, "")


@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
def test_backtests_have_the_columns_of_the_id(pairs, run, out):
    code, _, errors = run("backtest", *pairs, "--model", "Naive", "--windows", 2, "--out", out)
    assert (code, errors) == (0, "")
    read = {"csv": lambda: pd.read_csv(out, dtype={"product": str})}
    written = read.get(out.split(".")[1], lambda: pd.read_parquet(out))()
    assert list(written.columns[:5]) == ["store", "product", "cutoff", "time", "step"]
    assert written["store"].tolist() == ["n"] * 4 + ["s"] * 4
    assert written["product"].unique().tolist() == ["007"]
    search = ["--space", "season_length=1,7", "--windows", 2, "--trials", 2]
    code, printed, errors = run("tune", *pairs, "--model", "SeasonalNaive", *search)
    assert (code, errors) == (0, "") and "--set season_length=" in printed


def test_a_date_and_a_clock_are_named_by_two_options(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    hours = pd.date_range("2024-01-13", periods=60, freq="h")
    frame = pd.DataFrame({"date": hours.strftime("%d/%m/%Y"), "clock": hours.strftime("%H:%M")})
    frame.assign(load=np.arange(60.0)).to_csv("load.csv", index=False)
    options = ["load.csv", "--target", "load", "--horizon", 2, "--model", "SeasonalNaive"]
    code, printed, errors = run("forecast", *options, "--time", "date", "--time", "clock")
    assert (code, errors) == (0, "")
    assert printed.splitlines() == [
        *("date,clock,load", "15/01/2024,12:00,36.0", "15/01/2024,13:00,37.0")
    ]
    code, _, errors = run("forecast", *options, "--time", "date")
    assert code == 1 and "name a second --time if the clock has a column of its own" in errors
    code, _, errors = run(
        *("backtest", *options, "--time", "date", "--time", "clock", "--windows", 2),
        *("--time-format", "%d/%m/%Y %H:%M", "--out", "out.csv"),
    )
    assert (code, errors) == (0, "")
    assert pd.read_csv("out.csv")["time"].tolist()[-1] == "15/01/2024 11:00"
