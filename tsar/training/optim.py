"""Optimisers and learning-rate schedules, by name."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from tsar.params.constraints import check_choice
from tsar.training.device import has_fused_optimizers

__all__ = ["OPTIMIZERS", "SCHEDULES", "Adam", "make_optimizer", "make_schedule"]

OPTIMIZERS = ("adam", "adamw")


class Adam:
    """Adam, with weight decay as a part of the gradient or decoupled from it.

    The same steps as ``torch.optim.Adam`` and ``AdamW``, which import the compiler of torch when
    the first of them is made: two seconds and 70 MB in every process that fits.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        Those that do not require gradients are left as they are.
    learning_rate : float
        May be set anew before every step.
    betas : pair of float
        How much of the running means of gradients and of their squares a step keeps.
    weight_decay : float
    decoupled : bool
        Whether weights shrink by ``learning_rate * weight_decay`` in each step (AdamW).

    Attributes
    ----------
    parameters : list of nn.Parameter
    state : dict of int to dict of str to Tensor
        Of each parameter that had a gradient, by its place: ``step``, a float32 Tensor of
        shape (), and the means ``exp_avg`` and ``exp_avg_sq``, shaped like the parameter.

    References
    ----------
    Kingma and Ba, "Adam", ICLR 2015, algorithm 1; Loshchilov and Hutter, "Decoupled weight
    decay regularization", ICLR 2019, algorithm 2.
    """

    EPSILON = 1e-8

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.learning_rate = learning_rate
        self.betas = betas
        self.weight_decay = weight_decay
        self.decoupled = decoupled
        self.state: dict[int, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for place, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                groups.setdefault((parameter.device, parameter.dtype), []).append(place)
                if place not in self.state:
                    self.state[place] = {
                        "step": torch.zeros((), device=parameter.device),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
        for (device, _), places in groups.items():
            moved: list[Tensor] = [self.parameters[place] for place in places]
            gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
            steps, means, squares = (
                [self.state[place][name] for place in places]
                for name in ("step", "exp_avg", "exp_avg_sq")
            )
            torch._foreach_add_(steps, 1)
            move = self._fused if has_fused_optimizers(device) else self._plain
            move(moved, gradients, means, squares, steps)

    def _fused(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        means: list[Tensor],
        squares: list[Tensor],
        steps: list[Tensor],
    ) -> None:
        """Move all parameters in one pass instead of a dozen small ones for each."""
        kernel = torch._fused_adamw_ if self.decoupled else torch._fused_adam_
        kernel(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            lr=self.learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=self.EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def _plain(self, *tensors: list[Tensor]) -> None:
        """Move one parameter after the other, as the formula is written."""
        kept, kept_of_squares = self.betas
        for parameter, gradient, mean, square, step in zip(*tensors, strict=True):
            if self.decoupled:
                parameter.mul_(1 - self.learning_rate * self.weight_decay)
            else:
                gradient = gradient + self.weight_decay * parameter
            mean.lerp_(gradient, 1 - kept)
            square.lerp_(gradient.square(), 1 - kept_of_squares)
            size = self.learning_rate / (1 - kept**step)
            spread = (square / (1 - kept_of_squares**step)).sqrt_() + self.EPSILON
            parameter.sub_(size * mean / spread)


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    *,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
) -> Adam:
    """Build the optimiser of that name.

    Parameters
    ----------
    name : {"adam", "adamw"}
    parameters : iterable of nn.Parameter
    learning_rate, weight_decay : float
    betas : pair of float

    Raises
    ------
    ParameterError
        If there is none of that name.
    """
    check_choice("make_optimizer", "optimizer", name, OPTIMIZERS)
    return Adam(
        parameters,
        learning_rate,
        betas=betas,
        weight_decay=weight_decay,
        decoupled=name == "adamw",
    )


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
