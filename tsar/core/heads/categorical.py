"""One of finitely many classes per token."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.ops.even_products import linear
from tsar.core.sampling import Guidance, Sampler
from tsar.exceptions import ParameterError

__all__ = ["CategoricalHead"]


class CategoricalHead(nn.Module):
    """Logits of classes by a linear map, of its own or that of the embedding.

    Parameters
    ----------
    d_model : int
    n_classes : int
    embedding : nn.Embedding, optional
        Whose vectors are the rows of the map as well (tied weights); it has one for each class.
    bias : bool, default False

    Raises
    ------
    ParameterError
        If the embedding has another shape.

    References
    ----------
    Press and Wolf, "Using the output embedding to improve language models", EACL 2017.
    """

    def __init__(
        self,
        d_model: int,
        n_classes: int,
        *,
        embedding: nn.Embedding | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if embedding is None:
            self.weight: Tensor = nn.Parameter(torch.empty(n_classes, d_model))
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as torch's linear maps begin
        elif embedding.weight.shape != (n_classes, d_model):
            raise ParameterError(
                f"CategoricalHead: an embedding to share must have the shape "
                f"{(n_classes, d_model)}, got {tuple(embedding.weight.shape)}"
            )
        else:
            self.weight = embedding.weight
        self.bias = nn.Parameter(torch.zeros(n_classes)) if bias else None

    def forward(self, z: Tensor) -> Tensor:
        """Return the logits (..., V) of features (..., D)."""
        return linear(z, self.weight, self.bias)

    def loss(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return minus the log-likelihood of classes, in nats.

        Parameters
        ----------
        z : Tensor of shape (..., D)
        targets : int64 Tensor of shape (...)

        Returns
        -------
        Tensor of shape (...)
        """
        logits = self(z).flatten(0, -2)
        losses = F.cross_entropy(logits, targets.flatten(), reduction="none")
        return losses.view(targets.shape)

    def sample(
        self,
        z: Tensor,
        sampler: Sampler,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw a class for every token.

        Parameters
        ----------
        z : Tensor of shape (B, T, D)
            With guidance of 2 B rows: those with the condition, then those without.
        sampler : Sampler
        guidance : float, optional
            The weight of :meth:`tsar.core.sampling.Guidance.combine`.
        generator : torch.Generator, optional

        Returns
        -------
        int64 Tensor of shape (B, T)
        """
        logits = self(z)
        if guidance is not None:
            conditional, unconditional = logits.chunk(2)
            logits = Guidance.combine(conditional, unconditional, guidance)
        return sampler.draw(logits, generator)
