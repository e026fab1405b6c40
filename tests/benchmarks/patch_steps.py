"""Time a training step of models of patches beside that of a LanguageModel of as many weights.

    python tests/benchmarks/patch_steps.py [--rounds 8]

Loss and gradient of 8 windows of 128 bytes, in seconds of the processor. The models take turns, and
medians are printed, without the first turn.
"""

import argparse
import time
from statistics import median
from typing import Any

import torch

from tsar.language import LanguageModel, MegaByte

PLAIN = "attention"
LARGE = {"d_model": 160, "n_layers": 2, "d_ff": 640}
MODELS: dict[str, Any] = {
    PLAIN: LanguageModel(),
    "MegaByte, two convolutions of 80": MegaByte(**LARGE, d_local=80),
    "MegaByte, attention of 96 in 16 bytes": MegaByte(
        **LARGE, d_local=96, n_local_layers=1, local_mixer="attention"
    ),
    "MegaByte, attention of 96 in a patch": MegaByte(
        **LARGE, d_local=96, n_local_layers=1, local_mixer="attention", local_window=None
    ),
}


def main() -> None:
    """Print weights, milliseconds, and how many times as long as attention."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = "a text of some length, again. " * 50
    settings = {"context_length": 128, "batch_size": 8, "max_steps": 1, "device": "cpu"}
    networks = {
        name: model.set_params(**settings, random_state=0).fit(text).module_.train()
        for name, model in MODELS.items()
    }
    ids = torch.randint(256, (8, 129), generator=torch.Generator().manual_seed(0))
    taken: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(options.rounds):
        for name, network in networks.items():
            began = time.process_time()
            logits = network(ids[:, :-1])
            torch.nn.functional.cross_entropy(logits.mT, ids[:, 1:]).backward()
            taken[name].append(1000 * (time.process_time() - began))
    times = {name: median(turns[1:]) for name, turns in taken.items()}
    for name, ms in times.items():
        n_weights = sum(weights.numel() for weights in networks[name].parameters())
        ratio = ms / times[PLAIN]
        print(f"{name:38s} {n_weights / 1e6:.2f} M weights {ms:6.0f} ms {ratio:.2f}x")


if __name__ == "__main__":
    main()
