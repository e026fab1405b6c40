"""Attention of a few queries, which stand out on a sample of the keys, as in ProbSparse."""

import math

import torch
from torch import Tensor

__all__ = ["draw_keys", "prominence", "prominent_attention", "sample_size"]

# Of SplitMix64, as signed integers: a golden step from number to number, two factors, and the
# bits that a shift to the right may leave.
_STEP = -7046029254386353131
_ROUNDS = ((30, -4658895280553007687), (27, -7723592293110705685))
_LAST_SHIFT = 31
_N_SALTS = 2**62


def sample_size(length: int, factor: float) -> int:
    """Return ``factor * ceil(ln(length))``, from 1 to ``length``."""
    return min(max(int(factor * math.ceil(math.log(length))), 1), length)


def draw_keys(
    n_queries: int,
    n_keys: int,
    n_drawn: int,
    *,
    device: torch.device,
    drawing: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw keys for each query, with replacement.

    Numbers come from hashes of their places (SplitMix64) and of a salt: the same on every device
    and in every thread, whatever was drawn before.

    Parameters
    ----------
    n_queries, n_keys, n_drawn : int
    device : torch.device
    drawing : bool, default False
        Whether the salt is drawn, as in training; otherwise it is 0, and so the keys are the same
        in every call.
    generator : torch.Generator, optional
        Of the salt, on the same device; the global one of that device by default.

    Returns
    -------
    int64 Tensor of shape (n_queries, n_drawn)
        Below ``n_keys``.

    References
    ----------
    Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 10, with
    the factors of the authors' later SplitMix64.
    """
    numbers = torch.arange(1, n_queries * n_drawn + 1, device=device) * _STEP
    if drawing:
        numbers = numbers + torch.randint(_N_SALTS, (), device=device, generator=generator)
    for shift, factor in _ROUNDS:
        numbers = (numbers ^ _shifted(numbers, shift)) * factor
    numbers = numbers ^ _shifted(numbers, _LAST_SHIFT)
    # The upper bits, without the sign.
    return (_shifted(numbers, 1) % n_keys).view(n_queries, n_drawn)


def _shifted(numbers: Tensor, shift: int) -> Tensor:
    """Shift 64 bits to the right and fill up with zeros, which signed numbers do not."""
    return (numbers >> shift) & (2 ** (64 - shift) - 1)


def prominence(query: Tensor, key: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    """Measure how far each query is from attending to all keys alike, on a sample of them.

    Parameters
    ----------
    query : Tensor of shape (B, N, L, E)
    key : Tensor of shape (B, N, S, E)
    keys : int64 Tensor of shape (L, U)
        From :func:`draw_keys`.
    mask : bool Tensor of shape (B, S), optional
        True where a key may be attended to.

    Returns
    -------
    Tensor of shape (B, N, L)
        The largest of the sampled products less their sum over S; minus infinity where no key
        of the sample may be attended to.

    References
    ----------
    Zhou et al., "Informer: beyond efficient transformer for long sequence time-series
    forecasting", AAAI 2021, section 3. The sum of the sample is divided by the number of all
    keys, as in the authors' code.
    """
    # Tokens first and all heads of a token side by side, so that a key is copied in one piece.
    query, rows = query.transpose(1, 2).contiguous(), key.transpose(1, 2).flatten(2)
    largest = query.new_full(query.shape[:3], -torch.inf)  # (B, L, N)
    total = torch.zeros_like(largest)
    # One key of each query at a time: all of them at once would be U copies of the keys.
    for drawn in keys.unbind(1):
        products = (query * rows.index_select(1, drawn).view_as(query)).sum(dim=-1)
        if mask is None:
            largest, total = largest.maximum(products), total + products
        else:
            there = mask.index_select(1, drawn)[..., None]
            largest = largest.maximum(products.masked_fill(~there, -torch.inf))
            total = total + products.masked_fill(~there, 0.0)
    return (largest - total / key.shape[2]).transpose(1, 2)


def prominent_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    *,
    n_queries: int,
    mask: Tensor | None = None,
    masked: bool = False,
) -> Tensor:
    """Attend from the queries that stand out; the others take what needs no query.

    Parameters
    ----------
    query, key, value : Tensor of shape (B, N, L, E)
    keys : int64 Tensor of shape (L, U)
        From :func:`draw_keys`.
    n_queries : int
        How many queries attend.
    mask : bool Tensor of shape (B, L), optional
        True where a token may be attended to.
    masked : bool, default False
        Whether those that attend see no later token, and the others take the sum of the values so
        far. Otherwise these take the mean of all values.

    Returns
    -------
    Tensor of shape (B, N, L, E)
    """
    shown = None if mask is None else mask[:, None, :, None]
    with torch.no_grad():  # a choice has no gradient
        measure = prominence(query, key, keys, mask)
        if mask is not None:
            measure = measure.masked_fill(~mask[:, None], -torch.inf)
        chosen = measure.topk(n_queries, dim=2).indices  # (B, N, u)
    values = value if shown is None else value * shown
    if masked:
        lazy = values.cumsum(dim=2)
    else:
        count = value.shape[2] if shown is None else shown.sum(dim=2, keepdim=True).clamp(min=1)
        lazy = (values.sum(dim=2, keepdim=True) / count).expand_as(value)
    wide = chosen[..., None].expand(*chosen.shape, query.shape[3])
    scores = query.gather(2, wide) @ key.mT * query.shape[3] ** -0.5  # (B, N, u, L)
    hidden = None if mask is None else ~mask[:, None, None]
    if masked:
        later = torch.arange(key.shape[2], device=key.device) > chosen[..., None]
        hidden = later if hidden is None else hidden | later
    if hidden is not None:
        # Not minus infinity: a query that sees nothing looks at everything.
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    mixed = scores.softmax(dim=-1).to(value.dtype) @ value
    return lazy.scatter(2, wide, mixed.to(lazy.dtype))
