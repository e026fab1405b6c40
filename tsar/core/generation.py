"""The autoregressive loop: draw the tokens of a level, make the inputs of the next one of them.

Text is the case of one token in a level, see :func:`generate`; a pyramid of images has a level for
each size.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tsar.core.sampling import Sampler
from tsar.core.state import select
from tsar.exceptions import ParameterError

__all__ = [
    "Drawn",
    "LevelNetwork",
    "RenewedContext",
    "TokenLevels",
    "TokenNetwork",
    "generate",
    "generate_levels",
    "is_bounded",
]


class LevelNetwork(Protocol):
    """What can be drawn from level by level.

    Attributes
    ----------
    decoder : object
        Has ``extend(x, state) -> (z, state)``.
    head : object
        Has ``sample(z, sampler, guidance, generator)``, which draws for all of z.
    """

    @property
    def decoder(self) -> Any: ...  # noqa: D102

    @property
    def head(self) -> Any: ...  # noqa: D102

    def begin(self, condition: Any) -> tuple[Tensor, Any]:
        """Return the inputs of the first level, and the state after all that is given."""
        ...

    def embed(self, step: int, drawn: Tensor) -> Tensor:
        """Return the inputs of the next level, given what was drawn at level ``step``."""
        ...

    def done(self, step: int, drawn: Tensor) -> bool | Tensor:
        """Say after level ``step`` whether that was the last, for all or for each row (B,)."""
        ...


class Drawn(NamedTuple):
    """What was drawn at a level.

    Parameters
    ----------
    rows : int64 Tensor of shape (b,)
        Which of the sequences are not done yet.
    tokens : Tensor of shape (b, ...)
        What was drawn for each of them.
    """

    rows: Tensor
    tokens: Tensor


@torch.no_grad()
def generate_levels(
    network: LevelNetwork,
    condition: Any,
    *,
    sampler: Sampler,
    generator: torch.Generator | None = None,
    guidance: Callable[[int], float] | None = None,
) -> Iterator[Drawn]:
    """Draw level after level.

    Sequences that are done are dropped, and cost nothing any more.

    Parameters
    ----------
    network : LevelNetwork
    condition : object
        What ``network.begin`` takes: the tokens of a prompt, or labels.
    sampler : Sampler
    generator : torch.Generator, optional
    guidance : callable, optional
        Gives the weight of a level. The rows of the network are then those with the condition
        and, behind them, the same without; both are fed what is drawn.

    Yields
    ------
    Drawn
        Of each level.
    """
    x, state = network.begin(condition)
    rows = torch.arange(len(x) // (1 if guidance is None else 2), device=x.device)
    for step in count():
        z, state = network.decoder.extend(x, state)
        weight = None if guidance is None else guidance(step)
        drawn = network.head.sample(z, sampler, weight, generator)
        yield Drawn(rows, drawn)
        done = network.done(step, drawn)
        left = ~done if isinstance(done, Tensor) else torch.full_like(rows, not done).bool()
        if not left.any():
            return
        if not left.all():
            rows, drawn = rows[left], drawn[left]
            state = select(state, left if guidance is None else left.repeat(2))
        x = network.embed(step, drawn)


class TokenNetwork(Protocol):
    """A causal network of tokens.

    Attributes
    ----------
    n_tokens : int
        Size V of the vocabulary.
    """

    @property
    def n_tokens(self) -> int: ...  # noqa: D102

    def init_state(self, batch: int) -> Any:
        """Return the state before the first token of ``batch`` sequences."""
        ...

    def extend(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return the logits (B, T, V) of what follows each of the tokens (B, T), and the state."""
        ...


class TokenLevels:
    """Text as levels of one token, for :func:`generate_levels`; the condition is a prompt (B, T).

    Parameters
    ----------
    network : TokenNetwork
    max_tokens : int
        How many are drawn at most.
    stop_token : int, optional
        A sequence is done when this was drawn.
    """

    def __init__(
        self, network: TokenNetwork, *, max_tokens: int, stop_token: int | None = None
    ) -> None:
        if max_tokens < 1:
            raise ParameterError(f"TokenLevels: max_tokens must be at least 1, got {max_tokens}")
        self.decoder = network
        self.max_tokens = max_tokens
        self.stop_token = stop_token

    @property
    def head(self) -> "TokenLevels":
        """What draws: itself, since the network gives logits."""
        return self

    def begin(self, condition: Tensor) -> tuple[Tensor, Any]:
        """Read all of the prompts (B, T) but the last token, whose logits are the first level."""
        if condition.ndim != 2 or condition.shape[1] == 0:
            raise ParameterError(
                f"TokenLevels: prompts must have the shape (B, T) with at least one token, got "
                f"{tuple(condition.shape)}; begin with the token between documents"
            )
        state = self.decoder.init_state(len(condition))
        if condition.shape[1] > 1:
            _, state = self.decoder.extend(condition[:, :-1], state)
        return condition[:, -1:], state

    def sample(
        self,
        z: Tensor,
        sampler: Sampler,
        guidance: float | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draw from logits (B, 1, V)."""
        if guidance is not None:
            raise ParameterError("TokenLevels: text has no condition to be guided by")
        return sampler.draw(z, generator)

    def embed(self, step: int, drawn: Tensor) -> Tensor:
        """Return what was drawn: the network embeds it."""
        return drawn

    def done(self, step: int, drawn: Tensor) -> bool | Tensor:
        """Say which sequences have ended."""
        if step + 1 >= self.max_tokens:
            return True
        return False if self.stop_token is None else drawn[:, 0] == self.stop_token


class RenewedState(NamedTuple):
    """The latest tokens and the state of a network that has read some of them.

    Parameters
    ----------
    ids : int64 Tensor of shape (B, L)
    n_read : int
        How many tokens are in the state.
    inner : nested tuples
        The state itself.
    """

    ids: Tensor
    n_read: int
    inner: Any


class RenewedContext:
    """A network of tokens that begins anew when its context is full.

    It then reads the latest half of a context, as if nothing had been before. So sequences of any
    length can be drawn from a network that was trained on shorter ones.

    Parameters
    ----------
    network : TokenNetwork
    context_length : int
    """

    def __init__(self, network: TokenNetwork, context_length: int) -> None:
        if context_length < 1:
            raise ParameterError(
                f"RenewedContext: context_length must be at least 1, got {context_length}"
            )
        self.network = network
        self.context_length = context_length

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return self.network.n_tokens

    def init_state(self, batch: int) -> RenewedState:
        """Return the state before the first token."""
        nothing = torch.empty(batch, 0, dtype=torch.int64)
        return RenewedState(nothing, 0, self.network.init_state(batch))

    def extend(self, ids: Tensor, state: RenewedState) -> tuple[Tensor, RenewedState]:
        """Return logits (B, T, V); the tokens (B, T) must fit into half of a context, or be first.

        Raises
        ------
        ParameterError
            If there are more.
        """
        n_tokens = ids.shape[1]
        latest = torch.cat([state.ids.to(ids.device), ids], dim=1)[:, -self.context_length :]
        if state.n_read + n_tokens <= self.context_length:
            logits, inner = self.network.extend(ids, state.inner)
            return logits, RenewedState(latest, state.n_read + n_tokens, inner)
        half = max(self.context_length // 2, 1)
        if n_tokens > half:
            raise ParameterError(
                f"RenewedContext: {n_tokens} tokens do not fit behind {state.n_read} into a "
                f"context of {self.context_length}; pass at most {half} at a time"
            )
        renewed = latest[:, -half:]
        logits, inner = self.network.extend(renewed, self.network.init_state(len(ids)))
        return logits[:, -n_tokens:], RenewedState(latest, half, inner)


def is_bounded(state: Any) -> bool:
    """Whether a state stays as large as it is, however many tokens follow.

    Attention looks back at any token, and is wrong of positions that it was not trained on, which
    its states say by an attribute ``reaches_back``; recurrences, and attention in a window,
    remember what they have room for.
    """
    reaches_back = getattr(state, "reaches_back", None)
    if reaches_back is not None:
        return not reaches_back
    return all(is_bounded(part) for part in state) if isinstance(state, tuple) else True


def generate(
    network: TokenNetwork,
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
    the last half of a context as soon as the context is full; see :class:`RenewedContext`.

    Parameters
    ----------
    network : TokenNetwork
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
    if n_steps < 1:
        return
    if context_length is not None and not is_bounded(network.init_state(1)):
        prompts = prompts[:, -context_length:]
        network = RenewedContext(network, context_length)
    levels = TokenLevels(network, max_tokens=n_steps, stop_token=stop)
    for rows, tokens in generate_levels(levels, prompts, sampler=sampler, generator=generator):
        yield rows, tokens[:, 0]
