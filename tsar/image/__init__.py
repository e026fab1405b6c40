"""Image models on the core of the forecasters: fitted to images, they draw new ones."""

from tsar.image.arpg import ARPG
from tsar.image.block_flow import BlockFlow
from tsar.image.evaluation import DigitClassifier
from tsar.image.flow_ar import FlowAR
from tsar.image.mar import MAR
from tsar.image.nar import NAR
from tsar.image.token_ar import PAR, RAR, AiM, TokenAR
from tsar.image.tokenizer import MultiScaleTokenizer, VQTokenizer
from tsar.image.var import VAR

__all__ = [
    "ARPG",
    "MAR",
    "NAR",
    "PAR",
    "RAR",
    "VAR",
    "AiM",
    "BlockFlow",
    "DigitClassifier",
    "FlowAR",
    "MultiScaleTokenizer",
    "TokenAR",
    "VQTokenizer",
]
