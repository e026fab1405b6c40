"""Images scale by scale, from one token for all of it to one for each cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tsar.core.conditioned import ConditionedDecoder, in_order
from tsar.core.conditioning import LabelEmbedding
from tsar.core.heads import CategoricalHead
from tsar.core.linear import Linear
from tsar.core.mixers import RecurrentMixer, level_mixers, recurrent_mixers
from tsar.core.quantization import MultiScaleQuantizer
from tsar.core.sampling import Guidance, Sampler
from tsar.exceptions import ParameterError
from tsar.image.drawn import DrawingNetwork, ImageModel, LevelDrawing
from tsar.image.tokenizer import MultiScaleTokenizer
from tsar.params.constraints import Interval, check_choice, check_value

__all__ = ["VAR", "PyramidNetwork", "RelayedDrawing", "ScaleNetwork", "pyramid_levels"]


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


class RelayedDrawing(LevelDrawing):
    """A drawing whose last scales another network draws, given all that was drawn before.

    Parameters
    ----------
    network : ScaleNetwork
    guided : bool
    given_tokens : pair of Tensor or None
        See :class:`~tsar.image.drawn.LevelDrawing`.
    refiner : ScaleNetwork
        Of the same tokens.
    refine_from : int
        The first scale that it draws.

    References
    ----------
    Chen et al., "Collaborative decoding makes visual auto-regressive modeling efficient", CVPR
    2025.
    """

    def __init__(
        self,
        network: ScaleNetwork,
        guided: bool,
        given_tokens: tuple[Tensor, Tensor] | None,
        refiner: ScaleNetwork,
        refine_from: int,
    ) -> None:
        super().__init__(network, guided, given_tokens)
        self.refiner, self.refine_from = refiner, refine_from
        self.labels: Tensor | None = None
        self.scales_drawn: list[Tensor] = []

    def begin(self, labels: Tensor) -> tuple[Tensor, Any]:
        """Return the inputs of the first scale for labels (B,), and the state before it."""
        self.labels = self.told(labels)
        return super().begin(labels)

    def embed(self, step: int, drawn: Tensor) -> Tensor:
        """Return the inputs of the next scale, or of all so far where the refiner takes over."""
        self.scales_drawn.append(self.for_all_rows(drawn))
        if step + 1 != self.refine_from:
            return super().embed(step, drawn)
        self.step, self.n_drawn = step + 1, self.n_drawn + drawn.shape[1]
        self.network = self.refiner
        x, self.memory = self.network.first(len(self.scales_drawn[0]))
        inputs = [x]
        for scale, ids in enumerate(self.scales_drawn):
            x, self.memory = self.network.after(scale, ids, self.memory)
            inputs.append(x)
        return torch.cat(inputs, dim=1)

    def extend(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return the features of a scale, and the state behind it."""
        if self.step != self.refine_from:
            return super().extend(x, state)
        decoder, embedding = self.network.decoder, self.network.labels
        z, state = super().extend(x, decoder.init_state(embedding(self.labels)))
        return z[:, decoder.levels[: z.shape[1]] == self.step], state


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
    across : str or subclass of RecurrentMixer or None, default None
        What goes through the tokens of all scales in their order, such as "mamba2"; ``mixer`` then
        mixes the tokens of a scale with each other alone (M-VAR), and nothing is cached but the
        state of the recurrence. None lets ``mixer`` see the coarser scales itself.

    References
    ----------
    Tian et al., "Visual autoregressive modeling: scalable image generation via next-scale
    prediction", NeurIPS 2024; Jiao et al., "FlexVAR", arXiv:2502.20313; Ren et al., "M-VAR:
    decoupled scale-wise autoregressive modeling for high-quality image generation",
    arXiv:2411.10433 (``across``).

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
    across: Any = None

    tokenizer_kinds: ClassVar[Mapping[str, Any]] = {"multiscale": MultiScaleTokenizer}
    fitting_mixers = staticmethod(level_mixers)

    def _check_consistency(self) -> None:
        super()._check_consistency()
        across, fitting = self.across, recurrent_mixers()
        if across is not None and not isinstance(across, type):
            check_choice(self.name, "across", across, fitting)
        elif across is not None and not issubclass(across, RecurrentMixer):
            raise ParameterError(
                f"{self.name}: across must be None, one of {', '.join(map(repr, fitting))} or a "
                f"subclass of RecurrentMixer, got {across!r}"
            )

    def _make_network(self) -> ScaleNetwork:
        d_model, quantizer = int(self.d_model), self.tokenizer_.module_.quantizer
        levels = pyramid_levels(quantizer.scales)
        decoder, labels = self._make_decoder(self.mixer, levels, causal=False, across=self.across)
        return ScaleNetwork(decoder, labels, quantizer, d_model)

    def sample(
        self,
        n: int | None = None,
        label: Any = None,
        *,
        guidance: float = 0.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        refiner: "VAR | None" = None,
        refine_from: int | None = None,
        random_state: int | None = None,
    ) -> np.ndarray:
        """Draw images.

        Parameters
        ----------
        n, label, temperature, top_k, top_p, random_state
            As for :meth:`TokenAR.sample`.
        guidance : float, default 0.0
            How much farther than the label asks for, growing from scale to scale; 0 is the model
            itself.
        refiner : VAR, optional
            A smaller one of the same tokenizer and classes, fitted as well, that draws the last
            scales, which have the most tokens and need the least of a model (CoDe).
        refine_from : int, optional
            The first scale that it draws, counted from 0; by default the last but one.

        Returns
        -------
        float32 array of shape (n, H, W) or (n, H, W, C)
            In [0, 1].

        Raises
        ------
        NotFittedError
            ``fit`` was not called, or that of the refiner.
        ParameterError, DataError
            A number is out of its range, there is no such label, or the refiner draws other
            tokens.
        """
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p)
        if refiner is None and refine_from is not None:
            raise ParameterError(
                f"{self.name}: refine_from={refine_from} says where a refiner takes over; pass "
                f"refiner="
            )
        relay: dict[str, Any] = {}
        if refiner is not None:
            self.check_fitted()
            relay = {"refiner": refiner, "refine_from": self._taken_over(refiner, refine_from)}
        return self._sampled(n, label, guidance, sampler, random_state, **relay)

    def _taken_over(self, refiner: "VAR", refine_from: int | None) -> int:
        """Check a refiner, and return the first scale that it draws."""
        if not isinstance(refiner, VAR):
            raise ParameterError(f"{self.name}: refiner must be a fitted VAR, got {refiner!r}")
        refiner.check_fitted()
        if not self.tokenizer_.agrees_with(refiner.tokenizer_):
            raise ParameterError(
                f"{self.name}: refiner must draw the same tokens, and its tokenizer is another; "
                f"give both the same fitted one as tokenizer="
            )
        if _what_is_drawn(self) != _what_is_drawn(refiner):
            raise ParameterError(
                f"{self.name}: refiner must have the shape of images, the classes and the device "
                f"of this model, {_what_is_drawn(self)}, got {_what_is_drawn(refiner)}; fit it to "
                f"the same images and labels"
            )
        n_scales = len(self._sides())
        if refine_from is None:
            return max(n_scales - 2, 1)
        kind = Annotated[int, Interval(1, max(n_scales - 1, 1))]
        check_value(self.name, "refine_from", refine_from, kind)
        return int(refine_from)

    def _drawing(
        self,
        labels: Tensor,
        guided: bool,
        given_tokens: tuple[Tensor, Tensor] | None,
        generator: torch.Generator,
        refiner: "VAR | None" = None,
        refine_from: int = 0,
    ) -> LevelDrawing:
        if refiner is None:
            return super()._drawing(labels, guided, given_tokens, generator)
        own: Any = self.module_
        other: Any = refiner.module_
        return RelayedDrawing(own, guided, given_tokens, other, refine_from)

    def _guidance(self, scale: float) -> Guidance:
        return Guidance(scale, "linear")

    def _sides(self) -> list[int]:
        return list(self.tokenizer_.sides())


def _what_is_drawn(model: VAR) -> tuple[Any, ...]:
    """Return what two models have in common that draw one image."""
    classes = None if model.classes_ is None else model.classes_.tolist()
    return model.image_shape_, classes, str(model.device_)
