"""Softmax attention: the plain reference, the faster kernels, and who picks one.

Letters: B batch, N heads, L queries, S keys, E size of a query or key, V size of a value.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core import masks
from tsar.core.dropout import Dropout
from tsar.core.ops.chunked_attention import Sight, chunked_attention
from tsar.core.ops.matmul_attention import matmul_attention
from tsar.core.ops.short_attention import short_attention
from tsar.core.tracing import is_traced
from tsar.exceptions import ParameterError
from tsar.params.constraints import check_choice

__all__ = ["BACKENDS", "attention", "attention_weights", "pick_backend"]

BACKENDS = ("reference", "short", "matmul", "sdpa", "chunked")

# Keys so few that passes over them are what takes long, and so many that their scores outgrow
# the cache.
_SHORT, _LONG = 12, 512
# Keys per key of a window from which on leaving the others out pays.
_NARROW = 4
# Torch's kernel for CPUs takes the exponentials of so many keys at once, and those of a rest one by
# one: 42 keys take longer than 48. Fewer keys than _FEW are not worth the copy.
_VECTOR, _FEW = 16, 7


def attention(
    query: Tensor | Sequence[Tensor],
    key: Tensor | Sequence[Tensor],
    value: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    sinks: int = 0,
    scale: float | None = None,
    dropout: Dropout | None = None,
    backend: str | None = None,
) -> Tensor:
    """Scaled dot-product attention, ``softmax(scale * query key') value``.

    Parameters
    ----------
    query : Tensor of shape (B, N, L, E), or a sequence of them
        Several are laid side by side along E, as are the keys: their scores
        add up.
    key : Tensor of shape (B, N, S, E), or a sequence of them
    value : Tensor of shape (B, N, S, V)
    mask : bool Tensor, optional
        True where a query may attend: (B, S) for keys, (B, L, S) for pairs, or
        four axes broadcastable to (B, N, L, S). A query that may attend to
        nothing attends evenly to everything, so the result stays finite.
    causal : bool, default False
        A query sees the keys up to its own position, the last query being
        level with the last key.
    window : int, optional
        A query sees the keys less than this many positions away from its own.
    sinks : int, default 0
        With a window, the first keys, which are seen from everywhere.
    scale : float, optional
        ``E ** -0.5`` by default, with the width of all queries together.
    dropout : Dropout, optional
        Applied to the weights.
    backend : {"reference", "short", "matmul", "sdpa", "chunked"}, optional
        Forces a kernel; :func:`pick_backend` chooses otherwise, and while torch traces. Those
        that drop weights, "reference" and "short", draw the same mask.

    Returns
    -------
    Tensor of shape (B, N, L, V)

    Raises
    ------
    ParameterError
        If the forced kernel does not exist or cannot drop weights.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, eq. 1.
    """
    queries = (query,) if isinstance(query, Tensor) else tuple(query)
    keys = (key,) if isinstance(key, Tensor) else tuple(key)
    drop = dropout if dropout is not None and dropout.active else None
    width = sum(part.shape[-1] for part in queries)
    n_queries, n_keys = queries[0].shape[2], value.shape[2]
    if backend is not None:
        check_choice("attention", "backend", backend, BACKENDS)
    if backend is None or is_traced():
        backend = pick_backend(
            n_queries,
            n_keys,
            value.device,
            drops=drop is not None,
            window=window,
            n_parts=len(queries),
        )
    if drop is not None and backend not in ("reference", "short"):
        raise ParameterError(
            f"attention: backend={backend!r} cannot drop weights; use backend='reference'"
        )
    scale = width**-0.5 if scale is None else scale
    # A single query is level with the last key and sees all of them.
    sight = Sight(_four_axes(mask), causal and n_queries > 1, window, sinks)
    if backend == "chunked":
        return chunked_attention(_wide(queries), _wide(keys), value, sight, scale)
    triangular = sight.causal and mask is None and window is None and n_queries == n_keys
    if triangular and backend == "sdpa":
        penalty = None  # said by a flag, which some kernels turn into half the work
    else:
        penalty = _penalty(_full_mask(sight, queries[0], keys[0]), value)
    if backend == "matmul":
        return matmul_attention(queries, keys, value, penalty, scale)
    wide_query, wide_key = _wide(queries), _wide(keys)
    if backend == "short":
        shape = torch.Size((*wide_query.shape[:3], n_keys))
        dropped = None if drop is None else drop.draw(shape, value.device)
        return short_attention(wide_query, wide_key, value, penalty, scale, dropped)
    if backend == "reference":
        return _reference(wide_query, wide_key, value, penalty, scale, drop)
    return _fused(wide_query, wide_key, value, penalty, triangular, scale)


def attention_weights(
    query: Tensor | Sequence[Tensor],
    key: Tensor | Sequence[Tensor],
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    sinks: int = 0,
    scale: float | None = None,
) -> Tensor:
    """Return the weights of :func:`attention`, ``softmax(scale * query key')``.

    Parameters
    ----------
    query, key, mask, causal, window, sinks, scale
        As :func:`attention` takes them.

    Returns
    -------
    Tensor of shape (B, N, L, S)
    """
    wide_query, wide_key = (
        part if isinstance(part, Tensor) else _wide(tuple(part)) for part in (query, key)
    )
    scale = wide_query.shape[-1] ** -0.5 if scale is None else scale
    sight = Sight(_four_axes(mask), causal and wide_query.shape[2] > 1, window, sinks)
    penalty = _penalty(_full_mask(sight, wide_query, wide_key), wide_query)
    return _weights(wide_query, wide_key, penalty, scale)


def pick_backend(
    n_queries: int,
    n_keys: int,
    device: torch.device,
    *,
    drops: bool = False,
    window: int | None = None,
    n_parts: int = 1,
) -> str:
    """Choose a kernel, the only place where that is decided.

    While torch traces, that is "sdpa", its own, or the reference.
    The borders are those measured on two cores. The number of sequences has no
    say, so that a forecast is the same bit for bit whatever else is forecast
    beside it; whether gradients are needed has, since forecasts need none.

    Parameters
    ----------
    n_queries, n_keys : int
    device : torch.device
    drops : bool, default False
        Whether weights will be dropped.
    window : int, optional
        As :func:`attention` takes it.
    n_parts : int, default 1
        Queries that lie side by side.

    Returns
    -------
    str
        One of :data:`BACKENDS`.
    """
    traced, learns = is_traced(), torch.is_grad_enabled()
    if device.type == "cpu" and n_keys <= _SHORT and learns and not traced:
        return "short"
    if drops:
        # On accelerators as well: the fused kernels draw from the global generator of the
        # device, and a training run draws from its own to be repeatable.
        return "reference"
    few = n_keys <= (_SHORT if learns else _VECTOR) or n_queries == 1
    if traced or few or device.type != "cpu":
        return "sdpa"
    if max(n_queries, n_keys) <= _LONG:
        # Torch's wants parts side by side copied into one, with values as wide.
        return "matmul" if learns or n_parts > 1 else "sdpa"
    # Torch's own computes all scores and hides those outside of a window.
    return "chunked" if window is not None and _NARROW * window <= n_keys else "sdpa"


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    penalty: Tensor | None,
    triangular: bool,
    scale: float,
) -> Tensor:
    """Call torch's kernel, without a gradient on a CPU with sizes that it is fast at.

    Its gradient is wrong beside a mask of keys that were filled up. A single query reads a cache,
    which would be copied.
    """
    (n_queries, width), (n_keys, n_features) = query.shape[2:], value.shape[2:]
    slow = query.device.type == "cpu" and n_queries > 1 and not is_traced()
    if slow and not torch.is_grad_enabled():
        # It computes all scores first unless values are as wide as keys.
        width = max(width, n_features)
        # Its threads work on rooms one behind the other, of so many queries each. Unless these fill
        # lines of the cache, later ones begin in the middle of one, where some BLAS adds up in
        # another order: a window would be forecast with other digits by another thread.
        more = -n_queries % _VECTOR
        if penalty is not None and penalty.shape[2] > 1:
            penalty = F.pad(penalty, (0, 0, 0, more))
        rest = -n_keys % _VECTOR if n_keys >= _FEW else 0
        # Of itself, the triangle hides what stands behind the last key.
        if rest and not triangular:
            penalty = value.new_zeros(1, 1, 1, n_keys) if penalty is None else penalty
            penalty = F.pad(penalty, (0, rest), value=-torch.inf)
            penalty = penalty.expand(-1, -1, n_queries + more, -1)
        query = _filled(query, n_queries + more, width)
        key, value = (_filled(part, n_keys + rest, width) for part in (key, value))
    mixed = F.scaled_dot_product_attention(
        query, key, value, penalty, is_causal=triangular, scale=scale
    )
    return mixed[..., :n_queries, :n_features]


def _filled(part: Tensor, length: int, width: int) -> Tensor:
    """Fill tokens (B, N, L, E) up with zeros; torch would copy where there is nothing to fill."""
    more = width - part.shape[3], length - part.shape[2]
    return F.pad(part, (0, more[0], 0, more[1])) if any(more) else part


def _wide(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _four_axes(mask: Tensor | None) -> Tensor | None:
    """Bring a mask to axes that are broadcastable to (B, N, L, S)."""
    if mask is None or mask.ndim == 4:
        return mask
    return mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]


def _full_mask(sight: Sight, query: Tensor, key: Tensor) -> Tensor | None:
    """Join a mask with the causal triangle and the window."""
    mask, causal, window, sinks = sight
    if not causal and window is None:
        return mask
    n_queries, n_keys = query.shape[-2], key.shape[-2]
    if window is None:
        near = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device)
        near = near.tril(n_keys - n_queries)
    else:
        positions = torch.arange(n_keys, device=query.device)
        # The last query is level with the last key.
        levels = torch.arange(n_keys - n_queries, n_keys, device=query.device)
        near = masks.window(levels, positions, window, sinks=sinks, causal=causal)
    return near[None, None] if mask is None else mask & near


def _penalty(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Turn a mask into numbers to add to the scores.

    They are finite, because infinite ones give NaN where nothing may be
    attended to; half of the lowest number absorbs any score, and no score
    takes it past the end.
    """
    if mask is None:
        return None
    lowest = torch.finfo(like.dtype).min / 2
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(~mask, lowest)


def _reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    penalty: Tensor | None,
    scale: float,
    dropout: Dropout | None,
) -> Tensor:
    """The formula as it is written."""
    weights = _weights(query, key, penalty, scale)
    if dropout is not None:
        weights = dropout(weights)
    return weights @ value


def _weights(query: Tensor, key: Tensor, penalty: Tensor | None, scale: float) -> Tensor:
    scores = scale * query @ key.transpose(-1, -2)
    if penalty is not None:
        scores = scores + penalty
    return scores.softmax(dim=-1)
