"""Fourier transforms in place of attention: nothing is learned, and everything is mixed."""

import math

import torch
from torch import Tensor

from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.state import KVCache
from tsar.exceptions import ParameterError

__all__ = ["Fourier"]

_ROWS = 512


class Fourier(Mixer):
    """``Re(F_tokens F_features x)``: the discrete Fourier transform over both axes.

    The causal form is ours, as the paper's is not written out in what it publishes: row ``t`` of
    the transform over tokens is the one of sequences of ``period`` tokens, cut off behind the
    token itself and divided by the square root of the ``t + 1`` tokens that are left. So a token
    depends on earlier ones only, and what it is does not depend on how many follow. All tokens
    have to be remembered.

    Parameters
    ----------
    d_model : int
    causal : bool, default False
    period : int, default 1024
        Of the causal form: after so many tokens the waves begin anew.

    Raises
    ------
    ParameterError
        If the period is less than 2.

    References
    ----------
    Lee-Thorp et al., "FNet: mixing tokens with Fourier transforms", NAACL 2022, eq. 2; Lou et al.,
    "FNetAR: mixing tokens with autoregressive Fourier transforms", arXiv:2107.10932.
    """

    formula = "Re(F x F'), causal: rows of F cut off behind t"
    cost = "L log L D, causal L^2 D"

    features: Tensor
    circle: Tensor

    def __init__(self, d_model: int, *, causal: bool = False, period: int = 1024) -> None:
        super().__init__()
        if period < 2:
            raise ParameterError(f"Fourier: period must be at least 2, got {period}")
        self.causal = causal
        self.period = period
        index = torch.arange(d_model, dtype=torch.float64)
        angle = 2 * math.pi / d_model * torch.outer(index, index).remainder(d_model)
        dtype = torch.get_default_dtype()
        features = torch.cat([angle.cos(), angle.sin()], dim=1)
        self.register_buffer("features", features.to(dtype), persistent=False)
        turn = 2 * math.pi / period * torch.arange(period, dtype=torch.float64)
        circle = torch.stack([turn.cos(), turn.sin()])
        self.register_buffer("circle", circle.to(dtype), persistent=False)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, L, D); ``mask`` of shape (B, L), of which a causal one does not count.

        Raises
        ------
        ParameterError
            If a mask says something of pairs of tokens, or there is a memory.
        """
        refuse_memory(self, memory)
        check_token_mask(self, mask, x)
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0.0)
        if not self.causal:
            return torch.fft.fft2(x.to(torch.promote_types(x.dtype, torch.float32))).real.to(
                x.dtype
            )
        cosines, sines = (x @ self.features).chunk(2, dim=-1)
        if mask is None:
            positions = torch.arange(x.shape[1], device=x.device)
        else:
            positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        lower = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        return self._mixed(positions, positions, cosines, sines, lower)

    def init_state(self, batch: int) -> KVCache:
        """Return an empty cache of transformed tokens."""
        if not self.causal:
            raise NotImplementedError(
                "Fourier does not work piece by piece; it does only if causal=True"
            )
        empty = self.features.new_empty(batch, 1, 0, len(self.features))
        return KVCache.holding(empty, empty)

    def extend(self, x: Tensor, state: KVCache) -> tuple[Tensor, KVCache]:
        """Mix more tokens (B, T, D)."""
        if not x.shape[1]:
            return x, state
        start = state.length
        cosines, sines = (x @ self.features)[:, None].chunk(2, dim=-1)
        state = state.append(cosines, sines)
        positions = torch.arange(state.length, device=x.device)
        lower = positions <= positions[start:, None]
        keys, values = state.keys[:, 0], state.values[:, 0]
        return self._mixed(positions[start:], positions, keys, values, lower), state

    def _mixed(
        self, queries: Tensor, keys: Tensor, cosines: Tensor, sines: Tensor, seen: Tensor
    ) -> Tensor:
        """Mix what features became of tokens at positions (S,) or (B, S) at others (T,)."""
        pieces = []
        # A few rows of the matrix at a time, which has as many as there are tokens.
        for rows, shown in zip(queries.split(_ROWS, dim=-1), seen.split(_ROWS), strict=True):
            turns = (rows[..., :, None] * keys[..., None, :]) % self.period
            size = (rows[..., None] + 1).to(cosines.dtype).rsqrt()
            cosine, sine = (part[turns].masked_fill(~shown, 0.0) * size for part in self.circle)
            pieces.append(cosine @ cosines - sine @ sines)
        return torch.cat(pieces, dim=1)
