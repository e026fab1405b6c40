"""Lines and areas over time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.timeaxis import TimeAxis, read_times

__all__ = ["OBSERVED", "draw_line", "placeable", "positions", "shade", "widest_first", "written"]

OBSERVED = "0.55"
# The narrowest interval is this dark, wider ones are lighter.
DARKEST = 0.35


def written(name: Any) -> str:
    """Return a name as matplotlib shows it: what stands between two dollar signs is no formula."""
    return str(name).replace("$", r"\$")


def placeable(times: pd.Index, like: TimeAxis | None = None) -> pd.Index:
    """Return times as matplotlib can place them.

    Parameters
    ----------
    times : Index of shape (rows,)
        As forecasters read them.
    like : TimeAxis or None
        How times were written that these go on with, see :func:`tsar.data.timeaxis.read_times`.
    """
    if isinstance(times, pd.PeriodIndex):
        return times.to_timestamp()
    if times.dtype.kind in "iufM" or isinstance(times, pd.DatetimeIndex):
        return times
    read = read_times(times, like)
    missing = read.faults.get("timestamp")
    placed = read.axis.times(read.stamps)
    if isinstance(placed, pd.PeriodIndex):
        placed = placed.to_timestamp()
    return placed if missing is None else placed.where(~missing)


def widest_first(
    intervals: dict[float, tuple[np.ndarray, np.ndarray]],
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    for percentage in sorted(intervals, reverse=True):
        yield percentage, *intervals[percentage]


def shade(
    ax: Any,
    times: pd.Index,
    low: np.ndarray,
    high: np.ndarray,
    percentage: float | None,
    count: int,
    color: str,
) -> None:
    label = None if percentage is None else f"{percentage:g} %"
    x = positions(ax, times)
    ax.fill_between(x, low, high, color=color, alpha=DARKEST / count, linewidth=0, label=label)


def draw_line(
    ax: Any,
    times: pd.Index,
    values: Any,
    *,
    color: str,
    label: str | None,
    style: str = "-",
    marker: str | None = None,
) -> None:
    x = positions(ax, times)
    label = "_nolegend_" if label is None else label
    ax.plot(x, np.asarray(values), style, color=color, label=label, marker=marker, markersize=3)


def positions(ax: Any, times: pd.Index) -> np.ndarray:
    """Return where to draw; times of a zone are labelled as its clocks show them."""
    times = placeable(times)
    if isinstance(times, pd.DatetimeIndex) and times.tz is not None:
        ax.xaxis.axis_date(times.tz)
        return times.tz_convert("UTC").tz_localize(None).to_numpy()
    return times.to_numpy()
