"""Time Auto-Correlation over the length of the sequences, beside its definition and attention.

    python tests/benchmarks/auto_correlation.py

Forward and backward pass of one sequence of 16 features. The definition in O(L^2) and softmax
attention, whose time is in O(L^2) as well, are measured up to lengths that do not take long.
Printed are the fastest seconds of the processor and, between one length and the next, the
exponent of the growth: 1 for a time that is proportional to the length, 2 for its square.
"""

import argparse
import math
import time

import torch

from tsar.core.mixers import AutoCorrelation, Mixer, SoftmaxAttention

D_MODEL, N_HEADS = 16, 4
LONGEST = {"fft": 2**16, "reference": 2**12, "attention": 2**14}


def mixer(name: str) -> Mixer:
    """Build what is timed."""
    if name == "attention":
        return SoftmaxAttention(D_MODEL, N_HEADS)
    return AutoCorrelation(D_MODEL, N_HEADS, backend=name)


def fastest(layer: Mixer, length: int, repeats: int) -> float:
    """Return the fewest seconds of the processor that a pass there and back took."""
    x = torch.randn(1, length, D_MODEL, requires_grad=True)
    seconds = []
    for _ in range(1 + repeats):
        started = time.process_time()
        layer(x).sum().backward()
        seconds.append(time.process_time() - started)
    return min(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name, longest in LONGEST.items():
        torch.manual_seed(0)
        layer, before = mixer(name), None
        length = 2**10
        while length <= longest:
            seconds = fastest(layer, length, options.repeats)
            growth = "" if before is None else f"  exponent {math.log(seconds / before, 4):5.2f}"
            print(f"{name:>10}  L = {length:>6}  {seconds * 1e3:10.2f} ms{growth}", flush=True)
            before, length = seconds, 4 * length


if __name__ == "__main__":
    main()
