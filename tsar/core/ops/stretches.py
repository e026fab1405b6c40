"""Means over equal stretches of tokens."""

import torch
from torch import Tensor

__all__ = ["stretch_means"]


def stretch_means(x: Tensor, n_stretches: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the weights that make means over equal stretches of tokens.

    Parameters
    ----------
    x : Tensor of shape (B, L, D)
        For its shape, dtype and device.
    n_stretches : int
        Where there are fewer tokens, each is a stretch by itself.
    mask : bool Tensor of shape (B, L), optional
        Means are over the tokens that are not masked.

    Returns
    -------
    mean : Tensor of shape (R, L), or (B, R, L) with a mask
    there : bool Tensor of shape (R,), or (B, R) with a mask
        Which stretches have any token.
    """
    length = x.shape[1]
    rank = min(n_stretches, length)
    stretch = torch.arange(length, device=x.device) * rank // length
    member = (stretch == torch.arange(rank, device=x.device)[:, None]).to(x.dtype)
    if mask is not None:
        member = member * mask[:, None].to(x.dtype)
    count = member.sum(dim=-1, keepdim=True)
    return member / count.clamp_min(1.0), count[..., 0] > 0
