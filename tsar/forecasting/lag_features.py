"""What a regression reads of a window: lags, seasons, rolling statistics, calendar and covariates.

Dimension letters: B windows, L context steps, H horizon, C variates, n columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from tsar.data.covariates import ColumnCoding, CovariateCoding
from tsar.data.scaling import ROUNDING
from tsar.data.windows import Inputs
from tsar.params.records import Length

__all__ = ["LagFeatures", "LagFeaturesRecord", "WindowRows"]

# Values of a phase that are read one by one, and over how many of them their mean goes.
PHASES_READ, PHASES_AVERAGED = 2, 4


class LagFeaturesRecord(TypedDict):
    """A :class:`LagFeatures` as JSON."""

    lags: list[Length]
    seasons: list[Length]


@dataclass(frozen=True)
class WindowRows:
    """Windows as rows of a regression, one for each window, variate and step.

    What is regressed is ``(y - level) / scale - reference``.

    Parameters
    ----------
    x : float64 array of shape (B, C, H, n)
        0, the mean of the window, where nothing was observed.
    level, scale : float64 arrays of shape (B, C)
        Mean and deviation of the values of a window, 0 where nothing was observed or moved.
    reference : float64 array of shape (B, C, H)
        The value of the same phase a season before, in these units.
    """

    x: np.ndarray
    level: np.ndarray
    scale: np.ndarray
    reference: np.ndarray

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Bring values (B, C, H) to what is regressed."""
        divisor = np.where(self.scale > 0, self.scale, 1.0)
        return (values - self.level[..., None]) / divisor[..., None] - self.reference

    def restored(self, values: np.ndarray) -> np.ndarray:
        """Bring what is regressed (B, C, H, any) to original units."""
        expand = (slice(None), slice(None), None, None)
        return self.level[expand] + self.scale[expand] * (values + self.reference[..., None])


@dataclass(frozen=True)
class LagFeatures:
    """Which values of its past a step is forecast from.

    Parameters
    ----------
    lags : tuple of int
        Values before the origin, 1 the latest.
    seasons : tuple of int
        Cycles at whose phase values are read, the shortest first.
    """

    lags: tuple[int, ...]
    seasons: tuple[int, ...]

    @property
    def context_rows(self) -> int:
        """How many rows before the origin are read, L."""
        rolling = 2 * max(self._rolling_windows)
        return max(*self.lags, rolling, *(PHASES_AVERAGED * season for season in self.seasons))

    @property
    def _rolling_windows(self) -> tuple[int, ...]:
        """Over how many rows means go: the seasons, else as many as there are lags."""
        return self.seasons or (len(self.lags),)

    def rows(self, inputs: Inputs, horizon: int, coding: CovariateCoding) -> WindowRows:
        """Return the rows of all steps of windows.

        Parameters
        ----------
        inputs : Inputs
            In original units.
        horizon : int
            H
        coding : CovariateCoding
            Of the covariates.
        """
        history = np.ascontiguousarray(inputs.target.numpy().transpose(0, 2, 1))
        if inputs.observed is not None:
            history = np.where(inputs.observed.numpy().transpose(0, 2, 1), history, np.nan)
        level, scale = _moments(history)
        scale = np.where(scale <= ROUNDING * np.abs(level), 0.0, scale)
        level, scale = np.nan_to_num(level), np.nan_to_num(scale)
        z = (history - level[..., None]) / np.where(scale > 0, scale, 1.0)[..., None]
        shape = (*level.shape, horizon)
        at_origin = np.stack([z[..., -lag] for lag in self.lags] + self._rolling(z), axis=-1)
        of_step = [np.broadcast_to(np.arange(1.0, horizon + 1), shape)]
        for season in self.seasons:
            of_step += _at_phase(z, season, horizon)
        last = np.broadcast_to(z[..., -1:], shape)
        reference = np.nan_to_num(of_step[1] if self.seasons else last)
        covariates = self._covariates(inputs, horizon, coding)
        parts = [
            np.broadcast_to(at_origin[:, :, None], (*shape, at_origin.shape[-1])),
            np.stack(of_step, axis=-1),
            np.broadcast_to(covariates[:, None], (*shape, covariates.shape[-1])),
        ]
        x = np.nan_to_num(np.concatenate(parts, axis=-1))
        return WindowRows(x, level, scale, reference)

    def n_columns(self, coding: CovariateCoding) -> int:
        """Return n, how many numbers a row has."""
        n_seasons = len(self.seasons)
        of_series = (
            len(self.lags) + 3 * len(self._rolling_windows) + 1 + (PHASES_READ + 1) * n_seasons
        )
        future = _width(coding.future) * (1 + bool(n_seasons))
        return of_series + coding.n_calendar + future + _width((*coding.past, *coding.static))

    def _rolling(self, z: np.ndarray) -> list[np.ndarray]:
        """Return means and deviations of the last seasons, and the change of the mean."""
        parts = []
        for window in self._rolling_windows:
            mean, deviation = _moments(z[..., -window:])
            parts += [mean, deviation, mean - _moments(z[..., -2 * window : -window])[0]]
        return parts

    def _covariates(self, inputs: Inputs, horizon: int, coding: CovariateCoding) -> np.ndarray:
        """Return covariates of all steps, (B, H, any)."""
        batch, length = inputs.target.shape[:2]
        parts = [np.empty((batch, horizon, 0))]
        if inputs.calendar is not None:
            parts.append(inputs.calendar.numpy()[:, length : length + horizon])
        if inputs.future is not None:
            future = _in_columns(inputs.future.numpy(), coding.future)
            parts.append(future[:, length : length + horizon])
            if self.seasons:
                # What was known of the step that the reference is from.
                parts.append(future[:, _phase_places(length, self.seasons[0], horizon)])
        for values, columns in ((inputs.past, coding.past), (inputs.static, coding.static)):
            if values is not None:
                latest = values.numpy() if values.ndim == 2 else values.numpy()[:, -1]
                parts.append(np.repeat(_in_columns(latest, columns)[:, None], horizon, axis=1))
        return np.concatenate(parts, axis=-1, dtype=np.float64)


def _moments(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation over the last axis of what is no NaN; NaN where all are."""
    seen = ~np.isnan(z)
    count = seen.sum(axis=-1)
    number = np.maximum(count, 1)
    mean = np.where(seen, z, 0.0).sum(axis=-1) / number
    gap = np.where(seen, z - mean[..., None], 0.0)
    deviation = np.sqrt((gap**2).sum(axis=-1) / number)
    nothing = np.where(count > 0, 0.0, np.nan)
    return mean + nothing, deviation + nothing


def _phase_places(length: int, season: int, horizon: int) -> np.ndarray:
    """Return where in a context the latest value of the phase of each step is, (H,)."""
    return length - season + np.arange(horizon) % season


def _at_phase(z: np.ndarray, season: int, horizon: int) -> list[np.ndarray]:
    """Return values (B, C, L) at the phase of each step in the last seasons, and their mean."""
    place = _phase_places(z.shape[-1], season, horizon)
    values = np.stack([z[..., place - back * season] for back in range(PHASES_AVERAGED)], axis=-1)
    return [*np.moveaxis(values[..., :PHASES_READ], -1, 0), _moments(values)[0]]


def _width(columns: Sequence[ColumnCoding]) -> int:
    return sum(1 if one.categories is None else one.n_categories - 1 for one in columns)


def _in_columns(values: np.ndarray, columns: Sequence[ColumnCoding]) -> np.ndarray:
    """Return coded covariates (..., any) with a column of zeros and ones for each category."""
    parts = []
    for place, column in enumerate(columns):
        codes = values[..., place, None]
        if column.categories is not None:
            codes = codes == np.arange(1, column.n_categories)
        parts.append(codes.astype(np.float64))
    return np.concatenate(parts, axis=-1)
