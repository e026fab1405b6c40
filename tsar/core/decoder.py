"""A small decoder: causal blocks over tokens of any origin."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from tsar.core.block import Block, Encoder
from tsar.core.mixers import Mixer, check_causal
from tsar.core.mlp import make_mlp
from tsar.core.norm import make_norm
from tsar.core.position import LearnedPosition, SinusoidalPosition
from tsar.exceptions import ParameterError
from tsar.params.constraints import check_choice

__all__ = ["Decoder", "DecoderState"]

_POSITIONS: dict[str, type[LearnedPosition] | type[SinusoidalPosition]] = {
    "sinusoidal": SinusoidalPosition,
    "learned": LearnedPosition,
}


class DecoderState(NamedTuple):
    """What a decoder remembers of the tokens so far.

    Parameters
    ----------
    length : int
        How many there were, which is the position of the next one.
    blocks : tuple
        The state of each block.
    """

    length: int
    blocks: tuple[Any, ...]


class Decoder(nn.Module):
    """Causal blocks between a position and a last normalisation.

    Normalisation comes before each branch. A token depends on itself and on the tokens before it.

    Parameters
    ----------
    mixers : sequence of Mixer
        One per block, each of them causal.
    d_model, d_ff : int
        Width of the tokens, and inside the feed-forward part.
    dropout : float, default 0.0
        Inside the feed-forward part and on both branches of a block.
    max_tokens : int or None, default 1024
        Longest sequence. None sets no limit, which needs a position of None.
    position : {"sinusoidal", "learned"} or None, default "sinusoidal"
        What is added to the tokens. None adds nothing: for mixers that turn queries and keys, or
        go through the tokens in their order anyway.
    norm : {"layer", "rms"}, default "layer"
    mlp : {"gelu", "swiglu", "experts"} or None, default "gelu"
        The feed-forward part, one of :data:`tsar.core.mlp.MLPS`; None for blocks of a mixer only.

    Raises
    ------
    ParameterError
        If a mixer is not causal, or positions are added to any number of tokens.
    """

    def __init__(
        self,
        mixers: list[Mixer],
        *,
        d_model: int,
        d_ff: int,
        dropout: float = 0.0,
        max_tokens: int | None = 1024,
        position: str | None = "sinusoidal",
        norm: str = "layer",
        mlp: str | None = "gelu",
    ) -> None:
        super().__init__()
        check_causal("Decoder", mixers)
        # Batch normalisation would let a token depend on later ones.
        check_choice("Decoder", "norm", norm, ("layer", "rms"))
        self.d_model = d_model
        self.max_tokens = max_tokens
        self.position = _make_position(position, max_tokens, d_model)
        self.encoder = Encoder(
            [
                Block(
                    mixer,
                    None if mlp is None else make_mlp(mlp, d_model, d_ff, dropout=dropout),
                    d_model=d_model,
                    norm=norm,
                    pre_norm=True,
                    dropout=dropout,
                )
                for mixer in mixers
            ],
            make_norm(norm, d_model),
        )

    def forward(self, tokens: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Decode tokens.

        Parameters
        ----------
        tokens : Tensor of shape (B, P, D)
        mask : bool Tensor of shape (B, P), optional
            True where a token may be attended to.

        Returns
        -------
        Tensor of shape (B, P, D)

        Raises
        ------
        ParameterError
            If there are more than ``max_tokens``.
        """
        return self.encoder(self.placed(tokens, 0), mask=mask)

    def init_state(self, batch: int) -> DecoderState:
        """Return the state before the first token of ``batch`` sequences."""
        return DecoderState(0, self.encoder.init_state(batch))

    def extend(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Decode more tokens (B, T, D), given the state after those before them.

        Positions continue where the state ends. Over any cutting of a sequence the results are
        those of ``forward``.

        Raises
        ------
        ParameterError
            If there are more than ``max_tokens`` in all.
        """
        placed = self.placed(tokens, state.length)
        decoded, blocks = self.encoder.extend(placed, state.blocks)
        return decoded, DecoderState(state.length + tokens.shape[1], blocks)

    def extend_each(
        self, tokens: Tensor, state: DecoderState
    ) -> tuple[Tensor, tuple[DecoderState, ...]]:
        """Decode more tokens (B, T, D), and return the state after each of them.

        Raises
        ------
        ParameterError
            If there are more than ``max_tokens`` in all.
        """
        placed = self.placed(tokens, state.length)
        decoded, by_token = self.encoder.extend_each(placed, state.blocks)
        lengths = range(state.length + 1, state.length + tokens.shape[1] + 1)
        return decoded, tuple(map(DecoderState, lengths, by_token))

    def placed(self, tokens: Tensor, start: int) -> Tensor:
        """Add positions to tokens (B, T, D), the first of which is at ``start``.

        Raises
        ------
        ParameterError
            If there are more than ``max_tokens`` in all.
        """
        length = start + tokens.shape[1]
        if self.max_tokens is not None and length > self.max_tokens:
            raise ParameterError(
                f"Decoder: {length} tokens are more than max_tokens={self.max_tokens}"
            )
        return tokens if self.position is None else self.position(tokens, start)


def _make_position(name: str | None, max_tokens: int | None, d_model: int) -> nn.Module | None:
    if name is None:
        return None
    check_choice("Decoder", "position", name, _POSITIONS)
    if max_tokens is None:
        raise ParameterError(
            f"Decoder: position={name!r} has a vector for each of max_tokens positions, got "
            f"max_tokens=None; pass a number, or position=None"
        )
    return _POSITIONS[name](max_tokens, d_model)
