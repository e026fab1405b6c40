"""Drafts that are verified: several tokens for one pass, drawn as if there were no draft."""

import time
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from tsar.core.decoding.drafts import Draft
from tsar.core.generation import TokenNetwork, is_bounded
from tsar.core.sampling import Sampler, draw
from tsar.core.state import rewind
from tsar.exceptions import ParameterError

__all__ = ["ReadingAhead", "Speculative", "residual", "verify"]


class ReadingAhead(TokenNetwork, Protocol):
    """A causal network of tokens that can go back to any of the tokens it has read."""

    def extend_each(self, ids: Tensor, state: Any) -> tuple[Tensor, tuple[Any, ...]]:
        """Return what ``extend`` does, with the state after each of the tokens."""
        ...


def residual(target: Tensor, proposed: Tensor) -> Tensor:
    """Return what is drawn from after a refusal: ``max(p - q, 0)``, divided by its sum.

    Parameters
    ----------
    target, proposed : float64 Tensor of shape (V,)
        p and q.
    """
    left = (target - proposed).clamp(min=0)
    return left / left.sum()


def verify(
    target: Tensor,
    drafted: list[int],
    proposed: Tensor | None,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Keep the first of the drafted tokens, and draw the one after them.

    A token x is kept with probability ``min(1, p(x) / q(x))``. In place of the first that is not,
    one is drawn from the :func:`residual`; if all are kept, one more from p. So every token is
    distributed as p says, whatever q is.

    Parameters
    ----------
    target : float64 Tensor of shape (k + 1, V)
        p, what tokens are to be drawn with, after each of the k drafted ones and before them.
    drafted : list of k int
    proposed : float64 Tensor of shape (k, V), optional
        q, what each was drawn with; None where each was certain.
    generator : torch.Generator, optional

    Returns
    -------
    list of int
        Between one and k + 1 tokens.

    References
    ----------
    Leviathan, Kalman and Matias, "Fast inference from transformers via speculative decoding", ICML
    2023, algorithm 1.
    """
    places = torch.arange(len(drafted))
    ahead = target[places, drafted]
    odds = (ahead if proposed is None else ahead / proposed[places, drafted]).tolist()
    chances = torch.rand(len(drafted), generator=generator, dtype=torch.float64).tolist()
    for place, token in enumerate(drafted):
        if chances[place] >= odds[place]:
            if proposed is None:
                certain = torch.zeros_like(target[place])
                certain[token] = 1.0
            else:
                certain = proposed[place]
            return [*drafted[:place], int(draw(residual(target[place], certain), generator))]
    return [*drafted, int(draw(target[-1], generator))]


class Speculative:
    """Decoding with a draft: what it guesses is read in one pass, and kept as far as it is right.

    The tokens are distributed exactly as without a draft, and at a temperature of 0 they are the
    same. It pays where reading a few tokens costs about what reading one does: for attention and
    one text at a time.

    Parameters
    ----------
    draft : Draft
        :class:`~tsar.core.decoding.NGramDraft`, :class:`~tsar.core.decoding.PromptLookup` or
        :class:`~tsar.core.decoding.ModelDraft`.
    n_tokens : int, default 4
        Tokens that are guessed for each pass.

    Attributes
    ----------
    statistics : dict of str to float
        Of the last text: ``passes`` of the network, tokens ``proposed`` and ``accepted``, and
        ``seconds``.

    References
    ----------
    Leviathan, Kalman and Matias, "Fast inference from transformers via speculative decoding", ICML
    2023.
    """

    def __init__(self, draft: Draft, n_tokens: int = 4) -> None:
        if not isinstance(draft, Draft):
            raise ParameterError(
                f"Speculative: draft must be a Draft such as NGramDraft(order=4), got {draft!r}"
            )
        if isinstance(n_tokens, bool) or not isinstance(n_tokens, int) or n_tokens < 1:
            raise ParameterError(f"Speculative: n_tokens must be at least 1, got {n_tokens!r}")
        self.draft, self.n_tokens = draft, n_tokens
        self.statistics: dict[str, float] = {}

    def decode(
        self,
        network: ReadingAhead,
        prompt: Tensor,
        max_tokens: int,
        sampler: Sampler,
        generator: torch.Generator,
        *,
        context_length: int | None = None,
        stop: int | None = None,
    ) -> Iterator[int]:
        """Draw the tokens of one text.

        Parameters
        ----------
        network : ReadingAhead
        prompt : int64 Tensor of shape (T,)
        max_tokens : int
        sampler : Sampler
        generator : torch.Generator
        context_length : int, optional
            Most tokens that a state that grows may hold, see
            :func:`tsar.core.generation.generate`.
        stop : int, optional
            The token that ends the text; it is given as well.

        Yields
        ------
        int

        Raises
        ------
        ParameterError
            The draft has another vocabulary.
        """
        began = time.perf_counter()
        counts = {"passes": 0, "proposed": 0, "accepted": 0}
        self.draft.check(network.n_tokens)
        with torch.inference_mode():
            self.draft.begin(prompt.tolist(), network.n_tokens)
            state = network.init_state(1)
        limit = None if context_length is None or is_bounded(state) else context_length
        text, unread, n_read, n_drawn = prompt.tolist(), prompt.tolist(), 0, 0
        if limit is not None:
            unread = unread[-limit:]
        while n_drawn < max_tokens:
            with torch.inference_mode():
                if limit is not None and n_read + len(unread) > limit:
                    unread = text[-max(1, limit // 2) :]
                    state, n_read = network.init_state(1), 0
                room = max_tokens - n_drawn - 1
                if limit is not None:
                    room = min(room, limit - n_read - len(unread))
                drafted: list[int] = []
                proposed: Tensor | None = None
                if room > 0:
                    drafted, proposed = self.draft.propose(
                        min(self.n_tokens, room), sampler, generator
                    )
                ids = torch.tensor([[*unread, *drafted]], device=prompt.device)
                # The states between are only needed behind what may be refused.
                first, rest = ids[:, : len(unread)], ids[:, len(unread) :]
                logits, states = _read(network, first, rest, state)
                target = sampler.probabilities(logits).cpu()
                tokens = verify(target, drafted, proposed, generator)
                state = rewind(states[len(tokens) - 1])
                n_read += len(unread) + len(tokens) - 1
                counts["passes"] += 1
                counts["proposed"] += len(drafted)
                counts["accepted"] += len(tokens) - 1
                self.draft.accept(tokens)
                text += tokens
                unread = tokens[-1:]
            self.statistics = {**counts, "seconds": time.perf_counter() - began}
            for token in tokens:
                n_drawn += 1
                yield token
                if token == stop:
                    return


def _read(
    network: ReadingAhead, certain: Tensor, drafted: Tensor, state: Any
) -> tuple[Tensor, tuple[Any, ...]]:
    """Read tokens; return the logits from the last certain one on, and the states there."""
    if certain.shape[1] > 1:
        # A prompt: one state behind it is enough.
        _, state = network.extend(certain[:, :-1], state)
    logits, states = network.extend_each(torch.cat([certain[:, -1:], drafted], dim=1), state)
    return logits[0], states
