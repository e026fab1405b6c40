"""Train LSTNet on exchange_rate and measure it as the tables of its paper do.

    TSAR_DATA=... python tests/benchmarks/lstnet_exchange.py [--horizon 3] [--scaler max_abs]

RSE and CORR of the last step of the horizon, beside those of the last value. The settings are the
authors', but for three things: the largest absolute values are those of the training rows, where
theirs are of the whole file; the network forecasts all steps of the horizon, where theirs has only
the last; and the best epoch is that of the validation loss in place of its RSE.
"""

import argparse
import time

import tsar
from tsar.evaluation import evaluate_last_step
from tsar.training import Adam

# 6 : 2 : 2, rounded down as the authors' code does.
SHARES = (0.6, 0.8)


def main() -> None:
    """Print both measures of both models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--horizon", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--loss", default="mae")
    parser.add_argument("--scaler", choices=["max_abs", "standard", "none"], default="max_abs")
    parser.add_argument("--seed", type=int, default=54321)
    options = parser.parse_args()
    frame = tsar.load_dataset("exchange_rate")
    borders = (*(int(share * len(frame)) for share in SHARES), len(frame))
    naive = tsar.Naive(horizon=options.horizon).fit(frame.iloc[: borders[1]])
    model = tsar.LSTNet(
        context_length=168,
        horizon=options.horizon,
        loss=options.loss,
        scaler=None if options.scaler == "none" else options.scaler,
        batch_size=128,
        optimizer=Adam(clip=10.0),
        learning_rate=1e-3,
        learning_rate_schedule="constant",
        max_epochs=options.epochs,
        early_stopping=borders[1] - borders[0],
        patience=options.epochs,
        random_state=options.seed,
    )
    began = time.perf_counter()
    model.fit(frame.iloc[: borders[1]])
    seconds = time.perf_counter() - began
    for name, fitted in (("last value", naive), ("LSTNet", model)):
        errors = evaluate_last_step(fitted, frame, borders, batch_size=256)
        print(
            f"{name:10s} h={options.horizon} rse {errors['rse']:.4f} corr {errors['corr']:.4f} "
            f"windows {errors['n_windows']}"
        )
    losses = model.history_["val_loss"]
    print(f"fit of {seconds:.0f} s, best epoch {1 + losses.index(min(losses))} of {len(losses)}")


if __name__ == "__main__":
    main()
