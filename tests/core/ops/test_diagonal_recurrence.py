"""Modes of a state space, against the recurrence token by token."""

import pytest
import torch

from tsar.core.ops.diagonal_recurrence import diagonal_convolution, diagonal_recurrence

D = 8


def _modes(u, rate, weight):
    """``h_t = exp(rate) h_{t-1} + u_t``, one token after the other."""
    h, outputs = 0.0, []
    for u_t in u.unbind(1):
        h = rate.exp() * h + u_t[..., None]
        outputs.append((weight * h).sum(dim=-1).real)
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("kind", ["real", "complex", "shared"])
def test_convolutions_go_on_from_a_state(kind):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    n_channels = 1 if kind == "shared" else D
    rate, weight = -draw(n_channels, 5).exp(), draw(D, 5)
    if kind != "real":
        rate, weight = torch.complex(rate, draw(n_channels, 5)), torch.complex(weight, draw(D, 5))
    x = draw(2, 40, D)
    expected, state = _modes(x, rate, weight), None
    outputs = []
    for piece in x.split([1, 13, 1, 1, 24], dim=1):
        y, state = diagonal_recurrence(piece, rate, weight, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, dim=1), expected, rtol=1e-9, atol=1e-9)
    whole = diagonal_convolution(x, rate, weight)
    torch.testing.assert_close(whole, expected, rtol=1e-9, atol=1e-9)
