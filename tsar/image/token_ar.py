"""Images token by token, in the order of reading."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tsar.core.conditioned import ConditionedDecoder, in_order
from tsar.core.conditioning import LabelEmbedding
from tsar.core.heads import CategoricalHead
from tsar.core.mixers import accepted_options, causal_mixers, make_mixer
from tsar.core.position import LearnedPosition
from tsar.core.sampling import Guidance
from tsar.image.drawn import DrawingNetwork, ImageModel
from tsar.image.pixels import CELL
from tsar.image.tokenizer import PixelTokenizer, VQTokenizer
from tsar.params.constraints import check_choice

__all__ = ["RAR", "AiM", "AnyOrderNetwork", "TokenAR", "TokenImageNetwork"]

# Shares of the training of RAR until which all orders are random, and from which on none is: 200
# and 300 of 400 epochs.
ALL_RANDOM, NONE_RANDOM = 0.5, 0.75


class TokenImageNetwork(DrawingNetwork):
    """A start, then each token before the next, all of them with a position of their own.

    Parameters
    ----------
    decoder : ConditionedDecoder
        Of as many levels as tokens.
    labels : LabelEmbedding
    d_model, n_codes : int
    """

    no_decay = ("embedding.weight", "start")

    def __init__(
        self, decoder: ConditionedDecoder, labels: LabelEmbedding, d_model: int, n_codes: int
    ) -> None:
        super().__init__()
        self.decoder, self.labels = decoder, labels
        self.n_tokens = len(decoder.levels)
        self.embedding = nn.Embedding(n_codes, d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.start = nn.Parameter(0.02 * torch.randn(d_model))
        self.position = LearnedPosition(self.n_tokens, d_model)
        self.head = CategoricalHead(d_model, n_codes)

    def inputs(self, ids: Tensor) -> Tensor:
        start = self.start.expand(len(ids), 1, -1)
        return self.position(torch.cat([start, self.embedding(ids[:, :-1])], dim=1))

    def first(self, batch: int) -> tuple[Tensor, None]:
        return self.position(self.start.expand(batch, 1, -1)), None

    def after(self, step: int, ids: Tensor, memory: None) -> tuple[Tensor, None]:
        return self.position(self.embedding(ids), step + 1), None


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

    def first(self, batch: int) -> tuple[Tensor, None]:
        return self.targets(self.start.expand(batch, 1, -1)), None

    def after(self, step: int, ids: Tensor, memory: None) -> tuple[Tensor, None]:
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

    tokenizer_kinds: ClassVar[Mapping[str, Any]] = {"vq": VQTokenizer, "pixels": PixelTokenizer}

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if isinstance(self.mixer, str):
            check_choice(self.name, "mixer", self.mixer, causal_mixers())

    def _make_network(self) -> TokenImageNetwork:
        d_model = int(self.d_model)
        if isinstance(self.tokenizer_, PixelTokenizer):
            channels, height, width = self.image_shape_
            n_tokens = channels * height * width
        else:
            n_tokens = (self.image_shape_[1] // CELL) ** 2
        options = {"n_heads": int(self.n_heads), "causal": True, "qk_norm": True}
        decoder = ConditionedDecoder(
            [
                make_mixer(self.mixer, d_model, **accepted_options(self.mixer, **options))
                for _ in range(int(self.n_layers))
            ],
            d_model=d_model,
            d_ff=int(self.d_ff),
            condition_dim=d_model,
            levels=in_order(n_tokens),
            dropout=self.dropout,
        )
        labels = LabelEmbedding(self._n_classes, d_model, drop=self.label_drop)
        return self._network_around(decoder, labels)

    def _network_around(
        self, decoder: ConditionedDecoder, labels: LabelEmbedding
    ) -> TokenImageNetwork:
        n_codes = int(self.tokenizer_.n_codes)
        return TokenImageNetwork(decoder, labels, int(self.d_model), n_codes)

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
        n_codes, n_steps = int(self.tokenizer_.n_codes), int(self.max_steps or 0)
        return AnyOrderNetwork(decoder, labels, int(self.d_model), n_codes, n_steps)

    def _guidance(self, scale: float) -> Guidance:
        return Guidance(scale, "power_cosine")
