"""ARIMA with seasonal terms and covariates, for each series and variate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from tsar.exceptions import ParameterError
from tsar.forecasting.covariate_columns import FutureCovariates
from tsar.forecasting.local import LocalForecaster
from tsar.forecasting.local_models import LocalModel, rounded
from tsar.params.constraints import Interval

__all__ = ["ARIMA"]

Order = Sequence[Annotated[int, Interval(0)]]


@dataclass(frozen=True)
class ARIMAModel(LocalModel):
    """A regression on covariates whose errors are a seasonal ARIMA process.

    Parameters
    ----------
    order : tuple of three int
    seasonal_order : tuple of four int
        The season last, 0 where there is none.
    trend : {"c", "n"}
    """

    order: tuple[int, ...]
    seasonal_order: tuple[int, ...]
    trend: str

    reads_missing: ClassVar[bool] = True

    def needed(self, n_covariates: int) -> int:
        """Return two rows for each parameter, after those that differences take."""
        p, d, q = self.order
        seasonal_p, seasonal_d, seasonal_q, season = self.seasonal_order
        n_parameters = p + q + seasonal_p + seasonal_q + n_covariates + 2
        reach = d + season * seasonal_d + max(p + season * seasonal_p, q + season * seasonal_q)
        return reach + 2 * n_parameters

    def _process(self, y: np.ndarray, x: np.ndarray | None = None) -> Any:
        from statsmodels.tsa.statespace.sarimax import SARIMAX

        return SARIMAX(y, x, order=self.order, seasonal_order=self.seasonal_order, trend=self.trend)

    def estimate(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Maximise the likelihood, see :class:`LocalModel`."""
        return self.parameters_of(self.fitted(y, x))

    def fitted(self, y: np.ndarray, x: np.ndarray) -> Any:
        """Return what statsmodels knows of the maximum of the likelihood.

        Parameters
        ----------
        y : float64 array of shape (n,)
        x : float64 array of shape (n, K)
        """
        process = self._process(rounded(y), x if x.shape[1] else None)
        return process.fit(disp=0, cov_type="none")

    def parameters_of(self, fitted: Any) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return the parameters of the process, the effects of covariates, and whether it ended.

        Parameters
        ----------
        fitted : SARIMAXResults
        """
        process = fitted.model
        names, weights = process.param_names, np.asarray(fitted.params)
        covariate = np.isin(names, process.exog_names or [])
        converged = bool(fitted.mle_retvals["converged"])
        return weights[~covariate], weights[covariate], converged

    def forecast(
        self,
        parameters: np.ndarray,
        effects: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        cutoffs: np.ndarray,
        horizon: int,
    ) -> np.ndarray:
        """Filter once, and go on from the state at each origin, see :class:`LocalModel`."""
        explained = x @ effects
        process = self._process(y - explained[: len(y)])
        filtered = process.filter(parameters, return_ssm=True)
        design, transition = filtered.design[0, :, 0], filtered.transition[:, :, 0]
        intercept = filtered.state_intercept[:, 0]
        # The state of a step, given what was observed before it.
        state = filtered.predicted_state[:, cutoffs].T
        forecast = np.empty((len(cutoffs), horizon))
        for step in range(horizon):
            forecast[:, step] = (state * design).sum(axis=1) + explained[cutoffs + step]
            state = np.einsum("ij,wj->wi", transition, state) + intercept
        return forecast


@dataclass(kw_only=True, eq=False, repr=False)
class ARIMA(FutureCovariates, LocalForecaster):
    """ARIMA with seasonal terms and covariates (SARIMAX), for each series and variate.

    Future covariates enter by a linear regression whose errors are the ARIMA process. Missing
    values are left to the Kalman filter. A seasonal order over a long season takes seconds
    for each series; :class:`AutoReg` and :class:`STLETS` are quicker there.

    Parameters
    ----------
    order : sequence of three int, default (1, 1, 1)
        Autoregressive terms, differences and moving average terms.
    seasonal_order : sequence of three int, default (0, 0, 0)
        The same from season to season; (0, 1, 1) with ``order=(0, 1, 1)`` is the airline
        model.
    constant : bool, default False
        Whether the differenced series has a mean: a level without differences, a drift with
        one.

    References
    ----------
    Estimated by ``statsmodels.tsa.statespace.sarimax.SARIMAX``. Box, Jenkins, Reinsel and
    Ljung, "Time series analysis: forecasting and control", 5th edition, chapters 4, 5 and 9.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")[-240:]
    >>> model = tsar.ARIMA(horizon=3, order=(1, 0, 0), constant=True).fit(sea)
    >>> model.predict().shape
    (3, 1)
    """

    order: Order = (1, 1, 1)
    seasonal_order: Order = (0, 0, 0)
    constant: bool = False

    def _check_consistency(self) -> None:
        super()._check_consistency()
        for name in ("order", "seasonal_order"):
            value = getattr(self, name)
            if len(value) != 3:
                raise ParameterError(f"ARIMA: {name} must be three integers, got {value!r}")

    def _make_model(self, season_length: int) -> ARIMAModel:
        p, d, q = (int(number) for number in self.order)
        seasonal = tuple(int(number) for number in self.seasonal_order)
        if season_length == 1 or not any(seasonal):
            # Nothing repeats.
            seasonal, season_length = (0, 0, 0), 0
        trend: Literal["c", "n"] = "c" if self.constant else "n"
        return ARIMAModel((p, d, q), (*seasonal, season_length), trend)
