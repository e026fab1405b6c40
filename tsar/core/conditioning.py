"""How a network is told what to generate."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.random import Random

__all__ = ["AdaptiveNorm", "LabelEmbedding"]


class AdaptiveNorm(nn.Module):
    """A layer norm whose factor and shift come from a condition, and a gate for what follows.

    A block adds ``gate * branch(x)`` to its tokens. The map of the condition is zero at first, so
    that a new network does nothing (adaLN-zero).

    Parameters
    ----------
    d_model : int
    condition_dim : int

    References
    ----------
    Peebles and Xie, "Scalable diffusion models with transformers", ICCV 2023, section 3.2.
    """

    def __init__(self, d_model: int, condition_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model, elementwise_affine=False)
        self.map = Linear(condition_dim, 3 * d_model)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(
        self, x: Tensor, condition: Tensor, groups: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Normalise tokens.

        Parameters
        ----------
        x : Tensor of shape (B, L, D)
        condition : Tensor of shape (B, C) or (B, L, C)
            Of a sequence, or of each token.
        groups : int64 Tensor of shape (L,), optional
            Of conditions (B, G, C), which one each token has; they are mapped once.

        Returns
        -------
        x : Tensor of shape (B, L, D)
        gate : Tensor of shape (B, 1, D) or (B, L, D)
        """
        if condition.ndim == 2:
            condition = condition[:, None]
        maps = self.map(F.silu(condition))
        shift, scale, gate = (maps if groups is None else maps[:, groups]).chunk(3, dim=-1)
        return self.norm(x) * (1 + scale) + shift, gate


class LabelEmbedding(Random):
    """A vector for each class, and one for none.

    In training a label is now and then replaced by none, so that a network learns both what it
    says of a class and what it says without, which guidance compares.

    Parameters
    ----------
    n_classes : int
    d_model : int
    drop : float, default 0.1
        Probability of being replaced.

    Attributes
    ----------
    null : int
        The label that stands for none, ``n_classes``.

    References
    ----------
    Ho and Salimans, "Classifier-free diffusion guidance", arXiv:2207.12598, section 3.2.
    """

    no_decay = ("table.weight",)

    def __init__(self, n_classes: int, d_model: int, *, drop: float = 0.1) -> None:
        super().__init__()
        self.null = n_classes
        self.drop = drop
        self.table = nn.Embedding(n_classes + 1, d_model)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, labels: Tensor) -> Tensor:
        """Embed labels (...) below ``n_classes``, or ``null``, to vectors (..., D)."""
        if self.training and self.drop > 0:
            drawn = torch.rand(labels.shape, generator=self.generator, device=labels.device)
            labels = labels.masked_fill(drawn < self.drop, self.null)
        return self.table(labels)
