"""Time `predict` here and in neuralforecast, side by side.

    python tests/benchmarks/predict.py --neuralforecast FOLDER/bin/python

FOLDER is what setup_neuralforecast.sh made. Both sides fit PatchTST with the same sizes
(context 48, horizon 12, patches of 16 every 8, width 16, 4 heads, 3 layers) for a few steps
and then forecast, frame in and frame out:

one      the fitted series goes on, as a warm server does it
one-df   one series of 120 rows that was not fitted
many     10,000 series of 120 rows that were not fitted, in one frame

A turn is the median of several calls in a row, for a server is warm.
"""

import argparse
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from side_by_side import ROOT, answer, take_turns

CONTEXT, HORIZON, ROWS, MANY = 48, 12, 120, 10_000
# Calls in a turn, and turns.
CASES = {"one": (20, 9), "one-df": (20, 9), "many": (1, 5)}


def panel(n_series: int) -> pd.DataFrame:
    """Return hourly random walks in long form."""
    values = np.random.default_rng(0).normal(size=(n_series, ROWS)).cumsum(axis=1)
    names = np.array([f"series_{number}" for number in range(n_series)], dtype=object)
    stamps = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    return pd.DataFrame(
        {
            "unique_id": np.repeat(names, ROWS),
            "ds": np.tile(stamps, n_series),
            "y": values.reshape(-1),
        }
    )


def tsar_job(case: str) -> Callable[[], object]:
    """Return the forecast of this project."""
    import tsar

    model = tsar.PatchTST(
        context_length=CONTEXT, horizon=HORIZON, max_steps=5, random_state=0, device="cpu"
    )
    if case == "one":
        model.fit(panel(1))
        return model.predict
    model.fit(panel(50))
    frame = panel(1 if case == "one-df" else MANY).assign(unique_id=lambda f: "new_" + f.unique_id)
    return lambda: model.predict(df=frame)


def neuralforecast_job(case: str) -> Callable[[], object]:
    """Return the forecast of neuralforecast."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    from neuralforecast import NeuralForecast
    from neuralforecast.models import PatchTST

    network = PatchTST(
        h=HORIZON,
        input_size=CONTEXT,
        encoder_layers=3,
        n_heads=4,
        hidden_size=16,
        linear_hidden_size=128,
        patch_len=16,
        stride=8,
        max_steps=5,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    model = NeuralForecast(models=[network], freq="h")
    if case == "one":
        model.fit(panel(1))
        return model.predict
    model.fit(panel(50))
    frame = panel(1 if case == "one-df" else MANY).assign(unique_id=lambda f: "new_" + f.unique_id)
    return lambda: model.predict(df=frame)


def seconds(call: Callable[[], object], n_calls: int) -> float:
    """Return the median over some calls in a row."""
    taken = []
    for _ in range(n_calls):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    """Run one case, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--neuralforecast", help="python of an environment with neuralforecast")
    parser.add_argument("--case", choices=CASES, help="only this one")
    parser.add_argument("--worker", choices=["tsar", "neuralforecast"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        import torch

        torch.set_num_threads(os.cpu_count() or 1)
        job = {"tsar": tsar_job, "neuralforecast": neuralforecast_job}[options.worker]
        call, (n_calls, _) = job(options.case), CASES[options.case]
        answer(lambda: seconds(call, n_calls), own_clock=True)
        return
    if not options.neuralforecast:
        parser.error("--neuralforecast is needed; setup_neuralforecast.sh makes the environment")
    for case in [options.case] if options.case else CASES:
        command = [str(Path(__file__)), "--case", case, "--worker"]
        take_turns(
            {
                "neuralforecast": ([options.neuralforecast, *command, "neuralforecast"], None),
                "tsar": ([sys.executable, *command, "tsar"], ROOT),
            },
            warmup=1,
            repeats=CASES[case][1],
            what=f"predict, {case}",
        )


if __name__ == "__main__":
    main()
