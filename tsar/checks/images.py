"""What every image model promises beside the contract of all estimators."""

import functools
from typing import Any

import numpy as np
from sklearn.base import clone

from tsar.checks.contract import Check, Family, made_small, raises
from tsar.exceptions import DataError, NotFittedError
from tsar.image.base import DrawingEstimator, ImageEstimator
from tsar.image.drawn import ImageModel

__all__ = ["Images", "small_image_model"]

# By the one vocabulary that all models share, these make any of them small.
SMALL = {
    **{"d_model": 8, "n_heads": 2, "d_ff": 12, "n_layers": 2, "width": 8, "code_width": 4},
    **{
        "n_codes": 8,
        "patch_size": 4,
        "cell_size": 1,
        "max_steps": 4,
        "batch_size": 4,
        "random_state": 0,
        "device": "cpu",
    },
}


def small_image_model(cls: type[ImageEstimator], **parameters: Any) -> ImageEstimator:
    """Return an estimator of images that fits in a moment, its tokenizer included.

    Parameters
    ----------
    cls : type
        Its class.
    **parameters
        Set on top of the small settings.
    """
    if issubclass(cls, ImageModel) and "tokenizer" not in parameters:
        parameters["tokenizer"] = small_image_model(next(iter(cls.tokenizer_kinds.values())))
    estimator: ImageEstimator = made_small(cls, SMALL, **parameters)
    return estimator


class Images(Family):
    """Image models: they fit images, and images with labels."""

    def covers(self, estimator: Any) -> bool:
        # What needs labels is none that fits images alone.
        return isinstance(estimator, ImageEstimator) and not estimator.needs_labels

    def small(self, cls: type[Any]) -> Any:
        return small_image_model(cls)

    def data(self, seed: int = 0) -> np.ndarray:
        draw = np.random.default_rng(seed)
        place = draw.integers(2, 6, size=(12, 2))
        grid = np.arange(8)
        rows, columns = grid[None, :, None], grid[None, None, :]
        distance = np.hypot(rows - place[:, :1, None], columns - place[:, 1:, None])
        return np.clip(1.2 - distance / 3, 0, 1).astype(np.float32)

    def answer(self, fitted: Any) -> np.ndarray:
        images = self.data(7)
        if isinstance(fitted, ImageModel):
            return np.asarray(fitted.token_losses(images))
        if isinstance(fitted, DrawingEstimator):
            return np.asarray(fitted.score(images))
        return np.asarray(fitted.reconstruct(images))

    def checks(self, estimator: Any) -> tuple[Check, ...]:
        own = [check_images, check_labels]
        if isinstance(estimator, DrawingEstimator):
            own.append(check_sampling)
        checks: list[Check] = []
        for check in own:
            checks.append(functools.update_wrapper(functools.partial(check, family=self), check))
        return tuple(checks)


def check_images(estimator: Any, family: Family) -> None:
    """What are no images, or none of the fitted size, is refused before any training."""
    model, images = clone(estimator), family.data()
    raises(NotFittedError, "call fit first", lambda: model.score(images))
    holed = images.copy()
    holed[2, 3, 3] = np.nan
    for wrong, words in (
        (images[:0], "at least one image"),
        (images[0], "images[None]"),
        (images[:, :7, :7], "divisible by 4"),
        (images[:, :4], "square"),
        (images * 255, "floats in [0, 1]"),
        (holed, "in image 2"),
        (images.astype(np.int64), "got int64"),
        ([images[0], images[1][:4, :4]], "of one size"),
    ):
        raises(DataError, words, lambda wrong=wrong: model.fit(wrong))  # type: ignore[misc]
    raises(NotFittedError, "call fit first", lambda: model.score(images))
    fitted = clone(estimator).fit(images)
    raises(DataError, "fitted channels", lambda: fitted.score(images[:, :4, :4]))


def check_labels(estimator: Any, family: Family) -> None:
    """Labels of another number than images, or missing ones, are refused."""
    images = family.data()
    for labels, words in (
        (np.zeros(len(images) + 1), "one for each of the 12 images"),
        ([None] * len(images), "missing"),
    ):
        raises(
            DataError,
            words,
            lambda labels=labels: clone(estimator).partial_fit(images, labels),  # type: ignore[misc]
        )


def check_sampling(estimator: Any, family: Family) -> None:
    """One seed gives one drawing, of the classes that were fitted, and what is kept stays."""
    images = family.data()
    labels = np.array(["a", "b", "c"] * 4)
    fitted = clone(estimator).fit(images, labels)
    first = fitted.sample(label=["a", "c"], guidance=1.0, random_state=3)
    assert first.shape == (2, 8, 8) and first.min() >= 0 and first.max() <= 1
    np.testing.assert_array_equal(first, fitted.sample(2, ["a", "c"], guidance=1.0, random_state=3))
    raises(DataError, "got ['d']", lambda: fitted.sample(label="d"))
    mask = np.zeros((8, 8), dtype=bool)
    mask[4:] = True
    painted = fitted.inpaint(images, mask, labels, random_state=0)
    np.testing.assert_allclose(painted[:, :4], images[:, :4], atol=1e-6)
