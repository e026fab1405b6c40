"""Compare variants of image models on MNIST, at equal steps and over several seeds.

    TSAR_DATA=... python tests/benchmarks/image_variants.py --steps 600 --folder images \\
        --variant TokenAR --variant RAR

All models share the classifier, and those of tokens the tokenizer, of the folder, which
image_quality.py makes as well. Printed for each seed are the loss of a token or patch of held-out
images (of RAR in the order of reading, as TokenAR has it), and for each guidance how many of a
thousand drawn digits are recognised, and the Frechet distance of their features; behind them the
means over the seeds, and for the pairs that a paper compares the mean differences with their
standard errors. With ``--figure`` the means are drawn over the guidance.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_quality import COMMON, N_DRAWN, N_TRAINING, cached

from tsar.image import MAR, PAR, RAR, BlockFlow, DigitClassifier, TokenAR, VQTokenizer
from tsar.image.drawn import ImageModel
from tsar.image.evaluation import image_quality
from tsar.image.pixels import read_images

FLOW: dict[str, Any] = {"batch_size": 32, "learning_rate": 2e-3}
PATCHES: dict[str, Any] = {"learning_rate": 2e-3}
VARIANTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "TokenAR": (TokenAR, {}),
    "RAR": (RAR, {}),
    "PAR distant": (PAR, {}),
    "PAR in order": (PAR, {"distant": False}),
    "BlockFlow noisy": (BlockFlow, {"context": "noisy", **FLOW}),
    "BlockFlow clean": (BlockFlow, {"context": "clean", **FLOW}),
    "MAR flow": (MAR, {"head": "flow", **PATCHES}),
    "MAR diffusion": (MAR, {"head": "diffusion", **PATCHES}),
    "MAR squared error": (MAR, {"head": "squared_error", **PATCHES}),
}
# A paper says that the first is at least as good as the second.
PAIRS = (
    ("RAR", "TokenAR"),
    ("PAR distant", "PAR in order"),
    ("BlockFlow noisy", "BlockFlow clean"),
    ("MAR diffusion", "MAR squared error"),
    ("MAR flow", "MAR squared error"),
)


def main() -> None:
    """Print what each variant reaches."""
    options = _options()
    torch.set_num_threads(options.threads)
    images, labels = read_images(
        Path(os.environ["TSAR_DATA"], "mnist", "t10k-images-idx3-ubyte.gz")
    )
    assert labels is not None, "they lie beside the images"
    training, rest = images[:N_TRAINING], images[N_TRAINING:]
    classifier = cached(
        options.folder / "clf",
        lambda: DigitClassifier(max_steps=1500, **COMMON).fit(training, labels[:N_TRAINING]),
    )
    wanted = np.arange(N_DRAWN) % 10
    chosen = options.variant or list(VARIANTS)
    losses = np.full((len(chosen), options.seeds), np.nan)
    # Recognised, and the Frechet distance.
    figures = np.full((len(chosen), options.seeds, len(options.guidance), 2), np.nan)
    for seed in range(options.seeds):
        for number, name in enumerate(chosen):
            model = _fitted(name, seed, training, labels[:N_TRAINING], options)
            losses[number, seed] = -model.score(rest, labels[N_TRAINING:])
            print(f"  a loss of {losses[number, seed]:.4f}", flush=True)
            how = {"top_p": 0.96} if isinstance(model, ImageModel) else {}
            for place, guidance in enumerate(options.guidance):
                drawn = model.sample(label=wanted, guidance=guidance, random_state=seed, **how)
                quality = image_quality(drawn, wanted, classifier, rest, training)
                figures[number, seed, place] = quality["recognised"], quality["frechet"]
                print(
                    f"  guidance {guidance:g}: {quality['recognised']:.1%} recognised, Frechet "
                    f"{quality['frechet']:.1f}",
                    flush=True,
                )
    _summarise(chosen, losses, figures, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("images"))
    parser.add_argument("--variant", action="append", choices=list(VARIANTS))
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0])
    parser.add_argument("--figure", type=Path, help="draw the means over the guidance")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _fitted(
    name: str, seed: int, images: np.ndarray, labels: np.ndarray, options: argparse.Namespace
) -> Any:
    """Fit a variant, and say how long it took."""
    kind, settings = VARIANTS[name]
    if issubclass(kind, ImageModel):
        tokenizer = cached(
            options.folder / "vq",
            lambda: VQTokenizer(max_steps=1000, augment="shift", **COMMON).fit(images),
        )
        settings = {"tokenizer": tokenizer, "learning_rate": 3e-3, **settings}
    began = time.process_time()
    model = kind(max_steps=options.steps, random_state=seed, device="cpu", **settings)
    model.fit(images, labels)
    print(f"{name}, seed {seed}, {time.process_time() - began:.0f} s of the processor", flush=True)
    return model


def _summarise(
    chosen: list[str], losses: np.ndarray, figures: np.ndarray, options: argparse.Namespace
) -> None:
    """Print means over the seeds and the differences of pairs, and draw them if asked to."""
    for name, loss, values in zip(chosen, losses, figures, strict=True):
        print(f"{name}: a loss of {loss.mean():.4f}")
        for guidance, (recognised, distance) in zip(
            options.guidance, values.mean(axis=0), strict=True
        ):
            print(f"  guidance {guidance:g}: {recognised:.1%}, {distance:.1f}")
    for pair in PAIRS:
        if set(pair) <= set(chosen):
            first, second = (chosen.index(name) for name in pair)
            _compare(pair, losses[first] - losses[second], figures[first] - figures[second])
    if options.figure is not None:
        _draw(dict(zip(chosen, figures.mean(axis=1), strict=True)), options)


def _compare(pair: tuple[str, str], losses: np.ndarray, figures: np.ndarray) -> None:
    """Print the mean differences of two variants, by seed (S,) and (S, guidance, 2)."""
    parts = {"loss": losses, "recognised": figures[..., 0].mean(axis=1)}
    parts["Frechet"] = figures[..., 1].mean(axis=1)
    said = [
        f"{name} {values.mean():+.4f} +- {_error(values):.4f}" for name, values in parts.items()
    ]
    print(f"{pair[0]} - {pair[1]}: {', '.join(said)}")


def _error(values: np.ndarray) -> float:
    """Return the standard error of a mean, NaN of a single seed."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def _draw(means: dict[str, np.ndarray], options: argparse.Namespace) -> None:
    """Draw what is recognised, and the Frechet distance, over the guidance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    titles = ("recognised as what was asked for", "Frechet distance")
    for place, (ax, title) in enumerate(zip(figure.subplots(1, 2), titles, strict=True)):
        for name, values in means.items():
            ax.plot(options.guidance, values[:, place], marker="o", label=name)
        ax.set(xlabel="guidance", title=title)
    figure.axes[1].legend(frameon=False)
    figure.savefig(options.figure, dpi=110)


if __name__ == "__main__":
    main()
