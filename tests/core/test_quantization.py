"""Codes against brute force, and the three steps of a pyramid against each other."""

import pytest
import torch
from torch.nn import functional as F

from tsar.core.quantization import MultiScaleQuantizer, VectorQuantizer
from tsar.core.random import set_generator
from tsar.exceptions import ParameterError


def _map(batch=3, width=4, side=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, width, side, side, generator=generator)


def test_every_vector_gets_its_nearest_code():
    quantizer, z = VectorQuantizer(11, 4).eval(), _map()
    quantised, ids, _ = quantizer(z)
    for image in range(3):
        for row in range(6):
            for column in range(6):
                vector = z[image, :, row, column]
                distances = [(vector - code).square().sum() for code in quantizer.codes]
                nearest = min(range(11), key=distances.__getitem__)
                assert ids[image, 6 * row + column] == nearest
                torch.testing.assert_close(
                    quantised[image, :, row, column], quantizer.codes[nearest]
                )


def test_the_gradient_passes_and_the_loss_is_what_it_says():
    quantizer, z = VectorQuantizer(5, 4).eval(), _map().requires_grad_()
    quantised, ids, loss = quantizer(z)
    weight = _map(seed=1)
    (grad,) = torch.autograd.grad((quantised * weight).sum(), z, retain_graph=True)
    torch.testing.assert_close(grad, weight)
    found = quantizer.codes[ids].unflatten(1, (6, 6)).permute(0, 3, 1, 2)
    torch.testing.assert_close(loss, 1.25 * F.mse_loss(found, z))
    grad_z, grad_codes = torch.autograd.grad(loss, (z, quantizer.codes))
    torch.testing.assert_close(grad_z, 0.25 * 2 * (z - found) / z.numel())
    assert grad_codes.abs().sum() > 0


def test_codes_that_nothing_takes_begin_anew_where_vectors_are():
    quantizer = VectorQuantizer(4, 4, restart_steps=30).train()
    set_generator(quantizer, torch.Generator().manual_seed(0))
    with torch.no_grad():
        quantizer.codes[1:] = 1000.0
    z = _map()
    for _ in range(20):
        quantizer(z)
    assert quantizer.codes.abs().max() < 10
    with torch.no_grad():
        quantizer.codes[1:] = 1000.0
    for _ in range(40):
        quantizer(z)
    # After the first steps they stay where they are.
    assert (quantizer.codes[1:] == 1000.0).any()


@pytest.mark.parametrize("residual", [True, False])
def test_a_pyramid_is_what_its_tokens_say(residual):
    quantizer = MultiScaleQuantizer(7, 4, (1, 2, 4, 6), residual=residual).eval()
    z = _map()
    quantised, ids, _ = quantizer(z)
    assert ids.shape == (3, quantizer.n_tokens) == (3, 1 + 4 + 16 + 36)
    torch.testing.assert_close(quantised, quantizer.quantised(ids))
    maps = quantizer.pyramid(ids)
    inputs = quantizer.inputs(ids)
    begin = 0
    for scale, side in enumerate((2, 4, 6), 1):
        # Means over cells, by hand where they divide the side.
        if 6 % side == 0:
            cells = maps[scale - 1].unflatten(2, (side, -1)).unflatten(4, (side, -1))
            expected = cells.mean(dim=(3, 5)).flatten(2).mT
            torch.testing.assert_close(inputs[:, begin : begin + side * side], expected)
        begin += side * side
    # A coarse token reaches all finer scales, a fine one none of the coarser.
    changed = ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 7
    other = quantizer.pyramid(changed)
    assert all(torch.equal(a, b) for a, b in zip(maps[:2], other[:2], strict=True))
    assert not torch.equal(maps[2], other[2])


def test_residual_scales_say_what_is_left():
    """With codes that can say anything and no smoothing, nothing is left in the end."""
    quantizer = MultiScaleQuantizer(500, 2, (1, 2)).eval()
    z = _map(1, 2, 2)
    with torch.no_grad():
        for smooth in quantizer.smooth:
            smooth.weight.zero_()
            smooth.bias.zero_()
            for channel in range(2):
                smooth.weight[channel, channel, 1, 1] = 1.0
        mean = z.mean(dim=(2, 3))[0]
        left = (
            z[0].flatten(1).T
            - F.interpolate(z.mean(dim=(2, 3), keepdim=True), size=(2, 2), mode="bicubic")[0]
            .flatten(1)
            .T
        )
        quantizer.codes[:5] = torch.cat([mean[None], left])
    quantised, ids, _ = quantizer(z)
    torch.testing.assert_close(quantised, z)
    assert ids[0].tolist()[0] == 0


@pytest.mark.parametrize("scales", [(), (2, 1), (1, 1, 3), (0, 4)])
def test_wrong_scales(scales):
    with pytest.raises(ParameterError, match="scales must be growing sides from 1 on"):
        MultiScaleQuantizer(4, 2, scales)
