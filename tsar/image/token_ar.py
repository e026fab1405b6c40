"""Images token by token, in the order of reading."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from tsar.core.conditioned import ConditionedDecoder, in_order
from tsar.core.conditioning import LabelEmbedding
from tsar.core.heads import CategoricalHead
from tsar.core.mixers import MIXERS, level_mixers
from tsar.core.position import LearnedPosition
from tsar.core.sampling import Guidance
from tsar.exceptions import DataError, ParameterError
from tsar.image.drawn import DrawingNetwork, ImageModel
from tsar.image.pixels import CELL
from tsar.image.tokenizer import PixelTokenizer, VQTokenizer
from tsar.params.constraints import Interval

__all__ = ["PAR", "RAR", "AiM", "AnyOrderNetwork", "TokenAR", "TokenImageNetwork"]

# Shares of the training of RAR until which all orders are random, and from which on none is: 200
# and 300 of 400 epochs.
ALL_RANDOM, NONE_RANDOM = 0.5, 0.75


class Plan(NamedTuple):
    """In which order the tokens of an image are drawn, and what each is made of.

    Parameters
    ----------
    order : int64 Tensor of shape (L,)
        The places of the image, one after the other.
    levels : int64 Tensor of shape (L,)
        Those drawn in one pass have the same, in that order.
    sources : int64 Tensor of shape (L,) or (n, L)
        The number in that order of the token that is the input of each, of an earlier level; -1 for
        the start. With n sources of a token, -1 as well where there are fewer.
    """

    order: Tensor
    levels: Tensor
    sources: Tensor


def reading(n_tokens: int) -> Plan:
    """Return the plan of one token after the other, row by row."""
    places = in_order(n_tokens)
    return Plan(places, places, places - 1)


def in_regions(height: int, width: int, regions: int, *, distant: bool = True) -> Plan:
    """Return the plan that draws several regions at once, after the first token of each.

    Parameters
    ----------
    height, width : int
        Tokens along the sides.
    regions : int
        A square number: that of as many regions along each side as its root, which differ by one
        token where they cannot be equal.
    distant : bool, default True
        Whether the tokens of a pass are one of each region; otherwise they are neighbours in the
        order of reading, as many in a pass.
    """
    side = math.isqrt(regions)
    places = in_order(height * width)
    rows, columns = places // width, places % width
    region = rows * side // height * side + columns * side // width
    parts = [(region == number).nonzero()[:, 0] for number in range(regions)]
    if not distant:
        parts = [places[number::regions] for number in range(regions)]
    order, levels, sources, last = [], [], [], [-1] * regions
    # The first ones, each after the other.
    for number, part in enumerate(parts):
        order.append(int(part[0]))
        levels.append(number)
        sources.append(number - 1)
        last[number] = number
    for step in range(1, max(map(len, parts))):
        for number, part in enumerate(parts):
            if step < len(part):
                sources.append(last[number])
                last[number] = len(order)
                order.append(int(part[step]))
                levels.append(regions + step - 1)
    return Plan(*(torch.tensor(column, device="cpu") for column in (order, levels, sources)))


class TokenImageNetwork(DrawingNetwork):
    """Tokens in levels, each made of one of an earlier level and of where it stands.

    Parameters
    ----------
    decoder : ConditionedDecoder
        With the levels of the plan.
    labels : LabelEmbedding
    d_model, n_codes : int
    plan : Plan, optional
        The order of reading by default.
    """

    no_decay = ("embedding.weight", "start")
    # Tokens whose features say what the next one is.
    n_sources: ClassVar[int] = 1
    order: Tensor
    sources: Tensor

    def __init__(
        self,
        decoder: ConditionedDecoder,
        labels: LabelEmbedding,
        d_model: int,
        n_codes: int,
        plan: Plan | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.labels = decoder, labels
        self.n_tokens = len(decoder.levels)
        order, levels, sources = reading(self.n_tokens) if plan is None else plan
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("sources", sources, persistent=False)
        self._ends = torch.bincount(levels).cumsum(0).tolist()
        self.embedding = nn.Embedding(n_codes, d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.start = nn.Parameter(0.02 * torch.randn(d_model))
        self.position = LearnedPosition(self.n_tokens, d_model)
        self.head = CategoricalHead(self.n_sources * d_model, n_codes)

    def part(self, level: int) -> slice:
        """Return which numbers in the order the tokens of a level have."""
        return slice(0 if level == 0 else self._ends[level - 1], self._ends[level])

    def in_order(self, values: Tensor) -> Tensor:
        return values[:, self.order]

    def in_places(self, values: Tensor) -> Tensor:
        return values[:, self.order.argsort()]

    def inputs(self, ids: Tensor) -> Tensor:
        return self._made_of(self.in_order(ids), slice(self.n_tokens))

    def _made_of(self, drawn: Tensor, part: slice) -> Tensor:
        """Return the inputs of a part of the tokens in order, given those before."""
        start = self.start.expand(len(drawn), 1, -1)
        # The start lies before the first, where the source -1 finds it.
        told = torch.cat([start, self.embedding(drawn)], dim=1)[:, self.sources[part] + 1]
        return told + self.position.weight[self.order[part]]

    def first(self, batch: int) -> tuple[Tensor, Tensor]:
        nothing = self.order.new_zeros(batch, 0)
        return self._made_of(nothing, self.part(0)), nothing

    def after(self, step: int, ids: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        drawn = torch.cat([memory, ids], dim=1)
        return self._made_of(drawn, self.part(step + 1)), drawn


class AnyOrderNetwork(TokenImageNetwork):
    """Tokens in any order: each is told where the next one stands.

    In training the order is drawn anew for every batch, later in the training less often, and at
    the end never: then it is that of reading, as it is without training.

    Parameters
    ----------
    decoder, labels, d_model, n_codes
        See :class:`TokenImageNetwork`.
    n_steps : int
        Of the training.

    References
    ----------
    Yu et al., "Randomized autoregressive visual generation", ICCV 2025, section 3.
    """

    steps: Tensor

    def __init__(
        self,
        decoder: ConditionedDecoder,
        labels: LabelEmbedding,
        d_model: int,
        n_codes: int,
        n_steps: int,
    ) -> None:
        super().__init__(decoder, labels, d_model, n_codes)
        self.targets = LearnedPosition(self.n_tokens, d_model)
        self.n_steps = n_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def random_share(self) -> float:
        """Return how often an order is drawn at this point of the training."""
        done = float(self.steps) / max(self.n_steps, 1)
        return min(max((NONE_RANDOM - done) / (NONE_RANDOM - ALL_RANDOM), 0.0), 1.0)

    def forward(self, ids: Tensor, labels: Tensor, order: Tensor | None = None) -> Tensor:
        """Return features (B, L, D) of tokens (B, L), in their places.

        Parameters
        ----------
        ids : int64 Tensor of shape (B, L)
        labels : int64 Tensor of shape (B,)
        order : int64 Tensor of shape (L,), optional
            The places in the order in which they are told; by default drawn in training, and that
            of reading otherwise.
        """
        if order is None:
            order = self._drawn_order(ids.device)
        placed = self.position(self.embedding(ids))
        nowhere = torch.zeros_like(placed[:1])
        start = self.start.expand(len(ids), 1, -1)
        told = torch.cat([start, placed[:, order[:-1]]], dim=1) + self.targets(nowhere)[:, order]
        features: Tensor = self.decoder(told, self.labels(labels))
        return features[:, order.argsort()]

    def _drawn_order(self, device: torch.device) -> Tensor:
        reading = torch.arange(self.n_tokens, device=device)
        if not self.training:
            return reading
        generator = self.labels.generator
        chance = torch.rand((), generator=generator, device=device)
        self.steps += 1
        if float(chance) >= self.random_share():
            return reading
        return torch.randperm(self.n_tokens, generator=generator, device=device)

    def first(self, batch: int) -> tuple[Tensor, Any]:
        return self.targets(self.start.expand(batch, 1, -1)), None

    def after(self, step: int, ids: Tensor, memory: Any) -> tuple[Tensor, Any]:
        return self.targets(self.position(self.embedding(ids), step), step + 1), None


@dataclass(kw_only=True, eq=False, repr=False)
class TokenAR(ImageModel):
    """Images drawn token by token, row by row, with any causal mixer.

    The label sets the norms and gates of all blocks. With ``tokenizer="pixels"`` it is a model of
    the pixels themselves, and its likelihood is exact.

    Parameters
    ----------
    tokenizer : {"vq", "pixels"} or VQTokenizer, default "vq"
        Codes of cells of 4 x 4 pixels, or pixels. A tokenizer that is fitted is used as it is.
    n_levels : int, default 256
        Levels of grey of ``tokenizer="pixels"``: 256 of uint8, 17 of scikit-learn's digits.
    mixer : str or subclass of Mixer, default "attention"
        A causal one: "attention", "mamba2", "linear_attention", see :mod:`tsar.core.mixers`.

    References
    ----------
    Esser et al., "Taming transformers for high-resolution image synthesis", CVPR 2021; Peebles and
    Xie, "Scalable diffusion models with transformers", ICCV 2023 (norms and gates).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from tsar.image import TokenAR
    >>> digits = load_digits()
    >>> model = TokenAR(tokenizer="pixels", n_levels=17, d_model=16, n_layers=1, d_ff=32,
    ...                 max_steps=20, random_state=0, device="cpu")
    >>> model.fit(digits.images / 16, digits.target).sample(label=[3, 7], random_state=0).shape
    (2, 8, 8)
    """

    n_levels: Annotated[int, Interval(2)] = 256

    tokenizer_kinds: ClassVar[Mapping[str, Any]] = {"vq": VQTokenizer, "pixels": PixelTokenizer}

    def _pixel_tokenizer(self) -> PixelTokenizer:
        return PixelTokenizer(int(self.n_levels), self.image_shape_)

    @property
    def _n_tokens(self) -> int:
        """L, the tokens of an image."""
        if isinstance(self.tokenizer_, PixelTokenizer):
            channels, height, width = self.image_shape_
            return channels * height * width
        return (self.image_shape_[1] // CELL) ** 2

    def _check_one_channel(self, parts: str) -> None:
        """Raise an error if pixels have several tokens each, for plans in two dimensions."""
        channels = self.image_shape_[0]
        if self.tokenizer == "pixels" and channels > 1:
            raise DataError(
                f"{self.name}: pixels in {parts} must have one channel, got {channels}; take "
                f"TokenAR, or tokenizer='vq'"
            )

    def _make_network(self) -> DrawingNetwork:
        # Levels of several tokens see each other, which is said by a mask.
        kind = MIXERS[self.mixer] if isinstance(self.mixer, str) else self.mixer
        levels = self._plan(self._n_tokens).levels
        decoder, labels = self._make_decoder(self.mixer, levels, causal=not kind.takes_levels)
        return self._network_around(decoder, labels)

    def _network_around(
        self, decoder: ConditionedDecoder, labels: LabelEmbedding
    ) -> TokenImageNetwork:
        n_codes, plan = int(self.tokenizer_.n_codes), self._plan(len(decoder.levels))
        return TokenImageNetwork(decoder, labels, int(self.d_model), n_codes, plan)

    def _plan(self, n_tokens: int) -> Plan:
        return reading(n_tokens)

    def _sides(self) -> list[int]:
        whole = isinstance(self.tokenizer_, PixelTokenizer)
        return [self.image_shape_[1] // (1 if whole else CELL)]


@dataclass(kw_only=True, eq=False, repr=False)
class AiM(TokenAR):
    """Images drawn code by code by a stack of Mamba-2.

    :class:`TokenAR` with the mixer of the paper; every block has norms of its own here, where the
    paper shares them in groups.

    References
    ----------
    Li et al., "Scalable autoregressive image generation with Mamba", arXiv:2408.12245.
    """

    mixer: Any = "mamba2"


@dataclass(kw_only=True, eq=False, repr=False)
class RAR(TokenAR):
    """Images drawn in the order of reading, after a training in random orders.

    Every token is told where the next one stands. The orders are random in the first half of the
    training, less and less often in the third quarter, and that of reading in the last.

    Parameters
    ----------
    mixer : str or subclass of Mixer, default "attention"
        A causal one.

    References
    ----------
    Yu et al., "Randomized autoregressive visual generation", ICCV 2025.
    """

    def _network_around(
        self, decoder: ConditionedDecoder, labels: LabelEmbedding
    ) -> AnyOrderNetwork:
        n_codes = int(self.tokenizer_.n_codes)
        return AnyOrderNetwork(decoder, labels, int(self.d_model), n_codes, self._planned_steps)

    def _guidance(self, scale: float) -> Guidance:
        return Guidance(scale, "power_cosine")


@dataclass(kw_only=True, eq=False, repr=False)
class PAR(TokenAR):
    """Images drawn in several regions at once.

    The first tokens of the regions are drawn one by one, so that they agree; from then on a pass
    draws the next token of every region, which lie far apart and say little of each other.

    Parameters
    ----------
    mixer : str or subclass of Mixer, default "attention"
        One that takes levels, which of tsar's own is attention.
    regions : int, default 4
        A square number.
    distant : bool, default True
        Whether the tokens of a pass are far apart; otherwise as many neighbours are drawn at once.

    References
    ----------
    Wang et al., "Parallelized autoregressive visual generation", CVPR 2025.
    """

    regions: Annotated[int, Interval(2)] = 4
    distant: bool = True

    fitting_mixers = staticmethod(level_mixers)

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if math.isqrt(self.regions) ** 2 != self.regions:
            raise ParameterError(
                f"{self.name}: regions must be a square number such as 4 or 9, got {self.regions}"
            )

    def _prepare(self, images: Tensor, labels: Tensor | None, go_on: bool) -> None:
        self._check_one_channel("regions")
        side = self.image_shape_[1] // (1 if self.tokenizer == "pixels" else CELL)
        if self.regions > side * side:
            raise DataError(
                f"{self.name}: images of {side} x {side} tokens have no {self.regions} regions; "
                f"choose fewer"
            )
        super()._prepare(images, labels, go_on)

    def _plan(self, n_tokens: int) -> Plan:
        side = math.isqrt(n_tokens)
        return in_regions(side, side, int(self.regions), distant=self.distant)
