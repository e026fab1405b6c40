"""State spaces whose matrix is a companion matrix, as convolutions over the tokens.

Letters: B batch, L tokens, E channels, K kernels, N numbers in a state.
"""

import torch
from torch import Tensor

from tsar.core.ops.diagonal_recurrence import long_convolution
from tsar.core.ops.even_products import linear_by_group
from tsar.params.constraints import check_choice

__all__ = ["BACKENDS", "companion_matrix", "companion_scan", "krylov", "read_state"]

BACKENDS = ("reference", "doubling")


def companion_matrix(last: Tensor) -> Tensor:
    """Build matrices that move a state on by one place and add its last number everywhere.

    Parameters
    ----------
    last : Tensor of shape (K, N)
        The last columns.

    Returns
    -------
    Tensor of shape (K, N, N)
        Ones below the diagonal, the last column beside them, 0 elsewhere.
    """
    size = last.shape[1]
    shift = torch.eye(size, size - 1, dtype=last.dtype, device=last.device).roll(1, dims=0)
    return torch.cat([shift.expand(len(last), -1, -1), last[..., None]], dim=2)


def krylov(matrix: Tensor, vector: Tensor, length: int, *, backend: str | None = None) -> Tensor:
    """Return a vector and what the powers of a matrix make of it.

    Parameters
    ----------
    matrix : Tensor of shape (K, N, N)
    vector : Tensor of shape (K, N)
    length : int
        Powers, from 0 on; at least 1.
    backend : {"doubling", "reference"}, optional
        Forces products with matrices that are squared each time, about ``2 log2(length)`` of
        them, or ``length`` products with a vector, one after the other.

    Returns
    -------
    Tensor of shape (K, N, length)

    Raises
    ------
    ParameterError
        If there is no such backend.

    References
    ----------
    Golub and Van Loan, "Matrix computations", section 10.1.
    """
    if backend is not None:
        check_choice("krylov", "backend", backend, BACKENDS)
    powers = vector[..., None]
    if backend == "reference":
        columns = [powers]
        for _ in range(length - 1):
            columns.append(matrix @ columns[-1])
        return torch.cat(columns, dim=2)
    while (width := powers.shape[2]) < length:
        # No fractions and no roots of unity: nothing here can come near a division by 0.
        powers = torch.cat([powers, matrix @ powers[..., : length - width]], dim=2)
        if 2 * width < length:
            matrix = matrix @ matrix
    return powers


def read_state(state: Tensor, readers: Tensor) -> Tensor:
    """Read numbers off the state of every channel by those of its kernel.

    Parameters
    ----------
    state : Tensor of shape (B, E, N)
        The kernels share the channels evenly, neighbours having the same.
    readers : Tensor of shape (K, N, M)

    Returns
    -------
    Tensor of shape (B, E, M)
    """
    batch, n_channels, _ = state.shape
    rows = state.unflatten(1, (len(readers), -1)).transpose(0, 1).flatten(1, 2)  # (K, B * E / K, N)
    read = linear_by_group(rows, readers, readers.new_zeros(len(readers), 1, readers.shape[2]))
    return read.unflatten(1, (batch, -1)).transpose(0, 1).reshape(batch, n_channels, -1)


def companion_scan(
    x: Tensor, matrix: Tensor, enter: Tensor, leave: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute ``h_t = A h_{t-1} + b x_t`` and ``y_t = c' h_t`` for any matrix A.

    Parameters
    ----------
    x : Tensor of shape (B, L, E)
        At least one token. The kernels share the channels evenly, neighbours having the same.
    matrix : Tensor of shape (K, N, N)
        The A above, such as of :func:`companion_matrix`.
    enter, leave : Tensor of shape (K, N)
        The b and the c above.
    state : Tensor of shape (B, E, N), optional
        ``h`` before the first token, zeros by default.

    Returns
    -------
    y : Tensor of shape (B, L, E)
    state : Tensor of shape (B, E, N)
        ``h`` after the last token, with single precision at least.

    References
    ----------
    Zhang et al., "Effectively modeling time series with simple discrete state spaces", ICLR 2023.
    """
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(x.dtype, torch.float32)
        wide, (matrix, enter, leave) = x.to(dtype), (p.to(dtype) for p in (matrix, enter, leave))
        length, per_kernel = x.shape[1], x.shape[2] // len(matrix)
        reach = krylov(matrix, enter, length)  # what a token adds to the state, later and later
        kernel = (leave[..., None] * reach).sum(dim=1)
        y = long_convolution(wide, kernel.repeat_interleave(per_kernel, dim=0))
        after = read_state(wide.flip(1).mT, reach.mT)
        if state is not None:
            seen = krylov(matrix.mT, leave, length + 1)[..., 1:]
            y = y + read_state(state, seen).mT
            after = after + read_state(state, torch.linalg.matrix_power(matrix, length).mT)
    return y.to(x.dtype), after
