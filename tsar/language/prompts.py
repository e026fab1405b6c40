"""What generation is asked for, whatever order the tokens are drawn in."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

import torch

from tsar.estimator.trained import LARGEST_SEED
from tsar.exceptions import DataError, ParameterError
from tsar.language.corpus import as_prompts
from tsar.params.constraints import Interval, check_count, check_value
from tsar.training import make_generator

__all__ = ["Draws", "StreamingModel", "continuations", "draws_for", "in_inference_mode"]

Step = TypeVar("Step")

Seed = Annotated[int, Interval(0, LARGEST_SEED)] | None


def in_inference_mode(steps: Iterator[Step]) -> Iterator[Step]:
    """Take steps of a generation in inference mode, and leave it between them.

    Around the whole loop the mode would be that of whoever reads along.
    """
    while True:
        with torch.inference_mode():
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step


class StreamingModel(Protocol):
    """A model that continues one text, and counts what it took."""

    decoding_: dict[str, float]

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def stream(self) -> Callable[..., Iterator[str]]:
        """Continues a text piece by piece."""
        ...


class Draws(NamedTuple):
    """How many tokens are drawn, where they end, and where chance comes from."""

    max_tokens: int
    stop: list[str]
    generator: torch.Generator


def draws_for(
    owner: str, prompt: Any, max_tokens: Any, stop: Any, random_state: int | None
) -> Draws:
    """Check what a stream is asked for, beside the ways of its model.

    Raises
    ------
    DataError, ParameterError
        There is no text to continue, no number of tokens, no text to stop at, or no seed.
    """
    if not isinstance(prompt, str):
        raise DataError(
            f"{owner}: prompt must be a str, got {type(prompt).__name__}; decode it first, or "
            f"pass several to generate"
        )
    as_prompts(owner, prompt)
    count = check_count(owner, "max_tokens", max_tokens)
    ends = [stop] if isinstance(stop, str) else stop
    if not isinstance(ends, Sequence) or not all(isinstance(end, str) for end in ends):
        raise ParameterError(f"{owner}: stop must be a str or a sequence of str, got {stop!r}")
    check_value(owner, "random_state", random_state, Seed)
    seed = secrets.randbits(63) if random_state is None else int(random_state)
    return Draws(count, [end for end in ends if end], make_generator(seed, "cpu"))


def continuations(
    model: StreamingModel,
    prompt: str | Sequence[str],
    max_tokens: int,
    random_state: int | None,
    **how: Any,
) -> Any:
    """Continue a text, or each of several with a seed of its own; the statistics are of all.

    Parameters
    ----------
    model : StreamingModel
    prompt : str or sequence of str
        All are checked before the first is continued.
    max_tokens : int
    random_state : int or None
        The prompts of a sequence count on from it.
    **how
        Of the draws.

    Returns
    -------
    str, or list of str
    """
    prompts = as_prompts(model.name, prompt)
    check_value(model.name, "random_state", random_state, Seed)
    seeds = [
        None if random_state is None else random_state + place for place in range(len(prompts))
    ]
    streams = [
        model.stream(one, max_tokens, random_state=seed, **how)
        for one, seed in zip(prompts, seeds, strict=True)
    ]
    totals: dict[str, float] = {"passes": 0, "tokens": 0, "seconds": 0.0}
    written: list[str] = []
    for pieces in streams:
        model.decoding_ = {}
        written.append("".join(pieces))
        for key, number in model.decoding_.items():
            totals[key] = totals.get(key, 0) + number
    model.decoding_ = totals
    return written[0] if isinstance(prompt, str) else written
