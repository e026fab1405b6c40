"""Blocks that are told what to generate: the condition sets their norms and gates."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tsar.core import masks
from tsar.core.conditioning import AdaptiveNorm
from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers import Mixer, check_causal
from tsar.core.mlp import make_mlp
from tsar.core.query_attention import KeysAndValues, QueryAttention
from tsar.core.state import KVCache
from tsar.exceptions import ParameterError

__all__ = ["ConditionedDecoder", "ConditionedState", "QueryDecoder", "QueryState", "in_order"]


class ConditionedState(NamedTuple):
    """What a conditioned decoder remembers.

    Parameters
    ----------
    length : int
        How many tokens there were.
    condition : Tensor of shape (B, C)
        Of the sequence; or (B, T, C), of each of the next tokens.
    blocks : tuple
        The state of each mixer.
    """

    length: int
    condition: Tensor
    blocks: tuple[Any, ...]


class _ConditionedBlock(nn.Module):
    """``x + gate mix(norm(x))``, then the same of the feed-forward part."""

    def __init__(
        self, mixer: nn.Module, d_model: int, d_ff: int, condition_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.mixer: Any = mixer
        self.mlp = make_mlp("gelu", d_model, d_ff, dropout=dropout)
        self.mixer_norm = AdaptiveNorm(d_model, condition_dim)
        self.mlp_norm = AdaptiveNorm(d_model, condition_dim)
        self.mixer_dropout, self.mlp_dropout = Dropout(dropout), Dropout(dropout)

    def after_mixer(
        self,
        x: Tensor,
        mixed: Tensor,
        gate: Tensor,
        condition: Tensor,
        groups: Tensor | None = None,
    ) -> Tensor:
        return self.fed_forward(self.mixer_dropout.add(x, gate * mixed), condition, groups)

    def fed_forward(self, x: Tensor, condition: Tensor, groups: Tensor | None = None) -> Tensor:
        normed, gate = self.mlp_norm(x, condition, groups)
        return self.mlp_dropout.add(x, gate * self.mlp(normed))

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        levels: Tensor,
        mask: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        normed, gate = self.mixer_norm(x, condition, groups)
        seen = {}
        # What goes through tokens in their order needs to be told of none.
        if self.mixer.takes_levels:
            seen["mask"] = (masks.visible(levels) if mask is None else mask)[None]
        return self.after_mixer(x, self.mixer(normed, **seen), gate, condition, groups)

    def init_state(self, batch: int) -> Any:
        return self.mixer.init_state(batch)

    def extend(
        self, x: Tensor, condition: Tensor, state: Any, levels: Tensor
    ) -> tuple[Tensor, Any]:
        normed, gate = self.mixer_norm(x, condition)
        told = {"levels": levels} if self.mixer.takes_levels else {}
        mixed, state = self.mixer.extend(normed, state, **told)
        return self.after_mixer(x, mixed, gate, condition), state


class _DecoupledBlock(_ConditionedBlock):
    """Mix inside of each level, then over all tokens in their order, then feed forward."""

    def __init__(
        self,
        mixer: Mixer,
        across: Mixer,
        d_model: int,
        d_ff: int,
        condition_dim: int,
        dropout: float,
    ) -> None:
        super().__init__(mixer, d_model, d_ff, condition_dim, dropout)
        self.across = across
        self.across_norm = AdaptiveNorm(d_model, condition_dim)
        self.across_dropout = Dropout(dropout)

    def within(
        self, x: Tensor, condition: Tensor, levels: Tensor, groups: Tensor | None = None
    ) -> Tensor:
        normed, gate = self.mixer_norm(x, condition, groups)
        mixed = self.mixer(normed, mask=masks.same(levels)[None])
        return self.mixer_dropout.add(x, gate * mixed)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        levels: Tensor,
        mask: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        x = self.within(x, condition, levels, groups)
        normed, gate = self.across_norm(x, condition, groups)
        x = self.across_dropout.add(x, gate * self.across(normed))
        return self.fed_forward(x, condition, groups)

    def init_state(self, batch: int) -> Any:
        # A level comes as a whole, so that nothing inside of it is for later ones.
        return self.across.init_state(batch)

    def extend(
        self, x: Tensor, condition: Tensor, state: Any, levels: Tensor
    ) -> tuple[Tensor, Any]:
        x = self.within(x, condition, levels)
        normed, gate = self.across_norm(x, condition)
        mixed, state = self.across.extend(normed, state)
        x = self.across_dropout.add(x, gate * mixed)
        return self.fed_forward(x, condition), state


class _ConditionedStack(nn.Module):
    """Blocks, and a last norm that the condition sets as well."""

    def _end(self, d_model: int, condition_dim: int) -> None:
        self.final_norm = nn.LayerNorm(d_model, elementwise_affine=False)
        self.final_map = Linear(condition_dim, 2 * d_model)
        nn.init.zeros_(self.final_map.weight)
        nn.init.zeros_(self.final_map.bias)

    def _final(self, x: Tensor, condition: Tensor, groups: Tensor | None = None) -> Tensor:
        if condition.ndim == 2:
            condition = condition[:, None]
        maps = self.final_map(nn.functional.silu(condition))
        shift, scale = (maps if groups is None else maps[:, groups]).chunk(2, dim=-1)
        return self.final_norm(x) * (1 + scale) + shift


class ConditionedDecoder(_ConditionedStack):
    """Blocks over tokens in levels, which a condition of the sequence or of each token reaches.

    A token sees those of its level and of lower ones, where the mixers take levels; others go
    through the tokens in their order.

    Parameters
    ----------
    mixers : sequence of Mixer
        One per block.
    d_model, d_ff, condition_dim : int
        Width of the tokens, inside the feed-forward part, and of the condition.
    levels : int Tensor of shape (L,)
        The level of each token of a whole sequence, growing.
    dropout : float, default 0.0
        On all branches of a block.
    across : sequence of Mixer, optional
        One per block, each of them causal, that goes through the tokens of all levels in their
        order; ``mixers`` then mix the tokens of a level with each other alone, and take levels.

    Raises
    ------
    ParameterError
        If a mixer across levels is not causal, or one inside of levels takes none.

    References
    ----------
    Peebles and Xie, "Scalable diffusion models with transformers", ICCV 2023, section 3.2; Ren et
    al., "M-VAR: decoupled scale-wise autoregressive modeling for high-quality image generation",
    arXiv:2411.10433 (``across``).
    """

    levels: Tensor

    def __init__(
        self,
        mixers: list[Mixer],
        *,
        d_model: int,
        d_ff: int,
        condition_dim: int,
        levels: Tensor,
        dropout: float = 0.0,
        across: list[Mixer] | None = None,
    ) -> None:
        super().__init__()
        sizes = d_model, d_ff, condition_dim, dropout
        if across is None:
            blocks = [_ConditionedBlock(mixer, *sizes) for mixer in mixers]
        else:
            check_causal("ConditionedDecoder", across)
            for mixer in mixers:
                if not mixer.takes_levels:
                    raise ParameterError(
                        f"ConditionedDecoder: {type(mixer).__name__} cannot stay inside of levels; "
                        f"pass mixers that take levels, or across=None"
                    )
            blocks = [
                _DecoupledBlock(mixer, over, *sizes)
                for mixer, over in zip(mixers, across, strict=True)
            ]
        self.blocks = nn.ModuleList(blocks)
        self._end(d_model, condition_dim)
        self.register_buffer("levels", levels, persistent=False)

    def forward(
        self,
        tokens: Tensor,
        condition: Tensor,
        *,
        mask: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Map tokens.

        Parameters
        ----------
        tokens : Tensor of shape (B, L, D)
            Of the first levels.
        condition : Tensor of shape (B, C) or (B, L, C)
            Of a sequence, or of each token.
        mask : bool Tensor of shape (L, L), optional
            Which token sees which, in place of what the levels say; not with mixers across levels.
        groups : int64 Tensor of shape (L,), optional
            Of conditions (B, G, C), which one each token has.

        Returns
        -------
        Tensor of shape (B, L, D)
        """
        levels, x = self.levels[: tokens.shape[1]], tokens
        for block in self.blocks:
            x = block(x, condition, levels, mask, groups)
        return self._final(x, condition, groups)

    def init_state(self, condition: Tensor) -> ConditionedState:
        """Return the state before the first token, given conditions (B, C) or (B, T, C)."""
        blocks: Any = self.blocks
        states = tuple(block.init_state(len(condition)) for block in blocks)
        return ConditionedState(0, condition, states)

    def extend(
        self, tokens: Tensor, state: ConditionedState, condition: Tensor | None = None
    ) -> tuple[Tensor, ConditionedState]:
        """Map more tokens, given the state after those before them.

        Parameters
        ----------
        tokens : Tensor of shape (B, T, D)
            Whole levels.
        state : ConditionedState
        condition : Tensor of shape (B, C) or (B, T, C), optional
            Of these tokens; by default that of the state.

        Returns
        -------
        x : Tensor of shape (B, T, D)
        state : ConditionedState
        """
        length = state.length + tokens.shape[1]
        condition = state.condition if condition is None else condition
        levels = self.levels[state.length : length]
        x, states = tokens, []
        block: Any
        for block, before in zip(self.blocks, state.blocks, strict=True):
            x, after = block.extend(x, condition, before, levels)
            states.append(after)
        return self._final(x, condition), ConditionedState(length, state.condition, tuple(states))


class QueryState(NamedTuple):
    """What a decoder of queries remembers.

    Parameters
    ----------
    condition : Tensor of shape (B, C)
    blocks : tuple
        The state of each mixer of the content.
    cache : KVCache
        Keys and values of the content, which all layers of queries read.
    """

    condition: Tensor
    blocks: tuple[Any, ...]
    cache: KVCache


class QueryDecoder(_ConditionedStack):
    """Causal blocks over content, and blocks of queries that read what these make of it.

    The content is what there is so far, in the order in which it came. A query says what is wanted,
    such as the place of the next token; it reads the content and no other query, so that any
    number of them can be answered at once. Keys and values of the content are projected once, for
    all layers of queries.

    Parameters
    ----------
    mixers : sequence of Mixer
        Of the content, one per block, each of them causal.
    n_query_layers : int
        Blocks of queries.
    n_heads : int
        Of the queries; divides ``d_model``.
    d_model, d_ff, condition_dim : int
        Width of content and queries, inside the feed-forward part, and of the condition.
    dropout : float, default 0.0
        On both branches of a block.

    Raises
    ------
    ParameterError
        If a mixer is not causal, or the heads do not divide the width.

    References
    ----------
    Li et al., "Autoregressive image generation with randomized parallel decoding",
    arXiv:2503.10568, section 3; Sun et al., "You only cache once", NeurIPS 2024 (keys and values
    projected once).
    """

    def __init__(
        self,
        mixers: list[Mixer],
        *,
        n_query_layers: int,
        n_heads: int,
        d_model: int,
        d_ff: int,
        condition_dim: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_causal("QueryDecoder", mixers)
        sizes = d_model, d_ff, condition_dim, dropout
        self.content = nn.ModuleList(_ConditionedBlock(mixer, *sizes) for mixer in mixers)
        self.content_norm = nn.LayerNorm(d_model)
        self.keys_and_values = KeysAndValues(d_model, n_heads)
        self.queries = nn.ModuleList(
            _ConditionedBlock(QueryAttention(d_model, n_heads), *sizes)
            for _ in range(n_query_layers)
        )
        self._end(d_model, condition_dim)

    def forward(
        self,
        content: Tensor,
        queries: Tensor,
        condition: Tensor,
        *,
        content_levels: Tensor,
        query_levels: Tensor,
    ) -> Tensor:
        """Answer queries, each from the content of its level and of lower ones.

        Parameters
        ----------
        content : Tensor of shape (B, L, D)
        queries : Tensor of shape (B, T, D)
        condition : Tensor of shape (B, C)
        content_levels, query_levels : int Tensor of shape (L,) and (T,)

        Returns
        -------
        Tensor of shape (B, T, D)
        """
        x, order = content, in_order(content.shape[1]).to(content.device)
        for block in self.content:
            x = block(x, condition, order)
        keys, values = self.keys_and_values(self.content_norm(x))
        seen = masks.visible(query_levels, content_levels)[None]
        return self._answered(queries, condition, keys, values, seen)

    def init_state(self, condition: Tensor) -> QueryState:
        """Return the state before any content, given conditions (B, C)."""
        blocks: Any = self.content
        states = tuple(block.init_state(len(condition)) for block in blocks)
        return QueryState(condition, states, self.keys_and_values.init_state(len(condition)))

    def extend(
        self, content: Tensor, queries: Tensor, state: QueryState
    ) -> tuple[Tensor, QueryState]:
        """Take more content (B, T', D) in, and answer queries (B, T, D) from all there is."""
        condition, x, states = state.condition, content, []
        order = in_order(content.shape[1]).to(content.device)
        block: Any
        for block, before in zip(self.content, state.blocks, strict=True):
            x, after = block.extend(x, condition, before, order)
            states.append(after)
        cache = state.cache.append(*self.keys_and_values(self.content_norm(x)))
        answers = self._answered(queries, condition, cache.keys, cache.values, None)
        return answers, QueryState(condition, tuple(states), cache)

    def _answered(
        self, x: Tensor, condition: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None
    ) -> Tensor:
        block: Any
        for block in self.queries:
            normed, gate = block.mixer_norm(x, condition)
            read = block.mixer(normed, keys, values, mask=seen)
            x = block.after_mixer(x, read, gate, condition)
        return self._final(x, condition)


def in_order(n_tokens: int) -> Tensor:
    """Return the levels of tokens that come one after the other."""
    # Where it stands is known, also where a network is built without memory.
    return torch.arange(n_tokens, device="cpu")
