"""What ``predict`` is asked for beside the point forecast, and the frame that answers.

Dimension letters: S series, H horizon, C variates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.forecasts import (
    by_series_or_variate,
    forecast_frame,
    interval_keys,
    quantile_key,
    sample_frame,
)
from tsar.data.panel import Panel
from tsar.exceptions import ParameterError
from tsar.forecasting.fitted.windowed import after_fitted as join_fitted
from tsar.forecasting.fitted.windowed import window_histories
from tsar.forecasting.outputs.distributions import DISTRIBUTIONS
from tsar.forecasting.outputs.predictive import Predictive
from tsar.forecasting.probabilistic.calibration import Calibration
from tsar.forecasting.probabilistic.intervals import Intervals
from tsar.forecasting.probabilistic.paths import arranged
from tsar.params.arguments import check_fractions, check_percentages, check_samples

__all__ = [
    "Answers",
    "OutputRequest",
    "answer",
    "check_asked",
    "ensure_intervals",
    "read_request",
    "sample",
    "write_forecast",
]


@dataclass(frozen=True)
class OutputRequest:
    """What ``predict`` is asked for.

    Parameters
    ----------
    quantiles : dict of str to float
        Quantiles of the forecast in (0, 1), by the end of the name of their column.
    samples : int or None
        How many samples to return in place of the forecast.
    levels : tuple of float
        Intervals, in percent, that the calibration gives.
    bounds : dict of str to float
        Quantiles that the calibration gives around a point forecast.
    """

    quantiles: dict[str, float]
    samples: int | None
    levels: tuple[float, ...] = ()
    bounds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """What was asked for of some windows.

    Parameters
    ----------
    values : dict of str to float64 array of shape (W, H, C)
        By the end of the name of the column; that of the point forecast is empty.
    replaced : dict of pair of int to str
        Windows and variates for which a simpler model stands in, and why.
    """

    values: dict[str, np.ndarray]
    replaced: Mapping[tuple[int, int], str]


def read_request(model: Intervals, quantiles: Any, level: Any, samples: Any) -> OutputRequest:
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
    return check_asked(model.name, model.predictive, model.calibration_, quantiles, level, samples)


def check_asked(
    name: str,
    predictive: Predictive,
    calibration: Calibration | None,
    quantiles: Any,
    level: Any,
    samples: Any,
) -> OutputRequest:
    """Check what is asked of forecasts of one kind.

    Parameters
    ----------
    name : str
        Of the model, for messages.
    predictive : Predictive
        What the numbers of its forecasts are.
    calibration : Calibration or None
    quantiles, level, samples
        As ``predict`` takes them.

    Raises
    ------
    ParameterError
        There is no such thing.
    """
    keys: dict[str, float] = {}
    one_sided: dict[str, float] = {}
    if calibration is not None and not predictive.has_quantiles:
        one_sided = {quantile_key(share): share for share in check_fractions(name, quantiles)}
        calibration.check_quantiles(name, list(one_sided.values()))
    else:
        keys = {quantile_key(share): share for share in predictive.check_quantiles(name, quantiles)}
    levels: tuple[float, ...] = ()
    percentages = check_percentages(name, level)
    if calibration is not None:
        levels = tuple(percentages)
        calibration.check(name, percentages)
    else:
        for percentage in percentages:
            bounds = predictive.interval_quantiles(name, percentage)
            keys |= dict(zip(interval_keys(percentage), bounds, strict=True))
    if samples is None:
        return OutputRequest(keys, None, levels, one_sided)
    if calibration is not None:
        calibration.check_paths(name)
    elif not predictive.can_sample:
        raise ParameterError(
            f"{name}: predict(samples=...) needs a calibrated model, or one fitted with a "
            f"distribution; call calibrate(df), or fit a model that is trained, such as NLinear, "
            f"with loss one of {', '.join(map(repr, DISTRIBUTIONS))}"
        )
    if keys or levels or one_sided:
        raise ParameterError(
            f"{name}: samples come in a frame of their own; call predict once with samples= and "
            f"once with quantiles= or level="
        )
    return OutputRequest({}, check_samples(name, samples))


def ensure_intervals(
    model: Intervals, df: Any, level: Any, horizon: int, samples: int | None = None
) -> None:
    """Calibrate a model that was just fitted, unless it gives intervals and samples by itself.

    Parameters
    ----------
    model : Forecaster
    df : DataFrame or Series
        What it was fitted on.
    level : float, sequence of float or None
        In percent.
    horizon : int
    samples : int or None

    Raises
    ------
    ParameterError, DataError
        There are too few rows.
    """
    try:
        read_request(model, None, level, None)
        read_request(model, None, None, samples)
    except ParameterError:
        model.calibrate(df, level=level, horizon=horizon, refit=True)


def write_forecast(
    model: Intervals,
    outputs: OutputRequest,
    panel: Panel,
    variates: pd.Index,
    horizon: int,
    known_ahead: Mapping[Any, np.ndarray],
    **how: Any,
) -> Any:
    """Forecast the steps after each series, and write what was asked for.

    Parameters
    ----------
    model : Forecaster
    outputs : OutputRequest
    panel : Panel
        The series, variates in the order of the fit.
    variates : Index of shape (C,)
        The order to write them in.
    horizon : int
    known_ahead : mapping of name to array of shape (S, any)
        Future covariates.
    **how
        Passed on to the forecast of the model.

    Returns
    -------
    DataFrame or Series
    """
    order = panel.variates.get_indexer(variates)
    owners, rows = np.arange(panel.n_series), panel.offsets[1:]
    if outputs.samples is not None:
        samples = sample(model, outputs.samples, panel, owners, rows, horizon, known_ahead, **how)
        with model.named_errors():
            return sample_frame(panel, variates, samples[..., order], model.horizon_)
    answers = answer(model, outputs, panel, owners, rows, horizon, known_ahead, **how)
    beside = {key: values[:, :, order] for key, values in answers.values.items()}
    point = beside.pop("")
    with model.named_errors():
        written = forecast_frame(panel, variates, point, beside, model.horizon_)
    written.attrs["fallback"] = by_series_or_variate(panel, answers.replaced)
    return written


def sample(
    model: Intervals,
    n_samples: int,
    panel: Panel,
    owners: np.ndarray,
    rows: np.ndarray,
    horizon: int,
    known_ahead: Mapping[Any, np.ndarray] | None = None,
    *,
    after_fitted: bool = False,
    **how: Any,
) -> np.ndarray:
    """Draw paths of windows: of a calibrated model such whose steps belong together.

    Parameters
    ----------
    model : Forecaster
        For which it was checked that it can sample.
    n_samples : int
    panel, owners, rows, horizon, known, after_fitted
        As :meth:`tsar.forecasting.fitted.contract.FittedForecaster.forecast` takes them.
    **how
        Passed on to it as well.

    Returns
    -------
    float64 array of shape (W, N, H, C)
    """
    calibration = model.calibration_
    if calibration is not None:
        calibration.check_reach(model.name, horizon, panel.variates)
    forecasts = model.forecast(
        panel,
        owners,
        rows,
        horizon,
        known_ahead,
        samples=n_samples if model.predictive.can_sample else None,
        after_fitted=after_fitted,
        **how,
    )
    if calibration is None:
        assert forecasts.samples is not None, "it was checked that the model can sample"
        return forecasts.samples
    paths, seed = calibration.paths, model.sampling_seed
    assert paths is not None, "it was checked that there are some"
    ids, variates = panel.ids[owners], panel.variates
    errors = paths.draw(ids, variates, n_samples, seed)
    if forecasts.samples is not None:
        return arranged(forecasts.samples, errors, ids, horizon, seed)
    if after_fitted:
        panel, rows = join_fitted(panel, owners, rows, model.end_)
    there, back = _error_scale(model, calibration)
    drawn = np.empty((len(owners), n_samples, horizon, len(variates)))
    for part, histories in window_histories(panel, owners, rows, np.arange(len(owners))):
        units = calibration.units(_mapped(histories, there))[:, None, None]
        moved = there(forecasts.point[part])[:, None] + errors[part][:, :, :horizon] * units
        drawn[part] = model.in_range(back(moved))
    return drawn


def answer(
    model: Intervals,
    outputs: OutputRequest,
    panel: Panel,
    owners: np.ndarray,
    rows: np.ndarray,
    horizon: int,
    known_ahead: Mapping[Any, np.ndarray] | None = None,
    *,
    after_fitted: bool = False,
    **how: Any,
) -> Answers:
    """Forecast windows, with the quantiles and intervals that are asked for.

    Parameters
    ----------
    model : Forecaster
    outputs : OutputRequest
        No samples.
    panel, owners, rows, horizon, known, after_fitted
        As :meth:`tsar.forecasting.fitted.contract.FittedForecaster.forecast` takes them.
    **how
        Passed on to it as well.

    Returns
    -------
    Answers
    """
    calibration = model.calibration_ if outputs.levels or outputs.bounds else None
    if calibration is not None:
        calibration.check_reach(model.name, horizon, panel.variates)
    moved = (calibration.quantiles or ()) if calibration is not None else ()
    forecasts = model.forecast(
        panel,
        owners,
        rows,
        horizon,
        known_ahead,
        [*outputs.quantiles.values(), *moved],
        after_fitted=after_fitted,
        **how,
    )
    answers = {"": forecasts.point}
    answers |= {key: forecasts.quantiles[share] for key, share in outputs.quantiles.items()}
    if calibration is None:
        return Answers(answers, forecasts.replaced)
    if after_fitted:
        panel, rows = join_fitted(panel, owners, rows, model.end_)
    there, back = _error_scale(model, calibration)
    middle = there(forecasts.point)
    low, high = (there(forecasts.quantiles[share]) for share in moved) if moved else (middle,) * 2
    for part, histories in window_histories(panel, owners, rows, np.arange(len(owners))):
        histories = _mapped(histories, there)
        units, point = calibration.units(histories), middle[part]
        moved_to: dict[str, np.ndarray] = {}
        for level in outputs.levels:
            margins = calibration.margins(level, histories, units, horizon)
            # An interval that has shrunk to nothing is the point forecast.
            ends = np.minimum(low[part] - margins, point), np.maximum(high[part] + margins, point)
            moved_to |= dict(zip(interval_keys(level), ends, strict=True))
        for key, share in outputs.bounds.items():
            moved_to[key] = point + calibration.shifts(share, panel.variates, units, horizon)
        for key, values in moved_to.items():
            beside = answers.setdefault(key, np.empty_like(forecasts.point))
            beside[part] = model.in_range(back(values))
    return Answers(answers, forecasts.replaced)


def _error_scale(
    model: Intervals, calibration: Calibration
) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Return the way to the scale on which a calibration has its errors, and the way back."""
    if calibration.on_error_scale:
        return model.to_error_scale, model.from_error_scale
    return _same, _same


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _mapped(panel: Panel, function: Callable[[np.ndarray], np.ndarray]) -> Panel:
    return panel.with_values(function(panel.values), panel.variates)
