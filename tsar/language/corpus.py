"""Texts as one row of tokens, and windows cut from it anywhere."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tsar.exceptions import DataError
from tsar.language.tokenizer import Tokenizer

__all__ = [
    "DrawnWindows",
    "OrderedWindows",
    "as_prompts",
    "as_texts",
    "bundled_text",
    "scored_windows",
    "token_row",
]


def as_texts(owner: str, texts: Any) -> list[str]:
    """Return texts as a list: one text, or any sequence or Series of them.

    Parameters
    ----------
    owner : str
        For messages.
    texts : str or iterable of str

    Raises
    ------
    DataError
        There is no text at all, or something that is none.
    """
    listed = _listed(owner, "text", texts)
    if not any(listed):
        raise DataError(f"{owner}: there is no text to read; pass at least one that is not empty")
    return listed


def as_prompts(owner: str, prompts: Any) -> list[str]:
    """Return prompts as a list, as :func:`as_texts` does; there may be none, and empty ones.

    Parameters
    ----------
    owner : str
        For messages.
    prompts : str or iterable of str

    Raises
    ------
    DataError
        Something is no text.
    """
    return _listed(owner, "prompt", prompts)


def _listed(owner: str, what: str, texts: Any) -> list[str]:
    if isinstance(texts, str):
        texts = [texts]
    if isinstance(texts, bytes | bytearray):
        raise DataError(
            f"{owner}: every {what} must be a str, got {type(texts).__name__}; decode it first, as "
            f"in data.decode('utf-8')"
        )
    # Sets have no order, and of mappings and frames only the names would be read.
    unordered = isinstance(texts, Mapping | Set) or getattr(texts, "ndim", 1) != 1
    if unordered or not isinstance(texts, Iterable):
        raise DataError(
            f"{owner}: {what}s must be a str or a sequence of str, got {type(texts).__name__}; "
            f"pass a list, or a column of a frame"
        )
    listed = list(texts)
    for place, text in enumerate(listed):
        if not isinstance(text, str):
            raise DataError(
                f"{owner}: every {what} must be a str, got {type(text).__name__} at place {place}; "
                f"leave it out or convert it"
            )
        _check_characters(owner, what, place, text)
    return listed


def _check_characters(owner: str, what: str, place: int, text: str) -> None:
    """Refuse halves of characters, which have no bytes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{owner}: the {what} at place {place} has half a character (a lone surrogate, "
            f"{text[error.start]!r}) at {error.start}; read it with the right encoding, or take "
            f"such out by text.encode('utf-8', 'ignore').decode('utf-8')"
        ) from None


def token_row(tokenizer: Tokenizer, texts: Sequence[str], boundary: int) -> Tensor:
    """Return the tokens of all texts, int64 of shape (n,), a boundary before each of them."""
    parts: list[np.ndarray] = []
    for text in texts:
        parts.append(np.array([boundary], dtype=np.int64))
        parts.append(np.asarray(tokenizer.encode(text), dtype=np.int64))
    return torch.from_numpy(np.concatenate(parts))


class DrawnWindows:
    """Windows of one length that begin anywhere, as many as are asked for.

    Parameters
    ----------
    tokens : int64 Tensor of shape (n,)
    length : int
        Tokens to predict in a window, which holds one more.
    """

    def __init__(self, tokens: Tensor, length: int) -> None:
        self.tokens, self.length = tokens, length
        self.epoch_size = max(1, (len(tokens) - 1) // length)

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """Return windows (size, length + 1)."""
        last = len(self.tokens) - self.length
        starts = torch.randint(last, (size, 1), generator=generator)
        return self.tokens[starts + torch.arange(self.length + 1)]


class OrderedWindows:
    """Windows that cover a row of tokens once, one after the other.

    Parameters
    ----------
    tokens : int64 Tensor of shape (n,)
    length : int
        Tokens to predict in a window, which holds one more.
    """

    def __init__(self, tokens: Tensor, length: int) -> None:
        count = (len(tokens) - 1) // length
        places = torch.arange(count)[:, None] * length + torch.arange(length + 1)
        self.windows = tokens[places]

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, index: Tensor) -> Tensor:
        """Return some of the windows (B, length + 1)."""
        return self.windows[index]


def scored_windows(tokens: Tensor, length: int, stride: int) -> Iterator[tuple[Tensor, int]]:
    """Cut windows of a text, each with how many tokens at its end are scored there.

    The first one scores all that it holds, each later one what is left at its end; the token at
    the beginning of a window is never scored.

    Parameters
    ----------
    tokens : int64 Tensor of shape (n,)
    length, stride : int

    Yields
    ------
    window : int64 Tensor of shape (at most length + 1,)
    n_scored : int
    """
    done, last = 0, len(tokens) - 1
    while done < last:
        stop = min(last, length if done == 0 else done + stride)
        yield tokens[max(0, stop - length) : stop + 1], stop - done
        done = stop


def bundled_text() -> str:
    """Return a text that every Python brings along: what ``help()`` says of its topics."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore").decode()
