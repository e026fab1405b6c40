import math
from functools import partial

import numpy as np
import pytest
import torch

from tsar.core.heads.denoiser import noise_like
from tsar.core.heads.diffusion import linear_signal, posterior
from tsar.core.heads.self_guidance import Energy, guided_paths, refined_paths

MEAN = np.array([1.0, -2.0, 0.5])
COVARIANCE = np.array([[1.0, 0.9, 0.2], [0.9, 1.0, 0.1], [0.2, 0.1, 0.3]])
N_TIMES = 40
SIGNAL = linear_signal(N_TIMES)


def _maps(place, signal=SIGNAL):
    """The expected noise of Gaussian data is a linear map of what is noisy: matrix and place."""
    share = float(signal[place])
    spread = share * COVARIANCE + (1 - share) * np.eye(3)
    return math.sqrt(1 - share) * np.linalg.inv(spread), math.sqrt(share) * MEAN


def _say(x, place, signal=SIGNAL):
    matrix, centre = (torch.from_numpy(part) for part in _maps(place, signal))
    return ((x[..., 0] - centre) @ matrix.mT)[..., None]


class Noise:
    """Draws from a seed, and remembers."""

    def __init__(self, *shape, seed=0):
        self.like = torch.empty(*shape, dtype=torch.float64)
        self.generator = torch.Generator().manual_seed(seed)
        self.drawn = []

    def __call__(self):
        self.drawn.append(noise_like(self.like, self.generator))
        return self.drawn[-1]


def _energy(levels=None):
    target = torch.tensor([2.0, 9.0, 9.0], dtype=torch.float64)[None, None, :, None]
    return Energy(target, torch.tensor([True, False, False])[None, None, :, None], levels)


def test_shares_of_signal():
    """The hundred steps of the paper, a product of what each leaves."""
    expected = np.cumprod([1 - (1e-4 + step * (0.1 - 1e-4) / 99) for step in range(100)])
    np.testing.assert_allclose(linear_signal(100), expected, rtol=1e-12)
    for n_times in (2, 5, 1000):
        signal = linear_signal(n_times)
        assert (signal.diff() < 0).all() and 0 < signal[-1] < 0.05


def test_a_step_back_is_the_product_of_two_normal_densities():
    clean, noisy, share, before = 0.7, -0.4, float(SIGNAL[9]), float(SIGNAL[8])
    step = share / before
    # Of what was a step before: N(sqrt(before) clean, 1 - before), and what the step makes of it.
    precision = 1 / (1 - before) + step / (1 - step)
    weighted = math.sqrt(before) * clean / (1 - before) + math.sqrt(step) * noisy / (1 - step)
    mean, variance = posterior(torch.tensor(clean), torch.tensor(noisy), share, before)
    assert variance == pytest.approx(1 / precision)
    assert float(mean) == pytest.approx(weighted / precision)


def test_a_perfect_denoiser_recovers_mean_and_covariance():
    signal = linear_signal(400)  # of few steps, each takes a little too much away
    say = partial(_say, signal=signal)
    found = guided_paths(say, signal, Noise(1, 6000, 3, 1))[0, :, :, 0].numpy()
    np.testing.assert_allclose(found.mean(axis=0), MEAN, atol=0.05)
    np.testing.assert_allclose(np.cov(found.T), COVARIANCE, atol=0.05)


@pytest.mark.parametrize(
    ("scale", "n_steps", "is_bounded"), [(3.0, None, False), (0.5, 8, False), (200.0, 40, True)]
)
def test_guided_drawing_against_a_plain_loop(scale, n_steps, is_bounded):
    noise, energy = Noise(1, 5, 3, 1), _energy()
    found = guided_paths(_say, SIGNAL, noise, energy=energy, scale=scale, n_steps=n_steps)
    found = found[0, :, :, 0].numpy()
    drawn = iter(one[0, :, :, 0].numpy() for one in noise.drawn)
    x, every, bounded = next(drawn), N_TIMES // (n_steps or N_TIMES), 0
    for place in range(N_TIMES - 1, -1, -every):
        share = float(SIGNAL[place])
        before = float(SIGNAL[place - every]) if place >= every else 1.0
        matrix, centre = _maps(place)
        # Without noise, x would be `there x + rest`.
        there = (np.eye(3) - math.sqrt(1 - share) * matrix) / math.sqrt(share)
        rest = math.sqrt(1 - share) / math.sqrt(share) * matrix @ centre
        step = share / before
        x = math.sqrt(before) * (1 - step) / (1 - share) * (x @ there.T + rest) + (
            math.sqrt(step) * (1 - before) / (1 - share) * x
        )
        if place >= every:
            variance = (1 - before) / (1 - share) * (1 - step)
            x = x + math.sqrt(variance) * next(drawn)
            error = (x @ there.T + rest - [2.0, 0, 0]) * [1.0, 0, 0]
            gradient = 2 * error @ there
            # To where a straight line through the energy is 0, at most.
            farthest = (error**2).sum(axis=1) / (gradient**2).sum(axis=1)
            bounded += int((farthest < scale * variance).sum())
            x = x - np.minimum(farthest, scale * variance)[:, None] * gradient
    assert (bounded > 0) == is_bounded
    np.testing.assert_allclose(found, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e6])
def test_squared_guidance_stays_bounded_where_steps_move_together(scale):
    """Thirty steps that are one number, but for a little: each pulls as all others do."""
    n_times, length = 20, 30
    signal = linear_signal(n_times)
    covariance = np.full((length, length), 0.99) + 0.01 * np.eye(length)

    def say(x, place):
        share = float(signal[place])
        spread = share * covariance + (1 - share) * np.eye(length)
        matrix = torch.from_numpy(math.sqrt(1 - share) * np.linalg.inv(spread))
        return (x[..., 0] @ matrix)[..., None]

    target = torch.full((1, 1, length, 1), 1.5, dtype=torch.float64)
    energy = Energy(target, torch.arange(length)[:, None] < 25)
    paths = guided_paths(say, signal, Noise(1, 50, length, 1), energy=energy, scale=scale)
    assert (paths.mean(dim=(2, 3)) - 1.5).abs().max() < 0.8
    free = guided_paths(say, signal, Noise(1, 50, length, 1))
    assert (paths[:, :, 25:] - 1.5).abs().mean() < 0.5 * (free[:, :, 25:] - 1.5).abs().mean()


def test_guidance_leads_to_what_goes_with_the_observed():
    """Of the conditional mean, most is reached at the entry that was not observed."""
    levels = (torch.arange(1, 401, dtype=torch.float64) / 401)[:, None, None]
    free = guided_paths(_say, SIGNAL, Noise(1, 400, 3, 1))[0, :, :, 0].mean(dim=0)
    conditional = MEAN[1] + 0.9 * (2.0 - MEAN[0])
    for energy in (_energy(), _energy(levels)):
        paths = guided_paths(_say, SIGNAL, Noise(1, 400, 3, 1), energy=energy, scale=6.0)
        led = paths[0, :, :, 0].mean(dim=0)
        assert abs(led[0] - 2.0) < 0.4 * abs(free[0] - 2.0)
        assert abs(led[1] - conditional) < 0.4 * abs(free[1] - conditional)


def test_no_scale_is_no_guidance_and_noise_repeats():
    free = guided_paths(_say, SIGNAL, Noise(2, 3, 3, 1))
    still = guided_paths(_say, SIGNAL, Noise(2, 3, 3, 1), energy=_energy(), scale=0.0)
    other = guided_paths(_say, SIGNAL, Noise(2, 3, 3, 1, seed=1))
    torch.testing.assert_close(still, free, rtol=0, atol=0)
    assert not torch.equal(other, free)


def test_energies_against_a_loop():
    rng = np.random.default_rng(0)
    target, x = rng.normal(size=(2, 1, 3, 4)), rng.normal(size=(2, 5, 3, 4))
    seen, levels = rng.random(target.shape) < 0.6, np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    squared, pinball = np.zeros((2, 2, 5))
    for window, path, step, channel in np.ndindex(*x.shape):
        if seen[window, 0, step, channel]:
            above = target[window, 0, step, channel] - x[window, path, step, channel]
            squared[window, path] += above**2
            level = levels[path] if above > 0 else levels[path] - 1
            pinball[window, path] += level * above
    tensors = [torch.from_numpy(part) for part in (target, seen)]
    np.testing.assert_allclose(Energy(*tensors)(torch.from_numpy(x)), squared)
    own = torch.from_numpy(levels)[:, None, None]
    np.testing.assert_allclose(Energy(*tensors, own)(torch.from_numpy(x)), pinball)


def test_refining_against_a_plain_loop():
    noise, place, size = Noise(1, 4, 3, 1), 8, 0.02
    start = torch.randn(1, 4, 3, 1, dtype=torch.float64, generator=noise.generator)
    share = float(SIGNAL[place])
    found = refined_paths(
        _say, share, place, start, noise,
        energy=_energy(), n_iterations=3, step_size=size, temperature=0.5,
    )  # fmt: skip
    drawn = iter(one[0, :, :, 0].numpy() for one in noise.drawn)
    x, (matrix, centre) = start[0, :, :, 0].numpy(), _maps(place)
    for _ in range(3):
        added = next(drawn)
        said = (math.sqrt(share) * x + math.sqrt(1 - share) * added - centre) @ matrix.T
        slope = 2 * math.sqrt(share) * (said - added) @ matrix
        slope = slope + 2 * (x - [2.0, 0, 0]) * [1.0, 0, 0]
        x = x - size * slope + 0.5 * math.sqrt(2 * size) * next(drawn)
    np.testing.assert_allclose(found[0, :, :, 0], x, rtol=1e-9, atol=1e-9)
