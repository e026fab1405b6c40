"""What generation is asked for, whatever order the tokens are drawn in."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from tsar.exceptions import DataError, ParameterError

__all__ = ["StreamingModel", "check_prompt", "continuations"]


class StreamingModel(Protocol):
    """A model that continues one text, and counts what it took."""

    decoding_: dict[str, float]

    @property
    def stream(self) -> Callable[..., Iterator[str]]:
        """Continues a text piece by piece."""
        ...


def check_prompt(owner: str, prompt: Any, max_tokens: Any) -> None:
    """Raise an error unless there is a text to continue, by a number of tokens.

    Raises
    ------
    DataError, ParameterError
    """
    if not isinstance(prompt, str):
        raise DataError(
            f"{owner}: prompt must be a str, got {type(prompt).__name__}; decode it first"
        )
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise ParameterError(f"{owner}: max_tokens must be at least 1, got {max_tokens!r}")


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
    max_tokens : int
    random_state : int or None
        The prompts of a sequence count on from it.
    **how
        Of the draws.

    Returns
    -------
    str, or list of str
    """
    if isinstance(prompt, str):
        return "".join(model.stream(prompt, max_tokens, random_state=random_state, **how))
    totals = {"passes": 0.0, "tokens": 0.0, "seconds": 0.0}
    written: list[str] = []
    for place, one in enumerate(prompt):
        seed = None if random_state is None else random_state + place
        written.append("".join(model.stream(one, max_tokens, random_state=seed, **how)))
        totals = {key: total + model.decoding_[key] for key, total in totals.items()}
    model.decoding_.update(totals)
    return written
