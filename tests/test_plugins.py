"""A plain file of one's own: known to the command line, to checks and to loading."""

import sys

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar import checks
from tsar.cli import main as cli
from tsar.core.mixers import MIXERS
from tsar.exceptions import ParameterError
from tsar.forecasting.outputs.losses import LOSSES
from tsar.forecasting.registry import FORECASTERS
from tsar.registration import load_plugin

CODE = '''
from dataclasses import dataclass

import torch

import tsar
from tsar.core.mixers import Mixer
from tsar.forecasting.outputs.losses import Loss


@dataclass(kw_only=True, eq=False, repr=False)
class Raised(tsar.SeasonalNaive):
    """The last season, raised.

    Parameters
    ----------
    by : float, default 1.0
        How much.
    """

    by: float = 1.0

    def _forecast_batch(self, inputs):
        return super()._forecast_batch(inputs) + self.by


class Hold(Mixer):
    """Every token stays."""

    causal = True

    def __init__(self, d_model):
        super().__init__()

    def forward(self, x, *, mask=None, memory=None):
        return x


class Sixth(Loss):
    """The sixth power of the error."""

    def errors(self, forecast, target):
        return (forecast - target) ** 6


class _Hidden(Loss):
    """Not for others."""


tsar.register(Hold, "hold")
'''


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "my_plugin_of_tests.py"
    path.write_text(CODE)
    before = list(sys.path)
    yield path
    sys.path[:] = before
    sys.modules.pop("my_plugin_of_tests", None)
    for registry, name in ((FORECASTERS, "Raised"), (MIXERS, "hold"), (LOSSES, "Sixth")):
        if name in registry:
            registry.unregister(name)


@pytest.fixture
def run(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        return stop.value.code or 0, *capsys.readouterr()

    return call


def test_what_a_file_defines_is_known_once(plugin, wide, tmp_path):
    module = load_plugin(plugin)
    assert load_plugin(plugin) is module
    assert module.Raised in checks.all_forecasters()
    assert "hold" in MIXERS and "Hold" not in MIXERS, "a name of its own choice is the only one"
    assert "Sixth" in LOSSES and "_Hidden" not in LOSSES
    model = module.Raised(horizon=3).fit(wide)
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(tsar.load(tmp_path / "model").predict(), model.predict())
    net = checks.small_forecaster(tsar.PatchTST, mixer="hold", loss="Sixth").fit(wide)
    assert np.isfinite(net.predict()).all().all()


def test_every_command_takes_it(plugin, wide, tmp_path, run):
    data = tmp_path / "data.csv"
    wide.rename_axis("when").to_csv(data)
    given = ("--plugin", plugin, "--model", "Raised", "--horizon", 3)
    out = tmp_path / "out.csv"
    code, _, errors = run("forecast", data, *given, "--set", "by=2", "--out", out)
    assert code == 0, errors
    expected = tsar.SeasonalNaive(horizon=3).fit(wide).predict() + 2
    found = pd.read_csv(out)
    np.testing.assert_allclose(found[list(expected.columns)], expected, rtol=1e-6)
    code, printed, errors = run("backtest", data, *given, "--windows", 2)
    assert code == 0 and "Raised" in printed, errors
    code, printed, _ = run("models", "--plugin", plugin)
    assert code == 0 and "The last season, raised." in printed
    code, printed, _ = run("models", "Raised", "--plugin", plugin)
    assert code == 0 and "by" in printed
    recipe = tmp_path / "shop.toml"
    recipe.write_text('data = "data.csv"\nmodel = "Raised"\nhorizon = 3\n')
    code, printed, errors = run("forecast", "--plugin", plugin, "--recipe", recipe)
    assert code == 0 and printed.count("\n") == 4, errors


def test_the_checks_of_a_model_are_a_command(plugin, run, monkeypatch):
    def holds(subject):
        """Hold."""

    def fails(subject):
        raise AssertionError("of no use")

    monkeypatch.setattr(
        "tsar.cli.commands.checks_for", lambda cls: [(cls, holds)] * 2 + [(cls, fails)]
    )
    code, printed, _ = run("check", "Raised", "--plugin", plugin)
    assert code == 1
    assert printed.splitlines() == ["holds: ok", "holds: ok", "fails: FAILED of no use"]
    monkeypatch.setattr("tsar.cli.commands.checks_for", lambda cls: [(cls, holds)])
    assert run("check", "Raised", "--plugin", plugin)[0] == 0
    code, _, errors = run("check", "Raisd", "--plugin", plugin)
    assert code == 1 and "did you mean 'Raised'" in errors


def test_files_that_are_no_plugin(plugin, tmp_path, run):
    for name in ("missing.py", "data.csv", "my-model.py"):
        if name != "missing.py":
            (tmp_path / name).write_text("x = 1\n")
        with pytest.raises(ParameterError, match="must be a Python file whose name"):
            load_plugin(tmp_path / name)
    (tmp_path / "broken_plugin_of_tests.py").write_text("import nothing_of_the_kind\n")
    with pytest.raises(ParameterError, match="ModuleNotFoundError: No module named"):
        load_plugin(tmp_path / "broken_plugin_of_tests.py")
    (tmp_path / "bad_plugin_of_tests.py").write_text("def\n")
    with pytest.raises(ParameterError, match="cannot be imported: SyntaxError"):
        load_plugin(tmp_path / "bad_plugin_of_tests.py")
    (tmp_path / "json.py").write_text("x = 1\n")
    with pytest.raises(ParameterError, match="another module called 'json'"):
        load_plugin(tmp_path / "json.py")
    (tmp_path / "empty_plugin_of_tests.py").write_text("import tsar\nfrom tsar import Naive\n")
    with pytest.raises(ParameterError, match="defines no forecaster"):
        load_plugin(tmp_path / "empty_plugin_of_tests.py")
    code, _, errors = run("models", "--plugin", tmp_path / "missing.py")
    assert code == 1 and "must be a Python file" in errors
