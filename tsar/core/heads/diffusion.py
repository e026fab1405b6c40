"""Vectors of a continuous kind, by a diffusion that takes noise off them step by step."""

import math

import torch
from torch import Tensor, nn

from tsar.core.heads.denoiser import Denoiser, noise_like, squared_error
from tsar.core.sampling import Guidance

__all__ = ["DiffusionHead"]

N_TIMES = 1000
# Added to the share of the way in the cosine schedule, so that the first steps are not too small.
OFFSET = 0.008
# Data lie in [-1, 1]; a little more is left for what is not pixels.
LARGEST = 1.0


class DiffusionHead(nn.Module):
    """Vectors drawn from noise, of which a small network says what part is noise.

    Parameters
    ----------
    d_model : int
        D, of the features that say what is wanted.
    n_values : int
        E, of a vector, whose values lie in [-1, 1].
    n_steps : int, default 25
        Of the 1,000 times, so many are gone through when drawing.
    repeats : int, default 2
        Each vector is learned at so many times in a step.

    References
    ----------
    Ho et al., "Denoising diffusion probabilistic models", NeurIPS 2020; Nichol and Dhariwal,
    "Improved denoising diffusion probabilistic models", ICML 2021 (cosine schedule, fewer steps);
    Li et al., "Autoregressive image generation without vector quantization", NeurIPS 2024.
    """

    signal: Tensor

    def __init__(self, d_model: int, n_values: int, *, n_steps: int = 25, repeats: int = 2) -> None:
        super().__init__()
        self.n_values, self.n_steps, self.repeats = n_values, n_steps, repeats
        self.denoiser = Denoiser(n_values, d_model)
        self.register_buffer("signal", cosine_signal(N_TIMES).float(), persistent=False)

    def loss(self, z: Tensor, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the error of the noise in vectors (N, E) given features (N, D), shape (N,)."""
        z, x = z.repeat(self.repeats, 1), x.repeat(self.repeats, 1)
        noise = noise_like(x, generator)
        place = x.device if generator is None else generator.device
        time = torch.randint(N_TIMES, (len(x),), generator=generator, device=place).to(x.device)
        signal = self.signal[time][:, None]
        noisy = signal.sqrt() * x + (1 - signal).sqrt() * noise
        errors = squared_error(self.denoiser(noisy, time / N_TIMES, z), noise)
        return errors.view(self.repeats, -1).mean(dim=0)

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
        n_vectors = len(z) // (1 if guidance is None else 2)
        x = noise_like(z.new_empty(n_vectors, self.n_values), generator)
        times = respaced(N_TIMES, self.n_steps)
        for place in range(len(times) - 1, -1, -1):
            signal = float(self.signal[times[place]])
            before = float(self.signal[times[place - 1]]) if place else 1.0
            both = x.repeat(len(z) // n_vectors, 1)
            time = both.new_full((len(both),), times[place] / N_TIMES)
            noise = self.denoiser(both, time, z)
            if guidance is not None:
                with_it, without = noise.chunk(2)
                noise = Guidance.combine(with_it, without, guidance)
            clean = (x - math.sqrt(1 - signal) * noise) / math.sqrt(signal)
            clean = clean.clamp(-LARGEST, LARGEST)
            mean, variance = posterior(clean, x, signal, before)
            x = mean
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
