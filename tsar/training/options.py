"""How to train, and what comes out of it."""

from dataclasses import dataclass
from typing import Annotated

from tsar.params.constraints import Interval, check_value
from tsar.training.objective import Objective
from tsar.training.optim import Optimizer
from tsar.training.schedules import Schedule
from tsar.training.state import TrainingState

__all__ = ["Phase", "TrainingOptions", "TrainingResult"]


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes
    ----------
    max_epochs : int or None
        None trains for ``max_steps``.
    max_steps : int or None
        Stops a call after so many steps, in the middle of an epoch if need be.
    batch_size : int
        Examples in a batch; the incomplete last batch of an epoch is left out
        where there is a complete one.
    accumulate : int
        A batch goes through the network in so many parts, whose gradients are added up: the
        same step in less memory, but for what a network finds out from a batch as a whole
        (batch normalisation). Where parts count different numbers of entries, every term
        weighs them by those of ``loss``.
    validation_batch_size : int or None
        Examples scored at a time, of which no gradients are kept; None takes ``batch_size``.
    optimizer : {"adam", "adamw"} or Optimizer
    learning_rate : float
    schedule : str or Schedule
        See :mod:`tsar.training.schedules`.
    average : float or None
        Share that a step keeps of a running mean of all weights, inside (0, 1). Validated and
        given back are then the averaged weights, and training goes on with its own.
    patience : int or None
        Stops after so many validations without a better one; None never does.
    compile : bool
        Whether torch compiles the steps; not the validation.
    verbose : int
        With 1, a progress bar, and a line per epoch through the logger "tsar".
    """

    max_epochs: int | None = 10
    max_steps: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    validation_batch_size: int | None = None
    optimizer: str | Optimizer = "adam"
    learning_rate: float = 1e-3
    schedule: str | Schedule = "constant"
    average: float | None = None
    patience: int | None = None
    compile: bool = False
    verbose: int = 0

    def __post_init__(self) -> None:
        inside = Interval(0, 1, open_low=True, open_high=True)
        check_value("train", "accumulate", self.accumulate, Annotated[int, Interval(1)])
        check_value("train", "average", self.average, Annotated[float, inside] | None)


@dataclass(frozen=True)
class Phase:
    """A part of a training: some of the weights, in some way.

    Attributes
    ----------
    options : TrainingOptions
    frozen : tuple of str
        Names of modules of the network that are left as they are: no gradients, no
        statistics, no dropout.
    objective : Objective or None
        What it is for; None takes that of the training.
    """

    options: TrainingOptions
    frozen: tuple[str, ...] = ()
    objective: Objective | None = None


@dataclass
class TrainingResult:
    """What came out of a training run.

    Attributes
    ----------
    history : dict of str to list of float
        One entry per epoch, those of an earlier run that was continued
        included: ``train_<name>`` and, with validation, ``val_<name>`` of each term of the
        objective, ``learning_rate`` (of the epoch's last step) and ``seconds``. NaN where an
        epoch has no such number.
    best_epoch : int
        The epoch, counted from 1, whose weights the network holds; 0 if none
        was completed.
    n_epochs : int
        Epochs done, those of an earlier run included.
    state : TrainingState
        For continuing.
    interrupted : bool
        Whether a keyboard interrupt ended the run.
    """

    history: dict[str, list[float]]
    best_epoch: int
    n_epochs: int
    state: TrainingState
    interrupted: bool = False
