"""What all language models have in common that draw tokens in any order."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tsar.core.block import Encoder
from tsar.core.masking import masked_losses, random_masks, uniform_counts
from tsar.core.mixers import (
    MIXERS,
    Bidirectional,
    Mixer,
    ordered_mixers,
)
from tsar.core.norm import make_norm
from tsar.core.ops.even_products import linear
from tsar.core.sampling import Guidance, Sampler
from tsar.core.unmasking import ORDERS, even_counts, unmask
from tsar.language.base import WINDOWS_AT_ONCE, texts_so_far
from tsar.language.corpus import scored_windows
from tsar.language.mixed import MixedText
from tsar.language.network import FIRST_SCALE
from tsar.language.prompts import continuations, draws_for, in_inference_mode
from tsar.params.constraints import Interval, check_choice, check_value
from tsar.training import Objective, make_generator

__all__ = ["LIKELIHOOD_SEED", "MaskedText", "MaskedTokenNetwork", "UniformCounts"]

# A likelihood must not change from call to call, nor with the texts that are asked for together.
LIKELIHOOD_SEED = 0


class MaskedTokenNetwork(nn.Module):
    """Logits of masked tokens, from all tokens that are not.

    It is not told how many are masked: it sees that.

    Parameters
    ----------
    encoder : Encoder
    d_model : int
    n_tokens : int
        Without the mask, whose id this is.

    References
    ----------
    Ou et al., "Your absorbing discrete diffusion secretly models the conditional distributions
    of clean data", ICLR 2025 (a network without time).
    """

    no_decay: tuple[str, ...] = ("embedding.weight",)

    def __init__(self, encoder: Encoder, d_model: int, n_tokens: int) -> None:
        super().__init__()
        self.mask_token = n_tokens
        self.embedding = nn.Embedding(n_tokens + 1, d_model)
        nn.init.normal_(self.embedding.weight, std=FIRST_SCALE)
        self.encoder = encoder

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B, L, V) of tokens (B, L); that of the mask, the last, is -inf."""
        return self.logits(self.encoder(self.embedding(ids)))

    def logits(self, encoded: Tensor) -> Tensor:
        """Return the logits (B, L, V) of encoded tokens (B, L, D)."""
        logits = linear(encoded, self.embedding.weight)
        is_mask = torch.arange(logits.shape[-1], device=encoded.device) == self.mask_token
        return logits.masked_fill(is_mask, -torch.inf)


class UniformCounts(Objective):
    """Any number of masked tokens, each as likely as another; see :func:`masked_losses`."""

    def loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Any:
        """Return the weighted loss of windows (B, L + 1), the first token of which is given."""
        n_rows, n_tokens = len(batch), batch.shape[1] - 1
        counts = uniform_counts(n_rows, n_tokens, generator, batch.device)
        weights = n_tokens / counts
        return self.weighted(network, batch, random_masks(counts, n_tokens, generator), weights)

    @staticmethod
    def weighted(network: nn.Module, windows: Tensor, masks: Tensor, weights: Tensor) -> Any:
        """Return the sum of the losses, each row times its weight (B,), and how many tokens."""
        mask_token: Any = network.mask_token
        # The first token is what the others follow on.
        masks = nn.functional.pad(masks, (1, 0))
        losses = masked_losses(network, windows, masks, mask_token)
        total = (losses * weights[:, None].to(losses.dtype)).sum()
        n_tokens = len(windows) * (windows.shape[1] - 1)
        return {"loss": (total, torch.tensor(n_tokens, device=total.device))}


@dataclass(kw_only=True, eq=False, repr=False)
class MaskedText(MixedText):
    """A language model that draws masked tokens in any order, seeing all others.

    A subclass gives the objective.

    Parameters
    ----------
    mixer : str, subclass of Mixer, or list of these, default "attention"
        What mixes tokens, in both directions and by their order: "attention" is turned by
        positions, recurrences such as "mamba2" run both ways. Of a list the blocks take one after
        the other, from the first again at the end.
    likelihood_draws : int, default 32
        Random masks of a window from which the bound of its likelihood is estimated.

    Attributes
    ----------
    decoding_ : dict
        Of the last ``generate``: ``passes`` of the network, ``tokens`` drawn, and ``seconds``.
    """

    likelihood_draws: Annotated[int, Interval(1)] = 32

    @abstractmethod
    def _objective(self) -> Objective:
        """Return how masks are drawn in training."""

    # ------------------------------------------------------------------ network

    def _check_mixer(self, mixer: Any, parameter: str) -> None:
        if not (isinstance(mixer, type) and issubclass(mixer, Mixer)):
            check_choice(self.name, parameter, mixer, ordered_mixers())

    def _both_ways(self, mixer: Any) -> Mixer:
        cls: type[Mixer] = mixer if isinstance(mixer, type) else MIXERS[mixer]
        if not cls.causal:
            return self._make_mixer(mixer, causal=False)
        return Bidirectional(*(self._make_mixer(mixer, causal=True) for _ in range(2)))

    def _make_network(self, n_tokens: int) -> MaskedTokenNetwork:
        d_model = int(self.d_model)
        blocks = [self._make_block(self._both_ways(mixer)) for mixer in self._mixers]
        return MaskedTokenNetwork(Encoder(blocks, make_norm("rms", d_model)), d_model, n_tokens)

    # --------------------------------------------------------------- likelihood

    def log_likelihood(self, texts: Any, *, stride: int | None = None) -> np.ndarray:
        """Return a lower bound of the natural logarithm of the probability of each text.

        It is the mean over all orders of drawing the tokens, estimated from
        ``likelihood_draws`` random masks, the same ones in every call. So are the perplexity, the
        bits per byte and the score made from it bounds, and no better than the truth but for the
        noise of the estimate.

        Parameters
        ----------
        texts : str or sequence of str
        stride : int or None, default None
            Windows of ``context_length`` tokens begin so far apart, and each scores what the one
            before has not, given the rest; None takes half a context.

        Returns
        -------
        float64 array of shape (n_texts,)

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        DataError
            Something is no text.
        ParameterError
            ``stride`` is not between 1 and ``context_length``.
        """
        return super().log_likelihood(texts, stride=stride)

    def _text_losses(self, tokens: Tensor, stride: int) -> Tensor:
        length = int(self.as_fitted.context_length)
        generator = make_generator(LIKELIHOOD_SEED, "cpu")
        total = tokens.new_zeros((), dtype=torch.float64)
        for window, n_scored in scored_windows(tokens, length, stride):
            total += self._bound(window, n_scored, generator)
        return total

    def _bound(self, window: Tensor, n_scored: int, generator: torch.Generator) -> Tensor:
        """Return the loss of the last tokens of a window given those before, all orders alike."""
        n_draws = int(self.as_fitted.likelihood_draws)
        counts = uniform_counts(n_draws, n_scored, generator, window.device)
        masks = random_masks(counts, n_scored, generator)
        masks = nn.functional.pad(masks, (len(window) - n_scored, 0))
        network: Any = self.module_
        total = window.new_zeros((), dtype=torch.float64)
        for some, weights in zip(
            masks.split(WINDOWS_AT_ONCE), (n_scored / counts).split(WINDOWS_AT_ONCE), strict=True
        ):
            ids = window.expand(len(some), -1)
            losses = masked_losses(network, ids, some, network.mask_token)
            total += (losses.double().sum(dim=1) * weights).sum()
        return total / n_draws

    # ----------------------------------------------------------------- generate

    def generate(
        self,
        prompt: str | Sequence[str] = "",
        max_tokens: int = 200,
        *,
        n_passes: int | None = None,
        order: Literal["random", "confidence"] = "random",
        guidance: float = 0.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] = (),
        random_state: int | None = None,
    ) -> Any:
        """Continue a text, or each of several.

        All tokens are drawn at once if they fit into ``context_length`` with those before them;
        else half a context at a time.

        Parameters
        ----------
        prompt : str or sequence of str, default ""
            What to continue; nothing begins a text.
        max_tokens : int, default 200
            Tokens to draw. A text ends sooner where the model says that it does.
        n_passes : int or None, default None
            Passes of the network for all tokens that are drawn at once. None is one for each
            token, which is an exact draw; fewer draw several tokens as if they were independent.
        order : {"random", "confidence"}, default "random"
            Which tokens come first: any, or those with the largest probability, which makes
            texts likelier than the model thinks they are.
        guidance : float, default 0.0
            How much farther than the prompt asks for: what masking the prompt changes of the
            logits is added so many times.
        temperature : float, default 1.0
            0 takes the likeliest token every time.
        top_k, top_p : int and float, optional
            Draw from the best few only, see :class:`~tsar.core.sampling.Sampler`.
        stop : str or sequence of str, optional
            End before one of these.
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
            A parameter is outside its range, or a prompt is no text.
        """
        self.check_fitted()
        return continuations(
            self,
            prompt,
            max_tokens,
            random_state,
            n_passes=n_passes,
            order=order,
            guidance=guidance,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop=stop,
        )

    def stream(
        self,
        prompt: str = "",
        max_tokens: int = 200,
        *,
        n_passes: int | None = None,
        order: Literal["random", "confidence"] = "random",
        guidance: float = 0.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] = (),
        random_state: int | None = None,
    ) -> Iterator[str]:
        """Continue a text, and give what is drawn at once as soon as it is there.

        Parameters
        ----------
        prompt, max_tokens, n_passes, order, guidance, temperature, top_k, top_p, stop, random_state
            As for :meth:`generate`.

        Yields
        ------
        str
        """
        self.check_fitted()
        count, ends, generator = draws_for(self.name, prompt, max_tokens, stop, random_state)
        check_choice(self.name, "order", order, ORDERS)
        check_value(self.name, "n_passes", n_passes, Annotated[int, Interval(1)] | None)
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p)
        row = self._token_row(prompt)
        tokens = self._drawn(row, count, n_passes, order, guidance, sampler, generator)
        return texts_so_far(self.tokenizer_, tokens, ends)

    def _drawn(
        self,
        row: Tensor,
        max_tokens: int,
        n_passes: int | None,
        order: str,
        guidance: float,
        sampler: Sampler,
        generator: torch.Generator,
    ) -> Iterator[int]:
        began = time.perf_counter()
        boundary, length = self.tokenizer_.n_tokens, int(self.as_fitted.context_length)
        self.decoding_: dict[str, float] = {"passes": 0, "tokens": 0, "seconds": 0.0}
        mask_token: Any = self.module_.mask_token
        n_drawn = 0
        while n_drawn < max_tokens:
            n_left = max_tokens - n_drawn
            # The window holds one token more than a context, as those of the training do.
            fits = len(row) + n_left <= length + 1
            before = row if fits else row[-(length // 2 + 1) :]
            n_new = min(n_left, length + 1 - len(before))
            ids = torch.cat([before, before.new_full((n_new,), mask_token)])[None]
            passes = unmask(
                self._guided(len(before), guidance),
                ids,
                mask_token=mask_token,
                sampler=sampler,
                generator=generator,
                reveal=1 if n_passes is None else even_counts(n_new, n_passes),
                order=order,
            )
            for revealed in in_inference_mode(passes):
                ids = revealed
                self.decoding_["passes"] += 1
            new = ids[0, len(before) :]
            self.decoding_["seconds"] = time.perf_counter() - began
            for token in new.tolist():
                if token == boundary:
                    return
                self.decoding_["tokens"] += 1
                yield token
            row, n_drawn = torch.cat([row, new]), n_drawn + n_new

    def _guided(self, n_before: int, scale: float) -> Callable[[Tensor], Tensor]:
        """Return the network, pushed away from what it says with the tokens before masked."""
        network: Any = self.module_
        if scale == 0:
            return network
        guidance = Guidance(scale)

        def guided(ids: Tensor) -> Tensor:
            # The first one is a boundary, or in its place.
            bare = ids.index_fill(
                1, torch.arange(1, n_before, device=ids.device), network.mask_token
            )
            # Without the mask, which is -inf in both.
            with_prompt, without = network(torch.cat([ids, bare]))[..., :-1].chunk(2)
            return guidance.combine(with_prompt, without, guidance.weight(1.0))

        return guided
