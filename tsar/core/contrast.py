"""Contrast of tokens with those of another view, or with others of the same sequence."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["hierarchical_contrast", "similarity_contrast", "token_contrast"]


def token_contrast(first: Tensor, second: Tensor) -> Tensor:
    """Return how badly tokens find themselves in another view of the same sequence.

    Each token of either view is told from all other tokens of both by its product with them: the
    cross-entropy of a softmax over these, the token at the same place of the other view being
    right.

    Parameters
    ----------
    first, second : Tensor of shape (B, L, D)

    Returns
    -------
    Tensor of shape (B,)
        The mean over the tokens of both views.

    References
    ----------
    Yue et al., "TS2Vec: towards universal representation of time series", AAAI 2022, eq. 1.
    """
    batch, length, _ = first.shape
    tokens = torch.cat([first, second], dim=1)
    itself = torch.eye(2 * length, dtype=torch.bool, device=tokens.device)
    scores = (tokens @ tokens.mT).masked_fill(itself, -torch.inf)
    places = torch.arange(2 * length, device=tokens.device).roll(length).repeat(batch)
    errors = F.cross_entropy(scores.flatten(0, 1), places, reduction="none")
    return errors.view(batch, 2 * length).mean(dim=1)


def hierarchical_contrast(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean of :func:`token_contrast` over halved lengths.

    At every level, the larger of two neighbours becomes one token, until one is left, where there
    is nothing to tell apart: that level counts as 0.

    Parameters
    ----------
    first, second : Tensor of shape (B, L, D)

    Returns
    -------
    Tensor of shape (B,)

    References
    ----------
    Yue et al., "TS2Vec: towards universal representation of time series", AAAI 2022, section 3.3.
    """
    total, n_levels = first.new_zeros(len(first)), 1
    while first.shape[1] > 1:
        total = total + token_contrast(first, second)
        first, second = (F.max_pool1d(part.mT, 2).mT for part in (first, second))
        n_levels += 1
    return total / n_levels


def similarity_contrast(
    tokens: Tensor, similarity: Tensor, readable: Tensor | None = None
) -> Tensor:
    """Return how badly tokens tell which token of their sequence they are most like.

    Each token is told from all others by its product with them: the cross-entropy of a softmax
    over these, the tokens of the largest similarity being right, times that similarity.

    Parameters
    ----------
    tokens : Tensor of shape (B, T, D)
    similarity : Tensor of shape (B, T, T)
        From 0 on; that of a token with itself is not read.
    readable : bool Tensor of shape (B, T), optional
        False for tokens that are no others to any token.

    Returns
    -------
    Tensor of shape (B, T)
        0 where there is no other token.
    """
    length = tokens.shape[1]
    others = ~torch.eye(length, dtype=torch.bool, device=tokens.device).expand(similarity.shape)
    if readable is not None:
        others = others & readable.unsqueeze(1)
    scores = (tokens @ tokens.mT).masked_fill(~others, torch.finfo(tokens.dtype).min)
    largest = similarity.masked_fill(~others, 0).amax(dim=2, keepdim=True)
    right = others & (similarity == largest)
    errors = torch.where(right, -scores.log_softmax(dim=2), 0).sum(dim=2)
    return largest.squeeze(2) * errors / right.sum(dim=2).clamp(min=1)
