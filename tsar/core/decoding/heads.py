"""Drafts of small heads on what the network made of the last token it has read.

Letters: B batch, L tokens, D width of the hidden states, V tokens of the vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.decoding.drafts import Draft
from tsar.core.linear import Linear
from tsar.core.sampling import Sampler
from tsar.exceptions import ParameterError

__all__ = ["BlockwiseHeads", "DraftHeads", "HeadsDraft", "HydraHeads", "MedusaHeads"]


class DraftHeads(nn.Module, ABC):
    """Heads that guess the tokens behind the next one, from the hidden state before it.

    Parameters
    ----------
    n_heads : int
        Head i guesses the token i places behind the next one.
    embedding : Tensor of shape (V, D)
        What the network maps tokens to hidden states with, and these to logits; it is not trained.
    """

    embedding: Tensor

    def __init__(self, n_heads: int, embedding: Tensor) -> None:
        super().__init__()
        if n_heads < 1:
            raise ParameterError(
                f"{type(self).__name__}: n_heads must be at least 1, got {n_heads!r}"
            )
        self.n_heads = n_heads
        self.register_buffer("embedding", embedding.detach().clone())

    @abstractmethod
    def guess(self, head: int, hidden: Tensor, following: Sequence[Tensor]) -> Tensor:
        """Return the logits of a head.

        Parameters
        ----------
        head : int
            From 0 on.
        hidden : Tensor of shape (..., D)
            At some tokens.
        following : sequence of int64 Tensor of shape (...)
            The ``head + 1`` tokens behind them, the last of which is the one before the guess.

        Returns
        -------
        Tensor of shape (..., V)
        """

    def losses(self, hidden: Tensor, ids: Tensor) -> list[Tensor]:
        """Return the loss of each head, a Tensor of shape (B, L - head - 1).

        Parameters
        ----------
        hidden : Tensor of shape (B, L, D)
        ids : int64 Tensor of shape (B, L + 1)
            Those at the hidden states, and one more.
        """
        length, losses = hidden.shape[1], []
        for head in range(self.n_heads):
            n_guesses = length - head - 1
            if n_guesses < 1:
                break
            following = [ids[:, 1 + k : 1 + k + n_guesses] for k in range(head + 1)]
            logits = self.guess(head, hidden[:, :n_guesses], following)
            aim = ids[:, head + 2 : head + 2 + n_guesses]
            losses.append(F.cross_entropy(logits.mT, aim, reduction="none"))
        return losses


class BlockwiseHeads(DraftHeads):
    """A hidden layer for each head, and the map of the network itself.

    Parameters
    ----------
    n_heads, embedding
        See :class:`DraftHeads`.

    References
    ----------
    Stern, Shazeer and Uszkoreit, "Blockwise parallel decoding for deep autoregressive models",
    NeurIPS 2018, section 5.
    """

    def __init__(self, n_heads: int, embedding: Tensor) -> None:
        super().__init__(n_heads, embedding)
        width = embedding.shape[1]
        self.inner = nn.ModuleList(Linear(width, 4 * width) for _ in range(n_heads))
        self.outer = nn.ModuleList(Linear(4 * width, width) for _ in range(n_heads))

    def guess(self, head: int, hidden: Tensor, following: Sequence[Tensor]) -> Tensor:
        moved = hidden + self.outer[head](F.relu(self.inner[head](hidden)))
        return moved @ self.embedding.T


class MedusaHeads(DraftHeads):
    """``W_i (h + silu(U_i h))``: ``U`` is zero at first, and ``W`` the map of the network.

    Parameters
    ----------
    n_heads, embedding
        See :class:`DraftHeads`.

    References
    ----------
    Cai et al., "Medusa: simple LLM inference acceleration framework with multiple decoding heads",
    ICML 2024, section 2.1.1.
    """

    def __init__(self, n_heads: int, embedding: Tensor) -> None:
        super().__init__(n_heads, embedding)
        n_tokens, width = embedding.shape
        self.inner = nn.ModuleList(Linear(self._seen(k) * width, width) for k in range(n_heads))
        self.outer = nn.ModuleList(Linear(width, n_tokens, bias=False) for _ in range(n_heads))
        for inner, outer in zip(self.inner, self.outer, strict=True):
            nn.init.zeros_(inner.weight)  # type: ignore[arg-type]
            nn.init.zeros_(inner.bias)  # type: ignore[arg-type]
            outer.weight.data.copy_(embedding)  # type: ignore[operator]

    def _seen(self, head: int) -> int:
        """How many vectors a head reads side by side."""
        return 1

    def _read(self, head: int, hidden: Tensor, following: Sequence[Tensor]) -> Tensor:
        return hidden

    def guess(self, head: int, hidden: Tensor, following: Sequence[Tensor]) -> Tensor:
        moved = hidden + F.silu(self.inner[head](self._read(head, hidden, following)))
        logits: Tensor = self.outer[head](moved)
        return logits


class HydraHeads(MedusaHeads):
    """The same, with the embeddings of the tokens behind the hidden state read beside it.

    So a head knows what the heads before it have guessed.

    Parameters
    ----------
    n_heads, embedding
        See :class:`DraftHeads`.

    References
    ----------
    Ankner et al., "Hydra: sequentially-dependent draft heads for Medusa decoding", COLM 2024,
    section 3.
    """

    def _seen(self, head: int) -> int:
        return head + 2

    def _read(self, head: int, hidden: Tensor, following: Sequence[Tensor]) -> Tensor:
        return torch.cat([hidden, *(self.embedding[ids] for ids in following)], dim=-1)


class HeadsDraft(Draft):
    """Guesses by heads on the network that is decoded.

    Parameters
    ----------
    heads : DraftHeads
        Trained for that network, see :func:`tsar.language.drafts.fit_heads`.
    """

    wants_hidden = True

    def __init__(self, heads: DraftHeads) -> None:
        self.heads = heads

    def check(self, n_tokens: int) -> None:
        if len(self.heads.embedding) != n_tokens:
            raise ParameterError(
                f"HeadsDraft: the heads know {len(self.heads.embedding)} tokens and the model "
                f"{n_tokens}; train heads for it"
            )

    def check_network(self, network: Any) -> None:
        if not hasattr(network, "hidden_each"):
            raise ParameterError(
                f"HeadsDraft: {type(network).__name__} gives no hidden states token by token; use "
                f"a draft that needs none, such as NGramDraft"
            )

    def begin(self, ids: Sequence[int], n_tokens: int) -> None:
        self.check(n_tokens)
        self._hidden: Tensor | None = None
        self._last = 0

    def propose(
        self, n_steps: int, sampler: Sampler, generator: torch.Generator
    ) -> tuple[list[int], Tensor | None]:
        if self._hidden is None:
            # Nothing is read yet.
            return [], None
        following = [torch.tensor(self._last, device=self._hidden.device)]
        drawn: list[int] = []
        shares = []
        for head in range(min(n_steps, self.heads.n_heads)):
            logits = self.heads.guess(head, self._hidden, following)
            shares.append(sampler.probabilities(logits).cpu())
            drawn.append(int(sampler.draw(logits, generator)))
            following.append(torch.tensor(drawn[-1], device=self._hidden.device))
        return drawn, torch.stack(shares)

    def read(
        self, network: Any, ids: Tensor, state: Any
    ) -> tuple[Tensor, tuple[Any, ...], Tensor | None]:
        hidden, states = network.hidden_each(ids, state)
        return network.logits(hidden), states, hidden

    def see(self, target: Tensor, n_kept: int, hidden: Tensor | None) -> None:
        self._hidden = hidden

    def accept(self, ids: Sequence[int]) -> None:
        self._last = ids[-1]
