"""Autoregression of texts in every order."""

from dataclasses import dataclass

from tsar.language.masked_text import MaskedText, UniformCounts
from tsar.training import Objective

__all__ = ["AnyOrderLM"]


@dataclass(kw_only=True, eq=False, repr=False)
class AnyOrderLM(MaskedText):
    """A language model that is autoregressive in every order of the tokens.

    In training any number of tokens of a window is masked, each number as often as another, and
    the mean of their losses is what is lowered: one step of an order that is drawn. So it is
    trained for just the bound that its likelihoods are, where
    :class:`~tsar.language.MaskedDiffusionLM` masks each token by itself.

    References
    ----------
    Hoogeboom et al., "Autoregressive diffusion models", ICLR 2022, section 3.

    Examples
    --------
    >>> from tsar.language import AnyOrderLM
    >>> model = AnyOrderLM(
    ...     context_length=32, d_model=32, n_layers=2, d_ff=64, max_steps=60, random_state=0,
    ...     device="cpu",
    ... ).fit(["one, two, three, four. " * 40])
    >>> len(model.generate("one, two", max_tokens=7, random_state=0)) <= 7
    True
    """

    def _objective(self) -> Objective:
        return UniformCounts()
