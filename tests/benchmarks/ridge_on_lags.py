"""Ridge regression on raw lags by the published protocol: what a representation has to beat.

All variates of ``--context-length`` steps are mapped to all variates of the horizon. The penalty is
chosen on the validation part by the root mean squared plus the mean absolute error.

    python tests/benchmarks/ridge_on_lags.py --dataset ETTh1 --horizon 24
"""

import argparse

import numpy as np
import torch

from tsar.core.ridge import RidgePath
from tsar.data.datasets import load_card, load_dataset

ALPHAS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


def windows(values: np.ndarray, first: int, last: int, context: int, horizon: int) -> tuple:
    """Return flat contexts and futures of the cutoffs ``[first, last)``."""
    cutoffs = np.arange(first, last)[:, None]
    return (
        torch.from_numpy(values[cutoffs + np.arange(-context, 0)].reshape(len(cutoffs), -1)),
        torch.from_numpy(values[cutoffs + np.arange(horizon)].reshape(len(cutoffs), -1)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ETTh1")
    parser.add_argument("--horizon", type=int, default=24)
    parser.add_argument("--context-length", type=int, default=201)
    options = parser.parse_args()
    split, context, horizon = (
        load_card(options.dataset).borders,
        options.context_length,
        options.horizon,
    )
    values = load_dataset(options.dataset).to_numpy(np.float64)
    train = values[: split.train_end]
    values = (values - train.mean(axis=0)) / train.std(axis=0)
    sizes = context, horizon
    x, y = windows(values, context, split.train_end - horizon + 1, *sizes)
    x_val, y_val = windows(values, split.train_end, split.val_end - horizon + 1, *sizes)
    x_test, y_test = windows(values, split.val_end, split.test_end - horizon + 1, *sizes)
    path = RidgePath(x.shape[1], y.shape[1])
    for part in torch.arange(len(x)).split(512):
        path.add(x[part], y[part])
    best = np.inf, None
    for alpha, (weight, bias) in zip(ALPHAS, path.solutions(ALPHAS), strict=True):
        error = x_val @ weight.T + bias - y_val
        score = float(error.square().mean().sqrt() + error.abs().mean())
        if score < best[0]:
            best = score, (alpha, weight, bias)
    alpha, weight, bias = best[1]
    error = x_test @ weight.T + bias - y_test
    print(
        f"{options.dataset}-{horizon}, ridge on {context} lags, penalty {alpha:g}: "
        f"mse {error.square().mean():.4f}, mae {error.abs().mean():.4f}, {len(error)} windows"
    )


if __name__ == "__main__":
    main()
