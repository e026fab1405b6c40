"""Training steps that torch compiles."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from tsar.exceptions import ParameterError
from tsar.training.device import global_generator
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
    if global_generator(device) is None:
        raise ParameterError(
            f"compile=True needs a device whose generator can be seeded, cpu or an accelerator of "
            f"this kind, got {device}; set compile=False"
        )
    try:
        torch.compile(_probe)(torch.ones(2, device=device))
    except (RuntimeError, OSError, ImportError) as error:
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
        As :meth:`Objective.loss`. What is compiled draws from torch's global generator of the
        device: it is seeded from that of the run in every step and put back after it, so that a
        training can be repeated.
    """
    compiled = torch.compile(objective.loss)

    def loss(network: nn.Module, batch: Any, generator: torch.Generator) -> Terms:
        drawn = torch.randint(_SEEDS, (), generator=generator, device=generator.device)
        with seeded(int(drawn)), _seeded_device(int(drawn), generator.device):
            return compiled(network, batch, generator)

    return loss


@contextlib.contextmanager
def _seeded_device(seed: int, device: torch.device) -> Iterator[None]:
    """Let torch draw from a seed on a device, whose global generator is then as it was."""
    generator = global_generator(device)
    assert generator is not None, "it was asked for before the training"
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)
