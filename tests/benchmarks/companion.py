"""Time state spaces over length and variates, fit how the time grows, and time training steps.

    python tests/benchmarks/companion.py [--over {length,variates,models}]

Forward and backward pass in float32, by processor time. The exponent is the slope of a straight
line through the logarithms of the medians: 1 in proportion, 2 with the square. Over the length it
is SpaceTime, its parts and Chimera; the powers of a matrix one after the other are the
reference of those by squares. Over the variates it is both networks. ``models`` times the loss and
its gradients, of 32 windows of 7 variates as ETTh1 has them, context 336 and horizon 96, of
SpaceTime and of the published PatchTST and Autoformer of ETTh1.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import tsar
from tsar.core.closed_loop import ClosedLoop
from tsar.core.mixers import Companion
from tsar.core.ops.companion import companion_matrix, krylov
from tsar.data.windows import Batch, Inputs
from tsar.forecasting.chimera import ChimeraNetwork
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.losses import MSELoss
from tsar.forecasting.outputs.objective import ForecastObjective
from tsar.forecasting.outputs.output import PointOutput
from tsar.forecasting.spacetime import SpaceTimeNetwork

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
VARIATES = (4, 8, 16, 32, 64)
CONTEXT, HORIZON = 336, 96
MODELS: dict[str, NetworkForecaster] = {
    "SpaceTime": tsar.SpaceTime(context_length=CONTEXT, horizon=HORIZON),
    "PatchTST": tsar.PatchTST(
        context_length=CONTEXT, horizon=HORIZON, d_model=16, d_ff=128, n_heads=4, dropout=0.3
    ),
    "Autoformer": tsar.AutoformerForecaster(
        context_length=CONTEXT, horizon=HORIZON, d_model=512, d_ff=2048, n_heads=8, factor=3
    ),
}
Computed = Callable[[], torch.Tensor]


def over_length(length: int, batch: int) -> dict[str, Computed]:
    """Return what is timed at a length, each with a number to take the gradient of."""
    torch.manual_seed(0)
    chimera = ChimeraNetwork(context_length=length, horizon=HORIZON, output=PointOutput())
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
        "SpaceTime": lambda: network(Inputs(series)).sum(),
        "Chimera": lambda: chimera(Inputs(series)).sum(),
    }


def over_variates(n_variates: int, batch: int) -> dict[str, Computed]:
    """Return both networks, which read so many variates."""
    torch.manual_seed(0)
    sizes = {"context_length": CONTEXT, "horizon": HORIZON, "output": PointOutput()}
    space_time, chimera = SpaceTimeNetwork(**sizes), ChimeraNetwork(**sizes)
    series = torch.randn(batch, CONTEXT, n_variates)
    return {
        "SpaceTime": lambda: space_time(Inputs(series)).sum(),
        "Chimera": lambda: chimera(Inputs(series)).sum(),
    }


def training_steps(n_variates: int, batch: int) -> dict[str, Computed]:
    """Return the loss of a training step of each model."""
    torch.manual_seed(0)
    windows = torch.randn(batch, CONTEXT + HORIZON, n_variates).split([CONTEXT, HORIZON], dim=1)
    one = Batch(Inputs(windows[0]), windows[1], None, None)
    objective, generator = ForecastObjective(MSELoss()), torch.Generator()

    def step(model: NetworkForecaster) -> Computed:
        network = model._build_network(NetworkSpec(CONTEXT, HORIZON, n_variates, PointOutput()))

        def loss() -> torch.Tensor:
            terms = objective.loss(network, one, generator).values()
            return torch.stack([total / count for total, count in terms]).sum()

        return loss

    return {name: step(model) for name, model in MODELS.items()}


def seconds(compute: Computed) -> float:
    """Time one forward and backward pass, by the processor time of all threads."""
    started = time.process_time()
    compute().backward()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--over", choices=["length", "variates", "models"], default="length")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, help="4, of models 32")
    parser.add_argument("--sizes", type=int, nargs="+", help="lengths, or numbers of variates")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts, usual, batch = {
        "length": (over_length, LENGTHS, 4),
        "variates": (over_variates, VARIATES, 4),
        "models": (training_steps, (7,), 32),
    }[options.over]
    sizes, batch = options.sizes or usual, options.batch or batch
    print(f"batch {batch}, {options.threads} threads, {options.repeats} turns")
    print(" " * 18 + "".join(f"{size:9d}" for size in sizes))
    medians: dict[str, list[float]] = {}
    for size in sizes:
        for name, compute in parts(size, batch).items():
            taken = [seconds(compute) for _ in range(options.repeats + 1)][1:]  # one to warm up
            medians.setdefault(name, []).append(statistics.median(taken))
    for name, times in medians.items():
        row = "".join(f"{spent * 1e3:6.0f} ms" for spent in times)
        if len(sizes) > 1:
            row += f"  exponent {np.polyfit(np.log(sizes), np.log(times), 1)[0]:.2f}"
        print(f"{name:18s}{row}", flush=True)


if __name__ == "__main__":
    main()
