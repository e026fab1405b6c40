"""A linear recurrence over a grid: two states that move along rows and down columns.

Letters: B batch, V rows, T columns, M numbers in each of the two states.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.params.constraints import check_choice

__all__ = ["BACKENDS", "grid_scan"]

BACKENDS = ("reference", "diagonals")


def grid_scan(
    stays: Tensor, crosses: Tensor, added: Tensor, *, backend: str | None = None
) -> Tensor:
    r"""Compute two states of every cell from those of the cells to its left and above it.

    .. math::
        h^1_{v,t} = a_{v,t} h^1_{v,t-1} + b_{v,t} h^2_{v,t-1} + x_{v,t}, \quad
        h^2_{v,t} = d_{v,t} h^2_{v-1,t} + c_{v,t} h^1_{v-1,t} + z_{v,t}

    The first state moves along a row and the second down a column; each takes something of the
    other where it comes from. Outside of the grid both are 0.

    Parameters
    ----------
    stays : Tensor of shape (2, B, V, T, M)
        The a and the d above.
    crosses : Tensor of shape (2, B, V, T, M)
        The b and the c above.
    added : Tensor of shape (2, B, V, T, M)
        The x and the z above.
    backend : {"diagonals", "reference"}, optional
        Forces V + T - 1 steps, each of all cells of a diagonal, or a step for each cell.

    Returns
    -------
    Tensor of shape (2, B, V, T, M)

    Raises
    ------
    ParameterError
        If there is no such backend.

    References
    ----------
    Behrouz et al., "Chimera: effectively modeling multivariate time series with 2-dimensional state
    space models", NeurIPS 2024. Which cells the crossing terms are of is settled here.
    """
    if backend is not None:
        check_choice("grid_scan", "backend", backend, BACKENDS)
    if backend == "reference":
        return _cell_by_cell(stays, crosses, added)
    n_rows, n_columns = stays.shape[2:4]
    # Row v is moved v places to the right: cells of a diagonal then stand in a column.
    parts = [_skew(part).unbind(3) for part in (stays, crosses, added)]
    state, states = torch.zeros_like(parts[2][0]), []
    for stay, cross, new in zip(*parts, strict=True):
        along, down = state.unbind(0)
        # The row above, with nothing above the first.
        above = F.pad(state, (0, 0, 1, -1))
        come = torch.stack([along, above[1]]), torch.stack([down, above[0]])
        state = stay * come[0] + cross * come[1] + new
        states.append(state)
    flat = F.pad(torch.stack(states, dim=3).flatten(2, 3), (0, 0, 0, n_rows))
    return flat.unflatten(2, (n_rows, -1))[:, :, :, :n_columns]


def _skew(x: Tensor) -> Tensor:
    """Move row v of (2, B, V, T, M) by v places: (2, B, V, V + T - 1, M), with zeros around."""
    n_rows, n_columns = x.shape[2:4]
    flat = F.pad(x, (0, 0, 0, n_rows)).flatten(2, 3)
    return flat[:, :, :-n_rows].unflatten(2, (n_rows, n_rows + n_columns - 1))


def _cell_by_cell(stays: Tensor, crosses: Tensor, added: Tensor) -> Tensor:
    """The formulas as they are written."""
    n_rows, n_columns = stays.shape[2:4]
    nothing = torch.zeros_like(added[0, :, 0, 0])
    cells: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for v in range(n_rows):
        for t in range(n_columns):
            left, above = (cells.get(at, (nothing, nothing)) for at in ((v, t - 1), (v - 1, t)))
            (a, d), (b, c), (x, z) = (part[:, :, v, t] for part in (stays, crosses, added))
            cells[v, t] = a * left[0] + b * left[1] + x, d * above[1] + c * above[0] + z
    rows = [
        torch.stack([torch.stack(cells[v, t]) for t in range(n_columns)], dim=2)
        for v in range(n_rows)
    ]
    return torch.stack(rows, dim=2)
