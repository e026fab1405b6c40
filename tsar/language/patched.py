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
        Over the patches that it has read.
    local : DecoderState
        Over the places of the patch that is written, and of those before if it goes on from them.
    context : Tensor of shape (B, ...)
        What that patch is told of those before.
    embedded : Tensor of shape (B, n, D / P)
        The tokens that the decoder over patches has not read, as it will read them.
    """

    overall: DecoderState
    local: DecoderState
    context: Tensor
    embedded: Tensor


class PatchedNetwork(nn.Module):
    """Logits of the next token, from the tokens of its patch and from the patches before.

    The token at place t is given by what the local decoder makes of the token before it and of all
    patches that end before t. In networks of earlier versions (``late``) it was told of one patch
    less where t is the first place of a patch: the context stood beside the token that is read in
    place of the one that is written, and was a token older everywhere.

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
    across : bool, default False
        Whether the local decoder goes on from one patch to the next; otherwise it begins with each.
    late : bool, default False
    """

    no_decay = ("embedding.weight", "patch_embedding.weight", "first", "local_first")

    def __init__(
        self,
        overall: Decoder,
        local: Decoder,
        context: AddedContext | PrefixedContext,
        n_tokens: int,
        patch_size: int,
        *,
        across: bool = False,
        late: bool = False,
    ) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        self.patch_size = patch_size
        self.across = across
        self.embedding = nn.Embedding(n_tokens, local.d_model)
        self.patch_embedding = nn.Embedding(n_tokens, overall.d_model // patch_size)
        for table in (self.embedding, self.patch_embedding):
            nn.init.normal_(table.weight, std=FIRST_SCALE)
        # What the first patch, and the first token, have before them.
        self.first = nn.Parameter(FIRST_SCALE * torch.randn(overall.d_model))
        self.local_first = None
        if not late:
            self.local_first = nn.Parameter(FIRST_SCALE * torch.randn(local.d_model))
        self.overall = overall
        self.local = local
        self.context = context

    @property
    def n_ahead(self) -> int:
        """How many places the local decoder is ahead of the tokens that it has read."""
        return 0 if self.local_first is None else 1

    def hidden(self, ids: Tensor) -> Tensor:
        """Return what the local decoder makes of tokens (B, L), of shape (B, L, E)."""
        batch, length = ids.shape
        size, ahead = self.patch_size, self.n_ahead
        n_before = (length - 1 + ahead) // size  # the patches that some token is told of
        patches = ids[:, : n_before * size].unflatten(1, (n_before, size))
        first = self.first.expand(batch, 1, -1)
        before = torch.cat([first, self.patch_embedding(patches).flatten(2)], dim=1)
        places = torch.cat([self._begin(batch), self.embedding(ids)], dim=1)
        # What the last patch is filled up with comes after its tokens, which do not see it.
        places = F.pad(places, (0, 0, 0, -places.shape[1] % size))
        told = self._told(places, self.context(self.overall(before)))
        return self._of_places(self.local(told), batch)[:, ahead : ahead + length]

    def _begin(self, batch: int) -> Tensor:
        """Return what the local decoder reads before the first token (B, 0 or 1, E)."""
        if self.local_first is None:
            return self.embedding.weight.new_zeros(batch, 0, self.embedding.embedding_dim)
        return self.local_first.expand(batch, 1, -1)

    def _told(self, places: Tensor, contexts: Tensor) -> Tensor:
        """Return what the local decoder reads of the places of whole patches (B, K P, E).

        Each patch is told of those before by its context (B, K, ...). Of shape (B, T, E) where it
        goes on from patch to patch, otherwise (B K, T, E).
        """
        patches = places.unflatten(1, (-1, self.patch_size)).flatten(0, 1)
        told = self.context.told(patches, contexts.flatten(0, 1), 0)
        return told.unflatten(0, (len(places), -1)).flatten(1, 2) if self.across else told

    def _of_places(self, decoded: Tensor, batch: int) -> Tensor:
        """Return what was decoded of places alone, without what they are told, (B, K P, E)."""
        n_read = self.context.n_prefix + self.patch_size
        by_patch = decoded.flatten(0, 1).unflatten(0, (batch, -1, n_read))
        return by_patch[:, :, self.context.n_prefix :].flatten(1, 2)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits (B, L, V) of what follows each of the tokens (B, L)."""
        return self._logits(self.hidden(ids))

    def init_state(self, batch: int) -> PatchedState:
        """Return the state before the first token of ``batch`` sequences."""
        made, overall = self.overall.extend(
            self.first.expand(batch, 1, -1), self.overall.init_state(batch)
        )
        context, local = self.context(made[:, 0]), self.local.init_state(batch)
        begin = self._begin(batch)
        if begin.shape[1]:
            _, local = self.local.extend(self.context.told(begin, context, 0), local)
        width = self.patch_embedding.embedding_dim
        return PatchedState(overall, local, context, context.new_zeros(batch, 0, width))

    def extend(self, ids: Tensor, state: PatchedState) -> tuple[Tensor, PatchedState]:
        """Read more tokens (B, T); return the logits (B, T, V) of what follows, and the state."""
        n_places = state.embedded.shape[1] + self.n_ahead
        here, behind = ids.tensor_split([self.patch_size - n_places], dim=1)
        hidden = [self.embedding(ids[:, :0])]
        if here.shape[1]:
            made, local = self.local.extend(
                self.context.told(self.embedding(here), state.context, n_places), state.local
            )
            hidden.append(made[:, made.shape[1] - here.shape[1] :])
            embedded = torch.cat([state.embedded, self.patch_embedding(here)], dim=1)
            state = state._replace(local=local, embedded=embedded)
        if behind.shape[1]:
            made, state = self._new_patches(behind, state)
            hidden.append(made)
        return self._logits(torch.cat(hidden, dim=1)), state

    def _new_patches(self, ids: Tensor, state: PatchedState) -> tuple[Tensor, PatchedState]:
        """Read tokens (B, T) the first of which is read at the first place of a patch."""
        size, (batch, n_tokens) = self.patch_size, ids.shape
        n_whole = (n_tokens - 1) // size  # patches before the last one, which may not be full
        embedded = torch.cat([state.embedded, self.patch_embedding(ids)], dim=1)
        read, left = embedded.tensor_split([(n_whole + 1) * size], dim=1)
        made, overall = self.overall.extend(
            read.unflatten(1, (n_whole + 1, size)).flatten(2), state.overall
        )
        contexts, places = self.context(made), self.embedding(ids)
        last = self.context.told(places[:, n_whole * size :], contexts[:, -1], 0)
        local = state.local if self.across else self.local.init_state(batch)
        hidden = []
        if n_whole:
            told = self._told(places[:, : n_whole * size], contexts[:, :-1])
            if self.across:
                decoded, local = self.local.extend(told, local)
            else:
                decoded = self.local(told)
            hidden.append(self._of_places(decoded, batch))
        decoded, local = self.local.extend(last, local)
        hidden.append(decoded[:, self.context.n_prefix :])
        return torch.cat(hidden, dim=1), PatchedState(overall, local, contexts[:, -1], left)

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
