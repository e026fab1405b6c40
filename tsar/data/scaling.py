"""Scaling of series, by series and variate, and the tensors that networks read.

Statistics come from the part of a series that the caller names (the training part), are
computed in float64, and are applied before anything is rounded to float32: a series that
moves by 1 around a level of one billion keeps its movement.

Dimension letters: S series, C variates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from tsar.data.windows import SeriesTensors
from tsar.exceptions import DataError

__all__ = ["Scaling", "carry_forward", "series_tensors"]

# Values handled at a time: large enough for numpy, small beside the series themselves.
BLOCK_VALUES = 131_072
# What rounding alone leaves of a constant is no movement.
ROUNDING = 1e-13
# Of the standard deviation, a seasonal difference is at least so much.
SMALLEST_SHARE = 0.1


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation, or largest absolute value, of each series and variate.

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
        count, total, rest, squares = (np.zeros(shape) for _ in range(4))
        for block, owner, starts in _blocks(values, offsets, stop):
            seen = ~np.isnan(block)
            np.add.at(count, owner, np.add.reduceat(seen, starts, axis=0, dtype=np.float64))
            np.add.at(total, owner, np.add.reduceat(np.where(seen, block, 0.0), starts, axis=0))
        number = np.maximum(count, 1)
        mean = total / number
        for block, owner, starts in _blocks(values, offsets, stop):
            gap = block - np.repeat(mean[owner], np.diff(np.append(starts, len(block))), axis=0)
            gap[np.isnan(gap)] = 0.0
            np.add.at(rest, owner, np.add.reduceat(gap, starts, axis=0))
            np.add.at(squares, owner, np.add.reduceat(np.square(gap, out=gap), starts, axis=0))
        # What rounding left in the first mean is taken out of both results.
        rest /= number
        mean += rest
        scale = np.sqrt(np.maximum(squares / number - rest**2, 0.0))
        scale[scale <= ROUNDING * np.abs(mean)] = 0.0
        unknown = np.where(count > 0, 0.0, np.nan)
        return cls(mean + unknown, scale + unknown)

    @classmethod
    def measure_largest(
        cls, values: np.ndarray, offsets: np.ndarray, stop: np.ndarray
    ) -> "Scaling":
        """Measure the largest absolute value of the rows ``offsets[s]:stop[s]`` of every series.

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
            With a mean of 0, as scikit-learn's MaxAbsScaler.
        """
        largest = np.full((len(offsets) - 1, values.shape[1]), np.nan)
        for block, owner, starts in _blocks(values, offsets, stop):
            np.fmax.at(largest, owner, np.fmax.reduceat(np.abs(block), starts, axis=0))
        return cls(largest * 0.0, largest)

    @classmethod
    def measure_seasonal(
        cls, values: np.ndarray, offsets: np.ndarray, stop: np.ndarray, season: int
    ) -> "Scaling":
        """Measure what the seasonal naive misses in the rows ``offsets[s]:stop[s]``.

        The mean absolute difference of rows that are a season apart, which MASE divides by. Where
        it is less than a tenth of the standard deviation, or there is no such pair, it is that
        tenth, or the standard deviation: what repeats itself almost exactly would otherwise count
        without bounds.

        Parameters
        ----------
        values : float array of shape (rows, C)
            NaN where not observed.
        offsets : int64 array of shape (S + 1,)
            Row ranges of the series.
        stop : int64 array of shape (S,)
            Where the part to measure ends.
        season : int
            Steps in a season.

        Returns
        -------
        Scaling
            With the mean of :meth:`measure`.

        References
        ----------
        Hyndman and Koehler, "Another look at measures of forecast accuracy", International
        Journal of Forecasting 22, 2006, section 3.
        """
        standard = cls.measure(values, offsets, stop)
        count, total = (np.zeros(standard.scale.shape) for _ in range(2))
        for number, (begin, end) in enumerate(zip(offsets[:-1], stop, strict=True)):
            part = values[begin:end]
            apart = np.abs(part[season:].astype(np.float64) - part[:-season])
            seen = ~np.isnan(apart)
            count[number] = seen.sum(axis=0)
            total[number] = np.where(seen, apart, 0.0).sum(axis=0)
        missed = total / np.maximum(count, 1)
        least = SMALLEST_SHARE * standard.scale
        scale = np.where(count > 0, np.maximum(missed, least), standard.scale)
        # A series that is constant is one by any measure.
        return cls(standard.mean, np.where(standard.scale > 0, scale, standard.scale))

    @classmethod
    def identity(cls, n_series: int, n_variates: int) -> "Scaling":
        """Return the scaling that changes nothing."""
        return cls(np.zeros((n_series, n_variates)), np.ones((n_series, n_variates)))

    def without_change(self) -> "Scaling":
        """Return the scaling that changes nothing, unknown where this one is."""
        scaled = ~np.isnan(self.mean)
        return Scaling(np.where(scaled, 0.0, np.nan), np.where(scaled, 1.0, np.nan))

    def without_moving(self) -> "Scaling":
        """Return the scaling by the root mean square about zero, which keeps zero at zero."""
        return Scaling(self.mean * 0.0, np.sqrt(self.mean**2 + self.scale**2))

    def pooled(self) -> "Scaling":
        """Return one row, shape (1, C), for a series that has no history of its own."""
        scaled = ~np.isnan(self.mean)
        count = np.maximum(scaled.sum(axis=0), 1)
        mean = np.where(scaled, self.mean, 0.0).sum(axis=0) / count
        scale = np.where(scaled, self.scale, 0.0).sum(axis=0) / count
        return Scaling(mean[None], scale[None])

    def take(self, rows: np.ndarray) -> "Scaling":
        """Return the rows of other series, in their order."""
        return Scaling(self.mean[rows], self.scale[rows])

    def replaced(self, where: np.ndarray, other: "Scaling") -> "Scaling":
        """Take the statistics of ``other`` where a mask of shape (S, C) is True."""
        return Scaling(
            np.where(where, other.mean, self.mean), np.where(where, other.scale, self.scale)
        )

    def filled(self, other: "Scaling") -> "Scaling":
        """Replace what is unknown (NaN) by the statistics of ``other``."""
        return self.replaced(np.isnan(self.mean), other)

    def restore(self, scaled: np.ndarray) -> np.ndarray:
        """Bring scaled values of shape (S, H, C) or (S, H, C, Q) back to original units."""
        expand = (slice(None), None, slice(None)) + (None,) * (scaled.ndim - 3)
        return np.asarray(scaled * self.scale[expand] + self.mean[expand])


def _blocks(
    values: np.ndarray, offsets: np.ndarray, stop: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (rows as float64, their series, where each begins in them), some at a time.

    Long series are cut at their own rows and blocks have one layout in memory, so that the
    sums of a series, to the last bit, depend on nothing but its values.
    """
    size = _block_rows(values)
    begins = np.minimum(offsets[:-1], stop)
    pieces = -(-(stop - begins) // size)
    owner = np.repeat(np.arange(len(begins)), pieces)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    left = begins[owner] + number * size
    right = np.minimum(left + size, stop[owner])
    # Pieces that end in the same stretch of rows make a block.
    stretch = (np.cumsum(right - left) - 1) // size
    cuts = np.flatnonzero(np.diff(stretch)) + 1
    for first, last in pairwise([0, *cuts.tolist(), len(owner)]):
        if first == last:
            continue
        lengths = right[first:last] - left[first:last]
        starts = np.cumsum(lengths) - lengths
        begin, end = left[first], right[last - 1]
        if lengths.sum() == end - begin:
            block = values[begin:end]
        else:
            rows = np.repeat(left[first:last] - starts, lengths) + np.arange(lengths.sum())
            block = values[rows]
        yield np.ascontiguousarray(block, dtype=np.float64), owner[first:last], starts


def _block_rows(values: np.ndarray) -> int:
    return max(BLOCK_VALUES // values.shape[1], 1)


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

    Raises
    ------
    DataError
        Values that are not standardised are too large for the precision.
    """
    scaled = np.empty(values.shape, dtype=np.float32 if dtype == torch.float32 else np.float64)
    divisor = np.where(scaling.scale > 0, scaling.scale, 1.0)
    size = _block_rows(values)
    # What does not fit is looked for once, below.
    with np.errstate(over="ignore", invalid="ignore"):
        for begin in range(0, len(values), size):
            end = min(begin + size, len(values))
            owner = _owners(offsets, begin, end)
            block = values[begin:end] - scaling.mean[owner]
            block /= divisor[owner]
            scaled[begin:end] = block
        complete = np.isfinite(scaled.sum())
        scale = np.minimum(scaling.scale, np.finfo(scaled.dtype).max).astype(scaled.dtype)
    observed = None
    if not complete:
        _check_finite(values, scaled)
        seen = ~np.isnan(scaled)
        carry_forward(scaled, seen, offsets)
        observed = None if seen.all() else torch.from_numpy(seen).to(device)
    return SeriesTensors(
        torch.from_numpy(scaled).to(device),
        observed,
        torch.from_numpy(offsets).to(device),
        torch.from_numpy(scale).to(device),
    )


def _check_finite(values: np.ndarray, scaled: np.ndarray) -> None:
    if np.isinf(scaled).any():
        raise DataError(
            f"the values reach {np.nanmax(np.abs(values)):.3g}, more than {scaled.dtype} holds "
            f"without scaling; set scaler='standard', or pass the data in larger units"
        )


def _owners(offsets: np.ndarray, begin: int, end: int) -> np.ndarray:
    """Return the series of the rows ``begin:end``; one entry where it is the same for all."""
    first = int(np.searchsorted(offsets, begin, side="right")) - 1
    if offsets[first + 1] >= end:
        return np.array([first])
    return np.searchsorted(offsets, np.arange(begin, end), side="right") - 1


def carry_forward(values: np.ndarray, seen: np.ndarray, offsets: np.ndarray) -> None:
    """Overwrite missing values by the last observed one of the series, or by 0."""
    size = _block_rows(values)
    # The row of the last observation so far, by variate.
    latest = np.full((1, values.shape[1]), -1)
    for begin in range(0, len(values), size):
        end = min(begin + size, len(values))
        source = np.where(seen[begin:end], np.arange(begin, end)[:, None], -1)
        source[:1] = np.maximum(source[:1], latest)
        np.maximum.accumulate(source, axis=0, out=source)
        latest = source[-1:].copy()
        observed = source >= offsets[_owners(offsets, begin, end)][:, None]
        carried = np.take_along_axis(values, np.maximum(source, 0), axis=0)
        values[begin:end] = np.where(observed, carried, 0.0)
