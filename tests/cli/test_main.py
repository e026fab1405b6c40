"""The command line says and does what the Python API does."""

import io
import re
import shlex

import numpy as np
import pandas as pd
import pytest
from rich.progress import Progress

import tsar
from tsar.data.datasets import dataset_names
from tsar.evaluation import recipe_names
from tsar.forecasting.registry import forecaster_names
from tsar.params.text import parse_parameters

FAST = ["--set", "context_length=24", "--set", "max_epochs=2", "--set", "random_state=5"]


@pytest.mark.parametrize("model", forecaster_names())
def test_forecast_equals_the_python_api_bit_for_bit(model, csv, tmp_path, run):
    cls = tsar.forecasting.registry.forecaster_class(model)
    trained = hasattr(cls, "partial_fit")
    out = tmp_path / "forecast.csv"
    # Few steps, and small: some of the networks are large by default.
    few = {"context_length": 24, "max_steps": 3, "random_state": 5} if trained else {}
    small = {"d_model": 16, "d_ff": 16, "n_steps": 2, "n_samples": 2}
    small |= {"time_limit": 1e-6, "max_terms": 1, "max_seasonal_terms": 0}
    few |= {name: value for name, value in small.items() if name in cls().get_params()}
    options = [part for name, value in few.items() for part in ("--set", f"{name}={value}")]
    code, _, errors = run(
        *("forecast", csv, "--model", model, "--horizon", 9, "--target", "price"),
        *("--out", out, *options),
    )
    assert (code, errors) == (0, "")

    model = cls(horizon=9, time_column="when", target=["price"], **few)
    expected = model.fit(pd.read_csv(csv)).predict(horizon=9)
    # pandas 2 reads some numbers as a neighbour of what is written.
    written = pd.read_csv(out, dtype=str)
    assert list(written.columns) == ["when", "price"]
    prices = written["price"].map(float)
    assert prices.to_numpy().tobytes() == expected["price"].to_numpy().tobytes()
    assert written["when"].tolist() == expected["when"].tolist()


def test_future_covariates_come_from_a_file(csv, wide, tmp_path, run):
    future = tmp_path / "future.csv"
    options = ["--model", "NLinear", "--target", "load", "--set", "future_covariates=price"]
    call = ["forecast", csv, "--horizon", 4, *options, *FAST]
    known = tsar.NLinear(
        horizon=4,
        time_column="when",
        target=["load"],
        future_covariates="price",
        context_length=24,
        max_epochs=2,
        random_state=5,
    ).fit(pd.read_csv(csv))
    rows = known.make_future_frame().assign(price=[99.0, 101.0, 100.0, 98.0])
    rows.to_csv(future, index=False)
    code, printed, errors = run(*call, "--future", future)
    assert (code, errors) == (0, "")
    found = pd.read_csv(io.StringIO(printed))
    np.testing.assert_allclose(found["load"], known.predict(future=rows)["load"])
    rows[:3].to_csv(future, index=False)
    for arguments in (call, [*call, "--future", future]):
        code, printed, errors = run(*arguments)
        assert code == 1 and not printed and "the future covariate 'price' is missing" in errors
    call = ["forecast", csv, "--model", "NLinear", "--horizon", 3, *FAST]
    code, printed, errors = run(*call, "--future", future)
    assert code == 1 and not printed and "future must be None for a model without" in errors


def test_forecast_has_real_future_stamps_and_named_columns(csv, wide, run):
    code, printed, _ = run("forecast", csv, "--model", "SeasonalNaive", "--horizon", 25)
    rows = [line.split(",") for line in printed.strip().splitlines()]
    assert code == 0 and rows[0] == ["when", *wide.columns]
    assert len(rows) == 26
    stamps = pd.DatetimeIndex([row[0] for row in rows[1:]])
    assert stamps.equals(
        pd.date_range(wide.index[-1], periods=26, freq="h")[1:].as_unit(stamps.unit)
    )
    assert float(rows[1][1]) == wide["load"].iloc[-24]


def test_forecast_of_several_series(tmp_path, run):
    days = pd.date_range("2024-01-01", periods=20).astype(str)
    parts = [
        pd.DataFrame({"shop": shop, "day": days, "sold": level})
        for shop, level in (("b", 3.0), ("a", 8.0))
    ]
    path = tmp_path / "shops.csv"
    pd.concat(parts).to_csv(path, index=False)
    code, printed, _ = run(
        *("forecast", path, "--model", "Naive", "--horizon", 2, "--id", "shop"),
        *("--time", "day", "--target", "sold"),
    )
    assert code == 0
    assert printed.splitlines() == [
        "shop,day,sold,status",
        *("b,2024-01-21,3.0,ok", "b,2024-01-22,3.0,ok"),
        *("a,2024-01-21,8.0,ok", "a,2024-01-22,8.0,ok"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "PatchTSM"], "did you mean 'PatchTST'"),
        (["--model", "PatchTST", "--set", "context_lenght=3"], "did you mean 'context_length'"),
        (["--set", "context_length=3"], "without --model it forecasts by AutoForecaster: name the"),
        (
            ["--model", "PatchTST", "--set", "context_length=0"],
            "must be an integer in [1, inf) or None, got 0",
        ),
        (["--target", "prize"], "'prize'"),
        (["--time", "day"], "'day'"),
    ],
)
def test_refused_forecast_is_one_line_and_writes_nothing(arguments, message, csv, tmp_path, run):
    out = tmp_path / "forecast.csv"
    code, printed, errors = run("forecast", csv, "--horizon", 3, "--out", out, *arguments)
    assert (code, printed) == (1, "")
    assert errors.startswith("Error: ") and message in errors and errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == [csv]


def test_folder_that_cannot_be_written_is_one_line(csv, tmp_path, run):
    (tmp_path / "file").touch()
    code, _, errors = run(
        *("forecast", csv, "--model", "Naive", "--horizon", 3, "--out", tmp_path / "file" / "f.csv")
    )
    assert code == 1 and errors.startswith("Error: ") and errors.count("\n") == 1


def test_refused_file_names_the_fault(csv, tmp_path, run):
    lines = csv.read_text().splitlines(keepends=True)
    csv.write_text("".join(lines[:50] + lines[51:]))
    code, _, errors = run("forecast", csv, "--model", "Naive", "--horizon", 3)
    assert code == 1 and "gap" in errors and "2024-03-01 01:00" in errors


PYTHON = re.compile(r"\bdf\b|\bpd\.|_column=|target=|dayfirst|freq='|gaps='|\.as\w+\(|the frame\b")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ("day,load\n01/02/2024,1\n01/03/2024,2\n01/04/2024,3", [], "--time-format, such as %d/%m"),
        ("day,load\n2024-01-01,1\n2024-01-02,2", [], "state it: --set freq=h"),
        ("day,load\n2024-01-01,1\n2024-01-02,2", ["--target", "lod"], "--target: the file has no"),
        ("day,load\n2024-01-01,1\n2024-01-02,2", ["--id", "shop"], "--id: the file has no column"),
        ("day,load\n2024-01-01,1\n2024-01-02,2", ["--time", "d"], "--time: the file has no column"),
        ("day,load\nmon,1\ntue,2", ["--time", "day"], "name its format with --time-format"),
        ("day,load\n1.5,1\n2.5,2", ["--time", "day"], "name its format with --time-format"),
        ("day,load\n20240131,1\n20240201,2\n20240202,3", ["--time", "day"], "--time-format %Y%m%d"),
        ("day\n2024-01-01\n2024-01-02", [], "name it with --target"),
        ("day,load\n", ["--time", "day"], "the file has no rows"),
        ("day,load\n2024-01-01,1\n2024-01-02,2\n2024-01-03,inf", [], "leave the cell empty"),
        ("day,load\n2024-01-01,1\n2024-01-02,2\n2024-01-02,2", ["--set", "freq=D"], "with --id if"),
        ("day,load\n2024-01-01,1\n2024-01-02,2\n2024-01-04,2", ["--set", "freq=D"], "--gaps mask"),
        ("day,load\n2024-01-01,1\n2024-01-02,x\n2024-01-03,2", [], "columns to forecast with --t"),
        (
            "day,load\n2024-01-01T00:00+01:00,1\n2024-01-02T00:00+01:00,2\n2024-01-03T00:00+02:00,2",
            [],
            "write all times with the same offset from UTC",
        ),
        (
            "day,load\n2024-01-01,1\n2024-01-02,2\nnever,2",
            [],
            "unparsable timestamp: repair or rem",
        ),
        (
            "day,load\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3",
            ["--future", "f.csv"],
            "--set future_covariates=",
        ),
    ],
)
def test_errors_name_options(rows, options, message, tmp_path, monkeypatch, run):
    """Who has a file and a shell cannot call the methods of a frame."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text(rows)
    (tmp_path / "f.csv").write_text(rows)
    code, printed, errors = run(
        *("forecast", "data.csv", "--model", "Naive", "--horizon", 2, *options)
    )
    assert (code, printed) == (1, "")
    assert message in errors and not PYTHON.search(errors), errors


def test_missing_future_covariates_are_asked_for_in_a_file(csv, run):
    code, _, errors = run(
        *("forecast", csv, "--model", "NLinear", "--horizon", 3, *FAST),
        *("--target", "load", "--set", "future_covariates=price"),
    )
    assert code == 1 and "give them in a file with --future" in errors
    assert not PYTHON.search(errors)


def test_times_are_written_as_their_format_says(tmp_path, run):
    path = tmp_path / "data.csv"
    path.write_text("day;load\n" + "".join(f"{d:02}/01/2024;{d},5\n" for d in range(1, 12)))
    code, printed, _ = run(
        *("forecast", path, "--model", "Naive", "--horizon", 2, "--time-format", "%d/%m/%Y")
    )
    assert code == 0 and printed == "day,load\n12/01/2024,11.5\n13/01/2024,11.5\n"


@pytest.mark.parametrize("out", ["forecast.xls", "data.csv", "forecast"])
def test_a_file_that_cannot_be_the_result_is_refused_before_training(out, csv, run, monkeypatch):
    monkeypatch.chdir(csv.parent)
    monkeypatch.setattr(tsar.Naive, "fit", None)
    before = csv.read_bytes()
    code, _, errors = run("forecast", csv, "--model", "Naive", "--horizon", 3, "--out", out)
    assert code == 1 and errors.count("\n") == 1 and out in errors
    assert csv.read_bytes() == before and list(csv.parent.iterdir()) == [csv]


def test_wrong_usage_exits_with_2(csv, run):
    assert run("forecast", csv)[0] == 2
    assert run("foretell")[0] == 2


def test_lists_name_everything(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for command, names in (
        (["models"], forecaster_names()),
        (["datasets"], dataset_names()),
        (["reproduce", "--list"], recipe_names()),
        (["models", "PatchTST"], tsar.PatchTST().get_params()),
        (["datasets", "ETTh1"], ["licence", "borders", "file"]),
    ):
        code, printed, errors = run(*command)
        assert (code, errors) == (0, "")
        assert set(names) <= {line.split()[0] for line in printed.splitlines() if line.strip()}


def test_models_says_what_each_can_do(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    rows = [line.split() for line in run("models")[1].splitlines()]
    for row in (
        ["ARIMA", "per", "series", "future"],
        ["Ensemble", "members", "as", "its", "members", "as", "its", "members"],
        ["Naive", "nothing"],
        ["PITS", "network", "past,", "future,", "static", "distribution,", "pretrain"],
        [
            *["iTransformer", "network", "past,", "future,", "static"],
            "distribution,",
            "joint,",
            "mixer",
        ],
    ):
        assert row in rows


def test_version(run):
    assert run("--version")[:2] == (0, f"{tsar.__version__}\n")


def test_fetch_of_a_bundled_set(run):
    assert run("fetch", "elnino")[:2] == (0, "elnino: bundled, nothing to fetch\n")


RECIPE = """
title = "Repeat on ETTh1"
model = "Naive"

[[cells]]
dataset = "ETTh1"
horizons = [96]
published = "{row}"
drop_last = true
band = {band}
"""


def test_reproduce_inside_and_outside_the_band(published_data, tmp_path, run):
    path = tmp_path / "own.toml"
    path.write_text(RECIPE.format(row="Repeat", band=0.0005))
    code, printed, _ = run("reproduce", path)
    assert code == 0
    assert "published 1.2950  obtained 1.2946  difference -0.0004" in printed
    assert "2784 windows, last batch dropped" in printed and "2 of 2 within" in printed

    path.write_text(RECIPE.format(row="Repeat", band=0.0001))
    code, printed, _ = run("reproduce", path)
    assert code == 1 and "OUTSIDE" in printed


def test_reproduce_refuses_what_is_not_published(tmp_path, run):
    path = tmp_path / "own.toml"
    path.write_text(RECIPE.format(row="Repeated", band=1))
    code, _, errors = run("reproduce", path)
    assert code == 1 and "no cell Repeated, horizon 96, drop_last true" in errors
    code, _, errors = run("reproduce", "nlinear_etth1_69")
    assert code == 1 and "did you mean 'nlinear_etth1_96'" in errors


def test_reproduce_on_a_file_of_ones_own(tmp_path, run):
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=90), "y": range(90)})
    frame.to_csv(tmp_path / "line.csv", index=False)
    path = tmp_path / "own.toml"
    recipe = 'title = "x"\nmodel = "Naive"\n[data]\nfile = "line.csv"\n'
    recipe += "borders = { train_end = 50, val_end = 2024-03-01 }\n[[cells]]\nhorizons = [1]\n"
    path.write_text(recipe)
    code, printed, _ = run("reproduce", path)
    # The next value of a line is one above, in units of the deviation of 50 rows.
    deviation = np.std(np.arange(50))
    assert code == 0 and f"line-1 mae: obtained {1 / deviation:.4f}  (30 windows" in printed
    path.write_text(recipe + "mse = 9\nmae = 9\nband = 1\n")
    code, printed, _ = run("reproduce", path)
    assert code == 1 and "published 9.0000" in printed and "OUTSIDE" in printed
    code, printed, told = run("reproduce", path, "--latex")
    assert code == 1 and "OUTSIDE" in told
    lines = printed.splitlines()
    assert lines[0] == r"\begin{tabular}{lrllrr}" and lines[-1] == r"\end{tabular}"
    assert rf"line & 1 & mae & recipe own & 9.0000 & \textbf{{{1 / deviation:.4f}}} \\" in lines


def test_a_comparison_for_latex(csv, run):
    options = ("--model", "Naive", "--horizon", 2, "--windows", 2)
    code, printed, _ = run("backtest", csv, *options, "--latex")
    assert code == 0 and printed.startswith(r"\begin{tabular}{l") and "Naive & " in printed


def test_demo_writes_its_forecast_and_plot(tmp_path, run, monkeypatch):
    monkeypatch.setattr("tsar.cli.demo.TRAINING", {"max_steps": 2})
    code, printed, _ = run("demo", "--out", tmp_path / "out")
    assert code == 0
    for word in ("PatchTST", "NLinear", "SeasonalNaive", "MASE", "MAE", "RMSE"):
        assert word in printed
    forecast = pd.read_csv(tmp_path / "out" / "forecast.csv")
    assert np.isfinite(forecast.iloc[:, -1]).all()
    assert (tmp_path / "out" / "forecast.png").stat().st_size > 10_000


def test_demo_that_cannot_write_stops_before_training(csv, run, monkeypatch):
    monkeypatch.setattr("tsar.cli.demo.load_dataset", None)
    code, printed, errors = run("demo", "--out", csv)
    assert (code, printed) == (1, "") and "is no writable folder" in errors


@pytest.mark.filterwarnings("default")
def test_warnings_are_lines_without_source_code(csv, run):
    code, _, errors = run(
        *("forecast", csv, "--model", "NLinear", "--horizon", 3, *FAST),
        *("--set", "context_length=200"),
    )
    assert code == 0 and errors.startswith("Warning: NLinear: no series has 203 rows")
    assert errors.count("\n") == 1


def test_backtest_compares_models_as_the_python_api_does(csv, wide, tmp_path, run):
    out = tmp_path / "tested.csv"
    options = ["--target", "load", "--windows", 4, "--out", out]
    code, printed, errors = run(
        "backtest", csv, "--horizon", 6, "--model", "NLinear", *options, *FAST
    )
    assert (code, errors) == (0, "")
    assert "NLinear" in printed and "SeasonalNaive" in printed and "mase" in printed
    params = {"context_length": 24, "max_epochs": 2, "random_state": 5}
    model = tsar.NLinear(horizon=6, time_column="when", target=["load"], **params)
    expected = tsar.evaluation.backtest(model, pd.read_csv(csv), windows=4)
    np.testing.assert_allclose(pd.read_csv(out)["NLinear"], expected["NLinear"], rtol=1e-12)


def test_tune_prints_settings_that_forecast_takes(csv, tmp_path, run):
    options = ["--model", "NLinear", "--target", "load", "--trials", 2]
    code, printed, errors = run(
        *("tune", csv, "--horizon", 6, *options, *FAST),
        *("--out", tmp_path / "trials.csv", "--save", tmp_path / "best"),
    )
    assert (code, errors) == (0, "")
    lines = printed.splitlines()
    assert lines[0].startswith("score -") and len(pd.read_csv(tmp_path / "trials.csv")) == 2
    found = dict(line.removeprefix("--set ").split("=") for line in lines[1:])
    best = tsar.load(tmp_path / "best")
    assert {name: str(getattr(best, name)) for name in found} == found
    options = ["--model", "ARIMA", "--target", "load", "--windows", 2, "--trials", 1]
    code, printed, _ = run(*("tune", csv, "--horizon", 3, *options, "--save", tmp_path / "best"))
    (line,) = printed.splitlines()[1:]
    (setting,) = shlex.split(line.removeprefix("--set "))
    best = tsar.load(tmp_path / "best")
    assert code == 0 and parse_parameters(tsar.ARIMA, [setting]) == {"order": best.order}
    code, _, errors = run("tune", csv, "--horizon", 6, "--model", "Naive", "--windows", 2)
    assert code == 1 and "Naive has no default space" in errors


def test_shards_of_a_file(tmp_path, run):
    series = {
        name: pd.Series(np.arange(20.0) + place, pd.date_range("2024-01-01", periods=20))
        for place, name in enumerate("abc")
    }
    panel = pd.concat(series, names=["unique_id", "ds"]).rename("y").reset_index()
    panel.to_csv(tmp_path / "panel.csv", index=False)
    command = ["forecast", tmp_path / "panel.csv", "--model", "Naive", "--horizon", 2]
    _, whole, _ = run(*command)
    parts = [run(*command, "--shard", f"{number}/2") for number in (1, 2)]
    (_, first, _), (_, second, _) = parts
    assert [code for code, *_ in parts] == [0, 0]
    assert first + second.split("\n", 1)[1] == whole
    code, _, error = run(*command, "--shard", "2")
    assert code == 1 and "--shard must be such as 2/4" in error


@pytest.mark.parametrize("command", ["backtest", "tune"])
def test_saved_models_are_for_forecast(command, csv, tmp_path, run):
    (tmp_path / "best").mkdir()
    found = run(command, csv, "--horizon", 2, "--model", tmp_path / "best")
    assert found[:2] == (1, "") and "model; only tsar forecast takes one" in found[2]


@pytest.fixture
def shops(tmp_path):
    """Write good and bad series with days first, and return the path."""
    days = pd.date_range("2024-01-01", periods=60).strftime("%d/%m/%Y")
    values = np.sin(np.arange(60.0))
    parts = {name: pd.DataFrame({"shop": name, "ds": days, "y": values}) for name in "abcd"}
    parts["b"] = parts["b"].drop(index=[20])
    parts["c"] = parts["c"].astype({"y": object})
    parts["c"].loc[5, "y"] = "oops"
    pd.concat(list(parts.values())).to_csv(tmp_path / "shops.csv", index=False)
    return tmp_path / "shops.csv"


@pytest.mark.parametrize("command", ["backtest", "tune"])
def test_bad_series_are_set_aside_and_listed(command, shops, tmp_path, run):
    options = ["--id", "shop", "--horizon", 3, "--windows", 2, "--model"]
    if command == "backtest":
        options += ["Theta", "--out", tmp_path / "out.csv"]
    else:
        options += ["NLinear", "--trials", 1, "--space", "context_length=10"]
        options += ["--set", "max_epochs=1", "--set", "random_state=0"]
    code, out, err = run(command, shops, *options)
    assert code == 3
    lines = err.splitlines()
    assert lines[0] == "Warning: 2 of 4 series cannot be read and are left out:"
    assert lines[1:3] == [
        "  'c': column 'y' holds 'oops', which is no number",
        "  'b': gap, count 1, first at 21/01/2024",
    ]
    good = pd.read_csv(shops)
    good = good[good["shop"].isin(["a", "d"])].astype({"y": float})
    good.to_csv(tmp_path / "good.csv", index=False)
    code, alone, err = run(command, tmp_path / "good.csv", *options)
    assert code == 0 and "left out" not in err
    if command == "tune":
        assert out == alone
    else:
        assert set(pd.read_csv(tmp_path / "out.csv")["id"]) == {"a", "d"}
        assert out.splitlines()[-2] == alone.splitlines()[-2]


def test_a_backtest_without_any_good_series_is_an_error(shops, tmp_path, run):
    frame = pd.read_csv(shops)
    frame[frame["shop"].isin(["b", "c"])].to_csv(tmp_path / "bad.csv", index=False)
    code, out, err = run("backtest", tmp_path / "bad.csv", "--id", "shop", "--horizon", 3)
    assert code == 1 and not out
    assert err.startswith("Error: none of 2 series can be forecast; the first one, 'c': column 'y'")


def test_the_bar_of_a_forecast_shows_the_training(shops, run, monkeypatch):
    from rich.console import Console

    from tsar.cli import commands

    screen = io.StringIO()
    monkeypatch.setattr(
        commands, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=150)
    )
    # Drawn at every step.
    monkeypatch.setattr(
        commands, "Progress", lambda *columns, **options: _Eager(*columns, **options)
    )
    options = ["--set", "context_length=10", "--set", "max_epochs=3", "--set", "verbose=1"]
    code, _, err = run(
        "forecast", shops, "--id", "shop", "--horizon", 3, "--model", "NLinear", *options
    )
    assert code == 3 and "it/s" not in err
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    for text in ("epoch 1 of at most 3", "epoch 3 of at most 3", "training, loss ", "4/4 series"):
        assert text in shown, text
    assert "0/?" not in shown
    assert shown.index("epoch 3") < shown.index("4/4 series")


class _Eager(Progress):
    def update(self, *where, **values):
        super().update(*where, **values)
        self.refresh()


def _german(path):
    days = pd.date_range("2024-01-01", periods=84)
    sold = [f"{900 + day.day_of_week * 150 + day.day % 5:,}".replace(",", ".") for day in days]
    rows = [f"{day:%d/%m/%Y};{cell}\n" for day, cell in zip(days, sold, strict=True)]
    path.write_text("day;sold\n" + "".join(rows))


@pytest.mark.parametrize("command", ["forecast", "backtest", "tune"])
def test_how_a_file_is_written_can_be_stated(command, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _german(tmp_path / "in.csv")
    model = ["--model", "NLinear", *FAST]
    further = {"tune": ["--trials", 1], "backtest": ["--windows", 2], "forecast": []}[command]
    options = [command, "in.csv", "--horizon", 7, *model, *further]
    code, _, errors = run(*options)
    assert code == 1 and "--thousands '.' reads 1052, --decimal '.' reads 1.052" in errors
    assert not PYTHON.search(errors) and "FileFormat" not in errors
    code, _, errors = run(*options, "--thousands", ".", "--verbose")
    assert code == 0
    assert "in.csv: cells between semicolons; decimal mark ','; thousands grouped by '.'" in errors
    code, _, errors = run(*options, "--sep", ";;")
    assert code == 1 and errors.startswith("Error: --sep must be one character")


def test_options_of_a_file_stand_in_a_recipe(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _german(tmp_path / "in.csv")
    lines = (tmp_path / "in.csv").read_text().splitlines(keepends=True)[1:]
    (tmp_path / "in.csv").write_text("".join(lines))
    head = 'data = "in.csv"\nhorizon = 2\nmodel = "SeasonalNaive"\n'
    (tmp_path / "one.toml").write_text(head + 'sep = ";"\nthousands = "."\nheader = false\n')
    code, printed, errors = run("forecast", "--recipe", "one.toml")
    assert (code, errors) == (0, "")
    assert printed == "column_1,column_2\n25/03/2024,903.0\n26/03/2024,1054.0\n"
    code, printed, _ = run("forecast", "--recipe", "one.toml", "--thousands", " ", "--decimal", ".")
    assert printed.endswith("26/03/2024,1.054\n")
    code, _, errors = run("forecast", "in.csv", "--horizon", 2, "--model", "SeasonalNaive")
    assert code == 1 and "--no-header numbers the columns, --header takes it for names" in errors


def test_columns_that_are_left_out_are_told_of(tmp_path, run):
    days = pd.date_range("2024-01-01", periods=20).astype(str)
    frame = pd.DataFrame({"shop": 1, "day": days, "y": np.arange(20.0), "x": 1, "z": 2})
    frame.to_csv(tmp_path / "in.csv", index=False)
    options = [tmp_path / "in.csv", "--horizon", 1, "--model", "Naive", "--id", "shop"]
    for command in ("forecast", "backtest"):
        code, _, errors = run(command, *options)
        assert code == 0 and errors.startswith("Warning: not used: 'x', 'z'; name them")
        code, _, errors = run(command, *options, "--target", "y")
        assert (code, errors) == (0, "")


def test_quarters_and_weeks_of_a_file(tmp_path, run):
    path = tmp_path / "in.csv"
    path.write_text("q,y\n" + "".join(f"{2000 + n // 4} Q{n % 4 + 1},{n % 4}\n" for n in range(12)))
    options = ["forecast", path, "--horizon", 2, "--model", "SeasonalNaive"]
    expected = "q,y\n2003 Q1,0.0\n2003 Q2,1.0\n"
    assert run(*options) == (0, expected, "")
    assert run(*options, "--time-format", "%Y Q%q") == (0, expected, "")
    path.write_text("w,y\n" + "".join(f"2024{n:02},{n}\n" for n in range(1, 53)))
    code, _, errors = run(*options, "--time", "w")
    assert code == 1 and "--time-format %G%V makes them dates" in errors
    code, printed, _ = run(
        *options, "--time", "w", "--time-format", "%G%V", "--set", "season_length=1"
    )
    assert printed == "w,y\n202501,52.0\n202502,52.0\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--horizon", 3, "--id", "a", "--id", "a"), "--id must be a column, or a list"),
        (("--sep", ",", "--sep", ";"), "--sep is given 2 times and takes one value; give it once"),
        (("--horizon", 3, "--time", "when", "--horizon=4"), "--horizon is given 2 times"),
    ],
)
def test_an_option_of_one_value_is_given_once(options, message, csv, run):
    code, out, errors = run("forecast", csv, *options)
    assert (code, out) == (1, "") and message in errors
    # Options that may be repeated, and switches, are none of these.
    code, _, errors = run(
        *("backtest", csv, "--model", "Naive", "--horizon", 3, "--target", "price"),
        *("--target", "load", "--verbose", "--verbose"),
    )
    assert code == 0
