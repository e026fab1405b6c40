import math

import pytest
import torch

from tsar.core.position import LearnedPosition, SinusoidalPosition


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
