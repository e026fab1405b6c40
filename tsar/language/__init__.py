"""Language models on the core of the forecasters: fitted to texts, they continue them."""

from tsar.language.any_order import AnyOrderLM
from tsar.language.block_diffusion import BlockDiffusionLM
from tsar.language.hierarchical import BlockTransformer, MegaByte
from tsar.language.language_model import LanguageModel
from tsar.language.masked_diffusion import MaskedDiffusionLM

__all__ = [
    "AnyOrderLM",
    "BlockDiffusionLM",
    "BlockTransformer",
    "LanguageModel",
    "MaskedDiffusionLM",
    "MegaByte",
]
