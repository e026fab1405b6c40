"""Multi-head softmax attention."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tsar.core.dropout import Dropout
from tsar.core.mixers.base import Mixer
from tsar.core.ops.attention import attention, pick_backend
from tsar.core.ops.tokens_last import from_tokens_last, to_tokens_last
from tsar.exceptions import ParameterError

__all__ = ["AttentionState", "SoftmaxAttention"]


class AttentionState(NamedTuple):
    """Keys and values of the tokens so far, each (B, N, L, E)."""

    keys: Tensor
    values: Tensor


class SoftmaxAttention(Mixer):
    """Multi-head softmax attention, optionally with residual scores.

    With ``residual_scores`` the scores before the softmax are added up from
    layer to layer. The sum over layers of ``query key'`` is the product of the
    queries and keys of all layers laid side by side, so it is those that are
    handed on: nothing of size L x L outlives a layer.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    causal : bool, default False
    dropout : float, default 0.0
        Of the attention weights.
    residual_scores : bool, default False
    backend : str, optional
        Forces a kernel of :func:`tsar.core.ops.attention.attention`.

    Raises
    ------
    ParameterError
        If the heads do not divide the width.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017; He et al.,
    "RealFormer: transformer likes residual attention", Findings of ACL 2021.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        causal: bool = False,
        dropout: float = 0.0,
        residual_scores: bool = False,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ParameterError(
                f"SoftmaxAttention: n_heads={n_heads} does not divide d_model={d_model}"
            )
        self.n_heads = n_heads
        self.causal = causal
        self.residual_scores = residual_scores
        self.backend = backend
        self.scale = (d_model // n_heads) ** -0.5
        self.query_key_value = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)
        self.dropout = Dropout(dropout)

    def mix(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        carry: tuple[list[Tensor], list[Tensor]] | None = None,
    ) -> tuple[Tensor, tuple[list[Tensor], list[Tensor]] | None]:
        """Attend; the carry is the queries and keys of the layers so far."""
        if self.causal and mask is not None and mask.ndim == 2:
            # A token that may attend to nothing looks at everything, later tokens too.
            itself = torch.eye(x.shape[1], dtype=torch.bool, device=mask.device)
            mask = mask[:, None] | itself  # (B, L, L)
        tokens_last = self._wants_tokens_last(x)
        query, key, value = self._project(x, tokens_last)
        queries, keys = ([], []) if carry is None else carry
        queries, keys = [*queries, query], [*keys, key]
        mixed = self._attend(queries, keys, value, tokens_last, mask=mask, causal=self.causal)
        return mixed, (queries, keys) if self.residual_scores else None

    def init_state(self, batch: int) -> AttentionState:
        """Return an empty cache of keys and values."""
        if not self.causal:
            raise NotImplementedError("SoftmaxAttention works step by step only if causal=True")
        weight = self.output.weight
        empty = weight.new_empty(batch, self.n_heads, 0, len(weight) // self.n_heads)
        return AttentionState(empty, empty)

    def step(self, x_t: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """Attend from one more token to itself and those before it."""
        query, key, value = self._project(x_t[:, None], False)
        state = AttentionState(
            torch.cat([state.keys, key], dim=2), torch.cat([state.values, value], dim=2)
        )
        return self._attend([query], [state.keys], state.values, False)[:, 0], state

    def _wants_tokens_last(self, x: Tensor) -> bool:
        """Whether to lay heads out in memory as the kernel for training wants them."""
        backend = self.backend or pick_backend(
            x.shape[1], x.shape[1], x.device, drops=self.dropout.active
        )
        return (
            backend == "matmul"
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled(x.device.type)
        )

    def _project(self, x: Tensor, tokens_last: bool) -> tuple[Tensor, ...]:
        """Queries, keys and values, each (B, N, L, E)."""
        if tokens_last:
            maps = zip(*(p.chunk(3) for p in self.query_key_value.parameters()), strict=True)
            turned = (to_tokens_last(x, weight, bias) for weight, bias in maps)
            return tuple(part.unflatten(1, (self.n_heads, -1)).mT for part in turned)
        heads = self.query_key_value(x).view(*x.shape[:2], 3, self.n_heads, -1)
        return tuple(part.transpose(1, 2) for part in heads.unbind(2))

    def _attend(
        self,
        queries: list[Tensor],
        keys: list[Tensor],
        value: Tensor,
        tokens_last: bool,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        mixed = attention(
            queries,
            keys,
            value,
            mask=mask,
            causal=causal,
            scale=self.scale,
            dropout=self.dropout,
            backend=self.backend,
        )  # (B, N, L, E)
        if tokens_last:
            return from_tokens_last(mixed.mT.flatten(1, 2), self.output.weight, self.output.bias)
        return self.output(mixed.transpose(1, 2).flatten(2))
