"""Images cell by cell, each cell of patches drawn along a flow given those before it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from tsar.core.conditioning import LabelEmbedding
from tsar.core.heads import JointFlowHead
from tsar.core.sampling import Sampler
from tsar.exceptions import DataError
from tsar.image.flow_model import FlowModel, FlowNetwork
from tsar.image.pixels import cut, joined, patches_along
from tsar.params.constraints import Interval

__all__ = ["BlockFlow", "CellNetwork", "in_cells"]


def in_cells(side: int, cell_size: int) -> Tensor:
    """Return the places of a square map cell by cell, row by row in each, of shape (side ** 2,)."""
    places = torch.arange(side * side, device="cpu")
    n_cells = side // cell_size
    grid = places.view(n_cells, cell_size, n_cells, cell_size)
    return grid.transpose(1, 2).flatten()


class CellNetwork(FlowNetwork):
    """Patches of images in cells, which one stack of blocks both reads and draws.

    Parameters
    ----------
    head : JointFlowHead
        Its groups are the cells.
    labels : LabelEmbedding
    order : int64 Tensor of shape (L,)
        The places of the image, one cell after the other.
    patch_size : int
    shape : tuple of int
        Channels, height and width of the images.
    """

    order: Tensor

    def __init__(
        self,
        head: JointFlowHead,
        labels: LabelEmbedding,
        order: Tensor,
        patch_size: int,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.head, self.labels = head, labels
        self.register_buffer("order", order, persistent=False)
        self.n_tokens = len(order)
        self.patch_size, self.shape = patch_size, shape

    @property
    def decoder(self) -> Any:
        """What reads cells, and says what the next is drawn from: the head itself."""
        return self.head

    def in_order(self, values: Tensor) -> Tensor:
        return values[:, self.order]

    def in_places(self, values: Tensor) -> Tensor:
        return values[:, self.order.argsort()]

    def vectors(self, images: Tensor) -> Tensor:
        return cut(images, self.patch_size)

    def images(self, vectors: Tensor) -> Tensor:
        return joined(vectors, self.patch_size, self.shape)

    def errors(self, vectors: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        errors = self.head.loss(self.labels(labels), self.in_order(vectors), generator)
        return self.in_places(errors)

    # -------------------------------------------------------------------- drawing

    def first(self, batch: int) -> tuple[Tensor, None]:
        return self.head.enter.weight.new_zeros(batch, 0, self.head.n_values), None

    def after(self, step: int, ids: Tensor, memory: None) -> tuple[Tensor, None]:
        return ids, None

    def draw(
        self,
        z: Any,
        begin: int,
        sampler: Sampler,
        guidance: float | None,
        fixed: tuple[Tensor, Tensor] | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        return self.drawn_group(z, sampler, guidance, fixed, generator)


@dataclass(kw_only=True, eq=False, repr=False)
class BlockFlow(FlowModel):
    """Images drawn cell by cell, all patches of a cell together along a flow, without a tokenizer.

    Cells come row by row. One stack of blocks says the velocity of a cell, given those that are
    drawn already, whose keys and values stay. With cells of one patch it draws patch by patch; with
    one cell that is the whole image it is a plain flow.

    Parameters
    ----------
    context : {"noisy", "clean"}, default "noisy"
        What a cell sees of those before it in training: them with as much noise as they have in the
        same step, each of its own (xAR), so that the model is used to faults when it draws; or them
        without noise, for which each image is read twice at once (ACDiT). The models are the same.
    patch_size : int, default 7
        Pixels along the side of a patch; divides that of the images.
    cell_size : int, default 2
        Patches along the side of a cell; divides those of the image.

    Notes
    -----
    Of xAR the times of a step are those of a logistic normal distribution in the published code;
    here they are even, so that cells without noise, which is what a drawn one sees, are not rare.
    Of ACDiT the cells without noise are told neither time nor label; here they are told both, as in
    xAR.

    References
    ----------
    Ren et al., "Beyond next-token: next-X prediction for autoregressive visual generation",
    arXiv:2502.20388 (xAR); Hu et al., "ACDiT: interpolating autoregressive conditional modeling and
    diffusion transformer", arXiv:2412.07720.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from tsar.image import BlockFlow
    >>> digits = load_digits()
    >>> model = BlockFlow(patch_size=2, d_model=16, n_layers=1, d_ff=32, max_steps=20,
    ...                   random_state=0, device="cpu")
    >>> model.fit(digits.images / 16, digits.target).sample(label=[3, 7], random_state=0).shape
    (2, 8, 8)
    """

    context: Literal["noisy", "clean"] = "noisy"
    patch_size: Annotated[int, Interval(1)] = 7
    cell_size: Annotated[int, Interval(1)] = 2

    def _prepare(self, images: Tensor, labels: Tensor | None, go_on: bool) -> None:
        self._side()

    def _side(self) -> int:
        """Return how many patches there are along a side, which cells fill."""
        n_patches = patches_along(self.name, self.patch_size, self.image_shape_)
        if n_patches % self.cell_size:
            raise DataError(
                f"{self.name}: cell_size={self.cell_size} must divide the patches along the side "
                f"of the images, {n_patches} of {self.patch_size} pixels; choose another, or "
                f"another patch_size"
            )
        return n_patches

    def _make_network(self) -> CellNetwork:
        d_model, size = int(self.d_model), int(self.patch_size)
        # Again, since a saved model may have been damaged.
        order = in_cells(self._side(), int(self.cell_size))
        levels = torch.arange(len(order), device="cpu") // int(self.cell_size) ** 2
        blocks, labels = self._make_decoder("attention", levels, causal=False)
        n_values = self.image_shape_[0] * size * size
        head = JointFlowHead(blocks, d_model, n_values, context=self.context)
        return CellNetwork(head, labels, order, size, self.image_shape_)
