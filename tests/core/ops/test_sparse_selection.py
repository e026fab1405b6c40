"""The soft selection of scores, against root finding and the conditions of the projection."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from tsar.core.ops.sparse_selection import select_softly


def _selected(scores, n_selected):
    """The projection by root finding."""
    if len(scores) <= n_selected:
        return torch.ones_like(scores)
    values = scores.detach().numpy()
    tau = brentq(
        lambda level: np.clip(values - level, 0, 1).sum() - n_selected,
        values.min() - 2,
        values.max(),
        xtol=1e-14,
    )
    # Numbers strictly between pass gradients, less their mean; the others are at a corner.
    chosen = (scores.detach() - tau).clamp(0, 1)
    between = (chosen > 1e-9) & (chosen < 1 - 1e-9)
    moved = scores - scores.detach()
    if between.any():
        moved = moved - moved[between].mean()
    return chosen + moved * between


@pytest.mark.parametrize("n_selected", [1, 3, 8])
def test_soft_selection_is_the_projection(n_selected):
    """Against root finding, in value and gradient, and against the conditions of the projection."""
    generator = torch.Generator().manual_seed(n_selected)
    for scale in [0.1, 1.0, 10.0] * 20:
        scores = scale * torch.randn(12, dtype=torch.float64, generator=generator)
        results = []
        for select in (select_softly, _selected):
            u = scores.clone().requires_grad_()
            chosen = select(u, n_selected)
            (gradient,) = torch.autograd.grad((chosen * torch.arange(12.0)).sum(), u)
            results.append((chosen.detach(), gradient))
        for result, expected in zip(*results, strict=True):
            torch.testing.assert_close(result, expected)
        chosen, gradient = results[0]
        assert float(chosen.sum()) == pytest.approx(n_selected)
        assert float(gradient.sum()) == pytest.approx(0.0, abs=1e-9)
    ties = select_softly(torch.zeros(12, dtype=torch.float64), n_selected)
    torch.testing.assert_close(ties, torch.full_like(ties, n_selected / 12))
    few = torch.tensor([3.0, -torch.inf, 1.0])
    torch.testing.assert_close(select_softly(few, 2), torch.tensor([1.0, 0.0, 1.0]))
