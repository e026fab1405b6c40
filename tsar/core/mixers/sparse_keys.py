"""Attention to the latest tokens and to a fixed number of earlier ones, which are chosen."""

from typing import NamedTuple

import torch
from torch import Tensor

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.ops.sparse_selection import select_softly
from tsar.core.position import Rotary
from tsar.exceptions import ParameterError

__all__ = ["SparseKeys", "SparseKeysState"]

# Tokens that are read at a time: many enough for large products, and few beside their squares.
_PIECE = 256


class SparseKeysState(NamedTuple):
    """Keys and values of the latest tokens and of those that may still be chosen.

    S tokens are held per head, of fixed number; some of them may not be there.

    Parameters
    ----------
    scores : Tensor of shape (B, N, S)
        Minus infinity where none of the heads looks, beyond a window.
    keys, values : Tensor of shape (B, N, S, E)
    positions : int64 Tensor of shape (B, N, S)
        In the sequence; minus 1 where there is no token.
    length : int
        How many tokens there were.
    """

    scores: Tensor
    keys: Tensor
    values: Tensor
    positions: Tensor
    length: int

    @property
    def reaches_back(self) -> bool:
        """Whether tokens look back as far as the sequence goes: those that are chosen may."""
        return True


class SparseKeys(Mixer):
    """Softmax attention to a window of the latest tokens and to ``n_keys`` chosen earlier ones.

    Every token gets a score when it is read. Of the scores so far the largest are selected softly,
    see :func:`tsar.core.ops.sparse_selection.select_softly`, and weights of attention outside of
    the window are multiplied by what was selected, through which the scores learn. A token that
    was once passed over never comes back, since the others only become more: so a state of fixed
    size is enough. It holds twice as many tokens as are selected, as the selection is soft.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    n_keys : int, default 32
        Tokens that are selected, in sum.
    window : int, default 64
        The latest tokens that are seen in any case, the token itself being one.
    rotary : bool, default False
        Whether queries and keys are turned by their positions.

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or a number is less than 1.

    References
    ----------
    Lou et al., "Sparser is faster and less is more: efficient sparse attention for long-range
    transformers", arXiv:2406.16747, section 3. What is selected there beyond twice ``n_keys``,
    where scores are nearly equal, is left out here.
    """

    formula = "attention to a window and the k best-scored tokens"
    cost = "L (k + window) D"

    causal = True

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_keys: int = 32,
        window: int = 64,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        width = head_width("SparseKeys", d_model, n_heads)
        if min(n_keys, window) < 1:
            raise ParameterError(
                f"SparseKeys: n_keys and window must be at least 1, got {n_keys} and {window}"
            )
        self.n_heads = n_heads
        self.n_keys = n_keys
        self.window = window
        self.scale = width**-0.5
        self.query_key_value = Linear(d_model, 3 * d_model)
        self.score = Linear(d_model, n_heads)
        self.rotary = Rotary(width) if rotary else None
        self.output = Linear(d_model, d_model)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, L, D); ``mask`` of shape (B, L).

        Raises
        ------
        ParameterError
            If a mask says something of pairs of tokens, or there is a memory.
        """
        refuse_memory(self, memory)
        check_token_mask(self, mask, x)
        return self._read(x, mask, self.init_state(x.shape[0]))[0]

    def init_state(self, batch: int) -> SparseKeysState:
        """Return the state before the first token, which holds none."""
        weight = self.output.weight
        empty = weight.new_zeros(batch, self.n_heads, 0, len(weight) // self.n_heads)
        positions = torch.zeros(empty.shape[:3], dtype=torch.int64, device=weight.device)
        return SparseKeysState(empty[..., 0], empty, empty, positions, 0)

    def extend(self, x: Tensor, state: SparseKeysState) -> tuple[Tensor, SparseKeysState]:
        """Mix more tokens (B, T, D)."""
        return self._read(x, None, state)

    def _read(
        self, x: Tensor, mask: Tensor | None, state: SparseKeysState
    ) -> tuple[Tensor, SparseKeysState]:
        outputs = [x[:, :0]]
        for start in range(0, x.shape[1], _PIECE):
            piece = slice(start, start + _PIECE)
            shown = None if mask is None else mask[:, piece]
            output, state = self._read_piece(x[:, piece], shown, state)
            outputs.append(output)
        return torch.cat(outputs, dim=1), state

    def _read_piece(
        self, x: Tensor, mask: Tensor | None, state: SparseKeysState
    ) -> tuple[Tensor, SparseKeysState]:
        batch, n_tokens, _ = x.shape
        query, key, value = split_heads(self.query_key_value(x), self.n_heads, 3)  # (B, N, T, E)
        start = state.length
        if self.rotary is not None:
            places = range(start, start + n_tokens)
            query, key = self.rotary(query, places), self.rotary(key, places)
        score, new = self.score(x).mT, torch.arange(start, start + n_tokens, device=x.device)
        positions = new.expand(batch, self.n_heads, -1)
        if mask is not None:
            score = score.masked_fill(~mask[:, None], -torch.inf)
            # A token that is masked is seen by itself alone, lest it sees nothing.
            positions = positions.masked_fill(~mask[:, None], -1)
        held = SparseKeysState(
            torch.cat([state.scores.to(score.dtype), score], dim=2),
            torch.cat([state.keys.to(key.dtype), key], dim=2),
            torch.cat([state.values.to(value.dtype), value], dim=2),
            torch.cat([state.positions, positions], dim=2),
            start + n_tokens,
        )
        at = held.positions[:, :, None]  # (B, N, 1, S)
        distance = new[:, None] - at
        near = (at >= 0) & (distance >= 0) & (distance < self.window)
        itself = torch.arange(held.keys.shape[2], device=x.device) - state.keys.shape[2]
        near = near | (itself == torch.arange(n_tokens, device=x.device)[:, None])
        past = held.scores[:, :, None].expand_as(distance).masked_fill(distance < 0, -torch.inf)
        best, where = past.topk(min(2 * self.n_keys, past.shape[3]), dim=-1)
        chosen = torch.zeros_like(past).scatter(-1, where, select_softly(best, self.n_keys))
        scores = self.scale * query @ held.keys.mT
        scores = scores.masked_fill(~(near | (chosen > 0)), torch.finfo(scores.dtype).min / 2)
        weights = scores.softmax(dim=-1) * torch.where(near, 1.0, chosen)
        mixed = self.output(join_heads(weights @ held.values))
        return mixed, self._kept(held)

    def _kept(self, held: SparseKeysState) -> SparseKeysState:
        """Leave out what no later token can see."""
        recent = held.positions > held.length - self.window
        n_kept = 2 * self.n_keys + self.window - 1
        if held.keys.shape[2] <= n_kept:
            return held
        # The latest first, whatever their scores, and then the largest scores; those that are not
        # there come last.
        rank = held.scores.detach().argsort(dim=-1).argsort(dim=-1)
        rank = rank.masked_fill(held.positions < 0, -1)
        index = (rank + held.keys.shape[2] * recent).topk(n_kept, dim=-1).indices
        index = index.sort(dim=-1).values
        wide = index[..., None].expand(-1, -1, -1, held.keys.shape[3])
        return SparseKeysState(
            held.scores.gather(2, index),
            held.keys.gather(2, wide),
            held.values.gather(2, wide),
            held.positions.gather(2, index),
            held.length,
        )
