"""Figures of comparisons. They are returned, and neither shown nor saved."""

from typing import Any

from tsar.evaluation.comparison import Leaderboard
from tsar.exceptions import ParameterError
from tsar.plot.axes import axes_or_new
from tsar.plot.drawing import written

__all__ = ["critical_difference", "leaderboard"]


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
    _check_board("plot.leaderboard", board)
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


def critical_difference(board: Leaderboard, ax: Any = None, *, alpha: float = 0.05) -> Any:
    """Draw the mean rank of each model, and join those that do not differ critically.

    Parameters
    ----------
    board : Leaderboard
        What :func:`tsar.evaluation.compare` returns.
    ax : matplotlib Axes or None
        Where to draw; None makes a new figure.
    alpha : float, default 0.05
        Of the test, see :func:`tsar.evaluation.critical_difference`. Of a single series,
        windows are ranked.

    Returns
    -------
    matplotlib Axes
        Not shown and not saved.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    ParameterError, DataError
        If the board is none, or has too few models or rows.

    References
    ----------
    Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006),
    figure 1.
    """
    _check_board("plot.critical_difference", board)
    difference = board.critical_difference(alpha)
    names = list(difference.ranks.index)
    ax = axes_or_new("plot.critical_difference", ax, size=(7, 1.2 + 0.35 * len(names)))
    ax.plot(difference.ranks.to_numpy(), range(len(names)), "o", color="C0")
    for place, group in enumerate(difference.groups):
        ends = difference.ranks[group].min(), difference.ranks[group].max()
        height = len(names) - 0.4 + 0.3 * place
        named = ", ".join(map(written, group))
        ax.plot(ends, [height, height], color="0.3", linewidth=3, label=named)
    best = float(difference.ranks.iloc[0])
    ax.axvspan(best, best + difference.difference, color="C0", alpha=0.1, zorder=0)
    ax.set_yticks(range(len(names)), [written(name) for name in names])
    ax.set_ylim(len(names) + 0.3 * len(difference.groups), -0.6)
    ax.set_xlabel(
        f"mean rank of {difference.n_rows}, critical difference {difference.difference:.3g}"
    )
    return ax


def _check_board(owner: str, board: Any) -> None:
    if not isinstance(board, Leaderboard):
        raise ParameterError(
            f"{owner}: board must be what tsar.evaluation.compare returned, got "
            f"{type(board).__name__}"
        )
