import pytest
import torch
from torch.nn import functional as F

from tsar.core.ops.causal_conv import causal_conv


def _draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.mark.parametrize("n_taps", [1, 2, 4, 9])
@pytest.mark.parametrize("length", [1, 3, 7])
def test_equals_torch(n_taps, length):
    x, weight, bias = _draw(2, length, 5), _draw(5, n_taps, seed=1), _draw(5, seed=2)
    y, _ = causal_conv(x, weight, bias)
    padded = F.pad(x.mT, (n_taps - 1, 0))
    expected = F.conv1d(padded, weight[:, None], bias, groups=5).mT
    torch.testing.assert_close(y, expected)
    found = torch.autograd.grad(y.square().sum(), (x, weight, bias))
    for one, other in zip(
        found, torch.autograd.grad(expected.square().sum(), (x, weight, bias)), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("n_taps", [1, 2, 4])
def test_a_sequence_can_be_cut_anywhere(n_taps):
    x, weight, bias = _draw(2, 7, 5), _draw(5, n_taps, seed=1), _draw(5, seed=2)
    whole, end = causal_conv(x, weight, bias)
    for cut in (1, 2, 5):
        first, last = causal_conv(x[:, :cut], weight, bias)
        second, last = causal_conv(x[:, cut:], weight, bias, before=last)
        torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
        torch.testing.assert_close(last, end)
