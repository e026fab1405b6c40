"""The one loop that draws token by token, whatever the tokens stand for."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from tsar.core.sampling import Sampler
from tsar.core.state import KVCache, WindowCache, select

__all__ = ["TokenModel", "generate", "is_bounded"]


class TokenModel(Protocol):
    """What is drawn from: a network that says what the next token may be.

    Attributes
    ----------
    n_tokens : int
        V, size of the vocabulary.
    """

    n_tokens: int

    def init_state(self, batch: int) -> Any:
        """Return the state before the first token of ``batch`` sequences."""

    def extend(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read tokens (B, T), and return the logits (B, T, V) of each next one, and the state."""


def is_bounded(state: Any) -> bool:
    """Whether a state stays as large as it is, however many tokens follow.

    Attention remembers every token, and is wrong of positions that it was not trained on;
    recurrences, and attention in a window, remember what they have room for.
    """
    if isinstance(state, WindowCache):
        return True
    if isinstance(state, KVCache):
        return False
    return all(is_bounded(part) for part in state) if isinstance(state, tuple) else True


def generate(
    network: TokenModel,
    prompts: Tensor,
    n_steps: int,
    sampler: Sampler,
    generator: torch.Generator | None = None,
    *,
    context_length: int | None = None,
    stop: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw tokens one by one, each given those before it.

    The prompts are read at once; after that every step reads one token of each sequence, and one
    that has ended is read no further. Where a state grows with every token, it is made anew from
    the last half of a context as soon as the context is full.

    Parameters
    ----------
    network : TokenModel
    prompts : int64 Tensor of shape (B, T)
        At least one token each.
    n_steps : int
        Tokens to draw at most.
    sampler : Sampler
    generator : torch.Generator, optional
        Where draws come from; the global one by default.
    context_length : int, optional
        Most tokens that a state that grows may hold; of longer prompts the last ones are read.
    stop : int, optional
        The token that ends a sequence; it is given as well.

    Yields
    ------
    rows : int64 Tensor of shape (R,)
        The sequences that had not ended, by their places among the prompts.
    tokens : int64 Tensor of shape (R,)
        The next token of each.
    """
    rows = torch.arange(len(prompts), device=prompts.device)
    state = network.init_state(len(prompts))
    limit = None if context_length is None or is_bounded(state) else context_length
    recent = unread = prompts if limit is None else prompts[:, -limit:]
    n_read = 0
    for step in range(n_steps):
        if limit is not None and n_read + unread.shape[1] > limit:
            unread = recent[:, -max(1, limit // 2) :]
            state, n_read = network.init_state(len(rows)), 0
        logits, state = network.extend(unread, state)
        n_read += unread.shape[1]
        tokens = sampler.draw(logits[:, -1], generator)
        yield rows, tokens
        if stop is not None and step + 1 < n_steps:
            going = (tokens != stop).nonzero()[:, 0]
            if len(going) == 0:
                return
            if len(going) < len(rows):
                rows, tokens, recent = rows[going], tokens[going], recent[going]
                state = select(state, going)
        unread = tokens[:, None]
        if limit is not None:
            recent = torch.cat([recent[:, -limit:], unread], dim=1)
