"""What language models have in common that give the next token from those before it."""

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.decoder import Decoder
from tsar.core.decoding import Draft, Speculative, make_decoding
from tsar.core.generation import generate, is_bounded
from tsar.core.mixers import Mixer, causal_mixers
from tsar.core.sampling import Sampler
from tsar.exceptions import DataError, ParameterError
from tsar.language.base import WINDOWS_AT_ONCE, texts_so_far
from tsar.language.corpus import as_texts, token_row
from tsar.language.mixed import MixedText
from tsar.language.network import NextToken
from tsar.language.prompts import continuations, draws_for, in_inference_mode
from tsar.language.tokenizer import fingerprint
from tsar.params.constraints import check_choice
from tsar.training import Objective

__all__ = ["AutoregressiveText"]

# Logits at a time, where texts are scored: 64 MiB in double precision.
LOGITS_AT_ONCE = 2**23


@dataclass(kw_only=True, eq=False, repr=False)
class AutoregressiveText(MixedText):
    """A language model that is fitted to texts and continues them, one token after the other.

    A subclass gives a network: ``forward(ids)`` is the logits of what follows each token,
    ``hidden(ids)`` what they are made of, and ``init_state``, ``extend`` and ``extend_each`` read
    it piece by piece.

    Attributes
    ----------
    decoding_ : dict
        Of the last ``generate``: ``passes`` of the network, ``tokens`` drawn, and ``seconds``.
    """

    # ------------------------------------------------------------------ network

    def _check_mixer(self, mixer: Any, parameter: str) -> None:
        if not (isinstance(mixer, type) and issubclass(mixer, Mixer) and mixer.causal):
            check_choice(self.name, parameter, mixer, causal_mixers())

    @abstractmethod
    def _make_network(self, n_tokens: int) -> nn.Module:
        """Build the network for so many tokens, the boundary of texts included."""

    def _make_decoder(self, mixers: list[Mixer], d_model: int, d_ff: int) -> Decoder:
        """Stack causal blocks, which need no positions from outside."""
        return Decoder(
            mixers,
            d_model=d_model,
            d_ff=d_ff,
            dropout=self.dropout,
            max_tokens=None,
            position=None,
            norm="rms",
            mlp=self.mlp,
        )

    def _objective(self) -> Objective:
        return NextToken()

    # --------------------------------------------------------------- likelihood

    def _text_losses(self, tokens: Tensor, stride: int) -> Tensor:
        length = int(self.as_fitted.context_length)
        n_scored = len(tokens) - 1
        network: Any = self.module_
        if n_scored <= length:
            return _losses(network, tokens[None]).sum()
        starts = torch.arange(0, n_scored - length + 1, stride, device=tokens.device)
        total = tokens.new_zeros((), dtype=torch.float64)
        at_once = LOGITS_AT_ONCE // (length * network.n_tokens)
        for part in starts.split(min(max(at_once, 1), WINDOWS_AT_ONCE)):
            windows = tokens[part[:, None] + torch.arange(length + 1, device=tokens.device)]
            losses = _losses(network, windows)
            total += losses[:, length - stride :].sum()
            if part[0] == 0:
                total += losses[0, : length - stride].sum()
        done = int(starts[-1]) + length
        if done < n_scored:
            losses = _losses(network, tokens[None, -length - 1 :])
            total += losses[0, length - (n_scored - done) :].sum()
        return total

    def embed(self, texts: Any) -> np.ndarray:
        """Return what the network has of each text at its end: the last hidden state.

        Parameters
        ----------
        texts : str or sequence of str
            Of a longer one than ``context_length``, its last tokens are read.

        Returns
        -------
        float32 array of shape (n_texts, width)
            As wide as what logits are made of: ``d_model``, or ``d_local`` of a model of patches.
        """
        self.check_fitted()
        network: Any = self.module_
        with torch.inference_mode():
            rows = [self._token_row(text) for text in as_texts(self.name, texts)]
            recent = [row[-int(self.as_fitted.context_length) :] for row in rows]
            states = [network.hidden(row[None])[0, -1].float().cpu().numpy() for row in recent]
        return np.stack(states)

    # ----------------------------------------------------------------- generate

    def generate(
        self,
        prompt: str | Sequence[str] = "",
        max_tokens: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] = (),
        decoding: str | Speculative | None = None,
        random_state: int | None = None,
    ) -> Any:
        """Continue a text, or each of several.

        Attention reads at most ``context_length`` tokens: when they are full, it goes on from the
        last half of them. Recurrences go on from all they have read.

        Parameters
        ----------
        prompt : str or sequence of str, default ""
            What to continue; nothing begins a text. Where attention reads it, it must fit into
            ``context_length`` tokens together with the boundary before it.
        max_tokens : int, default 200
            Tokens to add at most. A text ends sooner where the model says that it does.
        temperature : float, default 1.0
            0 takes the likeliest token every time.
        top_k, top_p : int and float, optional
            Draw from the best few only, see :class:`~tsar.core.sampling.Sampler`.
        stop : str or sequence of str, optional
            End before one of these.
        decoding : {"prompt_lookup", "ngram", "jacobi"} or Speculative, optional
            Guess several tokens and verify them in one pass: the same distribution in less time,
            where the mixer is attention. See :class:`tsar.core.decoding.Speculative`.
        random_state : int or None, default None
            Seed of the draws; None draws a new one.

        Returns
        -------
        str, or list of str
            What is added, without the prompt.

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            A parameter is outside its range, a prompt is no text, or it is longer than a context
            of attention.
        """
        self.check_fitted()
        return continuations(
            self,
            prompt,
            max_tokens,
            random_state,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop=stop,
            decoding=decoding,
        )

    def stream(
        self,
        prompt: str = "",
        max_tokens: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] = (),
        decoding: str | Speculative | None = None,
        random_state: int | None = None,
    ) -> Iterator[str]:
        """Continue a text, and give each piece as soon as it is certain.

        Parameters
        ----------
        prompt, max_tokens, temperature, top_k, top_p, stop, decoding, random_state
            As for :meth:`generate`.

        Yields
        ------
        str
        """
        self.check_fitted()
        count, ends, generator = draws_for(self.name, prompt, max_tokens, stop, random_state)
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p)
        row = self._token_row(prompt)
        self._check_room(len(row))
        if decoding is None:
            tokens = self._drawn(row, count, sampler, generator)
        else:
            way = make_decoding(self.name, decoding)
            self._check_draft(way.draft)
            tokens = self._verified(way, row, count, sampler, generator)
        return texts_so_far(self.tokenizer_, tokens, ends)

    def _check_room(self, n_tokens: int) -> None:
        """Refuse a prompt that could not be read to its beginning."""
        network: Any = self.module_
        length = int(self.as_fitted.context_length)
        if n_tokens > length and not is_bounded(network.init_state(1)):
            raise DataError(
                f"{self.name}: the prompt has {n_tokens} tokens with the boundary before it, more "
                f"than context_length={length}, beyond which attention knows no positions; pass "
                f"its end, fit with a larger context_length, or use a recurrent mixer"
            )

    def _drawn(
        self, prompt: Tensor, n_steps: int, sampler: Sampler, generator: torch.Generator
    ) -> Iterator[int]:
        began = time.perf_counter()
        boundary = self.tokenizer_.n_tokens
        self.decoding_: dict[str, float] = {"passes": 0, "tokens": 0, "seconds": 0.0}
        network: Any = self.module_
        drawn = generate(
            network,
            prompt[None],
            n_steps,
            sampler,
            generator,
            context_length=int(self.as_fitted.context_length),
            stop=boundary,
        )
        for _, token in in_inference_mode(drawn):
            self.decoding_["passes"] += 1
            self.decoding_["seconds"] = time.perf_counter() - began
            if int(token) == boundary:
                return
            self.decoding_["tokens"] += 1
            yield int(token)

    def _verified(
        self,
        way: Speculative,
        prompt: Tensor,
        n_steps: int,
        sampler: Sampler,
        generator: torch.Generator,
    ) -> Iterator[int]:
        boundary, network = self.tokenizer_.n_tokens, cast(Any, self.module_)
        context = int(self.as_fitted.context_length)
        drawn = way.decode(
            network, prompt, n_steps, sampler, generator, context_length=context, stop=boundary
        )
        n_drawn = 0
        for token in drawn:
            n_drawn += token != boundary
            self.decoding_ = {**way.statistics, "tokens": n_drawn}
            if token != boundary:
                yield token

    def _check_draft(self, draft: Draft) -> None:
        draft.check(self.module_.n_tokens)  # type: ignore[arg-type]
        tokenizer = getattr(getattr(draft, "model", None), "tokenizer_", None)
        if tokenizer is not None and fingerprint(tokenizer) != fingerprint(self.tokenizer_):
            raise ParameterError(
                f"{self.name}: the draft has another tokenizer, whose numbers mean other tokens; "
                f"fit it with tokenizer={self.as_fitted.tokenizer!r} on the same texts"
            )

    def encode(self, texts: Any) -> list[int]:
        """Return the tokens of texts, a boundary before each, as a draft counts them.

        Parameters
        ----------
        texts : str or sequence of str

        Returns
        -------
        list of int
        """
        self.check_fitted()
        listed = as_texts(self.name, texts)
        return token_row(self.tokenizer_, listed, self.tokenizer_.n_tokens).tolist()


def _losses(network: Any, windows: Tensor) -> Tensor:
    """Return the loss of every token of windows (B, L + 1) given those before it, (B, L)."""
    logits = network(windows[:, :-1]).double()
    return F.cross_entropy(logits.mT, windows[:, 1:], reduction="none")
