"""ARIMA whose orders are chosen by the data, series by series.

Dimension letters: n rows, K covariates.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd

from tsar.exceptions import foreign_warnings
from tsar.forecasting.arima import ARIMAModel
from tsar.forecasting.covariate_columns import FutureCovariates
from tsar.forecasting.local import LocalForecaster
from tsar.forecasting.local_models import LocalModel, rounded
from tsar.params.constraints import Interval

__all__ = ["AutoARIMA"]

# What is estimated by maximum likelihood, the best by least squares.
N_ESTIMATED = 3
# The 5 % point of the KPSS test for a level, and the strength of a season that is differenced.
KPSS_LEVEL, SEASONAL_STRENGTH = 0.463, 0.64
MOST_DIFFERENCES = 2
# Seasons that a series has at least for seasonal terms.
FEWEST_SEASONS = 3
# Numbers that name an order, before the parameters of its process.
N_ORDERS = 7


@dataclass(frozen=True)
class AutoARIMAModel(LocalModel):
    """The ARIMA process with the least corrected Akaike criterion among some.

    Its parameters are three orders, three seasonal ones and whether there is a constant, and then
    those of the process.

    Parameters
    ----------
    season_length : int
    max_terms, max_seasonal_terms : int
        Terms of either kind that are compared at most.
    """

    season_length: int
    max_terms: int
    max_seasonal_terms: int

    reads_missing: ClassVar[bool] = True

    @property
    def chosen_freely(self) -> bool:
        """Which orders they are, the data say."""
        return True

    def process_of(self, parameters: np.ndarray) -> ARIMAModel:
        """Return the process with the orders that were chosen."""
        p, d, q, *seasonal, constant = (int(number) for number in parameters[:N_ORDERS])
        return self._process((p, d, q), tuple(seasonal), bool(constant))

    def _process(
        self, order: tuple[int, ...], seasonal: tuple[int, ...], constant: bool
    ) -> ARIMAModel:
        season = self.season_length if any(seasonal) else 0
        return ARIMAModel(order, (*seasonal, season), "c" if constant else "n")

    def needed(self, n_covariates: int) -> int:
        """Return what a mean needs."""
        return self._process((0, 0, 0), (0, 0, 0), True).needed(n_covariates)

    def estimate(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Rank orders by least squares, and the best by likelihood, see :class:`LocalModel`."""
        n_observed = int((~np.isnan(y)).sum())
        ranked = [
            orders
            for orders in self._ranked(rounded(y), x)
            if self._process(*orders).needed(x.shape[1]) <= n_observed
        ]
        best, least = None, np.inf
        for orders in ranked[:N_ESTIMATED]:
            process = self._process(*orders)
            fitted = process.fitted(y, x)
            if best is None or fitted.aicc < least:
                best, least = (orders, process.parameters_of(fitted)), float(fitted.aicc)
        if best is None:
            raise ValueError(f"{n_observed} rows carry no order")
        (order, seasonal, constant), (weights, effects, converged) = best
        named = np.array([*order, *seasonal, constant], dtype=np.float64)
        return np.concatenate([named, weights]), effects, converged

    def forecast(
        self,
        parameters: np.ndarray,
        effects: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        cutoffs: np.ndarray,
        horizon: int,
    ) -> np.ndarray:
        """Forecast with the process that was chosen, see :class:`LocalModel`."""
        process = self.process_of(parameters)
        return process.forecast(parameters[N_ORDERS:], effects, y, x, cutoffs, horizon)

    # ------------------------------------------------------------------ the orders

    def _ranked(
        self, y: np.ndarray, x: np.ndarray
    ) -> list[tuple[tuple[int, ...], tuple[int, ...], bool]]:
        """Return orders and whether there is a constant, the best first by least squares.

        Residuals of a long autoregression stand in for the shocks (Hannan and Rissanen 1982), and
        seasonal lags are added to the others, not multiplied with them.
        """
        rows = np.arange(len(y))
        seen = ~np.isnan(y)
        z = np.interp(rows, rows[seen], y[seen])
        if x.shape[1]:
            beside = np.column_stack([np.ones(len(z)), x])
            z = z - beside @ np.linalg.lstsq(beside, z, rcond=None)[0]
        season = self.season_length
        most = self.max_seasonal_terms
        seasonal = most > 0 and season > 1 and len(z) >= FEWEST_SEASONS * season
        n_seasonal = int(seasonal and _seasonal_strength(z, season) >= SEASONAL_STRENGTH)
        if n_seasonal:
            z = z[season:] - z[:-season]
        n_differences = 0
        while n_differences < MOST_DIFFERENCES and not _is_level(z):
            z, n_differences = np.diff(z), n_differences + 1
        constant = n_seasonal + n_differences < MOST_DIFFERENCES
        terms, between = range(self.max_terms + 1), range((most if seasonal else 0) + 1)
        forms = list(itertools.product(terms, terms, between, between))
        criteria = _least_squares_criteria(z, season, forms, constant)
        order = np.argsort(criteria, kind="stable")
        return [
            (
                (forms[place][0], n_differences, forms[place][1]),
                (forms[place][2], n_seasonal, forms[place][3]),
                constant,
            )
            for place in order
        ]


def _is_level(z: np.ndarray) -> bool:
    """Whether the KPSS test does not refuse that a series moves around a level."""
    from statsmodels.tsa.stattools import kpss

    if len(z) < 2 or np.ptp(z) == 0:
        return True
    # It warns of p-values beyond its table, which are not read.
    with foreign_warnings("ignore", Warning):
        return bool(kpss(z, regression="c", nlags="auto")[0] < KPSS_LEVEL)


def _seasonal_strength(z: np.ndarray, season: int) -> float:
    """Return how much of what is no trend is season, in [0, 1]."""
    from statsmodels.tsa.seasonal import STL

    parts = STL(z, period=season, robust=False).fit()
    variance = np.var(parts.seasonal + parts.resid)
    return float(max(1 - np.var(parts.resid) / variance, 0.0)) if variance > 0 else 0.0


def _least_squares_criteria(
    z: np.ndarray, season: int, forms: Sequence[tuple[int, ...]], constant: bool
) -> np.ndarray:
    """Return the AICc of forms (p, q, P, Q) by regressions on the same rows, (n_forms,)."""
    z = z - z.mean() if constant else z
    n_terms, _, n_seasons, _ = np.max(forms, axis=0)
    shocks = _shocks(z, season if n_seasons else 1)
    lags = [*range(1, n_terms + 1), *(season * (1 + k) for k in range(n_seasons))]
    first = max(lags, default=0)
    rows = np.arange(first, len(z))
    if len(rows) < 2 * len(lags) + 3:
        # Too few to tell orders apart: the fewest terms come first.
        return np.array([float(sum(form)) for form in forms])
    y = z[first:]
    columns = np.array([values[rows - lag] for values in (z, shocks) for lag in lags])
    columns = columns.reshape(2 * len(lags), len(rows)).T
    products, moments, total = columns.T @ columns, columns.T @ y, float(y @ y)
    criteria = []
    for p, q, seasonal_p, seasonal_q in forms:
        taken = [
            *range(p),
            *(n_terms + k for k in range(seasonal_p)),
            *(len(lags) + k for k in range(q)),
            *(len(lags) + n_terms + k for k in range(seasonal_q)),
        ]
        effects = np.linalg.lstsq(products[np.ix_(taken, taken)], moments[taken], rcond=None)[0]
        squares = max(total - float(effects @ moments[taken]), np.finfo(float).tiny)
        n_parameters = len(taken) + 1 + constant
        fit = len(rows) * np.log(squares / len(rows))
        criteria.append(fit + 2 * n_parameters * len(rows) / max(len(rows) - n_parameters - 1, 1))
    return np.array(criteria)


def _shocks(z: np.ndarray, season: int) -> np.ndarray:
    """Return the residuals of a long autoregression, 0 where its lags are not there, (n,)."""
    longest = min(int(10 * np.log10(max(len(z), 2))), len(z) // 4)
    seasonal = [season, season + 1] if season > 1 else []
    lags = sorted({*range(1, max(longest, 1) + 1), *(lag for lag in seasonal if lag < len(z) // 2)})
    rows = np.arange(lags[-1], len(z))
    shocks = np.zeros(len(z))
    if len(rows) <= len(lags):
        return shocks
    columns = np.column_stack([z[rows - lag] for lag in lags])
    shocks[rows] = z[rows] - columns @ np.linalg.lstsq(columns, z[rows], rcond=None)[0]
    return shocks


@dataclass(kw_only=True, eq=False, repr=False)
class AutoARIMA(FutureCovariates, LocalForecaster):
    """ARIMA whose orders are chosen for each series and variate.

    Differences are taken until the KPSS test does not refuse a level (two at most), and one from
    season to season where the season is strong. Of the numbers of autoregressive and moving
    average terms, within a season and from one to the next, all combinations are ranked by least
    squares; the three best are estimated by maximum likelihood, and the least AICc decides. There
    is a constant where there is one difference at most.

    Parameters
    ----------
    max_terms : int, default 3
        Terms of either kind that are compared at most.
    max_seasonal_terms : int, default 1
        The same from season to season; 0 leaves the season out.

    Attributes
    ----------
    orders_ : DataFrame
        A row for each series and variate, with the columns ``id``, ``variate`` and ``order``, which
        is written as usual: "(1,1,1)(0,1,1)[12]", with "+c" where there is a constant. It is empty
        where nothing was estimated.

    References
    ----------
    Hyndman and Khandakar, "Automatic time series forecasting: the forecast package for R", Journal
    of Statistical Software 27 (2008), section 3; the ranking of Hannan and Rissanen, "Recursive
    estimation of mixed autoregressive-moving average order", Biometrika 69 (1982); the strength of
    a season of Wang, Smith and Hyndman, "Characteristic-based clustering for time series data",
    Data Mining and Knowledge Discovery 13 (2006), section 3.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")[-240:]
    >>> model = tsar.AutoARIMA(horizon=3, season_length=1, max_terms=2).fit(sea)
    >>> model.predict().shape
    (3, 1)
    >>> model.orders_["order"].tolist()
    ['(2,0,1)+c']
    """

    max_terms: Annotated[int, Interval(0, 10)] = 3
    max_seasonal_terms: Annotated[int, Interval(0, 2)] = 1

    def _make_model(self, season_length: int) -> AutoARIMAModel:
        return AutoARIMAModel(season_length, int(self.max_terms), int(self.max_seasonal_terms))

    @property
    def orders_(self) -> pd.DataFrame:
        """Which orders were chosen for each series and variate."""
        model = self._make_model(self.season_length_)
        orders = [
            _written(model.process_of(one.parameters)) if len(one.parameters) else ""
            for one in self._estimates.grid
        ]
        return self.status_[["id", "variate"]].assign(order=orders)


def _written(process: ARIMAModel) -> str:
    order = ",".join(map(str, process.order))
    *seasonal, season = process.seasonal_order
    between = f"({','.join(map(str, seasonal))})[{season}]" if season else ""
    return f"({order}){between}{'+c' if process.trend == 'c' else ''}"
