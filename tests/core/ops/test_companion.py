"""Companion state spaces, against the recurrence token by token and autoregressions."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tsar.core.ops.companion import companion_matrix, companion_scan, krylov
from tsar.exceptions import ParameterError


def _draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_the_matrix_is_the_companion_of_its_polynomial():
    last = _draw(3, 5)
    for column, matrix in zip(last, companion_matrix(last), strict=True):
        expected = np.sort_complex(np.roots([1, *(-column.flip(0)).tolist()]))
        eigenvalues = np.sort_complex(np.linalg.eigvals(matrix.numpy()))
        np.testing.assert_allclose(eigenvalues, expected, rtol=1e-9)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 33])
def test_powers_by_squares_are_powers_one_by_one(length):
    inputs = [_draw(3, 4, 4).requires_grad_(), _draw(3, 4, seed=1).requires_grad_()]
    weight, results = _draw(3, 4, length, seed=2), []
    for backend in (None, "reference"):
        powers = krylov(*inputs, length, backend=backend)
        grads = torch.autograd.grad((powers * weight).sum(), inputs, allow_unused=True)
        # A vector alone does not ask for its matrix.
        results.append([powers, *(g for g in grads if g is not None)])
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(ParameterError, match="krylov: backend must be one of"):
        krylov(*inputs, length, backend="roots")


def test_convolutions_go_on_from_a_state():
    last, enter, leave = (_draw(2, 5, seed=seed) for seed in range(3))
    matrix = companion_matrix(F.normalize(last, p=1.0, dim=1))
    x = _draw(3, 40, 6, seed=4)
    h, expected = torch.zeros(3, 6, 5, dtype=torch.float64), []
    for x_t in x.unbind(1):
        moved = [matrix[e // 3] @ h[:, e].T for e in range(6)]
        h = torch.stack([m.T + enter[e // 3] * x_t[:, e, None] for e, m in enumerate(moved)], dim=1)
        expected.append(torch.stack([h[:, e] @ leave[e // 3] for e in range(6)], dim=1))
    state, outputs = None, []
    for piece in x.split([1, 13, 1, 1, 24], dim=1):
        y, state = companion_scan(piece, matrix, enter, leave, state)
        outputs.append(y)
    expected = torch.stack(expected, dim=1)
    torch.testing.assert_close(torch.cat(outputs, dim=1), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state, h, rtol=1e-9, atol=1e-9)


def test_the_impulse_response_of_any_autoregression():
    """With the coefficients, latest lag first, in the last column from its end."""
    statsmodels = pytest.importorskip("statsmodels.tsa.arima_process")
    coefficients = np.array([0.5, -0.3, 0.2, 0.1])
    expected = statsmodels.arma_impulse_response([1, *-coefficients], [1], 30)
    last = torch.from_numpy(coefficients[::-1].copy())[None]
    # A pulse at the last place is there at once, and from then on as the recurrence says.
    unit = torch.eye(4, dtype=torch.float64)[None, 3]
    response = krylov(companion_matrix(last), unit, 30)[0, 3]
    np.testing.assert_allclose(response, expected, rtol=1e-10, atol=1e-12)
