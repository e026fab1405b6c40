"""Time training steps of SMamba and iTransformer at equal width as variates become many.

    python tests/benchmarks/variates.py

Network, squared error, backward pass and Adam on windows of 96 steps in memory, at the numbers of
variates of ETTh1, exchange-like sets and the larger public sets. The two take turns. The growth of
each is its time against that at the number before; attention over variates grows with their square
in the end, a scan with their number.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from tsar.data.windows import Inputs
from tsar.forecasting.itransformer import iTransformerNetwork
from tsar.forecasting.outputs.output import PointOutput
from tsar.forecasting.smamba import SMambaNetwork
from tsar.training import make_optimizer

VARIATES = (7, 100, 321, 862)
CONTEXT, HORIZON = 96, 96


def networks(width: int) -> dict[str, nn.Module]:
    """Build both at one width, as the authors have them otherwise."""
    sizes = {"context_length": CONTEXT, "horizon": HORIZON, "d_model": width, "d_ff": width}
    return {
        "iTransformer": iTransformerNetwork(output=PointOutput(), **sizes),
        "SMamba": SMambaNetwork(output=PointOutput(), **sizes),
    }


def make_step(network: nn.Module, batch: int, n_variates: int) -> Callable[[], float]:
    """Return a function that trains for one step and says how long it took."""
    optimizer = make_optimizer("adam", network.parameters(), 1e-4)
    inputs = Inputs(torch.randn(batch, CONTEXT, n_variates))
    target = torch.randn(batch, HORIZON, n_variates)

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        (network(inputs) - target).square().mean().backward()
        optimizer.step()
        return time.perf_counter() - started

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(
        f"width {options.width}, batch {options.batch}, {options.threads} threads, "
        f"{options.repeats} turns"
    )
    before: dict[str, float] = {}
    for n_variates in VARIATES:
        built = networks(options.width)
        steps = {name: make_step(net, options.batch, n_variates) for name, net in built.items()}
        times: dict[str, list[float]] = {name: [] for name in steps}
        for repeat in range(options.repeats + 1):
            for name, step in steps.items():
                spent = step()
                if repeat:  # the first turn warms up
                    times[name].append(spent)
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        ratio = statistics.median(
            a / b for a, b in zip(times["iTransformer"], times["SMamba"], strict=True)
        )
        parts = [f"{name} {medians[name] * 1e3:7.1f} ms" for name in steps]
        grown = [f"{name} x{medians[name] / before[name]:.1f}" for name in before]
        print(f"{n_variates:4d} variates  {'  '.join(parts)}  ratio {ratio:.2f}  {' '.join(grown)}")
        before = medians


if __name__ == "__main__":
    main()
