"""Sequences drawn by a diffusion that what was observed guides, without a network for it.

Dimension letters: N paths, T steps, K channels; paths are of one window or of several.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tsar.core.heads.diffusion import posterior, respaced

__all__ = ["Energy", "guided_paths", "refined_paths"]

# Of the square of a gradient that is divided by: where nothing pulls, nothing moves.
SMALLEST = 1e-12


@dataclass(frozen=True)
class Energy:
    """How far each sequence is from what was observed: the sum over all observed entries.

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
        """Return the energies (..., N) of sequences (..., N, T, K)."""
        above = self.target - sequences
        if self.levels is None:
            errors = above.square()
        else:
            errors = torch.maximum(self.levels * above, (self.levels - 1) * above)
        return (errors * self.seen).sum(dim=(-2, -1))


def guided_paths(
    say: Callable[[Tensor, int], Tensor],
    signal: Tensor,
    draw: Callable[[], Tensor],
    *,
    energy: Energy | None = None,
    scale: float = 1.0,
    n_steps: int | None = None,
) -> Tensor:
    """Draw sequences from noise, moved step by step to where what was observed is likelier.

    After each step back the sequences go down the gradient of the energy that what they seem to be
    without noise has, by ``scale`` times the variance of the step. None goes further than to where
    its energy would be 0 if it fell on as it begins to fall: of a convex energy, the way to what
    was observed gets no longer by such a step, however large the scale. Without this bound
    the squared error, whose gradient grows with the distance, throws sequences ever further off.

    Parameters
    ----------
    say : callable
        Takes sequences (..., N, T, K) and the number of a time, and returns what noise is in them.
        Sequences do not depend on each other.
    signal : Tensor of shape (n_times,)
        The share of signal that is left at each time.
    draw : callable
        Draws normal numbers of the shape of the sequences.
    energy : Energy, optional
        None draws sequences of any kind.
    scale : float, default 1.0
    n_steps : int, optional
        So many of the times are gone through, evenly spread; None goes through all.

    Returns
    -------
    Tensor of shape (..., N, T, K)

    References
    ----------
    Kollovieh et al., "Predict, refine, synthesize: self-guiding diffusion models for probabilistic
    time series forecasting", NeurIPS 2023; the bound is the step of Polyak, "Minimization of
    unsmooth functionals", USSR Computational Mathematics and Mathematical Physics, 1969; fewer
    steps as in Nichol and Dhariwal, "Improved denoising diffusion probabilistic models", ICML 2021.
    """
    x = draw()
    places = respaced(len(signal), n_steps or len(signal))
    for place, place_before in zip(reversed(places), [*reversed(places[:-1]), None], strict=True):
        share = float(signal[place])
        before = 1.0 if place_before is None else float(signal[place_before])
        with torch.no_grad():
            mean, variance = posterior(_clean(x, say(x, place), share), x, share, before)
        if place_before is None:
            return mean
        x = mean + math.sqrt(variance) * draw()
        if energy is not None and scale:

            def cost(x: Tensor, place: int = place, share: float = share) -> Tensor:
                return energy(_clean(x, say(x, place), share))

            energies, gradient = _gradient(cost, x)
            steepness = gradient.square().sum(dim=(-2, -1)).clamp(min=SMALLEST)
            size = (energies / steepness).clamp(max=scale * variance)
            x = x - size[..., None, None] * gradient
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
            return (say(noisy, place) - noise).square().sum(dim=(-2, -1)) + energy(x)

        paths = paths - step_size * _gradient(cost, paths)[1]
        if temperature:
            paths = paths + temperature * math.sqrt(2 * step_size) * draw()
    return paths


def _clean(noisy: Tensor, noise: Tensor, share: float) -> Tensor:
    return (noisy - math.sqrt(1 - share) * noise) / math.sqrt(share)


def _gradient(cost: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return costs (..., N) and their gradients, whoever turned gradients off around the call."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        costs = cost(x)
        (gradient,) = torch.autograd.grad(costs.sum(), x)
    return costs.detach(), gradient
