import math

import pytest
import torch

from tsar.core.position import LearnedPosition, RelativeBias, Rotary, SinusoidalPosition
from tsar.exceptions import ParameterError


def test_learned_positions_are_small_and_added():
    position = LearnedPosition(11, 6)
    assert position.weight.abs().max() <= 0.02
    assert position.weight.std().item() == pytest.approx(0.02 / math.sqrt(3), rel=0.3)
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(position(x), x + position.weight[:5])


@pytest.mark.parametrize("d_model", [6, 7])
def test_sinusoidal_positions(d_model):
    added = SinusoidalPosition(9, d_model)(torch.zeros(2, 8, d_model))
    assert added.shape == (2, 8, d_model)
    for t in range(8):
        for i in range(d_model):
            angle = t / 10000 ** (2 * (i // 2) / d_model)
            expected = math.sin(angle) if i % 2 == 0 else math.cos(angle)
            assert added[1, t, i].item() == pytest.approx(expected, abs=1e-6)


def _turned(x, angles):
    """Points of the plane, (first half, second half), as complex numbers."""
    first, second = x.chunk(2, dim=-1)
    points = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([points.real, points.imag], dim=-1)


def test_rotary_turns_halves():
    x, positions = torch.randn(2, 3, 5, 6, dtype=torch.float64), torch.tensor([0, 3, 4, 4000, 1])
    rate = 100.0 ** (-torch.arange(3, dtype=torch.float64) / 3)
    result = Rotary(6, base=100.0)(x, positions)
    torch.testing.assert_close(result, _turned(x, positions[:, None] * rate))
    assert torch.equal(result[:, :, 0], x[:, :, 0])


def test_rotary_of_several_axes_turns_each_part_by_its_own():
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    places = torch.stack([torch.arange(5), torch.tensor([7, 0, 2, 2, 9])], dim=1)
    rate = 10_000.0 ** (-torch.arange(2, dtype=torch.float64) / 2)
    parts = [
        _turned(part, places[:, axis, None] * rate) for axis, part in enumerate(x.chunk(2, dim=-1))
    ]
    torch.testing.assert_close(Rotary(8, n_axes=2)(x, places), torch.cat(parts, dim=-1))


def test_rotary_positions_may_differ_by_row():
    rotary, x = Rotary(4), torch.randn(2, 3, 5, 4)
    positions = torch.randint(0, 50, (2, 1, 5))
    result = rotary(x, positions)
    for row in range(2):
        torch.testing.assert_close(result[row], rotary(x[row], positions[row, 0]))


def test_rotary_looks_ranges_up():
    """Of any dtype in any order, with gradients after inference."""
    rotary = Rotary(6)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for start, stop in ((3, 8), (0, 5), (200, 205), (7, 12)):
            x = torch.randn(2, 3, 5, 6).to(dtype).requires_grad_()
            with torch.inference_mode():
                quick = rotary(x, range(start, stop))
            result = rotary(x, range(start, stop))
            exact = rotary(x, torch.arange(start, stop))
            assert torch.equal(result, exact) and torch.equal(quick, exact)
            grads = [torch.autograd.grad(each.sum(), x)[0] for each in (result, exact)]
            assert torch.equal(*grads) and grads[0].any()
    assert rotary.state_dict() == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary_is_exact_far_from_the_start(dtype):
    x, positions = torch.randn(1, 1, 4, 16).to(dtype), torch.arange(100_000, 100_004)
    result, exact = Rotary(16)(x, positions), Rotary(16)(x.double(), positions)
    assert result.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(result.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("width", "n_axes"), [(5, 1), (6, 2)])
def test_rotary_of_widths_that_do_not_divide(width, n_axes):
    with pytest.raises(ParameterError, match=f"multiple of {2 * n_axes}, got {width}"):
        Rotary(width, n_axes=n_axes)


def test_relative_bias_is_a_number_for_each_distance():
    bias = RelativeBias(2, 3)
    numbers = bias(torch.arange(4, 9), torch.arange(10))
    assert numbers.shape == (2, 5, 10)
    for i in range(5):
        for j in range(10):
            distance = min(max(i + 4 - j, -3), 3)
            assert torch.equal(numbers[:, i, j], bias.weight[:, distance + 3])
