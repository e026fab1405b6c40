"""Attention without a softmax, as a sum that goes along: the one op of all mixers built so.

Letters: B batch, N heads, L tokens, E size of a query or key, V size of a value, T tokens of a
chunk, C chunks.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["linear_attention"]

# Inside a chunk all pairs are formed: as many as make products of full tiles, and few enough that
# their square stays small beside a state.
CHUNK = 64


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute ``S_t = exp(log_decay_t) S_{t-1} + k_t v_t'`` and ``y_t = S_t' q_t``.

    Inside of chunks all pairs of tokens are multiplied out, between chunks the sum is handed on:
    time grows with the length, and nothing of size L x L is made.

    Parameters
    ----------
    query, key : Tensor of shape (B, N, L, E)
        Heads may share theirs: (B, 1, L, E).
    value : Tensor of shape (B, N, L, V)
    log_decay : Tensor of shape (B, N, L), optional
        At most 0; nothing is forgotten by default.
    state : Tensor of shape (B, N, E, V), optional
        The sum before the first token; zeros by default.

    Returns
    -------
    y : Tensor of shape (B, N, L, V)
    state : Tensor of shape (B, N, E, V)
        After the last token; in single precision at least, since a sum in half precision stops
        growing at a few hundred.

    References
    ----------
    Katharopoulos et al., "Transformers are RNNs", ICML 2020, section 3.3; Dao and Gu,
    "Transformers are SSMs", ICML 2024, section 6: the chunks.
    """
    dtype = torch.promote_types(value.dtype, torch.float32)
    with torch.autocast(value.device.type, enabled=False):
        decay = None if log_decay is None else log_decay.to(dtype)
        begun = None if state is None else state.to(dtype)
        y, after = _scan(query.to(dtype), key.to(dtype), value.to(dtype), decay, begun)
    return y.to(value.dtype), after


def _scan(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    batch, n_heads, length, width = value.shape
    if state is None:
        state = value.new_zeros(batch, n_heads, key.shape[-1], width)
    if length == 0:
        return value, state
    if length == 1:
        return _one_token(query, key, value, log_decay, state)
    size = min(CHUNK, length)
    short = -length % size
    # What is filled up adds nothing, forgets nothing, and is cut off.
    query, key, value = (
        F.pad(part, (0, 0, 0, short)).unflatten(2, (-1, size)) for part in (query, key, value)
    )  # (B, N, C, T, ...)
    scores = query @ key.mT
    lower = torch.ones(size, size, dtype=torch.bool, device=value.device).tril()
    if log_decay is None:
        scores = scores.masked_fill(~lower, 0.0)
        added, entered = key.mT @ value, query
        whole = None
    else:
        since = F.pad(log_decay, (0, short)).unflatten(2, (-1, size)).cumsum(dim=-1)  # (B, N, C, T)
        # Masked before the exponential, which would overflow above the diagonal.
        between = since[..., :, None] - since[..., None, :]
        scores = scores * between.masked_fill(~lower, -torch.inf).exp()
        last = since[..., -1:]
        added = (key * (last - since).exp()[..., None]).mT @ value
        entered = query * since.exp()[..., None]
        whole = last.exp()[..., None]  # (B, N, C, 1, 1)
    before = []
    for chunk in range(value.shape[2]):
        before.append(state)
        state = (state if whole is None else state * whole[:, :, chunk]) + added[:, :, chunk]
    y = scores @ value + entered @ torch.stack(before, dim=2)
    return y.flatten(2, 3)[:, :, :length], state


def _one_token(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    if log_decay is not None:
        state = state * log_decay.exp()[..., None]
    state = state + key.mT * value
    return query @ state, state
