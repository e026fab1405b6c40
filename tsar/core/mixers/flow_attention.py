"""Attention as a flow from sources to sinks that neither may exceed: linear, and competitive."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.mixers.heads import head_width, join_heads, split_heads
from tsar.core.ops.linear_attention import linear_attention

__all__ = ["FlowAttention", "FlowState"]

_EPSILON = 1e-6


class FlowState(NamedTuple):
    """Sums over the tokens so far, of fixed size.

    Parameters
    ----------
    keys, queries : Tensor of shape (B, N, E)
    sources, sinks : Tensor of shape (B, N, E)
        Keys over what flows out of them, and queries over what flows into them.
    competition : Tensor of shape (B, N)
    n_tokens : Tensor of shape (B, 1)
        How many there were.
    weighed : Tensor of shape (B, N, E, E)
        Keys times values.
    """

    keys: Tensor
    queries: Tensor
    sources: Tensor
    sinks: Tensor
    competition: Tensor
    n_tokens: Tensor
    weighed: Tensor


class FlowAttention(Mixer):
    """Linear attention whose sources compete and whose sinks are allotted what they get.

    With ``phi = sigmoid`` a sink t takes in ``I_t = phi(q_t) . sum_s phi(k_s)`` and a source s
    gives out ``O_s = phi(k_s) . sum_t phi(q_t)``. Where every sink may take in 1, sources give out
    ``sum_t phi(k_s) . phi(q_t) / I_t``, of which a softmax over the sources weighs the values;
    where every source may give out 1, sinks take in ``sum_s phi(q_t) . phi(k_s) / O_s``, whose
    sigmoid weighs the results. The causal form has all sums over the tokens so far.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    causal : bool, default False

    Raises
    ------
    ParameterError
        If the heads do not divide the width.

    References
    ----------
    Wu et al., "Flowformer: linearizing transformers with conservation flows", ICML 2022, section 3.
    """

    # Of those that flow both ways, in whatever order.
    knows_order = False
    formula = "sigmoid(I_t) phi(q_t)' / I'_t sum_s phi(k_s) softmax(O)_s v_s, flows conserved"
    cost = "L D E"

    def __init__(self, d_model: int, n_heads: int, *, causal: bool = False) -> None:
        super().__init__()
        head_width("FlowAttention", d_model, n_heads)
        self.causal = causal
        self.n_heads = n_heads
        self.query_key_value = Linear(d_model, 3 * d_model)
        self.output = Linear(d_model, d_model)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, L, D); ``mask`` of shape (B, L).

        Raises
        ------
        ParameterError
            If a mask says something of pairs of tokens, or there is a memory.
        """
        refuse_memory(self, memory)
        check_token_mask(self, mask, x)
        if self.causal:
            return self._read(x, mask, self.init_state(x.shape[0]))[0]
        query, key, value = self._project(x, mask)
        flow_in = (query * key.sum(dim=2, keepdim=True)).sum(dim=-1) + _EPSILON
        flow_out = (key * query.sum(dim=2, keepdim=True)).sum(dim=-1) + _EPSILON
        sinks = (query / flow_in[..., None]).sum(dim=2, keepdim=True)
        sources = (key / flow_out[..., None]).sum(dim=2, keepdim=True)
        outgoing, incoming = (key * sinks).sum(dim=-1), (query * sources).sum(dim=-1)  # (B, N, L)
        if mask is not None:
            outgoing = outgoing.masked_fill(~mask[:, None], torch.finfo(outgoing.dtype).min)
        # As many as there are, so that a weight is 1 on average.
        count = x.shape[1] if mask is None else mask.sum(dim=1)[:, None, None]
        competing = (outgoing.softmax(dim=-1) * count)[..., None] * value
        mixed = (query / flow_in[..., None]) @ (key.mT @ competing)
        return self._put_together(mixed, incoming, x)

    def init_state(self, batch: int) -> FlowState:
        """Return the state before the first token: zeros."""
        if not self.causal:
            raise NotImplementedError(
                "FlowAttention does not work piece by piece; it does only if causal=True"
            )
        weight = self.output.weight
        width = len(weight) // self.n_heads
        vector = weight.new_zeros(batch, self.n_heads, width)
        return FlowState(
            keys=vector,
            queries=vector,
            sources=vector,
            sinks=vector,
            competition=vector[..., 0],
            n_tokens=weight.new_zeros(batch, 1),
            weighed=weight.new_zeros(batch, self.n_heads, width, width),
        )

    def extend(self, x: Tensor, state: FlowState) -> tuple[Tensor, FlowState]:
        """Mix more tokens (B, T, D)."""
        return self._read(x, None, state) if x.shape[1] else (x, state)

    def _read(self, x: Tensor, mask: Tensor | None, state: FlowState) -> tuple[Tensor, FlowState]:
        query, key, value = self._project(x, mask)
        keys, queries = _so_far(key, state.keys), _so_far(query, state.queries)
        flow_in = (query * keys).sum(dim=-1, keepdim=True) + _EPSILON
        flow_out = (key * queries).sum(dim=-1, keepdim=True) + _EPSILON
        sinks, sources = (
            _so_far(query / flow_in, state.sinks),
            _so_far(key / flow_out, state.sources),
        )
        outgoing, incoming = (key * sinks).sum(dim=-1), (query * sources).sum(dim=-1)
        share = outgoing.exp()
        ones = torch.ones_like(share[:, :1])
        if mask is not None:
            share, ones = share * mask[:, None], ones * mask[:, None]
        competition = _so_far(share[..., None], state.competition[..., None])[..., 0]
        count = _so_far(ones[..., None], state.n_tokens[..., None])[..., 0]
        weight = share / competition.clamp_min(torch.finfo(share.dtype).tiny) * count
        mixed, weighed = linear_attention(
            query / flow_in, key, value * weight[..., None], state=state.weighed
        )
        after = FlowState(
            keys[:, :, -1].clone(),
            queries[:, :, -1].clone(),
            sources[:, :, -1].clone(),
            sinks[:, :, -1].clone(),
            competition[..., -1].clone(),
            count[..., -1].clone(),
            weighed,
        )
        return self._put_together(mixed, incoming, x), after

    def _project(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        # In half precision sums over tokens stop growing at a few hundred.
        wide = self.query_key_value(x).to(torch.promote_types(x.dtype, torch.float32))
        query, key, value = split_heads(wide, self.n_heads, 3)  # (B, N, L, E)
        query, key = F.sigmoid(query), F.sigmoid(key)
        if mask is not None:
            hidden = ~mask[:, None, :, None]
            query, key = query.masked_fill(hidden, 0.0), key.masked_fill(hidden, 0.0)
        return query, key, value

    def _put_together(self, mixed: Tensor, incoming: Tensor, x: Tensor) -> Tensor:
        allotted = F.sigmoid(incoming)[..., None] * mixed
        return self.output(join_heads(allotted).to(x.dtype))


def _so_far(x: Tensor, before: Tensor) -> Tensor:
    """Return sums (B, N, L, E) over each token and those before it."""
    return x.cumsum(dim=2) + before[:, :, None]
