"""Language models on the core of the forecasters: fitted to texts, they continue them."""

from tsar.language.language_model import LanguageModel
from tsar.language.masked_diffusion import MaskedDiffusionLM

__all__ = ["LanguageModel", "MaskedDiffusionLM"]
