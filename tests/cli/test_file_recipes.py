"""One TOML file says what forecast, backtest and tune do; options go before it."""

import shlex
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.cli import main as cli
from tsar.cli.file_recipes import load_file_recipe
from tsar.evaluation import backtest
from tsar.exceptions import DataError, ParameterError
from tsar.training import AdamW
from tsar.tuning import OptunaSearch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECIPE = """
data = "sales.csv"
id = "shop"
time = "day"
time_format = "%d/%m/%Y"
target = "sold"
horizon = 7
model = "NLinear"

[params]
context_length = 21
max_epochs = 2
loss = "gaussian"
max_steps = "none"
random_state = 3

[params.AutoReg]
lags = 14

[forecast]
level = 80
out = "out/forecast.csv"

[backtest]
models = ["NLinear", "AutoReg"]
windows = 3
level = [80, 95]
out = "tested.csv"

[tune]
trials = 3
windows = 2
out = "trials.csv"
save = "best"

[tune.space]
context_length = [14, 21]
learning_rate = { low = 1e-3, high = 1e-1, log = true }
"""
PARAMS = {
    "context_length": 21,
    "max_epochs": 2,
    "loss": "gaussian",
    "max_steps": None,
    "random_state": 3,
}
COLUMNS = {"id_column": "shop", "time_column": "day", "target": ["sold"]}


@pytest.fixture
def sales():
    """Return 120 days of three shops."""
    days = pd.date_range("2024-01-01", periods=120)
    noise = np.random.default_rng(4).normal(size=(3, len(days)))
    week = 5 * np.sin(np.arange(len(days)) * 2 * np.pi / 7)
    shops = [
        pd.DataFrame({"shop": name, "day": days, "sold": 10 * place + week + noise[place]})
        for place, name in enumerate(["Bern", "Chur", "Uri"])
    ]
    return pd.concat(shops, ignore_index=True).round({"sold": 2})


@pytest.fixture
def folder(sales, tmp_path):
    """Return a folder with the data and the recipe; commands run in another one."""
    folder = tmp_path / "shop"
    folder.mkdir()
    styled = sales.assign(day=sales["day"].dt.strftime("%d/%m/%Y"))
    styled.to_csv(folder / "sales.csv", index=False)
    (folder / "shop.toml").write_text(RECIPE)
    return folder


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Return a function that runs the command and gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        return stop.value.code or 0, *capsys.readouterr()

    return call


def test_forecast_does_what_the_recipe_says(folder, sales, run):
    """Numbers are those of the Python API, and files lie beside the recipe."""
    assert run("forecast", "--recipe", "shop/shop.toml") == (0, "", "")
    written = pd.read_csv(folder / "out" / "forecast.csv")
    model = tsar.NLinear(horizon=7, **COLUMNS, **PARAMS).fit(sales)
    expected = model.predict(level=[80])
    assert written["day"].tolist() == expected["day"].dt.strftime("%d/%m/%Y").tolist()
    for name in ("sold", "sold_lo80", "sold_hi80"):
        np.testing.assert_allclose(written[name], expected[name], rtol=1e-12)


def test_options_go_before_the_recipe(folder, sales, run):
    code, _, errors = run(
        *("forecast", "--recipe", "shop/shop.toml", "--horizon", 4, "--level", 50),
        *("--set", "context_length=14", "--out", "own.csv"),
    )
    assert (code, errors) == (0, "") and not (folder / "out").exists()
    written = pd.read_csv("own.csv")
    params = {**PARAMS, "context_length": 14}
    expected = tsar.NLinear(horizon=4, **COLUMNS, **params).fit(sales).predict(level=[50])
    assert list(written.columns) == ["shop", "day", "sold", "sold_lo50", "sold_hi50", "status"]
    np.testing.assert_allclose(written["sold_lo50"], expected["sold_lo50"], rtol=1e-12)


def test_another_model_takes_the_parameters_it_has(folder, sales, run):
    recipe = ["--recipe", "shop/shop.toml", "--out", "own.csv"]
    code, _, errors = run("forecast", *recipe, "--model", "DLinear")
    assert (code, errors) == (0, "")
    expected = tsar.DLinear(horizon=7, **COLUMNS, **PARAMS).fit(sales).predict()
    np.testing.assert_allclose(pd.read_csv("own.csv")["sold"], expected["sold"], rtol=1e-12)
    # AutoReg has none of them but random_state, and a table of its own.
    own = load_file_recipe(folder / "shop.toml").params("AutoReg")
    assert own == {"lags": 14}


def test_backtest_compares_the_models_of_the_recipe(folder, sales, run):
    code, printed, errors = run("backtest", "--recipe", "shop/shop.toml")
    assert (code, errors) == (0, "")
    assert all(
        name in printed
        for name in ("NLinear", "AutoReg", "SeasonalNaive", "coverage_95", "3 windows")
    )
    written = pd.read_csv(folder / "tested.csv")
    models = [
        tsar.NLinear(horizon=7, **COLUMNS, **PARAMS),
        tsar.AutoReg(horizon=7, **COLUMNS, lags=14),
    ]
    expected = backtest(models[0], sales, windows=3, level=[80, 95])
    expected["AutoReg"] = backtest(models[1], sales, windows=3)["AutoReg"]
    assert written["time"].tolist() == expected["time"].dt.strftime("%d/%m/%Y").tolist()
    for name in ("y", "NLinear", "NLinear_lo95", "AutoReg"):
        np.testing.assert_allclose(written[name], expected[name], rtol=1e-12)
    code, printed, _ = run("backtest", "--recipe", "shop/shop.toml", "--model", "Naive")
    assert code == 0 and "Naive" in printed and "AutoReg" not in printed


def test_baseline_of_a_backtest_reads_the_file_as_the_models_do(folder, sales, run):
    """A row is missing, which has to be allowed once and for all models."""
    kept = sales.drop(index=50).assign(day=lambda rows: rows["day"].dt.strftime("%d/%m/%Y"))
    kept.to_csv(folder / "sales.csv", index=False)
    call = ["backtest", "--recipe", "shop/shop.toml", "--model", "Naive"]
    code, printed, errors = run(*call)
    assert code == 3 and "SeasonalNaive" in printed
    assert errors.startswith("Warning: 1 of 3 series cannot be read and are left out:\n")
    assert "gap, count 1" in errors and "--gaps mask" in errors
    assert run(*call, "--on-error", "raise")[:2] == (1, "")
    code, printed, errors = run(*call, "--set", "gaps=mask")
    assert (code, errors) == (0, "") and "SeasonalNaive" in printed


def test_tune_prints_a_table_that_stands_in_the_place_of_the_recipes(folder, sales, run):
    code, printed, errors = run("tune", "--recipe", "shop/shop.toml")
    assert (code, errors) == (0, "")
    found = tomllib.loads(printed)["params"]
    space = {"context_length": [14, 21], "learning_rate": (1e-3, 1e-1, "log")}
    model = tsar.NLinear(horizon=7, **COLUMNS, **PARAMS)
    search = OptunaSearch(model, space, n_trials=3, windows=2, random_state=3).fit(sales)
    assert found == {**PARAMS, "max_steps": "none", **search.best_params_}
    assert len(pd.read_csv(folder / "trials.csv")) == 3
    # Pasted, the table forecasts as the saved model does, which the last line names.
    head, rest = RECIPE.split("[params]")
    pasted = f"{head}{printed}{rest[rest.index('[params.AutoReg]') :]}"
    (folder / "tuned.toml").write_text(pasted)
    assert run("forecast", "--recipe", "shop/tuned.toml", "--out", "pasted.csv")[0] == 0
    call = shlex.split(printed.splitlines()[-1].split(": tsar ")[1])
    assert run(*call, "--out", "saved.csv") == (0, "", "")
    assert Path("pasted.csv").read_bytes() == Path("saved.csv").read_bytes()
    # The recipe can name the saved model itself.
    (folder / "nightly.toml").write_text(RECIPE.replace("[forecast]", '[forecast]\nmodel = "best"'))
    assert run("forecast", "--recipe", "shop/nightly.toml")[0] == 0
    assert (folder / "out" / "forecast.csv").read_bytes() == Path("saved.csv").read_bytes()


def test_seed_of_the_best_trial_is_among_its_parameters(folder, run):
    """Without it, the printed parameters would make another model than the saved one."""
    text = RECIPE.replace("random_state = 3\n", "").replace("trials = 3", "trials = 1")
    (folder / "shop.toml").write_text(text)
    _, printed, _ = run("tune", "--recipe", "shop/shop.toml")
    seed = tomllib.loads(printed)["params"]["random_state"]
    assert tsar.load(folder / "best").random_state == seed


def test_space_and_time_format_as_options(folder, sales, run):
    columns = ["--id", "shop", "--time", "day", "--time-format", "%d/%m/%Y", "--target", "sold"]
    options = ["--model", "NLinear", "--windows", 2, "--set", "max_epochs=1"]
    seed = ["--set", "random_state=1"]
    call = [folder / "sales.csv", "--horizon", 7, *columns, *options, *seed]
    space = ["--space", "context_length=14,21", "--space", "learning_rate=1e-3..1e-1:log"]
    code, printed, errors = run("tune", *call, *space, "--trials", 2)
    assert (code, errors) == (0, "")
    model = tsar.NLinear(horizon=7, **COLUMNS, max_epochs=1, random_state=1)
    expected = {"context_length": [14, 21], "learning_rate": (1e-3, 1e-1, "log")}
    search = OptunaSearch(model, expected, n_trials=2, windows=2, random_state=1).fit(sales)
    lines = [f"--set {name}={value}" for name, value in search.best_params_.items()]
    assert printed.splitlines()[1:] == [*lines, "--set random_state=1"]
    # Of the recipe's space, an entry is replaced by name.
    code, _, _ = run("tune", "--recipe", "shop/shop.toml", "--space", "context_length=28")
    trials = pd.read_csv(folder / "trials.csv")
    assert code == 0 and set(trials["context_length"]) == {28}
    assert trials["learning_rate"].nunique() == 3
    code, _, errors = run("tune", *call, "--space", "learning_rate=1e-3...1e-1")
    assert code == 1 and "name=low..high" in errors


@pytest.mark.parametrize("command", ["forecast", "backtest", "tune"])
def test_what_is_missing_is_named_as_option_and_as_key(command, folder, run):
    (folder / "shop.toml").write_text(RECIPE.replace("horizon = 7\n", ""))
    code, printed, errors = run(command, "--recipe", "shop/shop.toml")
    assert (code, printed) == (2, "") and "give --horizon, or horizon = ..." in errors
    (folder / "shop.toml").write_text(RECIPE.replace('data = "sales.csv"\n', ""))
    code, printed, errors = run(command, "--recipe", "shop/shop.toml")
    assert (code, printed) == (2, "") and "as the argument, or as data = ..." in errors
    assert run(command, "--recipe", "shop/shop.toml", "shop/no.csv")[0] == 1


WRONG = [
    ("horizon = 7", "horizn = 7", r"got 'horizn' \(did you mean 'horizon'\?\)"),
    ("horizon = 7", "horizon = 0", r"horizon must be an integer in \[1, inf\), got 0"),
    ("horizon = 7", 'horizon = "7"', r"horizon must be an integer in \[1, inf\), got '7'"),
    ("horizon = 7", "horizon = ", r"cannot be read: .*line 7"),
    ("horizon = 7", "windows = 7", r"'windows' belongs to \[backtest\] or \[tune\]; move it"),
    ("horizon = 7", "d_model = 7", r"'d_model' belongs to \[params\]; move it"),
    ('target = "sold"', "target = [1]", r"target must be a string or a list or tuple, each a str"),
    ('"NLinear"\n', '"NLinea"\n', r"model must be one of .* \(did you mean 'NLinear'\?\)"),
    ('"NLinear"\n', '"saved"\n', r"parameters are for a model that is named, 'saved' is fitted"),
    ("max_epochs = 2", "max_epoch = 2", r"\[params\] of NLinear.* did you mean 'max_epochs'\?"),
    (
        "max_epochs = 2",
        "lags = 2",
        r"'lags' is no parameter of NLinear; write it in \[params.AutoReg\]",
    ),
    ("max_epochs = 2", "max_epochs = 0", r"NLinear: max_epochs must be an integer in \[1, inf\)"),
    ("max_epochs = 2", 'max_epochs = "2"', r"NLinear: max_epochs must be an integer .* got '2'"),
    ("max_epochs = 2", "horizon = 2", r"horizon is the key 'horizon' before the first table"),
    ("max_epochs = 2", 'id_column = "x"', r"id_column is the key 'id' before the first table"),
    ("lags = 14", "lag = 14", r"\[params\], AutoReg has no parameter 'lag': did you mean 'lags'"),
    ("[params.AutoReg]", "[params.AutoReq]", r"\[params\]: model .*\(did you mean 'AutoReg'\?\)"),
    ("[params.AutoReg]", "[params.batch_size]", r"batch_size must be an integer in"),
    ("level = 80", "level = 0.8", r"\[forecast\]: level is in percent, got 0.8; did you mean 80"),
    ("level = 80", 'level = "80"', r"\[forecast\]: level must be a number or a list"),
    ("level = 80", "levels = 80", r"\[forecast\]: key .*\(did you mean 'level'\?\)"),
    ("level = 80", "horizon = 80", r"'horizon' belongs to the top, before the first table; move"),
    ("[forecast]", "[forcast]", r"\(did you mean 'forecast'\?\)"),
    ("[forecast]", "[[forecast]]", r"forecast must be a table, got"),
    ('["NLinear", "AutoReg"]', '["AutoRegg"]', r"\[backtest\]: models must .*mean 'AutoReg'"),
    (
        "windows = 2",
        "windows = 2.5",
        r"\[tune\]: windows must be an integer in \[1, inf\), got 2.5",
    ),
    ("= [14, 21]", "= 14", r"context_length must be a list of choices, or a range such as"),
    ("= [14, 21]", "= [0, 21]", r"space\['context_length'\] must hold what NLinear admits, got 0"),
    ("= [14, 21]", "= []", r"context_length must be a list of choices, or a range such as"),
    ("low = 1e-3", "low = 1", r"learning_rate must have low below high and above 0, got"),
    ("low = 1e-3", "lo = 1e-3", r"\(did you mean 'low'\?\)"),
    ("low = 1e-3, ", "", r"learning_rate must have low below high"),
    ("learning_rate =", "learning_rat =", r"did you mean 'learning_rate'\?"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_what_is_wrong_is_one_error_before_anything_is_read(old, new, message, folder):
    (folder / "saved").mkdir()
    assert old in RECIPE
    (folder / "shop.toml").write_text(RECIPE.replace(old, new, 1))
    (folder / "sales.csv").unlink()
    with pytest.raises((DataError, ParameterError), match=message) as caught:
        load_file_recipe(folder / "shop.toml")
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("command", ["forecast", "backtest", "tune"])
def test_every_command_checks_all_tables(command, folder, run):
    for old, new in (("level = 80", "levle = 80"), ("windows = 3", "window = 3")):
        (folder / "shop.toml").write_text(RECIPE.replace(old, new))
        code, printed, errors = run(command, "--recipe", "shop/shop.toml")
        assert (code, printed) == (1, "") and "did you mean" in errors and "shop.toml" in errors
        assert errors.startswith("Error: recipe ") and errors.count("\n") == 1


def test_files_that_are_no_recipe(folder, run):
    shutil.copy(EXAMPLES / "recipes" / "naive.toml", folder / "naive.toml")
    (folder / "latin.toml").write_bytes(b'data = "\xfc"')
    for name, message in (
        ("shops.toml", "there is no recipe shop/shops.toml (did you mean 'shop.toml'?)"),
        ("", "recipe shop is a folder"),
        ("naive.toml", "run it with `tsar reproduce shop/naive.toml`"),
        ("latin.toml", "recipe shop/latin.toml cannot be read"),
    ):
        code, printed, errors = run("tune", "--recipe", f"shop/{name}")
        assert (code, printed) == (1, "") and message in errors and errors.count("\n") == 1
    code, _, errors = run("reproduce", "shop/shop.toml")
    assert code == 1 and "`tsar forecast --recipe shop/shop.toml`" in errors


@pytest.mark.parametrize(
    ("command", "old", "new", "message"),
    [
        ("forecast", '"sales.csv"', '"sale.csv"', "shop/sale.csv (did you mean 'sales.csv'?)"),
        ("forecast", "[forecast]", '[forecast]\nfuture = "f.csv"', "there is no file shop/f.csv"),
        ("forecast", "[forecast]", '[forecast]\nmodel = "bset"', "got 'bset'"),
        ("forecast", "out/forecast.csv", "sales.csv/f.csv", "sales.csv is no writable folder"),
        ("backtest", '"tested.csv"', '"tested.xls"', "must end in .csv, .parquet or .xlsx"),
        ("tune", '"trials.csv"', '"sales.csv"', "shop/sales.csv is the file that is read"),
        ("tune", '"best"', '"sales.csv/best"', "sales.csv is no folder that can be written"),
        ("tune", '"best"', '"sales.csv"', "exists and holds more than a saved model"),
    ],
)
def test_paths_are_tried_before_work(command, old, new, message, folder, run, monkeypatch):
    monkeypatch.setattr(tsar.NLinear, "fit", None)
    (folder / "shop.toml").write_text(RECIPE.replace(old, new))
    code, printed, errors = run(command, "--recipe", "shop/shop.toml")
    assert (code, printed) == (1, "") and message in errors and errors.count("\n") == 1


def test_saved_model_takes_no_settings(folder, sales, run):
    tsar.NLinear(horizon=7, **COLUMNS, **PARAMS).fit(sales).save(folder / "best")
    call = ["forecast", "--recipe", "shop/shop.toml", "--model", "shop/best"]
    code, _, errors = run(*call, "--set", "context_length=3")
    assert code == 1 and "--set is for a model that is named" in errors
    assert run(*call, "--out", "own.csv")[0] == 0
    # In the recipe itself the folder is relative to it.
    head, rest = RECIPE.split("[params]")
    text = head.replace('"NLinear"', '"best"') + rest[rest.index("[forecast]") :]
    (folder / "shop.toml").write_text(text)
    assert run("forecast", "--recipe", "shop/shop.toml")[0] == 0
    assert (folder / "out" / "forecast.csv").read_bytes() == Path("own.csv").read_bytes()


def test_none_is_read_where_it_is_admitted(folder):
    (folder / "own.toml").write_text('[params]\noutput_range = [0, "none"]\nmax_steps = "none"')
    params = load_file_recipe(folder / "own.toml").params("PatchTST")
    assert params == {"output_range": (0, None), "max_steps": None}


def test_objects_are_read_from_text_and_printed_as_such(folder, run):
    params = 'optimizer = "AdamW(weight_decay=0.1)"\nlearning_rate_schedule = "cosine"'
    (folder / "own.toml").write_text(f"[params]\n{params}")
    read = load_file_recipe(folder / "own.toml").params("NLinear")
    assert type(read["optimizer"]) is AdamW and read["optimizer"].weight_decay == 0.1
    assert read["learning_rate_schedule"] == "cosine"
    space = '[tune.space]\noptimizer = ["AdamW(weight_decay=0.5)", "AdamW(weight_decay=0.25)"]'
    (folder / "shop.toml").write_text(RECIPE[: RECIPE.index("[tune.space]")] + space)
    code, printed, errors = run("tune", "--recipe", "shop/shop.toml")
    assert (code, errors) == (0, "")
    (folder / "tuned.toml").write_text(printed)
    best = load_file_recipe(folder / "tuned.toml").params("NLinear")["optimizer"]
    assert type(best) is AdamW and best.weight_decay in (0.5, 0.25)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_epochs = 2", "weight_decay = 0.1"),
        ("context_length = [14, 21]", "weight_decay = [0.1, 0.2]"),
    ],
)
def test_what_is_advised_in_place_of_a_parameter_can_be_written(old, new, folder):
    (folder / "shop.toml").write_text(RECIPE.replace(old, new))
    with pytest.raises(ParameterError, match=r"optimizer=AdamW\(weight_decay=0.1\)"):
        load_file_recipe(folder / "shop.toml")
    text = 'optimizer = "AdamW(weight_decay=0.1)"' if "[" not in old else 'optimizer = ["AdamW()"]'
    (folder / "shop.toml").write_text(RECIPE.replace(old, text))
    load_file_recipe(folder / "shop.toml")


def test_policies_for_rows_are_keys_of_a_recipe(folder, sales, run):
    path = folder / "shop.toml"
    doubled = pd.concat([sales.drop(index=[30]), sales.iloc[[5]]])
    styled = doubled.assign(day=doubled["day"].dt.strftime("%d/%m/%Y"))
    styled.to_csv(folder / "sales.csv", index=False)
    policies = 'duplicates = "sum"\ngaps = "zero"\nended = "skip"\nended_after = 2\n'
    path.write_text(policies + RECIPE)
    code, _, errors = run("forecast", "--recipe", "shop/shop.toml")
    assert code == 0 and "Note: 1 doubled rows" in errors and "Note: 1 missing rows" in errors
    assert run("backtest", "--recipe", "shop/shop.toml")[0] == 0
    path.write_text(policies.replace("sum", "add") + RECIPE)
    code, _, errors = run("tune", "--recipe", "shop/shop.toml")
    assert code == 1 and "duplicates must be one of 'raise', 'sum'" in errors
