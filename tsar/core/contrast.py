"""Contrast of tokens with those of another view, or with others of the same sequence."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "hierarchical_contrast",
    "instance_contrast",
    "mean_discrepancy",
    "neighbour_contrast",
    "similarity_contrast",
    "token_contrast",
]


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
    scores = tokens @ tokens.mT
    scores = scores.masked_fill(~others, torch.finfo(scores.dtype).min)
    largest = similarity.masked_fill(~others, 0).amax(dim=2, keepdim=True)
    right = others & (similarity == largest)
    errors = torch.where(right, -scores.log_softmax(dim=2), 0).sum(dim=2)
    return largest.squeeze(2) * errors / right.sum(dim=2).clamp(min=1)


def instance_contrast(first: Tensor, second: Tensor) -> Tensor:
    """Return how badly vectors find themselves among those of another view.

    Each vector of the first view is told from all of the second by its product with them, both of
    unit length: the cross-entropy of a softmax over these, that at the same place being right.

    Parameters
    ----------
    first, second : Tensor of shape (B, D)

    Returns
    -------
    Tensor of shape (B,)

    References
    ----------
    van den Oord et al., "Representation learning with contrastive predictive coding",
    arXiv:1807.03748, eq. 4.
    """
    scores = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T
    return F.cross_entropy(scores, torch.arange(len(first), device=first.device), reduction="none")


def neighbour_contrast(parts: Tensor) -> Tensor:
    """Return how badly parts of a sequence tell the part that follows from those further away.

    Each part is told from all but its neighbours by its product with them; right is the part
    after it, for the last one the part before.

    Parameters
    ----------
    parts : Tensor of shape (B, K, D)

    Returns
    -------
    Tensor of shape (B,)
        The mean over the parts.
    """
    n_parts = parts.shape[1]
    places = torch.arange(n_parts, device=parts.device)
    right = torch.cat([places[1:], places[-2:-1] if n_parts > 1 else places])
    near = (places[:, None] - places).abs() <= 1
    readable = ~near | (places == right[:, None])
    scores = (parts @ parts.mT).masked_fill(~readable, -torch.inf)
    errors = F.cross_entropy(scores.flatten(0, 1), right.repeat(len(parts)), reduction="none")
    return errors.view(len(parts), n_parts).mean(dim=1)


def mean_discrepancy(first: Tensor, second: Tensor) -> Tensor:
    """Return how far two samples are from being of one distribution (maximum mean discrepancy).

    The kernels are Gaussian, of five widths, each twice that of the one before, with the mean
    squared distance of all pairs in the middle.

    Parameters
    ----------
    first, second : Tensor of shape (B, D)

    Returns
    -------
    Tensor of shape ()
        0 where both are the same.

    References
    ----------
    Gretton et al., "A kernel two-sample test", JMLR 2012, eq. 5.
    """
    n_first = len(first)
    both = torch.cat([first, second])
    squares = both.square().sum(dim=1)
    distances = (squares[:, None] + squares - 2 * both @ both.T).clamp(min=0)
    width = distances.detach().sum() / max(len(both) ** 2 - len(both), 1)
    widths = width.clamp(min=torch.finfo(both.dtype).tiny) * 2.0 ** torch.arange(
        -2, 3, device=both.device
    )
    kernel = torch.exp(-distances / widths[:, None, None]).sum(dim=0)
    within = kernel[:n_first, :n_first].mean() + kernel[n_first:, n_first:].mean()
    return within - 2 * kernel[:n_first, n_first:].mean()
