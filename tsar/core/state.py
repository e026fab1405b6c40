"""What a mixer remembers of the tokens it has read, for those that follow.

A state is a tuple and never changes: whoever kept an older one goes on from there. What grows with
the sequence would be copied with every token if nothing could ever be written, so keys and values
lie in a room with space left over. A cache is a room and a length, what lies below the length is
never touched again, and only the newest cache of a room writes behind it.

The batch is the first axis of every tensor of a state, which is what lets rows be selected.

Letters: B batch, N heads, L tokens, E width of a key, V width of a value.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

__all__ = ["CacheRoom", "KVCache", "WindowCache", "fork", "rewind", "select"]

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

    @classmethod
    def copying(cls, keys: Tensor, values: Tensor, capacity: int) -> "CacheRoom":
        """Make a room of its own with these tokens, and some space."""
        length = keys.shape[2]
        keys, values = (_with_space(tokens, capacity) for tokens in (keys, values))
        return cls(keys, values, length)


def _with_space(tokens: Tensor, capacity: int) -> Tensor:
    batch, n_heads, length, width = tokens.shape
    larger = tokens.new_empty(batch, n_heads, capacity, width)
    larger[:, :, :length] = tokens
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

    @property
    def reaches_back(self) -> bool:
        """Whether tokens look back as far as the sequence goes."""
        return True

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
            room = CacheRoom.copying(self.keys, self.values, capacity)
        room.keys[:, :, self.length : stop] = keys
        room.values[:, :, self.length : stop] = values
        room.written = stop
        return KVCache(room, stop)

    def first(self, length: int) -> "KVCache":
        """Return the cache of the first ``length`` tokens, in the same room."""
        return KVCache(self.room, length)

    def fork(self) -> "KVCache":
        """Return a cache of the same tokens with a room of its own."""
        return KVCache(CacheRoom.copying(self.keys, self.values, self.room.capacity), self.length)

    def select(self, rows: Tensor) -> "KVCache":
        """Return a cache of these sequences of the batch with a room of its own."""
        keys, values = self.keys[rows], self.values[rows]
        return KVCache(CacheRoom.copying(keys, values, self.room.capacity), self.length)

    def rewind(self) -> "KVCache":
        """Return this cache, which is written behind in place again; longer ones are given up."""
        self.room.written = self.length
        return self


class WindowCache(NamedTuple):
    """Keys and values of the first tokens and of the latest ones.

    Once the cache is twice as long as what a token sees, the tokens between are left out. So its
    size does not grow with the sequence, and a token costs no copy on average.

    Parameters
    ----------
    cache : KVCache
    length : int
        How many tokens there were, of which the cache may hold fewer.
    window : int
        How many of the latest tokens a token sees, itself being one.
    sinks : int
        How many of the first tokens every token sees.
    """

    cache: KVCache
    length: int
    window: int
    sinks: int

    @property
    def reaches_back(self) -> bool:
        """Whether tokens look back as far as the sequence goes."""
        return False

    @property
    def keys(self) -> Tensor:
        """Of shape (B, N, S, E), of those tokens that are held."""
        return self.cache.keys

    @property
    def values(self) -> Tensor:
        """Of shape (B, N, S, V), of those tokens that are held."""
        return self.cache.values

    @property
    def positions(self) -> Tensor:
        """Of shape (S,): where in the sequence the tokens are that are held."""
        index = torch.arange(self.cache.length, device=self.keys.device)
        left_out = self.length - self.cache.length
        return torch.where(index < self.sinks, index, index + left_out)

    def append(self, keys: Tensor, values: Tensor) -> "WindowCache":
        """Return a cache with more tokens behind, of which none is left out yet."""
        cache = self.cache.append(keys, values)
        return self._replace(cache=cache, length=self.length + keys.shape[2])

    def first(self, length: int) -> "WindowCache":
        """Return the cache of the first ``length`` tokens, none of them left out since."""
        shorter = self.cache.length - (self.length - length)
        return self._replace(cache=self.cache.first(shorter), length=length)

    def trimmed(self) -> "WindowCache":
        """Return the cache without what no later token will see, if that is worth a copy."""
        sees = self.sinks + self.window
        if self.cache.length <= 2 * sees:
            return self
        # The next token sees one of the latest tokens less than the window has: itself is one.
        latest = self.cache.length - (self.window - 1)
        keys, values = (
            torch.cat([tokens[:, :, : self.sinks], tokens[:, :, latest:]], dim=2)
            for tokens in (self.keys, self.values)
        )
        room = CacheRoom.copying(keys, values, 2 * sees + 1)
        return self._replace(cache=KVCache(room, room.written))


def fork(state: State) -> State:
    """Copy a state, so that it shares nothing that is ever written with the one given.

    Parameters
    ----------
    state : nested tuples
        What ``init_state`` or ``extend`` of any mixer, block or stack returned. Its tensors are
        shared, since nobody writes to them; its caches get rooms of their own.
    """
    return _rebuilt(state, lambda tensor: tensor, KVCache.fork)


def select(state: State, rows: Tensor) -> State:
    """Return the state of some of the sequences, in any order and any number of times.

    Parameters
    ----------
    state : nested tuples
        Of a batch of B sequences.
    rows : int64 Tensor of shape (n,), or bool Tensor of shape (B,)
        Which of them.
    """
    return _rebuilt(state, lambda tensor: tensor[rows], lambda cache: cache.select(rows))


def rewind(state: State) -> State:
    """Go on from an older state in place of all that were made by extending it.

    Without this it can be extended as well, at the price of copying its caches. Those other
    states, but for a :func:`fork` of one, hold something else as soon as this one is extended.

    Parameters
    ----------
    state : nested tuples
        Returned as it is.
    """
    return _rebuilt(state, lambda tensor: tensor, KVCache.rewind)


def _rebuilt(
    state: State, tensor: Callable[[Tensor], Tensor], cache: Callable[[KVCache], KVCache]
) -> State:
    """Put a state together again from what becomes of its tensors and of its caches."""
    rebuilt: Any = state
    if isinstance(state, KVCache):
        rebuilt = cache(state)
    elif isinstance(state, Tensor):
        rebuilt = tensor(state)
    elif isinstance(state, tuple):
        parts = [_rebuilt(part, tensor, cache) for part in state]
        rebuilt = type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return rebuilt
