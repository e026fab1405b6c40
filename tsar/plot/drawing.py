"""Lines, areas, dates and legends."""

from typing import Any

import numpy as np
import pandas as pd

from tsar.data.timeaxis import TimeAxis, read_times

__all__ = [
    "OBSERVED",
    "add_legend",
    "add_page_legend",
    "draw_line",
    "placeable",
    "positions",
    "shade",
    "written",
]

OBSERVED = "0.55"
# How dark the widest interval is where it lies alone, and the narrowest on all others.
LIGHTEST, DARKEST = 0.2, 0.5
# By which a legend of ours is known, and how wide one entry of it is, in inches.
OURS, ENTRY = "tsar.plot", 1.15


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


def shade(
    ax: Any,
    times: pd.Index,
    intervals: dict[float, tuple[np.ndarray, np.ndarray]],
    color: str,
    *,
    label: bool = True,
) -> None:
    """Draw intervals by their percentage, the widest first and lightest.

    They lie on each other. The legend shows what is then seen, by patches without extent: no
    single layer is that dark.
    """
    x = positions(ax, times)
    seen, behind = np.linspace(LIGHTEST, DARKEST, len(intervals)), 0.0
    for percentage, dark in zip(sorted(intervals, reverse=True), seen, strict=True):
        low, high = intervals[percentage]
        layer = 1 - (1 - dark) / (1 - behind)
        ax.fill_between(x, low, high, color=color, alpha=layer, linewidth=0)
        if label:
            ax.fill([], [], color=color, alpha=dark, linewidth=0, label=f"{percentage:g} %")
        behind = dark


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
    # A line through one point cannot be seen.
    marker = "o" if len(x) == 1 else marker
    ax.plot(x, np.asarray(values), style, color=color, label=label, marker=marker, markersize=3)


def positions(ax: Any, times: pd.Index) -> np.ndarray:
    """Return where to draw; times of a zone are labelled as its clocks show them."""
    times = placeable(times)
    if not isinstance(times, pd.DatetimeIndex):
        return times.to_numpy()
    _write_short_dates(ax.xaxis, times.tz)
    if times.tz is not None:
        times = times.tz_convert("UTC").tz_localize(None)
    return times.to_numpy()


def _write_short_dates(axis: Any, tz: Any) -> None:
    """Write of each date what changes; the rest stands once, at the end of the axis."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if tz is not None:
        axis.axis_date(tz)
    # Whoever chose other dates for these axes keeps them.
    if axis.isDefault_majfmt:
        locator = AutoDateLocator(tz=tz, minticks=3, maxticks=7)
        axis.set_major_locator(locator)
        axis.set_major_formatter(ConciseDateFormatter(locator, tz=tz))


def add_legend(ax: Any) -> None:
    """Explain lines and areas above the axes, or once for all axes of the figure.

    Nothing lies on the data. A legend of the figure replaces those drawn here before.
    """
    figure = ax.figure
    if len(figure.axes) > 1:
        add_page_legend(figure.axes)
        return
    # As many beside each other as there is room for.
    room = ax.get_position().width * figure.bbox.width / figure.dpi / ENTRY
    corner: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
    _write_legend(ax, [ax], room, borderaxespad=0.2, **corner)


def add_page_legend(axes: Any) -> None:
    """Explain the lines and areas of all axes of a figure once, above them."""
    figure = axes[0].figure
    drawn = [one.get_legend() for one in axes if one.get_legend() is not None] + figure.legends
    for legend in drawn:
        if legend.get_gid() == OURS:
            legend.remove()
    room = figure.bbox.width / figure.dpi / ENTRY
    _write_legend(figure, axes, room, loc="outside upper right")


def _write_legend(owner: Any, axes: Any, room: float, **where: Any) -> None:
    entries = {key: handle for ax in axes for key, handle in _explained(ax).items()}
    if not entries:
        return
    # Rows are filled evenly where one would be too long.
    n_rows = -(-len(entries) // max(int(room), 1))
    legend = owner.legend(
        list(entries.values()),
        [label for label, _ in entries],
        ncols=-(-len(entries) // n_rows),
        frameon=False,
        fontsize="small",
        columnspacing=1.2,
        **where,
    )
    legend.set_gid(OURS)


def _explained(ax: Any) -> dict[tuple[str, str], Any]:
    """Return what a legend has to explain, by its label and colour."""
    from matplotlib.colors import to_hex

    handles, labels = ax.get_legend_handles_labels()
    entries: dict[tuple[str, str], Any] = {}
    for handle, label in zip(handles, labels, strict=True):
        line = hasattr(handle, "get_color")
        color = handle.get_color() if line else handle.get_facecolor()
        entries.setdefault((label, to_hex(color, keep_alpha=True)), handle)
    return entries
