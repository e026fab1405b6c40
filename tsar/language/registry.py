"""Language models by name."""

from tsar import language
from tsar.language.base import TextEstimator
from tsar.params.registry import Registry, check_subclass_of

__all__ = ["LANGUAGE_MODELS"]

LANGUAGE_MODELS: Registry[type[TextEstimator]] = Registry(
    "language model",
    "tsar.language_models",
    {name: getattr(language, name) for name in language.__all__},
    check_subclass_of(TextEstimator, "a language model", "tsar.language.base"),
)
