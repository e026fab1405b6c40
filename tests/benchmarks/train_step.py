"""Time the training steps of PatchTST here and in neuralforecast, side by side.

    python tests/benchmarks/train_step.py --neuralforecast FOLDER/bin/python

FOLDER is what setup_neuralforecast.sh made. Both sides run the published ETTh1 setting: 128
windows of 7 variates (896 sequences), context 336, horizon 96, patches of 16 every 8, width 16,
4 heads, feed-forward 128, 3 layers, dropout 0.3, batch norm, residual attention.

Two things are timed. "fit" is the step a user waits for: the time from one step to the next
inside each toolkit's own training loop, on 7 series of 8640 hours. "network" leaves the loops
out: forward pass, squared error, backward pass and Adam, on windows already in memory. The two
processes take turns, and the ratio is the median over turns.
"""

import argparse
import itertools
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from side_by_side import answer, take_turns

N_WINDOWS, N_VARIATES, CONTEXT, HORIZON = 128, 7, 336, 96
N_ROWS, N_FIT_STEPS = 8640, 10


def tsar_network() -> tuple[Any, Any]:
    """Build the loss and the network of this project."""
    from tsar.forecasting.patchtst import PatchTSTNetwork
    from tsar.training import make_loss

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
    return loss, network


def tsar_step(precision: str) -> Callable[[], list[float]]:
    """Build a turn of one bare step of this project."""
    import torch

    from tsar.data.windows import Inputs
    from tsar.training import autocast, make_optimizer

    loss, network = tsar_network()
    optimizer = make_optimizer("adam", network.parameters(), 1e-4)
    inputs = Inputs(torch.randn(N_WINDOWS, CONTEXT, N_VARIATES))
    target = torch.randn(N_WINDOWS, HORIZON, N_VARIATES)

    def turn() -> list[float]:
        started = time.perf_counter()
        with autocast(torch.device("cpu"), precision):
            forecast = network(inputs)
        optimizer.zero_grad()
        loss(forecast, target).backward()
        optimizer.step()
        return [time.perf_counter() - started]

    return turn


def tsar_fit(precision: str) -> Callable[[], list[float]]:
    """Build a turn of some steps in the training loop of this project."""
    import numpy as np
    import torch

    from tsar.data.windows import Batch, SeriesTensors, Windows
    from tsar.training import TrainingOptions, train

    class TimedWindows(Windows):
        """Windows that note when each batch is asked for: once a step."""

        asked: list[float]

        def batch(self, index: torch.Tensor) -> Batch:
            self.asked.append(time.perf_counter())
            return super().batch(index)

    loss, network = tsar_network()
    series = SeriesTensors(torch.randn(N_ROWS, N_VARIATES), None, torch.tensor([0, N_ROWS]))
    cutoffs = np.array([CONTEXT]), np.array([N_ROWS - HORIZON])
    windows = TimedWindows(series, *cutoffs, CONTEXT, HORIZON)
    options = TrainingOptions(
        max_epochs=None,
        max_steps=N_FIT_STEPS,
        batch_size=N_WINDOWS,
        learning_rate=1e-4,
        precision=precision,
    )

    def turn() -> list[float]:
        windows.asked = []
        train(network, windows, None, loss, options, device=torch.device("cpu"), seed=0)
        return intervals(windows.asked)

    return turn


def neuralforecast_model(**options: Any) -> Any:
    """Build the model of neuralforecast with the same sizes and parts."""
    import logging

    logging.disable(logging.INFO)
    from neuralforecast.losses.pytorch import MSE
    from neuralforecast.models import PatchTST

    return PatchTST(
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
        learning_rate=1e-4,
        loss=MSE(),
        **options,
    )


def neuralforecast_step(precision: str) -> Callable[[], list[float]]:
    """Build a turn of one bare step; every sequence is a window of one series there."""
    import torch

    network = neuralforecast_model().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    inputs = {"insample_y": torch.randn(N_WINDOWS * N_VARIATES, CONTEXT, 1)}
    target = torch.randn(N_WINDOWS * N_VARIATES, HORIZON, 1)

    def turn() -> list[float]:
        started = time.perf_counter()
        loss = network.loss(y=target, y_hat=network(inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return [time.perf_counter() - started]

    return turn


def neuralforecast_fit(precision: str) -> Callable[[], list[float]]:
    """Build a turn of some steps of its training loop."""
    import numpy as np
    import pandas as pd
    from neuralforecast import NeuralForecast
    from pytorch_lightning.callbacks import Callback

    class Clock(Callback):
        """Notes when each step ends; shared, because the model is copied with its callbacks."""

        ended: list[float] = []

        def on_train_batch_end(self, *args: Any, **options: Any) -> None:
            self.ended.append(time.perf_counter())

    dates = pd.date_range("2020-01-01", periods=N_ROWS, freq="h")
    values = np.random.default_rng(0).normal(size=(N_VARIATES, N_ROWS)).astype("float32")
    frame = pd.concat(
        pd.DataFrame({"unique_id": f"s{i}", "ds": dates, "y": y}) for i, y in enumerate(values)
    )
    model = neuralforecast_model(
        max_steps=N_FIT_STEPS,
        windows_batch_size=N_WINDOWS * N_VARIATES,
        batch_size=N_VARIATES,
        callbacks=[Clock()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    forecaster = NeuralForecast([model], freq="h")

    def turn() -> list[float]:
        Clock.ended.clear()
        forecaster.fit(frame)
        return intervals(Clock.ended)

    return turn


def intervals(times: list[float]) -> list[float]:
    """Return the seconds between one step and the next, the first ones being warm-up."""
    return [after - before for before, after in itertools.pairwise(times)][1:]


TURNS = {
    ("tsar", "network"): tsar_step,
    ("tsar", "fit"): tsar_fit,
    ("neuralforecast", "network"): neuralforecast_step,
    ("neuralforecast", "fit"): neuralforecast_fit,
}


def work(toolkit: str, part: str, precision: str, threads: int) -> None:
    """Answer with the median seconds of a step in one turn."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    turn = TURNS[toolkit, part](precision)
    answer(lambda: statistics.median(turn()), own_clock=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--neuralforecast", help="python of an environment with neuralforecast")
    parser.add_argument("--part", choices=["fit", "network"], help="only this one")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "auto"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--worker", choices=["tsar", "neuralforecast"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.part, options.precision, options.threads)
        return
    if not options.neuralforecast:
        parser.error("--neuralforecast is needed; setup_neuralforecast.sh makes the environment")
    for part in [options.part] if options.part else ["fit", "network"]:
        command = [__file__, "--part", part, "--precision", options.precision]
        command += ["--threads", str(options.threads), "--worker"]
        take_turns(
            [options.neuralforecast, *command, "neuralforecast"],
            [sys.executable, *command, "tsar"],
            warmup=options.warmup,
            repeats=options.repeats,
            what=f"training step, {part}, {options.precision} on {options.threads} threads",
        )


if __name__ == "__main__":
    main()
