"""Auto-Correlation: the delays at which a series resembles itself, and the series summed there.

Letters: B batch, N heads (each with delays of its own), L queries, S keys, E size of a query or
key, V size of a value, K delays.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.tracing import is_traced
from tsar.exceptions import ParameterError
from tsar.params.constraints import check_choice

__all__ = ["BACKENDS", "auto_correlation", "n_delays", "pick_backend"]

BACKENDS = ("reference", "fft")


def n_delays(length: int, factor: float) -> int:
    """Return how many delays are taken: ``floor(factor * log(length))``, from 1 to ``length``."""
    return min(max(int(factor * math.log(length)), 1), length)


def auto_correlation(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    factor: float = 3.0,
    shared: bool = False,
    mask: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Sum values at the delays at which queries and keys agree best.

    The correlation at delay :math:`\tau`, with steps counted around the end,

    .. math:: R(\tau) = \sum_t q_{t + \tau} \cdot k_t ,

    is taken at its :math:`K = \lfloor c \log L \rfloor` largest places. A softmax turns these
    numbers into weights, and step :math:`t` of the result is :math:`\sum_i w_i v_{t + \tau_i}`.

    Parameters
    ----------
    query : Tensor of shape (B, L, N, E)
    key : Tensor of shape (B, S, N, E)
    value : Tensor of shape (B, S, N, V)
        Keys and values are cut after L steps, or filled up with zeros.
    factor : float, default 3.0
        The c above.
    shared : bool, default False
        Let all sequences take the delays of the largest mean over the batch, each with weights
        of its own; meant for training. Otherwise a sequence is mixed alike whatever else is in
        the batch.
    mask : bool Tensor of shape (B, S), optional
        True for steps that take part; keys and values of the others count as zero.
    scale : float, optional
        Factor of the correlation; ``1 / E`` by default, which is the mean over features.
    backend : {"fft", "reference"}, optional
        Forces the fast form in O(L log L), or the definition in O(L^2); :func:`pick_backend`
        chooses otherwise.

    Returns
    -------
    Tensor of shape (B, L, N, V)

    Raises
    ------
    ParameterError
        If the mask is not one of keys, or there is no such backend.

    References
    ----------
    Wu et al., "Autoformer: decomposition transformers with auto-correlation for long-term
    series forecasting", NeurIPS 2021, eqs. 5 to 8. As in the authors' code the correlation is
    not divided by L.
    """
    if backend is not None:
        check_choice("auto_correlation", "backend", backend, BACKENDS)
    if backend is None or is_traced():
        backend = pick_backend()
    if mask is not None and mask.shape != key.shape[:2]:
        raise ParameterError(
            f"auto_correlation: mask must have one entry per key, {tuple(key.shape[:2])}, got "
            f"{tuple(mask.shape)}; delays move whole sequences, so pairs cannot be masked"
        )
    dtype, length = value.dtype, query.shape[1]
    # There is no Fourier transform in half precision.
    query = query.to(torch.promote_types(query.dtype, torch.float32))
    key, value = (_fit(part.to(query.dtype), mask, length) for part in (key, value))
    mix = _by_definition if backend == "reference" else _by_fourier_transform
    scale = 1 / query.shape[3] if scale is None else scale
    return mix(query, key, value, n_delays(length, factor), shared, scale).to(dtype)


def pick_backend() -> str:
    """Choose a form, the only place where that is decided: the fast one, except to be traced."""
    return "reference" if is_traced() else "fft"


def _fit(x: Tensor, mask: Tensor | None, length: int) -> Tensor:
    """Zero what is masked, and bring (B, S, N, E) to (B, L, N, E)."""
    if mask is not None:
        x = x * mask[:, :, None, None]
    missing = length - x.shape[1]
    return F.pad(x, (0, 0, 0, 0, 0, missing)) if missing > 0 else x[:, :length]


def _choose(correlation: Tensor, n_delays: int, shared: bool) -> Tensor:
    """Return the best delays (B, N, K) of a correlation (B, N, L)."""
    ranked = correlation.mean(dim=0, keepdim=True) if shared else correlation
    return ranked.topk(n_delays).indices.expand(correlation.shape[0], -1, -1)


def _by_definition(
    query: Tensor, key: Tensor, value: Tensor, n_delays: int, shared: bool, scale: float
) -> Tensor:
    """The formulas as they are written."""
    length = query.shape[1]
    products = [(query.roll(-delay, dims=1) * key).sum(dim=(1, 3)) for delay in range(length)]
    correlation = torch.stack(products, dim=2)  # (B, N, L)
    delays = _choose(correlation, n_delays, shared)
    weights = (scale * correlation.gather(2, delays)).softmax(dim=2)
    steps = torch.arange(length, device=value.device)[:, None, None]
    rolled = [
        value.gather(1, ((steps + delay[:, None, :, None]) % length).expand_as(value))
        * weight[:, None]
        for delay, weight in zip(delays.unbind(2), weights.split(1, dim=2), strict=True)
    ]
    return torch.stack(rolled).sum(dim=0)


def _by_fourier_transform(
    query: Tensor, key: Tensor, value: Tensor, n_delays: int, shared: bool, scale: float
) -> Tensor:
    """The correlation through the frequency domain, the rolled sum as one pass of look-ups."""
    with torch.no_grad():
        correlation = _correlate(query, key)
        delays = _choose(correlation, n_delays, shared)
    scores: Tensor = _CorrelationAt.apply(query, key, delays, correlation)
    out: Tensor = _RolledSum.apply(value, (scale * scores).softmax(dim=2), delays)
    return out


def _correlate(query: Tensor, key: Tensor) -> Tensor:
    """Correlation at every delay, summed over time and features: (B, N, L).

    The features are summed before the way back from the frequency domain, which is then taken
    once per head and not once per feature. Products and sums are of real numbers and two at a
    time: complex products and sums over an axis round by how large the batch is.
    """
    first = torch.view_as_real(torch.fft.rfft(query.movedim(1, 3)))  # (B, N, E, frequencies, 2)
    second = torch.fft.rfft(key.movedim(1, 3))
    real, imaginary = (
        _feature_sum(first * torch.view_as_real(part)) for part in (second, 1j * second)
    )
    length = query.shape[1]
    # Divided here: in the transform itself that rounds by the number of threads.
    return torch.fft.irfft(torch.complex(real, imaginary), n=length, norm="forward") / length


def _feature_sum(pairs: Tensor) -> Tensor:
    """Sum (B, N, E, frequencies, 2) over features and pairs, halving the features each time."""
    while (n_features := pairs.shape[2]) > 1:
        half = n_features // 2
        low, high, rest = pairs.split([half, half, n_features % 2], dim=2)
        pairs = low + high
        if n_features % 2:
            pairs[:, :, :1] += rest
    return pairs[:, :, 0, :, 0] + pairs[:, :, 0, :, 1]


def _rolled_sum(value: Tensor, weights: Tensor, delays: Tensor) -> Tensor:
    """Sum (B, L, N, V) rolled back by delays (B, N, K), times weights of that shape."""
    batch, length, heads, width = value.shape
    # Where each step of each head stands in a table of (batch, step, head): small integers.
    place = torch.arange(batch * length * heads, dtype=torch.int32, device=value.device)
    place = place.view(batch, length, heads)
    step = place[0, :, 0, None, None] // heads
    rows = place[:, :1, :, None] + (step + delays[:, None].int()) % length * heads  # (B, L, N, K)
    n_delays = delays.shape[2]
    summed = F.embedding_bag(
        rows.view(-1, n_delays),
        value.reshape(-1, width),
        mode="sum",
        per_sample_weights=weights[:, None].expand(rows.shape).reshape(-1, n_delays),
    )
    return summed.view(value.shape)


class _CorrelationAt(torch.autograd.Function):
    """The correlation at some delays; its gradients are sums rolled by these delays."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, delays: Tensor, correlation: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(query, key, delays)
        if correlation is None:
            correlation = _correlate(query, key)
        return correlation.gather(2, delays % query.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, delays = ctx.saved_tensors
        grad_query = _RolledSum.apply(key, grad, -delays)
        return grad_query, _RolledSum.apply(query, grad, delays), None, None


class _RolledSum(torch.autograd.Function):
    """The rolled sum; the gradient of its weights is a correlation at the delays."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, weights: Tensor, delays: Tensor) -> Tensor:
        ctx.save_for_backward(value, weights, delays)
        return _rolled_sum(value, weights, delays)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, weights, delays = ctx.saved_tensors
        grad_value = _RolledSum.apply(grad, weights, -delays)
        return grad_value, _CorrelationAt.apply(value, grad, delays, None), None
