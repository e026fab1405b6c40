"""The autoregressive language model: any causal mixer, one token after the other."""

import itertools
from dataclasses import dataclass
from typing import Any

from torch import nn

from tsar.core.decoding import NGramDraft, superposed
from tsar.language.autoregressive import AutoregressiveText
from tsar.language.corpus import as_prompts
from tsar.language.network import TokenNetwork
from tsar.params.constraints import check_count

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

    def suggest(
        self,
        prompt: str,
        n_texts: int = 3,
        max_tokens: int = 20,
        *,
        counts: NGramDraft | None = None,
        weight: float = 0.5,
    ) -> list[str]:
        """Continue a text in several ways, in as many passes of the network as one of them takes.

        Parameters
        ----------
        prompt : str
            It must fit into ``context_length`` together with what is added, where attention reads
            it.
        n_texts : int, default 3
        max_tokens : int, default 20
            Of each.
        counts : NGramDraft, optional
            Of texts such as are to be written, ``NGramDraft(6, model.encode(texts))``; by default
            of the prompt, which has to tell the ways apart alone.
        weight : float, default 0.5
            Of the n-grams, in [0, 1).

        Returns
        -------
        list of str
            What is added, the likeliest first; see :func:`tsar.core.decoding.superposed`.

        Raises
        ------
        NotFittedError, ParameterError, DataError
            ``fit`` was not called, a number is out of its range, or the prompt is no text or too
            long.
        """
        self.check_fitted()
        (text,) = as_prompts(self.name, [prompt])
        row = self._token_row(text)
        check_count(self.name, "max_tokens", max_tokens)
        self._check_room(len(row) + int(max_tokens) - 1)
        counted = NGramDraft(6) if counts is None else counts
        network: Any = self.module_
        ways = superposed(
            network,
            row.tolist(),
            counted,
            n_texts=n_texts,
            max_tokens=max_tokens,
            weight=weight,
        )
        boundary = self.tokenizer_.n_tokens
        ended = [list(itertools.takewhile(boundary.__ne__, way.tokens)) for way in ways]
        return [self.tokenizer_.decode(tokens) for tokens in ended]

    @property
    def backbone_(self) -> nn.Module:
        """The fitted decoder, which takes and gives tokens of the width ``d_model``."""
        self.check_fitted()
        decoder: nn.Module = self.module_.decoder  # type: ignore[assignment]
        return decoder
