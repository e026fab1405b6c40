"""Guesses by the first blocks of the network that is decoded, which goes on from there."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tsar.core.block import Encoder
from tsar.core.decoder import DecoderState
from tsar.core.decoding.drafts import Draft
from tsar.core.sampling import Sampler
from tsar.core.state import rewind
from tsar.exceptions import ParameterError

__all__ = ["EarlyExitDraft"]


class EarlyExitDraft(Draft):
    """Guesses by the first blocks of a network and one more, which was trained for that.

    What the first blocks make of a guess is handed to the others when it is verified, so that no
    block reads a token twice.

    Parameters
    ----------
    network : TokenNetwork
        The first blocks of ``whole``, the same modules, and the block behind them.
    whole : TokenNetwork
        The network that is decoded.
    confidence : float, default 0.6
        It guesses no further behind a token whose probability is the largest and below this.

    References
    ----------
    Liu et al., "Kangaroo: lossless self-speculative decoding via double early exiting", NeurIPS
    2024, section 3.
    """

    def __init__(self, network: Any, whole: Any, confidence: float = 0.6) -> None:
        if not 0 <= confidence <= 1:
            raise ParameterError(
                f"EarlyExitDraft: confidence must be in [0, 1], got {confidence!r}"
            )
        encoder, every = network.decoder.encoder, whole.decoder.encoder
        shared = list(encoder.blocks[:-1])
        if any(ours is not theirs for ours, theirs in zip(shared, every.blocks, strict=False)):
            raise ParameterError(
                "EarlyExitDraft: all blocks of network but the last must be the first ones of "
                "whole; see tsar.language.drafts.fit_early_exit"
            )
        self.network, self.whole, self.confidence = network, whole, confidence
        self.n_shared = len(shared)
        self._first = Encoder(shared)
        self._exit = Encoder(encoder.blocks[-1:], encoder.final_norm)
        self._rest = Encoder(every.blocks[self.n_shared :], every.final_norm)

    def check_network(self, network: Any) -> None:
        if network is not self.whole:
            raise ParameterError(
                "EarlyExitDraft: the draft is of the first blocks of another network; train one "
                "for this model by fit_early_exit"
            )

    def begin(self, ids: Sequence[int], n_tokens: int) -> None:
        self._device = next(self.network.parameters()).device
        self._state = DecoderState(0, self._first.init_state(1))
        self._exit_state = self._exit.init_state(1)
        self._unread = list(ids)
        self._after: list[tuple[DecoderState, Any]] = []

    def propose(
        self, n_steps: int, sampler: Sampler, generator: torch.Generator
    ) -> tuple[list[int], Tensor | None]:
        if self._unread:
            self._read_own(self._unread)
            self._unread = []
        features, logits = self._last
        self._features, self._ahead = [features], [(self._state, self._exit_state)]
        drawn: list[int] = []
        shares = []
        for step in range(n_steps):
            shares.append(sampler.probabilities(logits))
            drawn.append(int(sampler.draw(logits, generator)))
            if step + 1 == n_steps or float(shares[-1].max()) < self.confidence:
                break
            logits = self._read_guess(drawn[-1])
        return drawn, torch.stack(shares)

    def read(
        self, network: Any, ids: Tensor, state: Any
    ) -> tuple[Tensor, tuple[Any, ...], Tensor | None]:
        """Let the other blocks read what the first ones made of the tokens."""
        if self._unread or self._state.length != state.length + 1:
            # The network began anew in the middle of the text, or nothing was guessed.
            logits, states, hidden = super().read(network, ids, state)
            own = self._exit.init_state(1)
            self._after = [
                (DecoderState(one.length, one.blocks[: self.n_shared]), own) for one in states
            ]
            return logits, states, hidden
        if ids.shape[1] > 1:
            self._read_guess(int(ids[0, -1]))
        blocks = state.blocks[self.n_shared :]
        decoded, rest = self._rest.extend_each(torch.cat(self._features, dim=1), blocks)
        self._after = self._ahead
        states = tuple(
            DecoderState(first.length, (*first.blocks, *behind))
            for (first, _), behind in zip(self._after, rest, strict=True)
        )
        return network.logits(decoded), states, None

    def see(self, target: Tensor, n_kept: int, hidden: Tensor | None) -> None:
        if self._after:
            self._state, self._exit_state = rewind(self._after[n_kept])

    def accept(self, ids: Sequence[int]) -> None:
        if self._after:
            # The last one was drawn by the network, and is not read yet.
            self._after, self._unread = [], list(ids[-1:])
        else:
            rewind((self._state, self._exit_state))
            self._unread = [*self._unread, *ids]

    def _read_own(self, ids: list[int]) -> None:
        """Read tokens of the text, and remember what is made of the last one."""
        before = self._state, self._exit_state
        features, logits, (self._state, self._exit_state) = self._extended(ids, before)
        self._last = features[:, -1:], logits

    def _read_guess(self, token: int) -> Tensor:
        """Read a token behind those that were guessed; return the logits of the next one."""
        features, logits, after = self._extended([token], self._ahead[-1])
        self._features.append(features)
        self._ahead.append(after)
        return logits

    def _extended(
        self, ids: list[int], before: tuple[DecoderState, Any]
    ) -> tuple[Tensor, Tensor, tuple[DecoderState, Any]]:
        """Return features (1, T, D) at the exit, the logits (V,) behind them, and the states."""
        state, own = before
        embedding: nn.Module = self.network.embedding
        tokens = embedding(torch.tensor([ids], device=self._device))
        placed = self.network.decoder.placed(tokens, state.length)
        features, blocks = self._first.extend(placed, state.blocks)
        decoded, own = self._exit.extend(features, own)
        logits = self.network.logits(decoded[0, -1])
        return features, logits, (DecoderState(state.length + len(ids), blocks), own)
