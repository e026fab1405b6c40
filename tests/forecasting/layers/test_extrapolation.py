"""How seasons and growth go on."""

import math

import numpy as np
import pytest
import torch

from tsar.forecasting.layers.extrapolation import DampedGrowth, FourierExtrapolation


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("length", [24, 25])
def test_a_wave_of_whole_turns_goes_on(length):
    steps = torch.arange(length + 40, dtype=torch.float64)[:, None]
    turns = torch.tensor([3.0, 7.0, 1.0], dtype=torch.float64)
    waves = 2.5 * (2 * math.pi * turns * steps / length + 0.7).cos()
    extrapolation = FourierExtrapolation(length, 40, 1).double()
    torch.testing.assert_close(extrapolation(waves[None, :length])[0], waves, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("length", [12, 13])
def test_the_strongest_frequencies_are_those_of_numpy(length):
    x = _random(2, length, 3)
    extrapolation = FourierExtrapolation(length, 5, 2).double()
    expected = np.zeros((2, length + 5, 3))
    for b in range(2):
        for d in range(3):
            spectrum = np.fft.rfft(x[b, :, d].numpy())
            inner = range(1, (length + 1) // 2)
            for turn in sorted(inner, key=lambda k: -abs(spectrum[k]))[:2]:
                angle = 2 * np.pi * turn * np.arange(length + 5) / length
                amplitude = 2 * abs(spectrum[turn]) / length
                expected[b, :, d] += amplitude * np.cos(angle + np.angle(spectrum[turn]))
    np.testing.assert_allclose(extrapolation(x), expected, atol=1e-6)


def test_all_frequencies_are_the_history_without_mean_and_alternation():
    x = _random(2, 13, 3)
    whole = FourierExtrapolation(13, 4, 99).double()
    assert whole.n_frequencies == 6
    centred = x - x.mean(dim=1, keepdim=True)
    expected = torch.cat([centred, centred[:, :4]], dim=1)
    torch.testing.assert_close(whole(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("length", "n_frequencies"), [(9, 0), (2, 1), (1, 1)])
def test_there_may_be_no_season(length, n_frequencies):
    season = FourierExtrapolation(length, 3, n_frequencies)(torch.randn(2, length, 5))
    assert season.shape == (2, length + 3, 5) and not season.any()


def test_growth_is_damped_as_a_geometric_sum():
    damped = DampedGrowth(6, 2, 7).double()
    growth, stays = _random(4, 6), torch.sigmoid(damped.logit.detach()).repeat_interleave(3)
    with torch.no_grad():
        result = damped(growth)
    for step in range(1, 8):
        expected = growth * stays * (1 - stays**step) / (1 - stays)
        torch.testing.assert_close(result[:, step - 1], expected)
