"""Cheap guesses of the next tokens, which a network then verifies in one pass."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tsar.core.sampling import Sampler, draw
from tsar.core.state import rewind
from tsar.exceptions import ParameterError

__all__ = ["Draft", "JacobiDraft", "ModelDraft", "NGramDraft", "PromptLookup"]


class Draft(ABC):
    """Guesses the next tokens of one text.

    Whatever it guesses, the text that comes out is drawn as without it: a better guess is
    accepted more often, and that is all.

    Attributes
    ----------
    wants_hidden : bool
        Whether it guesses from what the network has of the last token, which :meth:`see` is told.
    """

    wants_hidden: bool = False

    def check(self, n_tokens: int) -> None:  # noqa: B027  (most fit any vocabulary)
        """Raise a ParameterError unless it fits a vocabulary of so many tokens."""

    def check_network(self, network: Any) -> None:  # noqa: B027  (most look at tokens only)
        """Raise a ParameterError unless the network gives what the draft wants to see of it."""

    @abstractmethod
    def begin(self, ids: Sequence[int], n_tokens: int) -> None:
        """Begin with a prompt, of a vocabulary of so many tokens."""

    @abstractmethod
    def propose(
        self, n_steps: int, sampler: Sampler, generator: torch.Generator
    ) -> tuple[list[int], Tensor | None]:
        """Guess up to so many of the next tokens.

        Returns
        -------
        tokens : list of int
            As many as it can guess.
        shares : float64 Tensor of shape (len(tokens), V) or None
            What each was drawn with; None where each was certain.
        """

    def read(
        self, network: Any, ids: Tensor, state: Any
    ) -> tuple[Tensor, tuple[Any, ...], Tensor | None]:
        """Let the network read the last token and what was guessed behind it.

        Parameters
        ----------
        network : ReadingAhead
        ids : int64 Tensor of shape (1, 1 + k)
        state : nested tuples
            Of the network, before them.

        Returns
        -------
        logits : Tensor of shape (1, 1 + k, V)
        states : tuple of 1 + k states
        hidden : Tensor of shape (1, 1 + k, D) or None
            What the logits are made of, if the draft wants it.
        """
        logits, states = network.extend_each(ids, state)
        return logits, states, None

    @abstractmethod
    def accept(self, ids: Sequence[int]) -> None:
        """Go on from these tokens, which the text has now."""

    def see(  # noqa: B027  (most look at the tokens only)
        self, target: Tensor, n_kept: int, hidden: Tensor | None
    ) -> None:
        """Look at what the network said, before the tokens are accepted.

        Parameters
        ----------
        target : float64 Tensor of shape (k + 1, V)
            What tokens are drawn with, before and after each of the k guesses.
        n_kept : int
            How many of the guesses stay.
        hidden : Tensor of shape (D,) or None
            What the network has of the last of them, if it is wanted.
        """


class JacobiDraft(Draft):
    """Guesses what the network said in the pass before of the places behind what was refused.

    Those were computed from guesses that were wrong in part, and often are right all the same: at
    a temperature of 0 it is the iteration of Jacobi towards the text where nothing changes any
    more. It costs nothing besides, and needs neither texts nor a second model.

    References
    ----------
    Song et al., "Accelerating feedforward computation via parallel nonlinear equation solving",
    ICML 2021; Teng et al., "Accelerating auto-regressive text-to-image generation with
    training-free speculative Jacobi decoding", arXiv:2410.01699, which draws and verifies.
    """

    def begin(self, ids: Sequence[int], n_tokens: int) -> None:
        self._n_tokens, self._last = n_tokens, ids[-1]
        self._behind = torch.zeros(0, n_tokens, dtype=torch.float64)

    def propose(
        self, n_steps: int, sampler: Sampler, generator: torch.Generator
    ) -> tuple[list[int], Tensor | None]:
        # Beyond what is known, the last token again: the iteration has to begin somewhere.
        n_known = min(n_steps, len(self._behind))
        shares = torch.zeros(n_steps, self._n_tokens, dtype=torch.float64)
        shares[:, self._last] = 1.0
        shares[:n_known] = self._behind[:n_known]
        return draw(shares, generator).tolist(), shares

    def see(self, target: Tensor, n_kept: int, hidden: Tensor | None) -> None:
        # The row behind the last kept token is what the next one was drawn with.
        self._behind = target[n_kept + 1 :]

    def accept(self, ids: Sequence[int]) -> None:
        self._last = ids[-1]


class PromptLookup(Draft):
    """Guesses what followed the last time that the text read as it does now.

    Parameters
    ----------
    longest : int, default 4
        Last tokens that are looked for, or fewer where they did not come before.

    References
    ----------
    Yang et al., "Inference with reference: lossless acceleration of large language models",
    arXiv:2304.04487.
    """

    def __init__(self, longest: int = 4) -> None:
        if longest < 1:
            raise ParameterError(f"PromptLookup: longest must be at least 1, got {longest!r}")
        self.longest = longest

    def begin(self, ids: Sequence[int], n_tokens: int) -> None:  # noqa: D102
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self.accept(ids)

    def propose(
        self, n_steps: int, sampler: Sampler, generator: torch.Generator
    ) -> tuple[list[int], Tensor | None]:
        for length in range(min(self.longest, len(self._ids)), 0, -1):
            place = self._after.get(tuple(self._ids[-length:]))
            if place is not None:
                return self._ids[place : place + n_steps], None
        return [], None

    def accept(self, ids: Sequence[int]) -> None:
        for token in ids:
            # Noted when something follows: the end of the text is not its own guess.
            for length in range(1, min(self.longest, len(self._ids)) + 1):
                self._after[tuple(self._ids[-length:])] = len(self._ids)
            self._ids.append(token)


class NGramDraft(Draft):
    """Guesses by how often tokens followed the last few, here and in a text seen before.

    Parameters
    ----------
    order : int, default 4
        Tokens that are counted together: the last ``order - 1`` and what follows; where they
        never came before, fewer.
    ids : sequence of int, optional
        Tokens of a text to count beforehand, as :meth:`tsar.language.LanguageModel.encode`
        returns them; of every text, its prompt and what is written of it are counted as well.

    References
    ----------
    Liu et al., "ADED: adaptive draft-verification for efficient large language model decoding",
    arXiv:2407.12021, whose tables of n-grams grow with the accepted text.
    """

    def __init__(self, order: int = 4, ids: Sequence[int] | None = None) -> None:
        if order < 1:
            raise ParameterError(f"NGramDraft: order must be at least 1, got {order!r}")
        self.order = order
        self._seen_before = _Counts(order)
        self._written = _Counts(order)
        self._largest = -1
        if ids is not None:
            listed = [int(token) for token in ids]
            self._largest = max(listed, default=-1)
            self._seen_before.add(listed, 0)

    def check(self, n_tokens: int) -> None:
        if self._largest >= n_tokens:
            raise ParameterError(
                f"NGramDraft: the counted text has the token {self._largest}, and the model knows "
                f"{n_tokens}; count tokens of its own tokenizer"
            )

    def begin(self, ids: Sequence[int], n_tokens: int) -> None:
        self.check(n_tokens)
        self._n_tokens = n_tokens
        # Of this text alone: the next one is drawn as if this had not been.
        self._written = _Counts(self.order)
        self._ids: list[int] = []
        self.accept(ids)

    def propose(
        self, n_steps: int, sampler: Sampler, generator: torch.Generator
    ) -> tuple[list[int], Tensor | None]:
        context = self._ids[-self.order :]
        greedy = sampler.temperature == 0
        chances = [] if greedy else torch.rand(n_steps, generator=generator).tolist()
        drawn: list[int] = []
        shares = None if greedy else torch.zeros(n_steps, self._n_tokens, dtype=torch.float64)
        for step in range(n_steps):
            counts = self.following(context)
            if not counts:
                break
            if shares is None:
                token = max(counts, key=counts.__getitem__)
            else:
                token = _drawn(counts, 1 / sampler.temperature, chances[step], shares[step])
            drawn.append(token)
            context.append(token)
        return drawn, None if shares is None else shares[: len(drawn)]

    def accept(self, ids: Sequence[int]) -> None:
        begin = len(self._ids)
        self._ids.extend(ids)
        self._written.add(self._ids, begin)

    def following(self, text: Sequence[int]) -> dict[int, int]:
        """Return what followed the end of a text, as much of it as was ever seen, and how often."""
        context = tuple(text[max(0, len(text) - self.order + 1) :])
        for begin in range(len(context) + 1):
            ending = context[begin:]
            before, written = self._seen_before.after(ending), self._written.after(ending)
            if before and written:
                tokens = before.keys() | written.keys()
                return {
                    token: before.get(token, 0) + written.get(token, 0) for token in sorted(tokens)
                }
            if before or written:
                return before or written
        return {}


class _Counts:
    """How often each token followed each of the endings that are shorter than an n-gram."""

    def __init__(self, order: int) -> None:
        self.order = order
        self._by_ending: dict[tuple[int, ...], dict[int, int]] = {}

    def add(self, ids: list[int], begin: int) -> None:
        """Count the tokens from a place on."""
        for place in range(begin, len(ids)):
            for length in range(min(self.order - 1, place) + 1):
                counts = self._by_ending.setdefault(tuple(ids[place - length : place]), {})
                counts[ids[place]] = counts.get(ids[place], 0) + 1

    def after(self, ending: tuple[int, ...]) -> dict[int, int]:
        """Return what followed an ending."""
        return self._by_ending.get(ending, {})


def _drawn(counts: dict[int, int], power: float, chance: float, shares: Tensor) -> int:
    """Draw a token by its count to a power, and write what all are drawn with into ``shares``."""
    tokens = list(counts)
    weights = torch.tensor(list(counts.values()), dtype=torch.float64)
    # The largest is 1: a low temperature would make it infinite.
    weights = (weights / weights.max()) ** power
    weights /= weights.sum()
    shares[tokens] = weights
    place = int(torch.searchsorted(weights.cumsum(0), chance, right=True))
    return tokens[min(place, len(tokens) - 1)]


class ModelDraft(Draft):
    """Guesses by a smaller network of the same tokens.

    Parameters
    ----------
    model : object
        A fitted :class:`tsar.language.LanguageModel`, or a causal network of tokens.
    confidence : float, default 0.0
        It guesses no further behind a token whose probability is the largest and below this.

    References
    ----------
    Leviathan, Kalman and Matias, "Fast inference from transformers via speculative decoding", ICML
    2023; Chen et al., "Accelerating large language model decoding with speculative sampling",
    arXiv:2302.01318.
    """

    def __init__(self, model: Any, *, confidence: float = 0.0) -> None:
        if not 0 <= confidence <= 1:
            raise ParameterError(f"ModelDraft: confidence must be in [0, 1], got {confidence!r}")
        self.confidence = confidence
        self.model = model
        self.network = getattr(model, "module_", model)

    def check(self, n_tokens: int) -> None:
        if self.network.n_tokens != n_tokens:
            raise ParameterError(
                f"ModelDraft: the draft knows {self.network.n_tokens} tokens and the model "
                f"{n_tokens}; both must have the same tokenizer"
            )

    def begin(self, ids: Sequence[int], n_tokens: int) -> None:
        self.check(n_tokens)
        self._device = next(self.network.parameters()).device
        self._state, self._unread = self.network.init_state(1), list(ids)

    def propose(
        self, n_steps: int, sampler: Sampler, generator: torch.Generator
    ) -> tuple[list[int], Tensor | None]:
        if self._unread:
            self._logits, self._state = self._read(self._unread, self._state)
            self._unread = []
        # What is guessed is read from a state that is given up again.
        logits, state = self._logits, self._state
        drawn: list[int] = []
        shares = []
        for step in range(n_steps):
            shares.append(sampler.probabilities(logits))
            drawn.append(int(sampler.draw(logits, generator)))
            if step + 1 == n_steps or float(shares[-1].max()) < self.confidence:
                break
            logits, state = self._read(drawn[-1:], state)
        rewind(self._state)
        return drawn, torch.stack(shares)

    def accept(self, ids: Sequence[int]) -> None:
        self._unread = [*self._unread, *ids]

    def _read(self, ids: list[int], state: Any) -> tuple[Tensor, Any]:
        logits, state = self.network.extend(torch.tensor([ids], device=self._device), state)
        return logits[0, -1], state
