import pytest
import torch
from torch import nn

from tsar.core.norm import BatchNorm, make_norm
from tsar.exceptions import ParameterError


def _random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_batch_norm_counts_every_token():
    x = _random(5, 7, 3)
    norm = BatchNorm(3).double()
    flat = x.reshape(35, 3)
    expected = (flat - flat.mean(0)) / (flat.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), expected.view(5, 7, 3))
    torch.testing.assert_close(norm.running_mean, 0.1 * flat.mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * flat.var(0))
    norm.eval()
    expected = (x - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), expected)


def test_batch_norm_agrees_with_the_transposed_form():
    x = _random(4, 6, 5).requires_grad_()
    y = x.detach().clone().requires_grad_()
    ours, theirs = BatchNorm(5).double(), nn.BatchNorm1d(5).double()
    weight = _random(4, 6, 5, seed=1)
    (ours(x) * weight).sum().backward()
    (theirs(y.transpose(1, 2)).transpose(1, 2) * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize(("name", "kind"), [("layer", nn.LayerNorm), ("rms", nn.RMSNorm)])
def test_norms_by_name(name, kind):
    norm = make_norm(name, 6)
    assert isinstance(norm, kind)
    assert norm(torch.randn(2, 3, 6)).shape == (2, 3, 6)


def test_unknown_norm_gets_a_suggestion():
    with pytest.raises(ParameterError, match="did you mean 'batch'"):
        make_norm("bach", 6)
