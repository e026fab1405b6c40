"""What is installed, what an import costs, and what travels in the wheel."""

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tsar

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OLDEST = "constraints-oldest.txt"
BASE = {"torch", "numpy", "pandas", "scikit-learn", "statsmodels", "safetensors", "tqdm"} | {
    # Installed by these anyhow, and imported by name.
    *("scipy", "joblib", "filelock"),
}
# Extras that are no part of "all": itself, ours, what builds on CUDA only, and engines, which are
# large and tested by `make test-engines` as they are.
SPECIAL = ("all", "dev", "mamba", "ray", "dask", "spark")
# Whatever the base dependencies pull in themselves is theirs to answer for; these are ours.
NOT_ON_IMPORT = {
    *("typer", "rich", "click", "matplotlib", "pooch", "requests", "pyarrow", "optuna"),
    *("polars", "duckdb", "sqlalchemy", "fsspec.implementations"),
    *("statsmodels", "transformers", "lightning", "mamba_ssm", "triton", "IPython"),
    *("torch._dynamo", "torch._inductor", "torch.onnx", "torch.utils.tensorboard"),
    *("tsar.cli.main", "tsar.cli.commands", "tsar.cli.demo", "tsar.checks"),
}


def _run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_base_dependencies_are_those_of_the_design():
    names = {line.split(">")[0].split("=")[0] for line in PROJECT["dependencies"]}
    assert names == BASE


def test_base_installation_is_small():
    """Walk the requirements of what is installed here, CUDA libraries left out."""
    found: set[str] = set()
    queue = list(PROJECT["dependencies"])
    while queue:
        requirement = Requirement(queue.pop())
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not wanted or name in found or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        found.add(name)
        # A package for another build of torch, setuptools say, need not be here to count.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            queue += importlib.metadata.requires(name) or []
    assert found > BASE
    assert len(found) <= 30, sorted(found)


def test_extra_all_is_every_extra_that_installs_anywhere():
    extras = PROJECT["optional-dependencies"]
    assert extras["all"] == [f"tsar[{','.join(name for name in extras if name not in SPECIAL)}]"]


def test_version_is_stated_once():
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    assert tsar.__version__ == "0.1.0"
    assert importlib.metadata.version("tsar") == tsar.__version__
    assert f"## [{tsar.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def _pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("file", ["constraints.txt", OLDEST])
def test_constraints_pin_every_base_dependency(file):
    pins = _pins(file)
    assert {name.lower() for name in pins} >= BASE
    assert pins["torch"] == "2.13.0"
    assert not any("+" in version for version in pins.values())


def test_oldest_versions_are_the_lower_bounds():
    """What pyproject.toml says to be enough is what the tests run with."""
    pins = {canonicalize_name(name): version for name, version in _pins(OLDEST).items()}
    extras = PROJECT["optional-dependencies"]
    named = [line for name, lines in extras.items() if name not in SPECIAL for line in lines]
    for line in PROJECT["dependencies"] + named:
        name, bound = line.split(">=")
        if name != "torch":
            version = pins.get(canonicalize_name(name), "no pin")
            assert f"{version}.".startswith(f"{bound}."), line


@pytest.fixture(scope="module")
def imported():
    """Import tsar where all is loaded that it needs: which modules that adds, what it changes."""
    code = """
import json, random, sys, logging, warnings, os
import numpy, torch, pandas, sklearn.base, safetensors.torch, tqdm
def state():
    return {"random": str(random.getstate()), "numpy": str(numpy.random.get_state()),
            "torch": torch.get_rng_state().tolist(), "handlers": str(logging.root.handlers),
            "filters": str(warnings.filters), "threads": torch.get_num_threads(),
            "dtype": str(torch.get_default_dtype()), "environ": dict(os.environ)}
before, modules = state(), set(sys.modules)
import tsar
after = state()
changed = [name for name in before if after[name] != before[name]]
print(json.dumps({"added": sorted(set(sys.modules) - modules), "changed": changed}))
"""
    return json.loads(_run(code))


def test_import_loads_no_optional_stack(imported):
    """Compare the modules loaded with those that torch, pandas and scikit-learn load."""
    added = set(imported["added"])
    assert not added & NOT_ON_IMPORT
    ours = {name for name in added if name.split(".")[0] == "tsar"}
    assert len(added - ours) < 150, sorted(added - ours)


def test_fit_loads_no_compiler():
    """It takes two seconds, and 70 MB, in every process."""
    code = """
import sys, tsar
from tsar.checks import small_forecaster
for model in (tsar.NLinear, tsar.PatchTST, tsar.AutoformerForecaster):
    small_forecaster(model, max_steps=1).fit(tsar.load_dataset("elnino")).predict()
    loaded = [name for name in ("torch._dynamo", "torch._inductor", "torch.onnx")
              if name in sys.modules]
    print(model.__name__, loaded)
"""
    assert _run(code) == "NLinear []\nPatchTST []\nAutoformerForecaster []\n"


def test_import_changes_no_global_state(imported):
    assert imported["changed"] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_the_cards_and_recipes(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("datasets", "datasets"), ("examples/recipes", "examples/recipes")):
        for path in (ROOT / folder).glob("*.toml"):
            assert f"tsar/{inside}/{path.name}" in names
    assert "tsar/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "docs"))]


def test_wheel_holds_the_weights_and_is_no_larger_for_it_than_it_may_be(wheel):
    weights = {
        entry.filename: entry.file_size
        for entry in zipfile.ZipFile(wheel).infolist()
        if entry.filename.endswith(".safetensors")
    }
    assert list(weights) == ["tsar/forecasting/weights/tiny.safetensors"]
    assert sum(weights.values()) <= 5_000_000


def test_unpacked_wheel_finds_its_cards(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import tsar
from tsar.data.datasets import dataset_names, load_card
from tsar.evaluation import load_recipe, recipe_names
assert tsar.__file__.startswith({str(tmp_path)!r})
print(len(dataset_names()), len([load_recipe(name) for name in recipe_names()]))
"""
    cards, recipes = _run(code).split()
    assert int(cards) == len(list((ROOT / "datasets").glob("*.toml")))
    assert int(recipes) == len(list((ROOT / "examples/recipes").glob("*.toml")))


def test_missing_command_line_extra_is_one_line():
    code = """
import sys
sys.modules["typer"] = None
from tsar.cli.main import main
try:
    main([])
except SystemExit as stop:
    print(stop.code)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "2\n"
    assert done.stderr == "tsar: the command line needs typer and rich: pip install 'tsar[cli]'\n"
