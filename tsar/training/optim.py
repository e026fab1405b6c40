"""Optimisers and learning-rate schedules, by name."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from tsar.params import check_choice
from tsar.training.device import has_fused_optimizers

__all__ = ["OPTIMIZERS", "SCHEDULES", "make_optimizer", "make_schedule", "set_learning_rate"]

OPTIMIZERS: dict[str, type[torch.optim.Adam]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    *,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """Build the optimiser of that name.

    Parameters
    ----------
    name : {"adam", "adamw"}
    parameters : iterable of nn.Parameter
        All on one device.
    learning_rate, weight_decay : float
    betas : pair of float

    Raises
    ------
    ParameterError
        If there is none of that name.
    """
    check_choice("make_optimizer", "optimizer", name, OPTIMIZERS)
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    # One fused pass instead of a dozen small ones per parameter.
    fused = bool(parameters) and has_fused_optimizers(parameters[0].device)
    return OPTIMIZERS[name](
        parameters,
        lr=learning_rate,
        betas=betas,
        weight_decay=weight_decay,
        fused=fused,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _constant(step: int, steps_per_epoch: int, n_steps: int) -> float:
    return 1.0


def _halving(step: int, steps_per_epoch: int, n_steps: int) -> float:
    return 0.5 ** max(step // steps_per_epoch - 1, 0)


def _type3(step: int, steps_per_epoch: int, n_steps: int) -> float:
    return 0.9 ** max(step // steps_per_epoch - 3, 0)


def _cosine(step: int, steps_per_epoch: int, n_steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / n_steps))


def _one_cycle(step: int, steps_per_epoch: int, n_steps: int) -> float:
    low, lowest = 1 / 25, 1 / 25e4
    peak = 0.3 * n_steps - 1
    if step <= peak:
        return _cosine_between(low, 1.0, step / peak)
    return _cosine_between(1.0, lowest, (step - peak) / (n_steps - 1 - peak))


def _cosine_between(start: float, end: float, part: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * part))


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "constant": _constant,
    "halving": _halving,
    "type3": _type3,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
}


def make_schedule(
    name: str,
    learning_rate: float,
    *,
    steps_per_epoch: int,
    n_steps: int,
    warmup_steps: int = 0,
) -> Callable[[int], float]:
    """Build the function that gives the learning rate of a step.

    ========== ================================================================
    constant   the full rate throughout
    halving    full in the first two epochs, then half the rate of the epoch
               before ("type1" of the long-term forecasting papers)
    type3      full in the first four epochs, then 0.9 times the rate of the
               epoch before
    cosine     from the full rate to 0 along half a cosine, step by step
    one_cycle  from 1/25 up to the full rate over the first 30 % of the steps
               and down to 1/250000, both along half a cosine
    ========== ================================================================

    Parameters
    ----------
    name : str
    learning_rate : float
        The full rate.
    steps_per_epoch, n_steps : int
        Steps in one epoch and in the whole training.
    warmup_steps : int, default 0
        The rate grows linearly over so many first steps, on top of the schedule.

    Returns
    -------
    callable
        From the step, counted from 0, to its learning rate.

    Raises
    ------
    ParameterError
        If there is none of that name.

    References
    ----------
    Loshchilov and Hutter, "SGDR", ICLR 2017, eq. 5 (cosine); Smith and Topin,
    "Super-convergence", 2018 (one_cycle).
    """
    check_choice("make_schedule", "schedule", name, SCHEDULES)
    factor = SCHEDULES[name]

    def rate(step: int) -> float:
        warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
        return learning_rate * warmup * factor(step, steps_per_epoch, n_steps)

    return rate
