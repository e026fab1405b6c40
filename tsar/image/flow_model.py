"""Estimators that draw images as continuous patches, many of them at once along a flow."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tsar.core.conditioned import ConditionedState
from tsar.core.heads import JointFlowHead
from tsar.core.sampling import Sampler
from tsar.image.base import AT_ONCE, ImageBatch
from tsar.image.drawn import DrawingNetwork, LevelModel
from tsar.training import Objective

__all__ = ["FlowModel", "FlowNetwork"]


class FlowNetwork(DrawingNetwork):
    """Vectors of images, drawn level by level along a flow.

    Attributes
    ----------
    head : JointFlowHead
        Its groups are the levels.
    """

    head: JointFlowHead

    def vectors(self, images: Tensor) -> Tensor:
        """Return the vectors (B, L, E) that images (B, C, H, W) consist of, in their places."""
        raise NotImplementedError

    def images(self, vectors: Tensor) -> Tensor:
        """Return the images of vectors (B, L, E)."""
        raise NotImplementedError

    def errors(self, vectors: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the error (B, L) of the velocity of vectors (B, L, E), given labels (B,)."""
        raise NotImplementedError

    def drawn_group(
        self,
        state: ConditionedState,
        sampler: Sampler,
        guidance: float | None,
        fixed: tuple[Tensor, Tensor] | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draw the group that comes next in a state of the head; see :meth:`draw`."""
        if fixed is not None:
            n_vectors = self.head.group_size(state.length)
            fixed = fixed[0][:, :n_vectors], fixed[1][:, :n_vectors]
        drawn = self.head.sample(
            state,
            temperature=sampler.temperature,
            guidance=guidance,
            fixed=fixed,
            generator=generator,
        )
        # Later levels are told what there is, and pixels lie there.
        return drawn.clamp(-1, 1)


class VelocityError(Objective):
    """The error of the velocity of all vectors of images, at random times."""

    def loss(self, network: nn.Module, batch: ImageBatch, generator: torch.Generator) -> Any:
        """Return the sum of the errors of the vectors of a batch, and how many there are."""
        net: Any = network
        vectors = net.vectors(batch["images"])
        labels = batch.get("labels")
        if labels is None:
            labels = torch.full((len(vectors),), net.labels.null, device=vectors.device)
        errors = net.errors(vectors, labels, generator)
        return {"loss": (errors.sum(), torch.tensor(errors.numel(), device=errors.device))}


@dataclass(kw_only=True, eq=False, repr=False)
class FlowModel(LevelModel):
    """A model that draws images as vectors of pixels, level by level along a flow."""

    def _objective(self) -> Objective:
        return VelocityError()

    def sample(
        self,
        n: int | None = None,
        label: Any = None,
        *,
        guidance: float = 0.0,
        temperature: float = 1.0,
        random_state: int | None = None,
    ) -> np.ndarray:
        """Draw images.

        Parameters
        ----------
        n : int or None
            How many; one, or one for each label.
        label : label, sequence of labels or None
            What they are to show; None leaves that open.
        guidance : float, default 0.0
            How much farther than the label asks for; 0 is the model itself. It is the same at all
            levels, since of a few the first decides most.
        temperature : float, default 1.0
            Of the noise; lower ones give likelier images.
        random_state : int or None, default None
            Seed of the draws; None draws a new one.

        Returns
        -------
        float32 array of shape (n, H, W) or (n, H, W, C)
            In [0, 1].

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            A number is out of its range, or there is no such label.
        """
        sampler = Sampler(temperature=temperature)
        return self._sampled(n, label, guidance, sampler, random_state)

    def _images_of(self, tokens: Tensor) -> Tensor:
        network: Any = self.module_
        images: Tensor = network.images(tokens)
        return images

    def _repainted(
        self,
        images: Tensor,
        opened: Tensor,
        numbers: Tensor,
        guidance: float,
        temperature: float,
        generator: torch.Generator,
    ) -> Tensor:
        network: Any = self.module_
        vectors = torch.cat([network.vectors(part) for part in images.split(AT_ONCE)])
        # Of a mean over an area something is drawn anew if any of its pixels is.
        every = opened[:, None].expand_as(images).to(images.dtype)
        stays = torch.cat([network.vectors(part) for part in every.split(AT_ONCE)]) == 0
        sampler = Sampler(temperature=temperature)
        return self._images_of(self._drawn(numbers, guidance, sampler, generator, (vectors, stays)))

    def score(self, images: Any, labels: Any = None) -> float:
        """Return minus the mean squared error of the velocity, at the same times every time.

        Higher is better; there is no likelihood.
        """
        return -self._mean_error(VelocityError(), images, labels)
