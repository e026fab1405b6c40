"""The commands ``tsar image`` and the demonstration of a model of images."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import tsar
from tsar.cli.once import Command
from tsar.cli.options import Settings
from tsar.estimator.saving import check_folder
from tsar.exceptions import DataError
from tsar.params.constraints import check_choice
from tsar.params.text import parse_parameters

__all__ = ["app", "run_image_demo"]

app = typer.Typer(help="Image models: train on images, draw new ones.", no_args_is_help=True)

# Of the demonstration: small enough for a minute on one core.
TOKENIZER: dict[str, Any] = {"n_codes": 64, "width": 32, "max_steps": 600, "learning_rate": 3e-3}
DEMO: dict[str, Any] = {
    **{"d_model": 96, "n_layers": 3, "n_heads": 4, "d_ff": 256, "max_steps": 900},
    **{"learning_rate": 2e-3, "verbose": 1},
}
CLASSIFIER: dict[str, Any] = {"max_steps": 500, "learning_rate": 3e-3, "augment": None}
COMMON: dict[str, Any] = {"random_state": 0, "device": "cpu"}
ENDINGS = (".png", ".pdf", ".svg", ".npz")


@app.command(cls=Command)
def train(
    images: Annotated[
        Path, typer.Argument(help="A folder of images (sub-folders are labels), .npz or IDX file.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the trained model.")],
    model: Annotated[str, typer.Option(help="The class of the model.")] = "VAR",
    held_out: Annotated[
        float, typer.Option(help="Share at the end to score afterwards; 0 trains on all.")
    ] = 0.1,
    settings: Settings = None,
) -> None:
    """Train an image model, score it on held-out images, and save it."""
    from tsar.image.drawn import ImageModel
    from tsar.image.pixels import read_images
    from tsar.image.registry import IMAGE_MODELS

    drawing = [name for name, cls in IMAGE_MODELS.items() if issubclass(cls, ImageModel)]
    check_choice("tsar image train", "--model", model, drawing)
    cls: Any = IMAGE_MODELS[model]
    estimator = cls(**{"verbose": 1, **parse_parameters(cls, settings or [])})
    estimator.check()
    check_folder(out)
    if not 0 <= held_out < 1:
        raise DataError(f"tsar image train: --held-out must be in [0, 1), got {held_out}")
    pixels, labels = read_images(images)
    # Images of a folder come sorted by their labels.
    order = np.random.default_rng(0).permutation(len(pixels))
    cut = len(pixels) - round(held_out * len(pixels))
    training, rest = order[:cut], order[cut:]
    began = time.perf_counter()
    estimator.fit(pixels[training], None if labels is None else labels[training])
    print(f"Trained on {cut:,} images in {time.perf_counter() - began:.0f} s")
    if len(rest):
        score = estimator.score(pixels[rest], None if labels is None else labels[rest])
        print(f"Of {len(rest):,} held-out images: {-score:.3f} nats a token")
    estimator.save(out, training_state=False)
    print(f"Wrote {out}")


@app.command(cls=Command)
def sample(
    folder: Annotated[Path, typer.Argument(help="Folder of a saved image model.")],
    out: Annotated[Path, typer.Option(help="Figure (.png, .pdf, .svg) or .npz to write.")],
    n: Annotated[int, typer.Option(min=1, help="How many images, of each label.")] = 16,
    label: Annotated[list[str] | None, typer.Option(help="What they show; repeatable.")] = None,
    guidance: Annotated[
        float, typer.Option(help="How much farther than the label asks for.")
    ] = 0.0,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 1.0,
    top_p: Annotated[float | None, typer.Option(help="Draw from the bulk of this share.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same images.")] = None,
) -> None:
    """Draw images, as a figure of all of them or as an array."""
    if out.suffix not in ENDINGS:
        raise DataError(
            f"tsar image sample: --out must end with one of {', '.join(ENDINGS)}, got {str(out)!r}"
        )
    if not out.parent.is_dir():
        raise DataError(f"tsar image sample: the folder {str(out.parent)!r} does not exist")
    model = tsar.load(folder)
    if not hasattr(model, "sample") or not hasattr(model, "image_shape_"):
        raise DataError(
            f"tsar image sample: {str(folder)!r} holds a {type(model).__name__}, which draws no "
            f"images; name the folder of an image model"
        )
    wanted = None if label is None else [_as_fitted(model, one) for one in label for _ in range(n)]
    drawn = model.sample(
        n if wanted is None else len(wanted),
        wanted,
        guidance=guidance,
        temperature=temperature,
        top_p=top_p,
        random_state=seed,
    )
    if out.suffix == ".npz":
        told: dict[str, Any] = {} if wanted is None else {"labels": np.array(wanted)}
        np.savez_compressed(out, images=drawn, **told)
    else:
        _figure(drawn, n if label is not None and len(label) > 1 else None, None).savefig(out)
    print(f"Wrote {out}")


def _as_fitted(model: Any, label: str) -> Any:
    """Return the fitted label that is written so; the text itself where there is none."""
    classes = [] if model.classes_ is None else model.classes_.tolist()
    return next((one for one in classes if str(one) == label), label)


def _figure(images: np.ndarray, n_columns: int | None, titles: Any) -> Any:
    from tsar import plot

    return plot.image_grid(images, n_columns=n_columns, titles=titles).figure


def run_image_demo(folder: Path, say: Callable[[str], Any] = print) -> dict[str, float]:
    """Train a small VAR on the digits of scikit-learn, judge what it draws, and draw some.

    Parameters
    ----------
    folder : pathlib.Path
        Where the model, its figure and its scores are written; made if need be.
    say : callable
        What each line of the report is given to.

    Returns
    -------
    dict of str to float
        See :func:`tsar.image.evaluation.image_quality`.
    """
    from sklearn.datasets import load_digits

    from tsar.image import VAR, DigitClassifier, MultiScaleTokenizer
    from tsar.image.evaluation import image_quality

    check_folder(folder / "model")
    digits = load_digits()
    images, labels = digits.images / 16, digits.target
    cut = 1297
    say(f"The digits of scikit-learn, 8 x 8 pixels: {cut:,} to train on, {len(images) - cut} not")
    classifier = DigitClassifier(**CLASSIFIER, **COMMON).fit(images[:cut], labels[:cut])
    say(f"A classifier is right for {classifier.score(images[cut:], labels[cut:]):.1%} of the rest")
    began = time.perf_counter()
    tokenizer = MultiScaleTokenizer(**TOKENIZER, **COMMON).fit(images[:cut])
    model = VAR(tokenizer=tokenizer, **DEMO, **COMMON).fit(images[:cut], labels[:cut])
    say(f"A VAR of scales {tokenizer.sides()} was trained in {time.perf_counter() - began:.0f} s")
    wanted = np.arange(240) % 10
    drawn = model.sample(label=wanted, guidance=1.0, top_p=0.95, random_state=0)
    quality = image_quality(drawn, wanted, classifier, images[cut:], images[:cut])
    say(f"Of 240 drawn digits {quality['recognised']:.1%} are recognised; Frechet distance")
    say(f"{quality['frechet']:.1f}, between real ones {quality['frechet_real']:.1f}")
    model.save(folder / "model", training_state=False)
    _figure(drawn[:100], 10, range(10)).savefig(folder / "digits.png")
    path = folder / "scores.json"
    path.write_text(json.dumps(quality, indent=1) + "\n", encoding="utf-8")
    say(f"Wrote {folder / 'model'}, {folder / 'digits.png'} and {path}; more of it:")
    say(f"tsar image sample {folder / 'model'} --label 3 --guidance 1 --out threes.png")
    return quality
