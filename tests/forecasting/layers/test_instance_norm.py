import torch
from torch import nn

from tsar.forecasting.layers.instance_norm import RevIN, SeasonalNorm


def _random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_seasonal_norm_is_layer_norm_less_its_mean_over_time():
    x, norm, layer = _random(4, 6, 5), SeasonalNorm(5).double(), nn.LayerNorm(5).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    norm.load_state_dict({"weight": layer.weight})
    expected = layer(x) - layer(x).mean(dim=1, keepdim=True)
    torch.testing.assert_close(norm(x), expected)


def test_revin_closed_form():
    x = 3 + 5 * _random(4, 9, 2)
    normalised, location, scale = RevIN()(x)
    torch.testing.assert_close(location, x.mean(1, keepdim=True))
    torch.testing.assert_close(scale, (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt())
    torch.testing.assert_close(normalised, (x - location) / scale)
    torch.testing.assert_close(normalised * scale + location, x)


def test_revin_counts_observed_steps_only():
    x = _random(6, 11, 2)
    observed = torch.rand(6, 11, 2, generator=torch.Generator().manual_seed(2)) > 0.4
    observed[0, :4] = False
    observed[0, 4] = True
    _, location, scale = RevIN()(x, observed)
    for b in range(6):
        for c in range(2):
            seen = x[b, observed[b, :, c], c]
            torch.testing.assert_close(location[b, 0, c], seen.mean())
            variance = seen.var(correction=0)
            torch.testing.assert_close(scale[b, 0, c], (variance + 1e-5).sqrt())


def test_revin_is_zero_before_the_first_observation_and_carries_after_it():
    x = _random(1, 8, 1)
    observed = torch.tensor([0, 0, 1, 0, 1, 1, 0, 0]).bool().view(1, 8, 1)
    normalised, location, scale = RevIN()(x, observed)
    assert (normalised[0, :2] == 0).all()
    torch.testing.assert_close(normalised[0, 2:], ((x - location) / scale)[0, 2:])


def test_revin_all_observed_equals_no_mask():
    x = _random(3, 7, 2)
    for plain, masked in zip(RevIN()(x), RevIN()(x, torch.ones_like(x).bool()), strict=True):
        torch.testing.assert_close(plain, masked)


def test_revin_without_any_observation():
    x = torch.zeros(2, 7, 3)
    normalised, location, scale = RevIN()(x, torch.zeros(2, 7, 3).bool())
    assert (normalised == 0).all() and (location == 0).all() and (scale == 1).all()


def test_revin_affine_is_undone():
    x = _random(4, 9, 2)
    revin = RevIN(2).double()
    nn.init.uniform_(revin.weight, 0.5, 2.0)
    nn.init.uniform_(revin.bias, -1.0, 1.0)
    normalised, location, scale = revin(x)
    plain = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(normalised, plain * revin.weight + revin.bias)
    torch.testing.assert_close(normalised * scale + location, x)


def test_revin_statistics_carry_no_gradient():
    x = _random(2, 9, 3).requires_grad_()
    normalised, location, scale = RevIN()(x)
    assert not location.requires_grad and not scale.requires_grad
    normalised.sum().backward()
    torch.testing.assert_close(x.grad, (1 / scale).expand_as(x))
