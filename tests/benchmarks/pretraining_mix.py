"""Train Time-MoE from scratch on a mix of public sets: experts against none, and a scaling law.

    python tests/benchmarks/pretraining_mix.py
    python tests/benchmarks/pretraining_mix.py --sweep --figure law.png

Every column of ETTh1, ETTh2, exchange_rate and national_illness is a series of its own, with the
time of its rows left out. The dense model has, in place of experts, one map as wide as what works
at a token. Both see the same windows in the same order; the loss is that of forecasts of the end
of each series. With --sweep, models of growing width are trained alike, and a power law is fitted
to their losses.
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import tsar
from tsar.core.mlp import GatedMLP
from tsar.evaluation import scaling_law
from tsar.plot import scaling_law as draw_law

SETS = ("ETTh1", "ETTh2", "exchange_rate", "national_illness")
WIDTHS = (8, 16, 32, 64)


@dataclass(kw_only=True, eq=False, repr=False)
class Dense(tsar.TimeMoE):
    """The same decoder without experts, of as many weights as work at a token."""

    def _build_network(self, spec: Any) -> nn.Module:
        network = super()._build_network(spec)
        for block in network.encoder.blocks:
            # The chosen experts together are as wide as the one that all tokens share.
            block.mlp = GatedMLP(self.d_model, 2 * self.d_ff, bias=False)
            for weight in block.mlp.parameters():
                nn.init.normal_(weight, std=0.02)
        return network


def read_mix(rows: int) -> pd.DataFrame:
    """Put the last rows of every column into one long frame."""
    parts = []
    for name in SETS:
        frame = tsar.load_dataset(name).iloc[-rows:]
        times = pd.date_range("2000-01-01", periods=len(frame), freq="h")
        for column in frame:
            values = frame[column].to_numpy(np.float64)
            parts.append(pd.DataFrame({"unique_id": f"{name}/{column}", "ds": times, "y": values}))
    return pd.concat(parts, ignore_index=True)


def train(cls: type[tsar.TimeMoE], mix: pd.DataFrame, seed: int, options: Any, **sizes: int) -> Any:
    """Return a fitted model, and print what came out."""
    started = time.perf_counter()
    model = cls(
        **{"context_length": 64, "horizon": 32, "horizon_lengths": (1, 8, 32), **sizes},
        max_steps=options.steps,
        batch_size=options.batch,
        learning_rate_schedule="cosine",
        optimizer=tsar.training.AdamW(weight_decay=0.1, betas=(0.9, 0.95), clip=1.0),
        early_stopping=0.05,
        random_state=seed,
        device="cpu",
    ).fit(mix)
    count = sum(weight.numel() for weight in model.module_.parameters())
    end = {name: values[-1] for name, values in model.history_.items()}
    print(
        f"{cls.__name__:8} width {model.d_model:3} seed {seed} {count:8} weights "
        f"loss {end['val_loss']:.4f} (training {end['train_loss']:.4f}) "
        f"{time.perf_counter() - started:.0f} s",
        flush=True,
    )
    return model


def sweep(mix: pd.DataFrame, options: argparse.Namespace) -> None:
    """Fit a power law to the losses of models of growing width."""
    sizes, losses = [], []
    for width in WIDTHS:
        for seed in range(options.seeds):
            shape = {"d_model": width, "d_ff": 4 * width, "n_layers": 2, "n_experts": 4}
            model = train(tsar.TimeMoE, mix, seed, options, **shape)
            sizes.append(sum(weight.numel() for weight in model.module_.parameters()))
            losses.append(model.history_["val_loss"][-1])
    law = scaling_law(sizes, losses, random_state=0)
    low, high = law.interval("exponent")
    print(f"exponent {law.exponent:.4f}, 95 % from {low:.4f} to {high:.4f}")
    if options.figure is not None:
        draw_law(law).figure.savefig(options.figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--figure")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    mix = read_mix(options.rows)
    print(f"{mix['unique_id'].nunique()} series, {len(mix)} rows, {options.steps} steps")
    if options.sweep:
        sweep(mix, options)
        return
    for seed in range(options.seeds):
        for cls in (tsar.TimeMoE, Dense):
            width = {"d_model": options.width, "d_ff": 4 * options.width}
            train(cls, mix, seed, options, n_layers=options.layers, **width)


if __name__ == "__main__":
    main()
