"""A few latent tokens between all the others: they read everything, and everything reads them."""

import torch
from torch import Tensor, nn

from tsar.core.mixers.attention import SoftmaxAttention
from tsar.core.mixers.base import Mixer, refuse_memory

__all__ = ["LatentAttention"]


class LatentAttention(Mixer):
    """Attention from latent tokens to the tokens, and from these to the latent ones.

    The latent tokens are weights. Their number is fixed, so that the cost grows with the length
    and not with its square. By itself it knows no order of tokens.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Divides ``d_model``.
    n_latents : int, default 32
    dropout : float, default 0.0
        Of the attention weights.

    Raises
    ------
    ParameterError
        If the heads do not divide the width.

    References
    ----------
    Jaegle et al., "Perceiver IO: a general architecture for structured inputs and outputs", ICLR
    2022, section 3, both crossings in one layer; Lee et al., "Set transformer", ICML 2019, eqs. 9
    and 10.
    """

    knows_order = False
    formula = "attention to m latents, which attend to all"
    cost = "L m D"

    no_decay = ("latents",)

    def __init__(
        self, d_model: int, n_heads: int, *, n_latents: int = 32, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(0.02 * torch.randn(n_latents, d_model))
        self.read = SoftmaxAttention(d_model, n_heads, dropout=dropout)
        self.write = SoftmaxAttention(d_model, n_heads, dropout=dropout)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, L, D); ``mask`` of shape (B, L).

        Raises
        ------
        ParameterError
            If there is a memory.
        """
        refuse_memory(self, memory)
        latents = self.latents.expand(x.shape[0], -1, -1)
        latents = latents + self.read(latents, mask=mask, memory=x)
        return self.write(x, memory=latents)
