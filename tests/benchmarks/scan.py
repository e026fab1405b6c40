"""Time the selective scan in chunks against the one that goes token by token.

    python tests/benchmarks/scan.py

Forward and backward pass in float32. The two take turns; the ratio is the median over turns of
the time token by token, by that in chunks. What the sequential form costs is mostly the number of
its steps; what the chunked form costs is mostly arithmetic. So the ratio falls as the states of a
step, batch * channels * states, become many.
"""

import argparse
import os
import statistics
import time

import torch

from tsar.core.ops.selective_scan import selective_scan

# Batch, channels, states per channel: from one short sequence over PatchTST with mixer="mamba" on
# the seven variates of a window to S-Mamba as on ETTh1, in batches of 8 and 32, and a width of
# language models.
WIDTHS = [
    (1, 64, 16),
    (2, 32, 16),
    (7, 32, 16),
    (8, 64, 2),
    (8, 256, 2),
    (32, 256, 2),
    (8, 256, 16),
]
LENGTHS = (64, 128, 512, 1024, 2048)
REFERENCE_LENGTH = 512


def draw(batch: int, length: int, channels: int, states: int) -> list[torch.Tensor]:
    """Draw what Mamba scans at its beginning: decays of 1 to ``states``, small steps."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    decays = torch.arange(1.0, states + 1).repeat(channels, 1)
    wide, narrow = (batch, length, channels), (batch, length, states)
    tensors = [normal(*wide), normal(*wide) - 4, -decays, normal(*narrow), normal(*narrow)]
    return [tensor.requires_grad_() for tensor in tensors]


def seconds(tensors: list[torch.Tensor], backend: str) -> float:
    """Time one forward and backward pass."""
    started = time.perf_counter()
    y, _ = selective_scan(*tensors, delta_softplus=True, backend=backend)
    torch.autograd.grad(y, tensors, torch.ones_like(y))
    return time.perf_counter() - started


def compare(sizes: tuple[int, int, int, int], repeats: int) -> None:
    """Let the two take turns, and print their medians and the ratio."""
    tensors = draw(*sizes)
    times: dict[str, list[float]] = {"reference": [], "chunked": []}
    for repeat in range(repeats + 1):
        for backend, taken in times.items():
            spent = seconds(tensors, backend)
            if repeat:  # the first turn warms up
                taken.append(spent)
    slow, fast = times["reference"], times["chunked"]
    ratio = statistics.median(a / b for a, b in zip(slow, fast, strict=True))
    print(
        "batch {:3d}  length {:4d}  channels {:3d}  states {:2d}".format(*sizes)
        + f"  token by token {statistics.median(slow) * 1e3:7.1f} ms"
        f"  chunked {statistics.median(fast) * 1e3:6.1f} ms  ratio {ratio:5.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, {options.repeats} turns")
    for batch, channels, states in WIDTHS:
        compare((batch, REFERENCE_LENGTH, channels, states), options.repeats)
    for length in LENGTHS:
        compare((2, length, 32, 16), options.repeats)


if __name__ == "__main__":
    main()
