"""Heads: the channels of tokens in equal parts, each mixed by itself."""

from torch import Tensor

from tsar.exceptions import ParameterError

__all__ = ["head_width", "join_heads", "split_heads"]


def head_width(owner: str, d_model: int, n_heads: int) -> int:
    """Return the channels of a head.

    Parameters
    ----------
    owner : str
        Whose heads they are, for the message.
    d_model, n_heads : int

    Raises
    ------
    ParameterError
        If the heads do not divide the width.
    """
    if n_heads < 1 or d_model % n_heads:
        raise ParameterError(f"{owner}: n_heads={n_heads} does not divide d_model={d_model}")
    return d_model // n_heads


def split_heads(projected: Tensor, n_heads: int, n_parts: int) -> tuple[Tensor, ...]:
    """Cut maps of tokens that lie side by side, such as queries, keys and values, into heads.

    Parameters
    ----------
    projected : Tensor of shape (B, L, parts * D)
    n_heads, n_parts : int

    Returns
    -------
    tuple of Tensor of shape (B, N, L, E)
        One for each part.
    """
    by_part = projected.unflatten(2, (n_parts, n_heads, -1)).unbind(2)
    return tuple(part.transpose(1, 2) for part in by_part)


def join_heads(heads: Tensor) -> Tensor:
    """Lay heads (B, N, L, E) side by side again, (B, L, D)."""
    return heads.transpose(1, 2).flatten(2)
