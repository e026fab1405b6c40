"""The mean of the history and its drift, with the prediction intervals of their formulas.

Dimension letters: S series, C variates, W windows, H horizon, T observed steps.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.forecasting.base import Forecaster
from tsar.forecasting.fitted.contract import Forecasts
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.fitted.windowed import after_fitted as join_fitted
from tsar.forecasting.outputs.distributions import DISTRIBUTIONS
from tsar.forecasting.outputs.predictive import DistributionForecasts, Predictive, series_generator

__all__ = ["Drift", "Mean"]


class Line(NamedTuple):
    """A straight line and how far steps are from it.

    Parameters
    ----------
    last : float
        Where it is at the last row.
    slope : float
        What each step adds.
    deviation : float
        Of the errors of the method over one step; NaN where there are too few to tell.
    reach : float
        Observed steps that the line rests on.
    passed : int
        Rows since the last observation.
    """

    last: float
    slope: float
    deviation: float
    reach: float
    passed: int


@dataclass(kw_only=True, eq=False, repr=False)
class _Average(Forecaster):
    """A forecast with a formula for its mean and for its deviation."""

    @property
    def expected_predictive(self) -> Predictive:
        return DistributionForecasts(DISTRIBUTIONS["gaussian"]())

    @property
    def is_trained(self) -> bool:
        return False

    @abstractmethod
    def _line(self, y: np.ndarray) -> Line:
        """Return the line that a history (n,), observed somewhere, is continued by."""

    @abstractmethod
    def _widths(self, line: Line, steps: np.ndarray) -> np.ndarray:
        """Return the deviation of forecasts (H,) for a unit of that of the errors."""

    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        measured = Scaling.measure(panel.values, panel.offsets, panel.offsets[1:])
        deviations = np.full_like(measured.mean, np.nan)
        for series, (start, end) in enumerate(zip(panel.offsets, panel.offsets[1:], strict=False)):
            for variate in range(panel.n_variates):
                y = panel.values[start:end, variate].astype(np.float64)
                if not np.isnan(y).all():
                    deviations[series, variate] = self._line(y).deviation
        # A series that says nothing of its level or of its errors has those of the others.
        told = ~np.isnan(deviations)
        number = np.maximum(told.sum(axis=0), 1)
        pooled = np.where(told, deviations, 0.0).sum(axis=0) / number
        identity = Scaling.identity(panel.n_series, panel.n_variates)
        learned = replace(measured.pooled(), scale=pooled[None])
        return Learned(identity, learned, 1, whole=True)

    def forecast(
        self,
        panel: Panel,
        owners: np.ndarray,
        rows: np.ndarray,
        horizon: int,
        known_ahead: Mapping[Any, np.ndarray] | None = None,
        levels: Sequence[float] = (),
        samples: int | None = None,
        *,
        after_fitted: bool = False,
    ) -> Forecasts:
        if after_fitted:
            panel, rows = join_fitted(panel, owners, rows, self.end_)
        parameters = self._parameters(panel, owners, rows, horizon)
        predictive = self.predictive
        paths = None
        if samples is not None:
            drawn = [
                predictive.sample(
                    np.repeat(own[None], samples, axis=0), series_generator(0, panel.ids[owner])
                )
                for owner, own in zip(owners, parameters, strict=True)
            ]
            paths = self.in_range(np.stack(drawn))
        return Forecasts(
            self.in_range(predictive.point(parameters)),
            {level: self.in_range(predictive.quantile(parameters, level)) for level in levels},
            paths,
        )

    def _parameters(
        self, panel: Panel, owners: np.ndarray, rows: np.ndarray, horizon: int
    ) -> np.ndarray:
        """Return mean and deviation of each step, shape (W, H, C, 2)."""
        others = self.learned_.pooled_of(panel, self.end_)
        parameters = np.empty((len(owners), horizon, panel.n_variates, 2))
        steps = np.arange(1, horizon + 1)
        for window, (owner, row) in enumerate(zip(owners, rows, strict=True)):
            for variate in range(panel.n_variates):
                y = panel.values[panel.offsets[owner] : row, variate].astype(np.float64)
                deviation = others.scale[0, variate]
                if np.isnan(y).all():
                    line = Line(others.mean[0, variate], 0.0, deviation, 1.0, 0)
                else:
                    line = self._line(y)
                    if np.isnan(line.deviation):
                        line = line._replace(deviation=deviation)
                parameters[window, :, variate, 0] = line.last + line.slope * steps
                widths = self._widths(line, steps + line.passed)
                parameters[window, :, variate, 1] = line.deviation * widths
        return parameters


@dataclass(kw_only=True, eq=False, repr=False)
class Mean(_Average):
    """Repeat the mean of each series.

    The optimal forecast of independent values. Its intervals, without :meth:`calibrate`, are those
    of the normal distribution with the deviation ``s * sqrt(1 + 1 / T)`` at every step: s is the
    deviation of the T observed values around their mean.

    References
    ----------
    Hyndman and Athanasopoulos, "Forecasting: principles and practice", 3rd edition, sections 5.2
    and 5.5, https://otexts.com/fpp3.

    Examples
    --------
    >>> import pandas as pd
    >>> from tsar.forecasting import Mean
    >>> sales = pd.Series([3.0, 5.0, 4.0], index=pd.date_range("2024-01-01", periods=3))
    >>> Mean(horizon=2).fit(sales).predict().tolist()
    [4.0, 4.0]
    """

    def _line(self, y: np.ndarray) -> Line:
        observed = y[~np.isnan(y)]
        deviation = float(observed.std(ddof=1)) if len(observed) > 1 else np.nan
        return Line(float(observed.mean()), 0.0, deviation, float(len(observed)), 0)

    def _widths(self, line: Line, steps: np.ndarray) -> np.ndarray:
        return np.full(len(steps), np.sqrt(1.0 + 1.0 / line.reach))


@dataclass(kw_only=True, eq=False, repr=False)
class Drift(_Average):
    """Go on by the mean change of each series, from its last observation.

    It is the line through the first and the last observation; the optimal forecast of a random
    walk with drift. Its intervals, without :meth:`calibrate`, are those of the normal distribution
    with the deviation ``s * sqrt(h * (1 + h / (T - 1)))`` at step h: s is the deviation of the
    changes between neighbouring observations around their mean, T counts the steps from the first
    to the last observation.

    References
    ----------
    Hyndman and Athanasopoulos, "Forecasting: principles and practice", 3rd edition, sections 5.2
    and 5.5, https://otexts.com/fpp3.

    Examples
    --------
    >>> import pandas as pd
    >>> from tsar.forecasting import Drift
    >>> sales = pd.Series([3.0, 5.0, 4.0], index=pd.date_range("2024-01-01", periods=3))
    >>> Drift(horizon=2).fit(sales).predict().tolist()
    [4.5, 5.0]
    """

    def _line(self, y: np.ndarray) -> Line:
        seen = np.flatnonzero(~np.isnan(y))
        first, last = seen[0], seen[-1]
        reach, passed = float(last - first), len(y) - 1 - int(last)
        if not reach:
            return Line(float(y[last]), 0.0, np.nan, 1.0, passed)
        slope = float(y[last] - y[first]) / reach
        changes = np.diff(y)
        errors = changes[~np.isnan(changes)] - slope
        # One is taken for the slope.
        deviation = np.sqrt(errors @ errors / (len(errors) - 1)) if len(errors) > 1 else np.nan
        return Line(float(y[last]) + passed * slope, slope, float(deviation), reach, passed)

    def _widths(self, line: Line, steps: np.ndarray) -> np.ndarray:
        return np.sqrt(steps * (1.0 + steps / line.reach))
