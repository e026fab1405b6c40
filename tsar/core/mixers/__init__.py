"""Token mixers, one idea per file, found by name."""

import inspect
from collections.abc import Iterable
from typing import Any

from tsar.core.mixers.attention import ResidualAttention, SoftmaxAttention
from tsar.core.mixers.attention_free import AttentionFree
from tsar.core.mixers.auto_correlation import AutoCorrelation
from tsar.core.mixers.base import CarryingMixer, Mixer, RecurrentMixer
from tsar.core.mixers.bidirectional import Bidirectional
from tsar.core.mixers.combiner import Combiner
from tsar.core.mixers.companion import Companion
from tsar.core.mixers.dual_attention import DualAttention
from tsar.core.mixers.dynamic_convolution import DynamicConvolution, LightConvolution
from tsar.core.mixers.exponential_smoothing import ExponentialSmoothing
from tsar.core.mixers.flow_attention import FlowAttention
from tsar.core.mixers.fourier import Fourier
from tsar.core.mixers.gated_linear_attention import GatedLinearAttention, Retention
from tsar.core.mixers.hashed_attention import HashedAttention
from tsar.core.mixers.holographic import HolographicAttention
from tsar.core.mixers.landmark import LandmarkAttention
from tsar.core.mixers.latents import LatentAttention
from tsar.core.mixers.linear_attention import LinearAttention
from tsar.core.mixers.low_rank import LowRankAttention
from tsar.core.mixers.mamba import BidirectionalMamba, GatedConvolution, Mamba, MambaState
from tsar.core.mixers.mamba2 import Mamba2
from tsar.core.mixers.mega import Mega
from tsar.core.mixers.multiresolution import MultiresolutionAttention
from tsar.core.mixers.neighbourhood import NeighbourhoodAttention
from tsar.core.mixers.prefix_attention import PrefixAttention
from tsar.core.mixers.prob_sparse import ProbSparse
from tsar.core.mixers.routing import RoutingAttention
from tsar.core.mixers.sparse_keys import SparseKeys
from tsar.core.mixers.state_space import GatedStateSpace, StructuredStateSpace
from tsar.exceptions import ParameterError
from tsar.params.constraints import check_choice
from tsar.params.registry import Registry, check_subclass_of

__all__ = [
    "MIXERS",
    "AttentionFree",
    "AutoCorrelation",
    "Bidirectional",
    "BidirectionalMamba",
    "CarryingMixer",
    "Combiner",
    "Companion",
    "DualAttention",
    "DynamicConvolution",
    "ExponentialSmoothing",
    "FlowAttention",
    "Fourier",
    "GatedConvolution",
    "GatedLinearAttention",
    "GatedStateSpace",
    "HashedAttention",
    "HolographicAttention",
    "LandmarkAttention",
    "LatentAttention",
    "LightConvolution",
    "LinearAttention",
    "LowRankAttention",
    "Mamba",
    "Mamba2",
    "MambaState",
    "Mega",
    "Mixer",
    "MultiresolutionAttention",
    "NeighbourhoodAttention",
    "PrefixAttention",
    "ProbSparse",
    "RecurrentMixer",
    "ResidualAttention",
    "Retention",
    "RoutingAttention",
    "SoftmaxAttention",
    "SparseKeys",
    "StructuredStateSpace",
    "accepted_options",
    "causal_mixers",
    "check_causal",
    "check_heads",
    "level_mixers",
    "make_mixer",
    "ordered_mixers",
    "recurrent_mixers",
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
        "gated_state_space": GatedStateSpace,
        "structured_state_space": StructuredStateSpace,
        "companion": Companion,
        "exponential_smoothing": ExponentialSmoothing,
        "mega": Mega,
        "prefix_attention": PrefixAttention,
        "probsparse": ProbSparse,
        "attention_free": AttentionFree,
        "sparse_keys": SparseKeys,
        "combiner": Combiner,
        "routing": RoutingAttention,
        "fourier": Fourier,
        "gated_convolution": GatedConvolution,
        "light_convolution": LightConvolution,
        "dynamic_convolution": DynamicConvolution,
        "multiresolution": MultiresolutionAttention,
        "neighbourhood": NeighbourhoodAttention,
        "flow_attention": FlowAttention,
        "hashed_attention": HashedAttention,
        "holographic": HolographicAttention,
        "landmark": LandmarkAttention,
        "low_rank": LowRankAttention,
        "latents": LatentAttention,
        "dual_attention": DualAttention,
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


def level_mixers() -> list[str]:
    """List the mixers that can be told the levels of tokens, which see each other inside of one."""
    return [name for name, cls in MIXERS.items() if cls.takes_levels]


def ordered_mixers() -> list[str]:
    """List the mixers that can tell in which order tokens are."""
    return [name for name, cls in MIXERS.items() if cls.knows_order]


def recurrent_mixers() -> list[str]:
    """List the mixers that go through tokens in their order, with a state of fixed size."""
    return [name for name, cls in MIXERS.items() if issubclass(cls, RecurrentMixer)]


def check_causal(owner: str, mixers: Iterable[Mixer]) -> None:
    """Raise an error unless all mixers are causal.

    Parameters
    ----------
    owner : str
        Who needs them to be, for the message.
    mixers : iterable of Mixer

    Raises
    ------
    ParameterError
        If one lets a token depend on later ones.
    """
    for mixer in mixers:
        if not mixer.causal:
            raise ParameterError(f"{owner}: {type(mixer).__name__} looks ahead; pass causal mixers")


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
