"""Images as continuous patches, drawn in a random order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tsar.core.conditioned import ConditionedDecoder
from tsar.core.conditioning import LabelEmbedding
from tsar.core.heads import DiffusionHead, FlowHead, SquaredErrorHead
from tsar.core.linear import Linear
from tsar.core.position import LearnedPosition
from tsar.core.sampling import Guidance
from tsar.core.unmasking import cosine_counts, unmask_vectors
from tsar.image.base import AT_ONCE, DrawingEstimator, ImageBatch
from tsar.image.pixels import as_array, cut, joined, patches_along
from tsar.params.constraints import Interval, check_count, check_value
from tsar.training import Objective, make_generator

__all__ = ["MAR", "MaskedPatchNetwork"]

HEADS: dict[str, type[nn.Module]] = {
    "flow": FlowHead,
    "diffusion": DiffusionHead,
    "squared_error": SquaredErrorHead,
}
# The share of masked patches of a step: normal numbers about 1, those in [.7, 1].
MEAN_MASKED, SPREAD, LEAST_MASKED = 1.0, 0.25, 0.7


class MaskedPatchNetwork(nn.Module):
    """Features of all patches from those that are not masked, both ways, and a head for vectors.

    Parameters
    ----------
    decoder : ConditionedDecoder
        Of one level, so that all patches see each other.
    labels : LabelEmbedding
    d_model, n_values : int
        Width of the features, and numbers of a patch.
    head : str
        One of ``HEADS``.
    """

    no_decay = ("mask",)

    def __init__(
        self,
        decoder: ConditionedDecoder,
        labels: LabelEmbedding,
        d_model: int,
        n_values: int,
        head: str,
    ) -> None:
        super().__init__()
        n_patches = len(decoder.levels)
        self.decoder, self.labels = decoder, labels
        self.enter = Linear(n_values, d_model)
        self.mask = nn.Parameter(0.02 * torch.randn(d_model))
        self.position = LearnedPosition(n_patches, d_model)
        self.head_position = LearnedPosition(n_patches, d_model)
        self.head = HEADS[head](d_model, n_values)

    def forward(self, patches: Tensor, masked: Tensor, labels: Tensor) -> Tensor:
        """Return features (B, L, D).

        Parameters
        ----------
        patches : Tensor of shape (B, L, E)
        masked : bool Tensor of shape (B, L)
            Of these nothing is seen.
        labels : int64 Tensor of shape (B,)
        """
        entered = torch.where(masked[..., None], self.mask, self.enter(patches))
        features = self.decoder(self.position(entered), self.labels(labels))
        return self.head_position(features)


class MaskedPatches(Objective):
    """The error of the head at masked patches."""

    def __init__(self, size: int) -> None:
        self.size = size

    def loss(self, network: nn.Module, batch: ImageBatch, generator: torch.Generator) -> Any:
        """Return the sum of the errors of the masked patches of a batch, and how many there are."""
        net: Any = network
        patches = cut(batch["images"], self.size)
        n_images, n_patches, _ = patches.shape
        labels = batch.get("labels")
        if labels is None:
            labels = torch.full((n_images,), net.labels.null, device=patches.device)
        n_masked = max(1, round(_masked_share(generator) * n_patches))
        # One number for the batch, places of its own for each image.
        keys = torch.rand(n_images, n_patches, generator=generator, device=patches.device)
        masked = keys.argsort(dim=1).argsort(dim=1) < n_masked
        features = net(patches, masked, labels)
        errors = net.head.loss(features[masked], patches[masked], generator)
        return {"loss": (errors.sum(), torch.tensor(len(errors), device=errors.device))}


def _masked_share(generator: torch.Generator) -> float:
    """Draw the share of masked patches."""
    while True:
        drawn = torch.randn((), generator=generator, device=generator.device)
        share = MEAN_MASKED + SPREAD * float(drawn)
        if LEAST_MASKED <= share <= 1:
            return share


@dataclass(kw_only=True, eq=False, repr=False)
class MAR(DrawingEstimator):
    """Images drawn patch by patch in a random order, several in a pass, without a tokenizer.

    Blocks that see both ways say of each masked patch what is wanted, and a small network draws its
    pixels from noise.

    Parameters
    ----------
    patch_size : int, default 7
        Pixels along the side of a patch; divides that of the images.
    head : {"flow", "diffusion", "squared_error"}, default "flow"
        How pixels are drawn: along a velocity, or by taking noise off step by step. The mean of
        what is likely, which the squared error learns, is for comparison: it blurs.

    References
    ----------
    Li et al., "Autoregressive image generation without vector quantization", NeurIPS 2024; Liu et
    al., "Flow straight and fast", ICLR 2023 (the flow).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from tsar.image import MAR
    >>> digits = load_digits()
    >>> model = MAR(patch_size=4, d_model=16, n_layers=1, d_ff=32, max_steps=20, random_state=0,
    ...             device="cpu")
    >>> model.fit(digits.images / 16, digits.target).sample(label=[3, 7], random_state=0).shape
    (2, 8, 8)
    """

    patch_size: Annotated[int, Interval(1)] = 7
    head: Literal["flow", "diffusion", "squared_error"] = "flow"

    def _prepare(self, images: Tensor, labels: Tensor | None, go_on: bool) -> None:
        patches_along(self.name, self.patch_size, self.image_shape_)

    def _make_network(self) -> MaskedPatchNetwork:
        d_model, size = int(self.d_model), int(self.patch_size)
        channels, height, width = self.image_shape_
        n_patches = (height // size) * (width // size)
        levels = torch.zeros(n_patches, dtype=torch.int64)
        decoder, labels = self._make_decoder("attention", levels, causal=False)
        return MaskedPatchNetwork(decoder, labels, d_model, channels * size * size, self.head)

    def _objective(self) -> Objective:
        return MaskedPatches(int(self.patch_size))

    # ------------------------------------------------------------------- drawing

    def sample(
        self,
        n: int | None = None,
        label: Any = None,
        *,
        guidance: float = 0.0,
        temperature: float = 1.0,
        n_passes: int | None = None,
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
            How much farther than the label asks for, growing over the passes; 0 is the model
            itself.
        temperature : float, default 1.0
            Of the noise; lower ones give likelier images.
        n_passes : int or None, default None
            Of the network, over which the patches are drawn: few at first, many at last. None
            takes one for each patch.
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
        self.check_fitted()
        numbers = self._wanted(n, label)
        size = int(self.as_fitted.patch_size)
        channels, height, width = self.image_shape_
        n_patches, n_values = (height // size) * (width // size), channels * size * size
        nothing = torch.zeros(len(numbers), n_patches, n_values, device=self.device_)
        masked = torch.ones(len(numbers), n_patches, dtype=torch.bool, device=self.device_)
        self._check_guidance(guidance)
        generator = make_generator(self._seed_of(random_state))
        drawn = self._drawn(
            nothing, masked, numbers, guidance, temperature, generator, n_passes=n_passes
        )
        return as_array(joined(drawn, size, self.image_shape_), channels=channels > 1)

    def _repainted(
        self,
        images: Tensor,
        opened: Tensor,
        numbers: Tensor,
        guidance: float,
        temperature: float,
        generator: torch.Generator,
    ) -> Tensor:
        size = int(self.as_fitted.patch_size)
        masked = cut(opened[:, None].float(), size).amax(dim=2) > 0
        patches = cut(images, size)
        drawn = self._drawn(patches, masked, numbers, guidance, temperature, generator)
        return joined(drawn, size, self.image_shape_)

    def _drawn(
        self,
        patches: Tensor,
        masked: Tensor,
        numbers: Tensor,
        guidance: float,
        temperature: float,
        generator: torch.Generator,
        n_passes: int | None = None,
    ) -> Tensor:
        """Draw the masked of patches (B, L, E)."""
        check_value(self.name, "temperature", temperature, Annotated[float, Interval(0)])
        n_patches = patches.shape[1]
        passes = n_patches if n_passes is None else check_count(self.name, "n_passes", n_passes)
        with torch.inference_mode():
            parts = zip(
                patches.split(AT_ONCE), masked.split(AT_ONCE), numbers.split(AT_ONCE), strict=True
            )
            return torch.cat(
                [
                    self._drawn_part(*part, guidance, temperature, passes, generator)
                    for part in parts
                ]
            )

    def _drawn_part(
        self,
        patches: Tensor,
        masked: Tensor,
        numbers: Tensor,
        guidance: float,
        temperature: float,
        passes: int,
        generator: torch.Generator,
    ) -> Tensor:
        network: Any = self.module_
        how, n_masked = Guidance(guidance, "linear"), int(masked.sum(dim=1).max())
        none = torch.full_like(numbers, network.labels.null)

        def features(x: Tensor, hidden: Tensor) -> Tensor:
            told = network(x, hidden, numbers)
            return torch.stack([told, network(x, hidden, none)] if guidance else [told])

        def draw(z: Tensor, n_drawn: int) -> Tensor:
            vectors: Tensor = network.head.sample(
                z.flatten(0, 1),
                temperature=temperature,
                guidance=how.weight(n_drawn / max(n_masked, 1)) if guidance else None,
                generator=generator,
            )
            return vectors

        reveal = cosine_counts(n_masked, passes)
        steps: Iterator[Tensor] = unmask_vectors(
            features, patches, masked, draw, generator=generator, reveal=reveal
        )
        *_, last = [patches, *steps]
        return last.clamp(-1, 1)

    def score(self, images: Any, labels: Any = None) -> float:
        """Return minus the mean error of masked patches, with the same masks and noise every time.

        Higher is better; there is no likelihood.
        """
        self.check_fitted()
        objective = MaskedPatches(int(self.as_fitted.patch_size))
        return -self._mean_error(objective, images, labels)
