"""Whether tokens become alike with depth."""

from typing import Any

import torch
from torch import Tensor

from tsar.core.block import Encoder

__all__ = ["rank_residual", "residuals_by_depth"]


def rank_residual(x: Tensor) -> Tensor:
    """Return how far tokens are from being all the same, relative to their size.

    That is ``|x - mean| / |x|``, where ``|.|`` is the root of the product of the largest row sum
    and the largest column sum of absolute values, and the mean is over the tokens.

    Parameters
    ----------
    x : Tensor of shape (B, L, D)

    Returns
    -------
    Tensor of shape (B,)

    References
    ----------
    Dong, Cordonnier and Loukas, "Attention is not all you need: pure attention loses rank doubly
    exponentially with depth", ICML 2021, section 2.
    """
    return _size(x - x.mean(dim=1, keepdim=True)) / _size(x)


def _size(x: Tensor) -> Tensor:
    rows, columns = x.abs().sum(dim=2).amax(dim=1), x.abs().sum(dim=1).amax(dim=1)
    return (rows * columns).sqrt()


@torch.no_grad()
def residuals_by_depth(
    encoder: Encoder, x: Tensor, *, skips: bool = True, mlps: bool = True
) -> Tensor:
    """Return :func:`rank_residual` of tokens before the first block and after each of them.

    Parameters
    ----------
    encoder : Encoder
        In evaluation mode.
    x : Tensor of shape (B, L, D)
    skips : bool, default True
        Whether what a block is given is added to what its branches give.
    mlps : bool, default True
        Whether tokens also go through the feed-forward parts.

    Returns
    -------
    Tensor of shape (n_blocks + 1, B)
    """
    measured = [rank_residual(x)]
    block: Any
    for block in encoder.blocks:
        mixed = block.mixer(block.before_mixer(x))
        if skips and mlps:
            x = block.after_mixer(x, mixed)
        else:
            x = x + mixed if skips else mixed
            if mlps and block.mlp is not None:
                mapped = block.mlp(block.mlp_norm(x) if block.pre_norm else x)
                x = x + mapped if skips else mapped
        measured.append(rank_residual(x))
    return torch.stack(measured)
