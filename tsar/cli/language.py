"""The commands ``tsar language`` and the demonstration of a language model."""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import tsar
from tsar.cli.logs import LoggedCommand
from tsar.cli.once import Command
from tsar.cli.options import Settings
from tsar.estimator.saving import check_folder
from tsar.exceptions import DataError
from tsar.params.constraints import check_choice
from tsar.params.text import parse_parameters

__all__ = ["app", "run_language_demo"]

app = typer.Typer(help="Language models: train on a text, continue a prompt.", no_args_is_help=True)

# Of the demonstration: small enough for a minute on one core.
DEMO: dict[str, Any] = {
    **{"mixer": ["mamba2", "attention"], "context_length": 128, "d_model": 96, "n_layers": 2},
    **{"n_heads": 4, "d_ff": 256, "max_steps": 500, "batch_size": 8},
    **{"random_state": 0, "device": "cpu", "verbose": 1},
}
HELD_OUT = 0.1


@app.command(cls=LoggedCommand)
def train(
    file: Annotated[Path, typer.Argument(help="A text in UTF-8, or a folder of .txt files.")],
    out: Annotated[Path, typer.Option(help="Folder for the trained model.")],
    model: Annotated[str, typer.Option(help="The class of the model.")] = "LanguageModel",
    mixer: Annotated[
        list[str] | None,
        typer.Option(help="What mixes tokens; repeated, the blocks take one after the other."),
    ] = None,
    held_out: Annotated[
        float, typer.Option(help="Share at the end to score afterwards; 0 trains on all.")
    ] = HELD_OUT,
    settings: Settings = None,
) -> None:
    """Train a language model on a text, score it on its end, and save it."""
    from tsar.language.registry import LANGUAGE_MODELS

    check_choice("tsar language train", "--model", model, LANGUAGE_MODELS)
    cls: Any = LANGUAGE_MODELS[model]
    parameters = parse_parameters(cls, settings or [])
    if mixer:
        parameters["mixer"] = mixer[0] if len(mixer) == 1 else mixer
    estimator = cls(**{"verbose": 1, **parameters})
    check_folder(out)
    texts = _read_texts(file)
    if not 0 <= held_out < 1:
        raise DataError(f"tsar language train: --held-out must be in [0, 1), got {held_out}")
    training, end = _divided(texts, held_out)
    began = time.perf_counter()
    estimator.fit(training)
    print(f"Trained on {estimator.n_tokens_:,} tokens in {time.perf_counter() - began:.0f} s")
    if end:
        print(_scores(estimator, end))
    estimator.save(out, training_state=False)
    print(f"Wrote {out}")


@app.command(cls=Command)
def generate(
    folder: Annotated[Path, typer.Argument(help="Folder of a saved language model.")],
    prompt: Annotated[str, typer.Option(help="The text to continue.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Tokens to add at most.")] = 300,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many of the likeliest.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the bulk of this share.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this; repeatable.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same text.")] = None,
) -> None:
    """Continue a prompt, piece by piece as the text is drawn."""
    model = tsar.load(folder)
    if not hasattr(model, "stream"):
        raise DataError(
            f"tsar language generate: {str(folder)!r} holds a {type(model).__name__}, which writes "
            f"no text; name the folder of a language model"
        )
    pieces = model.stream(
        prompt,
        max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop=stop or (),
        random_state=seed,
    )
    _write(prompt)
    for piece in pieces:
        _write(piece)
    _write("\n")


def run_language_demo(folder: Path, say: Callable[[str], Any] = print) -> dict[str, float]:
    """Train a small hybrid on the help texts of Python, score it, and let it write.

    Parameters
    ----------
    folder : pathlib.Path
        Where the model and its text are written; made if need be.
    say : callable
        What each line of the report is given to.

    Returns
    -------
    dict of str to float
        Nats per byte of the model and of a table of pairs of bytes, on the held-out end.
    """
    from tsar.language import LanguageModel
    from tsar.language.corpus import bundled_text

    check_folder(folder / "model")
    text = bundled_text()
    training, (end,) = _divided([text], HELD_OUT)
    say(f"The help texts of Python: {len(text):,} characters, of which the last tenth is held out")
    model = LanguageModel(**DEMO)
    began = time.perf_counter()
    model.fit(training)
    n_weights = sum(weights.numel() for weights in model.module_.parameters())
    say(f"A hybrid of Mamba-2 and attention, {n_weights:,} weights, learned them once in part:")
    say(f"{time.perf_counter() - began:.0f} seconds")
    nats = {
        "pairs of bytes": _nats_of_pairs(training[0], end),
        "this model": model.bits_per_byte(end) * math.log(2),
    }
    for name, value in nats.items():
        say(f"  {name}: {value:.3f} nats a byte of the held-out end")
    say("\nIt writes on after 'The statement':\n")
    written = model.generate("The statement", 300, temperature=0.7, random_state=0)
    say("The statement" + written)
    model.save(folder / "model", training_state=False)
    path = folder / "scores.json"
    path.write_text(json.dumps(nats, indent=1) + "\n", encoding="utf-8")
    say(f"\nWrote {folder / 'model'} and {path}; more of it:")
    say(f"tsar language generate {folder / 'model'} --prompt 'The statement'")
    return nats


def _nats_of_pairs(training: str, end: str) -> float:
    """Return the nats per byte of a table of which byte follows which, each seen once more."""
    seen, told = (np.frombuffer(text.encode("utf-8"), dtype=np.uint8) for text in (training, end))
    counts = np.ones((256, 256))
    np.add.at(counts, (seen[:-1], seen[1:]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log(shares[told[:-1], told[1:]]).mean())


def _read_texts(path: Path) -> list[str]:
    if not path.exists():
        raise DataError(f"tsar language train: {str(path)!r} does not exist")
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"tsar language train: the folder {str(path)!r} holds no .txt file")
    texts = []
    for file in files:
        try:
            texts.append(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"tsar language train: {str(file)!r} is no text in UTF-8: {error}; convert it first"
            ) from None
    return texts


def _divided(texts: list[str], held_out: float) -> tuple[list[str], list[str]]:
    """Cut a share off the end of all texts together."""
    left = round((1 - held_out) * sum(len(text) for text in texts))
    training, end = [], []
    for text in texts:
        training.append(text[: max(0, left)])
        end.append(text[max(0, left) :])
        left -= len(text)
    return [text for text in training if text], [text for text in end if text]


def _scores(model: Any, end: list[str]) -> str:
    bits, perplexity = model.bits_per_byte(end), model.perplexity(end)
    return (
        f"Of the held-out end: {bits:.3f} bits a byte ({bits * math.log(2):.3f} nats), "
        f"perplexity {perplexity:.2f} a token"
    )


def _write(piece: str) -> None:
    print(piece, end="", flush=True, file=sys.stdout)
