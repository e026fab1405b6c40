"""Images scale by scale, from one token for all of it to one for each cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tsar.core.conditioned import ConditionedDecoder, in_order
from tsar.core.conditioning import LabelEmbedding
from tsar.core.heads import CategoricalHead
from tsar.core.linear import Linear
from tsar.core.mixers import MIXERS
from tsar.core.quantization import MultiScaleQuantizer
from tsar.core.sampling import Guidance
from tsar.image.drawn import DrawingNetwork, ImageModel
from tsar.image.tokenizer import MultiScaleTokenizer
from tsar.params.constraints import check_choice

__all__ = ["VAR", "PyramidNetwork", "ScaleNetwork", "pyramid_levels"]


class PyramidNetwork(DrawingNetwork):
    """All tokens of a scale at once, from the image as the coarser scales have it.

    Parameters
    ----------
    decoder : ConditionedDecoder
        Its levels are the scales of the tokens.
    labels : LabelEmbedding
    sides : sequence of int
        Tokens along the side of each scale.
    n_values : int
        Of the vectors by which the coarser scales are told.
    d_model : int
    """

    no_decay = ("start", "positions", "scales.weight")

    def __init__(
        self,
        decoder: ConditionedDecoder,
        labels: LabelEmbedding,
        sides: Sequence[int],
        n_values: int,
        d_model: int,
    ) -> None:
        super().__init__()
        self.decoder, self.labels, self.sides = decoder, labels, tuple(sides)
        self.n_tokens = len(decoder.levels)
        self.word = Linear(n_values, d_model)
        self.start = nn.Parameter(0.02 * torch.randn(self.sides[0] ** 2, d_model))
        self.positions = nn.Parameter(0.02 * torch.randn(self.n_tokens, d_model))
        self.scales = nn.Embedding(len(self.sides), d_model)
        nn.init.normal_(self.scales.weight, std=0.02)

    def inputs(self, ids: Tensor) -> Tensor:
        with torch.no_grad():
            coarser = self.coarser(ids)
        start = self.start.expand(len(ids), -1, -1)
        return self._placed(torch.cat([start, self.word(coarser)], dim=1), 0)

    def coarser(self, ids: Tensor) -> Tensor:
        """Return what is told of tokens at all scales but the first, (B, L - n_1 ** 2, E)."""
        raise NotImplementedError

    def _placed(self, x: Tensor, begin: int) -> Tensor:
        part = slice(begin, begin + x.shape[1])
        return x + self.positions[part] + self.scales(self.decoder.levels[part])


def pyramid_levels(sides: Sequence[int]) -> Tensor:
    """Return the scale of each token of maps with such sides."""
    squares = torch.tensor(sides, device="cpu").square()
    return in_order(len(sides)).repeat_interleave(squares)


class ScaleNetwork(PyramidNetwork):
    """A pyramid of codes.

    Parameters
    ----------
    decoder, labels, d_model
        See :class:`PyramidNetwork`.
    quantizer : MultiScaleQuantizer
        Of the tokenizer: it is read, and neither trained nor saved here.
    """

    def __init__(
        self,
        decoder: ConditionedDecoder,
        labels: LabelEmbedding,
        quantizer: MultiScaleQuantizer,
        d_model: int,
    ) -> None:
        n_codes, width = quantizer.codes.shape
        super().__init__(decoder, labels, quantizer.scales, width, d_model)
        # In a tuple it is no part of this network.
        self._quantizer = (quantizer,)
        self.head = CategoricalHead(d_model, n_codes)

    @property
    def quantizer(self) -> MultiScaleQuantizer:
        """What makes maps of tokens."""
        return self._quantizer[0]

    def coarser(self, ids: Tensor) -> Tensor:
        return self.quantizer.inputs(ids)

    def first(self, batch: int) -> tuple[Tensor, Any]:
        codes, side = self.quantizer.codes, self.quantizer.scales[-1]
        nothing = codes.new_zeros(batch, codes.shape[1], side, side)
        return self._placed(self.start.expand(batch, -1, -1), 0), (nothing, 0)

    def after(self, step: int, ids: Tensor, memory: Any) -> tuple[Tensor, Any]:
        quantizer = self.quantizer
        (so_far, n_before), side = memory, quantizer.scales[step]
        codes_map = quantizer.look_up(ids.unflatten(1, (side, side))).permute(0, 3, 1, 2)
        so_far, n_before = quantizer.added(so_far, codes_map, step), n_before + side * side
        coarser = quantizer.shrunk(so_far, step + 1).flatten(2).mT
        return self._placed(self.word(coarser), n_before), (so_far, n_before)


@dataclass(kw_only=True, eq=False, repr=False)
class VAR(ImageModel):
    """Images drawn scale by scale: as many passes as there are scales.

    The tokens of a scale are drawn at once, each given the image as the coarser scales have it;
    the label sets the norms and gates of all blocks.

    Parameters
    ----------
    tokenizer : {"multiscale"} or MultiScaleTokenizer, default "multiscale"
        With ``MultiScaleTokenizer(residual=False)`` it is FlexVAR. A tokenizer that is fitted is
        used as it is.
    mixer : str or subclass of Mixer, default "attention"
        One that takes levels, which of tsar's own is attention.

    References
    ----------
    Tian et al., "Visual autoregressive modeling: scalable image generation via next-scale
    prediction", NeurIPS 2024; Jiao et al., "FlexVAR", arXiv:2502.20313.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from tsar.image import VAR, MultiScaleTokenizer
    >>> digits = load_digits()
    >>> images = digits.images / 16
    >>> tokenizer = MultiScaleTokenizer(n_codes=16, width=16, max_steps=20, random_state=0)
    >>> model = VAR(tokenizer=tokenizer.fit(images), d_model=16, n_layers=1, d_ff=32,
    ...             max_steps=20, random_state=0, device="cpu")
    >>> model.fit(images, digits.target).sample(3, label=5, random_state=0).shape
    (3, 8, 8)
    """

    tokenizer: Any = "multiscale"

    tokenizer_kinds: ClassVar[Mapping[str, Any]] = {"multiscale": MultiScaleTokenizer}

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if isinstance(self.mixer, str):
            fitting = [name for name, mixer in MIXERS.items() if mixer.takes_levels]
            check_choice(self.name, "mixer", self.mixer, fitting)

    def _make_network(self) -> ScaleNetwork:
        d_model, quantizer = int(self.d_model), self.tokenizer_.module_.quantizer
        levels = pyramid_levels(quantizer.scales)
        decoder, labels = self._make_decoder(self.mixer, levels, causal=False)
        return ScaleNetwork(decoder, labels, quantizer, d_model)

    def _guidance(self, scale: float) -> Guidance:
        return Guidance(scale, "linear")

    def _sides(self) -> list[int]:
        return list(self.tokenizer_.sides())
