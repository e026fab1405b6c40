"""Saved models: what is in them, what is refused, and what a failed save leaves."""

import json
import os
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

import tsar
from tsar.estimator import saving
from tsar.estimator.manifest import write_manifest
from tsar.exceptions import NotFittedError, ParameterError, PersistenceError
from tsar.training import AdamW

SMALL = {"context_length": 24, "horizon": 6, "max_epochs": 1, "random_state": 0, "device": "cpu"}


def _record(folder):
    return json.loads((folder / "model.json").read_text())


def _change(folder, **entries):
    """Change the record, and write the manifest again as if that had been saved."""
    (folder / "model.json").write_text(json.dumps(_record(folder) | entries))
    write_manifest(folder, ("model.json", "arrays.safetensors"), 2)


@pytest.fixture
def saved(wide, tmp_path):
    model = tsar.NLinear(**SMALL).fit(wide)
    model.save(tmp_path / "model")
    return model, tmp_path / "model"


def test_no_pickle_is_read(saved, monkeypatch):
    model, folder = saved

    def refuse(*args, **kwargs):
        raise AssertionError("a pickle was read")

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    pd.testing.assert_frame_equal(tsar.load(folder).predict(), model.predict(), check_exact=True)


def test_a_loaded_model_scores_and_continues_the_same(saved, wide):
    model, folder = saved
    twin = tsar.load(folder)
    assert twin.score(wide) == model.score(wide)
    assert twin.history_ == model.history_
    assert (twin.best_epoch_, twin.n_epochs_, twin.seed_) == (1, 1, 0)
    model.partial_fit(wide)
    twin.partial_fit(wide)
    pd.testing.assert_frame_equal(twin.predict(), model.predict(), check_exact=True)


@pytest.mark.parametrize(
    "freq",
    [
        pd.offsets.CustomBusinessDay(holidays=["2024-05-01"], weekmask="Mon Tue Wed Thu"),
        pd.DateOffset(months=1),
        pd.Timedelta("36h"),
        "W-WED",
    ],
    ids=str,
)
def test_any_frequency_comes_back(freq, tmp_path):
    index = pd.date_range("2024-01-17", periods=30, freq=freq)
    series = pd.Series(np.arange(30.0), index=index, name="sales")
    model = tsar.SeasonalNaive(horizon=9, freq=freq, season_length=4).fit(series)
    model.save(tmp_path / "model")
    twin = tsar.load(tmp_path / "model")
    assert twin.freq == freq
    pd.testing.assert_series_equal(twin.predict(), model.predict())
    # Refitting depends on the parameter, forecasting on what was learned.
    pd.testing.assert_series_equal(twin.fit(series).predict(), model.predict())


@pytest.mark.parametrize("kind", ["object", "category", "int64", "timestamp"])
def test_ids_come_back_with_their_dtype(kind, tmp_path):
    ids = {"int64": [3, 1], "timestamp": pd.to_datetime(["2020-01-01", "2021-01-01"])}
    labels = pd.Index(ids.get(kind, ["b", "a"]))
    if kind in ("object", "category"):
        labels = labels.astype(kind)
    stamps = pd.date_range("2024-01-01", periods=4, tz="Europe/Berlin")
    frame = pd.DataFrame({"unique_id": labels.repeat(4), "ds": stamps.append(stamps), "y": 1.5})
    model = tsar.Naive(horizon=2).fit(frame)
    model.save(tmp_path / "model")
    forecast = tsar.load(tmp_path / "model").predict()
    pd.testing.assert_frame_equal(forecast, model.predict())
    assert forecast["unique_id"].dtype == frame["unique_id"].dtype


def test_a_missing_device_is_no_obstacle(saved):
    model, folder = saved
    _change(folder, parameters=_record(folder)["parameters"] | {"device": "mps"})
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device that is meant to be missing")
    twin = tsar.load(folder)
    assert twin.device_ == "cpu"
    pd.testing.assert_frame_equal(twin.predict(), model.predict(), check_exact=True)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"class": "os.system"}, "no estimator"),
        ({"class": "../../NLinear"}, "no estimator"),
        ({"class": "NLinera"}, "did you mean 'NLinear'"),
        ({"format": 99}, "upgrade tsar"),
        ({"format": "1"}, "does not describe"),
        ({"learned": {}}, "has no 'data'; the model is incomplete"),
        ({"format": 1}, "its manifest.json says 2"),
        ({"parameters": {"horizon": {"code": "1"}}}, "unknown kind"),
    ],
)
def test_a_changed_manifest_is_refused(saved, change, message):
    _, folder = saved
    _change(folder, **change)
    with pytest.raises(PersistenceError, match=message):
        tsar.load(folder)


def test_damage_is_one_clear_error(saved):
    _, folder = saved
    arrays = folder / "arrays.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:100])
    with pytest.raises(PersistenceError, match="damaged"):
        tsar.load(folder)
    arrays.unlink()
    with pytest.raises(PersistenceError, match="damaged or incomplete"):
        tsar.load(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(PersistenceError, match="damaged"):
        tsar.load(folder)
    with pytest.raises(PersistenceError, match="no saved model"):
        tsar.load(folder.parent / "nowhere")


def test_a_save_never_destroys_something_else(saved, tmp_path):
    model, folder = saved
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("years of work")
    with pytest.raises(PersistenceError, match="more than a saved model; choose another"):
        model.save(other)
    with pytest.raises(PersistenceError, match="choose another"):
        model.save(other / "chapter1.txt")
    assert (other / "chapter1.txt").read_text() == "years of work"
    (folder / "notes.txt").write_text("mine")
    (other / "model.json").write_text("{}")
    for occupied in (folder, other):
        with pytest.raises(PersistenceError, match="choose another"):
            model.save(occupied)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(NotFittedError):
        tsar.NLinear().save(tmp_path / "unfitted")
    assert not (tmp_path / "unfitted").exists()


def test_a_failed_save_leaves_the_old_model(saved, monkeypatch):
    model, folder = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(saving, "save_file", fail)
    with pytest.raises(PersistenceError, match="no space left"):
        model.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert os.listdir(folder.parent) == ["model"], "something half-written was left"


def test_labels_without_json_form_are_refused_before_writing(tmp_path):
    frame = pd.DataFrame({("a", 1): np.arange(9.0)}, index=pd.date_range("2024-01-01", periods=9))
    frame.columns = pd.Index([frozenset({1})], dtype=object)
    model = tsar.Naive(horizon=2).fit(frame)
    with pytest.raises(PersistenceError, match="cannot be stored"):
        model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("folder", [None, 3, "", b"model"])
def test_what_is_no_path_is_refused(saved, folder):
    model, _ = saved
    for action in (model.save, tsar.load):
        with pytest.raises(PersistenceError, match="folder must be a path, got"):
            action(folder)


def test_the_current_folder_is_not_pulled_away(saved, tmp_path, monkeypatch):
    model, _ = saved
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(PersistenceError, match="is the current folder"):
        model.save(".")
    model.save("inside")
    assert tsar.load("./inside").predict().equals(model.predict())


def test_a_file_of_the_model_is_not_its_folder(saved):
    _, folder = saved
    with pytest.raises(PersistenceError, match="is a file; pass the folder"):
        tsar.load(folder / "model.json")


def test_a_numpy_length_is_a_frequency_that_is_saved(tmp_path):
    index = pd.date_range("2024-01-01", periods=9, freq="2h")
    series = pd.Series(np.arange(9.0), index=index)
    model = tsar.Naive(horizon=2, freq=np.timedelta64(2, "h")).fit(series)
    assert (model.predict().index == index[-1] + index.freq * np.array([1, 2])).all()
    model.save(tmp_path / "model")
    assert tsar.load(tmp_path / "model").freq == pd.Timedelta("2h")


class Halved(tsar.Naive):
    """A forecaster of one's own: half of the last value."""

    def _forecast_batch(self, inputs):
        return super()._forecast_batch(inputs) / 2


def test_a_class_of_ones_own_is_loaded_by_naming_it(wide, tmp_path):
    model = Halved(horizon=3).fit(wide)
    model.save(tmp_path / "own")
    with pytest.raises(
        PersistenceError, match=r"'Halved' is no estimator of .*load\(folder, cls=Halved"
    ):
        tsar.load(tmp_path / "own")
    pd.testing.assert_frame_equal(
        tsar.load(tmp_path / "own", cls=Halved).predict(), model.predict()
    )
    with pytest.raises(PersistenceError, match="holds a 'Halved', got cls=Naive"):
        tsar.load(tmp_path / "own", cls=tsar.Naive)
    with pytest.raises(PersistenceError, match="cls must be a class of estimators, got 'Halved'"):
        tsar.load(tmp_path / "own", cls="Halved")


def test_a_reference_that_is_wrong_is_no_damage(tmp_path):
    kind = AdamW(weight_decay=0.1)
    sea = tsar.load_dataset("elnino")
    model = tsar.NLinear(
        context_length=24, horizon=6, max_steps=2, optimizer=kind, random_state=0
    ).fit(sea)
    model.save(tmp_path / "model")
    with pytest.raises(
        ParameterError, match="optimizer must be one of 'adam', 'adamw' or .* got 'sgd'"
    ):
        tsar.load(tmp_path / "model", optimizer="sgd")
    twin = tsar.load(tmp_path / "model", optimizer=AdamW(weight_decay=0.2))
    assert twin.optimizer.weight_decay == 0.2
    pd.testing.assert_frame_equal(twin.predict(), model.predict())
