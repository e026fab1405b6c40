"""A decomposition by STL and exponential smoothing of the rest, for each series and variate."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from tsar.exceptions import ParameterError
from tsar.forecasting.decomposed import DecomposedModel
from tsar.forecasting.ets import ETSModel
from tsar.forecasting.local import LocalForecaster
from tsar.params.constraints import Interval

__all__ = ["STLETS"]


@dataclass(frozen=True)
class STLETSModel(DecomposedModel):
    """Exponential smoothing of what STL leaves, and the last season again.

    Parameters
    ----------
    smoothing : ETSModel
        Without a season.
    season_length : int
    window : int
        Over how many seasons a phase is smoothed.
    robust : bool
    """

    season_length: int
    window: int
    robust: bool

    def needed(self, n_covariates: int) -> int:
        """Return two seasons, and what the smoothing needs."""
        return max(2 * self.season_length, self.smoothing.needed(n_covariates))

    def _seasons(self, y: np.ndarray) -> dict[int, np.ndarray]:
        if self.season_length == 1:
            return {}
        from statsmodels.tsa.seasonal import STL

        parts = STL(y, period=self.season_length, seasonal=self.window, robust=self.robust).fit()
        return {self.season_length: np.asarray(parts.seasonal)}


@dataclass(kw_only=True, eq=False, repr=False)
class STLETS(LocalForecaster):
    """A decomposition by STL and exponential smoothing of the rest, by series and variate.

    The season is what STL finds and may change slowly; its last cycle is repeated. The rest
    is forecast by exponential smoothing with a slope. Quicker than :class:`ETS` where
    seasons are long, because no state of the season is estimated.

    Parameters
    ----------
    trend : {"add"} or None, default "add"
        Whether the smoothing has a slope.
    damped_trend : bool, default True
        Whether the slope fades over the horizon.
    seasonal_window : int, default 7
        Over how many seasons each phase is smoothed, an odd number; more of them hold the
        season more constant.
    robust : bool, default False
        Whether outliers count less in the decomposition.

    References
    ----------
    By ``statsmodels.tsa.seasonal.STL`` and ``ETSModel``. Cleveland, Cleveland, McRae and
    Terpenning, "STL: a seasonal-trend decomposition procedure based on Loess", Journal of
    Official Statistics 6 (1990).

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> tsar.STLETS(horizon=3).fit(sea).predict().shape
    (3, 1)
    """

    trend: Literal["add"] | None = "add"
    damped_trend: bool = True
    seasonal_window: Annotated[int, Interval(3)] = 7
    robust: bool = False

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if self.damped_trend and self.trend is None:
            raise ParameterError(
                "STLETS: damped_trend=True needs a trend, got trend=None; set damped_trend=False"
            )
        if self.seasonal_window % 2 == 0:
            raise ParameterError(
                f"STLETS: seasonal_window must be odd, got {self.seasonal_window}; "
                f"take {self.seasonal_window + 1}"
            )

    def _make_model(self, season_length: int) -> STLETSModel:
        return STLETSModel(
            ETSModel(self.trend, self.damped_trend),
            season_length,
            int(self.seasonal_window),
            self.robust,
        )
