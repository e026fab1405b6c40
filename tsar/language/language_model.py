"""The autoregressive language model: any causal mixer, one token after the other."""

from dataclasses import dataclass

from torch import nn

from tsar.language.autoregressive import AutoregressiveText
from tsar.language.network import TokenNetwork

__all__ = ["LanguageModel"]


@dataclass(kw_only=True, eq=False, repr=False)
class LanguageModel(AutoregressiveText):
    """A language model of any causal mixer: fitted to texts, it continues a text.

    Blocks of a mixer and a feed-forward part, normalised by root mean squares, between an
    embedding and the same embedding again. Attention turns queries and keys by their positions;
    recurrences need none.

    Parameters
    ----------
    mixer : str, subclass of Mixer, or list of these, default "attention"
        What mixes tokens: "attention", "mamba", "mamba2", "linear_attention", "retention" or any
        other that is causal, see :mod:`tsar.core.mixers`. Of a list the blocks take one after the
        other, from the first again at the end: ``["mamba2", "attention"]`` is a hybrid.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017; Touvron et al., "LLaMA: open and
    efficient foundation language models", arXiv:2302.13971 (norm and positions); Gu and Dao,
    "Mamba", arXiv:2312.00752.

    Examples
    --------
    >>> from tsar.language import LanguageModel
    >>> texts = ["one, two, three, four. " * 40]
    >>> model = LanguageModel(
    ...     mixer="mamba2", context_length=32, d_model=32, n_layers=2, d_ff=64, max_steps=150,
    ...     random_state=0, device="cpu",
    ... ).fit(texts)
    >>> model.generate("one, two", max_tokens=7, temperature=0)
    ', three'
    """

    def _make_network(self, n_tokens: int) -> TokenNetwork:
        mixers = [self._make_mixer(mixer, causal=True) for mixer in self._mixers]
        decoder = self._make_decoder(mixers, int(self.d_model), int(self.d_ff))
        return TokenNetwork(decoder, n_tokens)

    @property
    def backbone_(self) -> nn.Module:
        """The fitted decoder, which takes and gives tokens of the width ``d_model``."""
        self.check_fitted()
        decoder: nn.Module = self.module_.decoder  # type: ignore[assignment]
        return decoder
