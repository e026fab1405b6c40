"""The search for parameters, with Optuna (the extra ``tune``)."""

from tsar.tuning.search import OptunaSearch
from tsar.tuning.spaces import default_space

__all__ = ["OptunaSearch", "default_space"]
