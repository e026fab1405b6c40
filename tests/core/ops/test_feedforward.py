import pytest
import torch

from tsar.core.dropout import Dropout
from tsar.core.ops import feedforward as module
from tsar.core.ops.feedforward import feedforward, pick_backend
from tsar.exceptions import ParameterError


def _tensors(shape=(3, 5, 4), d_ff=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    d_model = shape[-1]
    shapes = [shape, (d_ff, d_model), (d_ff,), (d_model, d_ff), (d_model,)]
    return [
        torch.randn(*shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes
    ]


def _dropout(p=0.3):
    dropout = Dropout(p)
    dropout.generator = torch.Generator().manual_seed(9)
    return dropout


def _outputs_and_gradients(tensors, p, backend):
    fresh = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    output = feedforward(*fresh, dropout=_dropout(p), backend=backend)
    weight = torch.randn(
        output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(1)
    )
    return [output, *torch.autograd.grad((output * weight).sum(), fresh)]


def test_reference_is_the_formula():
    x, weight_in, bias_in, weight_out, bias_out = _tensors()
    before = torch.einsum("bld,fd->blf", x, weight_in) + bias_in
    hidden = before * 0.5 * (1 + torch.erf(before / 2**0.5))
    expected = torch.einsum("blf,df->bld", hidden, weight_out) + bias_out
    output = feedforward(x, weight_in, bias_in, weight_out, bias_out, backend="reference")
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 3), (2, 11, 3, 5)])
@pytest.mark.parametrize("tokens_per_chunk", [1, 4, 1000])
def test_chunks_agree_in_values_and_gradients(monkeypatch, dtype, p, shape, tokens_per_chunk):
    tensors = _tensors(shape, dtype=dtype)
    monkeypatch.setattr(module, "_CHUNK_BYTES", tokens_per_chunk * 7 * dtype.itemsize)
    expected = _outputs_and_gradients(tensors, p, "reference")
    results = _outputs_and_gradients(tensors, p, "chunked")
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype is torch.float32 else {}
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, reference, **tolerance)


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_chunked_gradient_against_differences(monkeypatch, p):
    monkeypatch.setattr(module, "_CHUNK_BYTES", 4 * 7 * 8)
    assert torch.autograd.gradcheck(
        lambda *t: feedforward(*t, dropout=_dropout(p), backend="chunked"), _tensors()
    )


def test_training_on_many_tokens_is_chunked():
    weight, many = torch.zeros(128, 16), torch.zeros(50_000, 16)
    assert pick_backend(many, weight) == "chunked"
    assert pick_backend(many[:50], weight) == "reference"
    assert pick_backend(many.bfloat16(), weight) == "reference"
    assert pick_backend(many.to("meta"), weight) == "reference"
    assert pick_backend(torch.zeros(50_000, 65), torch.zeros(128, 65)) == "reference"
    with torch.no_grad():
        assert pick_backend(many, weight) == "reference"


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_biases_may_be_left_out(backend):
    x, weight_in, bias_in, weight_out, bias_out = _tensors()
    expected = feedforward(x, weight_in, 0 * bias_in, weight_out, 0 * bias_out)
    without = feedforward(x, weight_in, None, weight_out, None, backend=backend)
    torch.testing.assert_close(without, expected)


def test_unknown_backend_gets_a_suggestion():
    with pytest.raises(ParameterError, match="did you mean 'chunked'"):
        feedforward(*_tensors(), backend="chunk")
