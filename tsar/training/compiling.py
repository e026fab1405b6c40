"""Training steps that torch compiles."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tsar.exceptions import ParameterError
from tsar.training.objective import Objective, Terms
from tsar.training.seeding import seeded

__all__ = ["check_compiler", "compiled_loss"]

# A seed for what is drawn in a step, out of the generator of the run.
_SEEDS = 2**62


def check_compiler(device: torch.device) -> None:
    """Refuse to compile where it cannot be done, before a training begins.

    Parameters
    ----------
    device : torch.device

    Raises
    ------
    ParameterError
        With what torch says.
    """
    try:
        torch.compile(_probe)(torch.ones(2, device=device))
    except Exception as error:  # what a missing compiler raises is different on each system
        reason = str(error).strip().partition("\n")[0]
        raise ParameterError(
            f"compile=True, but torch cannot compile for {device} here: {reason}; install a "
            f"compiler (on a CPU that of C++, such as g++), or set compile=False"
        ) from error


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


def compiled_loss(objective: Objective) -> Callable[[nn.Module, Any, torch.Generator], Terms]:
    """Return the loss of an objective, compiled.

    Parameters
    ----------
    objective : Objective

    Returns
    -------
    callable
        As :meth:`Objective.loss`. What is compiled draws from torch's global generator: it is
        seeded from that of the run in every step and put back after it, so that a training can
        be repeated.
    """
    compiled = torch.compile(objective.loss)

    def loss(network: nn.Module, batch: Any, generator: torch.Generator) -> Terms:
        drawn = torch.randint(_SEEDS, (), generator=generator, device=generator.device)
        with seeded(int(drawn)):
            return compiled(network, batch, generator)

    return loss
