"""Compare orders of drawing on MNIST, at equal steps and over several seeds.

    TSAR_DATA=... python tests/benchmarks/image_orders.py --steps 600 --folder images

All models share the classifier and the tokenizer of the folder, which image_quality.py makes as
well. Printed for each seed are the loss of a token of held-out images (of RAR in the order of
reading, as TokenAR has it), how many of a thousand drawn digits are recognised, and the Frechet
distance of their features; behind them the means, and the mean differences with their standard
errors: of RAR from TokenAR, and of PAR in distant order from PAR in the order of reading, which
draws as many tokens in a pass.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_quality import COMMON, N_DRAWN, N_TRAINING, cached

from tsar.image import PAR, RAR, DigitClassifier, TokenAR, VQTokenizer
from tsar.image.evaluation import image_quality
from tsar.image.pixels import read_images

ORDERS: dict[str, Any] = {
    "TokenAR": lambda **how: TokenAR(**how),
    "RAR": lambda **how: RAR(**how),
    "PAR distant": lambda **how: PAR(**how),
    "PAR in order": lambda **how: PAR(distant=False, **how),
}


def main() -> None:
    """Print what each order reaches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("images"))
    parser.add_argument("--order", action="append", choices=list(ORDERS))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
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
    tokenizer = cached(
        options.folder / "vq",
        lambda: VQTokenizer(max_steps=1000, augment="shift", **COMMON).fit(training),
    )
    wanted = np.arange(N_DRAWN) % 10
    chosen = options.order or list(ORDERS)
    figures = np.full((len(chosen), options.seeds, 3), np.nan)
    for seed in range(options.seeds):
        for number, name in enumerate(chosen):
            began = time.perf_counter()
            model = ORDERS[name](
                tokenizer=tokenizer,
                max_steps=options.steps,
                learning_rate=3e-3,
                random_state=seed,
                device="cpu",
            ).fit(training, labels[:N_TRAINING])
            took = time.perf_counter() - began
            drawn = model.sample(label=wanted, guidance=1.0, top_p=0.96, random_state=seed)
            quality = image_quality(drawn, wanted, classifier, rest, training)
            loss = -model.score(rest, labels[N_TRAINING:])
            figures[number, seed] = loss, quality["recognised"], quality["frechet"]
            print(
                f"{name}, seed {seed}, {took:.0f} s: a loss of {loss:.4f}, "
                f"{quality['recognised']:.1%} recognised, Frechet {quality['frechet']:.1f}",
                flush=True,
            )
    for name, values in zip(chosen, figures, strict=True):
        loss, recognised, distance = values.mean(axis=0)
        print(f"{name}: {loss:.4f}, {recognised:.1%}, {distance:.1f}")
    for first, second in (("RAR", "TokenAR"), ("PAR distant", "PAR in order")):
        if first in chosen and second in chosen:
            differences = figures[chosen.index(first)] - figures[chosen.index(second)]
            error = differences.std(axis=0, ddof=1) / np.sqrt(options.seeds)
            parts = [
                f"{a:+.4f} +- {b:.4f}" for a, b in zip(differences.mean(0), error, strict=True)
            ]
            print(f"{first} - {second}: loss, recognised, Frechet {', '.join(parts)}")


if __name__ == "__main__":
    main()
