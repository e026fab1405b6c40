"""Forecasting many windows with a function that forecasts one batch of one length.

Dimension letters: B windows in a batch, L context steps, H horizon, C variates, Q quantiles.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tsar.core.ops.even_products import ROWS_AT_ONCE
from tsar.data.windows import Inputs, SeriesTensors

__all__ = [
    "ROWS_AT_ONCE",
    "roll",
    "roll_windows",
    "sample_paths",
    "steps_covering",
    "windows_at_once",
]

# Values in one batch of contexts: large enough to keep the processor busy, small enough that
# the memory does not depend on how many series there are.
BATCH_VALUES = 100_000


def windows_at_once(context_length: int, n_variates: int) -> int:
    """Return how many windows to forecast in one pass."""
    return max(BATCH_VALUES // (context_length * n_variates), 1)


def steps_covering(horizon: int, step: int) -> int:
    """Return the steps of so many forecasts of length ``step`` as cover a horizon."""
    return -(-horizon // step) * step


def roll_windows(
    forecast_batch: Callable[[Inputs], Tensor],
    point: Callable[[Tensor], Tensor],
    tensors: SeriesTensors,
    series: np.ndarray,
    cutoffs: np.ndarray,
    *,
    context_length: int,
    step: int,
    horizon: int,
) -> np.ndarray:
    """Forecast any number of steps after each cutoff.

    Parameters
    ----------
    forecast_batch : function
        Maps a batch of contexts to a forecast (B, H, C) or (B, H, C, Q).
    point : function
        Takes the point forecast (B, H, C) out of such a forecast.
    tensors : SeriesTensors
        The series.
    series, cutoffs : int64 arrays of shape (n_windows,)
        Which series each window is cut from, and the row at which its forecast begins.
    context_length : int
        Steps before the cutoff that are read.
    step : int
        H, the steps of one forecast.
    horizon : int
        Steps to forecast; beyond H, the point forecast is appended to the context, and
        past covariates keep their last value.

    Returns
    -------
    float64 array of shape (n_windows, horizon, C) or (n_windows, horizon, C, Q)
    """
    device = tensors.values.device
    owner = torch.from_numpy(np.asarray(series, dtype=np.int64)).to(device)
    cutoff = torch.from_numpy(np.asarray(cutoffs, dtype=np.int64)).to(device)
    # Windows with missing steps are forecast apart, so that a complete one has the same
    # forecast whatever else is in the frame.
    complete = _complete(tensors, owner, cutoff, context_length)
    size = windows_at_once(context_length, tensors.values.shape[1])
    forecast: np.ndarray | None = None
    for whole in (True, False):
        group = (complete == whole).nonzero()[:, 0]
        for part in group.split(size) if len(group) else ():
            filled = torch.cat([part, part[-1:].expand(-len(part) % ROWS_AT_ONCE)])
            history, seen = tensors.gather(
                owner[filled], cutoff[filled], context_length, 0, inside=whole
            )
            covariates = tensors.gather_covariates(
                owner[filled], cutoff[filled], context_length, steps_covering(horizon, step)
            )
            inputs = Inputs(history, None if whole else seen, **covariates)
            with torch.inference_mode():
                steps = roll(forecast_batch, point, inputs, step, horizon)[: len(part)]
            if forecast is None:
                forecast = np.empty((len(owner), *steps.shape[1:]))
            forecast[part.cpu().numpy()] = steps.cpu().double().numpy()
    assert forecast is not None, "there is at least one window"
    return forecast


def sample_paths(
    forecast_batch: Callable[[Inputs], Tensor],
    draw: Callable[[np.ndarray, int], np.ndarray],
    scale: Callable[[np.ndarray, int], np.ndarray],
    tensors: SeriesTensors,
    series: np.ndarray,
    cutoffs: np.ndarray,
    *,
    n_samples: int,
    context_length: int,
    step: int,
    horizon: int,
) -> np.ndarray:
    """Draw paths: what is drawn is appended to the context as if it had been observed.

    A window is forecast in batches of its own, so that its paths depend on no other window: not
    on how many there are, not on whether another one has missing steps, and not on the place
    in a batch, by which products round otherwise as well.

    Parameters
    ----------
    forecast_batch : function
        Maps a batch of contexts to a forecast (B, H, C, K), in scaled units.
    draw : function
        Draws paths (N, H, C), in original units, from forecasts (N, H, C, K) of the window
        with a number.
    scale : function
        Brings paths of the window with a number to the units of the contexts.
    tensors, series, cutoffs, context_length, step
        As in :func:`roll_windows`.
    n_samples : int
        N, the paths of each window.
    horizon : int
        Steps to draw.

    Returns
    -------
    float64 array of shape (n_windows, N, horizon, C)
        In original units.
    """
    n_variates = tensors.values.shape[1]
    device, reach = tensors.values.device, steps_covering(horizon, step)
    owner, cutoff = (
        torch.from_numpy(np.asarray(part, dtype=np.int64)).to(device) for part in (series, cutoffs)
    )
    complete = _complete(tensors, owner, cutoff, context_length).tolist()
    paths = np.empty((len(series), n_samples, reach, n_variates))
    for number in range(len(series)):
        here = slice(number, number + 1)
        history, seen = tensors.gather(owner[here], cutoff[here], context_length, 0)
        covariates = tensors.gather_covariates(owner[here], cutoff[here], context_length, reach)
        window = Inputs(history, None if complete[number] else seen, **covariates)

        def forecast(inputs: Inputs) -> np.ndarray:
            with torch.inference_mode():
                steps = forecast_batch(_reading(inputs, context_length + step))
            return np.asarray(steps.cpu().double().numpy())

        first = forecast(_repeated(window, ROWS_AT_ONCE))[:1]
        drawn = draw(np.repeat(first, n_samples, axis=0), number)
        paths[number, :, :step] = drawn
        if reach == step:
            continue
        inputs = _repeated(window, n_samples)
        for begin in range(step, reach, step):
            observed = torch.from_numpy(scale(drawn, number)).to(device, history.dtype)
            inputs = _moved_on(inputs, observed)
            drawn = draw(forecast(inputs), number)
            paths[number, :, begin : begin + step] = drawn
    return paths[:, :, :horizon]


def _complete(tensors: SeriesTensors, owner: Tensor, cutoff: Tensor, context_length: int) -> Tensor:
    """Return which windows have an observation at every step, shape (n_windows,)."""
    begin = cutoff - context_length
    complete = begin >= tensors.offsets[owner]
    if tensors.observed is None:
        return complete
    # Counting missing rows cumulatively answers every window with two look-ups.
    missing = (~tensors.observed).any(dim=1).cumsum(0)
    missing = torch.cat([missing.new_zeros(1), missing])
    return complete & (missing[cutoff] == missing[begin.clamp(min=0)])


def roll(
    forecast_batch: Callable[[Inputs], Tensor],
    point: Callable[[Tensor], Tensor],
    inputs: Inputs,
    step: int,
    horizon: int,
) -> Tensor:
    """Forecast one batch, feeding the point forecast back where the horizon is longer.

    Parameters
    ----------
    forecast_batch, point, step, horizon
        As in :func:`roll_windows`.
    inputs : Inputs
        Known covariates reach over the whole horizon; each pass reads its own part of them.

    Returns
    -------
    Tensor of shape (B, horizon, C) or (B, horizon, C, Q)
        With gradients where they are on.
    """
    reads = inputs.target.shape[1] + step
    parts = [forecast_batch(_reading(inputs, reads))]
    for _ in range(step, horizon, step):
        inputs = _moved_on(inputs, point(parts[-1]).to(inputs.target.dtype))
        parts.append(forecast_batch(_reading(inputs, reads)))
    return torch.cat(parts, dim=1)[:, :horizon]


def _repeated(inputs: Inputs, times: int) -> Inputs:
    """Return so many copies of every window, one after the other."""

    def repeated(part: Tensor | None) -> Tensor | None:
        return None if part is None else part.repeat_interleave(times, dim=0)

    target = inputs.target.repeat_interleave(times, dim=0)
    others = (inputs.observed, inputs.past, inputs.future, inputs.static, inputs.calendar)
    return Inputs(target, *map(repeated, others))


def _reading(inputs: Inputs, steps: int) -> Inputs:
    """Return inputs whose known covariates cover the steps of one pass."""

    def part(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[:, :steps]

    return replace(inputs, future=part(inputs.future), calendar=part(inputs.calendar))


def _moved_on(inputs: Inputs, steps: Tensor) -> Inputs:
    """Return inputs whose context ends with steps (B, H, C) that count as observed."""
    context, step = inputs.target.shape[1], steps.shape[1]
    observed, past = inputs.observed, inputs.past
    if observed is not None:
        seen = torch.ones_like(steps, dtype=torch.bool)
        observed = torch.cat([observed, seen], dim=1)[:, -context:]
    if past is not None:
        past = torch.cat([past, past[:, -1:].expand(-1, step, -1)], dim=1)[:, -context:]

    def later(part: Tensor | None) -> Tensor | None:
        return None if part is None else part[:, step:]

    return Inputs(
        torch.cat([inputs.target, steps], dim=1)[:, -context:],
        observed,
        past,
        later(inputs.future),
        inputs.static,
        later(inputs.calendar),
    )
