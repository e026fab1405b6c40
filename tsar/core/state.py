"""What a mixer remembers of the tokens it has read, for those that follow.

A state is a tuple and never changes: whoever kept an older one goes on from there. What grows with
the sequence would be copied with every token if nothing could ever be written, so keys and values
lie in a room with space left over. A cache is a room and a length, what lies below the length is
never touched again, and only the newest cache of a room writes behind it.

Letters: B batch, N heads, L tokens, E width of a key, V width of a value.
"""

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

__all__ = ["CacheRoom", "KVCache", "fork"]

State = TypeVar("State")


class CacheRoom:
    """Space for keys and values that all caches of one sequence share.

    Parameters
    ----------
    keys : Tensor of shape (B, N, capacity, E)
    values : Tensor of shape (B, N, capacity, V)
    written : int
        How many tokens have been written, by whichever cache.
    """

    def __init__(self, keys: Tensor, values: Tensor, written: int) -> None:
        self.keys = keys
        self.values = values
        self.written = written

    @property
    def capacity(self) -> int:
        """How many tokens it holds."""
        return self.keys.shape[2]

    def takes(self, start: int, stop: int) -> bool:
        """Whether tokens can be written there without touching any that a cache can see."""
        # Torch refuses to write outside of inference mode what was made inside.
        frozen = self.keys.is_inference() and not torch.is_inference_mode_enabled()
        return start == self.written and stop <= self.capacity and not frozen

    def copy(self, length: int, capacity: int) -> "CacheRoom":
        """Return a room of its own with the first ``length`` tokens, and some space."""
        keys, values = (_with_space(old, length, capacity) for old in (self.keys, self.values))
        return CacheRoom(keys, values, length)


def _with_space(tokens: Tensor, length: int, capacity: int) -> Tensor:
    larger = tokens.new_empty(*tokens.shape[:2], capacity, tokens.shape[3])
    larger[:, :, :length] = tokens[:, :, :length]
    return larger


class KVCache(NamedTuple):
    """Keys and values of the tokens so far.

    A cache can be appended to any number of times, each time in another way, and every result is
    right. The first of them is written into the room that is there; a cache whose room was since
    written behind its length takes a copy, which costs as much as its length. While gradients are
    recorded nothing is written in place, and every append is a copy.

    Two threads must not append to caches of one room: give one of them a :func:`fork`.

    Parameters
    ----------
    room : CacheRoom
    length : int
        How many tokens of the room are of this cache.
    """

    room: CacheRoom
    length: int

    @classmethod
    def holding(cls, keys: Tensor, values: Tensor) -> "KVCache":
        """Make a cache of keys (B, N, L, E) and values (B, N, L, V), which are not written to."""
        length = keys.shape[2]
        return cls(CacheRoom(keys, values, length), length)

    @property
    def keys(self) -> Tensor:
        """Of shape (B, N, L, E)."""
        return self.room.keys[:, :, : self.length]

    @property
    def values(self) -> Tensor:
        """Of shape (B, N, L, V)."""
        return self.room.values[:, :, : self.length]

    def append(self, keys: Tensor, values: Tensor) -> "KVCache":
        """Return a cache with more tokens behind; this one is as it was."""
        if self.length == 0:
            # Only here may dtype and device be others than those of what is there.
            return KVCache.holding(keys, values)
        if torch.is_grad_enabled():
            keys = torch.cat([self.keys, keys], dim=2)
            return KVCache.holding(keys, torch.cat([self.values, values], dim=2))
        room, stop = self.room, self.length + keys.shape[2]
        if not room.takes(self.length, stop):
            capacity = room.capacity if stop <= room.capacity else max(2 * room.capacity, stop)
            room = room.copy(self.length, capacity)
        room.keys[:, :, self.length : stop] = keys
        room.values[:, :, self.length : stop] = values
        room.written = stop
        return KVCache(room, stop)

    def fork(self) -> "KVCache":
        """Return a cache of the same tokens with a room of its own."""
        return KVCache(self.room.copy(self.length, self.room.capacity), self.length)


def fork(state: State) -> State:
    """Copy a state, so that it shares nothing that is ever written with the one given.

    Parameters
    ----------
    state : nested tuples
        What ``init_state`` or ``extend`` of any mixer, block or stack returned. Its tensors are
        shared, since nobody writes to them; its caches get rooms of their own.
    """
    forked: Any = state
    if isinstance(state, KVCache):
        forked = state.fork()
    elif isinstance(state, tuple):
        parts = [fork(part) for part in state]
        forked = type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return forked
