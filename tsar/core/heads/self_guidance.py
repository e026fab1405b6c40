"""Sequences drawn by a diffusion that what was observed guides, without a network for it.

Dimension letters: N paths, T steps, K channels; paths are of one window or of several.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tsar.core.heads.diffusion import posterior

__all__ = ["Energy", "guided_paths", "refined_paths"]


@dataclass(frozen=True)
class Energy:
    """How far sequences are from what was observed: the sum over all observed entries.

    Parameters
    ----------
    target : Tensor of shape (..., 1, T, K), or (..., N, T, K)
    seen : bool Tensor of the same shape
    levels : Tensor of shape (N, 1, 1) or None
        Of each path, inside (0, 1), for the pinball error; None for the squared error.

    References
    ----------
    Kollovieh et al., "Predict, refine, synthesize: self-guiding diffusion models for probabilistic
    time series forecasting", NeurIPS 2023.
    """

    target: Tensor
    seen: Tensor
    levels: Tensor | None = None

    def __call__(self, sequences: Tensor) -> Tensor:
        """Return the energy of sequences (..., N, T, K), a Tensor of shape ()."""
        above = self.target - sequences
        if self.levels is None:
            errors = above.square()
        else:
            errors = torch.maximum(self.levels * above, (self.levels - 1) * above)
        return (errors * self.seen).sum()


def guided_paths(
    say: Callable[[Tensor, int], Tensor],
    signal: Tensor,
    draw: Callable[[], Tensor],
    *,
    energy: Energy | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Draw sequences from noise, moved step by step to where what was observed is likelier.

    After each step back the sequences go down the gradient of the energy that what they seem to be
    without noise has, by ``scale`` times the variance of the step.

    Parameters
    ----------
    say : callable
        Takes sequences (..., N, T, K) and the number of a time, and returns what noise is in them.
    signal : Tensor of shape (n_times,)
        The share of signal that is left at each time.
    draw : callable
        Draws normal numbers of the shape of the sequences.
    energy : Energy, optional
        None draws sequences of any kind.
    scale : float, default 1.0

    Returns
    -------
    Tensor of shape (..., N, T, K)

    References
    ----------
    Kollovieh et al., "Predict, refine, synthesize: self-guiding diffusion models for probabilistic
    time series forecasting", NeurIPS 2023.
    """
    x = draw()
    for place in range(len(signal) - 1, -1, -1):
        share = float(signal[place])
        before = float(signal[place - 1]) if place else 1.0
        with torch.no_grad():
            mean, variance = posterior(_clean(x, say(x, place), share), x, share, before)
        if not place:
            return mean
        x = mean + math.sqrt(variance) * draw()
        if energy is not None and scale:

            def cost(x: Tensor, place: int = place, share: float = share) -> Tensor:
                return energy(_clean(x, say(x, place), share))

            x = x - scale * variance * _gradient(cost, x)
    return x


def refined_paths(
    say: Callable[[Tensor, int], Tensor],
    share: float,
    place: int,
    paths: Tensor,
    draw: Callable[[], Tensor],
    *,
    energy: Energy,
    n_iterations: int,
    step_size: float,
    temperature: float = 0.0,
) -> Tensor:
    """Move sequences to where the diffusion finds them likelier, near what they shall be.

    Parameters
    ----------
    say, draw
        As :func:`guided_paths` takes them.
    share : float
        The share of signal at the time at which noise is put in.
    place : int
        The number of that time.
    paths : Tensor of shape (..., N, T, K)
    energy : Energy
    n_iterations : int
    step_size : float
    temperature : float, default 0.0
        Size of the noise of each step, times ``sqrt(2 step_size)``; 0 for plain descent, 1 for
        Langevin dynamics.

    Returns
    -------
    Tensor of shape (..., N, T, K)

    References
    ----------
    Kollovieh et al., "Predict, refine, synthesize: self-guiding diffusion models for probabilistic
    time series forecasting", NeurIPS 2023.
    """
    for _ in range(n_iterations):
        noise = draw()

        def cost(x: Tensor, noise: Tensor = noise) -> Tensor:
            noisy = math.sqrt(share) * x + math.sqrt(1 - share) * noise
            return (say(noisy, place) - noise).square().sum() + energy(x)

        paths = paths - step_size * _gradient(cost, paths)
        if temperature:
            paths = paths + temperature * math.sqrt(2 * step_size) * draw()
    return paths


def _clean(noisy: Tensor, noise: Tensor, share: float) -> Tensor:
    return (noisy - math.sqrt(1 - share) * noise) / math.sqrt(share)


def _gradient(cost: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the gradient of a cost of shape (), whoever turned gradients off around the call."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cost(x), x)
    return gradient
