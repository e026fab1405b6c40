"""Estimators of images by name."""

from tsar import image
from tsar.image.base import ImageEstimator
from tsar.params.registry import Registry, check_subclass_of

__all__ = ["IMAGE_MODELS"]

IMAGE_MODELS: Registry[type[ImageEstimator]] = Registry(
    "image model",
    "tsar.image_models",
    {name: getattr(image, name) for name in image.__all__},
    check_subclass_of(ImageEstimator, "an image model", "tsar.image.base"),
)
