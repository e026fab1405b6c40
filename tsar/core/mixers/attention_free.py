"""Attention free of products of queries and keys: every channel weighs its own past."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import RecurrentMixer
from tsar.core.ops.prefix_softmax import SoftmaxSums, prefix_softmax
from tsar.exceptions import ParameterError

__all__ = ["AttentionFree", "AttentionFreeState"]


class AttentionFreeState(NamedTuple):
    """What is remembered of the tokens so far, of fixed size.

    Parameters
    ----------
    sums : SoftmaxSums of (B, D)
        Over all tokens, each channel by itself.
    keys, values : Tensor of shape (B, window - 1, D)
        Of the latest tokens; keys of minus infinity where there were none.
    """

    sums: SoftmaxSums
    keys: Tensor
    values: Tensor


class AttentionFree(RecurrentMixer):
    """``y_t = sigmoid(q_t) sum_s exp(k_s + w_{t-s}) v_s / sum_s exp(k_s + w_{t-s})``.

    The sums are over the tokens so far, in every channel by itself. ``w`` is a trained number per
    channel and distance up to a window, and 0 beyond: that is what makes the order of the latest
    tokens matter, while the state stays of one size.

    Parameters
    ----------
    d_model : int
    window : int, default 16
        Distances that have a number of their own, from 0 on; with 0 the order of tokens does not
        matter at all.

    Raises
    ------
    ParameterError
        If the window is negative.

    References
    ----------
    Zhai et al., "An attention free transformer", arXiv:2105.14103, section 3 (AFT-simple with no
    window, AFT-conv with one, a head per channel).
    """

    formula = "sigmoid(q_t) sum_s exp(k_s + w_{t-s}) v_s / sum_s exp(k_s + w_{t-s})"
    cost = "L log L D"

    no_decay = ("near",)

    def __init__(self, d_model: int, *, window: int = 16) -> None:
        super().__init__()
        if window < 0:
            raise ParameterError(f"AttentionFree: window must be at least 0, got {window}")
        self.query_key_value = Linear(d_model, 3 * d_model)
        self.near = nn.Parameter(0.02 * torch.randn(window, d_model))
        self.output = Linear(d_model, d_model)

    def init_state(self, batch: int) -> AttentionFreeState:
        """Return the state before the first token."""
        weight = self.output.weight
        n_before = max(len(self.near) - 1, 0)
        keys = weight.new_full((batch, n_before, len(weight)), -torch.inf)
        sums = SoftmaxSums.none(weight, batch, len(weight), 1)
        return AttentionFreeState(sums, keys, torch.zeros_like(keys))

    def scan(
        self, x: Tensor, mask: Tensor | None, state: AttentionFreeState | None
    ) -> tuple[Tensor, AttentionFreeState]:
        """See :meth:`RecurrentMixer.scan`."""
        query, key, value = self.query_key_value(x).chunk(3, dim=-1)
        if mask is not None:
            key = key.masked_fill(~mask[..., None], -torch.inf)
        state = self.init_state(x.shape[0]) if state is None else state
        sums = prefix_softmax(key, value[..., None], state.sums)
        weighted, weight = sums.weighted[..., 0], sums.weight
        length, n_before = x.shape[1], state.keys.shape[1]
        keys = torch.cat([state.keys.to(key.dtype), key], dim=1)
        values = torch.cat([state.values.to(value.dtype), value], dim=1)
        # What the near tokens weigh more than they do in the sums over all.
        for distance, more in enumerate(self.near.expm1().unbind()):
            shifted = slice(n_before - distance, n_before - distance + length)
            share = (keys[:, shifted] - sums.peak).exp() * more
            weighted = weighted + share * values[:, shifted]
            weight = weight + share
        smallest = torch.finfo(weight.dtype).tiny
        mixed = (weighted / weight.clamp_min(smallest)).to(x.dtype)
        after = AttentionFreeState(
            SoftmaxSums(*(part[:, -1].clone() for part in sums)),
            keys[:, length:].clone(),
            values[:, length:].clone(),
        )
        return self.output(F.sigmoid(query) * mixed), after
