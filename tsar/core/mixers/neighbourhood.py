"""Attention to the nearest tokens, of which every token has as many."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tsar.core import masks
from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.position import Rotary
from tsar.exceptions import ParameterError

__all__ = ["NeighbourhoodAttention"]


class NeighbourhoodAttention(Mixer):
    """Softmax attention from every token to the window of tokens around it.

    At a border the window is shifted and not cut, so that every token sees as many. Scores are
    formed of those pairs only: time and memory grow with the length.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    window : int, default 7
        Tokens along each axis.
    grid : sequence of int, optional
        Of rows and columns, if the tokens are those of an image, row by row; by default they are a
        sequence of any length.
    rotary : bool, default False
        Whether queries and keys are turned by their positions, along each axis of the grid.

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or the window is no positive odd number.

    References
    ----------
    Hassani et al., "Neighborhood attention transformer", CVPR 2023, section 3.1.
    """

    formula = "attention to the window around t"
    cost = "L window D"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        window: int = 7,
        grid: Sequence[int] | None = None,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        width = head_width("NeighbourhoodAttention", d_model, n_heads)
        if window < 1 or window % 2 == 0:
            raise ParameterError(
                f"NeighbourhoodAttention: window must be a positive odd number, so that a token is "
                f"in its middle, got {window}"
            )
        self.n_heads = n_heads
        self.window = window
        self.grid = None if grid is None else tuple(grid)
        self.scale = width**-0.5
        self.query_key_value = Linear(d_model, 3 * d_model)
        n_axes = 1 if grid is None else len(self.grid or ())
        self.rotary = Rotary(width, n_axes=n_axes) if rotary else None
        self.output = Linear(d_model, d_model)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, L, D); ``mask`` of shape (B, L).

        A token all of whose neighbours are masked looks at them evenly.

        Raises
        ------
        ParameterError
            If there are other tokens than on the grid, a mask says something of pairs of tokens,
            or there is a memory.
        """
        refuse_memory(self, memory)
        shape = (x.shape[1],) if self.grid is None else self.grid
        near = masks.neighbours(shape, self.window, device=x.device)  # (L, W)
        if len(near) != x.shape[1]:
            raise ParameterError(
                f"NeighbourhoodAttention: a grid of {' x '.join(map(str, shape))} has {len(near)} "
                f"tokens, got {x.shape[1]}"
            )
        check_token_mask(self, mask, x)
        query, key, value = split_heads(self.query_key_value(x), self.n_heads, 3)  # (B, N, L, E)
        if self.rotary is not None:
            places = _places(shape, x.device)
            query, key = self.rotary(query, places), self.rotary(key, places)
        scores = self.scale * torch.einsum("bnle,bnlwe->bnlw", query, _picked(key, near))
        if mask is not None:
            lowest = torch.finfo(scores.dtype).min / 2
            scores = scores.masked_fill(~mask[:, None, near], lowest)
        mixed = torch.einsum("bnlw,bnlwe->bnle", scores.softmax(dim=-1), _picked(value, near))
        return self.output(join_heads(mixed))


def _picked(heads: Tensor, near: Tensor) -> Tensor:
    """Pick the neighbours (B, N, L, W, E) of each token; the gradient of an index is far slower."""
    return heads.index_select(2, near.flatten()).unflatten(2, near.shape)


def _places(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return the positions of tokens, (L,) of a sequence and (L, axes) of a grid."""
    axes = [torch.arange(size, device=device) for size in shape]
    return axes[0] if len(axes) == 1 else torch.cartesian_prod(*axes)
