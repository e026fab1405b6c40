"""Select about so many of some scores, softly: the projection that SparseK attention rests on."""

import torch
from torch import Tensor

__all__ = ["select_softly"]


def select_softly(scores: Tensor, n_selected: int) -> Tensor:
    """Project scores on ``{m: 0 <= m <= 1, sum m = n_selected}``: ``m = clip(scores - tau, 0, 1)``.

    The largest scores become 1, the smallest 0, and those between pass gradients, which are made
    to sum to 0 since the sum of all cannot change.

    Parameters
    ----------
    scores : Tensor of shape (..., S)
        Minus infinity stands for a score that is not there.
    n_selected : int
        Where there are no more scores than this, all of them become 1.

    Returns
    -------
    Tensor of shape (..., S)

    References
    ----------
    Lou et al., "Sparser is faster and less is more: efficient sparse attention for long-range
    transformers", arXiv:2406.16747, section 3.2, eqs. 3 to 6.
    """
    there = scores > -torch.inf
    with torch.no_grad():
        enough = there.sum(dim=-1, keepdim=True) > n_selected
        # So far below that what is not there is never reached.
        floor = scores.masked_fill(~there, torch.inf).amin(dim=-1, keepdim=True) - 3
        low = torch.where(there, scores, floor.masked_fill(floor == torch.inf, 0.0))
        # The sum falls linearly between the places where a score enters or is full.
        places = torch.cat([low, low - 1], dim=-1).sort(dim=-1).values
        ordered = low.sort(dim=-1).values
        sums = _excess(ordered, places) - _excess(ordered - 1, places)
        last = ((sums >= n_selected).sum(dim=-1, keepdim=True) - 1).clamp_min(0)
        # The sum is 0 at the last place, so that there is always one behind.
        sum_at, at = sums.gather(-1, last), places.gather(-1, last)
        sum_behind, behind = sums.gather(-1, last + 1), places.gather(-1, last + 1)
        fall = (sum_at - sum_behind).clamp_min(torch.finfo(scores.dtype).tiny)
        tau = at + (behind - at) * ((sum_at - n_selected) / fall).clamp(0, 1)
        full = low >= tau + 1
        between = (low > tau) & ~full
        n_between = between.sum(dim=-1, keepdim=True).clamp_min(1)
    # The same number once more, as a function of the scores that it depends on. What is full or
    # left out passes no gradient, which a clip would do at its very ends.
    low = torch.where(there, scores, low)
    sum_between = low.masked_fill(~between, 0.0).sum(dim=-1, keepdim=True)
    tau = (sum_between + full.sum(dim=-1, keepdim=True) - n_selected) / n_between
    soft = torch.where(between, low - tau, full.to(low.dtype))
    return torch.where(enough, soft, there.to(low.dtype))


def _excess(ordered: Tensor, places: Tensor) -> Tensor:
    """Return by how much the numbers above each place are above it, in sum.

    ``ordered`` (..., S) ascend; ``places`` (..., R).
    """
    size = ordered.shape[-1]
    n_below = torch.searchsorted(ordered, places, right=True)
    so_far = torch.nn.functional.pad(ordered.cumsum(dim=-1), (1, 0))
    return so_far[..., -1:] - so_far.gather(-1, n_below) - (size - n_below) * places
