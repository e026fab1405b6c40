import pytest
import torch
from torch import nn

from tsar.core.convolution import CircularConvolution


@pytest.mark.parametrize(("n_inputs", "n_outputs"), [(2, 7), (7, 2), (3, 3)])
@pytest.mark.parametrize("length", [1, 2, 11])
def test_circular_convolution_is_that_of_torch(n_inputs, n_outputs, length):
    torch.manual_seed(0)
    theirs = nn.Conv1d(
        n_inputs, n_outputs, 3, padding=1, padding_mode="circular", bias=False
    ).double()
    torch.manual_seed(0)
    ours = CircularConvolution(n_inputs, n_outputs).double()
    torch.testing.assert_close(ours.weight, theirs.weight)
    x = torch.randn(4, length, n_inputs, dtype=torch.float64, requires_grad=True)
    expected = theirs(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(ours(x), expected)
    gradients = [
        torch.autograd.grad(out.square().sum(), [x, module.weight])
        for out, module in ((ours(x), ours), (expected, theirs))
    ]
    for result, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(result, reference)
