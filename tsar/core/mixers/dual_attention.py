"""Attention of smoothed tokens beside attention of features, whose heads are blended."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.mixers.heads import head_width, split_heads
from tsar.core.ops.attention import attention
from tsar.core.ops.diagonal_recurrence import long_convolution
from tsar.exceptions import ParameterError

__all__ = ["DualAttention", "blend_heads", "moving_average"]

# Tokens up to which averages are a product with a matrix, which is faster than Fourier transforms.
LONGEST_MATRIX = 256


def moving_average(x: Tensor, share: float, mask: Tensor | None = None) -> Tensor:
    """Average tokens with those before them, with weights that fall exponentially.

    The first average is the first token; each further one is ``share`` of its token and
    ``1 - share`` of the average before. A token that is masked leaves the average as it is, and
    before the first one it is 0.

    Parameters
    ----------
    x : Tensor of shape (B, L, D)
    share : float
        In (0, 1].
    mask : bool Tensor of shape (B, L), optional
        True where there is a token.

    Returns
    -------
    Tensor of shape (B, L, D)
    """
    if mask is None:
        return _average(x, share)
    rank = mask.cumsum(dim=1)[..., None]
    places = (rank - 1).clamp(min=0).expand_as(x)
    # Those that are there one after the other, and each average back to where it belongs.
    together = torch.zeros_like(x).scatter_add(1, places, x * mask[..., None])
    return _average(together, share).gather(1, places) * (rank > 0)


def _average(x: Tensor, share: float) -> Tensor:
    batch, n_tokens, width = x.shape
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    wide = torch.cat([wide[:, :1] / share, wide[:, 1:]], dim=1)  # the first counts in full
    steps = torch.arange(n_tokens, device=x.device)
    if n_tokens > LONGEST_MATRIX:
        kernel = share * (1 - share) ** steps.to(wide.dtype)
        return long_convolution(wide, kernel.expand(width, -1)).to(x.dtype)
    back = steps[:, None] - steps
    weights = share * (1 - share) ** back.clamp(min=0).to(wide.dtype) * (back >= 0)
    return torch.bmm(weights.expand(batch, -1, -1), wide).to(x.dtype)


def blend_heads(heads: Tensor, merge_size: int) -> Tensor:
    """Lay heads (B, N, L, E) side by side, so that neighbours are one token afterwards.

    The heads are cut into ``merge_size`` parts of the tokens each: what becomes of the first tokens
    comes from the first heads, and a token is as many neighbours of each of some heads. With
    ``merge_size`` 1 every token is itself, and its heads are joined as usual.

    Parameters
    ----------
    heads : Tensor of shape (B, N, L, E)
    merge_size : int
        Divides N.

    Returns
    -------
    Tensor of shape (B, L, N * E)

    References
    ----------
    Wang et al., "CARD: channel aligned robust blend transformer for time series forecasting",
    ICLR 2024, section 3, in the order of the authors' code.
    """
    n_heads, n_tokens = heads.shape[1:3]
    rows = heads.flatten(1, 2).unflatten(1, (n_heads // merge_size, n_tokens, merge_size))
    return rows.permute(0, 2, 3, 1, 4).flatten(2)


class DualAttention(Mixer):
    """Attention along tokens and attention along features, of the same queries, keys and values.

    Along tokens, queries and keys are smoothed by an exponential moving average, and their
    products are multiplied with the root of the width of a head rather than divided by it. Along
    features, those of a head weigh each other by the sum of the products of their queries and keys
    over all tokens, times the root of the number of tokens. There is no map of what comes out.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    dropout : float, default 0.0
        Of the weights of both attentions.
    smoothing : float, default 0.5
        Share of the token itself in the moving average, in (0, 1]; 1 leaves queries and keys as
        they are.
    n_slots : int, optional
        With it, the tokens attend to so many sums of keys and values, each with weights that a
        softmax over the slots makes of every token. So the cost grows with the number of tokens
        and not with its square.
    merge_size : int, default 1
        See :func:`blend_heads`.

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or ``merge_size`` the heads; if the smoothing or the
        number of slots is out of its range.

    References
    ----------
    Wang et al., "CARD: channel aligned robust blend transformer for time series forecasting",
    ICLR 2024, section 3, with the products as the authors' code takes them. There, a token
    beyond the number of patches has no query; here, all of them have.
    """

    formula = "softmax(sqrt(E) ma(q)_t ma(k)_s') v_s, and the same along features"
    cost = "L^2 D + L D E"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        dropout: float = 0.0,
        smoothing: float = 0.5,
        n_slots: int | None = None,
        merge_size: int = 1,
    ) -> None:
        super().__init__()
        self.width = head_width("DualAttention", d_model, n_heads)
        if merge_size < 1 or n_heads % merge_size:
            raise ParameterError(
                f"DualAttention: merge_size={merge_size} does not divide n_heads={n_heads}"
            )
        if not 0 < smoothing <= 1:
            raise ParameterError(f"DualAttention: smoothing must be in (0, 1], got {smoothing}")
        if n_slots is not None and n_slots < 1:
            raise ParameterError(f"DualAttention: n_slots must be at least 1, got {n_slots}")
        self.n_heads = n_heads
        self.smoothing = smoothing
        self.merge_size = merge_size
        self.query_key_value = Linear(d_model, 3 * d_model)
        self.key_slots = self.value_slots = None
        if n_slots is not None:
            self.key_slots = Linear(self.width, n_slots)
            self.value_slots = Linear(self.width, n_slots)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, L, D): the sum of :meth:`branches`; ``mask`` of shape (B, L).

        Raises
        ------
        ParameterError
            If a mask says something of pairs of tokens, or there is a memory.
        """
        refuse_memory(self, memory)
        along_tokens, along_features = self.branches(x, mask=mask)
        return along_tokens + along_features

    def branches(self, x: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what attention along tokens and along features gives, each (B, L, D).

        Parameters
        ----------
        x : Tensor of shape (B, L, D)
        mask : bool Tensor of shape (B, L), optional
            A token that is masked is in no average, no slot and no sum.

        Raises
        ------
        ParameterError
            If the mask has another shape.
        """
        check_token_mask(self, mask, x)
        projected = self.query_key_value(x)
        if mask is not None:
            projected = projected * mask[..., None]
        along_tokens = self._along_tokens(projected, mask)
        along_features = self._along_features(projected, mask)
        return (
            blend_heads(along_tokens, self.merge_size),
            blend_heads(along_features, self.merge_size),
        )

    def _along_tokens(self, projected: Tensor, mask: Tensor | None) -> Tensor:
        parts = projected.chunk(3, dim=-1)
        if self.key_slots is None or self.value_slots is None:
            smooth = moving_average(projected[..., : -parts[2].shape[-1]], self.smoothing, mask)
            query, key = split_heads(smooth, self.n_heads, 2)
            (value,) = split_heads(parts[2], self.n_heads, 1)
        else:
            smooth = moving_average(parts[0], self.smoothing, mask)
            (query,) = split_heads(smooth, self.n_heads, 1)
            key, value = (split_heads(part, self.n_heads, 1)[0] for part in parts[1:])
            key, value = _pooled(key, self.key_slots), _pooled(value, self.value_slots)
            key = moving_average(key.flatten(0, 1), self.smoothing).view_as(key)
            mask = None
        return attention(query, key, value, mask=mask, scale=self.width**0.5, dropout=self.dropout)

    def _along_features(self, projected: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = split_heads(projected, self.n_heads, 3)
        n_tokens = query.shape[2]
        if mask is not None:
            count = mask.sum(dim=1)[:, None, None, None].to(query.dtype)
            query = query * (count / n_tokens).sqrt()
        mixed = attention(
            query.mT, key.mT, value.mT, scale=n_tokens**0.5, dropout=self.dropout
        )  # (B, N, E, L)
        return mixed.mT


def _pooled(x: Tensor, slots: Linear) -> Tensor:
    """Sum tokens (B, N, L, E) up in slots (B, N, n_slots, E), by weights of their own."""
    return F.softmax(slots(x), dim=-1).mT @ x
