"""Vectors as the nearest of a table: one map of them, or one at each of several scales.

Dimension letters: B batch, E width of a code, V codes, K scales, L tokens of all scales.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.random import Random
from tsar.exceptions import ParameterError

__all__ = ["MultiScaleQuantizer", "VectorQuantizer"]

# What a running count of how often codes are taken keeps at each batch, and below which count a
# code is moved to where vectors are.
KEPT, UNUSED = 0.9, 0.5
# Weight of the term that keeps vectors near their codes.
COMMITMENT = 0.25


class VectorQuantizer(Random):
    """A table of codes, of which each vector is replaced by the nearest.

    The gradient passes as if nothing had been replaced. In the first steps of a training, codes
    that are hardly taken are moved to vectors of the batch.

    Parameters
    ----------
    n_codes : int
        V.
    width : int
        E.
    restart_steps : int, default 0
        For so many steps.

    References
    ----------
    van den Oord et al., "Neural discrete representation learning", NeurIPS 2017, section 3.
    """

    no_decay = ("codes",)

    usage: Tensor
    steps: Tensor

    def __init__(self, n_codes: int, width: int, *, restart_steps: int = 0) -> None:
        super().__init__()
        self.restart_steps = restart_steps
        self.codes = nn.Parameter(torch.randn(n_codes, width))
        self.register_buffer("usage", torch.ones(n_codes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """Return the places (...) in the table of the codes nearest to vectors (..., E)."""
        flat = z.reshape(-1, z.shape[-1])
        # Of the squared distance, what does not depend on the code is left out.
        distance = self.codes.square().sum(dim=1) - 2 * flat @ self.codes.T
        return distance.argmin(dim=1).view(z.shape[:-1])

    def look_up(self, ids: Tensor) -> Tensor:
        """Return the codes (..., E) at places (...)."""
        return F.embedding(ids, self.codes)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise a map of vectors.

        Parameters
        ----------
        z : Tensor of shape (B, E, H, W)

        Returns
        -------
        quantised : Tensor of shape (B, E, H, W)
        ids : int64 Tensor of shape (B, H * W)
        loss : Tensor of shape ()
            Of the codes and of what is quantised: of the distance between them.
        """
        vectors = z.permute(0, 2, 3, 1)
        ids = self.nearest(vectors.detach())
        self._count(vectors, ids)
        codes_map = self.look_up(ids).permute(0, 3, 1, 2)
        return straight_through(z, codes_map), ids.flatten(1), distance_loss(z, codes_map)

    @torch.no_grad()
    def _count(self, vectors: Tensor, ids: Tensor) -> None:
        """Count which codes are taken, and move those that are not."""
        if not self.training:
            return
        flat = vectors.reshape(-1, vectors.shape[-1])
        counts = torch.bincount(ids.flatten(), minlength=len(self.codes))
        self.usage.mul_(KEPT).add_(counts, alpha=1 - KEPT)
        self.steps += 1
        unused = (self.usage < UNUSED).nonzero()[:, 0]
        if len(unused) and self.steps <= self.restart_steps:
            places = torch.randint(
                len(flat), (len(unused),), generator=self.generator, device=flat.device
            )
            self.codes[unused] = flat[places]
            self.usage[unused] = 1.0


def straight_through(z: Tensor, quantised: Tensor) -> Tensor:
    """Return what is quantised, with the gradient of what was."""
    return z + (quantised - z).detach()


def distance_loss(z: Tensor, quantised: Tensor) -> Tensor:
    """Return the error that moves the codes, and a quarter of it that moves the vectors."""
    moves_codes = F.mse_loss(quantised, z.detach())
    return moves_codes + COMMITMENT * F.mse_loss(z, quantised.detach())


class MultiScaleQuantizer(VectorQuantizer):
    """One table for a map at several scales, each of which says what the coarser ones left over.

    Encoding, training and sampling go by the same three steps: :meth:`shrunk` what is left to a
    scale, take the nearest codes, and :meth:`added` to what there is so far.

    Parameters
    ----------
    n_codes, width, restart_steps : int
        See :class:`VectorQuantizer`.
    scales : sequence of int
        Sides of the maps, growing; the last one is that of the map itself.
    residual : bool, default True
        Whether a scale says what is left; otherwise each says all of it anew.

    References
    ----------
    Tian et al., "Visual autoregressive modeling", NeurIPS 2024, algorithms 1 and 2; Jiao et al.,
    "FlexVAR", arXiv:2502.20313 (without residuals).
    """

    def __init__(
        self,
        n_codes: int,
        width: int,
        scales: Sequence[int],
        *,
        residual: bool = True,
        restart_steps: int = 0,
    ) -> None:
        super().__init__(n_codes, width, restart_steps=restart_steps)
        ordered = list(scales)
        if not ordered or ordered[0] < 1 or ordered != sorted(set(ordered)):
            raise ParameterError(
                f"MultiScaleQuantizer: scales must be growing sides from 1 on, got {ordered}"
            )
        self.scales = tuple(ordered)
        self.residual = residual
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in ordered)

    @property
    def n_tokens(self) -> int:
        """L, the tokens of all scales."""
        return sum(side * side for side in self.scales)

    def shrunk(self, x: Tensor, scale: int) -> Tensor:
        """Return the means (B, E, n, n) of a map over the cells of a scale, by its number."""
        side = self.scales[scale]
        return x if x.shape[-1] == side else F.interpolate(x, size=(side, side), mode="area")

    def added(self, so_far: Tensor, codes_map: Tensor, scale: int) -> Tensor:
        """Return the map (B, E, N, N) once the codes (B, E, n, n) of a scale are there."""
        side = so_far.shape[-1]
        grown = codes_map
        if codes_map.shape[-1] != side:
            grown = F.interpolate(codes_map, size=(side, side), mode="bicubic", align_corners=False)
        grown = 0.5 * grown + 0.5 * self.smooth[scale](grown)
        return so_far + grown if self.residual else grown

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise a map, scale by scale.

        Parameters
        ----------
        z : Tensor of shape (B, E, N, N)

        Returns
        -------
        quantised : Tensor of shape (B, E, N, N)
        ids : int64 Tensor of shape (B, L)
        loss : Tensor of shape ()
            The mean over the scales of the loss of what there is after each.
        """
        rest, so_far = z.detach(), torch.zeros_like(z)
        ids, losses, seen = [], [], []
        for scale in range(len(self.scales)):
            vectors = self.shrunk(rest, scale).permute(0, 2, 3, 1)
            taken = self.nearest(vectors)
            so_far = self.added(so_far, self.look_up(taken).permute(0, 3, 1, 2), scale)
            if self.residual:
                rest = z.detach() - so_far.detach()
            ids.append(taken.flatten(1))
            seen.append(vectors.flatten(0, 2))
            losses.append(distance_loss(z, so_far))
        self._count(torch.cat(seen), torch.cat([one.flatten() for one in ids]))
        return straight_through(z, so_far), torch.cat(ids, dim=1), torch.stack(losses).mean()

    def split(self, ids: Tensor) -> list[Tensor]:
        """Cut tokens (B, L) into those of each scale, (B, n, n)."""
        parts = ids.split([side * side for side in self.scales], dim=1)
        return [
            part.unflatten(1, (side, side)) for part, side in zip(parts, self.scales, strict=True)
        ]

    def quantised(self, ids: Tensor) -> Tensor:
        """Return the map (B, E, N, N) of the tokens (B, L) of all scales."""
        *_, last = self.pyramid(ids)
        return last

    def pyramid(self, ids: Tensor) -> list[Tensor]:
        """Return what there is after each scale, K maps (B, E, N, N)."""
        side = self.scales[-1]
        so_far = self.codes.new_zeros(len(ids), self.codes.shape[1], side, side)
        maps = []
        for scale, part in enumerate(self.split(ids)):
            so_far = self.added(so_far, self.look_up(part).permute(0, 3, 1, 2), scale)
            maps.append(so_far)
        return maps

    def inputs(self, ids: Tensor) -> Tensor:
        """Return what a model of scales is given at all but the first, (B, L - n_1 ** 2, E)."""
        return torch.cat(
            [
                self.shrunk(so_far, scale).flatten(2).mT
                for scale, so_far in enumerate(self.pyramid(ids)[:-1], 1)
            ],
            dim=1,
        )
