"""The network of a language model: an embedding, a decoder, and the embedding again."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.decoder import Decoder, DecoderState
from tsar.core.ops.even_products import linear
from tsar.training import Objective

__all__ = ["NextToken", "TokenNetwork"]

# The first values of embeddings that are also the map to logits: with larger ones the first
# losses are far above that of guessing.
FIRST_SCALE = 0.02


class TokenNetwork(nn.Module):
    """Logits of the next token, from those before it.

    Parameters
    ----------
    decoder : Decoder
    n_tokens : int
        V. What a token is embedded as is also what its logit is a product with.

    References
    ----------
    Press and Wolf, "Using the output embedding to improve language models", EACL 2017.
    """

    no_decay = ("embedding.weight",)

    def __init__(self, decoder: Decoder, n_tokens: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        self.embedding = nn.Embedding(n_tokens, decoder.d_model)
        nn.init.normal_(self.embedding.weight, std=FIRST_SCALE)
        self.decoder = decoder

    def hidden(self, ids: Tensor) -> Tensor:
        """Return what the decoder makes of tokens (B, L), of shape (B, L, D)."""
        return self.decoder(self.embedding(ids))

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits (B, L, V) of what follows each of the tokens (B, L)."""
        return self.logits(self.hidden(ids))

    def init_state(self, batch: int) -> DecoderState:
        """Return the state before the first token of ``batch`` sequences."""
        return self.decoder.init_state(batch)

    def extend(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read more tokens (B, T); return the logits (B, T, V) of what follows, and the state."""
        decoded, state = self.decoder.extend(self.embedding(ids), state)
        return self.logits(decoded), state

    def extend_each(self, ids: Tensor, state: Any) -> tuple[Tensor, tuple[Any, ...]]:
        """Read more tokens (B, T), and return the states after each of them."""
        decoded, states = self.hidden_each(ids, state)
        return self.logits(decoded), states

    def hidden_each(self, ids: Tensor, state: Any) -> tuple[Tensor, tuple[Any, ...]]:
        """Read more tokens (B, T); return what logits are made of (B, T, D), and the states."""
        return self.decoder.extend_each(self.embedding(ids), state)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden states (..., D)."""
        return linear(hidden, self.embedding.weight)


class NextToken(Objective):
    """Cross-entropy of each token given those before it in its window, in nats."""

    def loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Any:
        """Return the sum of the losses of windows (B, L + 1), and how many tokens there are."""
        logits, after = network(batch[:, :-1]), batch[:, 1:]
        total = F.cross_entropy(logits.flatten(0, 1), after.flatten(), reduction="sum")
        return {"loss": (total, torch.tensor(after.numel(), device=total.device))}
