"""Attention inside of clusters: to the latest tokens whose keys lie near what a query is near."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import RecurrentMixer
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.position import Rotary
from tsar.exceptions import ParameterError

__all__ = ["RoutingAttention", "RoutingState"]

# Tokens that are read at a time: many enough for large products, few beside what each reads.
_PIECE = 64


class RoutingState(NamedTuple):
    """The latest tokens of each cluster.

    Parameters
    ----------
    keys, values : Tensor of shape (B, N, C, W, E)
        Later ones behind.
    filled : bool Tensor of shape (B, N, C, W)
        Which of them there were.
    length : int
        How many tokens there were in all.
    turned : bool
        Whether keys are turned by their positions.
    """

    keys: Tensor
    values: Tensor
    filled: Tensor
    length: int
    turned: bool

    @property
    def reaches_back(self) -> bool:
        """Whether positions count as far as the sequence goes: a cluster may be a rare one."""
        return self.turned


class RoutingAttention(RecurrentMixer):
    """Softmax attention to the latest tokens of one cluster, and to the token itself.

    Queries and keys belong to the centre that they are nearest to by angle. A token attends to the
    latest keys of the cluster of its query; which those are does not depend on later tokens.
    Centres follow the queries and keys of training by moving averages, and stay otherwise. With one
    cluster and room for all keys that is causal attention.

    Letters: C clusters, W tokens that are remembered of each.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    n_clusters : int, default 8
        Of each head.
    n_keys : int, default 32
        Latest keys of a cluster.
    decay : float, default 0.999
        What a centre keeps of itself in a step of training.
    rotary : bool, default False
        Whether queries and keys are turned by their positions, once their clusters are clear.

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or a number is out of its range.

    References
    ----------
    Roy et al., "Efficient content-based sparse attention with routing transformers", TACL 2021,
    section 4. There a cluster has the tokens that are nearest to its centre, which later tokens
    change; and half of the heads attend locally.
    """

    formula = "softmax over the latest k_s of the cluster of q_t"
    cost = "L (W + C) D"

    centres: Tensor

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_clusters: int = 8,
        n_keys: int = 32,
        decay: float = 0.999,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        width = head_width("RoutingAttention", d_model, n_heads)
        if min(n_clusters, n_keys) < 1 or not 0 <= decay <= 1:
            raise ParameterError(
                f"RoutingAttention: n_clusters and n_keys must be at least 1 and decay in [0, 1], "
                f"got {n_clusters}, {n_keys} and {decay}"
            )
        self.n_heads = n_heads
        self.n_keys = n_keys
        self.decay = decay
        self.scale = width**-0.5
        self.query_key_value = Linear(d_model, 3 * d_model)
        self.register_buffer("centres", F.normalize(torch.randn(n_heads, n_clusters, width), dim=2))
        self.rotary = Rotary(width) if rotary else None
        self.output = Linear(d_model, d_model)

    def init_state(self, batch: int) -> RoutingState:
        """Return the state before the first token: clusters without any."""
        n_heads, n_clusters, width = self.centres.shape
        none = self.output.weight.new_zeros(batch, n_heads, n_clusters, self.n_keys, width)
        nothing = torch.zeros_like(none[..., 0], dtype=torch.bool)
        return RoutingState(none, none, nothing, 0, self.rotary is not None)

    def scan(
        self, x: Tensor, mask: Tensor | None, state: RoutingState | None
    ) -> tuple[Tensor, RoutingState]:
        """See :meth:`RecurrentMixer.scan`; centres move where a whole sequence is trained on."""
        follows = self.training and state is None
        state = self.init_state(x.shape[0]) if state is None else state
        shown = torch.ones_like(x[:, :, 0], dtype=torch.bool) if mask is None else mask
        query, key, value = split_heads(self.query_key_value(x), self.n_heads, 3)  # (B, N, L, E)
        asks, lies = self._cluster(query), self._cluster(key)
        if follows:
            self._follow(query, asks, shown)
            self._follow(key, lies, shown)
        if self.rotary is not None:
            places = range(state.length, state.length + x.shape[1])
            query, key = self.rotary(query, places), self.rotary(key, places)
        outputs = [value[:, :, :0]]
        # A token that is not there lies in no cluster.
        lies = torch.where(shown[:, None], lies, len(self.centres[0]))
        for start in range(0, x.shape[1], _PIECE):
            piece = slice(start, start + _PIECE)
            mixed, state = self._read_piece(
                (query[:, :, piece], key[:, :, piece], value[:, :, piece]),
                asks[:, :, piece],
                lies[:, :, piece],
                state,
            )
            outputs.append(mixed)
        return self.output(join_heads(torch.cat(outputs, dim=2))), state

    def _cluster(self, vectors: Tensor) -> Tensor:
        """Return the centres to which vectors (B, N, L, E) are nearest, int64 of (B, N, L)."""
        return (vectors.detach() @ self.centres.to(vectors.dtype).mT).argmax(dim=-1)

    @torch.no_grad()
    def _follow(self, vectors: Tensor, clusters: Tensor, shown: Tensor) -> None:
        """Move centres towards the directions of vectors (B, N, L, E) that are nearest to them."""
        member = F.one_hot(clusters, self.centres.shape[1]) * shown[:, None, :, None]
        member = member.to(self.centres.dtype)
        directions = F.normalize(vectors.to(self.centres.dtype), dim=-1)
        total = torch.einsum("bnlc,bnle->nce", member, directions)
        count = member.sum(dim=(0, 2))[..., None]
        # Half of a step for queries, the other half for keys.
        stays = torch.where(count > 0, self.decay**0.5, 1.0)
        moved = stays * self.centres + (1 - stays) * total / count.clamp_min(1)
        self.centres.copy_(F.normalize(moved, dim=-1))

    def _read_piece(
        self,
        heads: tuple[Tensor, Tensor, Tensor],
        asks: Tensor,
        lies: Tensor,
        state: RoutingState,
    ) -> tuple[Tensor, RoutingState]:
        """Attend from tokens to those of the state and to each other.

        Parameters
        ----------
        heads : tuple of Tensor of shape (B, N, T, E)
            Queries, keys and values.
        asks, lies : int64 Tensor of shape (B, N, T)
            Clusters of the queries and of the keys; C for a token that is not there.
        state : RoutingState

        Returns
        -------
        mixed : Tensor of shape (B, N, T, E)
        state : RoutingState
        """
        query, key, value = heads
        n_clusters, n_kept = state.filled.shape[2:]
        # What is remembered and what is new, cluster by cluster, each in its order.
        held = torch.arange(n_clusters, device=key.device).repeat_interleave(n_kept)
        cluster = torch.cat([held.expand(*lies.shape[:2], -1), lies], dim=2)
        order = cluster.argsort(dim=2, stable=True)
        keys, values = (
            torch.cat([old.to(new.dtype).flatten(2, 3), new], dim=2)
            for old, new in ((state.keys, key), (state.values, value))
        )
        filled = torch.cat([state.filled.flatten(2), torch.ones_like(lies, dtype=torch.bool)], 2)
        counts = F.one_hot(lies, n_clusters + 1)[..., :n_clusters].cumsum(dim=2)  # (B, N, T, C)
        total = counts[:, :, -1]
        ends = (total + n_kept).cumsum(dim=2)  # (B, N, C)
        # The place behind the latest key of its cluster that each token may see.
        behind = counts.gather(3, asks[..., None])[..., 0] + (ends - total).gather(2, asks)
        latest = torch.arange(-n_kept, 0, device=key.device)
        seen = order.gather(2, (behind[..., None] + latest).flatten(2))  # (B, N, T * W)
        read_keys, read_values = (
            _taken(part, seen).unflatten(2, (-1, n_kept)) for part in (keys, values)
        )
        there = filled.gather(2, seen).unflatten(2, (-1, n_kept))
        scores = (read_keys @ query[..., None])[..., 0]
        # Itself, where it is not among them.
        own = (query * key).sum(dim=-1, keepdim=True)
        shown = torch.cat([there, (asks != lies)[..., None]], dim=-1)
        scores = self.scale * torch.cat([scores, own], dim=-1)
        scores = scores.masked_fill(~shown, torch.finfo(scores.dtype).min / 2)
        weights = scores.softmax(dim=-1)
        mixed = (weights[..., None, :-1] @ read_values)[..., 0, :] + weights[..., -1:] * value
        rest = order.gather(2, (ends[..., None] + latest).flatten(2))
        after = RoutingState(
            _taken(keys, rest).unflatten(2, (-1, n_kept)),
            _taken(values, rest).unflatten(2, (-1, n_kept)),
            filled.gather(2, rest).unflatten(2, (-1, n_kept)),
            state.length + query.shape[2],
            state.turned,
        )
        return mixed, after


def _taken(tokens: Tensor, index: Tensor) -> Tensor:
    """Return the tokens (B, N, K, E) at an index (B, N, K) of (B, N, L, E)."""
    return tokens.gather(2, index[..., None].expand(-1, -1, -1, tokens.shape[3]))
