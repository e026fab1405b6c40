"""How well attributions find what a function reads, where that is known."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsar.exceptions import DataError

__all__ = ["aup", "aur", "mask_entropy", "mask_information"]

Floats = NDArray[np.float64]

# Keeps logarithms and quotients finite; part of the published numbers.
SMALL = 1e-5


def aup(truth: ArrayLike, attribution: ArrayLike) -> float:
    """Return the area under precision by threshold.

    Parameters
    ----------
    truth : bool array of shape (n_samples, ...)
        Which entries are read.
    attribution : float array of the same shape
        The larger, the more an entry is said to be read. Each sample is brought to [0, 1], and
        the entries of all of them are counted together.

    Returns
    -------
    float
        In [0, 1], the trapezoids between the attributions that occur; larger is better.

    Raises
    ------
    DataError
        The arrays differ in shape, hold values that are not finite, or no entry is read.

    References
    ----------
    Crabbé and van der Schaar, "Explaining time series predictions with dynamic masks",
    ICML 2021.
    """
    thresholds, right, n_above, _ = _curves("aup", truth, attribution)
    return _area(thresholds, right / n_above)


def aur(truth: ArrayLike, attribution: ArrayLike) -> float:
    """Return the area under recall by threshold.

    Parameters
    ----------
    truth, attribution
        As :func:`aup` takes them.

    Returns
    -------
    float
        In [0, 1]; larger is better.

    Raises
    ------
    DataError
        As from :func:`aup`.
    """
    thresholds, right, _, n_true = _curves("aur", truth, attribution)
    return _area(thresholds, right / n_true)


def mask_information(truth: ArrayLike, attribution: ArrayLike) -> float:
    """Return how sure attributions are of the entries that are read, in bits.

    Parameters
    ----------
    truth, attribution
        As :func:`aup` takes them.

    Returns
    -------
    float
        The sum of ``|log2(1 - a)|`` over the entries that are read, ``a`` being the attribution
        in [0, 1]; larger is better.

    Raises
    ------
    DataError
        As from :func:`aup`.
    """
    read, scaled = _scaled("mask_information", truth, attribution)
    return float(np.abs(np.log2(1 - scaled[read] + SMALL)).sum())


def mask_entropy(truth: ArrayLike, attribution: ArrayLike) -> float:
    """Return how undecided attributions are of the entries that are read, in bits.

    Parameters
    ----------
    truth, attribution
        As :func:`aup` takes them.

    Returns
    -------
    float
        The sum of the entropies of the attributions in [0, 1] over the entries that are read;
        smaller is better.

    Raises
    ------
    DataError
        As from :func:`aup`.
    """
    read, scaled = _scaled("mask_entropy", truth, attribution)
    of_read = scaled[read]
    bits = of_read * np.abs(np.log2(of_read + SMALL))
    return float((bits + (1 - of_read) * np.abs(np.log2(1 - of_read + SMALL))).sum())


def _area(x: Floats, y: Floats) -> float:
    """Return the sum of the trapezoids below a curve."""
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


def _scaled(
    owner: str, truth: ArrayLike, attribution: ArrayLike
) -> tuple[NDArray[np.bool_], Floats]:
    """Return both arrays, the attributions of each sample brought to [0, 1]."""
    read = np.asarray(truth).astype(bool)
    values = np.asarray(attribution, dtype=np.float64)
    if read.shape != values.shape or read.ndim < 2:
        raise DataError(
            f"{owner}: truth and attribution must have one shape (n_samples, ...), got "
            f"{read.shape} and {values.shape}; a single sample needs a first axis of 1"
        )
    if not np.isfinite(values).all():
        raise DataError(
            f"{owner}: attribution must be finite, got {int((~np.isfinite(values)).sum())} values "
            f"that are not; leave these entries out of both arrays"
        )
    if not read.any():
        raise DataError(f"{owner}: truth must mark entries that are read, got none; mark them")
    axes = tuple(range(1, values.ndim))
    low, high = values.min(axis=axes, keepdims=True), values.max(axis=axes, keepdims=True)
    return read, (values - low) / (high - low + SMALL)


def _curves(
    owner: str, truth: ArrayLike, attribution: ArrayLike
) -> tuple[Floats, Floats, Floats, int]:
    """Return thresholds, and of each how many entries reach it: those read, and all of them."""
    read, scaled = _scaled(owner, truth, attribution)
    order = np.argsort(scaled, axis=None)[::-1]
    values, hits = scaled.ravel()[order], read.ravel()[order].cumsum()
    # The last of equal attributions.
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)[::-1]
    return values[ends], hits[ends].astype(np.float64), ends + 1.0, int(hits[-1])
