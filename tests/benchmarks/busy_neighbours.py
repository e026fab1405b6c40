"""Time fits and forecasts on an idle machine, and beside processes that keep it busy.

    python tests/benchmarks/busy_neighbours.py

The neighbours, one for each processor, are made here. Idle and busy turns alternate, and the ratio
is the median over the rounds of the time beside them by the time without. --root FOLDER times the
tsar of another checkout. The number of threads is that which torch chooses.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# Class, rows and variates, calls of predict in a turn, parameters.
ETTH1 = {"d_model": 16, "d_ff": 128, "n_layers": 3, "n_heads": 4, "dropout": 0.3}
WIDE = {"d_model": 256, "d_ff": 256, "n_layers": 2, "n_heads": 8, "calendar_features": False}
CASES: dict[str, tuple[str, tuple[int, int], int, dict[str, Any]]] = {
    "NLinear": ("NLinear", (600, 3), 100, {"context_length": 96, "horizon": 24, "max_epochs": 5}),
    "PatchTST": ("PatchTST", (600, 3), 20, {"context_length": 96, "horizon": 24, "max_epochs": 3}),
    "iTransformer, width 256": (
        "iTransformer",
        (2000, 7),
        20,
        {"context_length": 96, "horizon": 96, "max_steps": 40, "early_stopping": False, **WIDE},
    ),
    "PatchTST, 128 windows of 336": (
        "PatchTST",
        (2000, 7),
        20,
        {"context_length": 336, "horizon": 96, "max_steps": 6, "batch_size": 128, **ETTH1},
    ),
}


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep so many processors busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        # They are there when the first of them has worked for a while.
        time.sleep(0.5)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def jobs(case: str) -> dict[str, Callable[[], object]]:
    """Return what is timed of one model."""
    import tsar

    name, (n_rows, n_variates), n_calls, options = CASES[case]
    index = pd.date_range("2020-01-01", periods=n_rows, freq="h")
    values = np.random.default_rng(0).normal(size=(n_rows, n_variates))
    frame = pd.DataFrame(values, index=index, columns=[f"s{i}" for i in range(n_variates)])

    def fit() -> Any:
        return getattr(tsar, name)(random_state=0, device="cpu", **options).fit(frame)

    fitted = fit()

    def predict() -> None:
        for _ in range(n_calls):
            fitted.predict(df=frame)

    return {"fit": fit, "predict": predict}


def timed(job: Callable[[], object]) -> float:
    """Return the seconds of one turn."""
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def main() -> None:
    """Run one model, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", choices=CASES, help="only this one")
    parser.add_argument("--neighbours", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--root", default=str(Path(__file__).resolve().parents[2]))
    options = parser.parse_args()
    sys.path.insert(0, options.root)
    for case in [options.model] if options.model else CASES:
        for what, job in jobs(case).items():
            pairs = []
            for _ in range(options.rounds):
                idle = timed(job)
                with neighbours(options.neighbours):
                    pairs.append((idle, timed(job)))
            idle, busy = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(after / before for before, after in pairs)
            print(
                f"{case:>30}, {what:<8} idle {idle * 1e3:8.1f} ms, "
                f"busy {busy * 1e3:8.1f} ms, ratio {ratio:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
