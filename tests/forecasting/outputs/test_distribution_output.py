"""Parameters of distributions, in the units of the series."""

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, NegativeBinomial, Normal, StudentT

from tsar.forecasting.outputs.distributions import DISTRIBUTIONS

OUTPUTS = {name: cls().make_output() for name, cls in DISTRIBUTIONS.items()}


def _forecast(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (3, 5, 2, OUTPUTS[name].n_outputs)
    raw = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    location = torch.randn(3, 1, 2, generator=generator, dtype=torch.float64)
    scale = torch.rand(3, 1, 2, generator=generator, dtype=torch.float64) + 0.5
    return raw, location, scale


def _as_torch(name: str, p: torch.Tensor):
    if name == "gaussian":
        return Normal(p[..., 0], p[..., 1])
    if name == "student_t":
        return StudentT(p[..., 2], p[..., 0], p[..., 1])
    if name == "negative_binomial":
        mean, dispersion = torch.nn.functional.softplus(p[..., 0]), p[..., 1]
        return NegativeBinomial(1 / dispersion, probs=dispersion * mean / (1 + dispersion * mean))
    weights = Categorical(logits=p[..., 6:])
    return MixtureSameFamily(weights, Normal(p[..., :3], p[..., 3:6]))


@pytest.mark.parametrize("name", OUTPUTS)
def test_point_is_the_mean(name):
    forecast = OUTPUTS[name](*_forecast(name))
    expected = _as_torch(name, forecast).mean
    torch.testing.assert_close(OUTPUTS[name].point(forecast), expected)


@pytest.mark.parametrize("name", OUTPUTS)
def test_location_and_scale_move_the_distribution(name):
    """A window in other units has the distribution of the other units."""
    raw, location, scale = _forecast(name)
    plain, moved = OUTPUTS[name](raw, 0.0, 1.0), OUTPUTS[name](raw, location, scale)
    assert moved.shape == raw.shape
    if name == "negative_binomial":
        torch.testing.assert_close(
            moved[..., 0], plain[..., 0] * scale + location, rtol=1e-12, atol=0
        )
        assert torch.equal(moved[..., 1], plain[..., 1])
        return
    value = torch.randn(3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    density = _as_torch(name, plain).log_prob(value) - scale.log()
    torch.testing.assert_close(_as_torch(name, moved).log_prob(value * scale + location), density)


@pytest.mark.parametrize("name", OUTPUTS)
def test_shift_moves_the_location(name):
    raw, location, scale = _forecast(name)
    by = torch.linspace(-2, 2, 30, dtype=torch.float64).view(3, 5, 2)
    found = OUTPUTS[name].shift(OUTPUTS[name](raw, location, scale), by)
    torch.testing.assert_close(found, OUTPUTS[name](raw, location + by, scale))


def test_components_of_a_mixture_do_not_begin_alike():
    raw = torch.zeros(1, 1, 1, 9, requires_grad=True)
    forecast = OUTPUTS["gaussian_mixture"](raw, 0.0, 1.0)
    log_prob = DISTRIBUTIONS["gaussian_mixture"]().log_prob(forecast, torch.ones(1, 1, 1))
    log_prob.sum().backward()
    assert len(raw.grad[0, 0, 0, :3].unique()) == 3
