"""Make block diffusion of a trained language model, score it, and count its passes.

    TSAR_DATA=... python tests/benchmarks/block_diffusion.py MODEL [--block 4 8] [--share 0.2]

MODEL is the folder of a model of attention, as language_training.py --out writes it. It is trained
on for a share of its own steps. Printed are the bound of the first bytes of the held-out tail, in
nats per byte beside those of the model, and how many passes a token takes at each threshold.
"""

import argparse
import os
from pathlib import Path

import torch

import tsar
from tsar.language import BlockDiffusionLM


def main() -> None:
    """Print losses and passes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--block", nargs="+", type=int, default=[4, 8])
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--threshold", nargs="+", type=float, default=[0.9, 0.7])
    parser.add_argument("--scored", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    trained = tsar.load(options.model)
    text = Path(os.environ["TSAR_DATA"], "tinyshakespeare", "input.txt").read_text("utf-8")
    cut = int(0.9 * len(text))
    tail = text[cut : cut + options.scored]
    print(f"the model itself: {-trained.log_likelihood(tail)[0] / len(tail):.3f} nats")
    shared = {
        name: value
        for name, value in trained.get_params().items()
        if name in BlockDiffusionLM().get_params()
    }
    n_steps = max(1, round(options.share * trained.max_steps))
    for size in options.block:
        model = BlockDiffusionLM(**{**shared, "block_size": size, "max_steps": n_steps})
        model.fit(text[:cut], initial=trained)
        nats = -model.log_likelihood(tail)[0] / len(tail)
        print(f"blocks of {size}, {n_steps} steps: a bound of {nats:.3f} nats", flush=True)
        for threshold in options.threshold:
            for temperature in (0.0, 0.8):
                model.generate(
                    ["ROMEO:\n"] * 4, 200, threshold=threshold, temperature=temperature,
                    random_state=0,
                )  # fmt: skip
                done = model.decoding_
                print(
                    f"  threshold {threshold}, temperature {temperature}: "
                    f"{done['passes'] / max(1, done['tokens']):.2f} passes a token, "
                    f"{1000 * done['seconds'] / max(1, done['tokens']):.2f} ms",
                    flush=True,
                )


if __name__ == "__main__":
    main()
