"""Multi-head softmax attention."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core import masks
from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers.base import CarryingMixer
from tsar.core.mixers.heads import head_width, join_heads
from tsar.core.norm import RMSNorm
from tsar.core.ops.attention import attention, attention_weights, pick_backend
from tsar.core.ops.even_products import linear
from tsar.core.ops.tokens_last import from_tokens_last, to_tokens_last
from tsar.core.position import Rotary
from tsar.core.state import KVCache, WindowCache
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
    rotary : bool, default False
        Whether queries and keys are turned by their positions, see
        :class:`~tsar.core.position.Rotary`. They count from the first token; a memory has none.
    qk_norm : bool, default False
        Whether queries and keys are normalised (RMS over a head, with a factor per feature).
    bias : bool or "inputs", default True
        Whether the maps have biases; "inputs" for those to queries, keys and values alone.
    window : int, optional
        A token attends to those less than this many tokens away only, itself being one.
    sinks : int, default 0
        With a window, the first tokens, which all attend to beside it.
    n_kv_heads : int, optional
        Heads of the keys and values, each read by ``n_heads / n_kv_heads`` heads of queries.
    backend : str, optional
        Forces a kernel of :func:`tsar.core.ops.attention.attention`.

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or those of keys the heads; if heads are too narrow
        to be turned, or there are sinks without a window.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017; He et al.,
    "RealFormer: transformer likes residual attention", Findings of ACL 2021; Henry et al.,
    "Query-key normalization for transformers", Findings of EMNLP 2020; Xiao et al., "Efficient
    streaming language models with attention sinks", ICLR 2024; Ainslie et al., "GQA: training
    generalized multi-query transformer models from multi-head checkpoints", EMNLP 2023.
    """

    takes_levels = True
    formula = "softmax(q_t k_s' / sqrt(E)) v_s"
    cost = "L^2 D"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        causal: bool = False,
        dropout: float = 0.0,
        residual_scores: bool = False,
        rotary: bool = False,
        qk_norm: bool = False,
        bias: bool | Literal["inputs"] = True,
        window: int | None = None,
        sinks: int = 0,
        n_kv_heads: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        _check(d_model, n_heads, n_kv_heads, window, sinks)
        width = d_model // n_heads
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads
        self.causal = causal
        self.residual_scores = residual_scores
        self.window = window
        self.sinks = sinks
        self.backend = backend
        self.scale = width**-0.5
        self.sizes = [d_model, n_kv_heads * width, n_kv_heads * width]
        self.query_key_value = Linear(d_model, sum(self.sizes), bias=bool(bias))
        self.output = Linear(d_model, d_model, bias=bias is True)
        self.query_norm = RMSNorm(width) if qk_norm else None
        self.key_norm = RMSNorm(width) if qk_norm else None
        self.rotary = Rotary(width) if rotary else None
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
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        positions: Tensor | None = None,
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
        positions : int64 Tensor of shape (L,), optional
            Where the tokens are, by which queries and keys are turned; one after the other by
            default.

        Returns
        -------
        Tensor of shape (B, L, D)
        """
        if memory is None:
            return self.mix(x, None, mask=mask, positions=positions)[0]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        d_model = x.shape[2]
        query_bias, other_bias = (
            (None, None) if bias is None else bias.split([d_model, len(bias) - d_model])
        )
        (query,) = self._by_head(linear(x, weight[:d_model], query_bias), self.sizes[:1])
        key, value = self._by_head(linear(memory, weight[d_model:], other_bias), self.sizes[1:])
        query, key = self._normed(query, key)
        return self._attend([query], [key], value, False, mask=mask)

    def mix(
        self,
        x: Tensor,
        carry: tuple[list[Tensor], list[Tensor]] | None,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, tuple[list[Tensor], list[Tensor]] | None]:
        """Attend; the carry is the queries and keys of the layers so far."""
        if self.causal and mask is not None and mask.ndim == 2:
            # A token that may attend to nothing looks at everything, later tokens too.
            itself = torch.eye(x.shape[1], dtype=torch.bool, device=mask.device)
            mask = mask[:, None] | itself  # (B, L, L)
        tokens_last = self._wants_tokens_last(x)
        query, key, value = self._project(x, tokens_last, positions)
        queries, keys = ([], []) if carry is None else carry
        queries, keys = [*queries, query], [*keys, key]
        mixed = self._attend(
            queries,
            keys,
            value,
            tokens_last,
            mask=mask,
            causal=self.causal,
            window=self.window,
            sinks=self.sinks,
        )
        return mixed, (queries, keys) if self.residual_scores else None

    def init_state(self, batch: int) -> KVCache | WindowCache:
        """Return an empty cache of keys and values."""
        self._check_no_residual()
        weight = self.output.weight
        empty = weight.new_empty(batch, self.n_kv_heads, 0, len(weight) // self.n_heads)
        cache = KVCache.holding(empty, empty)
        if self.window is None:
            return cache
        return WindowCache(cache, 0, self.window, self.sinks)

    def _check_no_residual(self) -> None:
        if self.residual_scores:
            raise NotImplementedError(
                f"{type(self).__name__} does not work piece by piece; attention does only if "
                f"residual_scores=False"
            )

    def extend(
        self, x: Tensor, state: KVCache | WindowCache, levels: Tensor | None = None
    ) -> tuple[Tensor, KVCache | WindowCache]:
        """Attend from more tokens to those before them, and to each other as far as they may.

        Parameters
        ----------
        x : Tensor of shape (B, T, D)
        state : KVCache or WindowCache
        levels : int64 Tensor of shape (T,), optional
            A token sees those of its own level and of lower ones, and all of the state. By default
            each has its own, in their order, which is what causal attention is.

        Returns
        -------
        y : Tensor of shape (B, T, D)
        state : KVCache or WindowCache
        """
        mixed, state = self._extended(x, state, levels)
        return mixed, state.trimmed() if isinstance(state, WindowCache) else state

    def extend_each(
        self, x: Tensor, state: KVCache | WindowCache, levels: Tensor | None = None
    ) -> tuple[Tensor, tuple[KVCache | WindowCache, ...]]:
        """Attend from all of these tokens at once; the states after each share one cache."""
        mixed, after = self._extended(x, state, levels)
        lengths = range(state.length + 1, after.length + 1)
        return mixed, tuple(after.first(length) for length in lengths)

    def _extended(
        self, x: Tensor, state: KVCache | WindowCache, levels: Tensor | None
    ) -> tuple[Tensor, KVCache | WindowCache]:
        """Attend from more tokens, and return the cache of all that is still held."""
        self._check_no_residual()
        if levels is None and not self.causal:
            raise NotImplementedError(
                f"{type(self).__name__} does not work piece by piece unless it is said which "
                f"tokens see which; pass levels=, or build it with causal=True"
            )
        n_tokens, start = x.shape[1], state.length
        if n_tokens == 0:
            return x, state
        query, key, value = self._project(x, False, range(start, start + n_tokens))
        state = state.append(key, value)
        seen: Any = {"causal": levels is None, "window": self.window, "sinks": self.sinks}
        if isinstance(state, WindowCache) and state.cache.length < state.length:
            # Some tokens are left out, so that those held are not where they stand.
            positions = torch.arange(start, start + n_tokens, device=x.device)
            near = masks.window(
                positions,
                state.positions,
                self.window,
                sinks=self.sinks,
                causal=levels is None,
            )
            seen = {"mask": near[None]}
        if levels is not None:
            held = state.keys.shape[2]
            shown = F.pad(masks.visible(levels), (held - n_tokens, 0), value=True)[None]
            seen["mask"] = shown & seen["mask"] if "mask" in seen else shown
        mixed = self._attend([query], [state.keys], state.values, False, **seen)
        return mixed, state

    def _wants_tokens_last(self, x: Tensor) -> bool:
        """Whether to lay heads out in memory as the kernel for training wants them."""
        backend = self.backend or pick_backend(
            x.shape[1], x.shape[1], x.device, drops=self.dropout.active, window=self.window
        )
        return (
            backend == "matmul"
            and self._is_plain
            and not is_traced()
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled(x.device.type)
        )

    @property
    def _is_plain(self) -> bool:
        """Whether nothing comes between the map of tokens and the products of heads."""
        return (
            self.rotary is None
            and self.query_norm is None
            and self.n_kv_heads == self.n_heads
            and self.output.bias is not None
        )

    def _project(
        self, x: Tensor, tokens_last: bool, positions: Tensor | range | None
    ) -> tuple[Tensor, ...]:
        """Queries (B, N, L, E), keys and values (B, heads of keys, L, E), at these positions."""
        if tokens_last:
            maps = zip(*(p.chunk(3) for p in self.query_key_value.parameters()), strict=True)
            turned = (to_tokens_last(x, weight, bias) for weight, bias in maps)
            return tuple(part.unflatten(1, (self.n_heads, -1)).mT for part in turned)
        query, key, value = self._by_head(self.query_key_value(x), self.sizes)
        query, key = self._normed(query, key)
        if self.rotary is not None:
            positions = range(x.shape[1]) if positions is None else positions
            query, key = self.rotary(query, positions), self.rotary(key, positions)
        return query, key, value

    def _by_head(self, projected: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
        """Cut (B, L, sum of sizes) into its parts, each (B, heads, L, E)."""
        width = self.sizes[0] // self.n_heads
        parts = projected.split(sizes, dim=2)
        return tuple(part.unflatten(2, (-1, width)).transpose(1, 2) for part in parts)

    def _normed(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        if self.query_norm is None or self.key_norm is None:
            return query, key
        return self.query_norm(query), self.key_norm(key)

    def _attend(
        self,
        queries: list[Tensor],
        keys: list[Tensor],
        value: Tensor,
        tokens_last: bool,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        window: int | None = None,
        sinks: int = 0,
    ) -> Tensor:
        if self.n_kv_heads < self.n_heads:
            n_readers = self.n_heads // self.n_kv_heads
            keys = [key.repeat_interleave(n_readers, dim=1) for key in keys]
            value = value.repeat_interleave(n_readers, dim=1)
        seen: Any = {"mask": mask, "causal": causal, "window": window, "sinks": sinks}
        if self._recorded is not None:
            self._recorded.append(attention_weights(queries, keys, scale=self.scale, **seen))
        mixed = attention(
            queries,
            keys,
            value,
            scale=self.scale,
            dropout=self.dropout,
            backend=self.backend,
            **seen,
        )  # (B, N, L, E)
        if tokens_last:
            return from_tokens_last(mixed.mT.flatten(1, 2), self.output.weight, self.output.bias)
        return self.output(join_heads(mixed))


def _check(d_model: int, n_heads: int, n_kv_heads: int, window: int | None, sinks: int) -> None:
    head_width("SoftmaxAttention", d_model, n_heads)
    if n_kv_heads < 1 or n_heads % n_kv_heads:
        raise ParameterError(
            f"SoftmaxAttention: n_kv_heads={n_kv_heads} does not divide n_heads={n_heads}"
        )
    if window is not None and window < 1:
        raise ParameterError(
            f"SoftmaxAttention: window must be at least 1, which is the token itself, got {window}"
        )
    if sinks < 0 or (sinks and window is None):
        raise ParameterError(
            f"SoftmaxAttention: sinks={sinks} are the first tokens that are seen beside a window; "
            f"pass window=, or sinks=0"
        )


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

    # What is handed on is of a whole pass, so that there is no state to go on from.
    takes_levels = False
    knows_order = False
    formula = "softmax(sum over layers of q_t k_s' / sqrt(E)) v_s"
    cost = "L^2 D"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        dropout: float = 0.0,
        backend: str | None = None,
    ) -> None:
        super().__init__(d_model, n_heads, dropout=dropout, residual_scores=True, backend=backend)
