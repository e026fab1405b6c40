"""Images as tokens: exact pixels, the codes of cells, or those of a pyramid of cells."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.quantization import MultiScaleQuantizer, VectorQuantizer
from tsar.exceptions import DataError, ParameterError
from tsar.image.base import AT_ONCE, ImageEstimator
from tsar.image.pixels import CELL, as_array, as_labels
from tsar.params.constraints import Interval
from tsar.training import Objective

__all__ = ["ImageTokenizer", "MultiScaleTokenizer", "PixelTokenizer", "VQTokenizer"]

# Share of the steps in which unused codes begin anew.
RESTARTS = 0.7


class PixelTokenizer:
    """Each pixel is a token: nothing is lost, and the likelihood of an image is exact.

    Parameters
    ----------
    n_codes : int
        Levels of grey from black to white, both included.
    shape : tuple of int
        Channels, height and width.
    """

    def __init__(self, n_codes: int, shape: tuple[int, int, int]) -> None:
        self.n_codes, self.shape = n_codes, shape

    def ids(self, images: Tensor) -> Tensor:
        """Return the levels (B, H * W * C) of images, row by row."""
        scaled = (images + 1) / 2 * (self.n_codes - 1)
        ids = scaled.round()
        if (scaled - ids).abs().max() > 1e-3:
            raise DataError(
                f"tokenizer='pixels' with n_levels={self.n_codes} needs images of so many levels "
                f"between black and white; round them, or give another n_levels"
            )
        return ids.long().permute(0, 2, 3, 1).flatten(1)

    def images(self, ids: Tensor) -> Tensor:
        """Return the images of levels (B, H * W * C)."""
        channels, height, width = self.shape
        levels = ids.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
        return levels.float() / (self.n_codes - 1) * 2 - 1


class _Residual(nn.Module):
    """``x + conv(silu(conv(silu(x))))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class AutoEncoder(nn.Module):
    """Two halvings of the sides to a map of codes, and back.

    Parameters
    ----------
    channels, width : int
    quantizer : VectorQuantizer
    """

    def __init__(self, channels: int, width: int, quantizer: VectorQuantizer) -> None:
        super().__init__()
        code_width = quantizer.codes.shape[1]
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width // 2, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width // 2, width, 4, stride=2, padding=1),
            _Residual(width),
            nn.SiLU(),
            nn.Conv2d(width, code_width, 1),
        )
        self.quantizer = quantizer
        self.decoder = nn.Sequential(
            nn.Conv2d(code_width, width, 3, padding=1),
            _Residual(width),
            nn.SiLU(),
            nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(width // 2, channels, 4, stride=2, padding=1),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what comes back of images (B, C, H, W), and the loss of the codes."""
        quantised, _, loss = self.quantizer(self.encoder(images))
        return self.decoder(quantised), loss

    def ids(self, images: Tensor) -> Tensor:
        """Return the tokens (B, L) of images."""
        _, ids, _ = self.quantizer(self.encoder(images))
        return ids


class Reconstruction(Objective):
    """Squared and absolute error of what comes back, and the loss of the codes."""

    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Any:
        """Return the mean errors of the images of a batch, weighted by how many there are."""
        images = batch["images"]
        back, codes = network(images)
        count = torch.tensor(len(images), device=images.device)
        error = F.mse_loss(back, images) + F.l1_loss(back, images)
        return {"loss": (error * count, count), "codes": (codes * count, count)}


@dataclass(kw_only=True, eq=False, repr=False)
class ImageTokenizer(ImageEstimator):
    """An auto-encoder whose middle is a map of codes, a quarter as wide and high.

    Parameters
    ----------
    n_codes : int, default 64
        Different tokens.
    code_width : int, default 8
        Width of a code.
    width : int, default 64
        Channels of the convolutions.

    Attributes
    ----------
    code_usage_ : float array of shape (n_codes,)
        How often each code is taken by the fitted images, as a share.
    """

    n_codes: Annotated[int, Interval(2)] = 64
    code_width: Annotated[int, Interval(1)] = 8
    width: Annotated[int, Interval(2)] = 64

    @abstractmethod
    def _make_quantizer(self) -> VectorQuantizer:
        """Build the quantizer for the side of the map."""

    @property
    def _side(self) -> int:
        return int(self.image_shape_[1]) // CELL

    @property
    def _restart_steps(self) -> int:
        return int(RESTARTS * self._planned_steps)

    def _make_network(self) -> AutoEncoder:
        return AutoEncoder(self.image_shape_[0], int(self.width), self._make_quantizer())

    def _objective(self) -> Objective:
        return Reconstruction()

    def _fit(self, images: Any, labels: Any, go_on: bool) -> Self:
        # What images show is no matter of how they are written, but a fault is one.
        if labels is not None:
            as_labels(self.name, labels, len(images))
        super()._fit(images, None, go_on)
        counts = np.bincount(self.encode(images).ravel(), minlength=self.n_codes)
        self.code_usage_ = counts / counts.sum()
        return self

    # ------------------------------------------------------------------- codes

    @property
    def _network(self) -> Any:
        return self.module_

    def ids(self, images: Tensor) -> Tensor:
        """Return the tokens (B, L) of images (B, C, H, W) in [-1, 1]."""
        with torch.no_grad():
            ids: Tensor = self._network.ids(images)
        return ids

    def images(self, ids: Tensor) -> Tensor:
        """Return the images (B, C, H, W) of tokens (B, L)."""
        with torch.no_grad():
            images: Tensor = self._network.decoder(self._map(ids))
        return images

    @abstractmethod
    def _map(self, ids: Tensor) -> Tensor:
        """Return the map (B, E, H / 4, W / 4) of tokens (B, L)."""

    def encode(self, images: Any) -> np.ndarray:
        """Return the tokens of images, int64 of shape (n, L)."""
        return np.concatenate([self.ids(part).cpu().numpy() for part in self._parts(images)])

    def decode(self, ids: Any) -> np.ndarray:
        """Return the images of tokens (n, L), float32 in [0, 1]."""
        self.check_fitted()
        held = torch.as_tensor(np.asarray(ids), dtype=torch.int64, device=self.device_)
        if (
            held.ndim != 2
            or held.numel()
            and not 0 <= int(held.min()) <= int(held.max()) < int(self.n_codes)
        ):
            raise DataError(
                f"{self.name}: tokens must be integers in [0, {self.n_codes}) of the shape (n, L), "
                f"got the shape {tuple(held.shape)}; pass what encode returned"
            )
        return as_array(self.images(held), channels=self.image_shape_[0] > 1)

    def reconstruct(self, images: Any) -> np.ndarray:
        """Return what comes back of images, float32 in [0, 1]."""
        return self.decode(self.encode(images))

    def score(self, images: Any, y: None = None) -> float:
        """Return minus the mean squared error of what comes back; higher is better."""
        errors = [
            (self.images(self.ids(part)) - part).square().flatten(1).mean(dim=1).cpu()
            for part in self._parts(images)
        ]
        return -float(torch.cat(errors).double().mean()) / 4

    def _parts(self, images: Any) -> Sequence[Tensor]:
        return self._read(images).split(AT_ONCE)

    def agrees_with(self, other: "ImageTokenizer") -> bool:
        """Return whether another fitted one has the same weights, and so makes the same tokens."""
        own, others = (held.module_.state_dict() for held in (self, other))
        return own.keys() == others.keys() and all(
            torch.equal(weight.cpu(), others[name].cpu()) for name, weight in own.items()
        )

    # ---------------------------------------------------------------- persistence

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record, tensors = super().learned_state()
        usage = torch.from_numpy(np.asarray(self.code_usage_, dtype=np.float64))
        return record, {**tensors, "code_usage": usage}

    def restore_learned_state(
        self, record: dict[str, Any], tensors: dict[str, Tensor], members: Any
    ) -> None:
        super().restore_learned_state(record, tensors, members)
        self.code_usage_ = tensors["code_usage"].numpy()


@dataclass(kw_only=True, eq=False, repr=False)
class VQTokenizer(ImageTokenizer):
    """An image as a map of codes, each of a cell of 4 x 4 pixels.

    References
    ----------
    van den Oord et al., "Neural discrete representation learning", NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from tsar.image import VQTokenizer
    >>> images = load_digits().images / 16
    >>> tokenizer = VQTokenizer(n_codes=32, width=16, max_steps=20, random_state=0).fit(images)
    >>> tokenizer.encode(images[:3]).shape
    (3, 4)
    """

    def _make_quantizer(self) -> VectorQuantizer:
        return VectorQuantizer(
            int(self.n_codes), int(self.code_width), restart_steps=self._restart_steps
        )

    def _map(self, ids: Tensor) -> Tensor:
        codes = self._network.quantizer.look_up(ids.unflatten(1, (self._side, self._side)))
        return codes.permute(0, 3, 1, 2)


@dataclass(kw_only=True, eq=False, repr=False)
class MultiScaleTokenizer(ImageTokenizer):
    """An image as maps of codes from one token for all of it to one for each cell.

    Parameters
    ----------
    scales : sequence of int or None, default None
        Sides of the maps, growing, the last one a quarter of that of the images. None takes
        1, 2, 3, 5, 7 for 28 pixels, and about as even steps for others.
    residual : bool, default True
        Whether a scale says what the coarser ones left over (VAR), or all of it anew (FlexVAR).

    References
    ----------
    Tian et al., "Visual autoregressive modeling", NeurIPS 2024, section 3.2; Jiao et al.,
    "FlexVAR", arXiv:2502.20313.
    """

    scales: Sequence[int] | None = None
    residual: bool = True

    def _make_quantizer(self) -> MultiScaleQuantizer:
        return MultiScaleQuantizer(
            int(self.n_codes),
            int(self.code_width),
            self.sides(),
            residual=self.residual,
            restart_steps=self._restart_steps,
        )

    def sides(self) -> tuple[int, ...]:
        """Return the sides of the maps.

        Raises
        ------
        ParameterError
            The scales do not end with the cells of the images.
        """
        side = self._side
        if self.scales is None:
            between = np.unique(np.round(np.geomspace(1, side, min(5, side))).astype(int))
            return (1, 2, 3, 5, 7) if side == 7 else tuple(between.tolist())
        sides = tuple(int(one) for one in self.scales)
        if not sides or sides[-1] != side or list(sides) != sorted(set(sides)) or sides[0] < 1:
            raise ParameterError(
                f"{self.name}: scales must grow and end with {side}, the cells along the side of "
                f"the images, got {list(sides)}"
            )
        return sides

    def _map(self, ids: Tensor) -> Tensor:
        return self._network.quantizer.quantised(ids)
