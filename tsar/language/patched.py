"""The network of models that read patches of tokens and write the tokens of a patch.

Letters: B batch, L tokens, P tokens of a patch, K patches, D width of a patch, E width of a token
inside of it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.decoder import Decoder, DecoderState
from tsar.core.linear import Linear
from tsar.core.ops.even_products import linear
from tsar.language.network import FIRST_SCALE

__all__ = ["AddedContext", "PatchedNetwork", "PatchedState", "PrefixedContext"]


class AddedContext(nn.Module):
    """Tell a local decoder what was before its patch: a vector is added to each of its tokens.

    Parameters
    ----------
    d_model : int
        D, a multiple of ``patch_size``.
    d_local : int
        E.
    patch_size : int
    """

    n_prefix = 0

    def __init__(self, d_model: int, d_local: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.map = Linear(d_model // patch_size, d_local)
        # As small as the embeddings that it is added to, which it would drown otherwise.
        nn.init.normal_(self.map.weight, std=FIRST_SCALE * (d_model // patch_size) ** -0.5)
        nn.init.zeros_(self.map.bias)

    def forward(self, overall: Tensor) -> Tensor:
        """Return a context (..., P, E) of what was made of the patches before (..., D)."""
        return self.map(overall.unflatten(-1, (self.patch_size, -1)))

    def told(self, tokens: Tensor, context: Tensor, start: int) -> Tensor:
        """Return what the local decoder reads at tokens (B, T, E), of which ``start`` were read."""
        return tokens + context[:, start : start + tokens.shape[1]]


class PrefixedContext(nn.Module):
    """Tell a local decoder what was before its patch: by tokens that stand before its own.

    Parameters
    ----------
    d_model : int
        D.
    d_local : int
        E.
    n_prefix : int
        How many.
    """

    def __init__(self, d_model: int, d_local: int, n_prefix: int) -> None:
        super().__init__()
        self.n_prefix = n_prefix
        self.map = Linear(d_model, n_prefix * d_local)

    def forward(self, overall: Tensor) -> Tensor:
        """Return a context (..., n_prefix, E) of what was made of the patches before (..., D)."""
        return self.map(overall).unflatten(-1, (self.n_prefix, -1))

    def told(self, tokens: Tensor, context: Tensor, start: int) -> Tensor:
        """Return what the local decoder reads at tokens (B, T, E), of which ``start`` were read."""
        return tokens if start else torch.cat([context, tokens], dim=1)


class PatchedState(NamedTuple):
    """What a network of patches remembers of the tokens so far.

    Parameters
    ----------
    overall : DecoderState
        Over the patches that are full.
    local : DecoderState
        Over the tokens of the patch that is not.
    context : Tensor of shape (B, ...)
        What that patch is told of those before.
    embedded : Tensor of shape (B, n, D / P)
        Its tokens, as the decoder over patches will read them.
    """

    overall: DecoderState
    local: DecoderState
    context: Tensor
    embedded: Tensor


class PatchedNetwork(nn.Module):
    """Logits of the next token, from the tokens of its patch and from the patches before.

    Parameters
    ----------
    overall : Decoder
        Over patches.
    local : Decoder
        Inside of a patch.
    context : AddedContext or PrefixedContext
        How the local decoder is told of the patches before.
    n_tokens : int
        V. What a token is inside of a patch is also what its logit is a product with.
    patch_size : int
        P.
    """

    no_decay = ("embedding.weight", "patch_embedding.weight", "first")

    def __init__(
        self,
        overall: Decoder,
        local: Decoder,
        context: AddedContext | PrefixedContext,
        n_tokens: int,
        patch_size: int,
    ) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        self.patch_size = patch_size
        self.embedding = nn.Embedding(n_tokens, local.d_model)
        self.patch_embedding = nn.Embedding(n_tokens, overall.d_model // patch_size)
        for table in (self.embedding, self.patch_embedding):
            nn.init.normal_(table.weight, std=FIRST_SCALE)
        # What the first patch has before it.
        self.first = nn.Parameter(FIRST_SCALE * torch.randn(overall.d_model))
        self.overall = overall
        self.local = local
        self.context = context

    def hidden(self, ids: Tensor) -> Tensor:
        """Return what the local decoder makes of tokens (B, L), of shape (B, L, E)."""
        batch, length = ids.shape
        # What a patch is filled up with comes after its tokens, which do not see it.
        patches = F.pad(ids, (0, -length % self.patch_size)).unflatten(1, (-1, self.patch_size))
        before = self.patch_embedding(patches[:, :-1]).flatten(2)  # (B, K - 1, D)
        first = self.first.expand(batch, 1, -1)
        context = self.context(self.overall(torch.cat([first, before], dim=1)))
        hidden = self._whole_patches(patches, context)
        return hidden.flatten(1, 2)[:, :length]

    def _whole_patches(self, patches: Tensor, context: Tensor) -> Tensor:
        """Decode patches (B, K, P), each told of those before by its context; (B, K, P, E)."""
        told = self.context.told(self.embedding(patches.flatten(0, 1)), context.flatten(0, 1), 0)
        hidden = self.local(told)[:, self.context.n_prefix :]
        return hidden.unflatten(0, patches.shape[:2])

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits (B, L, V) of what follows each of the tokens (B, L)."""
        return self._logits(self.hidden(ids))

    def init_state(self, batch: int) -> PatchedState:
        """Return the state before the first token of ``batch`` sequences."""
        made, state = self.overall.extend(
            self.first.expand(batch, 1, -1), self.overall.init_state(batch)
        )
        return self._new_patch(state, self.context(made[:, 0]))

    def _new_patch(self, overall: DecoderState, context: Tensor) -> PatchedState:
        width = self.patch_embedding.embedding_dim
        nothing = context.new_zeros(len(context), 0, width)
        return PatchedState(overall, self.local.init_state(len(context)), context, nothing)

    def extend(self, ids: Tensor, state: PatchedState) -> tuple[Tensor, PatchedState]:
        """Read more tokens (B, T); return the logits (B, T, V) of what follows, and the state."""
        hidden = [self.embedding(ids[:, :0])]
        n_open = state.embedded.shape[1]
        if n_open:
            # The patch that is not full.
            begin, ids = ids.tensor_split([self.patch_size - n_open], dim=1)
            made, state = self._part(begin, state)
            hidden.append(made)
        n_whole = ids.shape[1] // self.patch_size * self.patch_size
        if n_whole:
            patches = ids[:, :n_whole].unflatten(1, (-1, self.patch_size))
            made, overall = self.overall.extend(
                self.patch_embedding(patches).flatten(2), state.overall
            )
            told = self.context(made)
            context = torch.cat([state.context[:, None], told[:, :-1]], dim=1)
            hidden.append(self._whole_patches(patches, context).flatten(1, 2))
            state = self._new_patch(overall, told[:, -1])
        if ids.shape[1] > n_whole:
            made, state = self._part(ids[:, n_whole:], state)
            hidden.append(made)
        return self._logits(torch.cat(hidden, dim=1)), state

    def _part(self, ids: Tensor, state: PatchedState) -> tuple[Tensor, PatchedState]:
        """Read tokens that all belong to the patch that is not full."""
        n_open = state.embedded.shape[1]
        told = self.context.told(self.embedding(ids), state.context, n_open)
        made, local = self.local.extend(told, state.local)
        hidden = made[:, made.shape[1] - ids.shape[1] :]
        embedded = torch.cat([state.embedded, self.patch_embedding(ids)], dim=1)
        if embedded.shape[1] < self.patch_size:
            return hidden, state._replace(local=local, embedded=embedded)
        made, overall = self.overall.extend(embedded.flatten(1)[:, None], state.overall)
        return hidden, self._new_patch(overall, self.context(made[:, 0]))

    def extend_each(
        self, ids: Tensor, state: PatchedState
    ) -> tuple[Tensor, tuple[PatchedState, ...]]:
        """Read more tokens (B, T), and return the states after each of them."""
        logits, states = [self._logits(self.embedding(ids[:, :0]))], []
        for token in ids.split(1, dim=1):
            if token.shape[1]:  # no tokens are split into one piece of none
                after, state = self.extend(token, state)
                logits.append(after)
                states.append(state)
        return torch.cat(logits, dim=1), tuple(states)

    def _logits(self, hidden: Tensor) -> Tensor:
        return linear(hidden, self.embedding.weight)
