"""A small decoder: causal blocks over tokens of any origin."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from tsar.core.block import Block, Encoder
from tsar.core.mixers import Mixer
from tsar.core.mlp import MLP
from tsar.core.norm import make_norm
from tsar.core.position import SinusoidalPosition
from tsar.exceptions import ParameterError

__all__ = ["Decoder", "DecoderState"]


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
    """Causal blocks between a sinusoidal position and a last normalisation.

    Normalisation is that of layers, before each branch. A token depends on
    itself and on the tokens before it.

    Parameters
    ----------
    mixers : sequence of Mixer
        One per block, each of them causal.
    d_model, d_ff : int
        Width of the tokens, and inside the feed-forward part.
    dropout : float, default 0.0
        Inside the feed-forward part and on both branches of a block.
    max_tokens : int, default 1024
        Longest sequence.

    Raises
    ------
    ParameterError
        If a mixer is not causal.
    """

    def __init__(
        self,
        mixers: list[Mixer],
        *,
        d_model: int,
        d_ff: int,
        dropout: float = 0.0,
        max_tokens: int = 1024,
    ) -> None:
        super().__init__()
        for mixer in mixers:
            if not mixer.causal:
                raise ParameterError(
                    f"Decoder: {type(mixer).__name__} looks ahead; pass causal mixers"
                )
        self.d_model = d_model
        self.max_tokens = max_tokens
        self.position = SinusoidalPosition(max_tokens, d_model)
        self.encoder = Encoder(
            [
                Block(
                    mixer,
                    MLP(d_model, d_ff, dropout=dropout),
                    d_model=d_model,
                    norm="layer",
                    pre_norm=True,
                    dropout=dropout,
                )
                for mixer in mixers
            ],
            make_norm("layer", d_model),
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
        self._check_length(tokens.shape[1])
        return self.encoder(self.position(tokens), mask=mask)

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
        length = state.length + tokens.shape[1]
        self._check_length(length)
        decoded, blocks = self.encoder.extend(self.position(tokens, state.length), state.blocks)
        return decoded, DecoderState(length, blocks)

    def extend_each(
        self, tokens: Tensor, state: DecoderState
    ) -> tuple[Tensor, tuple[DecoderState, ...]]:
        """Decode more tokens (B, T, D), and return the state after each of them.

        Raises
        ------
        ParameterError
            If there are more than ``max_tokens`` in all.
        """
        self._check_length(state.length + tokens.shape[1])
        placed = self.position(tokens, state.length)
        decoded, by_token = self.encoder.extend_each(placed, state.blocks)
        lengths = range(state.length + 1, state.length + tokens.shape[1] + 1)
        return decoded, tuple(map(DecoderState, lengths, by_token))

    def _check_length(self, n_tokens: int) -> None:
        if n_tokens > self.max_tokens:
            raise ParameterError(
                f"Decoder: {n_tokens} tokens are more than max_tokens={self.max_tokens}"
            )
