"""A decomposition into several seasons and exponential smoothing of the rest, series by series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from tsar.data.panel import Panel
from tsar.estimator.base import Estimator
from tsar.exceptions import ParameterError
from tsar.forecasting.decomposed import DecomposedModel
from tsar.forecasting.ets import ETSModel
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.local import LocalForecaster, LocalRecord
from tsar.params.constraints import Interval
from tsar.params.records import LONGEST, Length

__all__ = ["MSTL"]

Positive = Annotated[int, Interval(1, LONGEST)]

# How many of the cycles of the calendar are seasons by default.
MOST_SEASONS = 2


class MSTLRecord(LocalRecord):
    """What JSON holds of what MSTL learned."""

    season_lengths: list[Length]


@dataclass(frozen=True)
class MSTLModel(DecomposedModel):
    """Exponential smoothing of what MSTL leaves, and the last seasons again.

    Parameters
    ----------
    smoothing : ETSModel
        Without a season.
    season_lengths : tuple of int
        Increasing; none for plain smoothing.
    """

    season_lengths: tuple[int, ...]

    def needed(self, n_covariates: int) -> int:
        """Return more than two of the longest season, and what the smoothing needs."""
        longest = max(self.season_lengths, default=0)
        return max(2 * longest + 1, self.smoothing.needed(n_covariates))

    def _seasons(self, y: np.ndarray) -> dict[int, np.ndarray]:
        if not self.season_lengths:
            return {}
        from statsmodels.tsa.seasonal import MSTL as Decomposition

        parts = Decomposition(y, periods=self.season_lengths).fit()
        seasons = np.asarray(parts.seasonal).reshape(len(y), -1)
        return dict(zip(self.season_lengths, seasons.T, strict=True))


@dataclass(kw_only=True, eq=False, repr=False)
class MSTL(LocalForecaster):
    """A decomposition into several seasons and exponential smoothing of the rest, by series.

    Each season is what STL finds after the others are taken out, and may change slowly; its last
    cycle is repeated. The rest is forecast by exponential smoothing with a slope. For the hours
    of a day and of a week; with one season it is much like :class:`STLETS`.

    Parameters
    ----------
    season_length : int, sequence of int or None, default None
        Steps in a season, or in each of several, 1 for none; None takes the first two of
        ``cycles_``, those of which the longest series has more than two.
    trend : {"add"} or None, default "add"
        Whether the smoothing has a slope.
    damped_trend : bool, default True
        Whether the slope fades over the horizon.

    Attributes
    ----------
    season_lengths_ : tuple of int
        The seasons; ``season_length_`` is the shortest of them.

    References
    ----------
    By ``statsmodels.tsa.seasonal.MSTL``. Bandara, Hyndman and Bergmeir, "MSTL: a seasonal-trend
    decomposition algorithm for time series with multiple seasonal patterns", arXiv:2107.13462.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")[-240:]
    >>> tsar.MSTL(horizon=3, season_length=[12, 48]).fit(sea).predict().shape
    (3, 1)
    """

    learned_record: ClassVar[Any] = MSTLRecord

    season_length: Positive | Sequence[Positive] | None = None  # type: ignore[assignment]
    trend: Literal["add"] | None = "add"
    damped_trend: bool = True

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if self.damped_trend and self.trend is None:
            raise ParameterError(
                "MSTL: damped_trend=True needs a trend, got trend=None; set damped_trend=False"
            )
        lengths = self.season_length
        if isinstance(lengths, Sequence) and (not lengths or len(set(lengths)) < len(lengths)):
            raise ParameterError(
                f"MSTL: season_length must have entries that differ, got {lengths!r}; name each "
                f"once, or leave it None"
            )

    def _season(self, panel: Panel) -> int:
        return self._seasons(panel)[0]

    def _seasons(self, panel: Panel) -> tuple[int, ...]:
        """Return the seasons in their order, by the calendar where they are not set."""
        if isinstance(self.season_length, Sequence):
            lengths = [int(length) for length in self.season_length]
        elif self.season_length is not None:
            lengths = [int(self.season_length)]
        else:
            cycles, longest = panel.frequency.cycles[:MOST_SEASONS], int(panel.lengths.max())
            lengths = [length for length in cycles if 2 * length < longest]
        return tuple(sorted(lengths)) or (1,)

    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        self.season_lengths_ = self._seasons(panel)
        return super()._learn(panel, go_on)

    def _make_model(self, season_length: int) -> MSTLModel:
        lengths = tuple(length for length in self.season_lengths_ if length > 1)
        return MSTLModel(ETSModel(self.trend, self.damped_trend), lengths)

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record, tensors = super().learned_state()
        return {**record, "season_lengths": list(self.season_lengths_)}, tensors

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Estimator],
    ) -> None:
        self.season_lengths_ = tuple(record["season_lengths"])
        super().restore_learned_state(record, tensors, members)
