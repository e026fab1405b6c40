"""Train mixers to copy the letters among blanks, from memory alone.

    python tests/benchmarks/selective_copying.py --mixer mamba structured_state_space

Of a row of places some hold a letter, others a blank. Behind them stand as many marks as there are
letters, at which the letters are to be said in their order: what is between them must not be
remembered, and where they are is never the same. Rows are drawn anew for every step. Printed are
the loss and the share of letters that are said right, of rows drawn apart.
"""

import argparse
import time

import torch
from torch.nn import functional as F

from tsar.core.decoder import Decoder
from tsar.core.mixers import accepted_options, make_mixer
from tsar.language.network import TokenNetwork
from tsar.training.schedules import Cosine, make_schedule

WIDTH, HIDDEN, LAYERS, HEADS = 64, 512, 2, 4
BATCH, WARMUP, RATE = 64, 100, 3e-3


def rows(
    n_rows: int, options: argparse.Namespace, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw tokens (B, places + copied), and the letters (B, copied) that are to be said."""
    letters = torch.randint(options.letters, (n_rows, options.copied), generator=generator)
    order = torch.rand(n_rows, options.places, generator=generator).argsort(dim=1)
    places = order[:, : options.copied].sort(dim=1).values
    shown = torch.full((n_rows, options.places), options.letters).scatter_(1, places, letters)
    marks = torch.full((n_rows, options.copied), options.letters + 1)
    return torch.cat([shown, marks], dim=1), letters


def learn(mixer: str, options: argparse.Namespace) -> None:
    """Train one mixer, and print how far it has come."""
    torch.manual_seed(options.seed)
    held = accepted_options(mixer, n_heads=HEADS, causal=True, rotary=True, qk_norm=True)
    decoder = Decoder(
        [make_mixer(mixer, WIDTH, **held) for _ in range(LAYERS)],
        d_model=WIDTH,
        d_ff=HIDDEN,
        position=None,
        max_tokens=None,
        norm="rms",
    )
    network = TokenNetwork(decoder, options.letters + 2)
    generator = torch.Generator().manual_seed(options.seed + 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, betas=(0.9, 0.95))
    rate = make_schedule(
        Cosine(lowest=0.1, warmup_steps=WARMUP), RATE, steps_per_epoch=1, n_steps=options.steps
    )
    n_weights, began = sum(p.numel() for p in network.parameters()), time.perf_counter()
    for step in range(1, options.steps + 1):
        ids, letters = rows(BATCH, options, generator)
        logits = network(ids)[:, -options.copied :]
        loss = F.cross_entropy(logits.flatten(0, 1), letters.flatten())
        for group in optimizer.param_groups:
            group["lr"] = rate(step - 1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % options.every == 0 or step == options.steps:
            with torch.no_grad():
                ids, letters = rows(1000, options, generator)
                right = network(ids)[:, -options.copied :].argmax(dim=-1) == letters
            print(
                f"{mixer}, {n_weights:,} weights: {step} steps, loss {loss.item():.3f}, "
                f"{right.double().mean().item():.2%} right, {time.perf_counter() - began:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--mixer", nargs="+", default=["mamba", "structured_state_space"])
    parser.add_argument("--copied", type=int, default=6)
    parser.add_argument("--places", type=int, default=24)
    parser.add_argument("--letters", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.mixer:
        learn(name, given)
