"""An autoregression by least squares, for each series and variate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from tsar.exceptions import ParameterError
from tsar.forecasting.covariate_columns import FutureCovariates
from tsar.forecasting.local import LocalForecaster
from tsar.forecasting.local_models import LocalModel
from tsar.params.constraints import Interval
from tsar.params.records import LONGEST

__all__ = ["AutoReg"]

# Fewer rows than that for each weight make recursions that explode.
ROWS_PER_WEIGHT = 3
LAGS_SHOWN = 8

Positive = Annotated[int, Interval(1)]


@dataclass(frozen=True)
class AutoRegModel(LocalModel):
    """A constant, weighted lags and the covariates of the step itself.

    Parameters
    ----------
    lags : tuple of int
        Increasing.
    season : int or None, default None
        The season that the lags are those of; None where they were named one by one.
    """

    lags: tuple[int, ...]
    season: int | None = None

    @property
    def chosen_freely(self) -> bool:
        """Lags of a season are a proposal, those that were named are asked for."""
        return self.season is not None

    def __str__(self) -> str:
        shown = f" ({', '.join(map(str, self.lags))})" if len(self.lags) <= LAGS_SHOWN else ""
        return f"{len(self.lags)} lags{shown}"

    def _part(self, count: int) -> tuple[int, ...]:
        """Return the lags that matter most: the first one, those of the season, the shortest."""
        if count == len(self.lags):
            return self.lags
        first = [] if self.season is None else [1, self.season, self.season + 1]
        return tuple(sorted(list(dict.fromkeys([*first, *self.lags]))[:count]))

    def needed(self, n_covariates: int) -> int:
        """Return a row more than there are weights, after the rows that only give lags."""
        return self.lags[-1] + len(self.lags) + n_covariates + 2

    def carried_by(self, n_observed: int, n_covariates: int) -> "AutoRegModel":
        """Return as many lags as leave some rows for each weight."""
        for count in range(len(self.lags), 1, -1):
            lags = self._part(count)
            if n_observed - lags[-1] >= ROWS_PER_WEIGHT * (1 + count + n_covariates):
                return replace(self, lags=lags)
        return replace(self, lags=self._part(1))

    def beside(self, y: np.ndarray) -> np.ndarray:
        """Return a constant and the lags, from the first row that has all of them."""
        rows = np.arange(self.lags[-1], len(y))
        return np.column_stack([np.ones(len(rows)), *(y[rows - lag] for lag in self.lags)])

    def estimate(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Solve the least squares problem, see :class:`LocalModel`."""
        from statsmodels.regression.linear_model import OLS

        # What AutoReg of statsmodels ends with; it makes frames of a series first, which takes most
        # of its time.
        start = self.lags[-1]
        weights = np.asarray(OLS(y[start:], np.hstack([self.beside(y), x[start:]])).fit().params)
        return weights[: 1 + len(self.lags)], weights[1 + len(self.lags) :], True

    def forecast(
        self,
        parameters: np.ndarray,
        effects: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        cutoffs: np.ndarray,
        horizon: int,
    ) -> np.ndarray:
        """Forecast step by step, feeding forecasts back, see :class:`LocalModel`."""
        # As many as the data carried.
        lags = np.array(self._part(len(parameters) - 1))
        longest = lags[-1]
        values = np.empty((len(cutoffs), longest + horizon))
        values[:, :longest] = y[cutoffs[:, None] + np.arange(-longest, 0)]
        steps = x[cutoffs[:, None] + np.arange(horizon)] @ effects
        weights = parameters[1:]
        for step, places in enumerate(longest + np.arange(horizon)[:, None] - lags):
            # Each window lies in one piece, so that its sum does not depend on the others.
            from_history = np.add.reduce(values.take(places, axis=1) * weights, axis=1)
            values[:, longest + step] = parameters[0] + from_history + steps[:, step]
        return values[:, longest:]


@dataclass(kw_only=True, eq=False, repr=False)
class AutoReg(FutureCovariates, LocalForecaster):
    """An autoregression by least squares, for each series and variate.

    The forecast of the next step is a constant plus weighted lags, plus the weighted future
    covariates of that step; further steps read the forecasts before them. :class:`ARNet` is
    the same model shared by the series of a panel, and for long orders.

    Parameters
    ----------
    lags : int, sequence of int or None, default None
        How many lags, or which; None takes those of a season and one more, which is where a
        seasonal difference of first differences looks. A series with fewer than three rows for
        each weight gets fewer: with None the first, those of the season and the shortest of the
        others, else the shortest.

    References
    ----------
    As ``statsmodels.tsa.ar_model.AutoReg`` estimates it. Hyndman and Athanasopoulos,
    "Forecasting: principles and practice", 3rd edition, section 9.3, https://otexts.com/fpp3.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> tsar.AutoReg(horizon=3, lags=(1, 2, 12)).fit(sea).predict().shape
    (3, 1)
    """

    lags: Annotated[int, Interval(1, LONGEST)] | Sequence[Positive] | None = None

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if isinstance(self.lags, Sequence) and (
            not self.lags or len(set(self.lags)) < len(self.lags)
        ):
            raise ParameterError(
                f"AutoReg: lags must be a number or different lags, got {self.lags!r}; "
                f"lags=12 takes the lags 1 to 12"
            )

    def _make_model(self, season_length: int) -> AutoRegModel:
        if isinstance(self.lags, Sequence):
            return AutoRegModel(tuple(sorted(int(lag) for lag in self.lags)))
        if self.lags is None:
            return AutoRegModel(tuple(range(1, season_length + 2)), season_length)
        return AutoRegModel(tuple(range(1, int(self.lags) + 1)))
