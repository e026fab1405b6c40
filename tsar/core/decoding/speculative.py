"""Drafts that are verified: several tokens for one pass, drawn as if there were no draft."""

import time
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from tsar.core.decoding.drafts import Draft
from tsar.core.decoding.verification import verify, verify_candidates
from tsar.core.generation import TokenNetwork, is_bounded
from tsar.core.sampling import Sampler
from tsar.core.state import rewind, select
from tsar.exceptions import ParameterError

__all__ = ["ReadingAhead", "SpecTr", "Speculative"]


class ReadingAhead(TokenNetwork, Protocol):
    """A causal network of tokens that can go back to any of the tokens it has read."""

    def extend_each(self, ids: Tensor, state: Any) -> tuple[Tensor, tuple[Any, ...]]:
        """Return what ``extend`` does, with the state after each of the tokens."""
        ...


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
        self.draft.check_network(network)
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
                read = torch.tensor([unread], device=prompt.device)
                if read.shape[1] > 1:
                    # A prompt: one state behind it is enough.
                    _, state = network.extend(read[:, :-1], state)
                tokens, state, n_proposed = self._pass(
                    network, read[:, -1:], min(self.n_tokens, room), state, sampler, generator
                )
                n_read += len(unread) + len(tokens) - 1
                counts["passes"] += 1
                counts["proposed"] += n_proposed
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

    def _pass(
        self,
        network: ReadingAhead,
        last: Tensor,
        room: int,
        state: Any,
        sampler: Sampler,
        generator: torch.Generator,
    ) -> tuple[list[int], Any, int]:
        """Read the last token (1, 1) and what is guessed behind it.

        Returns
        -------
        tokens : list of int
            Those that are kept, and one more.
        state : nested tuples
            Behind all of them but the last.
        n_proposed : int
        """
        drafted: list[int] = []
        proposed: Tensor | None = None
        if room > 0:
            drafted, proposed = self.draft.propose(room, sampler, generator)
        ids = torch.cat([last, last.new_tensor([drafted])], dim=1) if drafted else last
        logits, states, hidden = self.draft.read(network, ids, state)
        target = sampler.probabilities(logits[0]).cpu()
        tokens = verify(target, drafted, proposed, generator)
        n_kept = len(tokens) - 1
        self.draft.see(target, n_kept, None if hidden is None else hidden[0, n_kept])
        return tokens, rewind(states[n_kept]), len(drafted)


class SpecTr(Speculative):
    """Decoding with several drafts of the same text, of which the best part is kept.

    Drafts are drawn independently and read as a batch, so that more of their tokens are kept than
    of a single one; the text is distributed exactly as without. It pays where a batch of a few
    costs about what one text does, and where the draft does not guess the same every time.

    Parameters
    ----------
    draft : Draft
        As for :class:`Speculative`.
    n_tokens : int, default 4
        Tokens that are guessed in each draft.
    n_candidates : int, default 2
        Drafts for each pass.

    Attributes
    ----------
    statistics : dict of str to float
        Of the last text: ``passes`` of the network, tokens ``proposed`` and ``accepted``, and
        ``seconds``.

    References
    ----------
    Sun et al., "SpecTr: fast speculative decoding via optimal transport", NeurIPS 2023.
    """

    def __init__(self, draft: Draft, n_tokens: int = 4, n_candidates: int = 2) -> None:
        super().__init__(draft, n_tokens)
        if isinstance(n_candidates, bool) or not isinstance(n_candidates, int) or n_candidates < 1:
            raise ParameterError(f"SpecTr: n_candidates must be at least 1, got {n_candidates!r}")
        if draft.wants_hidden:
            raise ParameterError(
                f"SpecTr: {type(draft).__name__} draws one draft from what the network made of "
                f"the last token; use Speculative"
            )
        self.n_candidates = n_candidates

    def _pass(
        self,
        network: ReadingAhead,
        last: Tensor,
        room: int,
        state: Any,
        sampler: Sampler,
        generator: torch.Generator,
    ) -> tuple[list[int], Any, int]:
        drafts: list[tuple[list[int], Tensor | None]] = []
        if room > 0:
            drafts = [
                self.draft.propose(room, sampler, generator) for _ in range(self.n_candidates)
            ]
        # Cut to the shortest: a rule that looks at no token that it cuts off.
        length = min((len(tokens) for tokens, _ in drafts), default=0)
        if length == 0:
            logits, states = network.extend_each(last, state)
            target = sampler.probabilities(logits[0]).cpu()
            tokens = verify(target, [], None, generator)
            self.draft.see(target, 0, None)
            return tokens, rewind(states[0]), 0
        drafted = [tokens[:length] for tokens, _ in drafts]
        shares = [share[:length] for _, share in drafts if share is not None]
        proposed = torch.stack(shares) if len(shares) == len(drafts) else None
        ids = torch.cat([last.expand(len(drafted), 1), last.new_tensor(drafted)], dim=1)
        rows = torch.zeros(len(drafted), dtype=torch.int64, device=last.device)
        logits, states = network.extend_each(ids, select(state, rows))
        target = sampler.probabilities(logits).cpu()
        row, tokens = verify_candidates(target, drafted, proposed, generator)
        n_kept = len(tokens) - 1
        self.draft.see(target[row], n_kept, None)
        best = torch.tensor([row], device=last.device)
        return tokens, select(states[n_kept], best), length * len(drafted)
