"""A state space over variates and time, whose steps depend on what it reads.

Letters: B batch, V rows, T columns, D channels, N numbers in a state.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.ops.grid_scan import grid_scan

__all__ = ["GridStateSpace"]


class GridStateSpace(nn.Module):
    """Two coupled states per channel, one along the rows of a grid and one down its columns.

    In continuous time a state follows ``h' = A h + A tanh(w) g + B x``, where g is the other one.
    Over a step, in which g and x are held, it keeps ``exp(step A)`` of itself. A is negative, so
    that no state grows without bound. Steps, B and what is read of the states depend on the cell.

    Parameters
    ----------
    d_model : int
    d_state : int, default 8
        Numbers in each of the two states of a channel.
    smallest_step, largest_step : float, default 0.001 and 0.1
        Range of the first steps, evenly in their logarithm.

    Attributes
    ----------
    log_decay : nn.Parameter of shape (2, D, N)
        Of -A, along rows and down columns.
    coupling : nn.Parameter of shape (2, D, N)
        The w above; 0 at first, when both are state spaces by themselves.

    References
    ----------
    Behrouz et al., "Chimera: effectively modeling multivariate time series with 2-dimensional state
    space models", NeurIPS 2024. The coupling, which is 0 where w is and never more than a state
    itself gives, is not the paper's.
    """

    no_decay = ("log_decay", "coupling")

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 8,
        smallest_step: float = 1e-3,
        largest_step: float = 0.1,
    ) -> None:
        super().__init__()
        self.d_state = d_state
        decay = torch.arange(1, d_state + 1, dtype=torch.get_default_dtype())
        self.log_decay = nn.Parameter(decay.log().repeat(2, d_model, 1))
        self.coupling = nn.Parameter(torch.zeros(2, d_model, d_state))
        self.select = Linear(d_model, 4 * d_state, bias=False)
        self.step = Linear(d_model, 2 * d_model)
        low, high = math.log(smallest_step), math.log(largest_step)
        with torch.no_grad():
            first = torch.empty(2 * d_model).uniform_(low, high).exp()
            self.step.bias.copy_(first.expm1().log())  # the inverse of the softplus

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Mix cells (B, V, T, D).

        A cell that ``mask`` (B, V, T) says is not there adds nothing, and lets each state pass in
        its own direction.

        Returns
        -------
        Tensor of shape (B, V, T, D)
        """
        # Not in half precision, in which what stays would be rounded to 1.
        step = F.softplus(self.step(x).to(x.dtype)).unflatten(3, (2, -1)).movedim(3, 0)[..., None]
        if mask is not None:
            step = step * mask[..., None, None]
        chosen = self.select(x).to(x.dtype).unflatten(3, (4, 1, self.d_state)).movedim(3, 0)
        enter, leave = chosen.split(2)  # (2, B, V, T, 1, N) each
        decay = self.log_decay.exp()[:, None, None, None]
        stays = (-step * decay).exp()
        gone = -torch.expm1(-step * decay)
        crosses = gone * self.coupling.tanh()[:, None, None, None]
        added = gone / decay * enter * x[..., None]
        states = grid_scan(*(part.flatten(4) for part in (stays, crosses, added)))
        return (states.unflatten(4, (-1, self.d_state)) * leave).sum(dim=5).sum(dim=0)
