"""Train the weights of ``tsar.load_pretrained("tiny")`` on synthetic series.

Run it from this folder::

    python train.py --steps 10000 --checkpoint tiny.pt --curve tiny.csv --weights tiny.safetensors

What was begun goes on with ``--resume``; another number of steps only moves the point at which the
learning rate begins to fall. ``--start`` begins from weights that were written before, as the
second stage of what is shipped does::

    python train.py --start first.safetensors --steps 10000 --seed 1 --rate 6e-4
"""

import argparse
import csv
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from synthetic import SyntheticBatch, stream
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from tsar.forecasting.layers.cycle_features import ScaledHistory, lagged
from tsar.forecasting.layers.cycle_patches import CyclePatchNetwork

# Series of the streams with this seed are for validation.
VALIDATION_SEED = 1_000_003
# Beyond so many times what the seasonal naive misses, a value counts as if it were there.
FARTHEST = 60.0
# How predictable a series can count as, in units of what the seasonal naive misses, and from how
# many pairs of steps.
LEAST_MISSED, FEWEST_PAIRS = 0.1, 8
# Share that a step keeps of the running mean of all weights; the mean is what is written.
AVERAGE = 0.998
# Calendars that a step learns from.
PER_STEP = 2
WARMUP_STEPS, COOLDOWN_SHARE = 100, 0.8


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64, help="series of one calendar")
    parser.add_argument("--rate", type=float, default=1e-3, help="largest learning rate")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--checkpoint", type=Path, default=Path("tiny.pt"))
    parser.add_argument("--start", type=Path, help="weights to begin from")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--curve", type=Path, default=Path("tiny.csv"))
    parser.add_argument("--weights", type=Path, default=Path("tiny.safetensors"))
    parser.add_argument("--validate-every", type=int, default=250, help="steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="compute in half the bits: faster where the processor has instructions for it, such "
        "as AMX, and several times slower elsewhere",
    )
    return parser.parse_args()


def scaled_parts(batch: SyntheticBatch) -> tuple[ScaledHistory, Tensor, Tensor]:
    """Return the history, what is to be forecast (B, H), and how much each series counts, (B,).

    Series count by how predictable they have been: by the inverse of how much steps in the history
    differ from those as far away as the middle of what is to be forecast, their trend left out.
    Otherwise few random walks would outweigh all others. Constants count nothing.
    """
    values = torch.from_numpy(batch.values).double()
    history, target = values[:, : batch.context], values[:, batch.context :]
    scaled = ScaledHistory.of(history, ~history.isnan(), batch.cycles[0])
    moves = scaled.scale > 0
    target = (target - scaled.level) / torch.where(moves, scaled.scale, 1.0)
    season = batch.cycles[0]
    lag = -(-target.shape[1] // (2 * season)) * season
    before, both = lagged(scaled.values, scaled.seen, lag)
    n_pairs = both.sum(1, keepdim=True).clamp(min=1)
    change = (scaled.values - before) * both
    missed = ((change - change.sum(1, keepdim=True) / n_pairs).abs() * both).sum(1) / n_pairs[:, 0]
    missed = torch.where(both.sum(1) < FEWEST_PAIRS, 1.0, missed)
    counts = moves[:, 0] / missed.clamp(min=LEAST_MISSED)
    return scaled, target.clamp(-FARTHEST, FARTHEST).float(), counts.float()


def pinball(forecast: Tensor, target: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Return the quantile losses (B, H, Q), twice so that the median has its absolute error."""
    error = target[:, :, None] - forecast
    level = torch.tensor(levels)
    return 2 * torch.maximum(level * error, (level - 1) * error)


def batch_loss(network: CyclePatchNetwork, batch: SyntheticBatch, bfloat16: bool) -> Tensor:
    history, target, counts = scaled_parts(batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        forecast = network.forecast_scaled(history, batch.cycles, target.shape[1])
    loss = pinball(forecast.float(), target, network.levels).mean(dim=(1, 2))
    return (loss * counts).mean()


@torch.inference_mode()
def validate(network: CyclePatchNetwork, n_batches: int = 24, n_series: int = 64) -> list[float]:
    """Return the quantile loss, and absolute errors by those of the seasonal naive."""
    losses, errors, naive_errors = [], [], []
    untrained = CyclePatchNetwork(patch_length=network.patch_length, d_model=32, n_layers=0)
    middle = network.levels.index(0.5)
    for batch in islice(stream(VALIDATION_SEED, n_series), n_batches):
        history, target, counts = scaled_parts(batch)
        horizon = target.shape[1]
        forecast = network.forecast_scaled(history, batch.cycles, horizon)
        naive = untrained.forecast_scaled(history, batch.cycles, horizon)
        losses.append((pinball(forecast, target, network.levels).mean(dim=(1, 2)) * counts).mean())
        for one, where in ((forecast, errors), (naive, naive_errors)):
            where.append(((one[:, :, middle] - target).abs().mean(dim=1) * counts).mean())
    loss, error, naive_error = (
        torch.stack(one).mean().item() for one in (losses, errors, naive_errors)
    )
    return [loss, error / naive_error]


def rate_at(step: int, steps: int, largest: float) -> float:
    """Return a rate that rises, stays, and falls to nothing."""
    left = (steps - step) / max(COOLDOWN_SHARE * steps, 1)
    return largest * min(1.0, (step + 1) / WARMUP_STEPS, left)


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    network = CyclePatchNetwork(
        patch_length=arguments.patch,
        d_model=arguments.width,
        n_heads=arguments.width // 32,
        d_ff=arguments.hidden,
        n_layers=arguments.layers,
    )
    if arguments.start is not None:
        network.load_state_dict(
            {name: part.float() for name, part in load_file(arguments.start).items()}
        )
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.02
    )
    # Begins as a mean of few steps.
    average = AveragedModel(
        network,
        avg_fn=lambda mean, new, n: mean + (new - mean) * max(1 - AVERAGE, 1 / (int(n) + 1)),
    )
    first, seconds = 0, 0.0
    if arguments.resume:
        held = torch.load(arguments.checkpoint, weights_only=True)
        network.load_state_dict(held["network"])
        average.load_state_dict(held["average"])
        optimizer.load_state_dict(held["optimizer"])
        first, seconds = held["step"], held["seconds"]
    batches: Iterator[SyntheticBatch] = stream(
        arguments.seed, arguments.batch, start=PER_STEP * first
    )
    begin, losses = time.perf_counter() - seconds, []
    for step in range(first, arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, arguments.steps, arguments.rate)
        optimizer.zero_grad()
        for batch in islice(batches, PER_STEP):
            loss = batch_loss(network, batch, arguments.bfloat16) / PER_STEP
            loss.backward()
            losses.append(PER_STEP * loss.item())
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        done = step + 1
        if done % arguments.validate_every and done != arguments.steps:
            continue
        row = [done, round(time.perf_counter() - begin), sum(losses) / len(losses)]
        row += validate(average.module)
        losses = []
        is_new = not arguments.curve.exists()
        with arguments.curve.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(["step", "seconds", "train_loss", "loss", "error_by_naive"])
            writer.writerow([f"{part:.5g}" for part in row])
        state = {
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": done,
            "seconds": time.perf_counter() - begin,
        }
        torch.save(state, arguments.checkpoint)
    weights = average.module.state_dict()
    save_file({name: part.half() for name, part in weights.items()}, arguments.weights)


if __name__ == "__main__":
    main()
