"""The commands for images: trained, drawn, refused."""

import json

import numpy as np
import pytest

import tsar
from tsar.checks.images import Images
from tsar.cli import image as module

SMALL = ["--set", "d_model=8", "--set", "n_heads=2", "--set", "d_ff=8", "--set", "n_layers=1"]
SMALL += ["--set", "max_steps=3", "--set", "random_state=0", "--set", "tokenizer=pixels"]
SMALL += ["--set", "n_levels=2", "--set", "verbose=0"]


@pytest.fixture
def archive(tmp_path):
    images = Images().data().round()
    np.savez(tmp_path / "images.npz", images=images, labels=np.array([3, 4] * 6))
    return tmp_path / "images.npz"


def test_trained_and_drawn_as_in_python(archive, tmp_path, run):
    folder, out = tmp_path / "model", tmp_path / "drawn.npz"
    code, said, errors = run(
        *("image", "train", archive, "--model", "TokenAR", "--out", folder, *SMALL)
    )
    assert (code, errors) == (0, "") and "Of 1 held-out images" in said
    code, _, _ = run(
        *("image", "sample", folder, "--out", out, "--n", 2, "--label", 3, "--label", 4),
        *("--seed", 5, "--guidance", 1),
    )
    assert code == 0
    drawn = np.load(out)
    assert drawn["labels"].tolist() == [3, 3, 4, 4]
    model = tsar.load(folder)
    expected = model.sample(label=[3, 3, 4, 4], guidance=1.0, random_state=5)
    np.testing.assert_array_equal(drawn["images"], expected)
    figure = tmp_path / "drawn.png"
    code, said, _ = run("image", "sample", folder, "--out", figure, "--seed", 1)
    assert code == 0 and figure.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "none.npz", "--out", "m"), "none.npz does not exist"),
        (("train", "images.npz", "--out", "m", "--model", "VQTokenizer"), "--model must be one of"),
        (("train", "images.npz", "--out", "m", "--held-out", 1), "--held-out must be in [0, 1)"),
        (("train", "images.npz", "--out", "m", "--set", "patchsize=3"), "no parameter 'patchsize'"),
        (("sample", "forecaster", "--out", "a.png"), "holds a Naive, which draws no images"),
        (("sample", "forecaster", "--out", "a.txt"), "--out must end with one of .png"),
        (("sample", "forecaster", "--out", "none/a.png"), "the folder 'none' does not exist"),
    ],
)
def test_wrong_use_is_one_line(arguments, message, archive, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tsar.Naive().fit(tsar.load_dataset("elnino")).save("forecaster")
    code, _, errors = run("image", *arguments)
    assert code == 1 and message in errors and errors.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_the_demonstration_draws_and_judges(tmp_path, monkeypatch):
    for name in ("TOKENIZER", "DEMO", "CLASSIFIER"):
        held = {**getattr(module, name), "max_steps": 3}
        monkeypatch.setattr(module, name, {**held, **({"verbose": 0} if name == "DEMO" else {})})
    said = []
    quality = module.run_image_demo(tmp_path / "demo", said.append)
    assert json.loads((tmp_path / "demo" / "scores.json").read_text()) == quality
    assert (tmp_path / "demo" / "digits.png").is_file()
    assert tsar.load(tmp_path / "demo" / "model").sample(2).shape == (2, 8, 8)
    assert any("recognised" in line for line in said)
