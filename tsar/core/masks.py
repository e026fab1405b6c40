"""Which tokens may attend to which: the rules that all families share.

Masks are True where a query (an axis before the last) may attend to a key (the last axis).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tsar.exceptions import ParameterError

__all__ = ["block_diffusion", "neighbours", "same", "visible", "window"]


def visible(query_levels: Tensor, key_levels: Tensor | None = None) -> Tensor:
    """Let every token see those of its own level and of lower ones.

    The one rule of order of all generative models here: the tokens of a level are drawn in one
    pass, and what a pass is given at a level is made of tokens of lower levels only. Text has a
    level for each token, a pyramid of images one for each size, a masked model one for each pass.

    Parameters
    ----------
    query_levels : int Tensor of shape (..., L)
    key_levels : int Tensor of shape (..., S), optional
        Those of the queries by default.

    Returns
    -------
    bool Tensor of shape (..., L, S)
    """
    key_levels = query_levels if key_levels is None else key_levels
    return key_levels[..., None, :] <= query_levels[..., :, None]


def same(levels: Tensor) -> Tensor:
    """Let every token see those of its own level and no other.

    What a level has to know of lower ones then reaches it another way, such as a recurrence over
    all tokens, or it is a sequence by itself.

    Parameters
    ----------
    levels : int Tensor of shape (..., L)

    Returns
    -------
    bool Tensor of shape (..., L, L)
    """
    return levels[..., None, :] == levels[..., :, None]


def window(
    query_positions: Tensor,
    key_positions: Tensor,
    size: int | None = None,
    *,
    sinks: int = 0,
    causal: bool = True,
) -> Tensor:
    """Let every token see those near it, and the first ones.

    Parameters
    ----------
    query_positions : int Tensor of shape (..., L)
    key_positions : int Tensor of shape (..., S)
    size : int, optional
        A token sees those less than this many positions away, itself being one; by default all.
    sinks : int, default 0
        The first positions, which are seen from everywhere.
    causal : bool, default True
        Whether a token sees no later one.

    Returns
    -------
    bool Tensor of shape (..., L, S)

    References
    ----------
    Beltagy et al., "Longformer: the long-document transformer", arXiv:2004.05150, section 3.1;
    Xiao et al., "Efficient streaming language models with attention sinks", ICLR 2024.
    """
    query_positions, key_positions = query_positions[..., :, None], key_positions[..., None, :]
    distance = query_positions - key_positions
    seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if size is None:
        return seen
    return seen & ((distance.abs() < size) | (key_positions < sinks))


def neighbours(shape: Sequence[int], size: int, *, device: torch.device | None = None) -> Tensor:
    """Return which tokens are near each token of a grid.

    Parameters
    ----------
    shape : sequence of int
        Of the grid: (L,) of a sequence, (rows, columns) of an image, laid out row by row.
    size : int
        Tokens along each axis, or all where the grid has fewer. At a border the window is shifted
        inwards, so that it is as large everywhere.
    device : torch.device, optional

    Returns
    -------
    int64 Tensor of shape (L, size ** axes)

    References
    ----------
    Hassani et al., "Neighborhood attention transformer", CVPR 2023, section 3.1.
    """
    near = torch.zeros(1, 1, dtype=torch.int64, device=device)
    for n_places in shape:
        width = min(size, n_places)
        first = torch.arange(n_places, device=device) - width // 2
        along = first.clamp(0, n_places - width)[:, None] + torch.arange(width, device=device)
        # Every token of the axes so far is cut into as many as this axis has.
        near = (near[:, None, :, None] * n_places + along[:, None]).flatten(2).flatten(0, 1)
    return near


def block_diffusion(
    n_tokens: int, block_size: int, *, device: torch.device | None = None
) -> Tensor:
    """Let noisy blocks of tokens see the clean blocks before them, all in one pass.

    The tokens of a pass are a noisy copy of a sequence and the sequence itself behind it. A noisy
    token sees its own noisy block and the clean blocks before; a clean one its own clean block
    and those before.

    Parameters
    ----------
    n_tokens : int
        L, of the sequence.
    block_size : int
        The last block may be shorter.
    device : torch.device, optional

    Returns
    -------
    bool Tensor of shape (2 L, 2 L)

    References
    ----------
    Arriola et al., "Block diffusion: interpolating between autoregressive and diffusion language
    models", ICLR 2025, section 3.2 and appendix B.6.
    """
    if block_size < 1:
        raise ParameterError(f"block_diffusion: block_size must be at least 1, got {block_size}")
    block = torch.arange(n_tokens, device=device) // block_size
    same, clean = block[:, None] == block, visible(block)
    top = torch.cat([same, clean & ~same], dim=1)
    return torch.cat([top, torch.cat([torch.zeros_like(same), clean], dim=1)])
