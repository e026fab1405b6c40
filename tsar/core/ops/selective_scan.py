"""The selective scan of Mamba: the plain reference, the faster forms, and who picks one.

Letters: B batch, L tokens, E channels, N states per channel.
"""

import importlib.util
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.ops.chunked_scan import chunked_scan
from tsar.core.tracing import is_traced
from tsar.exceptions import BackendWarning, ParameterError, warn
from tsar.params.constraints import check_choice

__all__ = ["BACKENDS", "check_backend", "pick_backend", "selective_scan"]

BACKENDS = ("reference", "chunked", "mamba_ssm")

_Scan = Callable[..., tuple[Tensor, Tensor]]


def selective_scan(
    x: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    d: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    mask: Tensor | None = None,
    initial_state: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Scan a sequence with a state space whose step, input and output depend on the token.

    For every channel, with ``a`` diagonal::

        h_t = exp(delta_t a) h_{t-1} + delta_t b_t x_t
        y_t = c_t h_t + d x_t, times silu(z_t) if there is a gate

    Half precision is computed in single precision.

    Parameters
    ----------
    x : Tensor of shape (B, L, E)
    delta : Tensor of shape (B, L, E)
        Step sizes, not negative once ``delta_bias`` and the softplus are applied.
    a : Tensor of shape (E, N)
        Negative, so that the state decays.
    b, c : Tensor of shape (B, L, N)
    d : Tensor of shape (E,), optional
        Factor of the way around the state.
    z : Tensor of shape (B, L, E), optional
        Gate.
    delta_bias : Tensor of shape (E,), optional
        Added to ``delta`` first.
    delta_softplus : bool, default False
        Take ``softplus(delta + delta_bias)`` for the step sizes.
    mask : bool Tensor of shape (B, L), optional
        False where a token leaves the state as it is, as a step of size 0 does.
    initial_state : Tensor of shape (B, E, N), optional
        ``h_0``; zeros by default.
    backend : {"reference", "chunked", "mamba_ssm"}, optional
        Forces a form; :func:`pick_backend` chooses otherwise, and while torch traces.

    Returns
    -------
    y : Tensor of shape (B, L, E)
        Of the dtype of ``x``.
    state : Tensor of shape (B, E, N)
        After the last token.

    Raises
    ------
    ParameterError
        If the forced form does not exist, is not available here, or failed its check.

    References
    ----------
    Gu and Dao, "Mamba: linear-time sequence modeling with selective state
    spaces", arXiv:2312.00752, eqs. 1 and 2, section 3.2 and appendix C.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    has_state = initial_state is not None
    if backend is not None:
        check_backend(backend, x.device, dtype=wide, has_state=has_state)
    if backend is None or is_traced():
        backend = pick_backend(x.device, dtype=wide, has_state=has_state)
    if mask is not None:
        # softplus(-inf) is 0, and adding a bias to it changes nothing.
        delta = delta.masked_fill(~mask[..., None], -math.inf if delta_softplus else 0.0)
    forms: dict[str, _Scan]
    forms = {"reference": _reference, "chunked": _chunked, "mamba_ssm": _mamba_ssm}
    tensors = (x, delta, a, b, c, d, z, delta_bias)
    prepared = [None if tensor is None else tensor.to(wide) for tensor in tensors]
    y, state = forms[backend](*prepared, delta_softplus, initial_state)
    return y.to(x.dtype), state


def pick_backend(
    device: torch.device, *, dtype: torch.dtype = torch.float32, has_state: bool = False
) -> str:
    """Choose a form, the only place where that is decided.

    The kernel of mamba-ssm is taken where it is installed, runs and agrees with
    the reference; if it does not, a :class:`~tsar.exceptions.BackendWarning`
    says so once. The lengths have no say, so that a forecast is the same bit
    for bit whatever else is forecast beside it. While torch traces, it is the
    reference, whose loop over tokens is written out for the length at hand.

    Parameters
    ----------
    device : torch.device
    dtype : torch.dtype, default torch.float32
        What is computed in; the kernel has no double precision.
    has_state : bool, default False
        Whether the scan starts from a given state, which the kernel cannot.

    Returns
    -------
    str
        One of :data:`BACKENDS`.
    """
    if is_traced():
        return "reference"
    possible = _kernel_runs_on(device) and dtype != torch.float64 and not has_state
    if not possible or not _kernel_is_installed():
        return "chunked"
    fault = _kernel_fault(device)
    if fault is None:
        return "mamba_ssm"
    _warn_once(fault)
    return "chunked"


def check_backend(
    backend: str,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    has_state: bool = False,
) -> None:
    """Raise an error that says why a form cannot be forced on a device, if it cannot.

    Parameters
    ----------
    backend : str
    device : torch.device
    dtype : torch.dtype, default torch.float32
    has_state : bool, default False
        As in :func:`pick_backend`.

    Raises
    ------
    ParameterError
        If there is no such form, it is not available here, or it failed its check.
    """
    check_choice("selective_scan", "backend", backend, BACKENDS)
    if backend != "mamba_ssm":
        return
    if not _kernel_runs_on(device):
        fault = f"needs an accelerator, got device '{device}'"
    elif dtype == torch.float64:
        fault = "has no double precision"
    elif has_state:
        fault = "cannot start from a given state"
    elif not _kernel_is_installed():
        fault = "needs mamba-ssm: pip install 'tsar[mamba]'"
    else:
        fault = _kernel_fault(device) or ""
    if fault:
        raise ParameterError(
            f"selective_scan: backend='mamba_ssm' {fault}; use backend='chunked' or None"
        )


def _reference(
    x: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The recurrence as it is written, one token after the other."""
    delta = _step_sizes(delta, delta_bias, delta_softplus)
    h = _start(x, a, initial_state)
    outputs = []
    tokens = zip(*(tensor.unbind(1) for tensor in (x, delta, b, c)), strict=True)
    for x_t, delta_t, b_t, c_t in tokens:
        decay = torch.exp(delta_t[..., None] * a)  # (B, E, N)
        h = decay * h + (delta_t * x_t)[..., None] * b_t[:, None]
        outputs.append((h * c_t[:, None]).sum(dim=-1))
    y = torch.stack(outputs, dim=1) if outputs else torch.empty_like(x)
    return _around_and_gate(y, x, d, z), h


def _chunked(
    x: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    delta = _step_sizes(delta, delta_bias, delta_softplus)
    start = _start(x, a, initial_state)
    y, state = chunked_scan(x, delta, a, b, c, start)
    return _around_and_gate(y, x, d, z), state


def _mamba_ssm(
    x: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: None,
) -> tuple[Tensor, Tensor]:
    """The fused kernel, which has the tokens last."""
    x, delta, b, c = (tensor.mT.contiguous() for tensor in (x, delta, b, c))
    z = None if z is None else z.mT.contiguous()
    y, state = _kernel()(x, delta, a, b, c, d, z, delta_bias, delta_softplus, True)
    return y.mT, state


def _start(x: Tensor, a: Tensor, initial_state: Tensor | None) -> Tensor:
    return x.new_zeros(x.shape[0], *a.shape) if initial_state is None else initial_state.to(x.dtype)


def _step_sizes(delta: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    delta = delta if bias is None else delta + bias
    return F.softplus(delta) if softplus else delta


def _around_and_gate(y: Tensor, x: Tensor, d: Tensor | None, z: Tensor | None) -> Tensor:
    y = y if d is None else torch.addcmul(y, x, d)
    return y if z is None else y * F.silu(z)


# ------------------------------------------------------- the kernel of mamba-ssm


def _kernel_runs_on(device: torch.device) -> bool:
    return device.type not in ("cpu", "mps", "meta")


@cache
def _kernel_is_installed() -> bool:
    return importlib.util.find_spec("mamba_ssm") is not None


def _kernel() -> _Scan:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn


@cache
def _kernel_fault(device: torch.device) -> str | None:
    """Compare the kernel with the reference, once per device; say what is wrong with it."""
    try:
        _kernel()
    except (ImportError, OSError, AttributeError) as error:
        return f"cannot be imported ({error})"
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_()

    batch, length, channels, states = 2, 37, 5, 3
    wide, narrow = (batch, length, channels), (batch, length, states)
    a = (-draw(channels, states).detach().exp()).requires_grad_()
    tensors = [draw(*wide), draw(*wide), a, draw(*narrow), draw(*narrow)]
    tensors += [draw(channels), draw(*wide), draw(channels)]
    with torch.inference_mode(False), torch.enable_grad():
        try:
            results = _value_and_gradients(_mamba_ssm, tensors)
        except RuntimeError as error:
            return f"failed its check ({error})"
        expected = _value_and_gradients(_reference, tensors)
    worst = max(
        ((one - other).abs().max() / other.abs().max()).item()
        for one, other in zip(results, expected, strict=True)
    )
    # A comparison that also holds for NaN.
    return None if worst < 1e-3 else f"differs from the reference by {worst:.1e} of its size"


def _value_and_gradients(scan: _Scan, tensors: list[Tensor]) -> list[Tensor]:
    y, state = scan(*tensors, True, None)
    return [y, state, *torch.autograd.grad(y.square().sum() + state.sum(), tensors)]


@cache
def _warn_once(fault: str) -> None:
    warn(
        f"selective_scan: the kernel of mamba-ssm {fault}; the slower chunked form is used. "
        f"Install a mamba-ssm that fits this torch, or remove it",
        BackendWarning,
    )
