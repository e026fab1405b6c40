"""Groups of variates that move together, within which patches of the same time are mixed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from tsar.core.block import Block
from tsar.core.mixers import MIXERS, Mixer
from tsar.data.windows import SeriesTensors
from tsar.params.constraints import Interval, check_choice, check_fields
from tsar.params.objects import Storable

__all__ = ["VariateGroups"]


@dataclass(frozen=True, kw_only=True)
class VariateGroups(Storable):
    """Mix patches along time by a mixer, then over the variates of a group by attention.

    The groups are found in ``fit``: variates are joined, those of the largest mean absolute
    correlation on the training rows first, for as long as it is at least ``correlation``. They
    stay with the model, which forecasts no other variates than those it was fitted on.

    Parameters
    ----------
    mixer : str, default "residual_attention"
        Along time, one of ``tsar.core.mixers.MIXERS``.
    correlation : float, default 0.6
        Least mean absolute correlation of two parts that are joined; 0 makes one group of all
        variates.

    References
    ----------
    Liu et al., "DGCformer: deep graph clustering transformer for multivariate time series
    forecasting", arXiv:2405.08440. There, a network that is made anew for every batch chooses the
    groups.
    """

    kind: ClassVar[str] = "mixer"

    mixer: str = "residual_attention"
    correlation: Annotated[float, Interval(0, 1)] = 0.6

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice("VariateGroups", "mixer", self.mixer, MIXERS)

    @classmethod
    def known_classes(cls) -> Mapping[str, Any]:
        return {"VariateGroups": VariateGroups}


class GroupedBlock(Block):
    """A block that mixes the variates of a group at every token as well.

    What comes out for the tokens of each variate goes through the norms and the map of the block
    once more, after another mixer over the variates.

    Parameters
    ----------
    mixer, mlp, **options
        As :class:`~tsar.core.block.Block` takes them; tokens are (B * C, P, D).
    across : Mixer
        Over variates; honours masks of pairs.
    n_variates : int
        C.

    Attributes
    ----------
    groups : int64 Tensor of shape (C,)
        Variates with the same number see each other; at first each is a group by itself.
    """

    groups: Tensor

    def __init__(
        self, mixer: Mixer, mlp: Any, *, across: Mixer, n_variates: int, **options: Any
    ) -> None:
        super().__init__(mixer, mlp, **options)
        self.across = across
        self.register_buffer("groups", torch.arange(n_variates))

    def after_mixer(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Do the rest of the block, and what mixes variates."""
        x = super().after_mixer(x, mixed)
        n_variates, n_tokens = len(self.groups), x.shape[1]
        x = x.unflatten(0, (-1, n_variates)).transpose(1, 2).flatten(0, 1)  # (B * P, C, D)
        together = self.groups[:, None] == self.groups
        x = super().after_mixer(x, self.across(self.before_mixer(x), mask=together[None]))
        return x.unflatten(0, (-1, n_tokens)).transpose(1, 2).flatten(0, 1)


def correlated_groups(series: SeriesTensors, stop: Tensor, correlation: float) -> Tensor:
    """Group variates by their mean absolute correlation (average linkage).

    Parameters
    ----------
    series : SeriesTensors
        Scaled series.
    stop : int64 Tensor of shape (S,)
        Where the training rows of each series end.
    correlation : float
        Least mean absolute correlation of two parts that are joined.

    Returns
    -------
    int64 Tensor of shape (C,)
        The number of the group of each variate. Pairs that were never observed together, or of
        which one did not move, have no correlation.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    n_variates = series.values.shape[1]
    if n_variates == 1:
        return torch.zeros(1, dtype=torch.int64)
    distance = (1 - _correlations(series, stop).abs()).clamp(min=0).fill_diagonal_(0)
    tree = linkage(squareform(distance.numpy(), checks=False), method="average")
    # Rounding must not part what is as far apart as is allowed.
    return torch.from_numpy(fcluster(tree, 1 - correlation + 1e-12, "distance")).long()


def _correlations(series: SeriesTensors, stop: Tensor) -> Tensor:
    """Correlations (C, C) over the training rows in which both of a pair were observed."""
    lengths = (stop - series.offsets[:-1]).clamp(min=0)
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    begins = torch.cumsum(lengths, 0) - lengths
    rows = torch.arange(len(owner), device=owner.device) - begins[owner] + series.offsets[owner]
    x = series.values[rows].cpu().double()
    seen = torch.ones_like(x) if series.observed is None else series.observed[rows].cpu().double()
    x = x * seen
    count = (seen.T @ seen).clamp(min=1)
    mean = x.T @ seen / count  # of the first of a pair, where the second was observed as well
    covariance = x.T @ x / count - mean * mean.T
    variance = (x.square().T @ seen / count - mean.square()).clamp(min=0)
    scale = (variance * variance.T).sqrt()
    return torch.where(scale > 1e-12, covariance / scale.clamp(min=1e-12), 0.0)
