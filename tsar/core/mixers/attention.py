"""Multi-head softmax attention."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers.base import CarryingMixer
from tsar.core.ops.attention import attention, attention_weights, pick_backend
from tsar.core.ops.even_products import linear
from tsar.core.ops.tokens_last import from_tokens_last, to_tokens_last
from tsar.core.state import KVCache
from tsar.core.tracing import is_traced
from tsar.exceptions import ParameterError

__all__ = ["ResidualAttention", "SoftmaxAttention"]


class SoftmaxAttention(CarryingMixer):
    """Multi-head softmax attention, optionally with residual scores.

    With ``residual_scores`` the scores before the softmax are added up from
    layer to layer. The sum over layers of ``query key'`` is the product of the
    queries and keys of all layers laid side by side, so it is those that are
    handed on: nothing of size L x L outlives a layer. They are added up by
    :class:`~tsar.core.block.Encoder`; a mixer by itself has only its own.

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
        self.query_key_value = Linear(d_model, 3 * d_model)
        self.output = Linear(d_model, d_model)
        self.dropout = Dropout(dropout)
        self._recorded: list[Tensor] | None = None

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[Tensor]]:
        """Keep the weights (B, N, L, S) of every pass inside of a ``with`` block.

        They are computed by the plain reference, before any of them is dropped.
        """
        recorded: list[Tensor] = []
        self._recorded = recorded
        try:
            yield recorded
        finally:
            self._recorded = None

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Attend from every token, to the tokens or to a memory.

        Parameters
        ----------
        x : Tensor of shape (B, L, D)
        mask : bool Tensor, optional
            True where a token, or one of the memory, may be attended to: (B, S) or (B, L, S),
            or broadcastable to (B, N, L, S).
        memory : Tensor of shape (B, S, D), optional
            Where keys and values come from. All of it is seen, by a causal mixer as well.

        Returns
        -------
        Tensor of shape (B, L, D)
        """
        if memory is None:
            return self.mix(x, None, mask=mask)[0]
        d_model = x.shape[2]
        weight, bias = self.query_key_value.parameters()
        (query,) = self._by_head(linear(x, weight[:d_model], bias[:d_model]), 1)
        key, value = self._by_head(linear(memory, weight[d_model:], bias[d_model:]), 2)
        return self._attend([query], [key], value, False, mask=mask)

    def mix(
        self,
        x: Tensor,
        carry: tuple[list[Tensor], list[Tensor]] | None,
        *,
        mask: Tensor | None = None,
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

    def init_state(self, batch: int) -> KVCache:
        """Return an empty cache of keys and values."""
        self._check_extends()
        weight = self.output.weight
        empty = weight.new_empty(batch, self.n_heads, 0, len(weight) // self.n_heads)
        return KVCache.holding(empty, empty)

    def _check_extends(self) -> None:
        if not self.causal or self.residual_scores:
            raise NotImplementedError(
                f"{type(self).__name__} does not work piece by piece; attention does only if "
                f"causal=True and residual_scores=False"
            )

    def extend(self, x: Tensor, state: KVCache) -> tuple[Tensor, KVCache]:
        """Attend from more tokens (B, T, D) to each other and to those before them."""
        self._check_extends()
        if x.shape[1] == 0:
            return x, state
        query, key, value = self._project(x, False)
        state = state.append(key, value)
        mixed = self._attend([query], [state.keys], state.values, False, causal=True)
        return mixed, state

    def _wants_tokens_last(self, x: Tensor) -> bool:
        """Whether to lay heads out in memory as the kernel for training wants them."""
        backend = self.backend or pick_backend(
            x.shape[1], x.shape[1], x.device, drops=self.dropout.active
        )
        return (
            backend == "matmul"
            and not is_traced()
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled(x.device.type)
        )

    def _project(self, x: Tensor, tokens_last: bool) -> tuple[Tensor, ...]:
        """Queries, keys and values, each (B, N, L, E)."""
        if tokens_last:
            maps = zip(*(p.chunk(3) for p in self.query_key_value.parameters()), strict=True)
            turned = (to_tokens_last(x, weight, bias) for weight, bias in maps)
            return tuple(part.unflatten(1, (self.n_heads, -1)).mT for part in turned)
        return self._by_head(self.query_key_value(x), 3)

    def _by_head(self, projected: Tensor, n_parts: int) -> tuple[Tensor, ...]:
        """Cut (B, L, parts * D) into its parts, each (B, N, L, E)."""
        heads = projected.view(*projected.shape[:2], n_parts, self.n_heads, -1)
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
        if self._recorded is not None:
            self._recorded.append(
                attention_weights(queries, keys, mask=mask, causal=causal, scale=self.scale)
            )
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


class ResidualAttention(SoftmaxAttention):
    """Softmax attention whose scores add up from layer to layer.

    Parameters
    ----------
    d_model, n_heads, dropout, backend
        See :class:`SoftmaxAttention`. Every token is read both ways.

    References
    ----------
    He et al., "RealFormer: transformer likes residual attention", Findings of ACL 2021.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        dropout: float = 0.0,
        backend: str | None = None,
    ) -> None:
        super().__init__(d_model, n_heads, dropout=dropout, residual_scores=True, backend=backend)
