"""Standardisation of series, by series and variate, and the tensors that networks read.

Statistics come from the part of a series that the caller names (the training part), are
computed in float64, and are applied before anything is rounded to float32: a series that
moves by 1 around a level of one billion keeps its movement.

Dimension letters: S series, C variates.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tsar.data.windows import SeriesTensors

__all__ = ["Scaling", "series_tensors"]

# Rows handled at a time: large enough for numpy, small beside the series themselves.
BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each series and variate.

    Attributes
    ----------
    mean, scale : float64 arrays of shape (S, C)
        NaN where a series has no observed value. The scale of a constant series is 0:
        it is divided by 1 and multiplied back by 0, so that its forecast is the constant.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def measure(cls, values: np.ndarray, offsets: np.ndarray, stop: np.ndarray) -> "Scaling":
        """Measure the rows ``offsets[s]:stop[s]`` of every series.

        Parameters
        ----------
        values : float array of shape (rows, C)
            NaN where not observed.
        offsets : int64 array of shape (S + 1,)
            Row ranges of the series.
        stop : int64 array of shape (S,)
            Where the part to measure ends.

        Returns
        -------
        Scaling
            With the biased standard deviation, as scikit-learn's StandardScaler.
        """
        shape = (len(offsets) - 1, values.shape[1])
        count, total, deviation = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for block, owner, starts in _blocks(values, offsets, stop):
            seen = ~np.isnan(block)
            count[owner] += np.add.reduceat(seen, starts, axis=0, dtype=np.float64)
            total[owner] += np.add.reduceat(np.where(seen, block, 0.0), starts, axis=0)
        with np.errstate(invalid="ignore"):
            mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        for block, owner, starts in _blocks(values, offsets, stop):
            lengths = np.diff(np.append(starts, len(block)))
            gap = block - np.repeat(mean[owner], lengths, axis=0)
            squares = np.where(np.isnan(gap), 0.0, gap) ** 2
            deviation[owner] += np.add.reduceat(squares, starts, axis=0)
        scale = np.sqrt(deviation / np.maximum(count, 1))
        # What rounding alone leaves of a constant is no movement.
        scale[scale <= 1e-13 * np.abs(mean)] = 0.0
        return cls(mean, np.where(count > 0, scale, np.nan))

    def without_change(self) -> "Scaling":
        """Return the scaling that changes nothing, unknown where this one is."""
        known = ~np.isnan(self.mean)
        return Scaling(np.where(known, 0.0, np.nan), np.where(known, 1.0, np.nan))

    def pooled(self) -> "Scaling":
        """Return one row, shape (1, C), for a series that has no history of its own."""
        known = ~np.isnan(self.mean)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, self.mean, 0.0).sum(axis=0) / count
        scale = np.where(known, self.scale, 0.0).sum(axis=0) / count
        return Scaling(mean[None], scale[None])

    def take(self, rows: np.ndarray) -> "Scaling":
        """Return the rows of other series, in their order."""
        return Scaling(self.mean[rows], self.scale[rows])

    def filled(self, other: "Scaling") -> "Scaling":
        """Replace what is unknown (NaN) by the statistics of ``other``."""
        unknown = np.isnan(self.mean)
        return Scaling(
            np.where(unknown, other.mean, self.mean), np.where(unknown, other.scale, self.scale)
        )

    def restore(self, scaled: np.ndarray) -> np.ndarray:
        """Bring scaled values of shape (S, H, C) or (S, H, C, Q) back to original units."""
        expand = (slice(None), None, slice(None)) + (None,) * (scaled.ndim - 3)
        return np.asarray(scaled * self.scale[expand] + self.mean[expand])


def _blocks(
    values: np.ndarray, offsets: np.ndarray, stop: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (rows, their series, where each series begins in them), a few rows at a time."""
    for begin in range(0, len(values), BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, len(values))
        first = int(np.searchsorted(offsets, begin, side="right")) - 1
        last = int(np.searchsorted(offsets, end, side="left"))
        owner = np.arange(first, last)
        left = np.maximum(offsets[first:last], begin)
        right = np.minimum(stop[first:last], end)
        owner, left, right = (array[left < right] for array in (owner, left, right))
        if not len(owner):
            continue
        lengths = right - left
        starts = np.cumsum(lengths) - lengths
        if lengths.sum() == end - begin:
            yield values[begin:end], owner, starts
        else:
            rows = np.repeat(left - starts, lengths) + np.arange(lengths.sum())
            yield values[rows], owner, starts


def series_tensors(
    values: np.ndarray,
    offsets: np.ndarray,
    scaling: Scaling,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> SeriesTensors:
    """Scale series and put them on a device.

    Parameters
    ----------
    values : float array of shape (rows, C)
        NaN where not observed.
    offsets : int64 array of shape (S + 1,)
        Row ranges of the series.
    scaling : Scaling
        One row per series.
    device : torch.device
        Where the tensors go.
    dtype : torch.dtype
        Precision of the values.

    Returns
    -------
    SeriesTensors
        A missing step carries the last observation of its series forward.
    """
    scaled = np.empty(values.shape, dtype=np.float32 if dtype == torch.float32 else np.float64)
    divisor = np.where(scaling.scale > 0, scaling.scale, 1.0)
    lengths = np.diff(offsets)
    for begin in range(0, len(values), BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, len(values))
        owner = np.searchsorted(offsets, np.arange(begin, end), side="right") - 1
        if len(lengths) == 1:
            owner = np.zeros(1, dtype=np.int64)
        block = values[begin:end] - scaling.mean[owner]
        block /= divisor[owner]
        scaled[begin:end] = block
    observed = None
    if np.isnan(scaled.sum()):
        seen = ~np.isnan(scaled)
        _carry_forward(scaled, seen, offsets)
        observed = torch.from_numpy(seen).to(device)
    return SeriesTensors(
        torch.from_numpy(scaled).to(device),
        observed,
        torch.from_numpy(offsets).to(device),
        torch.from_numpy(scaling.scale.astype(scaled.dtype)).to(device),
    )


def _carry_forward(values: np.ndarray, seen: np.ndarray, offsets: np.ndarray) -> None:
    """Overwrite missing values by the last observed one of the series, or by 0."""
    begins = np.repeat(offsets[:-1], np.diff(offsets))
    rows = np.arange(len(values))
    for variate in range(values.shape[1]):
        source = np.maximum.accumulate(np.where(seen[:, variate], rows, -1))
        known = source >= begins
        column = values[:, variate]
        column[:] = np.where(known, column[np.maximum(source, 0)], 0.0)
