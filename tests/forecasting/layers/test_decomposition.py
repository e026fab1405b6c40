import pytest
import torch

from tsar.forecasting.layers.decomposition import Remainder, SeriesDecomposition, moving_average


@pytest.mark.parametrize(("length", "kernel"), [(31, 25), (7, 5), (4, 9), (6, 1)])
def test_moving_average_repeats_the_edges(length, kernel):
    x = torch.randn(2, length, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    half = kernel // 2
    expected = torch.empty_like(x)
    for step in range(length):
        places = [min(max(step + shift, 0), length - 1) for shift in range(-half, half + 1)]
        expected[:, step] = x[:, places].mean(dim=1)
    torch.testing.assert_close(moving_average(x, kernel), expected)


def test_parts_sum_to_the_series():
    x = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(1))
    remainder, trend = SeriesDecomposition(25)(x)
    torch.testing.assert_close(remainder + trend, x)
    torch.testing.assert_close(trend, moving_average(x, 25))
    assert torch.equal(Remainder(25)(x), remainder)


@pytest.mark.parametrize(("length", "kernel"), [(11, 7), (3, 9), (1, 5), (4, 1)])
def test_gradient_against_differences(length, kernel):
    x = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: moving_average(x, kernel), x)
    assert torch.autograd.gradgradcheck(lambda x: moving_average(x, kernel), x)
