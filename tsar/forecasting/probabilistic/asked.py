"""What ``predict`` is asked for beside the point forecast, and the frame that answers.

Dimension letters: S series, H horizon, C variates.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tsar.data.forecasts import forecast_frame, interval_keys, quantile_key, sample_frame
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.exceptions import ParameterError
from tsar.forecasting.outputs.distributions import DISTRIBUTIONS
from tsar.forecasting.probabilistic.sampling import draw_samples
from tsar.params.arguments import check_percentages, check_samples

if TYPE_CHECKING:
    from tsar.forecasting.base import Forecaster

__all__ = ["Asked", "calibrated_ends", "ensure_intervals", "read_asked", "write_forecast"]


@dataclass(frozen=True)
class Asked:
    """What ``predict`` is asked for.

    Parameters
    ----------
    quantiles : dict of str to float
        Quantiles of the forecast in (0, 1), by the end of the name of their column.
    samples : int or None
        How many samples to return in place of the forecast.
    levels : tuple of float
        Intervals, in percent, that the calibration gives.
    units : float array of shape (S, C) or None
        For these, the size of the errors of each series.
    """

    quantiles: dict[str, float]
    samples: int | None
    levels: tuple[float, ...] = ()
    units: np.ndarray | None = None

    def of_series(self, model: "Forecaster", panel: Panel, horizon: int) -> "Asked":
        """Return the same with the size of the errors of each series, if that is needed."""
        if not self.levels:
            return self
        assert model._calibration is not None, "only a calibration gives such levels"
        model._calibration.check_reach(model._name, horizon, panel.variates)
        return replace(self, units=model._calibration.units(panel))


def read_asked(model: "Forecaster", quantiles: Any, level: Any, samples: Any) -> Asked:
    """Check what a fitted model is asked for, before any work.

    Parameters
    ----------
    model : Forecaster
    quantiles, level, samples
        As ``predict`` takes them.

    Raises
    ------
    ParameterError
        The model has no such thing.
    """
    predictive, name = model._predictive, model._name
    keys = {quantile_key(share): share for share in predictive.check_quantiles(name, quantiles)}
    levels: tuple[float, ...] = ()
    percentages = check_percentages(name, level)
    if model._calibration is not None:
        levels = tuple(percentages)
        model._calibration.check(name, percentages)
    else:
        for percentage in percentages:
            bounds = predictive.interval_quantiles(name, percentage)
            keys |= dict(zip(interval_keys(percentage), bounds, strict=True))
    if samples is None:
        return Asked(keys, None, levels)
    if not predictive.can_sample:
        raise ParameterError(
            f"{name}: predict(samples=...) needs a model fitted with a distribution; set loss to "
            f"one of {', '.join(map(repr, DISTRIBUTIONS))} before fit"
        )
    if keys or levels:
        raise ParameterError(
            f"{name}: samples come in a frame of their own; call predict once with samples= and "
            f"once with quantiles= or level="
        )
    return Asked({}, check_samples(name, samples))


def ensure_intervals(model: "Forecaster", df: Any, level: Any, horizon: int) -> None:
    """Calibrate a model that was just fitted, unless it gives intervals by itself.

    Parameters
    ----------
    model : Forecaster
    df : DataFrame or Series
        What it was fitted on.
    level : float, sequence of float or None
        In percent.
    horizon : int

    Raises
    ------
    ParameterError, DataError
        There are too few rows.
    """
    try:
        read_asked(model, None, level, None)
    except ParameterError:
        model.calibrate(df, level=level, horizon=horizon, refit=True)


def write_forecast(
    model: "Forecaster",
    asked: Asked,
    panel: Panel,
    variates: pd.Index,
    scaling: Scaling,
    horizon: int,
    future: dict[Any, np.ndarray],
) -> Any:
    """Forecast the steps after each series, and write what was asked for.

    Parameters
    ----------
    model : Forecaster
    asked : Asked
    panel : Panel
        The ends of the series, variates in the order of the fit.
    variates : Index of shape (C,)
        The order to write them in.
    scaling : Scaling
        Of each series.
    horizon : int
    future : dict of name to array of shape (S, horizon)
        Future covariates.

    Returns
    -------
    DataFrame or Series
    """
    order = panel.variates.get_indexer(variates)
    if asked.samples is not None:
        drawn = draw_samples(model, panel, scaling, horizon, future, asked.samples)
        samples = model._in_range(drawn[..., order])
        with model._named_errors():
            return sample_frame(panel, variates, samples, model.horizon_)
    forecast = model._forecast(panel, scaling, horizon, future)
    beside = {key: model._quantile(forecast, share) for key, share in asked.quantiles.items()}
    beside |= _calibrated(model, asked, panel, forecast)
    beside = {key: values[:, :, order] for key, values in beside.items()}
    point = model._point(forecast)[:, :, order]
    with model._named_errors():
        return forecast_frame(panel, variates, point, beside, model.horizon_)


def _calibrated(
    model: "Forecaster", asked: Asked, panel: Panel, forecast: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the ends (S, H, C) of the calibrated intervals, by the end of their column."""
    calibration = model._calibration
    if calibration is None or asked.units is None:
        return {}
    point = model._point(forecast)
    low, high = point, point
    if calibration.quantiles is not None:
        low, high = (model._predictive.quantile(forecast, share) for share in calibration.quantiles)
    return calibrated_ends(model, asked, panel, point, (low, high))


def calibrated_ends(
    model: "Forecaster",
    asked: Asked,
    panel: Panel,
    point: np.ndarray,
    between: tuple[np.ndarray, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return the ends of calibrated intervals, by the end of the name of their column.

    Parameters
    ----------
    model : Forecaster
        Calibrated.
    asked : Asked
        With the units of the series, see :meth:`Asked.of_series`.
    panel : Panel
        The series that are forecast.
    point : float array of shape (S, H, C)
    between : pair of float arrays of shape (S, H, C)
        The quantiles that are moved; the point forecast twice where there are none.

    Returns
    -------
    dict of str to float array of shape (S, H, C)
    """
    calibration, units = model._calibration, asked.units
    assert calibration is not None and units is not None, "asked of a calibrated model"
    low, high = between
    found: dict[str, np.ndarray] = {}
    for level in asked.levels:
        margins = calibration.margins(level, panel, units, point.shape[1])
        # An interval that has shrunk to nothing is the point forecast.
        bounds = np.minimum(low - margins, point), np.maximum(high + margins, point)
        ends = (model._in_range(bound) for bound in bounds)
        found |= dict(zip(interval_keys(level), ends, strict=True))
    return found
