"""What a fit chooses from the data: the parameters of a network that are None.

The rules are the same for every network. They look at the training frame alone: how long its
series are, how many there are, and which cycles its calendar has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tsar.data.panel import Panel

__all__ = ["DataSize", "choose_batch_size", "choose_context_length", "choose_max_steps"]

# The longest context that is chosen: two weeks of hours, with room for longer horizons.
LONGEST_CONTEXT = 512
# The shortest one where the calendar has no cycle, if there is room, and where there is four times
# as much of it: a few cycles tell more than two, and cost little where they are short.
SHORTEST = 64
# Windows times variates that a step learns from, and the fewest windows.
VALUES_PER_STEP = 128
FEWEST_WINDOWS = 8
# Of all windows, a step takes at most this share.
LARGEST_SHARE = 1 / 4
# Windows that share no row, times variates, from which on data are large: what overlaps is learned
# by heart as if it were seen again.
LARGE = 300
# A training passes so often over all windows, within so many steps.
PASSES = 100
FEWEST_STEPS, MOST_STEPS = 400, 2000


@dataclass(frozen=True)
class DataSize:
    """What the choices are made from.

    Parameters
    ----------
    lengths : int array of shape (S,)
        Rows of each series.
    n_variates : int
    cycles : sequence of int
        Steps in the cycles of the calendar, the shortest first.
    horizon : int
    """

    lengths: np.ndarray
    n_variates: int
    cycles: Sequence[int]
    horizon: int

    @classmethod
    def of(cls, panel: Panel, horizon: int) -> "DataSize":
        """Return the size of a panel.

        Parameters
        ----------
        panel : Panel
        horizon : int
        """
        return cls(panel.lengths, panel.n_variates, panel.frequency.cycles, horizon)

    def is_large(self, context_length: int) -> bool:
        """Whether there are 300 windows without a common row and more, all variates counted.

        Parameters
        ----------
        context_length : int
        """
        apart = np.maximum(self.lengths // (context_length + self.horizon), 1)
        return int(apart.sum()) * self.n_variates >= LARGE

    def n_windows(self, context_length: int) -> int:
        """Return how many windows the series have, at least one for each of them.

        Parameters
        ----------
        context_length : int
        """
        windows = self.lengths - context_length - self.horizon + 1
        return int(np.maximum(windows, 1).sum())


def choose_context_length(size: DataSize, at_least: int = 1) -> int:
    """Choose how many steps of history a forecast reads.

    Two of the longest cycle for which there is room, twice the horizon, and 64 steps or a quarter
    of the room, in whole cycles. Room
    is half of what the series in the middle has before its last horizon, so that as many windows
    are left to learn from, and never more than 512 steps.

    Parameters
    ----------
    size : DataSize
    at_least : int, default 1
        What the other parameters ask for.
    """
    room = (int(np.median(size.lengths)) - size.horizon) // 2
    room = max(min(room, LONGEST_CONTEXT), 1)
    cycle = max((cycle for cycle in size.cycles if 2 * cycle <= room), default=1)
    least = SHORTEST if cycle == 1 else max(2 * cycle, min(SHORTEST, room // 4))
    wanted = max(least, 2 * size.horizon)
    whole = -(-wanted // cycle) * cycle
    if whole > room:
        whole = max(room // cycle, 1) * cycle
    return max(whole, at_least)


def choose_batch_size(size: DataSize, context_length: int) -> int:
    """Choose how many windows a step learns from.

    So many that 128 numbers are forecast at each step of the horizon, all variates counted, but
    at most a quarter of the windows that there are, and at least 8.

    Parameters
    ----------
    size : DataSize
    context_length : int
    """
    wanted = round(VALUES_PER_STEP / size.n_variates)
    share = int(size.n_windows(context_length) * LARGEST_SHARE)
    return max(min(wanted, share), FEWEST_WINDOWS)


def choose_max_steps(size: DataSize, context_length: int, batch_size: int) -> int:
    """Choose how many steps a training has: 100 passes over the windows, 400 to 2,000 steps.

    Parameters
    ----------
    size : DataSize
    context_length, batch_size : int
    """
    steps = PASSES * size.n_windows(context_length) // batch_size
    return min(max(steps, FEWEST_STEPS), MOST_STEPS)
