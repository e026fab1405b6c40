"""What an objective says of a network on every example of a source."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tsar.training.device import autocast
from tsar.training.objective import DrawingSource, Objective, Source, draws, size_of
from tsar.training.seeding import make_generator
from tsar.training.sums import TermSums

__all__ = ["evaluate"]

# Validations differ by the network alone, and not by their noise.
_SEED = 0


def evaluate(
    network: nn.Module,
    source: Source | DrawingSource,
    objective: Objective,
    *,
    batch_size: int,
    device: torch.device,
    precision: str = "float32",
) -> dict[str, float]:
    """Score a network on every example, in order.

    Parameters
    ----------
    network : nn.Module
    source : Source or DrawingSource
        Of one that draws, the same examples are drawn every time.
    objective : Objective
    batch_size : int
        Examples at a time.
    device : torch.device
    precision : {"float32", "bfloat16", "auto"}

    Returns
    -------
    dict of str to float
        The mean of each term over all entries that it counts, whatever the batch size.
    """
    was_training = network.training
    network.eval()
    sums, generator = TermSums(), make_generator(_SEED, device)
    try:
        with torch.inference_mode():
            for batch in _in_order(source, batch_size):
                with autocast(device, precision):
                    terms = objective.validate(network, batch, generator)
                sums.add(terms)
    finally:
        network.train(was_training)
    return sums.means()


def _in_order(source: Source | DrawingSource, batch_size: int) -> Iterator[Any]:
    size, generator = size_of(source), make_generator(_SEED)
    for begin in range(0, size, batch_size):
        end = min(begin + batch_size, size)
        if draws(source):
            yield source.draw(end - begin, generator)
        else:
            yield source.batch(torch.arange(begin, end))  # type: ignore[union-attr]
