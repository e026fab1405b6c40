"""Images from one corner outwards: all tokens that are as far from it in one pass."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tsar.core.conditioned import ConditionedDecoder
from tsar.core.conditioning import LabelEmbedding
from tsar.core.mixers import level_mixers
from tsar.image.token_ar import Plan, TokenAR, TokenImageNetwork

__all__ = ["NAR", "NeighbourNetwork", "near_to_far"]


def near_to_far(height: int, width: int) -> Plan:
    """Return the plan that draws tokens in the order of their distance from the first one.

    The distance is that along rows and columns (Manhattan). The sources of a token, of shape
    (2, L), are the one to its left and the one above it.

    Parameters
    ----------
    height, width : int
        Tokens along the sides.
    """
    places = torch.arange(height * width, device="cpu")
    distance = places // width + places % width
    order = distance.argsort(stable=True)
    number = order.argsort()
    rows, columns = order // width, order % width
    left = torch.where(columns > 0, number[(order - 1).clamp(min=0)], -1)
    above = torch.where(rows > 0, number[(order - width).clamp(min=0)], -1)
    return Plan(order, distance[order], torch.stack([left, above]))


class NeighbourNetwork(TokenImageNetwork):
    """Each token says what stands to its right and what stands below it.

    A map of features for each direction gives logits; where both lead to a token, it is drawn with
    their mean. The start says both of the first token.

    Parameters
    ----------
    decoder : ConditionedDecoder
        With the levels of what is read: the start, then all tokens of the plan but the last, each
        a level later than it is drawn.
    labels : LabelEmbedding
    d_model, n_codes : int
    plan : Plan
        With two sources for each token.
    """

    n_sources = 2
    shares: Tensor

    def __init__(
        self,
        decoder: ConditionedDecoder,
        labels: LabelEmbedding,
        d_model: int,
        n_codes: int,
        plan: Plan,
    ) -> None:
        super().__init__(decoder, labels, d_model, n_codes, plan)
        says = plan.sources >= 0
        says[:, 0] = True
        self.register_buffer("shares", says / says.sum(dim=0), persistent=False)

    def inputs(self, ids: Tensor) -> Tensor:
        drawn = self.embedding(self.in_order(ids)[:, :-1]) + self.position.weight[self.order[:-1]]
        return torch.cat([self.start.expand(len(ids), 1, -1), drawn], dim=1)

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Return features (B, L, 2 D): those to the left, and those above, each by its share."""
        z = self.decoder(self.inputs(ids), self.labels(labels))
        return self.in_places(self._joined(z, 0, slice(None)))

    def _joined(self, z: Tensor, n_before: int, part: slice) -> Tensor:
        """Return features of a part of the tokens from those read, so many of them left out."""
        # The start is read before the first token.
        read = (self.sources[:, part] + 1 - n_before).clamp(min=0)
        sides = zip(self.shares[:, part], read, strict=True)
        return torch.cat([share[:, None] * z[:, numbers] for share, numbers in sides], dim=2)

    def first(self, batch: int) -> tuple[Tensor, Any]:
        return self.start.expand(batch, 1, -1), None

    def after(self, step: int, ids: Tensor, memory: Any) -> tuple[Tensor, Any]:
        return self.embedding(ids) + self.position.weight[self.order[self.part(step)]], None

    def level_features(self, step: int, z: Tensor) -> Tensor:
        """Return features (B, T, 2 D) of a level, from those of the level before."""
        n_before = 0 if step == 0 else self.part(step - 1).start + 1
        return self._joined(z, n_before, self.part(step))


@dataclass(kw_only=True, eq=False, repr=False)
class NAR(TokenAR):
    """Images drawn outwards from the first corner, a diagonal of tokens in a pass.

    The tokens that are as far from the first one, along rows and columns, are drawn together, given
    all that are nearer: n x n tokens in 2 n - 1 passes. A token says what stands to its right and
    what stands below it by two maps of its features; where two tokens speak of the same one, their
    logits are averaged.

    Parameters
    ----------
    mixer : str or subclass of Mixer, default "attention"
        One that takes levels, which of tsar's own is attention.

    References
    ----------
    He et al., "Neighboring autoregressive modeling for efficient visual generation",
    arXiv:2503.10696; the head of one direction has a block of its own there.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from tsar.image import NAR
    >>> digits = load_digits()
    >>> model = NAR(tokenizer="pixels", n_levels=17, d_model=16, n_layers=1, d_ff=32,
    ...             max_steps=20, random_state=0, device="cpu")
    >>> model.fit(digits.images / 16, digits.target).sample(label=[3, 7], random_state=0).shape
    (2, 8, 8)
    """

    fitting_mixers = staticmethod(level_mixers)

    def _prepare(self, images: Tensor, labels: Tensor | None, go_on: bool) -> None:
        self._check_one_channel("two directions")
        super()._prepare(images, labels, go_on)

    def _plan(self, n_tokens: int) -> Plan:
        side = math.isqrt(n_tokens)
        return near_to_far(side, side)

    def _make_network(self) -> NeighbourNetwork:
        plan = self._plan(self._n_tokens)
        read = torch.cat([plan.levels[:1], plan.levels[:-1] + 1])
        decoder, labels = self._make_decoder(self.mixer, read, causal=False)
        d_model, n_codes = int(self.d_model), int(self.tokenizer_.n_codes)
        return NeighbourNetwork(decoder, labels, d_model, n_codes, plan)
