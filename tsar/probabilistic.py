"""What ``predict`` is asked for beside the point forecast, and the frame that answers.

Dimension letters: S series, H horizon, C variates.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tsar.data.forecasts import forecast_frame, interval_keys, quantile_key, sample_frame
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.exceptions import ParameterError
from tsar.params import check_percentages, check_samples
from tsar.sampling import draw_samples
from tsar.training.distributions import DISTRIBUTIONS

if TYPE_CHECKING:
    from tsar.base import Forecaster

__all__ = ["Asked", "read_asked", "write_forecast"]


@dataclass(frozen=True)
class Asked:
    """What ``predict`` is asked for.

    Parameters
    ----------
    quantiles : dict of str to float
        Quantiles of the forecast in (0, 1), by the end of the name of their column.
    samples : int or None
        How many samples to return in place of the forecast.
    """

    quantiles: dict[str, float]
    samples: int | None


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
    for percentage in check_percentages(name, level):
        bounds = predictive.interval_quantiles(name, percentage)
        keys |= dict(zip(interval_keys(percentage), bounds, strict=True))
    if samples is None:
        return Asked(keys, None)
    if not predictive.can_sample:
        raise ParameterError(
            f"{name}: predict(samples=...) needs a model fitted with a distribution; set loss to "
            f"one of {', '.join(map(repr, DISTRIBUTIONS))} before fit"
        )
    if keys:
        raise ParameterError(
            f"{name}: samples come in a frame of their own; call predict once with samples= and "
            f"once with quantiles= or level="
        )
    return Asked({}, check_samples(name, samples))


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
    forecast = model._forecast(panel, scaling, horizon, future)[:, :, order]
    beside = {key: model._quantile(forecast, share) for key, share in asked.quantiles.items()}
    with model._named_errors():
        return forecast_frame(panel, variates, model._point(forecast), beside, model.horizon_)
