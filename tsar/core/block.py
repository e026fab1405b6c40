"""The residual block and the stack of blocks. Those told by a condition are in conditioned.py."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from tsar.core.dropout import Dropout
from tsar.core.mixers.base import CarryingMixer, Mixer
from tsar.core.norm import make_norm
from tsar.exceptions import ParameterError

__all__ = ["Block", "Encoder"]


class Block(nn.Module):
    """A mixer along tokens, then a map of every token if there is one, each with a residual.

    Before the branch (``pre_norm``)::

        x = x + drop(mix(norm(x)))
        x = x + drop(mlp(norm(x)))

    after the sum (post-norm)::

        x = norm(x + drop(mix(x)))
        x = norm(x + drop(mlp(x)))

    Parameters
    ----------
    mixer : Mixer
    mlp : nn.Module or None
        Maps (B, L, D) to (B, L, D). None leaves its branch out, as stacks of state spaces do.
    d_model : int
    norm : {"layer", "batch", "rms"} or function, default "layer"
        A function builds the module from ``d_model``.
    pre_norm : bool, default True
    dropout : float, default 0.0
        Of both branches.
    mixer_dropout : float, optional
        Of the mixer's branch, where it differs.
    """

    def __init__(
        self,
        mixer: Mixer,
        mlp: nn.Module | None,
        *,
        d_model: int,
        norm: str | Callable[[int], nn.Module] = "layer",
        pre_norm: bool = True,
        dropout: float = 0.0,
        mixer_dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.mixer = mixer
        self.mixer_norm = _norm(norm, d_model)
        self.mixer_dropout = Dropout(dropout if mixer_dropout is None else mixer_dropout)
        self.mlp = mlp
        self.mlp_norm = None if mlp is None else _norm(norm, d_model)
        self.mlp_dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Map tokens (B, L, D); the rest as in :class:`~tsar.core.mixers.Mixer`.

        Raises
        ------
        ParameterError
            If there are positions and the mixer takes none.
        """
        placed = self.placed(positions)
        mixed = self.mixer(self.before_mixer(x), mask=mask, memory=memory, **placed)
        return self.after_mixer(x, mixed)

    def placed(self, positions: Tensor | None) -> dict[str, Any]:
        """Return what the mixer is told of positions: nothing where there are none.

        Raises
        ------
        ParameterError
            If there are some and the mixer takes none.
        """
        if positions is None:
            return {}
        if not self.mixer.takes_levels:
            raise ParameterError(
                f"Block: {type(self.mixer).__name__} takes tokens one after the other, and no "
                f"positions; use SoftmaxAttention"
            )
        return {"positions": positions}

    def init_state(self, batch: int) -> Any:
        """Return the state before the first token, which is that of the mixer."""
        return self.mixer.init_state(batch)

    def extend(self, x: Tensor, state: Any, levels: Tensor | None = None) -> tuple[Tensor, Any]:
        """Map more tokens (B, T, D), given the state after those before them.

        Tokens of one of the ``levels`` (T,) see each other, if the mixer takes levels.
        """
        mixed, state = self.mixer.extend(self.before_mixer(x), state, **self._levels(levels))
        return self.after_mixer(x, mixed), state

    def extend_each(
        self, x: Tensor, state: Any, levels: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Map more tokens (B, T, D), and return the state after each of them."""
        mixed, states = self.mixer.extend_each(self.before_mixer(x), state, **self._levels(levels))
        return self.after_mixer(x, mixed), states

    def _levels(self, levels: Tensor | None) -> dict[str, Tensor]:
        return {} if levels is None or not self.mixer.takes_levels else {"levels": levels}

    def before_mixer(self, x: Tensor) -> Tensor:
        """Return what the mixer is given of tokens ``x``."""
        return self.mixer_norm(x) if self.pre_norm else x

    def after_mixer(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Do the rest of the block, given what the mixer made of tokens ``x``."""
        x = self.mixer_dropout.add(x, mixed)
        if not self.pre_norm:
            x = self.mixer_norm(x)
        if self.mlp is None or self.mlp_norm is None:
            return x
        if self.pre_norm:
            return self.mlp_dropout.add(x, self.mlp(self.mlp_norm(x)))
        return self.mlp_norm(self.mlp_dropout.add(x, self.mlp(x)))


def _norm(norm: str | Callable[[int], nn.Module], d_model: int) -> nn.Module:
    return make_norm(norm, d_model) if isinstance(norm, str) else norm(d_model)


class Encoder(nn.Module):
    """Blocks one after the other.

    What a :class:`~tsar.core.mixers.CarryingMixer` hands on goes to that of the next block.

    Parameters
    ----------
    blocks : iterable of Block
    final_norm : nn.Module, optional
        Applied to the tokens at the end; pre-norm stacks need one.
    """

    def __init__(self, blocks: Iterable[Block], final_norm: nn.Module | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.final_norm = final_norm

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Encode tokens (B, L, D).

        Parameters
        ----------
        x : Tensor of shape (B, L, D)
        mask : bool Tensor, optional
            As in :class:`~tsar.core.mixers.Mixer`.
        positions : int64 Tensor of shape (L,), optional
            Where the tokens are, if not one after the other.

        Returns
        -------
        Tensor of shape (B, L, D)

        Raises
        ------
        ParameterError
            If there are positions and a mixer takes none.
        """
        carry = None
        block: Any
        for block in self.blocks:
            if isinstance(block.mixer, CarryingMixer):
                mixed, carry = block.mixer.mix(
                    block.before_mixer(x), carry, mask=mask, **block.placed(positions)
                )
                x = block.after_mixer(x, mixed)
            else:
                x, carry = block(x, mask=mask, positions=positions), None
        return x if self.final_norm is None else self.final_norm(x)

    def init_state(self, batch: int) -> tuple[Any, ...]:
        """Return the states before the first token, one of each block."""
        blocks: Any = self.blocks
        return tuple(block.init_state(batch) for block in blocks)

    def extend(
        self, x: Tensor, state: tuple[Any, ...], levels: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Encode more tokens (B, T, D), given the states after those before them.

        Tokens of one of the ``levels`` (T,) see each other, where a mixer takes levels. Agrees
        with ``forward`` where the norms treat every token by itself, as all do but that of
        batches in training.
        """
        states = []
        block: Any
        for block, before in zip(self.blocks, state, strict=True):
            x, after = block.extend(x, before, levels)
            states.append(after)
        return x if self.final_norm is None else self.final_norm(x), tuple(states)

    def extend_each(
        self, x: Tensor, state: tuple[Any, ...], levels: Tensor | None = None
    ) -> tuple[Tensor, tuple[tuple[Any, ...], ...]]:
        """Encode more tokens (B, T, D), and return the states after each of them."""
        n_tokens, by_block = x.shape[1], []
        block: Any
        for block, before in zip(self.blocks, state, strict=True):
            x, after = block.extend_each(x, before, levels)
            by_block.append(after)
        # A stack without blocks has an empty state after every token, too.
        by_token = tuple(zip(*by_block, strict=True)) if by_block else ((),) * n_tokens
        return x if self.final_norm is None else self.final_norm(x), by_token
