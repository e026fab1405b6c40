"""``tsar language``: train on a file, score its end, save, and continue a prompt."""

import json
import math

import numpy as np
import pytest

import tsar
from tsar.cli import language
from tsar.cli.language import run_language_demo
from tsar.cli.main import main

TEXT = "the cat sat on the mat, and the dog sat on the log. " * 30
SMALL = [
    *("--set", "context_length=16", "--set", "d_model=8", "--set", "n_layers=2"),
    *("--set", "n_heads=2", "--set", "d_ff=12", "--set", "max_steps=4", "--set", "random_state=0"),
    *("--set", "verbose=0", "--set", "device=cpu"),
]


def _run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_trained_model_continues_a_prompt(file, tmp_path, capsys):
    out = tmp_path / "model"
    assert _run("language", "train", file, "--out", out, "--mixer", "mamba2", *SMALL) == 0
    printed = capsys.readouterr().out
    model = tsar.load(out)
    assert model.mixer == "mamba2"
    bits = model.bits_per_byte(TEXT[round(0.9 * len(TEXT)) :])
    assert f"{bits:.3f} bits a byte ({bits * math.log(2):.3f} nats)" in printed
    how = ("--max-tokens", "30", "--seed", "3")
    assert _run("language", "generate", out, "--prompt", "the", *how) == 0
    written = model.generate("the", 30, temperature=0.8, random_state=3)
    assert capsys.readouterr().out == f"the{written}\n"


def test_several_mixers_are_a_hybrid_and_a_folder_is_several_texts(file, tmp_path):
    (tmp_path / "more.txt").write_text(TEXT[:400], encoding="utf-8")
    out = tmp_path / "model"
    hybrid = ("--mixer", "retention", "--mixer", "attention", "--held-out", "0")
    assert _run("language", "train", tmp_path, "--out", out, *hybrid, *SMALL) == 0
    model = tsar.load(out)
    assert model.mixer == ["retention", "attention"]
    # A boundary before each text.
    assert model.n_tokens_ == len(TEXT) + 400 + 2


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("nowhere.txt",), "does not exist"),
        (("text.txt", "--held-out", "1"), "--held-out must be in"),
        (("text.txt", "--model", "LanguagModel"), "did you mean 'LanguageModel'"),
        (("text.txt", "--mixer", "mamba3"), "mixer must be"),
        (("text.txt", "--set", "d_modle=3"), "d_model"),
        (("latin.txt",), "is no text in UTF-8"),
        (("empty.txt",), "no text"),
        (("folder",), "holds no .txt file"),
    ],
)
def test_what_cannot_be_trained_on(file, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes("schön".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "folder").mkdir()
    assert _run("language", "train", *arguments, "--out", "model") in (1, 2)
    assert words in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_forecaster_writes_no_text(tmp_path, capsys):
    tsar.SeasonalNaive(season_length=12).fit(tsar.load_dataset("elnino")).save(tmp_path / "model")
    assert _run("language", "generate", tmp_path / "model") == 1
    assert "holds a SeasonalNaive, which writes no text" in capsys.readouterr().err


def test_the_demonstration_beats_a_table_of_pairs(tmp_path, monkeypatch):
    monkeypatch.setitem(language.DEMO, "max_steps", 3)
    said = []
    scores = run_language_demo(tmp_path, said.append)
    assert json.loads((tmp_path / "scores.json").read_text()) == scores
    assert tsar.load(tmp_path / "model").mixer == ["mamba2", "attention"]
    assert any("held-out end" in line for line in said)


def test_pairs_of_bytes_by_hand():
    # After "a" comes "b" twice of 2 + 256, after "b" comes "a" once of 1 + 256.
    expected = -np.log([3 / 258, 2 / 257]).mean()
    assert language._nats_of_pairs("abab", "aba") == pytest.approx(expected)
