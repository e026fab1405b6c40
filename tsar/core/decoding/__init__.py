"""Ways to draw the same texts with fewer passes of the network."""

from tsar.core.decoding.drafts import Draft, ModelDraft, NGramDraft, PromptLookup
from tsar.core.decoding.speculative import Speculative, residual, verify
from tsar.params.constraints import check_choice

__all__ = [
    "Draft",
    "ModelDraft",
    "NGramDraft",
    "PromptLookup",
    "Speculative",
    "make_decoding",
    "residual",
    "verify",
]

# Those that need nothing but the text itself.
DECODINGS = {
    "prompt_lookup": lambda: Speculative(PromptLookup()),
    "ngram": lambda: Speculative(NGramDraft()),
}


def make_decoding(owner: str, decoding: str | Speculative) -> Speculative:
    """Return a way of decoding by its name, or as it is.

    Parameters
    ----------
    owner : str
        Who asks, for messages.
    decoding : {"prompt_lookup", "ngram"} or Speculative

    Raises
    ------
    ParameterError
        There is none of that name.
    """
    if isinstance(decoding, Speculative):
        return decoding
    check_choice(owner, "decoding", decoding, DECODINGS)
    return DECODINGS[decoding]()
