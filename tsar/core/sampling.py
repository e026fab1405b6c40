"""How tokens are drawn from logits, for all generative models."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.exceptions import ParameterError
from tsar.params.constraints import Interval, check_choice, check_value

__all__ = ["GUIDANCE_SCHEDULES", "Guidance", "Sampler", "draw", "uniform"]

GUIDANCE_SCHEDULES = ("constant", "linear", "power_cosine")


def uniform(shape: torch.Size, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Draw float64 numbers, evenly in [0, 1), where the generator is, and bring them to a device.

    A generator of the CPU gives the same numbers whatever the device.
    """
    place = device if generator is None else generator.device
    return torch.rand(shape, dtype=torch.float64, generator=generator, device=place).to(device)


def draw(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a class for each row of probabilities (..., V), as int64 (...).

    The class with the largest probability divided by an exponential number of its own, which is
    the one with the largest log-probability plus a Gumbel number. Both are in double precision:
    in single precision the largest Gumbel number there is, about 17, makes rare classes rarer.

    References
    ----------
    Gumbel, "Statistical theory of extreme values", 1954; Zheng et al., "Masked diffusion models
    are secretly time-agnostic masked models and exploit inaccurate categorical sampling", ICLR
    2025, section 5.
    """
    # Of a number drawn from [0, 1) the logarithm is below 0, and at most infinite.
    waiting = -uniform(probabilities.shape, generator, probabilities.device).log()
    return (probabilities.double() / waiting).argmax(dim=-1)


@dataclass(frozen=True)
class Sampler:
    """Which tokens may be drawn from logits, and how boldly.

    The temperature is applied first, then ``top_k``, then ``top_p``; what is left is divided by
    its sum.

    Parameters
    ----------
    temperature : float, default 1.0
        Divides the logits; 0 takes the most probable token.
    top_k : int, optional
        Only so many of the most probable tokens are drawn.
    top_p : float, optional
        Only the most probable tokens are drawn whose predecessors have less than this
        probability together, in (0, 1]. The most probable one always is.

    Raises
    ------
    ParameterError
        If a number is out of its range.

    References
    ----------
    Fan et al., "Hierarchical neural story generation", ACL 2018 (top-k); Holtzman et al., "The
    curious case of neural text degeneration", ICLR 2020 (top-p).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        check_value("Sampler", "temperature", self.temperature, Annotated[float, Interval(0)])
        check_value("Sampler", "top_k", self.top_k, Annotated[int, Interval(1)] | None)
        share = Annotated[float, Interval(0, 1, open_low=True)]
        check_value("Sampler", "top_p", self.top_p, share | None)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return what tokens are drawn with.

        Parameters
        ----------
        logits : Tensor of shape (..., V)

        Returns
        -------
        float64 Tensor of shape (..., V)
            Each row sums to 1.
        """
        if self.temperature == 0:
            return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).double()
        logits = logits.double()
        # The largest is taken off first: divided by a low temperature it could be infinite.
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            largest, places = logits.topk(self.top_k, dim=-1)
            logits = torch.full_like(logits, -torch.inf).scatter(-1, places, largest)
        probabilities = logits.softmax(dim=-1)
        if self.top_p is None or self.top_p == 1:
            return probabilities
        ordered, places = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        # Rounding may leave less than nothing before the first.
        ordered = ordered.masked_fill(before.clamp(min=0) >= self.top_p, 0.0)
        filtered = torch.zeros_like(ordered).scatter(-1, places, ordered)
        return filtered / filtered.sum(dim=-1, keepdim=True)

    def draw(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a token for each row of logits (..., V), as int64 (...).

        Nothing is taken from the generator at a temperature of 0.
        """
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        return draw(self.probabilities(logits), generator)


@dataclass(frozen=True)
class Guidance:
    """How much farther than the condition asks for, from level to level.

    What a network says with its condition (``c``) and without (``u``) is combined to
    ``u + w (c - u)``, be it logits, noise or a velocity. The weight ``w`` is 1 + ``scale`` at the
    end, and before that what the schedule says of it.

    Parameters
    ----------
    scale : float, default 0.0
        0 leaves what is said with the condition as it is.
    schedule : {"constant", "linear", "power_cosine"}, default "constant"
        At a share t of the way: ``1 + scale``, ``1 + scale t``, or
        ``1 + scale (1 - cos(pi t ** power)) / 2``.
    power : float, default 1.0
        Of "power_cosine".

    Raises
    ------
    ParameterError
        If there is no such schedule, or the power is not positive.

    References
    ----------
    Ho and Salimans, "Classifier-free diffusion guidance", arXiv:2207.12598; Tian et al., "Visual
    autoregressive modeling", NeurIPS 2024 (linear); Yu et al., "Randomized autoregressive visual
    generation", ICCV 2025 (power-cosine, with ``scale`` one less than theirs).
    """

    scale: float = 0.0
    schedule: str = "constant"
    power: float = 1.0

    def __post_init__(self) -> None:
        check_choice("Guidance", "schedule", self.schedule, GUIDANCE_SCHEDULES)
        if not self.power > 0:
            raise ParameterError(f"Guidance: power must be positive, got {self.power!r}")

    def weight(self, share: float) -> float:
        """Return the weight at a share of the way, in [0, 1]."""
        if self.schedule == "linear":
            return 1 + self.scale * share
        if self.schedule == "power_cosine":
            return 1 + self.scale * (1 - math.cos(math.pi * share**self.power)) / 2
        return 1 + self.scale

    @staticmethod
    def combine(conditional: Tensor, unconditional: Tensor, weight: float) -> Tensor:
        """Return what is said with a weight of what the condition changes."""
        if weight == 1:
            return conditional  # to the bit
        return unconditional + weight * (conditional - unconditional)
