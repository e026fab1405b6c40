import pytest
import torch
from torch import nn

from tsar.core.dropout import Dropout, draw_mask, set_generator

CPU = torch.device("cpu")


@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.51, 0.9, 0.999])
def test_rate_is_right_in_every_lane(p):
    """A draw of 64 bits serves several entries; each of them must have the same rate."""
    n = 400_000
    mask = draw_mask(torch.Size([n]), p, device=CPU, generator=torch.Generator().manual_seed(1))
    ones = mask.ones(torch.empty(n)).view(-1, 8)
    rate = ones.mean(dim=0)
    error = 5 * (p * (1 - p) / len(ones)) ** 0.5 + 1 / 512
    assert ((rate - (1 - p)).abs() < error).all()
    assert (1 / mask.factor) == pytest.approx(1 - p, abs=1 / 512)


def test_bytes_keep_exactly_the_rounded_share():
    """All 256 values of a byte, compared: as many stay as the factor says."""
    mask = draw_mask(torch.Size([256]), 0.3, device=CPU)
    every = type(mask)(torch.arange(256).to(torch.uint8), mask.bound, mask.factor)
    assert every.ones(torch.empty(256)).sum() * mask.factor == pytest.approx(256)
    mask = draw_mask(torch.Size([4]), 0.001, device=CPU)
    every = type(mask)(torch.arange(-(2**15), 2**15).to(torch.int16), mask.bound, mask.factor)
    assert every.ones(torch.empty(2**16)).sum() * mask.factor == pytest.approx(2**16)


def test_kept_entries_are_scaled_and_the_gradient_uses_the_same_mask():
    x = torch.randn(7, 5, 3, dtype=torch.float64, requires_grad=True)
    y = Dropout(0.25)(x)
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / 0.75)
    y.sum().backward()
    torch.testing.assert_close(x.grad, kept.double() / 0.75)


@pytest.mark.parametrize("p", [0.0, 0.25])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_adding_equals_dropping_and_then_adding(p, dtype):
    generator = torch.Generator().manual_seed(2)
    base, weight = (torch.randn(7, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    x = torch.randn(7, 5, dtype=torch.float64, generator=generator).to(dtype)
    dropout, results = Dropout(p), []
    for add in (dropout.add, lambda base, x: base + dropout(x)):
        dropout.generator = torch.Generator().manual_seed(9)
        tensors = [base.clone().requires_grad_(), x.clone().requires_grad_()]
        y = add(*tensors)
        results.append([y, *torch.autograd.grad((y * weight).sum(), tensors)])
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected)


def test_mean_is_kept():
    x = torch.ones(1000, 1000)
    dropout = Dropout(0.3)
    dropout.generator = torch.Generator().manual_seed(5)
    assert dropout(x).mean().item() == pytest.approx(1.0, abs=5e-3)


def test_identity_outside_training():
    x = torch.randn(3, 4)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_own_generator_repeats_and_leaves_the_global_one_alone():
    network = nn.Sequential(Dropout(0.5), nn.Sequential(Dropout(0.5)))
    x = torch.ones(101)
    before = torch.get_rng_state()
    results = []
    for _ in range(2):
        set_generator(network, torch.Generator().manual_seed(3))
        results.append(network(x))
    assert torch.equal(results[0], results[1])
    assert torch.equal(before, torch.get_rng_state())
    set_generator(network, None)
    network(x)
    assert not torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9])
def test_any_number_of_entries(n):
    assert Dropout(0.5)(torch.ones(n)).shape == (n,)
