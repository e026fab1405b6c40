"""Train an image model on MNIST, and judge a thousand digits that it draws.

    TSAR_DATA=... python tests/benchmarks/image_quality.py --model VAR --steps 1500 --folder images

Of the 10,000 images of the test part of MNIST the first 8,000 are trained on. The folder keeps the
classifier and the tokenizers, which all models of tokens share, and the models, each under its
settings. With ``--refiner`` another VAR of that folder draws the last scales, with ``--passes`` an
ARPG draws several tokens in a pass. Printed are how many digits the classifier is right for, of
held-out images and of what comes back of them as tokens; the loss of a token or patch; and for each
guidance how many drawn digits are recognised, the Frechet distance of their features beside that
between as many real ones, how well a second classifier tells them from real ones, the share of near
copies, and the seconds that 1, 10 and 100 images take. Trainings print the seconds of the clock and
those of the processor.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tsar
import tsar.plot
from tsar.image import DigitClassifier, MultiScaleTokenizer, VQTokenizer
from tsar.image.drawn import ImageModel
from tsar.image.evaluation import frechet_distance, image_quality
from tsar.image.pixels import read_images
from tsar.image.registry import IMAGE_MODELS
from tsar.params.text import parse_parameters

N_TRAINING, N_DRAWN = 8000, 1000
COMMON: dict[str, Any] = {"random_state": 0, "device": "cpu"}
# Guidance, and of which share of the likeliest tokens is drawn then.
GUIDANCE = {0.0: None, 0.5: 0.96, 1.0: 0.96, 1.5: 0.96, 2.0: 0.9}


def cached(folder: Path, make: Any) -> Any:
    """Return what was fitted and saved in an earlier call, or fit and save it."""
    if folder.is_dir():
        return tsar.load(folder)
    began, worked = time.perf_counter(), time.process_time()
    made = make()
    made.save(folder)
    print(
        f"{type(made).__name__}: {time.perf_counter() - began:.0f} s, of the processor "
        f"{time.process_time() - worked:.0f} s",
        flush=True,
    )
    return made


def real_or_drawn(drawn: np.ndarray, real: np.ndarray) -> float:
    """Return how often a classifier tells drawn images from real ones, half of each unseen."""
    half = len(drawn) // 2
    images = np.concatenate([drawn, real[: len(drawn)] / np.float32(255)])
    labels = np.repeat(["drawn", "real"], len(drawn))
    seen = np.tile(np.arange(len(drawn)) < half, 2)
    judge = DigitClassifier(max_steps=300, **COMMON).fit(images[seen], labels[seen])
    return judge.score(images[~seen], labels[~seen])


def main() -> None:
    """Print what a model reaches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="VAR")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--folder", type=Path, default=Path("images"))
    parser.add_argument("--name", help="of the saved model in the folder; its settings by default")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--guidance", type=float, nargs="*", default=list(GUIDANCE))
    parser.add_argument("--figure", type=Path, help="draw six of each digit, guidance 1")
    parser.add_argument("--refiner", help="name of a VAR in the folder that draws the last scales")
    parser.add_argument("--refine-from", type=int, help="the first scale that the refiner draws")
    parser.add_argument("--passes", type=int, help="in how many an ARPG draws an image")
    parser.add_argument("--shuffled", action="store_true", help="labels of other images")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images, labels = read_images(
        Path(os.environ["TSAR_DATA"], "mnist", "t10k-images-idx3-ubyte.gz")
    )
    assert labels is not None, "they lie beside the images"
    training, rest, told = images[:N_TRAINING], images[N_TRAINING:], labels[:N_TRAINING]
    if options.shuffled:
        told = np.random.default_rng(0).permutation(told)
    folder = options.folder
    classifier = cached(
        folder / "clf",
        lambda: DigitClassifier(max_steps=1500, **COMMON).fit(training, labels[:N_TRAINING]),
    )
    print(f"classifier right: {classifier.score(rest, labels[N_TRAINING:]):.2%}", flush=True)
    kinds: Any = IMAGE_MODELS[options.model]
    of_tokens, told_by = issubclass(kinds, ImageModel), {}
    if of_tokens:
        scales = options.model == "VAR"
        kind, steps = (MultiScaleTokenizer, 1500) if scales else (VQTokenizer, 1000)
        tokenizer = cached(
            folder / ("ms" if scales else "vq"),
            lambda: kind(max_steps=steps, augment="shift", **COMMON).fit(training),
        )
        came_back = tokenizer.reconstruct(rest)
        one, other = came_back[N_DRAWN : 2 * N_DRAWN], rest[:N_DRAWN]
        distance = frechet_distance(classifier.features(one), classifier.features(other))
        print(
            f"of what comes back of tokens: {classifier.score(came_back, labels[N_TRAINING:]):.2%}"
            f", Frechet {distance:.1f}; codes in use: {(tokenizer.code_usage_ > 0).sum()}",
            flush=True,
        )
        told_by = {"tokenizer": tokenizer}
    settings = parse_parameters(kinds, options.set)
    model = kinds(**{**told_by, **COMMON, "max_steps": options.steps, **settings})
    name = options.name or "-".join([options.model, str(options.steps), *options.set])
    name += "-shuffled" if options.shuffled else ""
    model = cached(folder / name, lambda: model.fit(training, told))
    n_weights = sum(weights.numel() for weights in model.module_.parameters())
    loss = -model.score(rest, labels[N_TRAINING:])
    print(
        f"{options.model}, {n_weights:,} weights, {options.steps} steps: a loss of {loss:.3f} for "
        f"a token of held-out images, {model.history_['train_loss'][-1]:.3f} in the last epoch",
        flush=True,
    )
    drawing: dict[str, Any] = {} if options.passes is None else {"n_passes": options.passes}
    if options.refiner is not None:
        drawing["refiner"] = tsar.load(folder / options.refiner)
        drawing["refine_from"] = options.refine_from
    wanted = np.arange(N_DRAWN) % 10
    for guidance in options.guidance:
        top_p = GUIDANCE.get(guidance, 0.9)
        bulk = {**drawing, "top_p": top_p} if of_tokens else drawing
        drawn = model.sample(label=wanted, guidance=guidance, random_state=0, **bulk)
        quality = image_quality(drawn, wanted, classifier, rest, training)
        print(
            f"guidance {guidance}, top_p {top_p}: {quality['recognised']:.1%} recognised, Frechet "
            f"{quality['frechet']:.1f} ({quality['frechet_real']:.1f} real), told from real ones "
            f"{real_or_drawn(drawn, rest):.1%}, near copies {quality['near_copies']:.1%}",
            flush=True,
        )
    if options.figure is not None:
        shown = model.sample(label=list(range(10)) * 6, guidance=1.0, random_state=1, **drawing)
        grid = tsar.plot.image_grid(shown, n_columns=10, titles=range(10))
        grid.figure.savefig(options.figure, dpi=80)
    model.sample(1, label=0, guidance=1.0, random_state=0, **drawing)  # What a process does once.
    for count in (1, 10, 100):
        began, busy = time.perf_counter(), time.process_time()
        model.sample(label=wanted[:count], guidance=1.0, random_state=0, **drawing)
        seconds, of_processor = time.perf_counter() - began, time.process_time() - busy
        print(f"{count} images: {seconds:.3f} s, {of_processor:.3f} of a processor", flush=True)


if __name__ == "__main__":
    main()
