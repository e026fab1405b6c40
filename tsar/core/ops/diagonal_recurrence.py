"""State spaces whose modes do not change with the tokens, as convolutions by Fourier transforms.

Letters: B batch, L tokens, E channels, N modes of a channel.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["diagonal_convolution", "diagonal_recurrence", "long_convolution"]


def long_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve every channel with a kernel as long as the sequence, over past tokens only.

    Parameters
    ----------
    x : Tensor of shape (B, L, E)
    kernel : Tensor of shape (E, L)
        The first number belongs to the token itself.

    Returns
    -------
    Tensor of shape (B, L, E)
    """
    length = x.shape[1]
    # Twice as long, or the end would come around to the beginning.
    spectrum = torch.fft.rfft(x, 2 * length, dim=1) * torch.fft.rfft(kernel.T, 2 * length, dim=0)
    return torch.fft.irfft(spectrum, 2 * length, dim=1)[:, :length]


def diagonal_convolution(x: Tensor, rate: Tensor, weight: Tensor) -> Tensor:
    """Compute the ``y`` of :func:`diagonal_recurrence` from no state, and no state after it.

    The state costs its modes for each token, the convolution their logarithm at most.

    Parameters
    ----------
    x, rate, weight
        As there.

    Returns
    -------
    Tensor of shape (B, L, E)
    """
    with torch.autocast(x.device.type, enabled=False):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        kernel = _kernel(weight, *_powers(rate, x.shape[1]), x.shape[1])
        return long_convolution(wide, kernel).to(x.dtype)


def diagonal_recurrence(
    x: Tensor, rate: Tensor, weight: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute ``h_t = exp(rate) h_{t-1} + x_t`` and ``y_t = Re(sum over n of weight h_t)``.

    Parameters
    ----------
    x : Tensor of shape (B, L, E)
    rate : Tensor of shape (E, N), or (1, N) for the same modes in each channel
        Complex or real, with a real part of at most 0.
    weight : Tensor of shape (E, N)
        Complex where the rates are.
    state : Tensor of shape (B, E, N), optional
        ``h`` before the first token, zeros by default; complex where the rates are.

    Returns
    -------
    y : Tensor of shape (B, L, E)
    state : Tensor of shape (B, E, N)
        ``h`` after the last token, with single precision at least.

    References
    ----------
    Gupta et al., "Diagonal state spaces are as effective as structured state spaces", NeurIPS
    2022, section 3; Gu et al., "On the parameterization and initialization of diagonal state
    space models", NeurIPS 2022, section 3.
    """
    with torch.autocast(x.device.type, enabled=False):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        length = x.shape[1]
        if length == 1:
            added = wide[:, 0, :, None]
            state = added.to(rate.dtype) if state is None else state * rate.exp() + added
            state = state.expand(-1, -1, rate.shape[1])
            return _real((state * weight).sum(dim=-1))[:, None].to(x.dtype), state
        inner, outer = _powers(rate, length)
        count, size = outer.shape[1], inner.shape[2]
        y = long_convolution(wide, _kernel(weight, inner, outer, length))
        # The last token has been in a mode for no time, the one before it for one step.
        left = F.pad(wide.flip(1).mT, (0, count * size - length)).unflatten(2, (count, size))
        after = ((left.to(rate.dtype) @ inner.mT) * outer).sum(dim=2)
        if state is not None:
            entered = ((state * weight * rate.exp())[:, :, None] * outer) @ inner
            y = y + _real(entered).flatten(2)[:, :, :length].mT
            after = after + state * (rate * length).exp()
    return y.to(x.dtype), after


def _powers(rate: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return ``exp(rate t)`` (E, N, T) and ``exp(rate c T)`` (E, C, N), C T >= length.

    Powers of all tokens are products of the two: few exponentials, and nothing of tokens times
    modes is made.
    """
    size = 2 ** math.ceil(math.log2(length) / 2)
    count = -(-length // size)
    inner = _exp(rate[..., None] * torch.arange(size, device=rate.device))
    starts = size * torch.arange(count, device=rate.device)
    return inner, _exp(rate[:, None] * starts[:, None])


def _kernel(weight: Tensor, inner: Tensor, outer: Tensor, length: int) -> Tensor:
    """Return what a token leaves in the outputs of those after it, (E, length)."""
    return _real((weight[:, None] * outer) @ inner).flatten(1)[:, :length]


def _exp(x: Tensor) -> Tensor:
    if not x.is_complex():
        return x.exp()
    # Torch's own takes three times as long, and polar has no gradient of what has faded to 0.
    size = x.real.exp()
    return torch.complex(size * x.imag.cos(), size * x.imag.sin())


def _real(x: Tensor) -> Tensor:
    return x.real if x.is_complex() else x
