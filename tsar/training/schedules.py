"""Learning-rate schedules: by name, or as objects with parameters of their own.

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

References
----------
Loshchilov and Hutter, "SGDR", ICLR 2017, eq. 5 (cosine); Smith and Topin,
"Super-convergence", 2018 (one_cycle).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from tsar.params.constraints import Interval, check_choice, check_fields
from tsar.params.objects import Storable
from tsar.params.registry import Registry, check_subclass_of

__all__ = [
    "SCHEDULES",
    "SCHEDULE_CLASSES",
    "Constant",
    "Cosine",
    "Decaying",
    "OneCycle",
    "Schedule",
    "as_schedule",
    "make_schedule",
]

Share = Annotated[float, Interval(0, 1)]
Inside = Annotated[float, Interval(0, 1, open_low=True, open_high=True)]


@dataclass(frozen=True, kw_only=True)
class Schedule(Storable, ABC):
    """A learning rate over the steps of a training, as a factor of the full rate.

    Parameters
    ----------
    warmup_steps : int, default 0
        The rate grows linearly over so many first steps, on top of the schedule.
    """

    kind: ClassVar[str] = "learning_rate_schedule"

    warmup_steps: Annotated[int, Interval(0)] = 0

    @classmethod
    def known_classes(cls) -> Mapping[str, type["Schedule"]]:
        return SCHEDULE_CLASSES

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def factor(self, step: int, steps_per_epoch: int, n_steps: int) -> float:
        """Return the factor of a step, counted from 0, without the warm-up.

        Parameters
        ----------
        step, steps_per_epoch : int
        n_steps : int
            Steps of the whole training.
        """

    def rate(self, learning_rate: float, steps_per_epoch: int, n_steps: int, step: int) -> float:
        """Return the learning rate of a step, given the full rate."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return learning_rate * warmup * self.factor(step, steps_per_epoch, n_steps)


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The full rate throughout."""

    def factor(self, step: int, steps_per_epoch: int, n_steps: int) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Decaying(Schedule):
    """The full rate in the first epochs, then a share of the rate of the epoch before.

    Parameters
    ----------
    share : float, default 0.5
        Inside (0, 1).
    full_epochs : int, default 2
    """

    share: Inside = 0.5
    full_epochs: Annotated[int, Interval(1)] = 2

    def factor(self, step: int, steps_per_epoch: int, n_steps: int) -> float:
        return float(self.share ** max(step // steps_per_epoch - (self.full_epochs - 1), 0))


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """From the full rate down along half a cosine, step by step.

    Parameters
    ----------
    lowest : float, default 0.0
        Where it ends, as a share of the full rate.
    """

    lowest: Share = 0.0

    def factor(self, step: int, steps_per_epoch: int, n_steps: int) -> float:
        fallen = 0.5 * (1 + math.cos(math.pi * step / n_steps))
        return self.lowest + (1 - self.lowest) * fallen


@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """Up to the full rate and down again, both along half a cosine.

    Parameters
    ----------
    rising : float, default 0.3
        Share of the steps that the rate rises, inside (0, 1).
    start, lowest : float, default 1/25 and 1/250000
        Where it begins and ends, as shares of the full rate.
    """

    rising: Inside = 0.3
    start: Share = 1 / 25
    lowest: Share = 1 / 25e4

    def factor(self, step: int, steps_per_epoch: int, n_steps: int) -> float:
        peak = self.rising * n_steps - 1
        if step <= peak:
            return _cosine_between(self.start, 1.0, step / peak)
        return _cosine_between(1.0, self.lowest, (step - peak) / (n_steps - 1 - peak))


def _cosine_between(start: float, end: float, part: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * part))


SCHEDULES: dict[str, Schedule] = {
    "constant": Constant(),
    "halving": Decaying(share=0.5, full_epochs=2),
    "type3": Decaying(share=0.9, full_epochs=4),
    "cosine": Cosine(),
    "one_cycle": OneCycle(),
}


def as_schedule(schedule: str | Schedule) -> Schedule:
    """Return the schedule of a name with its defaults, or the object that is given.

    Parameters
    ----------
    schedule : str or Schedule
        One of :data:`SCHEDULES`, or an object.

    Raises
    ------
    ParameterError
        If there is none of that name.
    """
    if isinstance(schedule, Schedule):
        return schedule
    check_choice("make_schedule", "schedule", schedule, SCHEDULES)
    return SCHEDULES[schedule]


# Those whose objects are saved with a model.
SCHEDULE_CLASSES: Registry[type[Schedule]] = Registry(
    "schedule",
    "tsar.schedules",
    {cls.__name__: cls for cls in (Constant, Decaying, Cosine, OneCycle)},
    check_subclass_of(Schedule, "a schedule", "tsar.training"),
)


def make_schedule(
    schedule: str | Schedule,
    learning_rate: float,
    *,
    steps_per_epoch: int,
    n_steps: int,
) -> Callable[[int], float]:
    """Build the function that gives the learning rate of a step.

    Parameters
    ----------
    schedule : str or Schedule
        One of :data:`SCHEDULES`, or an object.
    learning_rate : float
        The full rate.
    steps_per_epoch, n_steps : int
        Steps in one epoch and in the whole training.

    Returns
    -------
    callable
        From the step, counted from 0, to its learning rate.

    Raises
    ------
    ParameterError
        If there is none of that name.
    """
    chosen = as_schedule(schedule)
    return lambda step: chosen.rate(learning_rate, steps_per_epoch, n_steps, step)
