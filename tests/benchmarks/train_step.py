"""Time training steps of published settings here and in neuralforecast, side by side.

    python tests/benchmarks/train_step.py --neuralforecast FOLDER/bin/python

FOLDER is what setup_neuralforecast.sh made. Both sides train the same network on the same windows
per step, of hourly noise:

fit      the step a user waits for: from one step to the next inside of each toolkit's fit(frame)
network  forward pass, squared error, backward pass and Adam, on windows already in memory

The two processes take turns, and the ratio is the median over turns.
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
from side_by_side import ROOT, answer, take_turns

N_ROWS = 8640
# Steps of one fit, and how many of them are warm-up.
N_STEPS, N_FIRST = 10, 3
PARTS = ("fit", "network")


@dataclass(frozen=True)
class Setting:
    """One model with the same sizes on both sides.

    Parameters
    ----------
    context_length, horizon, n_windows, n_variates : int
        Windows per step, each with all variates.
    together : bool
        Whether a window of theirs has all variates, too; else it has one of them, and their
        batch is larger in proportion.
    ours, theirs : dict
        Further parameters of the models.
    """

    context_length: int
    horizon: int
    n_windows: int
    n_variates: int
    together: bool
    ours: dict[str, Any]
    theirs: dict[str, Any]

    @property
    def their_windows(self) -> tuple[int, int]:
        """Windows in a batch of theirs, and variates of one."""
        if self.together:
            return self.n_windows, self.n_variates
        return self.n_windows * self.n_variates, 1


SETTINGS = {
    # The authors' setting for ETTh1.
    "PatchTST": Setting(
        context_length=336,
        horizon=96,
        n_windows=128,
        n_variates=7,
        together=False,
        ours={"d_model": 16, "d_ff": 128, "n_layers": 3, "n_heads": 4, "dropout": 0.3},
        theirs={
            **{"hidden_size": 16, "linear_hidden_size": 128, "encoder_layers": 3, "n_heads": 4},
            **{"dropout": 0.3, "fc_dropout": 0.3, "patch_len": 16, "stride": 8},
            **{"revin_subtract_last": False, "batch_normalization": True},
        },
    ),
    # The authors' setting for ETTh1. Theirs has no calendar tokens, so ours goes without.
    "iTransformer": Setting(
        context_length=96,
        horizon=96,
        n_windows=32,
        n_variates=7,
        together=True,
        ours={
            **{"d_model": 256, "d_ff": 256, "n_layers": 2, "n_heads": 8, "dropout": 0.1},
            "calendar_features": False,
        },
        theirs={
            **{"hidden_size": 256, "d_ff": 256, "e_layers": 2, "n_heads": 8, "dropout": 0.1},
            "n_series": 7,
        },
    ),
    # The authors' sizes, of one variate because theirs takes no more, and without the calendar.
    "AutoformerForecaster": Setting(
        context_length=96,
        horizon=96,
        n_windows=32,
        n_variates=1,
        together=True,
        ours={
            **{"d_model": 512, "d_ff": 2048, "n_layers": 2, "n_decoder_layers": 1, "n_heads": 8},
            **{"factor": 3, "kernel": 25, "dropout": 0.05, "label_length": 48},
            "calendar_features": False,
        },
        theirs={
            **{"hidden_size": 512, "conv_hidden_size": 2048, "encoder_layers": 2},
            **{"decoder_layers": 1, "n_head": 8, "factor": 3, "MovingAvg_window": 25},
            **{"dropout": 0.05, "decoder_input_size_multiplier": 0.5},
        },
    ),
}


class StepClock:
    """Notes when each step begins."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def tick(self) -> None:
        self.times.append(time.perf_counter())

    def median(self) -> float:
        """Return the seconds from step to step, and forget them."""
        spent = [after - before for before, after in itertools.pairwise(self.times)]
        self.times = []
        return statistics.median(spent[N_FIRST:])


def series(n_variates: int) -> pd.DataFrame:
    """Return hourly noise, a column per variate."""
    index = pd.date_range("2020-01-01", periods=N_ROWS, freq="h")
    values = np.random.default_rng(0).normal(size=(N_ROWS, n_variates)).astype(np.float32)
    return pd.DataFrame(values, index=index, columns=[f"s{i}" for i in range(n_variates)])


def in_a_row(step: Callable[[], None]) -> Callable[[], float]:
    """Return a turn of some bare steps; it returns the seconds of one."""
    clock = StepClock()

    def turn() -> float:
        for _ in range(N_STEPS):
            clock.tick()
            step()
        return clock.median()

    return turn


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


def tsar_fit(name: str) -> Callable[[], float]:
    """Return a fit of some steps in this project; each step asks for one batch of windows."""
    from tsar.data.windows import Windows

    frame = series(SETTINGS[name].n_variates)
    clock, batch = StepClock(), Windows.batch

    def timed(self: Windows, *arguments: Any) -> Any:
        clock.tick()
        return batch(self, *arguments)

    Windows.batch = timed  # type: ignore[method-assign]

    def turn() -> float:
        tsar_model(name).fit(frame)
        return clock.median()

    return turn


def tsar_network(name: str) -> Callable[[], float]:
    """Return one bare step of this project."""
    import torch

    from tsar.data.windows import Batch, Inputs
    from tsar.forecasting.network import NetworkSpec
    from tsar.forecasting.outputs.losses import make_loss
    from tsar.forecasting.outputs.objective import ForecastObjective
    from tsar.training import make_optimizer

    setting, loss = SETTINGS[name], make_loss("mse")
    objective, generator = ForecastObjective(loss), torch.Generator()
    sizes = setting.context_length, setting.horizon, setting.n_variates
    spec = NetworkSpec(*sizes, loss.make_output())
    network = tsar_model(name)._build_network(spec).train()
    optimizer = make_optimizer("adam", network, 1e-4)
    history = torch.randn(setting.n_windows, setting.context_length, setting.n_variates)
    target = torch.randn(setting.n_windows, setting.horizon, setting.n_variates)

    def step() -> None:
        terms = objective.loss(network, Batch(Inputs(history), target, None, None), generator)
        total, count = terms["loss"]
        optimizer.zero_grad()
        (total / count.clamp(min=1)).backward()
        optimizer.step()

    return in_a_row(step)


def neuralforecast_model(name: str, **options: Any) -> Any:
    """Build the model of neuralforecast."""
    import logging

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    from neuralforecast import models
    from neuralforecast.losses.pytorch import MSE

    setting = SETTINGS[name]
    return getattr(models, name.removesuffix("Forecaster"))(
        h=setting.horizon,
        input_size=setting.context_length,
        loss=MSE(),
        learning_rate=1e-4,
        max_steps=N_STEPS,
        batch_size=setting.n_variates,
        windows_batch_size=setting.their_windows[0],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **setting.theirs,
        **options,
    )


def neuralforecast_fit(name: str) -> Callable[[], float]:
    """Return a fit of some steps there."""
    from neuralforecast import NeuralForecast
    from pytorch_lightning.callbacks import Callback

    class Clock(Callback):
        """Notes when each step ends; shared, because the model is copied with its callbacks."""

        shared = StepClock()

        def on_train_batch_end(self, *args: Any, **options: Any) -> None:
            self.shared.tick()

    frame = (
        series(SETTINGS[name].n_variates)
        .rename_axis("ds")
        .reset_index()
        .melt("ds", var_name="unique_id")
    )
    frame = frame.rename(columns={"value": "y"})
    forecaster = NeuralForecast([neuralforecast_model(name, callbacks=[Clock()])], freq="h")

    def turn() -> float:
        forecaster.fit(frame)
        return Clock.shared.median()

    return turn


def neuralforecast_network(name: str) -> Callable[[], float]:
    """Return one bare step there."""
    import torch

    setting, network = SETTINGS[name], neuralforecast_model(name).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    n_windows, n_variates = setting.their_windows
    target = torch.randn(n_windows, setting.horizon, n_variates)
    inputs = {
        "insample_y": torch.randn(n_windows, setting.context_length, n_variates),
        "futr_exog": None,
    }

    def step() -> None:
        loss = network.loss(y=target, y_hat=network(inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return in_a_row(step)


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
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker", choices=["tsar", "neuralforecast"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        import torch

        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        answer(JOBS[options.worker, options.part](options.model), own_clock=True)
        return
    if not options.neuralforecast:
        parser.error("--neuralforecast is needed; setup_neuralforecast.sh makes the environment")
    for model in [options.model] if options.model else SETTINGS:
        for part in [options.part] if options.part else PARTS:
            command = [str(Path(__file__)), "--model", model, "--part", part]
            command += ["--threads", str(options.threads), "--worker"]
            take_turns(
                {
                    "neuralforecast": ([options.neuralforecast, *command, "neuralforecast"], None),
                    "tsar": ([sys.executable, *command, "tsar"], ROOT),
                },
                warmup=1,
                repeats=options.repeats,
                what=f"{model}, training step, {part}",
            )


if __name__ == "__main__":
    main()
