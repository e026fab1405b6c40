"""Trainings in several phases."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from tsar.training.checkpoint import Checkpoint
from tsar.training.loop import train
from tsar.training.objective import DrawingSource, Objective, Source
from tsar.training.options import Phase, TrainingResult
from tsar.training.state import TrainingState

__all__ = ["train_phases"]


def train_phases(
    network: nn.Module,
    source: Source | DrawingSource,
    validation: Source | DrawingSource | None,
    objective: Objective,
    phases: Sequence[Phase],
    *,
    device: torch.device,
    seed: int,
    state: TrainingState | None = None,
    checkpoint: Checkpoint | None = None,
) -> TrainingResult:
    """Train a network in place, in one phase after the other.

    A phase begins with the best weights of the one before, another optimiser and another
    schedule. Epochs are counted over all of them, and so are the steps that ``max_steps`` of
    the phases bounds.

    Parameters
    ----------
    network, source, validation, objective, device, seed, state
        See :func:`train`. The state continues the first phase.
    phases : sequence of Phase
        At least one.
    checkpoint : Checkpoint, optional
        Where the training leaves its state, and goes on from what is there.

    Returns
    -------
    TrainingResult
        Of the last phase that was trained.
    """
    first = 0 if checkpoint is None else checkpoint.phase
    spent = 0 if checkpoint is None else checkpoint.spent
    result: TrainingResult | None = None
    for place, phase in enumerate(phases):
        if place < first:
            continue
        options = phase.options
        if options.max_steps is not None:
            if spent == options.max_steps:
                break
            options = replace(options, max_steps=options.max_steps - spent)
        if result is not None:
            state = result.state.afresh()
        if checkpoint is not None:
            checkpoint.phase, checkpoint.spent = place, spent
        # Every phase but the first one begins at step 0.
        before = 0 if place or state is None else state.step
        result = train(
            network,
            source,
            validation,
            phase.objective or objective,
            options,
            device=device,
            seed=seed,
            state=state,
            frozen=phase.frozen,
            checkpoint=checkpoint,
        )
        spent += result.state.step - before
        if result.interrupted:
            break
    assert result is not None, "phases are given, and steps are left for the first of them"
    return result
