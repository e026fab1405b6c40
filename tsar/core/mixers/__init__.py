"""Token mixers, one idea per file, found by name."""

import inspect
from typing import Any

from tsar.core.mixers.attention import SoftmaxAttention
from tsar.core.mixers.auto_correlation import AutoCorrelation
from tsar.core.mixers.base import CarryingMixer, Mixer
from tsar.core.mixers.bidirectional import Bidirectional
from tsar.core.mixers.mamba import BidirectionalMamba, Mamba, MambaState
from tsar.params.constraints import check_choice

__all__ = [
    "MIXERS",
    "AutoCorrelation",
    "Bidirectional",
    "BidirectionalMamba",
    "CarryingMixer",
    "Mamba",
    "MambaState",
    "Mixer",
    "SoftmaxAttention",
    "accepted_options",
    "causal_mixers",
    "make_mixer",
]

MIXERS: dict[str, type[Mixer]] = {
    "attention": SoftmaxAttention,
    "autocorrelation": AutoCorrelation,
    "mamba": Mamba,
    "bidirectional_mamba": BidirectionalMamba,
}


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


def accepted_options(name: str, **offered: Any) -> dict[str, Any]:
    """Return those of the offered options that the mixer of that name has.

    A model offers what it knows, such as its number of heads, and any mixer fits it.

    Parameters
    ----------
    name : str
        One of :data:`MIXERS`.
    **offered
        Options as for :func:`make_mixer`.

    Raises
    ------
    ParameterError
        If there is none of that name; the nearest one is suggested.
    """
    check_choice("accepted_options", "mixer", name, MIXERS)
    known = inspect.signature(MIXERS[name]).parameters
    return {option: value for option, value in offered.items() if option in known}


def causal_mixers() -> list[str]:
    """List the mixers that let a token depend on no later one, always or if they are asked to."""
    return [
        name for name, cls in MIXERS.items() if cls.causal or accepted_options(name, causal=True)
    ]
