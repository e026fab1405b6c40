"""A training that was stopped goes on from its checkpoint as if it had not been."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch

import tsar
from tsar.data.windows import Windows
from tsar.exceptions import ParameterError, TrainingError
from tsar.language import LanguageModel
from tsar.language.corpus import DrawnWindows
from tsar.training import checkpoint as module
from tsar.training import on_epoch

SMALL = {
    **{"context_length": 24, "horizon": 6, "patch_length": 6, "stride": 6, "end_padding": False},
    **{"d_model": 8, "n_heads": 2, "d_ff": 8, "n_layers": 1, "dropout": 0.2},
    **{"max_epochs": 4, "random_state": 0, "device": "cpu", "learning_rate": 5e-3},
}


def _model(**parameters):
    return tsar.PatchTST(**{**SMALL, **parameters})


@pytest.fixture(autouse=True)
def every_step(monkeypatch):
    monkeypatch.setattr(module, "MINUTES", 0.0)


class Stop(Exception):
    pass


def _stop_after(monkeypatch, n_batches):
    """Let the windows end the training in the middle of an epoch."""
    plain, asked = Windows.batch, []

    def batch(self, index):
        asked.append(len(index))
        if len(asked) > n_batches:
            raise Stop
        return plain(self, index)

    monkeypatch.setattr(Windows, "batch", batch)


def _same(one, other):
    ours, theirs = one.module_.state_dict(), other.module_.state_dict()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    for name in one.history_.keys() - {"seconds"}:
        np.testing.assert_array_equal(one.history_[name], other.history_[name])
    assert (one.best_epoch_, one.n_epochs_) == (other.best_epoch_, other.n_epochs_)
    states = [model._training_state.to_tensors()[0] for model in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("n_batches", [3, 14])
def test_a_fit_goes_on_from_the_middle_of_an_epoch(
    early_stopping, n_batches, wide, tmp_path, monkeypatch
):
    options = {"early_stopping": early_stopping, "learning_rate_schedule": "one_cycle"}
    whole = _model(**options).fit(wide)
    with monkeypatch.context() as stopping, pytest.raises(Stop):
        _stop_after(stopping, n_batches)
        _model(**options).fit(wide, checkpoint=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [module.FILE]
    _same(_model(**options).fit(wide, checkpoint=tmp_path / "run"), whole)
    assert not (tmp_path / "run").exists()


def test_steps_that_are_done_are_not_done_again(wide, tmp_path, monkeypatch):
    with monkeypatch.context() as stopping, pytest.raises(Stop):
        _stop_after(stopping, 7)
        _model(early_stopping=False).fit(wide, checkpoint=tmp_path)
    asked, plain = [], Windows.batch
    monkeypatch.setattr(Windows, "batch", lambda self, i: asked.append(1) or plain(self, i))
    _model(early_stopping=False).fit(wide)
    whole = len(asked)
    del asked[:]
    _model(early_stopping=False).fit(wide, checkpoint=tmp_path)
    assert len(asked) == whole - 7


@pytest.mark.parametrize("n_batches", [5, 20, 27])
def test_a_fit_in_phases_goes_on_in_the_right_one(n_batches, wide, tmp_path, monkeypatch):
    options = {
        **{"fine_tuning": 3, "max_epochs": 3, "early_stopping": False, "max_steps": 29},
        "batch_size": 32,
    }
    start = _model().pretrain(wide).set_params(**options)
    start.save(tmp_path / "start")
    whole = tsar.load(tmp_path / "start").set_params(**options).fit(wide)
    with monkeypatch.context() as stopping, pytest.raises(Stop):
        _stop_after(stopping, n_batches)
        start.fit(wide, checkpoint=tmp_path / "run")
    twin = tsar.load(tmp_path / "start").set_params(**options)
    _same(twin.fit(wide, checkpoint=tmp_path / "run"), whole)


def test_a_pretraining_goes_on_too(wide, tmp_path, monkeypatch):
    options = {"max_epochs": 3}
    whole = _model(**options).pretrain(wide, mask_ratio=0.5)
    with monkeypatch.context() as stopping, pytest.raises(Stop):
        _stop_after(stopping, 7)
        _model(**options).pretrain(wide, mask_ratio=0.5, checkpoint=tmp_path / "run")
    for other, mask in (
        (_model(**options).fit, {}),
        (_model(**options).pretrain, {"mask_ratio": 0.8}),
    ):
        with pytest.raises(TrainingError, match="is of another training"):
            other(wide, checkpoint=tmp_path / "run", **mask)
    asked, plain = [], Windows.batch
    monkeypatch.setattr(Windows, "batch", lambda self, i: asked.append(1) or plain(self, i))
    resumed = _model(**options).pretrain(wide, mask_ratio=0.5, checkpoint=tmp_path / "run")
    first = len(asked)
    _model(**options).pretrain(wide, mask_ratio=0.5)
    assert len(asked) - first == first + 7
    assert not (tmp_path / "run").exists()
    for name in ("train_loss", "val_loss"):
        assert resumed.pretrain_history_[name] == whole.pretrain_history_[name]
    _same(resumed.fit(wide), whole.fit(wide))


def test_a_continued_fit_goes_on_too(wide, tmp_path, monkeypatch):
    options = {"warm_start": True, "max_epochs": 2}
    whole, half = (_model(**options).fit(wide) for _ in range(2))
    whole.fit(wide)
    half.save(tmp_path / "model")
    with monkeypatch.context() as stopping, pytest.raises(Stop):
        _stop_after(stopping, 4)
        half.fit(wide, checkpoint=tmp_path / "run")
    _same(tsar.load(tmp_path / "model").fit(wide, checkpoint=tmp_path / "run"), whole)


def test_a_seed_that_was_drawn_is_drawn_again(wide, tmp_path, monkeypatch):
    with monkeypatch.context() as stopping, pytest.raises(Stop):
        _stop_after(stopping, 4)
        _model(random_state=None).fit(wide, checkpoint=tmp_path)
    model = _model(random_state=None).fit(wide, checkpoint=tmp_path)
    _same(model, _model(random_state=model.seed_).fit(wide))


def test_a_process_that_is_killed_goes_on(tmp_path):
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        import numpy as np, pandas as pd, tsar
        from tsar.training import checkpoint, on_epoch
        checkpoint.MINUTES = 0.0
        index = pd.date_range("2024", periods=120, freq="h")
        frame = pd.DataFrame({{"y": np.sin(np.arange(120) / 4)}}, index=index)
        model = tsar.PatchTST(**{SMALL!r})

        def watch(record):
            if sys.argv[1:] and len(seen) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(record)

        seen = []
        with on_epoch(watch):
            model.fit(frame, checkpoint={str(tmp_path / "run")!r})
        print(len(seen), repr(model.predict()["y"].tolist()))
        """
    )
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([*command, "killed"], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    again = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    index = pd.date_range("2024", periods=120, freq="h")
    frame = pd.DataFrame({"y": np.sin(np.arange(120) / 4)}, index=index)
    expected = _model().fit(frame).predict()["y"].tolist()
    assert again.stdout.split(" ", 1) == ["2", f"{expected!r}\n"]


def test_nothing_is_written_without_being_asked_for(wide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.Checkpoint, "write", None)
    _model(max_epochs=1).fit(wide)
    assert not list(tmp_path.iterdir())


def test_what_else_is_in_the_folder_stays(wide, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    _model(max_epochs=1).fit(wide, checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.fixture
def stopped(wide, tmp_path, monkeypatch):
    with monkeypatch.context() as stopping, pytest.raises(Stop):
        _stop_after(stopping, 4)
        _model().fit(wide, checkpoint=tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"learning_rate": 0.1}, r"learning_rate was 0.005, now 0.1"),
        ({"d_model": 12}, r"d_model was 8, now 12; first weights differ"),
        ({"random_state": 1}, r"random_state was 0, now 1; seed was 0, now 1"),
        ({"loss": torch.nn.L1Loss(reduction="none")}, r"loss was 'quantile', now L1Loss\(\)"),
    ],
)
def test_the_checkpoint_of_another_fit_is_refused(parameters, words, stopped, wide):
    with pytest.raises(TrainingError, match=f"PatchTST: the checkpoint in .*: {words}"):
        _model(**parameters).fit(wide, checkpoint=stopped)
    assert (stopped / module.FILE).exists()


def test_the_checkpoint_of_other_data_is_refused(stopped, wide):
    changed = wide.copy()
    changed.iloc[17, 1] += 1e-3
    with pytest.raises(TrainingError, match="of another training: data differ; restore"):
        _model().fit(changed, checkpoint=stopped)
    with pytest.raises(TrainingError, match="class was PatchTST, now NLinear"):
        tsar.NLinear(context_length=24, horizon=6).fit(wide, checkpoint=stopped)


def test_how_much_is_said_makes_no_other_fit(stopped, wide):
    _model(verbose=1).fit(wide, checkpoint=stopped)


def test_a_damaged_checkpoint_is_one_error(stopped, wide):
    file = stopped / module.FILE
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(TrainingError, match="PatchTST: the checkpoint in .* is damaged"):
        _model().fit(wide, checkpoint=stopped)


@pytest.mark.parametrize("folder", ["", 3, b"x"])
def test_no_path_is_one_error(folder, wide):
    with pytest.raises(ParameterError, match="checkpoint must be the path of a folder, got"):
        _model().fit(wide, checkpoint=folder)


def test_a_file_is_no_folder(wide, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ParameterError, match="checkpoint must be a folder"):
        _model().fit(wide, checkpoint=tmp_path / "file")


def test_writing_waits_for_its_time(wide, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MINUTES", 10.0)
    written = []

    def watch(record):
        written.append((tmp_path / "run").exists())

    with on_epoch(watch):
        _model(max_epochs=2).fit(wide, checkpoint=tmp_path / "run")
    assert written == [False, False]


def test_a_checkpoint_of_another_loss_is_refused(wide, tmp_path):
    def model(loss):
        return tsar.NLinear(
            context_length=24, horizon=6, max_epochs=3, loss=loss, random_state=0, device="cpu"
        )

    def stop(record):
        raise RuntimeError("killed")

    pairs = [
        (torch.nn.HuberLoss(reduction="none", delta=5.0), torch.nn.HuberLoss(reduction="none")),
        (lambda f, t: (f - t).abs(), lambda f, t: (f - t) ** 2),
    ]
    for number, (one, other) in enumerate(pairs):
        folder = tmp_path / str(number)
        module_minutes = module.MINUTES
        module.MINUTES = 0.0
        try:
            with on_epoch(stop), pytest.raises(RuntimeError, match="killed"):
                model(one).fit(wide, checkpoint=folder)
        finally:
            module.MINUTES = module_minutes
        with pytest.raises(TrainingError, match="of another training: loss"):
            model(other).fit(wide, checkpoint=folder)
        model(one).fit(wide, checkpoint=folder)


def test_a_folder_that_cannot_be_is_found_before_the_training(wide, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="no folder that can be written"):
        _model().fit(wide, checkpoint=tmp_path / "file" / "below")


def test_a_language_model_goes_on_with_its_own_texts_only(tmp_path, monkeypatch):
    def fit(text, folder=None):
        model = LanguageModel(
            context_length=16, d_model=8, n_layers=1, d_ff=8, n_heads=2, dropout=0.2,
            max_steps=12, batch_size=4, random_state=0, device="cpu",
        )  # fmt: skip
        return model.fit(text, checkpoint=folder)

    text, plain, drawn = "the cat sat on the mat. " * 20, DrawnWindows.draw, []

    def draw(self, size, generator):
        drawn.append(size)
        if len(drawn) > 7:
            raise Stop
        return plain(self, size, generator)

    with monkeypatch.context() as stopping, pytest.raises(Stop):
        stopping.setattr(DrawnWindows, "draw", draw)
        fit(text, tmp_path / "run")
    with pytest.raises(TrainingError, match="another training"):
        fit(text.replace("cat", "dog"), tmp_path / "run")
    _same(fit(text, tmp_path / "run"), fit(text))
    assert not (tmp_path / "run").exists()
