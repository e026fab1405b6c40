"""The protocols of published tables: every test window, z-scored, or its last step alone."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from tsar.data.datasets import Borders, DatasetCard
from tsar.evaluation.metrics import corr, rse
from tsar.exceptions import DataError

__all__ = ["evaluate", "evaluate_last_step"]


class WindowForecaster(Protocol):
    """What :func:`evaluate` asks of a fitted estimator."""

    horizon: Any

    def forecast_windows(self, df: pd.DataFrame, cutoffs: np.ndarray, horizon: int) -> np.ndarray:
        """Forecast the rows ``[cutoff, cutoff + horizon)`` of each window.

        Parameters
        ----------
        df : pandas.DataFrame
            Wide frame.
        cutoffs : int array of shape (n_windows,)
            Row of ``df`` at which each forecast begins; the model sees the rows before.
        horizon : int
            Steps to forecast.

        Returns
        -------
        array of shape (n_windows, horizon, n_variates)
            In original units.
        """


def evaluate(
    model: WindowForecaster,
    frame: pd.DataFrame,
    borders: Borders | DatasetCard | Sequence[int],
    *,
    drop_last: bool = False,
    batch_size: int = 32,
) -> dict[str, float]:
    """Measure a fitted model on every test window, as the published tables do.

    A window forecasts ``model.horizon`` rows of the test part; its context reaches back
    over the border. Errors are divided by the standard deviation of the training rows,
    variate by variate, and averaged over windows, steps and variates, entries that were
    not observed left out.

    Parameters
    ----------
    model : fitted estimator
        It must not have seen rows after ``val_end``.
    frame : pandas.DataFrame
        Wide frame, a column per variate, longer than ``test_end`` or equal.
    borders : Borders, DatasetCard or (train_end, val_end, test_end)
        The split.
    drop_last : bool
        Leave out the windows of the last incomplete batch. Most tables before 2024 were
        computed so; the default measures every window.
    batch_size : int
        Windows forecast at a time. It changes no figure unless ``drop_last`` is set.

    Returns
    -------
    dict
        ``mse``, ``mae`` and ``n_windows``.

    Raises
    ------
    DataError
        If the frame is too short, or no window is left.
    """
    split = _borders(borders)
    horizon = int(model.horizon)
    values = frame.to_numpy(np.float64)
    if len(values) < split.test_end:
        raise DataError(
            f"evaluate: the frame has {len(values)} rows, the test part ends at {split.test_end}"
        )
    cutoffs = np.arange(split.val_end, split.test_end - horizon + 1)
    if drop_last:
        cutoffs = cutoffs[: len(cutoffs) // batch_size * batch_size]
    if not len(cutoffs):
        raise DataError(
            f"evaluate: {split.test_end - split.val_end} test rows leave no window of "
            f"horizon={horizon}{f' in a batch of {batch_size}' if drop_last else ''}"
        )
    deviation = _deviation(values[: split.train_end])
    steps = np.arange(horizon)
    squared = absolute = 0.0
    count = 0
    for begin in range(0, len(cutoffs), batch_size):
        batch = cutoffs[begin : begin + batch_size]
        forecast = model.forecast_windows(frame, batch, horizon)
        errors = (forecast - values[batch[:, None] + steps]) / deviation  # (windows, H, C)
        errors = errors[~np.isnan(values[batch[:, None] + steps])]
        squared += float(np.square(errors).sum())
        absolute += float(np.abs(errors).sum())
        count += errors.size
    if not count:
        raise DataError("evaluate: no value of the test part was observed")
    return {"mse": squared / count, "mae": absolute / count, "n_windows": len(cutoffs)}


def evaluate_last_step(
    model: WindowForecaster,
    frame: pd.DataFrame,
    borders: Borders | DatasetCard | Sequence[int],
    *,
    batch_size: int = 32,
) -> dict[str, float]:
    """Measure the last step of the horizon at every row of the test part, as LSTNet's tables do.

    Row ``t`` is forecast from the rows up to ``t - model.horizon``. Errors are in original units,
    those of all variates together.

    Parameters
    ----------
    model : fitted estimator
        It must not have seen rows after ``val_end``.
    frame : pandas.DataFrame
        Wide frame, a column per variate, longer than ``test_end`` or equal.
    borders : Borders, DatasetCard or (train_end, val_end, test_end)
        The split.
    batch_size : int
        Windows forecast at a time. It changes no figure.

    Returns
    -------
    dict
        ``rse``, ``corr`` and ``n_windows``.

    Raises
    ------
    DataError
        If the frame is too short, or the test part is empty.

    References
    ----------
    G. Lai, W.-C. Chang, Y. Yang and H. Liu, "Modeling long- and short-term temporal patterns
    with deep neural networks", SIGIR 2018, section 4.2.
    """
    split = _borders(borders)
    horizon = int(model.horizon)
    values = frame.to_numpy(np.float64)
    if not split.val_end < split.test_end <= len(values):
        raise DataError(
            f"evaluate_last_step: the test part must be rows of the frame, which has "
            f"{len(values)}, got {split.val_end} to {split.test_end}; change the borders"
        )
    cutoffs = np.arange(split.val_end, split.test_end) - horizon + 1
    forecast = np.concatenate(
        [
            model.forecast_windows(frame, cutoffs[begin : begin + batch_size], horizon)[:, -1]
            for begin in range(0, len(cutoffs), batch_size)
        ]
    )
    truth = values[split.val_end : split.test_end]
    errors = {"rse": rse(truth, forecast), "corr": corr(truth, forecast)}
    return {**errors, "n_windows": len(cutoffs)}


def _borders(borders: Borders | DatasetCard | Sequence[int]) -> Borders:
    if isinstance(borders, Borders):
        return borders
    if isinstance(borders, DatasetCard):
        if borders.borders is None:
            raise DataError(f"evaluate: the card of {borders.name} has no published split")
        return borders.borders
    return Borders(*borders)


def _deviation(values: np.ndarray) -> np.ndarray:
    """Return the population standard deviation of each column, 1 where it is constant."""
    deviation = np.nanstd(values, axis=0)
    return np.where(deviation > 0, deviation, 1.0)
