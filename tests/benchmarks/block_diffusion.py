"""Make block diffusion of a trained language model, score it, and count its passes.

    TSAR_DATA=... python tests/benchmarks/block_diffusion.py MODEL [--block 4 8] [--share 0.2]

MODEL is the folder of a model of attention, as language_training.py --out writes it. It is trained
on for a share of its own steps, with the schedule of a BlockDiffusionLM. Printed are the bound of
the first bytes of the held-out tail, in nats per byte beside those of the model, and how many
passes a token takes at each threshold. Beside them stands how many it would take if the model
itself were asked: of each block the first token, and those behind it as long as it is surer than
the threshold of all of them together.
"""

import argparse
import os
import time
from pathlib import Path

import torch

import tsar
from tsar.language import BlockDiffusionLM, LanguageModel

PROMPT = "ROMEO:\n"


def main() -> None:
    """Print losses and passes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--block", nargs="+", type=int, default=[4, 8])
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--rate", type=float, help="learning rate, by default that of the model")
    parser.add_argument("--out", type=Path, help="where to save the model of the last block")
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
        if name in BlockDiffusionLM().get_params() and name != "learning_rate_schedule"
    }
    if options.rate:
        shared["learning_rate"] = options.rate
    drawn = {temperature: _chances(trained, temperature) for temperature in (0.0, 0.8)}
    n_steps = max(1, round(options.share * trained.max_steps))
    for size in options.block:
        model = BlockDiffusionLM(**{**shared, "block_size": size, "max_steps": n_steps})
        began = time.process_time()
        model.fit(text[:cut], initial=trained)
        seconds = time.process_time() - began
        if options.out:
            model.save(options.out, training_state=False)
        nats = -model.log_likelihood(tail)[0] / len(tail)
        print(
            f"blocks of {size}, {n_steps} steps, {seconds:.0f} s of processor: a bound of "
            f"{nats:.3f} nats",
            flush=True,
        )
        for threshold in options.threshold:
            for temperature in (0.0, 0.8):
                model.generate(
                    [PROMPT] * 4, 200, threshold=threshold, temperature=temperature,
                    random_state=0,
                )  # fmt: skip
                done = model.decoding_
                asked = _passes_of(trained, drawn[temperature], size, threshold)
                print(
                    f"  threshold {threshold}, temperature {temperature}: "
                    f"{done['passes'] / max(1, done['tokens']):.2f} passes a token, "
                    f"{1000 * done['seconds'] / max(1, done['tokens']):.2f} ms; {asked:.2f} passes "
                    f"of the model itself",
                    flush=True,
                )


def _chances(trained: LanguageModel, temperature: float) -> list[torch.Tensor]:
    """Return the chance of each token of texts that the model writes, those of the prompt first."""
    rows = []
    for seed in range(4):
        text = trained.generate(PROMPT, 200, temperature=temperature, random_state=seed)
        ids = torch.tensor(trained.encode(PROMPT + text))
        with torch.inference_mode():
            shares = trained.module_(ids[None, :-1])[0].softmax(dim=-1)
        rows.append(shares.gather(1, ids[1:, None])[:, 0])
    return rows


def _passes_of(
    trained: LanguageModel, rows: list[torch.Tensor], size: int, threshold: float
) -> float:
    """Return how many passes a token takes that are sure of a block from its beginning."""
    n_given = len(trained.encode(PROMPT))
    n_passes = n_tokens = 0
    for chances in rows:
        # The first token of a row is the boundary, which has no chance.
        place, end = n_given, len(chances) + 1
        n_tokens += end - place
        while place < end:
            n_passes += 1
            together, behind = float(chances[place - 1]), place + 1
            while behind < end and behind % size and together * chances[behind - 1] > threshold:
                together *= float(chances[behind - 1])
                behind += 1
            place = behind
    return n_passes / n_tokens


if __name__ == "__main__":
    main()
