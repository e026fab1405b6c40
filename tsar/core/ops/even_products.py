"""Linear maps that round every row alike, wherever it stands and whatever stands beside it.

A BLAS has kernels for few rows, for the last rows of a matrix and for columns that fill no vector,
and each adds up in an order of its own. So the same window would be forecast with other last digits
in a batch of another size, or in another place of it. Matrices that are filled up with zeros to
whole tiles go through one kernel; what is filled up is cut off again. Training does without: its
batches have one size, and speed counts.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.tracing import is_traced

__all__ = ["linear", "linear_by_group"]

# Rows and columns of a tile. Sixteen numbers of four bytes fill the longest vector and a line of
# the cache, so that every row begins on one. Eight rows are not enough: on processors with AVX-512
# they have a kernel of their own.
TILE = 16


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
    n_rows, more_inputs, more_outputs = len(rows), -n_inputs % TILE, -n_outputs % TILE
    rows = _filled(rows, -n_rows % TILE, more_inputs)
    weight = _filled(weight, more_outputs, more_inputs)
    if bias is not None and more_outputs:
        bias = F.pad(bias, (0, more_outputs))
    mapped = F.linear(rows, weight, bias)[:n_rows, :n_outputs]
    return mapped.contiguous().view(*x.shape[:-1], n_outputs)


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
    _, n_rows, n_inputs = x.shape
    n_outputs = weight.shape[2]
    more_inputs, more_outputs = -n_inputs % TILE, -n_outputs % TILE
    rows = _filled(x, -n_rows % TILE, more_inputs)
    weight, bias = _filled(weight, more_inputs, more_outputs), _filled(bias, 0, more_outputs)
    return torch.baddbmm(bias, rows, weight)[:, :n_rows, :n_outputs].contiguous()


def _evens_out(x: Tensor) -> bool:
    return torch.is_inference_mode_enabled() and x.device.type == "cpu" and not is_traced()


def _filled(matrix: Tensor, more_rows: int, more_columns: int) -> Tensor:
    if not (more_rows or more_columns):
        return matrix
    return F.pad(matrix, (0, more_columns, 0, more_rows))
