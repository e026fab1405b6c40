"""Train a language model on tiny Shakespeare and score the whole tail, in nats per byte.

    TSAR_DATA=... python tests/benchmarks/language_training.py --mixer attention --tokens 2800000
    TSAR_DATA=... python tests/benchmarks/language_training.py --mixer mamba2 --tokens 410000 \
        --layers 7 --mlp none

The first 90 % of the text are trained on, and all of the rest is scored: in windows that overlap
by half, and in windows side by side, which is the convention of nanoGPT; with --scored also at
other lengths than that of the training. With --curve the loss of training goes to a CSV file, by
tokens and by seconds.
"""

import argparse
import csv
import os
import time
from pathlib import Path

import torch

from tsar.language import LanguageModel
from tsar.training import AdamW, Cosine, on_epoch


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixer", nargs="+", default=["attention"], help="several are a hybrid")
    parser.add_argument("--tokens", type=float, default=2.8e6)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
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
    model = LanguageModel(
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
    rows = [("tokens", "seconds", "train_loss")]
    began, used = time.perf_counter(), time.process_time()
    per_epoch = ((cut - 1) // options.context) * options.context

    def note(event: object) -> None:
        entry = getattr(event, "metrics", None) or vars(event)
        loss = entry.get("train_loss", float("nan")) if isinstance(entry, dict) else float("nan")
        rows.append((per_epoch * len(rows), time.perf_counter() - began, loss))

    with on_epoch(note):
        model.fit(text[:cut])
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    n_weights = sum(weights.numel() for weights in model.module_.parameters())
    print(
        f"{'+'.join(options.mixer)}: {n_weights / 1e6:.2f} M weights, {options.tokens:.3g} tokens, "
        f"seed {options.seed}, {torch.get_num_threads()} threads: {seconds:.0f} s "
        f"({processor:.0f} s of processor)"
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
        model.save(options.out, training_state=False)


def _nats(model: LanguageModel, text: str, stride: int | None) -> float:
    return -float(model.log_likelihood(text, stride=stride)[0]) / len(text.encode("utf-8"))


if __name__ == "__main__":
    main()
