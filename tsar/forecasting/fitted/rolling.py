"""Forecasting many windows with a function that forecasts one batch of one length.

Dimension letters: B windows in a batch, L context steps, H horizon, C variates, Q quantiles.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tsar.data.windows import Inputs, SeriesTensors

__all__ = ["roll_windows", "sample_paths", "windows_at_once"]

# Values in one batch of contexts: large enough to keep the processor busy, small enough that
# the memory does not depend on how many series there are.
BATCH_VALUES = 100_000
# Matrix products of fewer rows run through other kernels, which round otherwise; with this
# many, a window has the same forecast bit for bit whatever else is forecast beside it.
SMALLEST_BATCH = 4


def windows_at_once(context_length: int, n_variates: int) -> int:
    """Return how many windows to forecast in one pass."""
    return max(BATCH_VALUES // (context_length * n_variates), 1)


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
        past covariates keep their last value. Future covariates of later steps are not
        read: they keep the value of the last step.

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
            filled = torch.cat([part, part[-1:].expand(max(SMALLEST_BATCH - len(part), 0))])
            history, seen = tensors.gather(owner[filled], cutoff[filled], context_length, 0)
            covariates = tensors.gather_covariates(
                owner[filled], cutoff[filled], context_length, -(-horizon // step) * step
            )
            future = covariates.get("future")
            if future is not None:
                # Nobody has to know what comes after the steps that are asked for.
                asked = context_length + horizon
                future[:, asked:] = future[:, asked - 1 : asked]
            inputs = Inputs(history, None if whole else seen, **covariates)
            with torch.inference_mode():
                steps = _roll(forecast_batch, point, inputs, step, horizon)[: len(part)]
            if forecast is None:
                forecast = np.empty((len(owner), *steps.shape[1:]))
            forecast[part.cpu().numpy()] = steps.cpu().double().numpy()
    assert forecast is not None, "there is at least one window"
    return forecast


def sample_paths(
    forecast_batch: Callable[[Inputs], Tensor],
    draw: Callable[[Tensor, np.ndarray], Tensor],
    scale: Callable[[Tensor, np.ndarray], Tensor],
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

    Parameters
    ----------
    forecast_batch : function
        Maps a batch of contexts to a forecast (B, H, C, K).
    draw : function
        Draws (B, N, H, C) from forecasts (B, N, H, C, K) of the windows with some numbers.
    scale : function
        Brings what was drawn to the units of the contexts.
    tensors, series, cutoffs, context_length, step, horizon
        As in :func:`roll_windows`.
    n_samples : int
        N, the paths of each window.

    Returns
    -------
    float64 array of shape (n_windows, N, horizon, C)
        In the units of ``draw``.
    """
    device = tensors.values.device
    n_variates = tensors.values.shape[1]
    size = windows_at_once(context_length * n_samples, n_variates)
    paths = np.empty((len(series), n_samples, horizon, n_variates))
    for numbers in np.split(np.arange(len(series)), range(size, len(series), size)):
        owner = torch.from_numpy(np.asarray(series[numbers], dtype=np.int64)).to(device)
        cutoff = torch.from_numpy(np.asarray(cutoffs[numbers], dtype=np.int64)).to(device)
        history, seen = tensors.gather(owner, cutoff, context_length, 0)
        covariates = tensors.gather_covariates(
            owner, cutoff, context_length, -(-horizon // step) * step
        )
        # One copy of a window for each of its paths.
        inputs = Inputs(
            **{
                name: None if part is None else part.repeat_interleave(n_samples, dim=0)
                for name, part in {"target": history, "observed": seen, **covariates}.items()
            }  # type: ignore[arg-type]
        )

        def drawn(inputs: Inputs, numbers: np.ndarray = numbers) -> Tensor:
            forecast = forecast_batch(inputs).cpu().double()
            return draw(forecast.unflatten(0, (-1, n_samples)), numbers).flatten(0, 1)

        def known(drawn: Tensor, numbers: np.ndarray = numbers) -> Tensor:
            return scale(drawn.unflatten(0, (-1, n_samples)), numbers).flatten(0, 1).to(device)

        with torch.inference_mode():
            steps = _roll(drawn, known, inputs, step, horizon)
        paths[numbers] = steps.unflatten(0, (-1, n_samples)).numpy()
    return paths


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


def _roll(
    forecast_batch: Callable[[Inputs], Tensor],
    point: Callable[[Tensor], Tensor],
    inputs: Inputs,
    step: int,
    horizon: int,
) -> Tensor:
    """Forecast one batch, feeding the point forecast back where the horizon is longer.

    Known covariates reach over the whole horizon; each pass reads its own part of them.
    """
    context = inputs.target.shape[1]
    future, calendar = inputs.future, inputs.calendar
    target, observed, past = inputs.target, inputs.observed, inputs.past
    parts: list[Tensor] = []
    for begin in range(0, horizon, step):
        if parts:
            known = point(parts[-1]).to(target.dtype)
            target = torch.cat([target, known], dim=1)[:, -context:]
            if observed is not None:
                seen = torch.ones_like(known, dtype=torch.bool)
                observed = torch.cat([observed, seen], dim=1)[:, -context:]
            if past is not None:
                past = torch.cat([past, past[:, -1:].expand(-1, step, -1)], dim=1)[:, -context:]
        part = slice(begin, begin + context + step)
        parts.append(
            forecast_batch(
                Inputs(
                    target,
                    observed,
                    past,
                    None if future is None else future[:, part],
                    inputs.static,
                    None if calendar is None else calendar[:, part],
                )
            )
        )
    return torch.cat(parts, dim=1)[:, :horizon]
