import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tsar.core.convolution import (
    CausalConvolutions,
    CircularConvolution,
    DilatedConvolution,
    DilatedEncoder,
)


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


@pytest.mark.parametrize("dilation", [1, 2, 8])
@pytest.mark.parametrize("length", [1, 5, 11])
def test_dilated_convolution_is_that_of_torch(dilation, length):
    torch.manual_seed(0)
    theirs = nn.Conv1d(3, 5, 3, padding=dilation, dilation=dilation).double()
    ours = DilatedConvolution(3, 5, dilation).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, length, 3, dtype=torch.float64)
    expected = theirs(x.transpose(1, 2)).transpose(1, 2).detach()
    torch.testing.assert_close(ours(x), expected)
    with torch.inference_mode():  # by another way
        torch.testing.assert_close(ours(x), expected)


def test_dilated_encoder_reaches_as_far_as_it_says():
    """One step depends on 1 + 4 * (1 + 2 + 4) steps around it, and on no others."""
    torch.manual_seed(0)
    encoder = DilatedEncoder(2, [3, 3, 4]).double()
    x = torch.randn(1, 40, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder(x)[0, 20].sum(), x)
    reached = gradient.abs().sum(dim=(0, 2)).nonzero().flatten().tolist()
    assert reached == list(range(20 - 14, 20 + 14 + 1))


def test_dilated_encoder_against_torch():
    torch.manual_seed(0)
    encoder = DilatedEncoder(4, [4, 4, 6]).double()
    x = torch.randn(2, 17, 4, dtype=torch.float64)
    expected = x.transpose(1, 2)
    for place, block in enumerate(encoder.blocks):
        mixed = expected
        for convolution in (block.first, block.second):
            mixed = F.conv1d(
                F.gelu(mixed),
                convolution.weight,
                convolution.bias,
                padding=2**place,
                dilation=2**place,
            )
        around = (
            expected.mT
            if block.around is None
            else F.linear(expected.mT, block.around.weight, block.around.bias)
        )
        expected = mixed + around.mT
    assert [block.around is None for block in encoder.blocks] == [True, True, False]
    torch.testing.assert_close(encoder(x), expected.mT)
    # A last block has a map around it, whatever the widths are.
    assert DilatedEncoder(4, [4, 4]).blocks[-1].around is not None


@pytest.mark.parametrize(("longest", "lengths"), [(1, [1]), (5, [1, 2, 4]), (8, [1, 2, 4, 8])])
@pytest.mark.parametrize("length", [3, 13])
def test_causal_convolutions_are_the_mean_of_those_of_torch(longest, lengths, length):
    torch.manual_seed(0)
    layer = CausalConvolutions(3, longest).double()
    assert [weight.shape[2] for weight in layer.weights] == lengths
    x = torch.randn(4, length, 3, dtype=torch.float64)
    parts = [
        F.conv1d(F.pad(x.mT, (weight.shape[2] - 1, 0)), weight, bias).mT
        for weight, bias in zip(layer.weights, layer.biases, strict=True)
    ]
    expected = torch.stack(parts).mean(dim=0)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.last(x), expected[:, -1])
