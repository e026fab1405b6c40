"""Vectors of a continuous kind, by a diffusion that takes noise off them step by step."""

import math

import torch
from torch import Tensor

from tsar.core.heads.denoiser import DenoisingHead, noise_like

__all__ = ["DiffusionHead", "linear_signal", "posterior", "respaced"]

N_TIMES = 1000
# Added to the share of the way in the cosine schedule, so that the first steps are not too small.
OFFSET = 0.008
# Data lie in [-1, 1]; a little more is left for what is not pixels.
LARGEST = 1.0


class DiffusionHead(DenoisingHead):
    """Vectors drawn from noise, of which a small network says what part is noise.

    Parameters
    ----------
    d_model, n_values, n_steps, repeats
        See :class:`~tsar.core.heads.denoiser.DenoisingHead`; values lie in [-1, 1], and of the
        1,000 times so many are gone through when drawing.

    References
    ----------
    Ho et al., "Denoising diffusion probabilistic models", NeurIPS 2020; Nichol and Dhariwal,
    "Improved denoising diffusion probabilistic models", ICML 2021 (cosine schedule, fewer steps);
    Li et al., "Autoregressive image generation without vector quantization", NeurIPS 2024.
    """

    signal: Tensor

    def __init__(self, d_model: int, n_values: int, *, n_steps: int = 25, repeats: int = 2) -> None:
        super().__init__(d_model, n_values, n_steps=n_steps, repeats=repeats)
        self.register_buffer("signal", cosine_signal(N_TIMES).float(), persistent=False)

    def noisy(
        self, x: Tensor, noise: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        place = x.device if generator is None else generator.device
        time = torch.randint(N_TIMES, (len(x),), generator=generator, device=place).to(x.device)
        signal = self.signal[time][:, None]
        return signal.sqrt() * x + (1 - signal).sqrt() * noise, time / N_TIMES, noise

    @torch.no_grad()
    def sample(
        self,
        z: Tensor,
        *,
        temperature: float = 1.0,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw vectors (N, E), see :meth:`tsar.core.heads.FlowHead.sample`.

        The temperature is that of all the noise that is added on the way.
        """
        x = self.first_noise(z, guidance, generator)
        times = respaced(N_TIMES, self.n_steps)
        for place in range(len(times) - 1, -1, -1):
            signal = float(self.signal[times[place]])
            before = float(self.signal[times[place - 1]]) if place else 1.0
            noise = self.said(x, times[place] / N_TIMES, z, guidance)
            clean = (x - math.sqrt(1 - signal) * noise) / math.sqrt(signal)
            x, variance = posterior(clean.clamp(-LARGEST, LARGEST), x, signal, before)
            if place:
                x = x + temperature * math.sqrt(variance) * noise_like(x, generator)
        return x


def cosine_signal(n_times: int) -> Tensor:
    """Return the share of signal (n_times,) that is left at each time, in float64."""
    steps = torch.arange(1, n_times + 1, dtype=torch.float64) / n_times

    def height(share: Tensor | float) -> Tensor:
        angle = (torch.as_tensor(share) + OFFSET) / (1 + OFFSET) * math.pi / 2
        return angle.cos().square()

    # No step takes away all that is left.
    shares = height(steps) / height((torch.arange(n_times, dtype=torch.float64)) / n_times)
    return shares.clamp(min=0.001).cumprod(dim=0)


def linear_signal(n_times: int, *, first: float = 1e-4, last: float = 0.1) -> Tensor:
    """Return the share of signal (n_times,) that is left at each time, in float64.

    The noise of a step grows linearly from ``first`` to ``last``, where there are a hundred steps.
    Fewer take more, and more take less, so that about as little is left in the end.
    """
    steps = torch.linspace(first, last, n_times, dtype=torch.float64) * 100 / n_times
    return (1 - steps.clamp(max=0.999)).cumprod(dim=0)


def respaced(n_times: int, n_steps: int) -> list[int]:
    """Return so many of the times, evenly spread, the last one among them."""
    n_steps = min(n_steps, n_times)
    return [round((step + 1) * n_times / n_steps) - 1 for step in range(n_steps)]


def posterior(clean: Tensor, noisy: Tensor, signal: float, before: float) -> tuple[Tensor, float]:
    """Return the mean and variance of what was a step before, given both ends.

    ``signal`` is the share at this step, ``before`` that of the step before.
    """
    step = signal / before
    of_clean = math.sqrt(before) * (1 - step) / (1 - signal)
    of_noisy = math.sqrt(step) * (1 - before) / (1 - signal)
    return of_clean * clean + of_noisy * noisy, (1 - before) / (1 - signal) * (1 - step)
