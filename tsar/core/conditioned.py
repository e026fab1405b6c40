"""Blocks that are told what to generate: the condition sets their norms and gates."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tsar.core import masks
from tsar.core.conditioning import AdaptiveNorm
from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers import Mixer
from tsar.core.mlp import make_mlp

__all__ = ["ConditionedDecoder", "ConditionedState", "in_order"]


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
        self, mixer: Mixer, mlp: nn.Module, d_model: int, condition_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.mixer, self.mlp = mixer, mlp
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
        x = self.mixer_dropout.add(x, gate * mixed)
        normed, gate = self.mlp_norm(x, condition, groups)
        return self.mlp_dropout.add(x, gate * self.mlp(normed))


class ConditionedDecoder(nn.Module):
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
        On both branches of a block.

    References
    ----------
    Peebles and Xie, "Scalable diffusion models with transformers", ICCV 2023, section 3.2.
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
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _ConditionedBlock(
                mixer,
                make_mlp("gelu", d_model, d_ff, dropout=dropout),
                d_model,
                condition_dim,
                dropout,
            )
            for mixer in mixers
        )
        self.final_norm = nn.LayerNorm(d_model, elementwise_affine=False)
        self.final_map = Linear(condition_dim, 2 * d_model)
        nn.init.zeros_(self.final_map.weight)
        nn.init.zeros_(self.final_map.bias)
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
            Which token sees which, in place of what the levels say.
        groups : int64 Tensor of shape (L,), optional
            Of conditions (B, G, C), which one each token has.

        Returns
        -------
        Tensor of shape (B, L, D)
        """
        if mask is None:
            mask = masks.visible(self.levels[: tokens.shape[1]])
        x = tokens
        block: Any
        for block in self.blocks:
            normed, gate = block.mixer_norm(x, condition, groups)
            # What goes through tokens in their order needs to be told of none.
            seen = {"mask": mask[None]} if block.mixer.takes_levels else {}
            x = block.after_mixer(x, block.mixer(normed, **seen), gate, condition, groups)
        return self._final(x, condition, groups)

    def _final(self, x: Tensor, condition: Tensor, groups: Tensor | None = None) -> Tensor:
        if condition.ndim == 2:
            condition = condition[:, None]
        maps = self.final_map(nn.functional.silu(condition))
        shift, scale = (maps if groups is None else maps[:, groups]).chunk(2, dim=-1)
        return self.final_norm(x) * (1 + scale) + shift

    def init_state(self, condition: Tensor) -> ConditionedState:
        """Return the state before the first token, given conditions (B, C) or (B, T, C)."""
        blocks: Any = self.blocks
        states = tuple(block.mixer.init_state(len(condition)) for block in blocks)
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
        n_tokens = tokens.shape[1]
        condition = state.condition if condition is None else condition
        levels = self.levels[state.length : state.length + n_tokens]
        x, states = tokens, []
        block: Any
        for block, before in zip(self.blocks, state.blocks, strict=True):
            normed, gate = block.mixer_norm(x, condition)
            told = {"levels": levels} if block.mixer.takes_levels else {}
            mixed, after = block.mixer.extend(normed, before, **told)
            x = block.after_mixer(x, mixed, gate, condition)
            states.append(after)
        return self._final(x, condition), ConditionedState(
            state.length + n_tokens, state.condition, tuple(states)
        )


def in_order(n_tokens: int) -> Tensor:
    """Return the levels of tokens that come one after the other."""
    # Where it stands is known, also where a network is built without memory.
    return torch.arange(n_tokens, device="cpu")
