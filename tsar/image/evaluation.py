"""How good drawn images are: what a classifier sees in them, and how near they are to real ones."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.sampling import Sampler
from tsar.exceptions import DataError, ParameterError
from tsar.image.base import AT_ONCE, ImageBatch, ImageEstimator
from tsar.image.pixels import CELL, as_labels
from tsar.params.constraints import Interval
from tsar.training import Objective

__all__ = ["DigitClassifier", "frechet_distance", "image_quality", "near_copies"]


class ClassifierNetwork(nn.Module):
    """Two convolutions, 64 features, and a map to the logits of classes."""

    def __init__(self, shape: tuple[int, int, int], n_classes: int, width: int) -> None:
        super().__init__()
        channels, height, _ = shape
        side = height // CELL
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.dropout = Dropout(0.25)
        self.features = Linear(2 * width * side * side, N_FEATURES)
        self.head = Linear(N_FEATURES, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, 64) of images (B, C, H, W)."""
        return F.relu(self.features(self.dropout(self.convolutions(images).flatten(1))))


N_FEATURES = 64


class ClassLoss(Objective):
    """Cross-entropy of the class of each image."""

    def loss(self, network: nn.Module, batch: ImageBatch, generator: torch.Generator) -> Any:
        """Return the sum of the losses of a batch, and how many images it has."""
        net: Any = network
        logits = net.head(net(batch["images"]))
        total = F.cross_entropy(logits, batch["labels"], reduction="sum")
        return {"loss": (total, torch.tensor(len(logits), device=logits.device))}


@dataclass(kw_only=True, eq=False, repr=False)
class DigitClassifier(ImageEstimator):
    """A small convolutional classifier, by which drawn images are judged.

    Parameters
    ----------
    width : int, default 32
        Channels of the first convolution.
    augment : {"shift"} or None, default "shift"
        "shift" moves each image of a step by up to two pixels.

    References
    ----------
    LeCun et al., "Gradient-based learning applied to document recognition", Proceedings of the
    IEEE 86 (1998).
    """

    width: Annotated[int, Interval(1)] = 32
    augment: Any = "shift"

    needs_labels: ClassVar[bool] = True

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if self.augment not in ("shift", None):
            raise ParameterError(
                f"{self.name}: augment must be 'shift' or None, got {self.augment!r}"
            )

    def _make_network(self) -> ClassifierNetwork:
        assert self.classes_ is not None, "it is fitted with labels"
        return ClassifierNetwork(self.image_shape_, len(self.classes_), int(self.width))

    def _objective(self) -> Objective:
        return ClassLoss()

    @property
    def _network(self) -> Any:
        return self.module_

    def features(self, images: Any) -> np.ndarray:
        """Return the features that classes are told by, float64 of shape (n, 64)."""
        with torch.inference_mode():
            parts = [self.module_(part).double() for part in self._read(images).split(AT_ONCE)]
        return torch.cat(parts).cpu().numpy()

    def predict_proba(self, images: Any) -> np.ndarray:
        """Return the probability of each class, float64 of shape (n, n_classes)."""
        features = torch.from_numpy(self.features(images)).to(self.device_)
        with torch.inference_mode():
            return Sampler().probabilities(self._network.head(features.float())).cpu().numpy()

    def predict(self, images: Any) -> np.ndarray:
        """Return the likeliest label of each image."""
        assert self.classes_ is not None, "it is fitted with labels"
        return self.classes_[self.predict_proba(images).argmax(axis=1)]

    def score(self, images: Any, labels: Any = None) -> float:
        """Return the share of images whose label is predicted.

        Raises
        ------
        DataError
            There are no labels, or others than were fitted.
        """
        if labels is None:
            raise DataError(f"{self.name}: score needs labels; pass score(images, labels)")
        predicted = self.predict(images)
        as_labels(self.name, labels, len(predicted), self.classes_)
        return float((predicted == np.asarray(labels)).mean())


def frechet_distance(features: np.ndarray, others: np.ndarray) -> float:
    """Return the Frechet distance of two clouds of features, taken as normal distributions.

    ``|m1 - m2|^2 + trace(S1 + S2 - 2 (S1 S2)^(1/2))``. It depends on how many there are: print
    beside it that of real images and as many other real ones.

    Parameters
    ----------
    features, others : array of shape (n, D)

    Raises
    ------
    DataError
        There are fewer than two of one, or they differ in width.

    References
    ----------
    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium", NeurIPS 2017.
    """
    one, other = np.asarray(features, np.float64), np.asarray(others, np.float64)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise DataError(
            f"frechet_distance: features must be of one width, (n, D), got {one.shape} and "
            f"{other.shape}; take both from one classifier"
        )
    if min(len(one), len(other)) < 2:
        raise DataError("frechet_distance: there must be two of each at least, to have a spread")
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    # The trace of the root of a product, by its eigenvalues; rounding makes some negative.
    roots = np.linalg.eigvals(np.atleast_2d(first) @ np.atleast_2d(second)).real.clip(min=0)
    gap = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    traces = np.trace(np.atleast_2d(first)) + np.trace(np.atleast_2d(second))
    return float(gap + traces - 2 * np.sqrt(roots).sum())


def near_copies(images: Any, training: Any, others: Any) -> float:
    """Return the share of images that are nearer to a training image than real ones are.

    An image counts whose nearest training image is nearer (by the mean squared difference of
    pixels) than those of 99 in 100 other real images.

    Parameters
    ----------
    images, training, others : array-like of shape (n, H, W) or (n, H, W, C)
        Drawn ones, those that the model was fitted to, and real ones that it has not seen.

    Raises
    ------
    DataError
        They differ in size.
    """
    clouds = [_flat(one) for one in (images, training, others)]
    if len({cloud.shape[1] for cloud in clouds}) > 1:
        raise DataError("near_copies: images must be of one size; resize them")
    drawn, fitted, real = clouds
    border = np.quantile(_nearest(real, fitted), 0.01)
    return float((_nearest(drawn, fitted) < border).mean())


def _flat(images: Any) -> np.ndarray:
    held = np.asarray(images)
    scaled = held / 255 if held.dtype == np.uint8 else held
    return scaled.reshape(len(held), -1).astype(np.float32)


def _nearest(images: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Return the mean squared difference of each image to the nearest training one."""
    squares = np.square(training).sum(axis=1)
    nearest = [
        (np.square(part).sum(axis=1)[:, None] - 2 * part @ training.T + squares).min(axis=1)
        for part in np.array_split(images, max(len(images) // AT_ONCE, 1))
    ]
    return np.concatenate(nearest) / images.shape[1]


def image_quality(
    images: Any, labels: Any, classifier: DigitClassifier, real: Any, training: Any
) -> dict[str, float]:
    """Judge images that were drawn of labels.

    Parameters
    ----------
    images : array-like of shape (n, H, W) or (n, H, W, C)
        The drawn ones.
    labels : array-like of shape (n,)
        What each was asked to show.
    classifier : DigitClassifier
        Fitted to real images.
    real : array-like
        Real ones that nothing was fitted to; twice as many as drawn ones, or more.
    training : array-like
        Those that the model was fitted to.

    Returns
    -------
    dict of str to float
        ``recognised``, the share in which the classifier sees what was asked for; ``frechet`` of
        its features, and ``frechet_real`` between as many real images and others; ``near_copies``,
        see :func:`near_copies` (of real images it is about .01).

    Raises
    ------
    DataError
        There are too few real images.
    """
    n_images = len(images)
    if len(real) < 2 * n_images:
        raise DataError(
            f"image_quality: real must hold {2 * n_images} images, twice as many as were drawn, "
            f"got {len(real)}; draw fewer"
        )
    one, other = (
        classifier.features(real[part]) for part in (slice(n_images), slice(n_images, 2 * n_images))
    )
    return {
        "recognised": float((classifier.predict(images) == np.asarray(labels)).mean()),
        "frechet": frechet_distance(classifier.features(images), one),
        "frechet_real": frechet_distance(one, other),
        "near_copies": near_copies(images, training, real),
    }
