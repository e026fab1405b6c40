"""Split series into a moving average and what is left."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.tracing import is_traced

__all__ = ["WIDEST", "Remainder", "SeriesDecomposition", "moving_average"]

# A moving average takes memory for its padding, however short the series is.
WIDEST = 10_001


def moving_average(x: Tensor, kernel: int) -> Tensor:
    """Centred moving average along time, both ends padded with the edge value.

    Parameters
    ----------
    x : Tensor of shape (B, L, C)
    kernel : int
        Odd number of steps to average.

    Returns
    -------
    Tensor of shape (B, L, C)
    """
    if is_traced():
        return _average(x, kernel)
    average: Tensor = _MovingAverage.apply(x, kernel)
    return average


def _average(x: Tensor, kernel: int) -> Tensor:
    half = kernel // 2
    edges = x[:, :1].expand(-1, half, -1), x[:, -1:].expand(-1, half, -1)
    return _sliding_sum(torch.cat([edges[0], x, edges[1]], dim=1), kernel) / kernel


def _sliding_sum(x: Tensor, width: int) -> Tensor:
    """Sum every ``width`` consecutive steps: (B, L, C) to (B, L - width + 1, C).

    Sums of 1, 2, 4, 8, ... steps are made one from the other, and those that the binary digits
    of the width name are laid end to end: a few passes over whole tensors for any width.
    """
    n_steps = x.shape[1] - width + 1
    total, begin, size = None, 0, 1
    while True:
        if width & size:
            part = x[:, begin : begin + n_steps]
            total = part if total is None else total + part
            begin += size
        if begin == width:
            assert total is not None
            return total
        x = x[:, :-size] + x[:, size:]
        size *= 2


class _MovingAverage(torch.autograd.Function):
    """The gradient of a sliding sum is a sliding sum as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int) -> Tensor:
        ctx.kernel = kernel
        return _average(x, kernel)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        half, length = ctx.kernel // 2, grad.shape[1]
        around = F.pad(grad / ctx.kernel, (0, 0, 2 * half, 2 * half))
        padded = _sliding_sum(around, ctx.kernel)  # (B, L + 2 * half, C)
        # The edge values stand for themselves and for the padding beside them.
        padded[:, half] += padded[:, :half].sum(dim=1)
        padded[:, half + length - 1] += padded[:, half + length :].sum(dim=1)
        return padded[:, half : half + length], None


class SeriesDecomposition(nn.Module):
    """Trend (moving average) and remainder of a series.

    Parameters
    ----------
    kernel : int, default 25
        Odd width of the moving average.

    References
    ----------
    Wu et al., "Autoformer", NeurIPS 2021, eq. 1; Zeng et al., "Are
    transformers effective for time series forecasting?", AAAI 2023.
    """

    def __init__(self, kernel: int = 25) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (remainder, trend) of a tensor (B, L, C); they sum to it."""
        trend = moving_average(x, self.kernel)
        return x - trend, trend


class Remainder(nn.Module):
    """What a decomposition leaves of a series; it can stand where a norm does in a block.

    Parameters
    ----------
    kernel : int, default 25
        Odd width of the moving average.
    """

    def __init__(self, kernel: int = 25) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """Take the trend out of a tensor (B, L, C)."""
        return x - moving_average(x, self.kernel)
