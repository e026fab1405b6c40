"""The only training loop, with its optimisers, schedules, devices and seeding."""

from tsar.training.device import autocast, resolve_device
from tsar.training.loop import TrainingOptions, TrainingResult, evaluate, on_epoch, train
from tsar.training.optim import make_optimizer, make_schedule
from tsar.training.seeding import make_generator, seeded
from tsar.training.state import TrainingState

__all__ = [
    "TrainingOptions",
    "TrainingResult",
    "TrainingState",
    "autocast",
    "evaluate",
    "make_generator",
    "make_optimizer",
    "make_schedule",
    "on_epoch",
    "resolve_device",
    "seeded",
    "train",
]
