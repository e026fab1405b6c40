"""Ways to draw the same texts with fewer passes of the network."""

from tsar.core.decoding.drafts import Draft, JacobiDraft, ModelDraft, NGramDraft, PromptLookup
from tsar.core.decoding.early_exit import EarlyExitDraft
from tsar.core.decoding.heads import (
    BlockwiseHeads,
    DraftHeads,
    HeadsDraft,
    HydraHeads,
    MedusaHeads,
)
from tsar.core.decoding.speculative import SpecTr, Speculative
from tsar.core.decoding.superposed import MixtureNetwork, Suggestion, superposed
from tsar.core.decoding.verification import residual, verify, verify_candidates
from tsar.params.constraints import check_choice

__all__ = [
    "BlockwiseHeads",
    "Draft",
    "DraftHeads",
    "EarlyExitDraft",
    "HeadsDraft",
    "HydraHeads",
    "JacobiDraft",
    "MedusaHeads",
    "MixtureNetwork",
    "ModelDraft",
    "NGramDraft",
    "PromptLookup",
    "SpecTr",
    "Speculative",
    "Suggestion",
    "make_decoding",
    "residual",
    "superposed",
    "verify",
    "verify_candidates",
]

# Those that need nothing but the text itself.
DECODINGS = {
    "prompt_lookup": lambda: Speculative(PromptLookup()),
    "ngram": lambda: Speculative(NGramDraft()),
    "jacobi": lambda: Speculative(JacobiDraft()),
}


def make_decoding(owner: str, decoding: str | Speculative) -> Speculative:
    """Return a way of decoding by its name, or as it is.

    Parameters
    ----------
    owner : str
        Who asks, for messages.
    decoding : {"prompt_lookup", "ngram", "jacobi"} or Speculative

    Raises
    ------
    ParameterError
        There is none of that name.
    """
    if isinstance(decoding, Speculative):
        return decoding
    check_choice(owner, "decoding", decoding, DECODINGS)
    return DECODINGS[decoding]()
