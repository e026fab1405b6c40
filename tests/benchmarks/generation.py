"""Time a token of generation over how much was read: from the state, and by reading all anew.

    python tests/benchmarks/generation.py [--mixer attention mamba2 ...] [--length 128 1024 ...]
    python tests/benchmarks/generation.py --model MODEL

The network is that of a LanguageModel with its defaults (four blocks of 128), which is trained for
one step: times do not depend on what was learned. The ways take turns, and medians are printed.
With a saved model, texts of four contexts are drawn from it, and what they cost it is printed by
quarters, in nats a token: it should stay near its loss, and near its own entropy.
"""

import argparse
import time
from statistics import median
from typing import Any

import torch

import tsar
from tsar.language import LanguageModel


def main() -> None:
    """Print milliseconds a token, and how many times longer reading anew takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--mixer", nargs="+", default=["attention", "linear_attention", "mamba", "mamba2"]
    )
    parser.add_argument("--length", nargs="+", type=int, default=[128, 1024, 4096, 8192])
    parser.add_argument("--anew-up-to", type=int, default=4096)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", help="folder of a trained LanguageModel")
    parser.add_argument("--texts", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.model:
        _print_quarters(tsar.load(options.model), options.texts)
        return
    print(f"{'mixer':20s} {'tokens':>7s} {'from the state':>15s} {'anew':>10s} {'ratio':>7s}")
    for mixer in options.mixer:
        model = LanguageModel(mixer=mixer, max_steps=1, batch_size=1, device="cpu", random_state=0)
        network: Any = model.fit("a text of some length, again. " * 20).module_
        for length in options.length:
            step, anew = _times(network, length, options)
            shown = "" if anew is None else f"{anew:10.2f} {anew / step:6.1f}x"
            print(f"{mixer:20s} {length:7,d} {step:15.2f} {shown}", flush=True)


def _print_quarters(model: LanguageModel, n_texts: int) -> None:
    """Draw texts of four contexts, and print what the model thinks of each quarter."""
    context = int(model.context_length)
    nats = torch.zeros(n_texts, 5, dtype=torch.float64)
    for seed in range(n_texts):
        ids = model.generate("", 4 * context, random_state=seed).encode("utf-8")
        for quarter in range(1, 5):
            begun = ids[: quarter * len(ids) // 4].decode("utf-8", "ignore")
            nats[seed, quarter] = -float(model.log_likelihood(begun)[0])
    quarters = nats.diff(dim=1) / context
    shown = ", ".join(f"{float(value):.3f}" for value in quarters.mean(dim=0))
    print(f"{n_texts} texts of {4 * context} tokens: {shown} nats a token, quarter by quarter")


@torch.inference_mode()
def _times(network: Any, length: int, options: argparse.Namespace) -> tuple[float, float | None]:
    """Return milliseconds of one more token after so many, and of all of them at once."""
    ids = torch.randint(256, (1, length), generator=torch.Generator().manual_seed(0))
    _, state = network.extend(ids, network.init_state(1))
    # The first token behind a piece doubles the room of a cache.
    _, state = network.extend(ids[:, -1:], state)
    steps, passes = [], []
    for _ in range(options.turns):
        for _ in range(5):
            began = time.perf_counter()
            _, state = network.extend(ids[:, -1:], state)
            steps.append(1000 * (time.perf_counter() - began))
        if length <= options.anew_up_to:
            began = time.perf_counter()
            network(ids)
            passes.append(1000 * (time.perf_counter() - began))
    return median(steps), median(passes) if passes else None


if __name__ == "__main__":
    main()
