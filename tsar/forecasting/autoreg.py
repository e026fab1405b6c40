"""An autoregression by least squares, for each series and variate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from tsar.exceptions import ParameterError
from tsar.forecasting.local import LocalForecaster, LocalModel
from tsar.params.arguments import column_labels
from tsar.params.constraints import Interval
from tsar.params.records import LONGEST

__all__ = ["AutoReg"]

Positive = Annotated[int, Interval(1)]


@dataclass(frozen=True)
class AutoRegModel(LocalModel):
    """A constant, weighted lags and the covariates of the step itself.

    Parameters
    ----------
    lags : tuple of int
        Increasing.
    """

    lags: tuple[int, ...]

    def needed(self, n_covariates: int) -> int:
        """Return a row more than there are weights, after the rows that only give lags."""
        return self.lags[-1] + len(self.lags) + n_covariates + 2

    def estimate(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Solve the least squares problem, see :class:`LocalModel`."""
        from statsmodels.tsa.ar_model import AutoReg as Regression

        exog = x if x.shape[1] else None
        weights = np.asarray(Regression(y, list(self.lags), trend="c", exog=exog).fit().params)
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
        longest, lags = self.lags[-1], np.array(self.lags)
        values = np.empty((len(cutoffs), longest + horizon))
        values[:, :longest] = y[cutoffs[:, None] + np.arange(-longest, 0)]
        steps = x[cutoffs[:, None] + np.arange(horizon)] @ effects
        for step in range(horizon):
            known = values[:, longest + step - lags] * parameters[1:]
            values[:, longest + step] = parameters[0] + known.sum(axis=1) + steps[:, step]
        return values[:, longest:]


@dataclass(kw_only=True, eq=False, repr=False)
class AutoReg(LocalForecaster):
    """An autoregression by least squares, for each series and variate.

    The forecast of the next step is a constant plus weighted lags, plus the weighted future
    covariates of that step; further steps read the forecasts before them. :class:`ARNet` is
    the same model shared by the series of a panel, and for long orders.

    Parameters
    ----------
    lags : int, sequence of int or None, default None
        How many lags, or which; None takes those of a season and one more, which is where a
        seasonal difference of first differences looks.
    future_covariates : label, sequence or None, default None
        Columns known over the horizon as well; ``predict`` takes them as ``future=``.

    References
    ----------
    Estimated by ``statsmodels.tsa.ar_model.AutoReg``. Hyndman and Athanasopoulos,
    "Forecasting: principles and practice", 3rd edition, section 9.3, https://otexts.com/fpp3.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> tsar.AutoReg(horizon=3, lags=(1, 2, 12)).fit(sea).predict().shape
    (3, 1)
    """

    lags: Annotated[int, Interval(1, LONGEST)] | Sequence[Positive] | None = None
    future_covariates: str | int | Sequence[str | int] | None = None

    @property
    def roles(self) -> dict[str, Any]:
        return {"future_covariates": column_labels(self.future_covariates)}

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
        longest = season_length + 1 if self.lags is None else int(self.lags)
        return AutoRegModel(tuple(range(1, longest + 1)))
