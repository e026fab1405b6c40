"""Positions of tokens: added to their embeddings, turned into queries and keys, or into scores."""

import math

import torch
from torch import Tensor, nn

from tsar.core.tracing import is_traced
from tsar.exceptions import ParameterError

__all__ = ["LearnedPosition", "RelativeBias", "Rotary", "SinusoidalPosition"]


class LearnedPosition(nn.Module):
    """One trained vector per position, drawn uniformly from +-0.02 at first.

    Parameters
    ----------
    length : int
        Number of positions.
    d_model : int
    """

    no_decay = ("weight",)

    def __init__(self, length: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, d_model).uniform_(-0.02, 0.02))

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Add the positions from ``start`` on to tokens (B, P, D), up to ``length`` of them."""
        return x + self.weight[start : start + x.shape[1]]


class SinusoidalPosition(nn.Module):
    """Fixed sines and cosines of geometrically growing period.

    Parameters
    ----------
    length : int
        Number of positions.
    d_model : int

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.5.
    """

    weight: Tensor

    def __init__(self, length: int, d_model: int) -> None:
        super().__init__()
        position = torch.arange(length, dtype=torch.float64)[:, None]
        even = torch.arange(0, d_model, 2, dtype=torch.float64)
        angle = position * torch.exp(-math.log(10000.0) * even / d_model)
        weight = torch.empty(length, d_model, dtype=torch.float64)
        weight[:, 0::2] = angle.sin()
        weight[:, 1::2] = angle.cos()[:, : d_model // 2]
        self.register_buffer("weight", weight.to(torch.get_default_dtype()), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Add the positions from ``start`` on to tokens (B, P, D), up to ``length`` of them."""
        return x + self.weight[start : start + x.shape[1]]


class Rotary(nn.Module):
    """Turn queries and keys by angles that grow with their position.

    Feature ``i`` and the one half the width behind it are the two coordinates of a point, which is
    turned by ``position * base ** (-2 i / width)``. So the product of a query with a key depends
    on how far apart they are and not on where they are. There are no weights and no longest
    sequence.

    Parameters
    ----------
    width : int
        Of a query or key.
    n_axes : int, default 1
        Of a position. With several (rows and columns, say) the features are cut into as many
        parts, and each is turned by one coordinate.
    base : float, default 10000.0

    Raises
    ------
    ParameterError
        If the width is no multiple of twice the number of axes.

    References
    ----------
    Su et al., "RoFormer: enhanced transformer with rotary position embedding", Neurocomputing
    568, 2024, section 3.2, with the halves paired rather than neighbours.
    """

    def __init__(self, width: int, *, n_axes: int = 1, base: float = 10_000.0) -> None:
        super().__init__()
        if width % (2 * n_axes):
            raise ParameterError(
                f"Rotary: the width of a head must be a multiple of {2 * n_axes}, got {width}; "
                f"change d_model or n_heads"
            )
        self.width = width
        self.n_axes = n_axes
        self.base = base
        self._table: Tensor | None = None

    def forward(self, x: Tensor, positions: Tensor | range) -> Tensor:
        """Turn queries or keys.

        Parameters
        ----------
        x : Tensor of shape (..., L, E)
        positions : Tensor of shape (..., L), or (..., L, n_axes) with several axes
            Leading axes are broadcast against those of ``x``. A range of consecutive positions
            (of one axis) is looked up in a table, which is faster.

        Returns
        -------
        Tensor of shape (..., L, E)
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        if isinstance(positions, range):
            factors = self._looked_up(positions, x.device, dtype)
        else:
            factors = self._factors(positions).to(x.device, dtype)
        cos, sin = factors.unbind(-2)
        wide = x.to(dtype)
        swapped = wide.unflatten(-1, (self.n_axes, 2, -1)).flip(-2).flatten(-3)
        return torch.addcmul(wide * cos, swapped, sin).to(x.dtype)

    def _factors(self, positions: Tensor) -> Tensor:
        """Factors (..., L, 2, E) of each feature, and of the one that it is paired with."""
        half = self.width // self.n_axes // 2
        # Angles are computed in double precision, on the CPU since not every device has it: in
        # single precision those of the thousandth token are wrong in the fourth digit.
        frequency = self.base ** (-torch.arange(half, dtype=torch.float64) / half)
        place = positions.to("cpu", torch.float64)
        if self.n_axes == 1:
            place = place[..., None]
        angle = place[..., None] * frequency  # (..., L, n_axes, half)
        cos, sin = angle.cos(), angle.sin()
        pairs = torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)
        return torch.stack([part.flatten(-2) for part in pairs], dim=-2)

    def _looked_up(self, positions: range, device: torch.device, dtype: torch.dtype) -> Tensor:
        start, stop = positions.start, positions.stop
        if is_traced():
            return self._factors(torch.arange(start, stop)).to(device, dtype)
        table = self._table
        if table is None or len(table) < stop or table.dtype != dtype or table.device != device:
            # What is made inside of inference mode could not be used for gradients later.
            with torch.inference_mode(False):
                table = self._factors(torch.arange(max(2 * stop, 64))).to(device, dtype)
            self._table = table
        return table[start:stop]

    def extra_repr(self) -> str:
        return f"{self.width}, n_axes={self.n_axes}, base={self.base}"


class RelativeBias(nn.Module):
    """One trained number per head and distance, to be added to scores.

    Parameters
    ----------
    n_heads : int
    max_distance : int
        Tokens farther apart have the number of those that are as far apart as this.

    References
    ----------
    Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text
    transformer", JMLR 21, 2020, section 2.1; without joining distances in buckets.
    """

    no_decay = ("weight",)

    def __init__(self, n_heads: int, max_distance: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.weight = nn.Parameter(torch.empty(n_heads, 2 * max_distance + 1))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """Return (N, L, S) numbers for queries at positions (L,) and keys at positions (S,)."""
        distance = query_positions[:, None] - key_positions
        clipped = distance.clamp(-self.max_distance, self.max_distance)
        return self.weight[:, clipped + self.max_distance]
