"""Time one training step of PatchTST here and in neuralforecast, side by side.

    python tests/benchmarks/train_step.py --neuralforecast FOLDER/bin/python

FOLDER is what setup_neuralforecast.sh made. Both sides run the published ETTh1 setting: 128
windows of 7 variates (896 sequences), context 336, horizon 96, patches of 16 every 8, width 16,
4 heads, feed-forward 128, 3 layers, dropout 0.3, batch norm, residual attention. A step is the
forward pass, the squared error, the backward pass and Adam, on windows already in memory; what
either toolkit does around it is left out. The two processes take turns, step by step.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
N_WINDOWS, N_VARIATES, CONTEXT, HORIZON = 128, 7, 336, 96


def tsar_step(precision: str) -> Callable[[], None]:
    """Build the step of this project."""
    import torch

    from tsar.data.windows import Batch, Inputs
    from tsar.forecasting.patchtst import PatchTSTNetwork
    from tsar.training import autocast, make_loss, make_optimizer

    loss = make_loss("mse")
    network = PatchTSTNetwork(
        context_length=CONTEXT,
        horizon=HORIZON,
        output=loss.make_output(),
        d_model=16,
        n_heads=4,
        d_ff=128,
        dropout=0.3,
    )
    optimizer = make_optimizer("adam", network.parameters(), 1e-4)
    inputs = Inputs(torch.randn(N_WINDOWS, CONTEXT, N_VARIATES))
    batch = Batch(inputs, torch.randn(N_WINDOWS, HORIZON, N_VARIATES), None, None)

    def step() -> None:
        with autocast(torch.device("cpu"), precision):
            forecast = network(batch.inputs)
        optimizer.zero_grad()
        loss(forecast, batch.target).backward()
        optimizer.step()

    return step


def neuralforecast_step(precision: str) -> Callable[[], None]:
    """Build the step of neuralforecast; it takes every sequence as a window of one series."""
    import logging

    logging.disable(logging.INFO)
    import torch
    from neuralforecast.losses.pytorch import MSE
    from neuralforecast.models import PatchTST

    network = PatchTST(
        h=HORIZON,
        input_size=CONTEXT,
        encoder_layers=3,
        n_heads=4,
        hidden_size=16,
        linear_hidden_size=128,
        dropout=0.3,
        fc_dropout=0.3,
        patch_len=16,
        stride=8,
        revin_subtract_last=False,
        batch_normalization=True,
        loss=MSE(),
    ).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    inputs = {"insample_y": torch.randn(N_WINDOWS * N_VARIATES, CONTEXT, 1)}
    target = torch.randn(N_WINDOWS * N_VARIATES, HORIZON, 1)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = network.loss(y=target, y_hat=network(inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def work(kind: str, precision: str, threads: int) -> None:
    """Answer each line of the input with the seconds and processor seconds of a step."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    step = {"tsar": tsar_step, "neuralforecast": neuralforecast_step}[kind](precision)
    for _ in sys.stdin:
        started, busy = time.perf_counter(), time.process_time()
        step()
        print(time.perf_counter() - started, time.process_time() - busy, flush=True)


class Worker:
    """A process of one of the two environments that makes a step when asked to."""

    def __init__(self, python: str, kind: str, options: argparse.Namespace) -> None:
        command = [python, __file__, "--worker", kind, "--threads", str(options.threads)]
        command += ["--precision", options.precision if kind == "tsar" else "float32"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT) if kind == "tsar" else ""}
        self.process = subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def step(self) -> tuple[float, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds, busy = self.process.stdout.readline().split()
        return float(seconds), float(busy)

    def close(self) -> None:
        self.process.communicate()


def compare(options: argparse.Namespace) -> None:
    """Let the two take turns and print the medians and their ratio."""
    workers = {
        "neuralforecast": Worker(options.neuralforecast, "neuralforecast", options),
        f"tsar {options.precision}": Worker(sys.executable, "tsar", options),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
    for _ in range(options.warmup):
        for worker in workers.values():
            worker.step()
    for _ in range(options.repeats):
        for name, worker in workers.items():
            times[name].append(worker.step())
    for worker in workers.values():
        worker.close()
    theirs, ours = ([s for s, _ in pairs] for pairs in times.values())
    for name, pairs in times.items():
        seconds, busy = (statistics.median(column) for column in zip(*pairs, strict=True))
        fastest = min(s for s, _ in pairs)
        print(
            f"{name:>16}: {seconds * 1e3:6.0f} ms a step "
            f"(fastest {fastest * 1e3:.0f} ms, processor {busy * 1e3:.0f} ms)"
        )
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    print(
        f"           ratio: {statistics.median(ratios):.2f} (median of {len(ratios)} pairs; "
        f"of the fastest {min(theirs) / min(ours):.2f}; {options.threads} threads)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--neuralforecast", help="python of an environment with neuralforecast")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "auto"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--worker", choices=["tsar", "neuralforecast"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.precision, options.threads)
    elif not options.neuralforecast:
        parser.error("--neuralforecast is needed; setup_neuralforecast.sh makes the environment")
    else:
        compare(options)


if __name__ == "__main__":
    main()
