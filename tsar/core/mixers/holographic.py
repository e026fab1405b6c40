"""Attention in one vector: keys and values are bound together, and unbound by queries."""

import torch
from torch import Tensor

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.mixers.heads import head_width, join_heads, split_heads

__all__ = ["HolographicAttention"]

_EPSILON = 1e-6


class HolographicAttention(Mixer):
    """``softmax_t(cos(v_t, q_t^-1 * sum_s k_s * v_s)) v_t``, where ``*`` is circular convolution.

    All pairs of a key and a value lie over each other in one vector, from which a query brings
    forth a noisy value; how near that is to the token's own says how much of it is passed on.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.

    Raises
    ------
    ParameterError
        If it does not.

    References
    ----------
    Alam et al., "Recasting self-attention with holographic reduced representations", ICML 2023,
    section 3, eqs. 1 to 4. The weights, a softmax over all tokens, are multiplied by how many
    there are, so that the result is as large whatever the length.
    """

    knows_order = False
    formula = "softmax_t(cos(v_t, q_t^-1 * sum_s k_s * v_s)) v_t, * circular convolution"
    cost = "L D log E"

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        head_width("HolographicAttention", d_model, n_heads)
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
        wide = self.query_key_value(x).to(torch.promote_types(x.dtype, torch.float32))
        query, key, value = split_heads(wide, self.n_heads, 3)  # (B, N, L, E)
        spectra = [torch.fft.rfft(part, dim=-1) for part in (query, key, value)]
        bound = spectra[1] * spectra[2]
        if mask is not None:
            bound = bound * mask[:, None, :, None]
        # The inverse of a spectrum, kept finite where the spectrum is nearly nothing.
        inverse = spectra[0].conj() / (spectra[0].abs().square() + _EPSILON)
        brought = torch.fft.irfft(inverse * bound.sum(dim=2, keepdim=True), value.shape[-1], dim=-1)
        nearness = torch.cosine_similarity(value, brought, dim=-1)  # (B, N, L)
        if mask is not None:
            nearness = nearness.masked_fill(~mask[:, None], torch.finfo(nearness.dtype).min)
        count = x.shape[1] if mask is None else mask.sum(dim=1)[:, None, None]
        mixed = (nearness.softmax(dim=-1) * count)[..., None] * value
        return self.output(join_heads(mixed).to(x.dtype))
