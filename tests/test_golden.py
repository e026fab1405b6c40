"""Models saved by earlier versions load, and forecast what they forecast then."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import tsar
from tsar.estimator.saving import FORMAT_VERSION
from tsar.exceptions import DataWarning
from tsar.training import AdamW, Cosine

GOLDEN = Path(__file__).parent / "golden"
SAVED = sorted(path.parent for path in GOLDEN.glob("*/*/request.json"))


def test_every_format_has_its_models():
    formats = {int(folder.parent.name) for folder in SAVED}
    assert formats == set(range(1, FORMAT_VERSION + 1))


def _history(folder, request):
    history = pd.read_csv(folder / "history.csv")
    stamps = pd.to_datetime(history["ds"], utc=True).dt.tz_convert(request["zone"])
    history = history.assign(ds=stamps)
    return history.set_index(request["index"]) if request["index"] else history


TRAINED = [folder for folder in SAVED if "naive" not in folder.name]


@pytest.mark.parametrize("folder", TRAINED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_saved_training_goes_on_with_its_moments(folder):
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    model = tsar.load(folder / "model").set_params(verbose=0)
    before, n_epochs = model._training_state, model.n_epochs_
    steps = {float(t) for path, t in before.optimizer.items() if path.endswith(".step")}
    model.partial_fit(_history(folder, request))
    after = model._training_state
    assert model.n_epochs_ > n_epochs and after.step > before.step
    names = [name for name, _ in model.module_.named_parameters()]
    assert set(after.parameters) == set(names)
    made = after.step - before.step
    assert steps == {float(before.step)}
    assert {float(after.optimizer[f"{name}.step"]) for name in names} == {before.step + made}


@pytest.mark.parametrize("folder", SAVED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_saved_model_forecasts_what_it_did(folder):
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    history = _history(folder, request)
    model = tsar.load(folder / "model")
    asked = {name: request.get(name) for name in ("horizon", "quantiles", "level")}
    for file, forecast in (
        ("forecast.csv", model.predict(**asked)),
        ("new.csv", model.predict(df=history, **asked)),
    ):
        found = forecast.reset_index() if request["index"] else forecast
        found = found.assign(ds=[stamp.isoformat() for stamp in found["ds"]])
        expected = pd.read_csv(folder / file)
        pd.testing.assert_frame_equal(
            found, expected, check_dtype=False, rtol=1e-6, atol=1e-6, check_column_type=False
        )


def test_parameters_of_earlier_versions_become_those_of_today(tmp_path):
    """Flat parameters of optimisers and schedules, and what two parameters said together."""
    shutil.copytree(GOLDEN / "1" / "patchtst_wide_berlin" / "model", tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["parameters"] |= {
        **{"optimizer": "adamw", "weight_decay": 0.1, "adam_betas": {"tuple": [0.8, 0.9]}},
        **{"gradient_clip": 0.5, "precision": "bfloat16", "warmup_steps": 7},
        **{"learning_rate_schedule": "cosine", "validation_size": 30, "residual_attention": False},
    }
    path.write_text(json.dumps(manifest), encoding="utf-8")
    model = tsar.load(tmp_path / "model")
    optimizer = AdamW(weight_decay=0.1, betas=(0.8, 0.9), clip=0.5, precision="bfloat16")
    assert (model.optimizer, model.learning_rate_schedule) == (optimizer, Cosine(warmup_steps=7))
    assert (model.early_stopping, model.mixer) == (30, "attention")


def test_defaults_of_earlier_versions_stay_names():
    model = tsar.load(GOLDEN / "1" / "patchtst_wide_berlin" / "model")
    assert (model.optimizer, model.learning_rate_schedule) == ("adam", "constant")
    assert (model.early_stopping, model.mixer, model.norm) == (True, "residual_attention", "batch")


@pytest.mark.parametrize("kind", ["batch", "layer", "rms"])
def test_norms_before_the_branch_keep_their_place(kind):
    saved = {"norm": kind, "pre_norm": True, "residual_attention": True, "mixer": "mamba"}
    upgraded = tsar.PatchTST.upgrade_parameters(saved)
    assert upgraded == {"norm": f"pre_{kind}", "mixer": "mamba"}


@pytest.mark.parametrize("name", ["autoreg_categories", "nlinear_categories"])
def test_categories_that_were_saved_keep_their_meaning(name):
    """Unknown and missing ones were one code, and in regressions the first category as well."""
    folder = GOLDEN / "1" / name
    history, future, expected = (
        pd.read_csv(folder / f"{part}.csv", parse_dates=["ds"])
        for part in ("history", "future", "forecast")
    )
    model = tsar.load(folder / "model")
    with pytest.warns(DataWarning, match="'kind' has categories that were not fitted"):
        found = model.predict(df=history, future=future)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6, atol=1e-6)
