"""Train a language model on tiny Shakespeare and score the whole tail, in nats per byte.

    TSAR_DATA=... python tests/benchmarks/language_training.py --mixer attention --tokens 2800000
    TSAR_DATA=... python tests/benchmarks/language_training.py --mixer mamba2 --tokens 410000 \
        --layers 7 --mlp none
    TSAR_DATA=... python tests/benchmarks/language_training.py --model masked_diffusion

The first 90 % of the text are trained on, and all of the rest is scored: in windows that overlap
by half, and in windows side by side, which is the convention of nanoGPT; with --scored also at
other lengths than that of the training. With --curve the loss of training goes to a CSV file, by
tokens and by seconds of the processor: the mean over each 50 steps, in nats per byte. With
--seconds a run is as long as that, by the time that steps take at its beginning: for comparisons at
equal time.
"""

import argparse
import csv
import os
import time
from pathlib import Path
from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor

from tsar.language import (
    AnyOrderLM,
    BlockTransformer,
    LanguageModel,
    MaskedDiffusionLM,
    MegaByte,
)
from tsar.language.base import TextEstimator
from tsar.language.corpus import DrawnWindows, OrderedWindows
from tsar.training import AdamW, Cosine, on_epoch

MODELS: dict[str, type[TextEstimator]] = {
    "language_model": LanguageModel,
    "megabyte": MegaByte,
    "block_transformer": BlockTransformer,
    "masked_diffusion": MaskedDiffusionLM,
    "any_order": AnyOrderLM,
}
# Of a point of the curve.
STEPS_PER_POINT = 50


def watched(cls: type[TextEstimator]) -> type[TextEstimator]:
    """Return a class whose epochs are a few steps, so that its training is seen."""

    class Watched(cls):  # type: ignore[misc, valid-type]
        def _sources(self, tokens: Tensor) -> tuple[DrawnWindows, OrderedWindows | None]:
            training, validation = super()._sources(tokens)
            training.epoch_size = STEPS_PER_POINT * int(self.batch_size)
            return training, validation

    return Watched


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="language_model", choices=list(MODELS))
    parser.add_argument("--mixer", nargs="+", default=["attention"], help="several are a hybrid")
    parser.add_argument("--tokens", type=float, default=2.8e6)
    parser.add_argument("--seconds", type=float, help="train so long, in place of --tokens")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--patch", type=int, default=4, help="tokens of a patch, if there are any")
    parser.add_argument("--local-width", type=int, default=64)
    parser.add_argument("--local-layers", type=int, default=2)
    parser.add_argument("--local-mixer", nargs="+", help="by default that of the model")
    parser.add_argument("--local-window", type=int, help="likewise; 0 ends it with the patch")
    parser.add_argument("--mlp", default="gelu", choices=["gelu", "swiglu", "none"])
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scored", type=int, nargs="*", default=[], help="windows as long as this")
    parser.add_argument("--curve", type=Path, help="where to write the loss by tokens and seconds")
    parser.add_argument("--out", type=Path, help="where to save the model")
    return parser.parse_args()


def main() -> None:
    """Print the size, the time and the losses."""
    options = _arguments()
    text = Path(os.environ["TSAR_DATA"], "tinyshakespeare", "input.txt").read_text("utf-8")
    cut = int(0.9 * len(text))
    torch.set_num_threads(options.threads)
    cls = MODELS[options.model]
    patched: dict[str, Any] = {
        "patch_size": options.patch,
        "d_local": options.local_width,
        "n_local_layers": options.local_layers,
    }
    if options.local_mixer is not None:
        patched["local_mixer"] = options.local_mixer
    if options.local_window is not None:
        patched["local_window"] = options.local_window or None
    model = watched(cls)(
        **{name: value for name, value in patched.items() if name in cls().get_params()},
        mixer=options.mixer,
        context_length=options.context,
        d_model=options.width,
        d_ff=4 * options.width,
        n_layers=options.layers,
        mlp=None if options.mlp == "none" else options.mlp,
        dropout=options.dropout,
        batch_size=options.batch,
        max_steps=round(options.tokens / (options.batch * options.context)),
        learning_rate=options.rate,
        optimizer=AdamW(weight_decay=0.1, betas=(0.9, 0.99), clip=1.0),
        learning_rate_schedule=Cosine(lowest=0.05, warmup_steps=100),
        random_state=options.seed,
        device="cpu",
    )
    if options.seconds:
        model.set_params(max_steps=_steps_within(options.seconds, model, text[:cut]))
    n_tokens = model.max_steps * options.batch * options.context
    rows = [("tokens", "seconds", "train_loss")]
    began, used = time.perf_counter(), time.process_time()

    def note(record: dict[str, float]) -> None:
        n_steps = STEPS_PER_POINT * len(rows)
        if n_steps > model.max_steps:
            return  # of a few steps only
        seconds = time.process_time() - used
        rows.append((n_steps * options.batch * options.context, seconds, record["train_loss"]))
        print("{:>10,} tokens {:7.0f} s {:.3f} nats".format(*rows[-1]), flush=True)

    with on_epoch(note):
        model.fit(text[:cut])
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    n_weights = sum(weights.numel() for weights in model.module_.parameters())
    print(
        f"{options.model}, {'+'.join(options.mixer)}: {n_weights / 1e6:.2f} M weights, "
        f"{n_tokens:,} tokens, seed {options.seed}, {torch.get_num_threads()} threads: "
        f"{seconds:.0f} s ({processor:.0f} s of processor)"
    )
    tail = text[cut:]
    for name, stride in (("overlapping by half", None), ("side by side", options.context)):
        print(f"  {_nats(model, tail, stride):.4f} nats per byte, windows {name}")
    for length in options.scored:
        model.set_params(context_length=length)
        model.remember_parameters()
        print(f"  {_nats(model, tail, None):.4f} nats per byte in windows of {length}")
    if options.curve:
        with options.curve.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)
    if options.out:
        model.set_params(context_length=options.context)
        model.remember_parameters()
        # Of the class that there is wherever it is loaded.
        trained = cls(**model.get_params())
        trained.restore_learned_state(*model.learned_state(), {})
        trained.save(options.out, training_state=False)


def _steps_within(seconds: float, model: TextEstimator, text: str) -> int:
    """Return how many steps fit, from the time that thirty of them take."""
    taken = []
    for n_steps in (5, 35):
        began = time.perf_counter()
        clone(model).set_params(max_steps=n_steps).fit(text)
        taken.append(time.perf_counter() - began)
    return max(1, round(30 * seconds / (taken[1] - taken[0])))


def _nats(model: TextEstimator, text: str, stride: int | None) -> float:
    return -float(model.log_likelihood(text, stride=stride)[0]) / len(text.encode("utf-8"))


if __name__ == "__main__":
    main()
