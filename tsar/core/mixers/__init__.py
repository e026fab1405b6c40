"""Token mixers, one idea per file, found by name."""

import inspect
from typing import Any

from tsar.core.mixers.attention import ResidualAttention, SoftmaxAttention
from tsar.core.mixers.auto_correlation import AutoCorrelation
from tsar.core.mixers.base import CarryingMixer, Mixer, RecurrentMixer
from tsar.core.mixers.bidirectional import Bidirectional
from tsar.core.mixers.gated_linear_attention import GatedLinearAttention, Retention
from tsar.core.mixers.linear_attention import LinearAttention
from tsar.core.mixers.mamba import BidirectionalMamba, Mamba, MambaState
from tsar.core.mixers.mamba2 import Mamba2
from tsar.exceptions import ParameterError
from tsar.params.constraints import check_choice
from tsar.params.registry import Registry, check_subclass_of

__all__ = [
    "MIXERS",
    "AutoCorrelation",
    "Bidirectional",
    "BidirectionalMamba",
    "CarryingMixer",
    "GatedLinearAttention",
    "LinearAttention",
    "Mamba",
    "Mamba2",
    "MambaState",
    "Mixer",
    "RecurrentMixer",
    "ResidualAttention",
    "Retention",
    "SoftmaxAttention",
    "accepted_options",
    "causal_mixers",
    "check_heads",
    "make_mixer",
]


# The constructor of each takes ``d_model`` and then options by name, see accepted_options.
MIXERS: Registry[type[Mixer]] = Registry(
    "mixer",
    "tsar.mixers",
    {
        "attention": SoftmaxAttention,
        "residual_attention": ResidualAttention,
        "autocorrelation": AutoCorrelation,
        "linear_attention": LinearAttention,
        "gated_linear_attention": GatedLinearAttention,
        "retention": Retention,
        "mamba": Mamba,
        "bidirectional_mamba": BidirectionalMamba,
        "mamba2": Mamba2,
    },
    check_subclass_of(Mixer, "a mixer", "tsar.core.mixers"),
)


def make_mixer(mixer: str | type[Mixer], d_model: int, **options: Any) -> Mixer:
    """Build a mixer.

    Parameters
    ----------
    mixer : str or subclass of Mixer
        One of :data:`MIXERS`, or a class itself.
    d_model : int
    **options
        Passed on to the mixer.

    Raises
    ------
    ParameterError
        If there is none of that name; the nearest one is suggested.
    """
    return _mixer_class("make_mixer", mixer)(d_model, **options)


def accepted_options(mixer: str | type[Mixer], **offered: Any) -> dict[str, Any]:
    """Return those of the offered options that a mixer has.

    A model offers what it knows, such as its number of heads, and any mixer fits it.

    Parameters
    ----------
    mixer : str or subclass of Mixer
        One of :data:`MIXERS`, or a class itself.
    **offered
        Options as for :func:`make_mixer`.

    Raises
    ------
    ParameterError
        If there is none of that name; the nearest one is suggested.
    """
    parameters = inspect.signature(_mixer_class("accepted_options", mixer)).parameters
    return {option: value for option, value in offered.items() if option in parameters}


def causal_mixers() -> list[str]:
    """List the mixers that let a token depend on no later one, always or if they are asked to."""
    return [
        name for name, cls in MIXERS.items() if cls.causal or accepted_options(cls, causal=True)
    ]


def check_heads(owner: str, mixer: str | type[Mixer], *, d_model: int, n_heads: int) -> None:
    """Raise an error unless the heads divide the width; a mixer without heads takes any.

    Parameters
    ----------
    owner : str
        Whose parameters they are, for the message.
    mixer : str or subclass of Mixer
    d_model, n_heads : int

    Raises
    ------
    ParameterError
        If they do not, or there is no mixer of that name.
    """
    if accepted_options(mixer, n_heads=n_heads) and d_model % n_heads:
        raise ParameterError(
            f"{owner}: d_model must be a multiple of n_heads={n_heads}, got {d_model}"
        )


def _mixer_class(owner: str, mixer: str | type[Mixer]) -> type[Mixer]:
    if isinstance(mixer, type) and issubclass(mixer, Mixer):
        return mixer
    check_choice(owner, "mixer", mixer, MIXERS)
    return MIXERS[mixer]
