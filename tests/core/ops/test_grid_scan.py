"""The recurrence over a grid, against a step per cell and what is special about it."""

import numpy as np
import pytest
import torch

from tsar.core.ops.grid_scan import grid_scan
from tsar.exceptions import ParameterError


def _draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("n_rows", "n_columns"), [(1, 1), (1, 5), (6, 1), (3, 7), (7, 3)])
def test_diagonals_are_the_formulas_in_value_and_gradient(n_rows, n_columns):
    shape = (2, 3, n_rows, n_columns, 2)
    inputs = [0.5 * _draw(*shape, seed=seed).requires_grad_() for seed in range(3)]
    weight, results = _draw(*shape, seed=4), []
    for backend in (None, "reference"):
        states = grid_scan(*inputs, backend=backend)
        results.append([states, *torch.autograd.grad((states * weight).sum(), inputs)])
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected)
    with pytest.raises(ParameterError, match="grid_scan: backend must be one of"):
        grid_scan(*inputs, backend="rows")


def test_without_crossings_there_are_two_scans():
    stays, added = (_draw(2, 3, 4, 5, 2, seed=seed) for seed in range(2))
    states = grid_scan(stays, torch.zeros_like(stays), added)
    h = torch.zeros(3, 4, 2, dtype=torch.float64)
    for t in range(5):
        h = stays[0, :, :, t] * h + added[0, :, :, t]
        torch.testing.assert_close(states[0, :, :, t], h)
    h = torch.zeros(3, 5, 2, dtype=torch.float64)
    for v in range(4):
        h = stays[1, :, v] * h + added[1, :, v]
        torch.testing.assert_close(states[1, :, v], h)


def test_constant_coefficients_are_a_convolution_in_two_dimensions():
    signal = pytest.importorskip("scipy.signal")
    coefficients = torch.tensor([[0.6, 0.5], [0.3, -0.4]], dtype=torch.float64)
    stays, crosses = (row[:, None, None, None, None].expand(2, 1, 6, 8, 1) for row in coefficients)
    pulse, x = torch.zeros(2, 1, 6, 8, 1, dtype=torch.float64), _draw(6, 8)
    pulse[:, 0, 0, 0] = 1.0
    kernels = grid_scan(stays, crosses, pulse)[:, 0, :, :, 0]
    states = grid_scan(stays, crosses, x[None, None, :, :, None].expand(2, -1, -1, -1, -1))
    for kernel, state in zip(kernels, states[:, 0, :, :, 0], strict=True):
        expected = signal.convolve2d(x.numpy(), kernel.numpy())[:6, :8]
        np.testing.assert_allclose(state, expected, atol=1e-12)
