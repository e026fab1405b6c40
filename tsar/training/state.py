"""What a training run needs besides the weights to go on as if it had never stopped."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tsar.training.optim import Adam

__all__ = ["TrainingState"]


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
    generators : dict of str to Tensor
        States of the run's own generators.
    weights : dict of str to Tensor
        The last weights, where the network was given back its best ones;
        empty where the network holds its last weights.
    history : dict of str to list of float
        The records of the epochs done.
    """

    epoch: int = 0
    step: int = 0
    stale: int = 0
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    generators: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)

    _TENSORS = ("optimizer", "generators", "weights")

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Split into named tensors and a dictionary that JSON can hold."""
        tensors = {
            f"{group}/{name}": tensor
            for group in self._TENSORS
            for name, tensor in getattr(self, group).items()
        }
        record = {
            "epoch": self.epoch,
            "step": self.step,
            "stale": self.stale,
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


def capture_optimizer(optimizer: Adam) -> dict[str, Tensor]:
    """Copy the moments of an optimiser into flat, named tensors on the CPU."""
    return {
        f"{place}.{name}": value.cpu().clone()
        for place, entries in optimizer.state.items()
        for name, value in entries.items()
    }


def restore_optimizer(optimizer: Adam, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser the moments that :func:`capture_optimizer` copied."""
    optimizer.state = {}
    for path, tensor in tensors.items():
        place, name = path.split(".", 1)
        device = optimizer.parameters[int(place)].device
        # A copy on its own device, too: steps are made in place.
        optimizer.state.setdefault(int(place), {})[name] = tensor.to(device, copy=True)
