"""Linear maps that round every row alike, wherever it stands and whatever stands beside it.

A BLAS has kernels for few rows, for the last rows of a matrix and for columns that fill no vector,
and each adds up in an order of its own. So the same window would be forecast with other last digits
in a batch of another size, or in another place of it. Matrices that are filled up to whole
tiles go through one kernel; what is filled up is cut off again. Training does without: its
batches have one size, and speed counts.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.tracing import is_traced

__all__ = ["ROWS_AT_ONCE", "convolution", "linear", "linear_by_group"]

# What else than linear maps depends on the number of windows is given batches of a multiple of this
# many: products of few rows run through kernels that round otherwise.
ROWS_AT_ONCE = 8

# Rows of a tile. Eight are not enough: on processors with AVX-512 they have a kernel of their own.
TILE = 16
# Columns whose number is a multiple of this many fill the vectors of every processor, or leave the
# same rest in every row; others are filled up to a whole tile, where every row begins on a line of
# the cache.
VECTOR = 4


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x weight' + bias``, as ``torch.nn.functional.linear``.

    Parameters
    ----------
    x : Tensor of shape (..., K)
    weight : Tensor of shape (N, K)
    bias : Tensor of shape (N,), optional

    Returns
    -------
    Tensor of shape (..., N)
        Each row the same to the bit whatever the others are, where forecasts are made on a CPU.
    """
    if not _evens_out(x):
        return F.linear(x, weight, bias)
    n_outputs, n_inputs = weight.shape
    rows = x.reshape(-1, n_inputs)
    n_rows, shape = len(rows), (*x.shape[:-1], n_outputs)
    more_inputs, more_outputs = _rest(n_inputs), _rest(n_outputs)
    if n_rows % TILE:
        rows = torch.cat([rows, rows[-1:].expand(-n_rows % TILE, -1)])
    if not (more_inputs or more_outputs):
        return F.linear(rows, weight, bias)[:n_rows].view(shape)
    if bias is not None:
        bias = F.pad(bias, (0, more_outputs))
    rows, weight = F.pad(rows, (0, more_inputs)), F.pad(weight, (0, more_inputs, 0, more_outputs))
    return F.linear(rows, weight, bias)[:n_rows, :n_outputs].contiguous().view(shape)


def linear_by_group(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x weight + bias`` with a map of its own for every group, as ``torch.baddbmm``.

    Parameters
    ----------
    x : Tensor of shape (G, M, K)
    weight : Tensor of shape (G, K, N)
    bias : Tensor of shape (G, 1, N)

    Returns
    -------
    Tensor of shape (G, M, N)
        Each row the same to the bit whatever the others are, where forecasts are made on a CPU.
    """
    if not _evens_out(x):
        return torch.baddbmm(bias, x, weight)
    n_rows, n_outputs = x.shape[1], weight.shape[2]
    more_inputs, more_outputs = -x.shape[2] % TILE, -n_outputs % TILE
    x = F.pad(x, (0, more_inputs, 0, -n_rows % TILE))
    weight = F.pad(weight, (0, more_outputs, 0, more_inputs))
    mapped = torch.baddbmm(F.pad(bias, (0, more_outputs)), x, weight)
    return mapped[:, :n_rows, :n_outputs].contiguous()


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """Convolve each step with those at a distance on either side, 0 beyond the ends.

    Parameters
    ----------
    x : Tensor of shape (B, L, K)
    weight : Tensor of shape (N, K, 3)
    bias : Tensor of shape (N,), optional
    dilation : int, default 1
        How far the other two steps are.

    Returns
    -------
    Tensor of shape (B, L, N)
        As :func:`linear`, a row being a step.
    """
    if not _evens_out(x):
        convolved = F.conv1d(x.mT, weight, bias, padding=dilation, dilation=dilation)
        return convolved.mT
    length = x.shape[1]
    padded = F.pad(x, (0, 0, dilation, dilation))
    beside = [padded[:, begin : begin + length] for begin in (0, dilation, 2 * dilation)]
    return linear(torch.cat(beside, dim=2), weight.transpose(1, 2).flatten(1), bias)


def _evens_out(x: Tensor) -> bool:
    # Asked first: a compiler cannot look at the mode.
    return not is_traced() and torch.is_inference_mode_enabled() and x.device.type == "cpu"


def _rest(n_columns: int) -> int:
    return -n_columns % TILE if n_columns % VECTOR else 0
