"""The search for parameters, with Optuna (the extra ``tune``), and for the inputs that matter."""

from tsar.tuning.attention import sequential_attention
from tsar.tuning.search import OptunaSearch
from tsar.tuning.selection import InputSelector
from tsar.tuning.spaces import default_space

__all__ = ["InputSelector", "OptunaSearch", "default_space", "sequential_attention"]
