"""What a training run minimises and compares, and sources of the batches it does so on."""

from abc import ABC, abstractmethod
from typing import Any, Protocol, TypeAlias, TypeGuard

import torch
from torch import Tensor, nn

__all__ = [
    "ChangingSource",
    "DrawingSource",
    "Objective",
    "Source",
    "Terms",
    "changes",
    "draws",
    "size_of",
]

# Sums of errors and how many entries each of them counts, by the name of the term.
Terms: TypeAlias = dict[str, tuple[Tensor, Tensor]]


class Objective(ABC):
    """What a network is trained for.

    The loop knows nothing of batches and networks but this: what an objective makes of them
    are named terms, each a sum and the number of entries it is the sum of, both Tensors of
    shape (). The mean of a term is its sum over its count, whatever the batches are.
    """

    @abstractmethod
    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Terms:
        """Return the terms of a training step, which minimises the sum of their means.

        Parameters
        ----------
        network : nn.Module
            In training mode.
        batch : object
            As the source gives it.
        generator : torch.Generator
            Of the run, on the device: noise that is drawn from it is drawn anew in every
            step, and goes on where it was when training continues.

        Returns
        -------
        dict of str to pair of Tensor
            One of them named ``loss``: the error itself. Others, such as a penalty, have names
            of their own. Each is recorded as ``train_<name>``.
        """

    def validate(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Terms:
        """Return the terms of a validation; by default those of a training step.

        Parameters
        ----------
        network : nn.Module
            In evaluation mode, without gradients.
        batch : object
        generator : torch.Generator
            The same numbers at every validation.

        Returns
        -------
        dict of str to pair of Tensor
            Early stopping compares ``loss`` and nothing else; the others are for people.
            Each is recorded as ``val_<name>``.
        """
        return self.loss(network, batch, generator)


class Source(Protocol):
    """A number of examples, of which batches are asked for by their numbers."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Any:
        """Return the examples with the numbers ``index``, an int64 Tensor of shape (B,)."""


class ChangingSource(Source, Protocol):
    """A source whose examples have something random in them whenever they are asked for.

    Attributes
    ----------
    generator : torch.Generator
        On the CPU, where all chance is from: a training that goes on restores its state.
    """

    generator: torch.Generator


class DrawingSource(Protocol):
    """Examples that are drawn, as many as are asked for.

    Attributes
    ----------
    epoch_size : int
        How many of them are an epoch.
    """

    epoch_size: int

    def draw(self, size: int, generator: torch.Generator) -> Any:
        """Return a batch of ``size`` examples, all chance in them from a generator on the CPU."""


def changes(source: Source | DrawingSource) -> TypeGuard[ChangingSource]:
    """Whether a source has a generator of its own."""
    return hasattr(source, "generator")


def draws(source: Source | DrawingSource) -> TypeGuard[DrawingSource]:
    """Whether a source draws its examples."""
    return not hasattr(source, "__len__")


def size_of(source: Source | DrawingSource) -> int:
    """Return how many examples an epoch has."""
    return source.epoch_size if draws(source) else len(source)  # type: ignore[arg-type]
