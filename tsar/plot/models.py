"""Figures of fitted models."""

from typing import Any

import numpy as np
import pandas as pd

from tsar.exceptions import DataError, ParameterError
from tsar.params.constraints import check_count
from tsar.plot.axes import axes_or_new
from tsar.plot.drawing import OBSERVED, add_legend, written

__all__ = ["coefficients", "importance", "learning_curve"]


def coefficients(model: Any, *, ax: Any = None) -> Any:
    """Draw the coefficients of an autoregression over their lags.

    Parameters
    ----------
    model : forecaster
        Fitted, one with ``coefficients_`` such as :class:`~tsar.ARNet`.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError
        The model has no ``coefficients_``.
    """
    owner = "plot.coefficients"
    ax = axes_or_new(owner, ax)
    table = getattr(model, "coefficients_", None)
    if not isinstance(table, pd.DataFrame):
        raise ParameterError(
            f"{owner}: model must be a fitted forecaster with coefficients_, such as ARNet without "
            f"hidden layers, got {type(model).__name__}"
        )
    n_variates = table.shape[1]
    ax.axhline(0.0, color="0.7", linewidth=0.8)
    for place, name in enumerate(table.columns):
        # Side by side within the lag.
        lags = table.index + 0.6 * ((place + 0.5) / n_variates - 0.5)
        values = table.iloc[:, place]
        ax.vlines(lags, 0.0, values, color=f"C{place}")
        ax.plot(lags, values, "o", color=f"C{place}", markersize=4, label=written(name))
    ax.set_xlabel("lag")
    ax.set_ylabel("coefficient")
    if n_variates > 1:
        add_legend(ax)
    return ax


def importance(explained: pd.DataFrame, *, most: int = 20, ax: Any = None) -> Any:
    """Draw how much each input moves the forecast, as its share, the largest first.

    Parameters
    ----------
    explained : DataFrame
        What ``explain`` of a forecaster returned. Of several series and variates, the mean
        of their shares is drawn.
    most : int
        How many inputs to draw.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    DataError
        The frame is another one.
    ParameterError
        ``most`` is no such number.
    """
    owner = "plot.importance"
    check_count(owner, "most", most)
    needed = {"role", "input", "share"}
    if not isinstance(explained, pd.DataFrame) or not needed <= set(explained.columns):
        raise DataError(
            f"{owner}: explained must be the frame that explain(df) returned, got "
            f"{type(explained).__name__}"
        )
    of_history = explained["role"] == "history"
    names = (
        explained["input"]
        .astype(str)
        .where(~of_history, explained["input"].astype(str) + ", history")
    )
    keys = [name for name in ("id", "variate") if name in explained]
    n_forecasts = len(explained[keys].drop_duplicates())
    # What moves some of the variates only is no input of the others, a share of 0.
    shares = explained.groupby(names, sort=False)["share"].sum() / n_forecasts
    shown = shares.sort_values(ascending=False, kind="stable")[:most][::-1]
    ax = axes_or_new(owner, ax, size=(7, 1 + 0.4 * len(shown)))
    ax.barh(np.arange(len(shown)), shown, height=0.6, color="C0")
    ax.set_yticks(np.arange(len(shown)), [written(name) for name in shown.index])
    ax.set_xlabel("share of what moves the forecast")
    return ax


def learning_curve(model: Any, *, ax: Any = None) -> Any:
    """Draw the training and validation loss by epoch, and the epoch whose weights are kept.

    Parameters
    ----------
    model : forecaster
        Fitted, one that is trained.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError
        The model has no ``history_``.
    """
    owner = "plot.learning_curve"
    ax = axes_or_new(owner, ax)
    history = getattr(model, "history_", None)
    if not history:
        raise ParameterError(
            f"{owner}: model must be a fitted forecaster that is trained, got "
            f"{type(model).__name__} without history_"
        )
    names = {"train_loss": "training", "val_loss": "validation"}
    for place, (key, label) in enumerate(names.items()):
        losses = np.asarray(history.get(key, ()), dtype=np.float64)
        if len(losses) and not np.isnan(losses).all():
            epochs = np.arange(1, len(losses) + 1)
            ax.plot(epochs, losses, marker="o", markersize=3, color=f"C{place}", label=label)
    best = model.best_epoch_
    ax.axvline(best, color=OBSERVED, linewidth=0.8, zorder=0, label=f"kept: epoch {best}")
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss, in standardised units")
    add_legend(ax)
    return ax
