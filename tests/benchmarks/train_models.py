"""Time training steps of published settings here and in neuralforecast, side by side.

    python tests/benchmarks/train_models.py --neuralforecast FOLDER/bin/python

FOLDER is what setup_neuralforecast.sh made. Both sides train the same network on the same number
of windows per step, on 7 variates of 8640 hours:

fit      the step a user waits for: from one step to the next inside of each toolkit's fit(frame)
network  forward pass, squared error, backward pass and Adam, on windows already in memory
"""

import argparse
import itertools
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from side_by_side import answer, take_turns

N_VARIATES, N_ROWS = 7, 8640
# Steps of one fit, and how many of them are warm-up.
N_STEPS, N_FIRST = 24, 4
PARTS = {"fit": 5, "network": 40}


@dataclass(frozen=True)
class Setting:
    """One model with the same sizes on both sides.

    Parameters
    ----------
    context_length, horizon, n_windows : int
        Windows per step, each with all variates.
    ours, theirs : dict
        Further parameters of the models.
    """

    context_length: int
    horizon: int
    n_windows: int
    ours: dict[str, Any]
    theirs: dict[str, Any]


SETTINGS = {
    # Official setting for ETTh1. Theirs has no calendar tokens, so ours goes without.
    "iTransformer": Setting(
        context_length=96,
        horizon=96,
        n_windows=32,
        ours={
            **{"d_model": 256, "d_ff": 256, "n_layers": 2, "n_heads": 8, "dropout": 0.1},
            "calendar_features": False,
        },
        theirs={
            **{"hidden_size": 256, "d_ff": 256, "e_layers": 2, "n_heads": 8, "dropout": 0.1},
            "n_series": N_VARIATES,
        },
    ),
}


class StepClock:
    """Notes when each step begins."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def tick(self) -> None:
        self.times.append((time.perf_counter(), time.process_time()))

    def median(self) -> tuple[float, float]:
        """Return seconds from step to step, on the wall and of the processor."""
        pairs = list(itertools.pairwise(self.times))[N_FIRST:]
        self.times = []
        wall, busy = ([b[i] - a[i] for a, b in pairs] for i in (0, 1))
        return statistics.median(wall), statistics.median(busy)


def series() -> pd.DataFrame:
    """Return hourly noise, a column per variate."""
    index = pd.date_range("2020-01-01", periods=N_ROWS, freq="h")
    values = np.random.default_rng(0).normal(size=(N_ROWS, N_VARIATES)).astype(np.float32)
    return pd.DataFrame(values, index=index, columns=[f"s{i}" for i in range(N_VARIATES)])


def tsar_model(name: str) -> Any:
    """Build the estimator of this project."""
    import tsar

    setting = SETTINGS[name]
    return getattr(tsar, name)(
        context_length=setting.context_length,
        horizon=setting.horizon,
        batch_size=setting.n_windows,
        learning_rate=1e-4,
        max_steps=N_STEPS,
        early_stopping=False,
        random_state=0,
        device="cpu",
        **setting.ours,
    )


def tsar_fit(name: str) -> Callable[[], object]:
    """Return a fit of some steps in this project; each step asks for one batch of windows."""
    from tsar.data.windows import Windows

    clock, frame, batch = StepClock(), series(), Windows.batch

    def timed(self: Windows, *arguments: Any) -> Any:
        clock.tick()
        return batch(self, *arguments)

    Windows.batch = timed  # type: ignore[method-assign]

    def job() -> object:
        tsar_model(name).fit(frame)
        return clock.median()

    return job


def tsar_network(name: str) -> Callable[[], object]:
    """Return one bare step of this project."""
    import torch

    from tsar.data.windows import Batch, Inputs
    from tsar.forecasting.network import NetworkSpec
    from tsar.training import make_loss, make_optimizer
    from tsar.training.loop import compare

    setting, loss = SETTINGS[name], make_loss("mse")
    spec = NetworkSpec(setting.context_length, setting.horizon, N_VARIATES, loss.make_output())
    network = tsar_model(name)._build_network(spec).train()
    optimizer = make_optimizer("adam", network.parameters(), 1e-4)
    history = torch.randn(setting.n_windows, setting.context_length, N_VARIATES)
    target = torch.randn(setting.n_windows, setting.horizon, N_VARIATES)

    def job() -> None:
        compared = compare(network, Batch(Inputs(history), target, None, None))
        optimizer.zero_grad()
        loss(*compared).backward()
        optimizer.step()

    return job


def neuralforecast_model(name: str, **options: Any) -> Any:
    """Build the model of neuralforecast."""
    import logging

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    from neuralforecast import models
    from neuralforecast.losses.pytorch import MSE

    setting = SETTINGS[name]
    return getattr(models, name)(
        h=setting.horizon,
        input_size=setting.context_length,
        loss=MSE(),
        learning_rate=1e-4,
        max_steps=N_STEPS,
        batch_size=N_VARIATES,
        windows_batch_size=setting.n_windows,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **setting.theirs,
        **options,
    )


def neuralforecast_fit(name: str) -> Callable[[], object]:
    """Return a fit of some steps there."""
    from neuralforecast import NeuralForecast
    from pytorch_lightning.callbacks import Callback

    class Clock(Callback):
        """Notes when each step ends; shared, because the model is copied with its callbacks."""

        shared = StepClock()

        def on_train_batch_end(self, *args: Any, **options: Any) -> None:
            self.shared.tick()

    frame = series().rename_axis("ds").reset_index().melt("ds", var_name="unique_id")
    frame = frame.rename(columns={"value": "y"})
    forecaster = NeuralForecast([neuralforecast_model(name, callbacks=[Clock()])], freq="h")

    def job() -> object:
        forecaster.fit(frame)
        return Clock.shared.median()

    return job


def neuralforecast_network(name: str) -> Callable[[], object]:
    """Return one bare step there."""
    import torch

    setting, network = SETTINGS[name], neuralforecast_model(name).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    inputs = {"insample_y": torch.randn(setting.n_windows, setting.context_length, N_VARIATES)}
    target = torch.randn(setting.n_windows, setting.horizon, N_VARIATES)

    def job() -> None:
        loss = network.loss(y=target, y_hat=network(inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return job


JOBS = {
    ("tsar", "fit"): tsar_fit,
    ("tsar", "network"): tsar_network,
    ("neuralforecast", "fit"): neuralforecast_fit,
    ("neuralforecast", "network"): neuralforecast_network,
}


def main() -> None:
    """Run one model and part, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--neuralforecast", help="python of an environment with neuralforecast")
    parser.add_argument("--model", choices=SETTINGS, help="only this one")
    parser.add_argument("--part", choices=PARTS, help="only this one")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker", choices=["tsar", "neuralforecast"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        import torch

        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        answer(JOBS[options.worker, options.part](options.model))
        return
    if not options.neuralforecast:
        parser.error("--neuralforecast is needed; setup_neuralforecast.sh makes the environment")
    for model in [options.model] if options.model else SETTINGS:
        for part in [options.part] if options.part else PARTS:
            command = [str(Path(__file__)), "--model", model, "--part", part]
            command += ["--threads", str(options.threads), "--worker"]
            take_turns(
                [options.neuralforecast, *command, "neuralforecast"],
                [sys.executable, *command, "tsar"],
                warmup=1 if part == "fit" else 5,
                repeats=PARTS[part],
                what=f"{model}, training step, {part}",
            )


if __name__ == "__main__":
    main()
