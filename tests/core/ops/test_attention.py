import math

import pytest
import torch
from torch.nn import functional as F

from tsar.core.dropout import Dropout
from tsar.core.ops import chunked_attention
from tsar.core.ops import matmul_attention as module
from tsar.core.ops.attention import attention, pick_backend
from tsar.exceptions import ParameterError

FAST = ("short", "matmul", "sdpa", "chunked")
# Queries, keys, width, width of the values.
SIZES = [(7, 11, 3, 5), (1, 1, 1, 1), (13, 13, 4, 4), (1, 9, 2, 6), (5, 30, 3, 2)]


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


def _tensors(n_queries=7, n_keys=11, head=3, value=5, batch=4, heads=2, dtype=torch.float64):
    generator = _seeded(0)
    shapes = [(n_queries, head), (n_keys, head), (n_keys, value)]
    return [
        torch.randn(batch, heads, *shape, dtype=dtype, generator=generator).requires_grad_()
        for shape in shapes
    ]


def _outputs_and_gradients(tensors, **options):
    fresh = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    output = attention(*fresh, **options)
    weight = torch.randn(output.shape, dtype=output.dtype, generator=_seeded(1))
    return [output, *torch.autograd.grad((output * weight).sum(), fresh)]


def _assert_same(results, expected, dtype):
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype is torch.float32 else {}
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, reference, **tolerance)


def test_reference_equals_a_loop_over_queries():
    query, key, value = _tensors()
    mask = torch.rand(4, 7, 11, generator=_seeded(2)) > 0.3
    output = attention(query, key, value, mask=mask, backend="reference")
    for b in range(4):
        for n in range(2):
            for i in range(7):
                seen = mask[b, i].nonzero()[:, 0]
                scores = torch.stack([query[b, n, i] @ key[b, n, j] / math.sqrt(3) for j in seen])
                expected = scores.softmax(0) @ value[b, n, seen]
                torch.testing.assert_close(output[b, n, i], expected)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "sizes", [(7, 11, 3, 5), (1, 1, 1, 1), (13, 13, 4, 4), (1, 9, 2, 6), (5, 30, 3, 2)]
)
@pytest.mark.parametrize("masking", ["none", "keys", "pairs", "causal", "causal keys"])
def test_backends_agree_in_values_and_gradients(backend, dtype, sizes, masking):
    tensors = _tensors(*sizes, dtype=dtype)
    n_queries, n_keys = sizes[:2]
    generator = _seeded(3)
    mask = None
    if "keys" in masking:
        mask = torch.rand(4, n_keys, generator=generator) > 0.3
        mask[:, 0] = True
    elif masking == "pairs":
        mask = torch.rand(4, n_queries, n_keys, generator=generator) > 0.3
        mask[..., 0] = True
    options = {"mask": mask, "causal": "causal" in masking, "scale": 0.7}
    expected = _outputs_and_gradients(tensors, backend="reference", **options)
    _assert_same(_outputs_and_gradients(tensors, backend=backend, **options), expected, dtype)


def test_reference_equals_torch():
    tensors = _tensors(9, 9, 5, 5)
    expected = F.scaled_dot_product_attention(*tensors, is_causal=True)
    torch.testing.assert_close(attention(*tensors, causal=True, backend="reference"), expected)


@pytest.mark.parametrize("masked", [False, True])
def test_matmul_chunks_cover_every_sequence(monkeypatch, masked):
    tensors = _tensors(batch=5)
    mask = None
    if masked:
        mask = torch.rand(5, 11, generator=_seeded(4)) > 0.3
    expected = _outputs_and_gradients(tensors, mask=mask, backend="reference")
    for n_sequences in (1, 2, 3):
        monkeypatch.setattr(module, "_CHUNK_BYTES", n_sequences * 2 * 7 * 11 * 8)
        results = _outputs_and_gradients(tensors, mask=mask, backend="matmul")
        _assert_same(results, expected, torch.float64)
        with torch.no_grad():
            output = attention(*tensors, mask=mask, backend="matmul")
        torch.testing.assert_close(output, expected[0])


def test_matmul_gradient_against_differences():
    tensors = _tensors(3, 4, 2, 3, batch=2)
    mask = torch.tensor([[True, False, True, True], [True, True, True, False]])
    assert torch.autograd.gradcheck(lambda *t: attention(*t, mask=mask, backend="matmul"), tensors)


@pytest.mark.parametrize("backend", ["short", "matmul"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masking", ["none", "keys", "pairs"])
def test_scores_of_any_size_give_the_same(backend, dtype, masking):
    # From far below 0 to far above it, in one batch: sums of powers leave the range of numbers.
    query, key, value = (tensor.detach() for tensor in _tensors(13, 11, 4, 5, dtype=dtype))
    offsets = torch.linspace(-300, 300, 13, dtype=dtype)[:, None]
    query, key = torch.cat([query, offsets.expand(4, 2, 13, 1)], -1), F.pad(key, (0, 1), value=1.0)
    mask = None
    if masking != "none":
        shape = (4, 11) if masking == "keys" else (4, 13, 11)
        mask = torch.rand(shape, generator=_seeded(5)) > 0.3
        mask[..., 0] = True
        mask[1] = False
    options = {"mask": mask, "scale": 1.0}
    expected = _outputs_and_gradients((query, key, value), backend="reference", **options)
    results = _outputs_and_gradients((query, key, value), backend=backend, **options)
    with torch.no_grad():
        output = attention(query, key, value, backend=backend, **options)
    for result, reference in zip([*results, output], [*expected, expected[0]], strict=True):
        assert result.isfinite().all()
        # A score of 300 is rounded to 2e-5 in single precision, by whatever kernel, and with it
        # every weight by that share.
        allowed = 2e-5 if dtype is torch.float32 else 1e-12
        assert (result - reference).abs().max() <= allowed * reference.abs().max()


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("n_keys", [11, 30])
def test_nothing_to_attend_to_is_finite(backend, n_keys):
    tensors = _tensors(n_keys=n_keys)
    mask = torch.ones(4, n_keys).bool()
    mask[1] = False
    results = _outputs_and_gradients(tensors, mask=mask, backend=backend)
    assert all(result.isfinite().all() for result in results)
    torch.testing.assert_close(
        results[0][1], tensors[2][1].mean(-2, keepdim=True).expand(-1, 7, -1)
    )


def test_strided_views_give_the_same():
    tensors = _tensors()
    views = [tensor.detach().transpose(1, 2).contiguous().transpose(1, 2) for tensor in tensors]
    expected = _outputs_and_gradients(tensors, backend="reference")
    for backend in FAST:
        _assert_same(_outputs_and_gradients(views, backend=backend), expected, torch.float64)


@pytest.mark.parametrize("masked", [False, True])
def test_short_drops_the_weights_that_the_reference_drops(masked):
    mask = None
    if masked:
        mask = torch.rand(4, 7, 11, generator=_seeded(2)) > 0.3
        mask[..., 0] = True
    results = []
    for backend in ("reference", "short"):
        dropout = Dropout(0.4)
        dropout.generator = _seeded(1)
        options = {"mask": mask, "dropout": dropout, "backend": backend}
        results.append(_outputs_and_gradients(_tensors(), **options))
    _assert_same(results[1], results[0], torch.float64)
    plain = attention(*_tensors(), mask=mask, backend="short")
    assert not torch.allclose(results[1][0], plain)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("half", [True, False])
def test_training_in_half_precision(backend, half):
    """Queries, keys and values as a linear map under autocast gives them, or in full."""
    tensors = _tensors(dtype=torch.float32)
    expected = attention(*tensors, backend="reference")
    weight = torch.randn(expected.shape, generator=_seeded(1))
    gradients = torch.autograd.grad((expected * weight).sum(), tensors)
    if half:
        tensors = [tensor.detach().bfloat16().requires_grad_() for tensor in tensors]
    with torch.autocast("cpu", torch.bfloat16):
        output = attention(*tensors, backend=backend)
    results = torch.autograd.grad((output.float() * weight).sum(), tensors)
    for result, reference in zip((output, *results), (expected, *gradients), strict=True):
        torch.testing.assert_close(result.float(), reference, rtol=3e-2, atol=3e-2)


def test_short_gradient_against_differences():
    tensors = _tensors(3, 4, 2, 3, batch=2)
    mask = torch.tensor([[True, False, True, True], [True, True, True, False]])
    assert torch.autograd.gradcheck(lambda *t: attention(*t, mask=mask, backend="short"), tensors)


def test_weights_are_dropped_by_the_reference_and_over_few_keys_only():
    tensors = _tensors()
    dropout = Dropout(0.5)
    dropout.generator = _seeded(1)
    assert pick_backend(42, 42, torch.device("cpu"), drops=True) == "reference"
    dropped = attention(*tensors, dropout=dropout)
    assert not torch.allclose(dropped, attention(*tensors))
    torch.testing.assert_close(attention(*tensors, dropout=dropout.eval()), attention(*tensors))
    with pytest.raises(ParameterError, match="backend='sdpa' cannot drop weights"):
        attention(*tensors, dropout=dropout.train(), backend="sdpa")


@pytest.mark.parametrize(
    ("n_keys", "training", "forecast"),
    [(6, "short", "sdpa"), (42, "matmul", "sdpa"), (700, "sdpa", "sdpa")],
)
def test_kernel_follows_the_length(n_keys, training, forecast):
    assert pick_backend(n_keys, n_keys, torch.device("cpu")) == training
    assert pick_backend(n_keys, n_keys, torch.device("meta")) == "sdpa"
    assert pick_backend(1, n_keys, torch.device("cpu")) == ("short" if n_keys < 12 else "sdpa")
    with torch.no_grad():
        assert pick_backend(n_keys, n_keys, torch.device("cpu")) == forecast
        beside = "sdpa" if n_keys < 16 or n_keys > 512 else "matmul"
        assert pick_backend(n_keys, n_keys, torch.device("cpu"), n_parts=2) == beside


@pytest.mark.parametrize("sizes", [(6, 6, 4, 4), (12, 12, 8, 8), (17, 17, 4, 4), (42, 42, 4, 4)])
@pytest.mark.parametrize("causal", [False, True])
def test_a_sequence_is_attended_to_alike_in_any_company(sizes, causal):
    tensors = _tensors(*sizes, batch=9, dtype=torch.float32)
    with torch.inference_mode():
        together = attention(*tensors, causal=causal)
        for n in range(2, 9):
            alone = attention(*(t[:n] for t in tensors), causal=causal)
            assert torch.equal(alone, together[:n])


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("sizes", [(7, 11, 3, 5), (13, 13, 6, 2), (21, 32, 4, 4), (17, 17, 4, 4)])
@pytest.mark.parametrize("masking", ["none", "keys", "nothing", "pairs", "causal", "causal keys"])
def test_backends_agree_without_gradients(backend, sizes, masking):
    """Keys that are filled up to whole vectors, and features to equal widths, take no part."""
    tensors = _tensors(*sizes)
    n_queries, n_keys = sizes[:2]
    mask = torch.rand(4, n_queries, n_keys, generator=_seeded(3)) > 0.3
    mask[..., 0] = True
    mask = mask[:, 0] if "keys" in masking else mask if masking == "pairs" else None
    if masking == "nothing":
        mask = torch.arange(4)[:, None].expand(4, n_keys) > 1
    options = {"mask": mask, "causal": "causal" in masking}
    expected = attention(*tensors, backend="reference", **options)
    with torch.no_grad():
        result = attention(*tensors, backend=backend, **options)
    torch.testing.assert_close(result, expected)


def test_parts_side_by_side_add_their_scores():
    tensors, others = _tensors(), _tensors(head=2)
    whole = [torch.cat([a, b], -1) for a, b in zip(tensors[:2], others[:2], strict=True)]
    expected = _outputs_and_gradients([*whole, tensors[2]], scale=0.3, backend="reference")
    parts = [t.detach().clone().requires_grad_() for t in (*tensors[:2], *others[:2], tensors[2])]
    for backend in ("reference", *FAST):
        query, key, other_query, other_key, value = parts
        output = attention(
            [query, other_query], [key, other_key], value, scale=0.3, backend=backend
        )
        torch.testing.assert_close(output, expected[0])
        weight = torch.randn(output.shape, dtype=output.dtype, generator=_seeded(1))
        grads = torch.autograd.grad((output * weight).sum(), parts)
        for i, (one, two) in enumerate([(0, 2), (1, 3)]):
            torch.testing.assert_close(torch.cat([grads[one], grads[two]], -1), expected[1 + i])
        torch.testing.assert_close(grads[4], expected[3])


def test_unknown_backend_gets_a_suggestion():
    with pytest.raises(ParameterError, match="did you mean 'matmul'"):
        attention(*_tensors(), backend="matmull")


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunked_attention, "_QUERIES", 3)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("sizes", [(13, 13), (4, 11), (9, 5), (1, 7)])
@pytest.mark.parametrize(("window", "sinks"), [(None, 0), (1, 0), (4, 0), (3, 2), (40, 1)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_windows_by_a_mask_of_all_pairs(backend, sizes, window, sinks, causal, masked):
    """The mask is written down pair by pair; queries that see nothing are among them."""
    (n_queries, n_keys), mask = sizes, None
    tensors = _tensors(n_queries, n_keys)
    if masked:
        mask = torch.rand(4, n_keys, generator=_seeded(3)) > 0.4
        mask[1] = False
    seen = torch.ones(4, n_queries, n_keys, dtype=torch.bool)
    for i in range(n_queries):
        for j in range(n_keys):
            apart = i + n_keys - n_queries - j
            near = window is None or abs(apart) < window or j < sinks
            late = causal and apart < 0 and n_queries > 1
            seen[:, i, j] = near and not late
    if masked:
        seen &= mask[:, None]
    expected = _outputs_and_gradients(tensors, mask=seen, backend="reference")
    options = {"mask": mask, "causal": causal, "window": window, "sinks": sinks}
    _assert_same(_outputs_and_gradients(tensors, backend=backend, **options), expected, None)


@pytest.mark.usefixtures("small_chunks")
def test_chunked_gradient_against_differences():
    tensors = _tensors(5, 7, 2, 3, batch=2, heads=1)
    mask = torch.rand(2, 1, 5, 7, generator=_seeded(2)) > 0.3
    options = {"mask": mask, "causal": True, "window": 4, "sinks": 1, "backend": "chunked"}
    assert torch.autograd.gradcheck(lambda *t: attention(*t, **options), tensors)


def test_chunks_remember_and_hold_nothing_of_all_pairs():
    """The largest tensor that is made has the keys of one chunk, not all pairs."""
    largest = 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.untyped_storage().size() // tensor.itemsize)
            return result

    n_tokens = 2048
    query, key, value = torch.randn(3, 1, 1, n_tokens, 4).unbind(0)
    with Sizes():
        query.requires_grad_()
        attention(query, key, value, causal=True, backend="chunked").sum().backward()
    assert n_tokens * 4 <= largest <= 128 * n_tokens
    largest = 0
    with Sizes(), torch.no_grad():
        attention(query, key, value, causal=True, window=64, backend="chunked")
    assert largest <= max(n_tokens * 4, 128 * (128 + 64))


@torch.no_grad()
def test_long_windows_are_chunked():
    device = torch.device("cpu")
    assert pick_backend(1000, 1000, device, window=100) == "chunked"
    assert pick_backend(1000, 1000, device, window=900) == "sdpa"
    assert pick_backend(1000, 1000, device) == "sdpa"
    assert pick_backend(200, 200, device, window=10) == "sdpa"
    assert pick_backend(1, 1000, device, window=100) == "sdpa"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_chunks_in_half_precision(dtype):
    tensors = [tensor.detach().to(dtype) for tensor in _tensors(40, 40)]
    result = attention(*tensors, causal=True, window=6, backend="chunked")
    exact = attention(*(t.double() for t in tensors), causal=True, window=6, backend="reference")
    torch.testing.assert_close(result.double(), exact, rtol=1e-2, atol=1e-2)
