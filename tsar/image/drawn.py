"""Estimators that draw images token by token, or scale by scale."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.generation import generate_levels
from tsar.core.mixers import causal_mixers
from tsar.core.sampling import Guidance, Sampler
from tsar.estimator.base import Estimator
from tsar.exceptions import DataError, ParameterError
from tsar.image.base import AT_ONCE, DrawingEstimator, ImageBatch, ImageSource
from tsar.image.pixels import as_array
from tsar.image.tokenizer import ImageTokenizer, PixelTokenizer
from tsar.params.constraints import check_choice
from tsar.training import Objective, make_generator
from tsar.training.objective import changes

__all__ = ["DrawingNetwork", "ImageModel", "LevelDrawing", "LevelModel"]


class LevelDrawing:
    """A drawing of some images: what :func:`tsar.core.generation.generate_levels` asks of one.

    Parameters
    ----------
    network : DrawingNetwork
    guided : bool
        Whether each image has a row without its label behind those with.
    given_tokens : pair of Tensor, optional
        Tokens (B, L) or vectors (B, L, E) that are there already, in their places, and a bool
        Tensor of the same shape, which of them or of their values stay.
    """

    def __init__(
        self, network: Any, guided: bool, given_tokens: tuple[Tensor, Tensor] | None = None
    ) -> None:
        self.network, self.guided, self.given_tokens = network, guided, given_tokens
        self.step = self.n_drawn = 0
        self.memory: Any = None

    @property
    def decoder(self) -> "LevelDrawing":
        """What maps inputs: itself, by the decoder of the network."""
        return self

    @property
    def head(self) -> "LevelDrawing":
        """What draws: itself, which keeps tokens that are there already."""
        return self

    def shares(self) -> list[float]:
        """Return how far on the way each level is, for guidance; one number for each."""
        n_levels = int(self.network.decoder.levels.max()) + 1
        return [level / max(n_levels - 1, 1) for level in range(n_levels)]

    def in_order(self, values: Tensor) -> Tensor:
        """Return values (B, L) of tokens in the order in which they are drawn."""
        return self.network.in_order(values)

    def in_places(self, values: Tensor) -> Tensor:
        """Undo :meth:`in_order`."""
        return self.network.in_places(values)

    def begin(self, labels: Tensor) -> tuple[Tensor, Any]:
        """Return the inputs of the first level for labels (B,), and the state before it."""
        labels = self.told(labels)
        x, self.memory = self.network.first(len(labels))
        return x, self.network.decoder.init_state(self.network.labels(labels))

    def told(self, labels: Tensor) -> Tensor:
        """Return the labels of all rows."""
        if not self.guided:
            return labels
        return torch.cat([labels, torch.full_like(labels, self.network.labels.null)])

    def extend(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return what the tokens of a level are drawn from, and the state behind its inputs."""
        z, state = self.network.decoder.extend(x, state)
        return self.network.level_features(self.step, z), state

    def sample(self, z: Tensor, sampler: Sampler, guidance: float | None, generator: Any) -> Tensor:
        """Draw the tokens (B, T) of a level, but for those that stay."""
        fixed = self.given_tokens
        if fixed is not None:
            values, stays = map(self.in_order, fixed)
            fixed = values[:, self.n_drawn :], stays[:, self.n_drawn :]
        drawn: Tensor = self.network.draw(z, self.n_drawn, sampler, guidance, fixed, generator)
        return drawn

    def embed(self, step: int, drawn: Tensor) -> Tensor:
        """Return the inputs of the next level."""
        self.step, self.n_drawn = step + 1, self.n_drawn + drawn.shape[1]
        x, self.memory = self.network.after(step, self.for_all_rows(drawn), self.memory)
        return x

    def for_all_rows(self, drawn: Tensor) -> Tensor:
        """Return what was drawn (B, T) for all rows: those without the label are told the same."""
        return torch.cat([drawn, drawn]) if self.guided else drawn

    def done(self, step: int, drawn: Tensor) -> bool:
        """Say whether all tokens are drawn."""
        return self.n_drawn + drawn.shape[1] >= self.network.n_tokens


class DrawingNetwork(nn.Module):
    """What the tokens of images are drawn from, level by level; tokens may be vectors.

    Attributes
    ----------
    decoder : ConditionedDecoder
    labels : LabelEmbedding
    head : nn.Module
    n_tokens : int
        L, of an image.
    """

    decoder: Any
    labels: Any
    head: Any
    n_tokens: int

    def inputs(self, ids: Tensor) -> Tensor:
        """Return what the decoder is given for tokens (B, L), of shape (B, L, D)."""
        raise NotImplementedError

    def first(self, batch: int) -> tuple[Tensor, Any]:
        """Return the inputs of the first level, and what is remembered of what was drawn."""
        raise NotImplementedError

    def after(self, step: int, ids: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Return the inputs behind level ``step`` of tokens (B, T), and what is remembered."""
        raise NotImplementedError

    def level_features(self, step: int, z: Tensor) -> Tensor:
        """Return what the tokens of level ``step`` are drawn from, given what the decoder says."""
        return z

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Return features (B, L, D) of tokens, each of those of lower levels and of the label."""
        features: Tensor = self.decoder(self.inputs(ids), self.labels(labels))
        return self.in_places(features)

    def draw(
        self,
        z: Any,
        begin: int,
        sampler: Sampler,
        guidance: float | None,
        fixed: tuple[Tensor, Tensor] | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draw the tokens of a level.

        Parameters
        ----------
        z : Tensor of shape (B, T, D)
            What the decoder says of them; with guidance of twice as many rows.
        begin : int
            How many tokens are drawn already.
        sampler : Sampler
        guidance : float or None
            The weight of what the label changes.
        fixed : pair of Tensor or None
            This and all later tokens, as far as they are there, and which of them stay.
        generator : torch.Generator or None

        Returns
        -------
        Tensor of shape (B, T), or (B, T, E) of vectors
        """
        drawn: Tensor = self.head.sample(z, sampler, guidance, generator)
        if fixed is None:
            return drawn
        values, stays = (one[:, : drawn.shape[1]] for one in fixed)
        return torch.where(stays, values, drawn)

    def in_order(self, values: Tensor) -> Tensor:
        """Return values (B, L, ...) of tokens in the order in which they are drawn."""
        return values

    def in_places(self, values: Tensor) -> Tensor:
        """Undo :meth:`in_order`."""
        return values


class TokenLoss(Objective):
    """Cross-entropy of all tokens of images, in nats per token."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def loss(self, network: nn.Module, batch: ImageBatch, generator: torch.Generator) -> Any:
        """Return the sum of the losses of the tokens, and how many there are."""
        net: Any = network
        ids = batch["ids"] if "ids" in batch else self.tokenizer.ids(batch["images"])
        labels = batch.get("labels")
        if labels is None:
            labels = torch.full((len(ids),), net.labels.null, device=ids.device)
        total = net.head.loss(net(ids, labels), ids).sum()
        return {"loss": (total, torch.tensor(ids.numel(), device=ids.device))}


@dataclass(kw_only=True, eq=False, repr=False)
class LevelModel(DrawingEstimator):
    """A model that draws images level by level, see :class:`DrawingNetwork`."""

    def _sampled(
        self,
        n: int | None,
        label: Any,
        guidance: float,
        sampler: Sampler,
        random_state: int | None,
        **drawing: Any,
    ) -> np.ndarray:
        """Draw images, with what :meth:`_drawing` takes."""
        self.check_fitted()
        numbers = self._wanted(n, label)
        generator = make_generator(self._seed_of(random_state))
        tokens = self._drawn(numbers, guidance, sampler, generator, **drawing)
        return as_array(self._images_of(tokens), channels=self.image_shape_[0] > 1)

    def _images_of(self, tokens: Tensor) -> Tensor:
        """Return the images (B, C, H, W) of tokens (B, L), or of vectors (B, L, E)."""
        raise NotImplementedError

    def _drawn(
        self,
        numbers: Tensor,
        guidance: float,
        sampler: Sampler,
        generator: torch.Generator,
        given_tokens: tuple[Tensor, Tensor] | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw tokens (B, L), or vectors (B, L, E)."""
        self._check_guidance(guidance)
        ids, how = [], self._guidance(guidance)
        with torch.inference_mode():
            for begin in range(0, len(numbers), AT_ONCE):
                part = slice(begin, begin + AT_ONCE)
                held = (
                    None if given_tokens is None else (given_tokens[0][part], given_tokens[1][part])
                )
                labels = numbers[part]
                drawing = self._drawing(labels, bool(guidance), held, generator, **options)
                weights = [how.weight(share) for share in drawing.shares()]
                levels = generate_levels(
                    drawing,
                    labels,
                    sampler=sampler,
                    generator=generator,
                    guidance=weights.__getitem__ if guidance else None,
                )
                ids.append(drawing.in_places(torch.cat([drawn.tokens for drawn in levels], dim=1)))
        return torch.cat(ids)

    def _drawing(
        self,
        labels: Tensor,
        guided: bool,
        given_tokens: tuple[Tensor, Tensor] | None,
        generator: torch.Generator,
    ) -> LevelDrawing:
        """Return a drawing of images of some labels (B,); a subclass may take more options."""
        return LevelDrawing(self.module_, guided, given_tokens)

    def _guidance(self, scale: float) -> Guidance:
        return Guidance(scale)


@dataclass(kw_only=True, eq=False, repr=False)
class ImageModel(LevelModel):
    """A model that draws images as tokens, of a class if it was fitted with labels.

    Parameters
    ----------
    tokenizer : str or tokenizer
        What the tokens are. One that is fitted is used as it is, and shared by models; a copy of
        one that is not is fitted to the images first.
    mixer : str or subclass of Mixer
        What mixes the tokens, see :mod:`tsar.core.mixers`.

    Attributes
    ----------
    tokenizer_ : tokenizer
    """

    tokenizer: Any = "vq"
    mixer: Any = "attention"

    # The kinds of tokenizers that fit, by the name of the parameter.
    tokenizer_kinds: ClassVar[Mapping[str, Any]] = {}
    # The names of the mixers that fit.
    fitting_mixers: ClassVar[Callable[[], list[str]]] = staticmethod(causal_mixers)

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if isinstance(self.mixer, str):
            check_choice(self.name, "mixer", self.mixer, type(self).fitting_mixers())
        held, kinds = self.tokenizer, self.tokenizer_kinds
        if isinstance(held, str):
            check_choice(self.name, "tokenizer", held, kinds)
            if held == "pixels" and self.augment:
                raise ParameterError(
                    f"{self.name}: augment={self.augment!r} would change what the likelihood of "
                    f"pixels is of; set augment=None"
                )
            return
        fitting = tuple(kind for kind in kinds.values() if kind is not PixelTokenizer)
        if not isinstance(held, fitting):
            named = " or ".join(kind.__name__ for kind in fitting)
            raise ParameterError(
                f"{self.name}: tokenizer must be a name or a {named}, got {held!r}"
            )

    def _prepare(self, images: Tensor, labels: Tensor | None, go_on: bool) -> None:
        held = self.tokenizer
        if go_on:
            fitted = self.as_fitted.tokenizer
            if repr(held) != repr(fitted):
                raise ParameterError(
                    f"{self.name}: tokenizer has changed since the last fit, from {fitted!r} to "
                    f"{held!r}; restore it, or fit with warm_start=False"
                )
            return
        if held == "pixels":
            self.tokenizer_: Any = self._pixel_tokenizer()
        elif isinstance(held, str) or not held.__sklearn_is_fitted__():
            made = self.tokenizer_kinds[held]() if isinstance(held, str) else clone(held)
            if isinstance(held, str):
                made.set_params(random_state=self.random_state, device=self.device)
            self.tokenizer_ = made.fit(as_array(images, channels=True))
        else:
            if held.image_shape_ != self.image_shape_:
                raise DataError(
                    f"{self.name}: images must have the channels, height and width of the "
                    f"tokenizer, {held.image_shape_}, got {self.image_shape_}"
                )
            self.tokenizer_ = held
        if getattr(self.tokenizer_, "device_", str(images.device)) != str(images.device):
            raise ParameterError(
                f"{self.name}: tokenizer is on {self.tokenizer_.device_}, and the model on "
                f"{images.device}; give both the same device"
            )

    def _sources(
        self, images: Tensor, labels: Tensor | None
    ) -> tuple[ImageSource, ImageSource | None]:
        """Give tokens in place of images that are the same in every step."""
        training, validation = super()._sources(images, labels)
        for source in (training, validation):
            if source is not None and not changes(source):
                try:
                    parts = [self.tokenizer_.ids(part) for part in source.images.split(AT_ONCE)]
                except DataError as error:
                    raise DataError(f"{self.name}: {error}") from None
                source.ids = torch.cat(parts)
        return training, validation

    def _pixel_tokenizer(self) -> PixelTokenizer:
        """Return the tokenizer of pixels, for models that take them."""
        raise NotImplementedError(f"{self.name} takes no pixels as tokens")

    def _objective(self) -> Objective:
        return TokenLoss(self.tokenizer_)

    # --------------------------------------------------------------- likelihood

    def token_losses(self, images: Any, labels: Any = None) -> np.ndarray:
        """Return minus the log-likelihood of each token of images, in nats.

        Parameters
        ----------
        images : array-like of shape (n, H, W) or (n, H, W, C)
        labels : array-like of shape (n,), optional
            Without, that of a model that is not told what they show.

        Returns
        -------
        float64 array of shape (n, L)
        """
        tensor = self._read(images)
        numbers = self._label_numbers(labels, len(tensor))
        losses: list[np.ndarray] = []
        network: Any = self.module_
        with torch.inference_mode():
            for part, told in zip(tensor.split(AT_ONCE), numbers.split(AT_ONCE), strict=True):
                ids = self.tokenizer_.ids(part)
                losses.append(network.head.loss(network(ids, told), ids).double().cpu().numpy())
        return np.concatenate(losses)

    def score(self, images: Any, labels: Any = None) -> float:
        """Return minus the mean loss of a token, in nats; higher is better."""
        return -float(self.token_losses(images, labels).mean())

    def bits_per_dim(self, images: Any, labels: Any = None) -> float:
        """Return the bits that a value of a pixel takes; exact, of a model of pixels.

        Raises
        ------
        ParameterError
            The tokens are none of pixels, so that images have no likelihood.
        """
        self.check_fitted()
        if not isinstance(self.tokenizer_, PixelTokenizer):
            raise ParameterError(
                f"{self.name}: bits_per_dim is defined for tokenizer='pixels'; codes lose "
                f"something of an image, see reconstruct"
            )
        return float(self.token_losses(images, labels).mean() / np.log(2))

    # -------------------------------------------------------------------- drawing

    def sample(
        self,
        n: int | None = None,
        label: Any = None,
        *,
        guidance: float = 0.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        random_state: int | None = None,
    ) -> np.ndarray:
        """Draw images.

        Parameters
        ----------
        n : int or None
            How many; one, or one for each label.
        label : label, sequence of labels or None
            What they are to show; None leaves that open.
        guidance : float, default 0.0
            How much farther than the label asks for; 0 is the model itself. Higher numbers give
            clearer images, and fewer kinds of them.
        temperature : float, default 1.0
            0 takes the likeliest token every time.
        top_k, top_p : int and float, optional
            Draw from the best few only, see :class:`~tsar.core.sampling.Sampler`.
        random_state : int or None, default None
            Seed of the draws; None draws a new one.

        Returns
        -------
        float32 array of shape (n, H, W) or (n, H, W, C)
            In [0, 1].

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            A number is out of its range, or there is no such label.
        """
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p)
        return self._sampled(n, label, guidance, sampler, random_state)

    def _images_of(self, tokens: Tensor) -> Tensor:
        images: Tensor = self.tokenizer_.images(tokens)
        return images

    def _repainted(
        self,
        images: Tensor,
        opened: Tensor,
        numbers: Tensor,
        guidance: float,
        temperature: float,
        generator: torch.Generator,
    ) -> Tensor:
        ids = torch.cat([self.tokenizer_.ids(part) for part in images.split(AT_ONCE)])
        given_tokens = ids, ~self._tokens_of(opened)
        sampler = Sampler(temperature=temperature)
        drawn = self._drawn(numbers, guidance, sampler, generator, given_tokens)
        return self.tokenizer_.images(drawn)

    def _tokens_of(self, opened: Tensor) -> Tensor:
        """Return which tokens (B, L) have a pixel that is True in a mask (B, H, W)."""
        values = opened[:, None].float()
        parts = [F.adaptive_max_pool2d(values, side).flatten(1) > 0 for side in self._sides()]
        every = torch.cat(parts, dim=1)
        if isinstance(self.tokenizer_, PixelTokenizer):
            every = every.repeat_interleave(self.image_shape_[0], dim=1)
        return every

    def _sides(self) -> list[int]:
        """Return the sides of the maps of tokens."""
        raise NotImplementedError

    def reconstruct(self, images: Any) -> np.ndarray:
        """Return what is left of images as tokens, float32 in [0, 1]."""
        tensor = self._read(images)
        with torch.inference_mode():
            parts = [self.tokenizer_.images(self.tokenizer_.ids(p)) for p in tensor.split(AT_ONCE)]
        return as_array(torch.cat(parts), channels=self.image_shape_[0] > 1)

    # ---------------------------------------------------------------- persistence

    @property
    def members(self) -> Mapping[str, Any]:
        return {"tokenizer": self.tokenizer_} if self._has_member else {}

    @property
    def _has_member(self) -> bool:
        return isinstance(self.tokenizer_, ImageTokenizer)

    def restore_learned_state(
        self, record: dict[str, Any], tensors: dict[str, Tensor], members: Mapping[str, Estimator]
    ) -> None:
        if "tokenizer" in members:
            self.tokenizer_ = members["tokenizer"]
        else:
            self._restore_shape(record)
            self.tokenizer_ = self._pixel_tokenizer()
        super().restore_learned_state(record, tensors, dict(members))
