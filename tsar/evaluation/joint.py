"""Scores of whole windows in a backtest with samples, a loss for every row.

Dimension letters: W windows, H steps, N samples.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tsar.evaluation.probabilistic import energy_scores, variogram_scores

__all__ = ["energy_losses", "variogram_losses"]

Floats = NDArray[np.float64]


def energy_losses(truth: Floats, samples: Floats, windows: np.ndarray) -> Floats:
    """Return the energy score of the window of every row, over its observed steps.

    Parameters
    ----------
    truth : float array of shape (rows,)
        NaN where not observed; such a row has the loss of its window as well.
    samples : float array of shape (rows, N)
    windows : int64 array of shape (rows,)
        Which window each row is of; its rows are in the order of their steps.

    Returns
    -------
    float64 array of shape (rows,)
    """
    return _by_window(energy_scores, truth, samples, windows)


def variogram_losses(truth: Floats, samples: Floats, windows: np.ndarray) -> Floats:
    """Return the variogram score, of order a half, of the window of every row.

    Parameters
    ----------
    truth, samples, windows
        As :func:`energy_losses` takes them.

    Returns
    -------
    float64 array of shape (rows,)
    """
    return _by_window(variogram_scores, truth, samples, windows)


def _by_window(
    score: Callable[[Floats, Floats], Floats], truth: Floats, samples: Floats, windows: np.ndarray
) -> Floats:
    """Score windows with equally many observed steps together."""
    observed = ~np.isnan(truth)
    counts = np.bincount(windows, weights=observed).astype(np.int64)
    order = np.flatnonzero(observed)[np.argsort(windows[observed], kind="stable")]
    of_row = windows[order]
    scores = np.full(len(counts), np.nan)
    for n_steps in np.unique(counts[counts > 0]):
        chosen = np.flatnonzero(counts == n_steps)
        rows = order[np.isin(of_row, chosen)].reshape(len(chosen), n_steps)
        scores[chosen] = score(truth[rows], samples[rows].swapaxes(1, 2))
    return scores[windows]
