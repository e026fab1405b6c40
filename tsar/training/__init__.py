"""The only training loop, with its objectives, optimisers, schedules, devices and seeding."""

from tsar.training.device import autocast, resolve_device
from tsar.training.evaluation import evaluate
from tsar.training.learned_masks import LearnedMask
from tsar.training.loop import train
from tsar.training.objective import Objective
from tsar.training.optim import Adam, AdamW, Optimizer, TorchOptimizer, make_optimizer
from tsar.training.options import Phase, TrainingOptions, TrainingResult
from tsar.training.phases import train_phases
from tsar.training.processes import distributed
from tsar.training.schedules import (
    Constant,
    Cosine,
    Decaying,
    OneCycle,
    Schedule,
    make_schedule,
)
from tsar.training.seeding import make_generator, seeded
from tsar.training.state import TrainingState
from tsar.training.watching import log_to, on_epoch

__all__ = [
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "Decaying",
    "LearnedMask",
    "Objective",
    "OneCycle",
    "Optimizer",
    "Phase",
    "Schedule",
    "TorchOptimizer",
    "TrainingOptions",
    "TrainingResult",
    "TrainingState",
    "autocast",
    "distributed",
    "evaluate",
    "log_to",
    "make_generator",
    "make_optimizer",
    "make_schedule",
    "on_epoch",
    "resolve_device",
    "seeded",
    "train",
    "train_phases",
]
