import pytest
import torch

from tsar.exceptions import ParameterError
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput


def _sizes():
    generator = torch.Generator().manual_seed(0)
    location = torch.randn(3, 1, 2, generator=generator)
    scale = torch.rand(3, 1, 2, generator=generator) + 0.5
    return generator, location, scale


def test_point_output_brings_units_back():
    generator, location, scale = _sizes()
    raw = torch.randn(3, 5, 2, 1, generator=generator)
    forecast = PointOutput()(raw, location, scale)
    assert forecast.shape == (3, 5, 2)
    for b in range(3):
        for h in range(5):
            for c in range(2):
                expected = raw[b, h, c, 0] * scale[b, 0, c] + location[b, 0, c]
                torch.testing.assert_close(forecast[b, h, c], expected)


def test_point_output_takes_plain_numbers():
    raw = torch.arange(6.0).view(1, 3, 2, 1)
    assert torch.equal(PointOutput()(raw, 0.0, 1.0), raw[..., 0])


def test_quantile_output_is_the_median_plus_softplus_steps():
    generator, location, scale = _sizes()
    raw = torch.randn(3, 5, 2, 4, generator=generator)
    forecast = QuantileOutput([0.1, 0.25, 0.5, 0.9])(raw, location, scale)
    assert forecast.shape == (3, 5, 2, 4)
    softplus = raw.exp().log1p()
    median = raw[..., 2]
    columns = [
        median - softplus[..., 1] - softplus[..., 0],
        median - softplus[..., 1],
        median,
        median + softplus[..., 3],
    ]
    expected = torch.stack(columns, -1) * scale[..., None] + location[..., None]
    torch.testing.assert_close(forecast, expected)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_quantiles_never_cross(size):
    generator, location, scale = _sizes()
    raw = size * torch.randn(3, 50, 2, 5, generator=generator)
    forecast = QuantileOutput([0.05, 0.2, 0.5, 0.8, 0.95])(raw, 1e3 * location, scale)
    assert (forecast.diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("levels", [[0.1, 0.9], [0.5, 0.1], [0.5, 0.5], [0.0, 0.5], [0.5, 1.0], []])
def test_levels_that_give_no_quantiles(levels):
    with pytest.raises(ParameterError, match="levels must be increasing numbers"):
        QuantileOutput(levels)


def test_point_forecast_is_the_median():
    generator, location, scale = _sizes()
    raw = torch.randn(3, 5, 2, 4, generator=generator)
    quantiles = QuantileOutput([0.1, 0.5, 0.8, 0.9])
    forecast = quantiles(raw, location, scale)
    torch.testing.assert_close(quantiles.point(forecast), raw[..., 1] * scale + location)
    point = PointOutput()(raw[..., :1], location, scale)
    assert PointOutput().point(point) is point
