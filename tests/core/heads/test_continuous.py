"""Heads of continuous vectors, with noise that is known exactly."""

import math

import pytest
import torch
from torch import nn

from tsar.core.heads import DiffusionHead, FlowHead, SquaredErrorHead
from tsar.core.heads.diffusion import N_TIMES, cosine_signal, posterior, respaced

POINT = torch.tensor([0.5, -0.25, 0.75])


class _KnowsThePoint(nn.Module):
    """Says the velocity, or the noise, of vectors that all stem from one point."""

    def __init__(self, signal=None):
        super().__init__()
        self.signal = signal

    def forward(self, x, time, feature):
        if self.signal is None:
            return (x - POINT) / time[:, None]
        left = self.signal[(time * N_TIMES).round().long()][:, None]
        return (x - left.sqrt() * POINT) / (1 - left).sqrt()


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", [FlowHead, DiffusionHead])
def test_who_knows_the_noise_makes_no_error_and_comes_back_to_the_data(kind):
    head = kind(4, 3)
    head.denoiser = _KnowsThePoint(getattr(head, "signal", None))
    z, x = torch.randn(50, 4), POINT.expand(50, 3)
    loss = head.loss(z, x, _generator())
    assert loss.shape == (50,)
    torch.testing.assert_close(loss, torch.zeros(50), atol=1e-5, rtol=0)
    for guidance in (None, 1.0, 3.0):
        features = z if guidance is None else z.repeat(2, 1)
        drawn = head.sample(features, guidance=guidance, generator=_generator())
        torch.testing.assert_close(drawn, POINT.expand(50, 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [FlowHead, DiffusionHead])
def test_a_new_head_says_nothing(kind):
    """The velocity, or the noise, is zero: its error is what there is."""
    head, x = kind(4, 3, repeats=4), torch.randn(4000, 3)
    with torch.no_grad():
        loss = head.loss(torch.randn(4000, 4), x, _generator()).mean()
    expected = 1.0 if kind is DiffusionHead else 1.0 + float(x.square().mean())
    assert float(loss) == pytest.approx(expected, rel=0.03)


def test_a_flow_learns_which_of_two_points_is_meant():
    torch.manual_seed(0)
    head = FlowHead(2, 1)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    wanted = torch.randint(2, (256,), generator=_generator())
    z, x = nn.functional.one_hot(wanted, 2).float(), wanted[:, None] - 0.5
    for step in range(150):
        optimizer.zero_grad()
        head.loss(z, x, _generator(step)).mean().backward()
        optimizer.step()
    drawn = head.sample(z, generator=_generator(1))
    assert float((drawn - x).abs().mean()) < 0.1
    colder = head.sample(z, temperature=0.0, generator=_generator(1))
    assert colder[wanted == 0].std() < 1e-5


def test_the_squared_error_leads_to_the_mean():
    """Of two points that are equally likely it draws neither, and its error is their variance."""
    torch.manual_seed(0)
    head = SquaredErrorHead(2, 1)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    z = nn.functional.one_hot(torch.arange(256) % 2, 2).float()
    x = torch.tensor([-1.0, 0.0, 3.0, 2.0]).repeat(64)[:, None]
    for _ in range(150):
        optimizer.zero_grad()
        head.loss(z, x).mean().backward()
        optimizer.step()
    means = torch.tensor([1.0, 1.0])
    torch.testing.assert_close(head.sample(z[:2])[:, 0], means, atol=0.02, rtol=0)
    with torch.no_grad():
        assert float(head.loss(z, x)[::2].mean()) == pytest.approx(4.0, rel=0.01)
        assert float(head.loss(z, x)[1::2].mean()) == pytest.approx(1.0, rel=0.01)
    drawn = [head.sample(z, temperature=t, generator=_generator(t)) for t in (0, 1)]
    assert torch.equal(*drawn)


def test_the_schedule_is_the_cosine_and_ends_in_noise():
    signal = cosine_signal(1000)
    heights = [math.cos((step / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(1001)]
    expected = torch.tensor([one / heights[0] for one in heights[1:]], dtype=torch.float64)
    torch.testing.assert_close(signal[:990], expected[:990])
    assert (signal.diff() < 0).all() and float(signal[-1]) < 1e-4
    assert respaced(1000, 25)[0] == 39 and respaced(1000, 25)[-1] == 999
    assert respaced(10, 100) == list(range(10))


def test_the_step_back_is_that_of_bayes():
    """On a fine grid: prior of the step before, times the chance of what was seen."""
    signal, before, clean, noisy = 0.3, 0.5, 0.4, -0.7
    step = signal / before
    grid = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    prior = -(grid - math.sqrt(before) * clean).square() / (2 * (1 - before))
    chance = -(noisy - math.sqrt(step) * grid).square() / (2 * (1 - step))
    weights = (prior + chance - (prior + chance).max()).exp()
    weights /= weights.sum()
    mean = (weights * grid).sum()
    variance = (weights * (grid - mean).square()).sum()
    said, spread = posterior(torch.tensor(clean), torch.tensor(noisy), signal, before)
    assert float(said) == pytest.approx(float(mean), abs=1e-5)
    assert spread == pytest.approx(float(variance), abs=1e-5)
