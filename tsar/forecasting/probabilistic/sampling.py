"""Samples of forecasts: values drawn step by step, and paths beyond the fitted horizon.

Dimension letters: S series, N samples, H horizon, C variates, K numbers per step.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.forecasting.fitted.rolling import sample_paths
from tsar.forecasting.outputs.predictive import series_generator

if TYPE_CHECKING:
    from tsar.forecasting.base import Forecaster

__all__ = ["draw_samples"]


def draw_samples(
    model: "Forecaster",
    tail: Panel,
    scaling: Scaling,
    horizon: int,
    future: dict[Any, np.ndarray],
    n_samples: int,
) -> np.ndarray:
    """Draw samples of the steps after each series, in original units.

    Every series has a generator of its own, so that its samples do not depend on what else
    is forecast. Up to the fitted horizon the steps of a sample are independent, given the
    history; beyond it, every path continues what was drawn for it.

    Parameters
    ----------
    model : Forecaster
        Fitted with a distribution.
    tail : Panel
        The series.
    scaling : Scaling
        Theirs.
    horizon, n_samples : int
    future : dict of name to array of shape (S, horizon)
        Future covariates.

    Returns
    -------
    float64 array of shape (S, N, horizon, C)
    """
    predictive = model._predictive
    generators = [series_generator(model._seed, name) for name in tail.ids]
    # A horizon within the fitted one is drawn in full: a shorter one is the first part of it.
    reach = model._reach(horizon)
    if reach == model.horizon_:
        forecast = model._forecast(tail, scaling, reach, future)
        repeated = np.repeat(forecast[:, None], n_samples, axis=1)
        drawn = [predictive.sample(*pair) for pair in zip(repeated, generators, strict=True)]
        return np.stack(drawn)[:, :, :horizon]
    divisor = np.where(scaling.scale > 0, scaling.scale, 1.0)

    def draw(forecast: Tensor, series: np.ndarray) -> Tensor:
        some = scaling.take(series)
        n_windows, _, n_steps = forecast.shape[:3]
        # The statistics of a series hold for all of its paths.
        flat = forecast.numpy().reshape(n_windows, n_samples * n_steps, *forecast.shape[3:])
        restored = predictive.restore(flat, some).reshape(forecast.shape)
        drawn = [
            predictive.sample(one, generators[place])
            for one, place in zip(restored, series, strict=True)
        ]
        return torch.from_numpy(np.stack(drawn))

    def scale(drawn: Tensor, series: np.ndarray) -> Tensor:
        mean, unit = scaling.mean[series], divisor[series]
        return (drawn - torch.from_numpy(mean)[:, None, None]) / torch.from_numpy(unit)[
            :, None, None
        ]

    paths = sample_paths(
        model._forecast_batch,
        draw,
        scale,
        model._tensors(tail, scaling, ahead=reach, future=future),
        np.arange(tail.n_series),
        tail.offsets[1:],
        n_samples=n_samples,
        context_length=model._context_rows,
        step=model.horizon_,
        horizon=reach,
    )
    return paths[:, :, :horizon]
