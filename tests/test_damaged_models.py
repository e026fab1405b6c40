"""Saved models that were damaged or changed: noticed, in no time, by one clear error.

A mutation is drawn from a seed. It hits the files of a model as they are ("sealed"), the files
with a manifest that was written again afterwards ("forged": nothing but the contents can tell),
or those of format 1, which has no manifest ("plain"). In all three there is either a forecast or an
error of tsar; of a sealed model the forecast is moreover the one of the model that was saved. What
else a forged or a plain model forecasts cannot be known.

The seed and the number of nightly mutations are those of TSAR_MUTATION_SEED (the day without one)
and TSAR_MUTATIONS.
"""

import copy
import datetime
import json
import os
import random
import shutil
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import tsar
from tsar.checks import small_forecaster
from tsar.checks.images import Images, small_image_model
from tsar.estimator.manifest import write_manifest
from tsar.exceptions import TsarError
from tsar.forecasting.registry import forecaster_class, forecaster_names
from tsar.image import ARPG, MAR, NAR, PAR, RAR, VAR, BlockFlow, FlowAR

RECORD, ARRAYS, MANIFEST = "model.json", "arrays.safetensors", "manifest.json"
# Seconds that a load and a forecast may take, on a busy machine.
LONGEST = 60.0
NUMBERS = (0, -1, 1, 2, 10**6, 10**9, 10**12, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30)
# Written by hand, because no encoder nests so deeply.
DEEP = {"@20": 20, "@70": 70, "@700": 700, "@50000": 50_000}
OTHERS = (
    *(None, True, False, 0.5, -0.0, 1e300, 1e-300, float("nan"), float("inf"), -float("inf")),
    *("", "x", "os.system", "1", "\x00", "é" * 50, [], {}, [[]], {"tuple": []}, {"forecaster": []}),
    *({"offset": {"freq": "h"}}, {"timestamp": ["x", None]}, {"object": ["loss", "mse", {}]}),
    *({"dict": [[1, 2]]}, {"period": [10**18, "D"]}, {"torch.optim": "SGD"}),
)


def _series():
    rng = np.random.default_rng(3)
    index = pd.date_range("2024-01-01", periods=70, freq="D", name="day")
    values = np.sin(np.arange(70)[:, None] * 0.9) * [1.0, 30.0] + rng.normal(size=(70, 2))
    return pd.DataFrame(values, index=index, columns=["a", "b"])


def _small(name):
    cls = forecaster_class(name)
    if name == "Ensemble":
        members = {"net": _small("NLinear"), "naive": _small("Naive"), "reg": _small("AutoReg")}
        return cls(models=members, horizon=3, weights="backtest", windows=2)
    small = {"horizon": 3, "max_epochs": 1, "context_length": 12, "season_length": 7, "n_jobs": 1}
    known = cls().get_params()
    return small_forecaster(cls, **{key: value for key, value in small.items() if key in known})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Every forecaster of tsar, saved, with what it forecasts, and image models with drawings."""
    root, series = tmp_path_factory.mktemp("models"), _series()
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in forecaster_names():
            model = _small(name).fit(series)
            model.save(root / name)
            found[name] = (root / name, model.predict())
        for cls, settings in (
            *((cls, {}) for cls in (ARPG, MAR, NAR, PAR, RAR, VAR, BlockFlow, FlowAR)),
            (VAR, {"across": "mamba2"}),
        ):
            model = small_image_model(cls, **settings).fit(Images().data(), list("abc") * 4)
            name = "-".join([cls.__name__, *settings.values()])
            model.save(root / name)
            found[name] = (root / name, _answer(model))
    return found


def _answer(model):
    """Return what a model forecasts, or what it draws."""
    if hasattr(model, "predict"):
        return model.predict()
    drawn = model.sample(label=["a", "c"], random_state=0)
    return pd.DataFrame(drawn.reshape(2, -1))


def _places(content, path=()):
    """List every place of a JSON content."""
    yield path
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in inner:
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))
        else:
            yield (*path, key)


def _mutate_json(content, rng):
    content = copy.deepcopy(content)
    *way, last = rng.choice([path for path in _places(content) if path])
    holder = content
    for key in way:
        holder = holder[key]
    held = holder[last]
    kind = rng.choice(["number", "other", "delete", "add", "nest", "near", "deep"])
    if kind == "delete":
        del holder[last]
    elif kind == "add" and isinstance(holder, dict):
        holder[rng.choice(["extra", "format", "horizon", "members"])] = rng.choice(OTHERS)
    elif kind == "add":
        holder.extend([held] * rng.choice([1, 3]))
    elif kind == "nest":
        holder[last] = rng.choice([[held], {"tuple": [held]}, {"x": held}])
    elif kind == "near" and type(held) in (int, float):
        holder[last] = rng.choice([held + 1, -held, held * 2, float(held), str(held)])
    elif kind == "deep":
        holder[last] = rng.choice(sorted(DEEP))
    else:
        holder[last] = rng.choice(NUMBERS if kind == "number" else OTHERS)
    return content


def _mutate_tensors(tensors, rng):
    tensors = dict(tensors)
    name = rng.choice(sorted(tensors))
    held = tensors[name]
    kind = rng.choice(["missing", "shape", "type", "rename", "value", "more", "empty", "huge"])
    if kind == "missing":
        del tensors[name]
    elif kind == "shape":
        tensors[name] = held.reshape(-1) if held.ndim != 1 else held.reshape(1, -1)
    elif kind == "type":
        tensors[name] = held.to(rng.choice([torch.float16, torch.int8, torch.bool, torch.float64]))
    elif kind == "rename":
        tensors[f"{name}x"] = tensors.pop(name)
    elif kind == "more":
        tensors[name] = torch.cat([held.reshape(-1), held.reshape(-1)])
    elif kind == "empty":
        tensors[name] = held[:0] if held.ndim else held.reshape(1)
    else:
        changed = held.clone().reshape(-1)
        if len(changed):
            value = rng.choice([-1, 0, 1, 100, 2**62, -(2**62), 1e38, float("nan"), float("inf")])
            if not held.dtype.is_floating_point:
                value = int(value) if abs(value) < 2**63 else 7
                value = (
                    max(min(value, torch.iinfo(held.dtype).max), torch.iinfo(held.dtype).min)
                    if held.dtype != torch.bool
                    else bool(value)
                )
            changed[rng.randrange(len(changed))] = value
        tensors[name] = changed.reshape(held.shape)
    return tensors


def _mutate_bytes(data, rng):
    kind = rng.choice(["flip", "flip", "cut", "add", "zero", "head"])
    data = bytearray(data)
    if kind == "cut":
        return bytes(data[: rng.randrange(len(data))])
    if kind == "add":
        return bytes(data) + rng.randbytes(rng.randrange(1, 50))
    place = rng.randrange(min(len(data), 400) if kind == "head" else len(data))
    if kind == "zero":
        data[place : place + 8] = bytes(len(data[place : place + 8]))
    else:
        data[place] ^= 1 << rng.randrange(8)
    return bytes(data)


def _mutate(folder, others, rng, how):
    """Change one thing in the folder of a model; return what."""
    kinds = [
        "json",
        "json",
        "json",
        "bytes",
        "bytes",
        "tensors",
        "tensors",
        "class",
        "file",
        "swap",
    ]
    kind = rng.choice(kinds)
    record = folder / RECORD
    if kind == "json":
        changed = _mutate_json(json.loads(record.read_text()), rng)
        text = json.dumps(changed)
        for mark, depth in DEEP.items():
            text = text.replace(f'"{mark}"', '{"tuple": [' * depth + "1" + "]}" * depth)
        record.write_text(text)
    elif kind == "bytes":
        path = rng.choice([record, folder / ARRAYS])
        path.write_bytes(_mutate_bytes(path.read_bytes(), rng))
    elif kind == "tensors":
        save_file(_mutate_tensors(load_file(folder / ARRAYS), rng), folder / ARRAYS)
    elif kind == "class":
        content = json.loads(record.read_text())
        content["class"] = rng.choice([*forecaster_names(), "Estimator", "object", "naive", ""])
        record.write_text(json.dumps(content))
    elif kind == "file":
        path = folder / rng.choice([RECORD, ARRAYS])
        action = rng.choice(["delete", "empty", "folder", "extra"])
        if action == "extra":
            (folder / "notes.txt").write_text("mine")
        else:
            path.unlink()
            if action == "empty":
                path.touch()
            elif action == "folder":
                path.mkdir()
    else:
        name = rng.choice([RECORD, ARRAYS])
        shutil.copy(rng.choice(others) / name, folder / name)
    if how == "sealed":
        if rng.random() < 0.1:
            manifest = folder / MANIFEST
            manifest.write_bytes(_mutate_bytes(manifest.read_bytes(), rng))
        elif rng.random() < 0.05:
            (folder / MANIFEST).unlink()
    elif how == "forged" and (folder / RECORD).is_file() and (folder / ARRAYS).is_file():
        write_manifest(folder, (RECORD, ARRAYS), 2)
    return kind


def _as_format_1(folder):
    (folder / MANIFEST).unlink()
    content = json.loads((folder / RECORD).read_text())

    def mark(described):
        described["format"] = 1
        for member in described["learned"].get("members", {}).values():
            mark(member)

    mark(content)
    (folder / RECORD).write_text(json.dumps(content))


def _outcome(folder, expected):
    begun = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            forecast = _answer(tsar.load(folder))
        same = isinstance(forecast, pd.DataFrame) and forecast.equals(expected)
        found = "same" if same else "other"
    except TsarError:
        found = "error"
    except Exception as error:
        found = f"bare {type(error).__name__}: {error}"
    return "hung" if time.monotonic() - begun > LONGEST else found


def _run(models, folder, seeds, how):
    """Return the faults among so many mutations."""
    names, faults = sorted(models), []
    for seed in seeds:
        rng = random.Random(seed)
        name = names[seed % len(names)]
        source, expected = models[name]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        if how == "plain":
            _as_format_1(folder)
        others = [path for path, _ in models.values() if path != source]
        kind = _mutate(folder, others, rng, how)
        found = _outcome(folder, expected)
        silent = how == "sealed" and found == "other"
        if silent or found.startswith(("bare", "hung")):
            faults.append(f"{name}, seed {seed}, {kind}, {how}: {found}")
    return faults


@pytest.mark.parametrize(("how", "number"), [("sealed", 200), ("forged", 150), ("plain", 150)])
def test_what_was_changed_is_noticed(models, tmp_path, how, number):
    assert _run(models, tmp_path / "model", range(number), how) == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sealed", "forged", "plain"])
def test_new_changes_are_noticed_every_night(models, tmp_path, how):
    today = datetime.date.today().toordinal()
    first = int(os.environ.get("TSAR_MUTATION_SEED", today)) * 1_000_000
    number = int(os.environ.get("TSAR_MUTATIONS", 10_000)) // 3
    assert _run(models, tmp_path / "model", range(first, first + number), how) == []


@pytest.mark.parametrize("how", ["sealed", "plain"])
def test_unchanged_models_forecast_the_same(models, tmp_path, how):
    for name, (source, expected) in models.items():
        shutil.copytree(source, tmp_path / name)
        if how == "plain":
            _as_format_1(tmp_path / name)
        assert _outcome(tmp_path / name, expected) == "same", name


@pytest.mark.parametrize(
    ("way", "value"),
    [
        (("data", "form", "dtypes"), ["flgat64"]),
        (("data", "form", "id_dtypes"), ["str"]),
        (("data", "form", "id_dtypes"), ["str", "int6x4"]),
        (("data", "form", "id_name"), ["shop", "item", "more"]),
        (("fitted", "output_range"), [0.0]),
        (("fitted", "output_range"), "infer"),
    ],
)
def test_damage_of_the_layout_and_the_range_is_noticed(tmp_path, way, value):
    days = pd.date_range("2024-01-01", periods=9)
    frame = pd.DataFrame({"shop": "a", "item": 1, "ds": days, "y": np.arange(9.0)})
    model = tsar.Naive(horizon=1, id_column=["shop", "item"], output_range="infer").fit(frame)
    model.save(tmp_path)
    content = json.loads((tmp_path / RECORD).read_text())
    holder = content["learned"]
    for key in way[:-1]:
        holder = holder[key]
    holder[way[-1]] = value
    (tmp_path / RECORD).write_text(json.dumps(content))
    write_manifest(tmp_path, (RECORD, ARRAYS), 2)
    with pytest.raises(tsar.exceptions.PersistenceError, match="load|range"):
        tsar.load(tmp_path)
