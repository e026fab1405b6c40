"""Images scale by scale without a tokenizer, each scale drawn along a flow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.core.conditioned import ConditionedDecoder
from tsar.core.conditioning import LabelEmbedding
from tsar.core.heads import JointFlowHead
from tsar.core.position import LearnedPosition
from tsar.core.sampling import Sampler
from tsar.estimator.trained import Positive
from tsar.image.flow_model import FlowModel, FlowNetwork
from tsar.image.pixels import cut, joined, patches_along
from tsar.image.var import PyramidNetwork, pyramid_levels
from tsar.params.constraints import Interval

__all__ = ["FlowAR", "FlowPyramidNetwork", "doubling"]


def doubling(side: int) -> tuple[int, ...]:
    """Return sides that double from 1 on, the last of them a given one."""
    sides = [1]
    while 2 * sides[-1] < side:
        sides.append(2 * sides[-1])
    return (*sides, side) if side > 1 else (1,)


class FlowPyramidNetwork(PyramidNetwork, FlowNetwork):
    """An image at several sizes, each cut into patches, each drawn from what is told of it.

    Parameters
    ----------
    decoder : ConditionedDecoder
        Its levels are the scales.
    labels : LabelEmbedding
    head : JointFlowHead
        Its groups are the scales, and see no other.
    sides : sequence of int
        Patches along the side of each scale.
    d_model, patch_size : int
    shape : tuple of int
        Channels, height and width of the images.
    """

    def __init__(
        self,
        decoder: ConditionedDecoder,
        labels: LabelEmbedding,
        head: JointFlowHead,
        sides: Sequence[int],
        d_model: int,
        patch_size: int,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__(decoder, labels, sides, head.n_values, d_model)
        self.patch_size, self.shape = patch_size, shape
        self.head = head
        self.head_position = LearnedPosition(self.n_tokens, d_model)

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Return what is wanted of each of the vectors (B, L, E), of shape (B, L, D)."""
        return self.head_position(super().forward(ids, labels))

    def errors(self, vectors: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return self.head.loss(self(vectors, labels), vectors, generator)

    # --------------------------------------------------------------------- pixels

    def vectors(self, images: Tensor) -> Tensor:
        sizes = [side * self.patch_size for side in self.sides]
        return torch.cat([cut(_area(images, size), self.patch_size) for size in sizes], dim=1)

    def images(self, vectors: Tensor) -> Tensor:
        return joined(vectors[:, -(self.sides[-1] ** 2) :], self.patch_size, self.shape)

    def coarser(self, ids: Tensor) -> Tensor:
        parts = ids.split([side * side for side in self.sides], dim=1)[:-1]
        told = [self._told_by(part, scale) for scale, part in enumerate(parts)]
        return torch.cat([ids[:, :0], *told], dim=1)

    def _told_by(self, vectors: Tensor, scale: int) -> Tensor:
        """Return what the next scale is told by the vectors (B, T, E) of one."""
        size, full = self.sides[scale] * self.patch_size, self.shape[1]
        image = joined(vectors, self.patch_size, (self.shape[0], size, size))
        grown = F.interpolate(image, size=(full, full), mode="bicubic", align_corners=False)
        return cut(_area(grown, self.sides[scale + 1] * self.patch_size), self.patch_size)

    # -------------------------------------------------------------------- drawing

    def first(self, batch: int) -> tuple[Tensor, int]:
        return self._placed(self.start.expand(batch, -1, -1), 0), 0

    def after(self, step: int, ids: Tensor, memory: int) -> tuple[Tensor, int]:
        n_before = memory + ids.shape[1]
        return self._placed(self.word(self._told_by(ids, step)), n_before), n_before

    def draw(
        self,
        z: Any,
        begin: int,
        sampler: Sampler,
        guidance: float | None,
        fixed: tuple[Tensor, Tensor] | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        state = self.head.alone(self.head_position(z, begin), begin)
        return self.drawn_group(state, sampler, guidance, fixed, generator)


def _area(images: Tensor, size: int) -> Tensor:
    """Return the means of images over so many cells along each side."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="area")


@dataclass(kw_only=True, eq=False, repr=False)
class FlowAR(FlowModel):
    """Images drawn scale by scale, as VAR does, of pixels and without a tokenizer.

    A scale is the image at a smaller size, each pixel the mean of an area, cut into patches: one
    for all of it, then twice as many along a side, and so on. Blocks read the scale before, grown
    to the size of the next, and say of each place what is wanted there. From noise, a second stack
    of blocks then draws all patches of the scale together, its norms and gates set place by place.

    Parameters
    ----------
    patch_size : int, default 4
        Pixels along the side of a patch, at every scale; divides the side of the images. Images of
        28 pixels have scales of 1, 2, 4 and 7 patches a side.
    flow_layers : int, default 2
        Blocks that draw.

    Notes
    -----
    In the paper the scales are means of the codes of an autoencoder, 16 numbers a place. Means of
    patches of pixels would be 16 nearly equal numbers, and the first scale no more than a grey:
    here it is rather a picture of 4 x 4 pixels, with as many numbers.

    References
    ----------
    Ren et al., "FlowAR: scale-wise autoregressive image generation meets flow matching",
    arXiv:2412.15205.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from tsar.image import FlowAR
    >>> digits = load_digits()
    >>> model = FlowAR(d_model=16, n_layers=1, d_ff=32, max_steps=20, random_state=0, device="cpu")
    >>> model.fit(digits.images / 16, digits.target).sample(label=[3, 7], random_state=0).shape
    (2, 8, 8)
    """

    patch_size: Annotated[int, Interval(1)] = 4
    flow_layers: Positive = 2

    def _prepare(self, images: Tensor, labels: Tensor | None, go_on: bool) -> None:
        patches_along(self.name, self.patch_size, self.image_shape_)

    def _make_network(self) -> FlowPyramidNetwork:
        d_model, size = int(self.d_model), int(self.patch_size)
        # Again, since a saved model may have been damaged.
        sides = doubling(patches_along(self.name, size, self.image_shape_))
        levels = pyramid_levels(sides)
        decoder, labels = self._make_decoder("attention", levels, causal=False)
        blocks = self._make_blocks("attention", levels, int(self.flow_layers), causal=False)
        n_values = self.image_shape_[0] * size * size
        head = JointFlowHead(blocks, d_model, n_values, context="none")
        return FlowPyramidNetwork(decoder, labels, head, sides, d_model, size, self.image_shape_)
