import torch
from torch.nn import functional as F

from tsar.core.ops.tokens_last import from_tokens_last, to_tokens_last


def _tensors(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in shapes
    ]


def test_to_tokens_last_is_a_linear_map_turned_around():
    x, weight, bias = _tensors((3, 7, 4), (5, 4), (5,))
    torch.testing.assert_close(to_tokens_last(x, weight, bias), F.linear(x, weight, bias).mT)
    assert torch.autograd.gradcheck(to_tokens_last, (x, weight, bias))


def test_from_tokens_last_is_a_linear_map_of_what_is_turned_around():
    x, weight, bias = _tensors((3, 4, 7), (5, 4), (5,))
    torch.testing.assert_close(from_tokens_last(x, weight, bias), F.linear(x.mT, weight, bias))
    assert torch.autograd.gradcheck(from_tokens_last, (x, weight, bias))
