import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tsar.core.ops.auto_correlation import auto_correlation, n_delays
from tsar.exceptions import ParameterError


def _tensors(n_queries=13, n_keys=13, batch=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n_queries)
    shapes = [(batch, n_queries, 2, 5), (batch, n_keys, 2, 5), (batch, n_keys, 2, 4)]
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
        for shape in shapes
    ]


def _mask(n_keys, batch=3):
    return torch.rand(batch, n_keys, generator=torch.Generator().manual_seed(3)) > 0.2


def _plain(query, key, value, n_delays, shared, scale):
    """One loop per sequence, head, delay and step, on lists of equal length."""
    batch, length, heads, _ = query.shape
    correlation = torch.zeros(batch, heads, length, dtype=query.dtype)
    for b in range(batch):
        for n in range(heads):
            for delay in range(length):
                for step in range(length):
                    later = query[b, (step + delay) % length, n]
                    correlation[b, n, delay] += later @ key[b, step, n]
    mixed = torch.zeros_like(value)
    for b in range(batch):
        for n in range(heads):
            ranked = correlation[:, n].mean(0) if shared else correlation[b, n]
            delays = sorted(range(length), key=lambda delay: -ranked[delay])[:n_delays]
            weights = (scale * correlation[b, n, delays]).softmax(0)
            for step in range(length):
                for delay, weight in zip(delays, weights, strict=True):
                    mixed[b, step, n] += weight * value[b, (step + delay) % length, n]
    return mixed


@pytest.mark.parametrize("backend", ["reference", "fft"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("length", [1, 2, 8, 11])
def test_loops_over_steps(backend, shared, length):
    query, key, value = (tensor.detach() for tensor in _tensors(length, length))
    expected = _plain(query, key, value, n_delays(length, 2.0), shared, 0.2)
    mixed = auto_correlation(query, key, value, factor=2.0, shared=shared, backend=backend)
    torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("n_queries", "n_keys"), [(13, 13), (12, 12), (13, 7), (7, 12), (1, 1), (2, 5), (97, 64)]
)
def test_fast_form_agrees_in_values_and_gradients(n_queries, n_keys, shared, masked):
    tensors = _tensors(n_queries, n_keys)
    options = {"shared": shared, "mask": _mask(n_keys) if masked else None}
    weight = torch.randn(3, n_queries, 2, 4, generator=torch.Generator().manual_seed(5))
    results = []
    for backend in ("fft", "reference"):
        mixed = auto_correlation(*tensors, **options, backend=backend)
        results.append([mixed, *torch.autograd.grad((mixed * weight).sum(), tensors)])
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision(dtype):
    tensors = _tensors(33, 33, dtype=dtype)
    expected = auto_correlation(*(tensor.double() for tensor in tensors), backend="reference")
    mixed = auto_correlation(*tensors)
    assert mixed.dtype == dtype
    tolerance = {"rtol": 1e-2, "atol": 1e-2} if dtype is torch.bfloat16 else {}
    torch.testing.assert_close(mixed, expected.to(dtype), **tolerance)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("n_queries", "n_keys"), [(5, 5), (5, 3)])
def test_gradient_against_differences(n_queries, n_keys, shared):
    tensors = _tensors(n_queries, n_keys, batch=2)
    mask = _mask(n_keys, batch=2)

    def mix(*tensors):
        return auto_correlation(*tensors, shared=shared, mask=mask)

    assert torch.autograd.gradcheck(mix, tensors)
    assert torch.autograd.gradgradcheck(mix, tensors)


@pytest.mark.parametrize("backend", ["reference", "fft"])
def test_periodic_series_is_averaged_over_its_periods(backend):
    """With as many delays as there are periods, each weighs the same."""
    steps = torch.arange(24, dtype=torch.float64)
    wave = torch.sin(2 * math.pi * steps / 6)[None, :, None, None]
    value = torch.randn(1, 24, 1, 3, dtype=torch.float64)
    mixed = auto_correlation(wave, wave, value, factor=1.3, backend=backend)
    assert n_delays(24, 1.3) == 24 // 6
    expected = value.view(4, 6, 3).mean(dim=0).tile(4, 1).view_as(value)
    torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("backend", ["reference", "fft"])
def test_best_delay_aligns_keys_with_queries(backend):
    query, _, value = _tensors(31, 31)
    mixed = auto_correlation(query, query.roll(-4, dims=1), value, factor=0.3, backend=backend)
    torch.testing.assert_close(mixed, value.roll(-4, dims=1))


@pytest.mark.parametrize(("length", "n_features"), [(7, 1), (24, 6), (33, 5), (48, 64)])
def test_without_sharing_the_batch_does_not_matter(length, n_features):
    """To the bit, whatever the size of the batch and the place in it."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(50, length, 1, n_features, generator=generator) for _ in range(3)]
    with torch.inference_mode():
        together = auto_correlation(*tensors)
        for begin, end in [(0, 4), (0, 17), (17, 34), (5, 12), (3, 40)]:
            some = auto_correlation(*(tensor[begin:end].clone() for tensor in tensors))
            assert torch.equal(some, together[begin:end])


def test_shared_delays_are_those_of_the_mean():
    """A loud sequence decides the delay for all, and the weights stay their own."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 29, 1, 6, dtype=torch.float64, generator=generator)
    key = torch.stack([10 * query[0].roll(-4, dims=0), query[1].roll(-9, dims=0)])
    value = torch.randn(2, 29, 1, 3, dtype=torch.float64, generator=generator)
    for shared, delays in [(True, (4, 4)), (False, (4, 9))]:
        mixed = auto_correlation(query, key, value, factor=0.3, shared=shared)
        expected = [v.roll(-delay, dims=0) for v, delay in zip(value, delays, strict=True)]
        torch.testing.assert_close(mixed, torch.stack(expected))


def test_masked_steps_count_as_zero():
    query, key, value = _tensors()
    mask = _mask(13)
    zeroed = [part * mask[:, :, None, None] for part in (key, value)]
    mixed = auto_correlation(query, key, value, mask=mask)
    torch.testing.assert_close(mixed, auto_correlation(query, *zeroed))
    assert not torch.allclose(mixed, auto_correlation(query, key, value))


class _Sizes(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


def test_nothing_is_as_large_as_length_times_length():
    length = 500
    tensors = [torch.randn(1, length, 1, 2, requires_grad=True) for _ in range(3)]
    with _Sizes() as sizes:
        auto_correlation(*tensors).sum().backward()
    assert 2 * length < sizes.largest < length**2 / 10


@pytest.mark.parametrize(
    ("length", "factor", "expected"), [(96, 3.0, 13), (144, 3.0, 14), (1, 3.0, 1), (2, 9.0, 2)]
)
def test_number_of_delays(length, factor, expected):
    assert n_delays(length, factor) == expected


def test_masks_of_pairs_are_refused():
    with pytest.raises(ParameterError, match=r"one entry per key, \(3, 7\), got \(3, 13, 7\)"):
        auto_correlation(*_tensors(13, 7), mask=torch.ones(3, 13, 7).bool())


def test_unknown_backend_gets_a_suggestion():
    with pytest.raises(ParameterError, match="did you mean 'fft'"):
        auto_correlation(*_tensors(), backend="ftt")
