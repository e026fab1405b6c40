"""Token mixers, one idea per file, found by name."""

from typing import Any

from tsar.core.mixers.attention import AttentionState, SoftmaxAttention
from tsar.core.mixers.base import Mixer
from tsar.params import check_choice

__all__ = ["MIXERS", "AttentionState", "Mixer", "SoftmaxAttention", "make_mixer"]

MIXERS: dict[str, type[Mixer]] = {"attention": SoftmaxAttention}


def make_mixer(name: str, d_model: int, **options: Any) -> Mixer:
    """Build the mixer of that name, one of :data:`MIXERS`.

    Parameters
    ----------
    name : str
    d_model : int
    **options
        Passed on to the mixer.

    Raises
    ------
    ParameterError
        If there is none of that name; the nearest one is suggested.
    """
    check_choice("make_mixer", "mixer", name, MIXERS)
    return MIXERS[name](d_model, **options)
