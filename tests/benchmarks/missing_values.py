"""DGM2 and a GRU that is shown the last observed values, where much of ETTh1 is missing.

A share of all values is left out at random, of what is learned from and of the histories of the
windows that are forecast; errors are those of all values, in units of the training rows.

    TSAR_DATA=FOLDER python tests/benchmarks/missing_values.py --missing 0.5
"""

import argparse
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

import tsar
from tsar.data.windows import Inputs
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.network import NetworkForecaster, NetworkSpec

CONTEXT, HORIZON = 48, 12
N_TRAINED, N_ROWS = 8640, 11520


class GRUNetwork(nn.Module):
    """A GRU over values that were carried forward, and a linear map of its last state."""

    def __init__(self, spec: NetworkSpec, d_model: int) -> None:
        super().__init__()
        self.revin = RevIN()
        self.gru = nn.GRU(spec.n_variates, d_model, batch_first=True)
        self.head = nn.Linear(d_model, spec.horizon * spec.n_variates)
        self.horizon, self.output = spec.horizon, spec.output

    def forward(self, inputs: Inputs) -> Tensor:
        x, location, scale = self.revin(inputs.target, inputs.observed)
        raw = self.head(self.gru(x)[1][0]).unflatten(1, (self.horizon, x.shape[2], 1))
        forecast: Tensor = self.output(raw, location, scale)
        return forecast


@dataclass(kw_only=True, eq=False, repr=False)
class FilledGRU(NetworkForecaster):
    """The GRU, trained as DGM2 is."""

    d_model: int = 32

    channel_independent: ClassVar[bool] = False
    takes_any_variates: ClassVar[bool] = False

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return GRUNetwork(spec, self.d_model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--missing", type=float, default=0.5, help="share of the values")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    whole = tsar.load_dataset("ETTh1")[:N_ROWS]
    mean, scale = whole[:N_TRAINED].mean().to_numpy(), whole[:N_TRAINED].std().to_numpy()
    cutoffs = np.arange(N_TRAINED + CONTEXT, N_ROWS - HORIZON, HORIZON)
    truth = (whole.to_numpy()[cutoffs[:, None] + np.arange(HORIZON)] - mean) / scale
    for seed in range(arguments.seeds):
        hidden = np.random.default_rng(seed).random(whole.shape) < arguments.missing
        sparse = whole.mask(hidden)
        for cls in (FilledGRU, tsar.DGM2):
            started = time.process_time()
            model = cls(
                context_length=CONTEXT,
                horizon=HORIZON,
                d_model=32,
                batch_size=64,
                learning_rate=3e-3,
                max_epochs=arguments.epochs,
                patience=3,
                random_state=seed,
                device="cpu",
            ).fit(sparse[:N_TRAINED])
            forecast = (model.forecast_windows(sparse, cutoffs) - mean) / scale
            error = forecast - truth
            print(
                f"seed {seed}, {arguments.missing:.0%} missing, {cls.__name__}: "
                f"MSE {np.square(error).mean():.4f}, MAE {np.abs(error).mean():.4f} "
                f"({model.n_epochs_} epochs, {time.process_time() - started:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
