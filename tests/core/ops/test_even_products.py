"""Even products against torch's own, and against themselves in other places."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.ops.even_products import linear, linear_by_group

SHAPES = [(1, 1), (3, 2), (5, 11), (14, 7), (37, 3), (96, 1), (336, 2), (337, 97)]


def _random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(("n_inputs", "n_outputs"), SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_map_is_that_of_torch(n_inputs, n_outputs, bias):
    x, weight = _random(3, 7, n_inputs), _random(n_outputs, n_inputs)
    moved = _random(n_outputs) if bias else None
    expected = F.linear(x.double(), weight.double(), None if moved is None else moved.double())
    with torch.inference_mode():
        found = linear(x, weight, moved)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    turned = _random(3, n_inputs, 7).transpose(1, 2)
    with torch.inference_mode():
        np.testing.assert_array_equal(
            linear(turned, weight, moved), linear(turned.contiguous(), weight, moved)
        )


@pytest.mark.parametrize(("n_inputs", "n_outputs"), SHAPES)
def test_a_row_is_mapped_alike_wherever_it_stands(n_inputs, n_outputs):
    row, weight, bias = _random(n_inputs), _random(n_outputs, n_inputs), _random(n_outputs)
    layer = Linear(n_inputs, n_outputs)
    found, layered = set(), set()
    with torch.inference_mode():
        for n_rows in (1, 2, 7, 8, 9, 31, 100, 333):
            rows = row.expand(n_rows, -1).contiguous()
            found |= {mapped.numpy().tobytes() for mapped in linear(rows, weight, bias)}
            layered |= {mapped.numpy().tobytes() for mapped in layer(rows)}
    assert len(found) == len(layered) == 1


@pytest.mark.parametrize(("n_inputs", "n_outputs"), SHAPES)
def test_a_map_by_group_is_one_of_each(n_inputs, n_outputs):
    x, weight = _random(2, 5, n_inputs), _random(2, n_inputs, n_outputs)
    bias = _random(2, 1, n_outputs)
    with torch.inference_mode():
        found = linear_by_group(x, weight, bias)
        for group in range(2):
            expected = x[group].double() @ weight[group].double() + bias[group].double()
            np.testing.assert_allclose(found[group], expected, rtol=1e-4, atol=1e-4)
        places = set()
        for n_rows in (1, 3, 8, 17, 200):
            rows = x[:, :1].expand(-1, n_rows, -1).contiguous()
            mapped = linear_by_group(rows, weight, bias)
            places |= {mapped[:, row].numpy().tobytes() for row in range(n_rows)}
    assert len(places) == 1


def test_training_takes_the_product_of_torch():
    x, layer = _random(3, 7, 5), Linear(5, 2)
    expected = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.full((2,), 21.0))
