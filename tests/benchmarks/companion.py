"""Time SpaceTime and its parts over the length of the history, and fit how the time grows.

    python tests/benchmarks/companion.py

Forward and backward pass in float32. The exponent is the slope of a straight line through the
logarithms of the medians over the lengths: 1 in proportion, 2 with the square. The powers of a
matrix one after the other are the reference of those by squares.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from tsar.core.closed_loop import ClosedLoop
from tsar.core.mixers import Companion
from tsar.core.ops.companion import companion_matrix, krylov
from tsar.data.windows import Inputs
from tsar.forecasting.outputs.output import PointOutput
from tsar.forecasting.spacetime import SpaceTimeNetwork

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)


def parts(length: int, batch: int) -> dict[str, Callable[[], torch.Tensor]]:
    """Return what is timed at a length, each with a number to take the gradient of."""
    torch.manual_seed(0)
    mixer, loop = Companion(128, 16), ClosedLoop(128)
    network = SpaceTimeNetwork(context_length=length, horizon=96, output=PointOutput())
    tokens, series = torch.randn(batch, length, 128), torch.randn(batch, length, 1)
    last, vector = torch.randn(16, 64), torch.randn(16, 64)
    matrix = companion_matrix(torch.nn.functional.normalize(last, p=1.0, dim=1)).requires_grad_()
    return {
        "powers by squares": lambda: krylov(matrix, vector, length).sum(),
        "powers one by one": lambda: krylov(matrix, vector, length, backend="reference").sum(),
        "companion": lambda: mixer(tokens).sum(),
        "closed loop": lambda: loop(tokens, 96)[0].sum(),
        "network": lambda: network(Inputs(series)).sum(),
    }


def seconds(compute: Callable[[], torch.Tensor]) -> float:
    """Time one forward and backward pass, by the processor time of all threads."""
    started = time.process_time()
    compute().backward()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"batch {options.batch}, {options.threads} threads, {options.repeats} turns, lengths")
    print(" " * 18 + "".join(f"{length:9d}" for length in options.lengths))
    medians: dict[str, list[float]] = {}
    for length in options.lengths:
        for name, compute in parts(length, options.batch).items():
            taken = [seconds(compute) for _ in range(options.repeats + 1)][1:]  # one to warm up
            medians.setdefault(name, []).append(statistics.median(taken))
    for name, times in medians.items():
        slope = np.polyfit(np.log(options.lengths), np.log(times), 1)[0]
        row = "".join(f"{spent * 1e3:6.0f} ms" for spent in times)
        print(f"{name:18s}{row}  exponent {slope:.2f}", flush=True)


if __name__ == "__main__":
    main()
