"""TSDiff on exchange rates: what each guidance is worth, and what refining does to a weak base.

The protocol of the paper: the first 6,071 days to learn from, then five windows of 30 days; the
mean over the levels 0.1 to 0.9 of the quantile loss, twice its sum divided by the sum of the
absolute values. The network is smaller here and trained for much less.

    TSAR_DATA=FOLDER python tests/benchmarks/exchange_guidance.py --steps 2000 --model FOLDER
"""

import argparse
import time
from pathlib import Path

import numpy as np

import tsar

LEVELS = tuple(round(0.1 * step, 1) for step in range(1, 10))
N_TRAINED, N_WINDOWS, HORIZON = 6071, 5, 30


def weighted_quantile_loss(truth, quantiles):
    """Return the mean over levels, of quantiles by level in the shape of the truth."""
    losses = [
        2 * np.maximum(level * (truth - values), (level - 1) * (truth - values)).sum()
        for level, values in quantiles.items()
    ]
    return float(np.mean(losses) / np.abs(truth).sum())


def of_samples(samples):
    """Return quantiles of samples (W, N, H, C)."""
    return {level: np.quantile(samples, level, axis=1) for level in LEVELS}


def samples_of(frame, names):
    """Return the numbers (N, H, C) of a wide frame of samples."""
    return frame[names].to_numpy().reshape(-1, HORIZON, len(names))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="of training")
    parser.add_argument("--samples", type=int, default=16, help="paths of a forecast")
    parser.add_argument("--model", type=Path, required=True, help="where the fitted one is kept")
    parser.add_argument("--only", nargs="*", default=["quantile", "squared", "none", "refine"])
    parser.add_argument("--scale", type=float, default=8.0, help="of the guidance")
    parser.add_argument("--sampling", type=int, help="steps of the diffusion gone through")
    arguments = parser.parse_args()
    rates = tsar.load_dataset("exchange_rate").astype(float)
    names = list(rates.columns)
    if not arguments.model.exists():
        started = time.process_time()
        model = tsar.TSDiff(
            context_length=60,
            horizon=HORIZON,
            d_model=16,
            n_layers=2,
            d_state=16,
            n_steps=50,
            n_samples=arguments.samples,
            batch_size=8,  # times eight variates
            max_steps=arguments.steps,
            optimizer=tsar.training.Adam(clip=0.5),
            early_stopping=False,
            random_state=0,
            device="cpu",
        ).fit(rates[:N_TRAINED])
        model.save(arguments.model)
        losses = model.history_["train_loss"]
        spent = time.process_time() - started
        print(f"trained {arguments.steps} steps in {spent:.0f} s of CPU, loss {losses[-1]:.4f}")
    model = tsar.load(arguments.model)
    rows = N_TRAINED + HORIZON * np.arange(N_WINDOWS)
    truth = rates.to_numpy()[rows[:, None] + np.arange(HORIZON)]
    for name in arguments.only:
        started = time.process_time()
        if name == "refine":
            refine(model, rates, names, rows, truth, arguments.samples)
            continue
        guided = model.guided(
            None if name == "none" else name,
            guidance_scale=arguments.scale,
            n_samples=arguments.samples,
            n_sampling_steps=arguments.sampling,
        )
        panel = guided.read_new(rates[: rows[-1] + HORIZON])
        found = guided.forecast(panel, np.zeros_like(rows), rows, HORIZON, levels=LEVELS)
        loss = weighted_quantile_loss(truth, found.quantiles)
        spent = time.process_time() - started
        print(f"guidance {name}, scale {arguments.scale}: {loss:.5f} ({spent:.0f} s)", flush=True)


def refine(model, rates, names, rows, truth, n_samples):
    """Print what a base is worth before and after refining."""
    base = tsar.NLinear(
        context_length=60, horizon=HORIZON, loss="gaussian", max_epochs=2, random_state=0
    ).fit(rates[:N_TRAINED])
    frames = [base.predict(df=rates[:row], samples=n_samples) for row in rows]
    before = np.stack([samples_of(frame, names) for frame in frames])
    print(f"base: {weighted_quantile_loss(truth, of_samples(before)):.5f}")
    for guidance in ("quantile", "squared"):
        after = np.stack(
            [
                samples_of(model.refine(frame, rates[:row], guidance=guidance), names)
                for frame, row in zip(frames, rows, strict=True)
            ]
        )
        loss = weighted_quantile_loss(truth, of_samples(after))
        print(f"refined, {guidance}: {loss:.5f}", flush=True)


if __name__ == "__main__":
    main()
