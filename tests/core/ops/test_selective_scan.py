import sys
import types

import pytest
import torch
from torch.nn import functional as F

from tsar.core.ops import chunked_scan as module
from tsar.core.ops import selective_scan as picking
from tsar.core.ops.selective_scan import check_backend, pick_backend, selective_scan
from tsar.exceptions import BackendWarning, ParameterError

# Batch, tokens, channels, states.
SIZES = [(2, 1, 3, 4), (3, 2, 5, 1), (1, 3, 2, 5), (4, 7, 3, 2), (2, 37, 5, 3), (3, 64, 2, 4)]
OPTIONS = ("d", "z", "delta_bias", "initial_state")


def _draw(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)


def _tensors(batch=2, length=37, channels=5, states=3, dtype=torch.float64):
    wide, narrow = (batch, length, channels), (batch, length, states)
    shapes = {
        "x": wide, "delta": wide, "a": (channels, states), "b": narrow, "c": narrow,
        "d": (channels,), "z": wide, "delta_bias": (channels,),
        "initial_state": (batch, channels, states),
    }  # fmt: skip
    tensors = {name: _draw(*s, seed=i, dtype=dtype) for i, (name, s) in enumerate(shapes.items())}
    tensors["a"] = -tensors["a"].exp()
    return tensors


def _results(tensors, **options):
    """Both outputs, and the gradients of all tensors for a loss of both."""
    fresh = {name: t.detach().clone().requires_grad_() for name, t in tensors.items()}
    required = [fresh.pop(name) for name in ("x", "delta", "a", "b", "c")]
    outputs = selective_scan(*required, **fresh, **options)
    loss = sum((y * _draw(*y.shape, seed=9, dtype=y.dtype)).sum() for y in outputs)
    return [*outputs, *torch.autograd.grad(loss, [*required, *fresh.values()])]


def _assert_same(results, expected, **tolerance):
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, reference, **tolerance)


def test_reference_is_the_written_recurrence():
    """Sequence by sequence, channel by channel, with scalars."""
    t = _tensors(2, 6, 3, 4)
    y, state = selective_scan(
        t["x"], t["delta"], t["a"], t["b"], t["c"], d=t["d"], z=t["z"],
        delta_bias=t["delta_bias"], delta_softplus=True, initial_state=t["initial_state"],
        backend="reference",
    )  # fmt: skip
    for b in range(2):
        for e in range(3):
            h = t["initial_state"][b, e]
            for i in range(6):
                x, delta = t["x"][b, i, e], F.softplus(t["delta"][b, i, e] + t["delta_bias"][e])
                h = (delta * t["a"][e]).exp() * h + delta * t["b"][b, i] * x
                expected = (t["c"][b, i] @ h + t["d"][e] * x) * F.silu(t["z"][b, i, e])
                torch.testing.assert_close(y[b, i, e], expected)
            torch.testing.assert_close(state[b, e], h)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_constant_parameters_are_a_convolution(backend):
    """Without selection, y is x convolved with ``c exp(delta a s) delta b``."""
    length, delta = 29, 0.3
    x, a = _draw(2, length, 3), -_draw(3, 4, seed=1).exp()
    b, c = _draw(4, seed=2), _draw(4, seed=3)
    steps = torch.arange(length, dtype=torch.float64)
    kernel = (c * delta * b * torch.exp(delta * a[:, None] * steps[:, None])).sum(-1)  # (E, L)
    padded = F.pad(x.mT, (length - 1, 0))
    expected = F.conv1d(padded, kernel.flip(1)[:, None], groups=3).mT
    constant = torch.full_like(x, delta)
    y, _ = selective_scan(
        x, constant, a, b.expand(2, length, 4), c.expand(2, length, 4), backend=backend
    )
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_a_constant_input_settles(backend):
    """The fixed point of h = exp(delta a) h + delta b x."""
    a, delta, b = torch.tensor([[-0.5, -3.0]]).double(), 0.7, 2.0
    constant = torch.ones(1, 300, 1).double()
    narrow = torch.full((1, 300, 2), b).double()
    _, state = selective_scan(constant, delta * constant, a, narrow, narrow, backend=backend)
    torch.testing.assert_close(state[0], delta * b / (1 - torch.exp(delta * a)))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("block", [2**6, 2**18])
@pytest.mark.parametrize("left_out", [(), OPTIONS])
def test_chunks_agree_with_the_reference(monkeypatch, sizes, block, left_out):
    monkeypatch.setattr(module, "_BLOCK_ON_CPU", block)
    tensors = {n: t for n, t in _tensors(*sizes).items() if n not in left_out}
    options = {"delta_softplus": True}
    expected = _results(tensors, backend="reference", **options)
    _assert_same(_results(tensors, backend="chunked", **options), expected)


@pytest.mark.parametrize("length", range(1, 20))
def test_every_length_of_a_chunk(monkeypatch, length):
    monkeypatch.setattr(module, "_SHORTEST_CHUNK", length)
    tensors = _tensors(2, 40, 3, 2)
    monkeypatch.setattr(module, "_BLOCK_ON_CPU", 1)
    expected = _results(tensors, backend="reference", delta_softplus=True)
    _assert_same(_results(tensors, backend="chunked", delta_softplus=True), expected)


def test_single_precision():
    tensors = _tensors(3, 101, 4, 5, dtype=torch.float32)
    expected = _results(tensors, backend="reference", delta_softplus=True)
    results = _results(tensors, backend="chunked", delta_softplus=True)
    assert all(result.dtype == torch.float32 for result in results)
    _assert_same(results, expected, rtol=1e-4, atol=1e-4)


def test_chunked_gradient_against_differences():
    t = {name: tensor.requires_grad_() for name, tensor in _tensors(2, 11, 2, 3).items()}
    names = list(t)

    def scan(*values):
        named = dict(zip(names, values, strict=True))
        required = [named.pop(name) for name in ("x", "delta", "a", "b", "c")]
        return selective_scan(*required, **named, delta_softplus=True, backend="chunked")

    assert torch.autograd.gradcheck(scan, list(t.values()))


@pytest.mark.parametrize("decay", [1e-3, 30.0, 1e4, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strong_decay_does_not_overflow(decay, dtype):
    tensors = _tensors(2, 257, 3, 2, dtype=dtype)
    tensors["a"] = tensors["a"] * decay
    results = _results(tensors, backend="chunked", delta_softplus=True)
    assert all(result.isfinite().all() for result in results)
    expected = _results(tensors, backend="reference", delta_softplus=True)
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if dtype is torch.float32 else {}
    _assert_same(results, expected, **tolerance)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_a_sequence_can_be_cut_anywhere(backend):
    t = _tensors(3, 23, 4, 2)
    t["delta"] = t["delta"].abs()
    whole, end = selective_scan(t["x"], t["delta"], t["a"], t["b"], t["c"], backend=backend)
    for cut in (1, 9, 22):
        state, parts = None, []
        for part in (slice(0, cut), slice(cut, None)):
            x, delta, b, c = (t[name][:, part] for name in ("x", "delta", "b", "c"))
            y, state = selective_scan(x, delta, t["a"], b, c, initial_state=state, backend=backend)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole)
        torch.testing.assert_close(state, end)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("softplus", [False, True])
def test_masked_tokens_leave_the_state(backend, softplus):
    t = _tensors(2, 13, 3, 4)
    if not softplus:
        t["delta"] = t["delta"].abs()
    mask = torch.ones(2, 13).bool()
    mask[:, [0, 4, 5, 12]] = False
    options = {"delta_softplus": softplus, "backend": backend}
    values = [t[name] for name in ("x", "delta", "a", "b", "c")]
    y, state = selective_scan(*values, mask=mask, **options)
    kept = [v if v is t["a"] else v[:, mask[0]] for v in values]
    expected, end = selective_scan(*kept, **options)
    torch.testing.assert_close(y[:, mask[0]], expected)
    torch.testing.assert_close(state, end)
    _, *grads = _results(t, mask=mask, **options)
    assert all(grad.isfinite().all() for grad in grads)


def test_a_sequence_is_scanned_alike_in_any_company():
    t = _tensors(9, 50, 32, 2, dtype=torch.float32)
    values = [t[name] for name in ("x", "delta", "a", "b", "c")]
    with torch.inference_mode():
        together, _ = selective_scan(*values, delta_softplus=True)
        for n in range(1, 9):
            alone = [v if v is t["a"] else v[:n] for v in values]
            assert torch.equal(selective_scan(*alone, delta_softplus=True)[0], together[:n])


def test_half_precision_is_computed_in_single():
    t = _tensors(2, 15, 3, 2, dtype=torch.float32)
    t |= {name: t[name].bfloat16() for name in ("x", "delta", "b", "c")}
    values = [t[name] for name in ("x", "delta", "a", "b", "c")]
    y, _ = selective_scan(*values, delta_softplus=True)
    exact, _ = selective_scan(*(v.float() for v in values), delta_softplus=True)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, exact.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = selective_scan(*(v.float() for v in values), delta_softplus=True)
    assert torch.equal(mixed, exact)


# ------------------------------------------------------ the kernel, as a stand-in

ELSEWHERE = torch.device("xpu")


def _kernel_like(error=0.0):
    """The signature of mamba-ssm around the plain recurrence, and an error on top."""

    def selective_scan_fn(x, delta, a, b, c, d, z, delta_bias, delta_softplus, return_last_state):
        assert return_last_state
        y, state = selective_scan(
            x.mT, delta.mT, a, b.mT, c.mT, d=d, z=None if z is None else z.mT,
            delta_bias=delta_bias, delta_softplus=delta_softplus, backend="reference",
        )  # fmt: skip
        return y.mT * (1 + error), state

    return selective_scan_fn


@pytest.fixture
def kernel(monkeypatch):
    """Install a stand-in for mamba-ssm that is said to run on the CPU."""

    def install(function):
        names = ["mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"]
        modules = {name: types.ModuleType(name) for name in names}
        if function is not None:
            modules[names[-1]].selective_scan_fn = function
        for name, stand_in in modules.items():
            monkeypatch.setitem(sys.modules, name, stand_in)
        monkeypatch.setattr(picking, "_kernel_runs_on", lambda device: True)
        monkeypatch.setattr(picking, "_kernel_is_installed", lambda: True)
        picking._kernel_fault.cache_clear()
        picking._warn_once.cache_clear()

    yield install
    picking._kernel_fault.cache_clear()
    picking._warn_once.cache_clear()


def test_a_kernel_that_agrees_is_taken(kernel):
    kernel(_kernel_like())
    cpu = torch.device("cpu")
    assert pick_backend(cpu) == "mamba_ssm"
    assert pick_backend(cpu, has_state=True) == "chunked"
    assert pick_backend(cpu, dtype=torch.float64) == "chunked"
    tensors = _tensors(dtype=torch.float32)
    del tensors["initial_state"]
    expected = _results(tensors, delta_softplus=True, backend="reference")
    _assert_same(_results(tensors, delta_softplus=True), expected)


def _fails(*inputs):
    raise RuntimeError("no kernel image")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_kernel_like(0.01), "differs from the reference by"),
        (_kernel_like(float("nan")), "differs from the reference by"),
        (_fails, "failed its check"),
        (None, "cannot be imported"),
    ],
)
def test_a_kernel_that_cannot_be_trusted_is_refused(kernel, recwarn, function, message):
    kernel(function)
    cpu = torch.device("cpu")
    with pytest.warns(BackendWarning, match=message):
        assert pick_backend(cpu) == "chunked"
    recwarn.clear()
    assert pick_backend(cpu) == "chunked"
    assert not recwarn  # said once
    with pytest.raises(ParameterError, match=message):
        check_backend("mamba_ssm", cpu)


def test_the_check_happens_once(kernel):
    calls, right = [], _kernel_like()
    kernel(lambda *inputs: calls.append(1) or right(*inputs))
    for _ in range(3):
        pick_backend(torch.device("cpu"))
    assert len(calls) == 1


def test_without_a_kernel():
    values = list(_tensors().values())[:5]
    assert pick_backend(torch.device("cpu")) == "chunked"
    assert pick_backend(ELSEWHERE) == "chunked"
    with pytest.raises(ParameterError, match="needs an accelerator, got device 'cpu'"):
        selective_scan(*values, backend="mamba_ssm")
    with pytest.raises(ParameterError, match="has no double precision"):
        check_backend("mamba_ssm", ELSEWHERE, dtype=torch.float64)
    with pytest.raises(ParameterError, match="cannot start from a given state"):
        check_backend("mamba_ssm", ELSEWHERE, has_state=True)
    with pytest.raises(ParameterError, match="pip install 'tsar\\[mamba\\]'"):
        check_backend("mamba_ssm", ELSEWHERE)
    with pytest.raises(ParameterError, match="did you mean 'chunked'"):
        selective_scan(*values, backend="chunkde")
