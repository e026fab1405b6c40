"""What all estimators have in common that are fitted to images."""

import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Self, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from tsar.core.conditioned import ConditionedDecoder
from tsar.core.conditioning import LabelEmbedding
from tsar.core.mixers import Mixer, accepted_options, make_mixer
from tsar.data.codec import decode, encode
from tsar.estimator.base import Estimator
from tsar.estimator.trained import Positive, ScheduleName, TrainedEstimator
from tsar.exceptions import DataError, ParameterError, PersistenceError
from tsar.image.pixels import as_array, as_labels, as_tensor, shifted
from tsar.params.constraints import Interval, check_count, check_value
from tsar.params.records import LONGEST
from tsar.training import (
    AdamW,
    Cosine,
    Objective,
    Optimizer,
    Schedule,
    make_generator,
    resolve_device,
    seeded,
)
from tsar.training.checkpoint import checkpoints_in, digest
from tsar.training.state import TrainedFitted, TrainingRecord
from tsar.training.threads import settle_number

__all__ = ["DrawingEstimator", "ImageBatch", "ImageEstimator", "ImageRecord", "ImageSource"]

# Of all images, held out where early stopping says no more than True.
VALIDATION_SHARE = 0.1
# Channels or pixels along a side that a saved model may have.
LARGEST_SIDE = 4096
# Images that are handled at a time where no gradients are needed.
AT_ONCE = 256


class ImageBatch(TypedDict):
    """What a training step is given.

    Images (B, C, H, W) in [-1, 1], or their tokens (B, L) where these are the same in every step;
    and labels (B,), if there are any.
    """

    images: NotRequired[Tensor]
    ids: NotRequired[Tensor]
    labels: NotRequired[Tensor]


class ImageSource:
    """Images by their numbers, moved a little at random if wanted.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
    labels : int64 Tensor of shape (n,) or None
    generator : torch.Generator, optional
        Of the shifts; None leaves images where they are.
    """

    def __init__(
        self, images: Tensor, labels: Tensor | None, generator: torch.Generator | None = None
    ) -> None:
        self.images, self.labels = images, labels
        # The tokens of the images, (n, L), which are given in their place once they are known.
        self.ids: Tensor | None = None
        if generator is not None:
            # Only a source that draws has one, see tsar.training.objective.
            self.generator = generator

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: Tensor) -> ImageBatch:
        """Return the images with the numbers ``index``."""
        index = index.to(self.images.device)
        batch: ImageBatch = {}
        if self.ids is not None:
            batch["ids"] = self.ids[index]
        elif hasattr(self, "generator"):
            batch["images"] = shifted(self.images[index], self.generator)
        else:
            batch["images"] = self.images[index]
        if self.labels is not None:
            batch["labels"] = self.labels[index]
        return batch


class ImageFacts(TypedDict):
    """What JSON holds of the fitted images."""

    shape: list[Annotated[int, Interval(1, LARGEST_SIDE)]]
    classes: list[Any] | None
    n_images: Annotated[int, Interval(1, LONGEST)]


class ImageRecord(TypedDict):
    """What JSON holds of an estimator of images."""

    training: TrainingRecord
    fitted: TrainedFitted
    image: ImageFacts


@dataclass(kw_only=True, eq=False, repr=False)
class ImageEstimator(TrainedEstimator):
    """An estimator that is fitted to images, with labels or without.

    A subclass gives the network and the objective.

    Parameters
    ----------
    max_epochs : int or None, default None
        Longest training in passes over the images.
    max_steps : int or None, default 1000
        Longest training in steps, which the schedule is laid over.
    batch_size : int, default 64
        Images per step.
    optimizer : {"adam", "adamw"} or Optimizer
        By default ``AdamW(weight_decay=0.05, betas=(0.9, 0.95), clip=2.0)``.
    learning_rate : float, default 1e-3
        Largest learning rate of the schedule.
    learning_rate_schedule : str or Schedule
        By default ``Cosine(lowest=0.05, warmup_steps=50)``.
    early_stopping : bool, int or float, default False
        Whether to hold out some of the images, as a share or a number (True is a tenth), stop
        when they are no longer predicted better, and keep the best weights.
    augment : {"shift"} or None, default None
        "shift" moves each image of a step by up to two pixels.

    Attributes
    ----------
    image_shape_ : tuple of int
        Channels, height and width.
    classes_ : ndarray or None
        The labels, sorted; None without labels.
    n_images_ : int
        Images of the fit.
    """

    parameter_group: ClassVar[str] = "data"
    learned_record: ClassVar[Any] = ImageRecord

    max_epochs: Positive | None = None  # type: ignore[assignment]
    max_steps: Positive | None = 1000
    batch_size: Positive = 64
    optimizer: Literal["adam", "adamw"] | Optimizer = AdamW(
        weight_decay=0.05, betas=(0.9, 0.95), clip=2.0
    )
    learning_rate: Annotated[float, Interval(0, open_low=True)] = 1e-3
    learning_rate_schedule: ScheduleName | Schedule = Cosine(lowest=0.05, warmup_steps=50)
    early_stopping: bool | Positive | Annotated[float, Interval(0, 1, True, True)] = False
    augment: Literal["shift"] | None = None

    # Whether it learns from labels alone.
    needs_labels: ClassVar[bool] = False

    # ------------------------------------------------------------- what a subclass gives

    @abstractmethod
    def _make_network(self) -> nn.Module:
        """Build the network, for ``image_shape_`` and ``classes_``."""

    @abstractmethod
    def _objective(self) -> Objective:
        """Return what it is trained for."""

    def _prepare(self, images: Tensor, labels: Tensor | None, go_on: bool) -> None:
        """Get ready what the network is built on, such as a tokenizer."""

    # ------------------------------------------------------------------------ fit

    def fit(
        self,
        images: Any,
        labels: Any = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on images; afresh, unless ``warm_start`` is set.

        Parameters
        ----------
        images : array-like of shape (n, H, W) or (n, H, W, C)
            uint8, or floats in [0, 1]; square, the sides divisible by 4.
        labels : array-like of shape (n,), optional
            What each of them shows.
        checkpoint : path, optional
            A folder in which the training leaves its state every ten minutes, from which the same
            call goes on where it was killed. Nothing is left of a fit that ended.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            A parameter is outside of its constraint.
        DataError
            The images or the labels have a fault.
        TrainingError
            The loss is not finite, or the checkpoint is of another training.
        """
        with checkpoints_in(checkpoint):
            return self._fit(images, labels, go_on=self.warm_start)

    def partial_fit(self, images: Any, labels: Any = None) -> Self:
        """Go on training the fitted network, on these images.

        Parameters
        ----------
        images, labels
            As :meth:`fit` takes them, of the fitted shape and classes.

        Returns
        -------
        self
        """
        return self._fit(images, labels, go_on=True)

    # The caller may have turned gradients off around the fit.
    @torch.inference_mode(False)
    @torch.enable_grad()
    def _fit(self, images: Any, labels: Any, go_on: bool) -> Self:
        self.check()
        tensor = as_tensor(self.name, images)
        if labels is None and self.needs_labels:
            raise DataError(f"{self.name}: labels must be given; pass fit(images, labels)")
        settle_number()
        go_on = go_on and self.__sklearn_is_fitted__()
        channels, height, width = tensor.shape[1:]
        classes: np.ndarray | None = None
        if go_on:
            self._check_shape(tensor)
            classes = self.classes_
            if (labels is None) != (classes is None):
                raise DataError(
                    f"{self.name}: training goes on with labels where it began with labels; pass "
                    f"them as before"
                )
        numbers = None
        if labels is not None:
            numbers = as_labels(self.name, labels, len(tensor), classes)
            classes = np.unique(np.asarray(labels)) if classes is None else classes
        device = resolve_device(self.device)
        tensor, numbers = tensor.to(device), None if numbers is None else numbers.to(device)
        before = dict(self.__dict__)
        self.image_shape_: tuple[int, int, int] = (channels, height, width)
        self.classes_: np.ndarray | None = classes
        self.n_images_ = len(tensor)
        try:
            self._prepare(tensor, numbers, go_on)
            training, validation = self._sources(tensor, numbers)
            self._fit_network(
                self._make_network,
                training,
                validation,
                self._objective(),
                data=lambda: digest([tensor, numbers]),
                go_on=go_on,
            )
        except BaseException:
            # A fit that failed leaves what was fitted before as it was.
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        self.remember_parameters()
        return self

    @property
    def _planned_steps(self) -> int:
        """The steps of a training that nothing ends before."""
        per_epoch = max((self.n_images_ - self._n_held_out) // self.batch_size, 1)
        bounds = [self.max_steps, None if self.max_epochs is None else self.max_epochs * per_epoch]
        return min(bound for bound in bounds if bound is not None)

    @property
    def _n_held_out(self) -> int:
        """How many of the images early stopping asks for."""
        size = self.early_stopping
        share = VALIDATION_SHARE if isinstance(size, bool | np.bool_) and size else size
        return max(1, int(self.n_images_ * share)) if 0 < share < 1 else int(share)

    def _check_shape(self, images: Tensor) -> None:
        if tuple(images.shape[1:]) != self.image_shape_:
            raise DataError(
                f"{self.name}: images must have the fitted channels, height and width "
                f"{self.image_shape_}, got {tuple(images.shape[1:])}; resize them"
            )

    def _read(self, images: Any) -> Tensor:
        """Return images of the fitted shape, (n, C, H, W), on the device of the network."""
        self.check_fitted()
        tensor = as_tensor(self.name, images)
        self._check_shape(tensor)
        return tensor.to(self.device_)

    def _sources(
        self, images: Tensor, labels: Tensor | None
    ) -> tuple[ImageSource, ImageSource | None]:
        """Divide the images into those to train on and those held out, if there are any."""
        held_out = self._n_held_out
        if held_out >= len(images):
            raise DataError(
                f"{self.name}: early_stopping={self.early_stopping!r} holds out {held_out} of "
                f"{len(images)} images; pass more, or hold out fewer"
            )
        # Other numbers than those that shuffle.
        seed = self._draw_seed() ^ 1
        generator = make_generator(seed) if self.augment == "shift" else None
        # In any order: images often come sorted by their labels.
        order = torch.randperm(len(images), generator=make_generator(0)) if held_out else None
        parts = (images, labels) if order is None else (images[order], _taken(labels, order))
        cut = len(images) - held_out
        training = ImageSource(parts[0][:cut], _taken(parts[1], slice(cut)), generator)
        if not held_out:
            return training, None
        return training, ImageSource(parts[0][cut:], _taken(parts[1], slice(cut, None)))

    # ---------------------------------------------------------------- persistence

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        self.check_fitted()
        record, tensors = self._trained_state()
        classes = None if self.classes_ is None else [encode(one) for one in self.classes_.tolist()]
        image = {
            "shape": list(self.image_shape_),
            "classes": classes,
            "n_images": self.n_images_,
        }
        return {**record, "image": image}, tensors

    def _restore_shape(self, record: dict[str, Any]) -> None:
        shape = record["image"]["shape"]
        if len(shape) != 3:
            raise PersistenceError(f"load: images have three sizes, got {shape}")
        self.image_shape_ = (shape[0], shape[1], shape[2])

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: "dict[str, Estimator] | Any",
    ) -> None:
        image = record["image"]
        self._restore_shape(record)
        held = image["classes"]
        self.classes_ = None if held is None else np.array([decode(one) for one in held])
        self.n_images_ = int(image["n_images"])

        def build() -> nn.Module:
            with seeded(0):
                return self._make_network()

        self._restore_trained_state(build, record, tensors)
        self.remember_parameters()


@dataclass(kw_only=True, eq=False, repr=False)
class DrawingEstimator(ImageEstimator):
    """An estimator that draws images, of a class if it was fitted with labels.

    Parameters
    ----------
    d_model : int, default 128
        Width of the tokens.
    n_layers : int, default 4
        Blocks.
    n_heads : int, default 4
        Of mixers that have heads; divides ``d_model``.
    d_ff : int, default 384
        Width inside of the feed-forward part.
    dropout : float, default 0.0
        Of both branches of a block.
    label_drop : float, default 0.1
        How often a label is hidden in training, which is what guidance compares with.
    """

    parameter_group: ClassVar[str] = "model"
    other_groups: ClassVar[Mapping[str, str]] = {"label_drop": "training"}

    d_model: Positive = 128
    n_layers: Positive = 4
    n_heads: Positive = 4
    d_ff: Positive = 384
    dropout: Annotated[float, Interval(0, 1, open_high=True)] = 0.0
    label_drop: Annotated[float, Interval(0, 1)] = 0.1

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if self.d_model % self.n_heads:
            raise ParameterError(
                f"{self.name}: d_model must be a multiple of n_heads={self.n_heads}, got "
                f"{self.d_model}"
            )

    def _make_mixers(self, mixer: Any, n_layers: int, *, causal: bool) -> list[Mixer]:
        """Build the mixers of so many blocks."""
        options = accepted_options(mixer, n_heads=int(self.n_heads), causal=causal, qk_norm=True)
        return [make_mixer(mixer, int(self.d_model), **options) for _ in range(n_layers)]

    @property
    def _sizes(self) -> dict[str, Any]:
        """What all kinds of blocks are told."""
        d_model = int(self.d_model)
        return {
            "d_model": d_model,
            "d_ff": int(self.d_ff),
            "condition_dim": d_model,
            "dropout": self.dropout,
        }

    def _make_labels(self) -> LabelEmbedding:
        """Build what tells the label to blocks."""
        return LabelEmbedding(self._n_classes, int(self.d_model), drop=self.label_drop)

    def _make_decoder(
        self, mixer: Any, levels: Tensor, *, causal: bool, across: Any = None
    ) -> tuple[ConditionedDecoder, LabelEmbedding]:
        """Build blocks with a mixer for tokens of such levels, and what tells them the label."""
        blocks = self._make_blocks(mixer, levels, int(self.n_layers), causal=causal, across=across)
        return blocks, self._make_labels()

    def _make_blocks(
        self, mixer: Any, levels: Tensor, n_layers: int, *, causal: bool, across: Any = None
    ) -> ConditionedDecoder:
        return ConditionedDecoder(
            self._make_mixers(mixer, n_layers, causal=causal),
            levels=levels,
            across=None if across is None else self._make_mixers(across, n_layers, causal=True),
            **self._sizes,
        )

    @abstractmethod
    def score(self, images: Any, labels: Any = None) -> float:
        """Return how well images are predicted; higher is better."""

    def _mean_error(self, objective: Objective, images: Any, labels: Any) -> float:
        """Return the mean loss of images, with the same random numbers every time."""
        tensor = self._read(images)
        numbers = self._label_numbers(labels, len(tensor))
        total, count, generator = 0.0, 0, make_generator(0, self.device_)
        with torch.inference_mode():
            for part, told in zip(tensor.split(AT_ONCE), numbers.split(AT_ONCE), strict=True):
                batch: ImageBatch = {"images": part, "labels": told}
                error, n_errors = objective.loss(self.module_, batch, generator)["loss"]
                total, count = total + float(error), count + int(n_errors)
        return total / count

    @property
    def _n_classes(self) -> int:
        return 0 if self.classes_ is None else len(self.classes_)

    def _label_numbers(self, labels: Any, n_images: int) -> Tensor:
        if labels is None:
            # The number behind those of the classes stands for none.
            return torch.full((n_images,), self._n_classes, device=self.device_)
        if self.classes_ is None:
            raise DataError(f"{self.name}: it was fitted without labels; leave them out")
        return as_labels(self.name, labels, n_images, self.classes_).to(self.device_)

    def _wanted(self, n: Any, label: Any) -> Tensor:
        """Return the number of the class of each image to draw."""
        several = label is not None and not isinstance(label, str) and np.ndim(label) == 1
        count = None if n is None else check_count(self.name, "n", n)
        if label is None:
            return self._label_numbers(None, count or 1)
        labels = list(label) if several else [label] * (count or 1)
        if several and count not in (None, len(labels)):
            raise ParameterError(
                f"{self.name}: n must be the number of labels, {len(labels)}, got {n}; leave it out"
            )
        return self._label_numbers(labels, len(labels))

    def _seed_of(self, random_state: int | None) -> int:
        if random_state is None:
            return int(np.random.SeedSequence().entropy % 2**63)  # type: ignore[operator]
        check_value(self.name, "random_state", random_state, Annotated[int, Interval(0)])
        return int(random_state)

    def inpaint(
        self,
        images: Any,
        mask: Any,
        labels: Any = None,
        *,
        guidance: float = 0.0,
        temperature: float = 1.0,
        random_state: int | None = None,
    ) -> np.ndarray:
        """Draw parts of images anew.

        Parameters
        ----------
        images : array-like of shape (n, H, W) or (n, H, W, C)
        mask : bool array of shape (H, W) or (n, H, W)
            True where to draw; cells with such a pixel are drawn as a whole, and nothing else is
            changed.
        labels : array-like of shape (n,), optional
            What they are to show.
        guidance, temperature, random_state
            As for ``sample``.

        Returns
        -------
        float32 array of the shape of the images

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            A number is out of its range, or images, mask or labels have a fault.
        """
        tensor = self._read(images)
        opened = self._opened(mask, len(tensor))
        numbers = self._label_numbers(labels, len(tensor))
        self._check_guidance(guidance)
        generator = make_generator(self._seed_of(random_state))
        with torch.inference_mode():
            drawn = self._repainted(tensor, opened, numbers, guidance, temperature, generator)
            painted = torch.where(opened[:, None], drawn, tensor)
        return as_array(painted, channels=self.image_shape_[0] > 1)

    @abstractmethod
    def _repainted(
        self,
        images: Tensor,
        opened: Tensor,
        numbers: Tensor,
        guidance: float,
        temperature: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Draw images (n, C, H, W) anew where a mask (n, H, W) is True."""

    def _check_guidance(self, guidance: float) -> None:
        if self.classes_ is None and guidance:
            raise ParameterError(
                f"{self.name}: guidance={guidance} compares with and without a label, and the "
                f"model was fitted without labels; set guidance=0"
            )

    def _opened(self, mask: Any, n_images: int) -> Tensor:
        """Return a mask of pixels as a bool Tensor (n, H, W), on the device of the network."""
        where, (height, width) = np.asarray(mask), self.image_shape_[1:]
        if where.dtype != np.bool_ or where.shape not in (
            (height, width),
            (n_images, height, width),
        ):
            raise DataError(
                f"{self.name}: mask must be boolean of the shape {(height, width)} or "
                f"{(n_images, height, width)}, got {where.dtype} of {where.shape}"
            )
        opened = np.broadcast_to(where, (n_images, height, width)).copy()
        return torch.from_numpy(opened).to(self.device_)


def _taken(labels: Tensor | None, places: Any) -> Tensor | None:
    return None if labels is None else labels[places]
