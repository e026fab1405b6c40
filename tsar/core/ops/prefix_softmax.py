"""Softmax-weighted sums over all tokens so far, that go along as a state of fixed size.

Letters: B batch, L tokens, C independent scores of a token, V values weighed by each.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["SoftmaxSums", "merge", "prefix_softmax"]


class SoftmaxSums(NamedTuple):
    """Sums of ``exp(score)`` and of ``exp(score) value``, as parts of ``exp(peak)``.

    Parameters
    ----------
    peak : Tensor of shape (..., C)
        The largest score of all that are summed up.
    weighted : Tensor of shape (..., C, V)
    weight : Tensor of shape (..., C)
    """

    peak: Tensor
    weighted: Tensor
    weight: Tensor

    @classmethod
    def none(cls, like: Tensor, batch: int, n_scores: int, n_values: int) -> "SoftmaxSums":
        """Return the sums over no tokens, with the dtype and device of a tensor."""
        peak = like.new_full((batch, n_scores), torch.finfo(like.dtype).min / 2)
        return cls(peak, like.new_zeros(batch, n_scores, n_values), torch.zeros_like(peak))

    def mean(self) -> Tensor:
        """Return the weighted mean of the values (..., C, V); zeros where there are none."""
        smallest = torch.finfo(self.weight.dtype).tiny
        return self.weighted / self.weight.clamp_min(smallest)[..., None]


def merge(one: SoftmaxSums, other: SoftmaxSums) -> SoftmaxSums:
    """Sum up two disjoint sets of tokens; in whichever order, the result is the same.

    References
    ----------
    Shyam et al., "Tree attention: topology-aware decoding for long-context attention on GPU
    clusters", arXiv:2408.04093, section 5; Feng et al., "Attention as an RNN", arXiv:2405.13956,
    section 3.2.
    """
    peak = torch.maximum(one.peak, other.peak)
    left, right = (one.peak - peak).exp(), (other.peak - peak).exp()
    return SoftmaxSums(
        peak,
        one.weighted * left[..., None] + other.weighted * right[..., None],
        one.weight * left + other.weight * right,
    )


def prefix_softmax(scores: Tensor, values: Tensor, state: SoftmaxSums | None = None) -> SoftmaxSums:
    """Sum up, for each token, it and all those before it.

    After ``k`` rounds a token holds the sum of the ``2 ** k`` tokens up to it: the rounds are the
    logarithm of the length, where a loop would take as many steps as there are tokens. Sums are
    kept as parts of the largest score so far, so that no exponential overflows.

    Parameters
    ----------
    scores : Tensor of shape (B, L, C)
        Minus infinity leaves a token out.
    values : Tensor of shape (B, L, C, V)
    state : SoftmaxSums of (B, C), optional
        Over the tokens before the first one.

    Returns
    -------
    SoftmaxSums of (B, L, C)
        In single precision at least. The last of each is the state for what follows.

    References
    ----------
    Feng et al., "Attention as an RNN", arXiv:2405.13956, section 3.2: attention over prefixes as
    a scan; Hillis and Steele, "Data parallel algorithms", Communications of the ACM 29, 1986.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    scores, values = scores.to(dtype), values.to(dtype)
    # Results do not depend on the peak, so that no gradient goes through it.
    peak = scores.detach().clamp_min(torch.finfo(dtype).min / 2).cummax(dim=1).values
    if state is not None:
        peak = torch.maximum(peak, state.peak.detach()[:, None])
    share = (scores - peak).exp()[..., None]
    sums = torch.cat([share * values, share], dim=-1)  # (B, L, C, V + 1)
    shift = 1
    while shift < scores.shape[1]:
        fallen = (peak[:, :-shift] - peak[:, shift:]).exp()[..., None]
        sums = sums + F.pad(sums[:, :-shift] * fallen, (0, 0, 0, 0, shift, 0))
        shift *= 2
    if state is not None:
        before = torch.cat([state.weighted, state.weight[..., None]], dim=-1)[:, None]
        sums = sums + before * (state.peak.detach()[:, None] - peak).exp()[..., None]
    return SoftmaxSums(peak, sums[..., :-1], sums[..., -1])
