"""Language models on the core of the forecasters: fitted to texts, they continue them."""

from tsar.language.language_model import LanguageModel

__all__ = ["LanguageModel"]
