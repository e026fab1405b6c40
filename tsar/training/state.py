"""What a training run needs besides the weights to go on as if it had never stopped."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NotRequired, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from tsar.exceptions import TrainingError
from tsar.params.records import Count
from tsar.training.optim import Stepper

__all__ = [
    "Snapshot",
    "TrainedFitted",
    "TrainedRecord",
    "TrainingRecord",
    "TrainingState",
    "capture_optimizer",
    "check_size",
    "load_weights",
    "restore_generator",
    "restore_optimizer",
    "tensors_under",
]


class TrainingRecord(TypedDict):
    """What JSON holds of a :class:`TrainingState`; earlier versions left some of it out."""

    epoch: Count
    step: Count
    stale: Count
    optimizer_kind: NotRequired[str]
    parameters: NotRequired[dict[str, list[Any]]]
    history: dict[str, list[float]]


class TrainedFitted(TypedDict):
    """What JSON holds beside it of a trained network."""

    best_epoch: Count
    seed: Count
    interrupted: bool


class TrainedRecord(TypedDict):
    """What JSON holds of a trained estimator."""

    training: TrainingRecord
    fitted: TrainedFitted


@dataclass
class TrainingState:
    """The state of a training run at the end of an epoch.

    Attributes
    ----------
    epoch, step : int
        How many of each are done.
    stale : int
        Validations since the best one.
    optimizer : dict of str to Tensor
        Moments and counters of each parameter, as ``"<parameter>.<name>"``.
    optimizer_kind : str
        Whose they are.
    parameters : dict of str to list
        Type and shape of each of these parameters. Without it, parameters are not named but
        counted, as in models that earlier versions saved: see :meth:`named`.
    generators : dict of str to Tensor
        States of the run's own generators.
    weights : dict of str to Tensor
        The last weights, where the network was given back others: its best or averaged ones;
        empty where the network holds its last weights.
    averaged : dict of str to Tensor
        The averaged weights, where there are any.
    history : dict of str to list of float
        The records of the epochs done.
    """

    epoch: int = 0
    step: int = 0
    stale: int = 0
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    optimizer_kind: str = "adam"
    parameters: dict[str, list[Any]] = field(default_factory=dict)
    generators: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    averaged: dict[str, Tensor] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)

    TENSORS: ClassVar[tuple[str, ...]] = ("optimizer", "generators", "weights", "averaged")

    def finished(self) -> "TrainingState":
        """Return what is left when training is not to go on where it was: counts and history."""
        return replace(self, optimizer={}, parameters={}, generators={}, weights={}, averaged={})

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Split into named tensors and a dictionary that JSON can hold."""
        tensors = {
            f"{group}/{name}": tensor
            for group in self.TENSORS
            for name, tensor in getattr(self, group).items()
        }
        record = {
            "epoch": self.epoch,
            "step": self.step,
            "stale": self.stale,
            "optimizer_kind": self.optimizer_kind,
            "parameters": {name: list(form) for name, form in self.parameters.items()},
            "history": {name: list(values) for name, values in self.history.items()},
        }
        return tensors, record

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], record: dict[str, Any]) -> "TrainingState":
        """Put together what :meth:`to_tensors` took apart."""
        state = cls(**record)
        for path, tensor in tensors.items():
            group, name = path.split("/", 1)
            getattr(state, group)[name] = tensor
        return state

    def named(self, trained: Sequence[str]) -> "TrainingState":
        """Return the state with names in place of numbers, where it has numbers.

        Parameters
        ----------
        trained : sequence of str
            Names of the parameters that required gradients in the run that left it.
        """
        if self.parameters or not self.optimizer:
            return self
        optimizer, parameters = {}, {}
        for path, tensor in self.optimizer.items():
            place, entry = path.split(".", 1)
            name = trained[int(place)] if int(place) < len(trained) else f"number {place}"
            optimizer[f"{name}.{entry}"] = tensor
            if entry == "exp_avg":
                parameters[name] = _form(tensor)
        return replace(self, optimizer=optimizer, parameters=parameters)

    def afresh(self) -> "TrainingState":
        """Return the state for another phase: its weights and history, nothing of its steps."""
        return replace(self, step=0, stale=0, optimizer={}, parameters={}, weights={}, averaged={})


@dataclass
class Snapshot:
    """A training run in the middle of an epoch.

    Attributes
    ----------
    state : TrainingState
        Its weights are those of the network, its generators stand where they do; the one that
        shuffles, at the beginning of the epoch.
    last_step : int
        Where the run is to end.
    done : int
        Steps of the epoch that are done.
    sums : dict
        What has been added up of the epoch, see :class:`tsar.training.sums.TermSums`.
    unread : dict of str to Tensor
        The part of it that was not read yet.
    seconds : float
        Spent on the epoch.
    best_loss : float
    best_epoch : int
    best : dict of str to Tensor
        The best validation and the weights that gave it, if there is one.
    """

    state: TrainingState
    last_step: int
    done: int = 0
    sums: dict[str, Any] = field(default_factory=dict)
    unread: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    best_loss: float = float("inf")
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Split into named tensors and a dictionary that JSON can hold."""
        tensors, record = self.state.to_tensors()
        for group in ("unread", "best"):
            tensors |= {f"{group}/{name}": tensor for name, tensor in getattr(self, group).items()}
        own = ("last_step", "done", "sums", "seconds", "best_loss", "best_epoch")
        return tensors, {"state": record, **{name: getattr(self, name) for name in own}}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], record: dict[str, Any]) -> "Snapshot":
        """Put together what :meth:`to_tensors` took apart."""
        parts: dict[str, dict[str, Tensor]] = {"unread": {}, "best": {}, "state": {}}
        for path, tensor in tensors.items():
            group, name = path.split("/", 1)
            part = group if group in parts else "state"
            parts[part][path if part == "state" else name] = tensor
        state = TrainingState.from_tensors(parts.pop("state"), record["state"])
        return cls(**{**record, "state": state, **parts})


def capture_optimizer(stepper: Stepper, state: TrainingState) -> None:
    """Copy the memory of an optimiser into a state, as flat, named tensors on the CPU."""
    moments = stepper.moments()
    state.optimizer_kind = stepper.kind
    state.parameters = {name: _form(stepper.parameters[name]) for name in moments}
    state.optimizer = {
        f"{name}.{entry}": value.detach().cpu().clone()
        for name, entries in moments.items()
        for entry, value in entries.items()
    }


def restore_optimizer(stepper: Stepper, state: TrainingState) -> None:
    """Give an optimiser the memory that :func:`capture_optimizer` copied.

    Parameters that are trained now and were not begin anew, those that no longer are leave
    nothing behind. So do all of them under another kind of optimiser.

    Raises
    ------
    TrainingError
        If a parameter has another type or shape than the one that was remembered.
    """
    state = state.named(list(stepper.parameters))
    if state.optimizer_kind != stepper.kind:
        return
    moments: dict[str, dict[str, Tensor]] = {}
    for path, tensor in state.optimizer.items():
        name, entry = path.rsplit(".", 1)
        if name in stepper.parameters:
            moments.setdefault(name, {})[entry] = tensor
    for name in moments:
        form, held = _form(stepper.parameters[name]), state.parameters.get(name)
        if held != form:
            raise TrainingError(
                f"training cannot continue, because the state of the optimiser is that of a "
                f"parameter {name!r} of the form {held}, and the network has one of {form}; start "
                f"anew with warm_start=False"
            )
    stepper.restore(moments)


def restore_generator(generator: torch.Generator, name: str, held: Tensor) -> None:
    """Set a generator to a state that it can have.

    Raises
    ------
    TrainingError
        If it is the state of another kind of generator.
    """
    own = generator.get_state()
    if (held.dtype, held.shape) != (own.dtype, own.shape):
        raise TrainingError(
            f"training cannot continue, because the state of the generator {name!r} is "
            f"{held.dtype} {tuple(held.shape)}, and should be {own.dtype} {tuple(own.shape)}"
        )
    generator.set_state(held.cpu())


# How many numbers a network may hold besides its weights: masks, tables of positions.
MOST_BESIDE = 2**26


def check_size(build: Callable[[], nn.Module], weights: dict[str, Tensor]) -> None:
    """Find out without any memory whether a network has the weights that are there for it.

    Parameters
    ----------
    build : callable
        Makes the network.
    weights : dict of str to Tensor

    Raises
    ------
    TrainingError
        It is larger, or another one.
    """
    n_numbers = sum(tensor.numel() for tensor in weights.values())
    try:
        with torch.device("meta"), _limited(len(weights), n_numbers):
            network = build()
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, TrainingError):
            raise
        # A network that computes with its weights while it is built has to be built in earnest.
        return
    _check_forms(network, weights)


@contextlib.contextmanager
def _limited(n_weights: int, n_numbers: int) -> Iterator[None]:
    """Stop a network from being built when it gets larger than weights that are there for it."""
    thread, left = threading.get_ident(), [n_weights, n_numbers, MOST_BESIDE]

    def count(module: nn.Module, name: str, tensor: Tensor | None, *, weight: bool) -> None:
        if tensor is None or threading.get_ident() != thread:
            return
        if weight:
            left[0] -= 1
            left[1] -= tensor.numel()
        else:
            # Some of them are saved, and some are not.
            left[2] -= max(tensor.numel(), 1)
        if left[0] < 0 or left[1] < 0 or left[2] < -n_numbers:
            raise TrainingError(
                f"the weights are those of another network: there are {n_weights} with {n_numbers} "
                f"numbers, and the network that the parameters describe is larger"
            )

    hooks = (
        register_module_parameter_registration_hook(partial(count, weight=True)),
        register_module_buffer_registration_hook(partial(count, weight=False)),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def load_weights(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load weights that are those of a network by name, shape and type; nothing is converted.

    Raises
    ------
    TrainingError
        If they are those of another network.
    """
    _check_forms(network, weights)
    network.load_state_dict(weights)


def tensors_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {
        name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)
    }


def _check_forms(network: nn.Module, weights: dict[str, Tensor]) -> None:
    own = {name: _form(tensor) for name, tensor in network.state_dict().items()}
    held = {name: _form(tensor) for name, tensor in weights.items()}
    if held != own:
        name = min(name for name in {*own, *held} if own.get(name) != held.get(name))
        raise TrainingError(
            f"the weights are those of another network: {name!r} is {held.get(name, 'missing')} "
            f"among them, and {own.get(name, 'missing')} in the network"
        )


def _form(tensor: Tensor) -> list[Any]:
    """Return the type and the shape of a tensor, as JSON holds them."""
    return [str(tensor.dtype).removeprefix("torch."), *tensor.shape]
