"""Figures of comparisons. They are returned, and neither shown nor saved."""

from typing import Any

from tsar.evaluation.comparison import Leaderboard
from tsar.exceptions import ParameterError
from tsar.plot.axes import axes_or_new
from tsar.plot.drawing import written

__all__ = ["leaderboard"]


def leaderboard(board: Leaderboard, ax: Any = None) -> Any:
    """Draw the metric of each model with its bootstrap interval, the best on top.

    Models of the 90 % confidence set are filled, and a line marks the baseline.

    Parameters
    ----------
    board : Leaderboard
        What :func:`tsar.evaluation.compare` returns.
    ax : matplotlib Axes or None
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib Axes
        Not shown and not saved.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    ParameterError
        If the board is none.
    """
    if not isinstance(board, Leaderboard):
        raise ParameterError(
            f"plot.leaderboard: board must be what tsar.evaluation.compare returned, got "
            f"{type(board).__name__}"
        )
    frame = board.frame[board.frame[board.metric].notna()]
    ax = axes_or_new("plot.leaderboard", ax, size=(7, 1 + 0.4 * len(frame)))
    best = board.confidence_set()
    for place, (_, row) in enumerate(frame.iterrows()):
        low, high = row.get(f"{board.metric}_low"), row.get(f"{board.metric}_high")
        if low is not None and high is not None:
            ax.hlines(place, low, high, color="C0")
        filled = "C0" if row["model"] in best else "white"
        ax.plot(row[board.metric], place, "o", color="C0", markerfacecolor=filled)
    against = frame.loc[frame["model"] == board.baseline, board.metric]
    if len(against):
        ax.axvline(float(against.iloc[0]), color="0.7", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(frame)), [written(name) for name in frame["model"]])
    # The best on top, and room for its point.
    ax.set_ylim(len(frame) - 0.5, -0.5)
    ax.set_xlabel(written(board.metric))
    return ax
