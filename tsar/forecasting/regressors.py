"""Future covariates as the columns of a regression, for models of one series.

A category is a column of zeros and ones, and so is "missing" where it was missing in the fit. The
effects of the categories are those against the mean of the series: weighted by how often it had
them, they add up to 0. What the series never had, an unknown category among others, has the effect
0, which is that of an average step; no category is the one that others are compared with.

Dimension letters: n rows, K columns.
"""

from dataclasses import dataclass

import numpy as np

from tsar.data.covariates import CovariateCoding

__all__ = ["Regressors"]


@dataclass(frozen=True)
class Regressors:
    """Which columns covariates become.

    Parameters
    ----------
    width : int
        K, how many columns there are.
    groups : tuple of pair of int
        The first column of each covariate of categories, and the one after its last.
    """

    width: int = 0
    groups: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, coding: CovariateCoding) -> "Regressors":
        """Return the columns of coded covariates."""
        width, groups = 0, []
        for column in coding.future:
            size = 1 if column.categories is None else column.n_categories - 1
            if column.categories is not None and size:
                groups.append((width, width + size))
            width += size
        return cls(width, tuple(groups))

    @property
    def n_effects(self) -> int:
        """How many effects can be estimated: one less than a covariate has categories."""
        return self.width - len(self.groups)

    def columns(self, known_ahead: np.ndarray, coding: CovariateCoding) -> np.ndarray:
        """Return coded covariates (n, n_future) as float64 columns (n, K)."""
        parts = []
        for place, column in enumerate(coding.future):
            codes = known_ahead[:, place]
            if column.categories is None:
                parts.append(codes)
            else:
                parts += [codes == code for code in range(1, column.n_categories)]
        return (
            np.stack(parts, axis=1).astype(np.float64) if parts else np.empty((len(known_ahead), 0))
        )

    def to_estimate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which of the columns of a series have an effect to estimate, and what to read.

        Parameters
        ----------
        x : float64 array of shape (n, K)

        Returns
        -------
        chosen : int64 array of shape (k,)
            The columns that move, but one of each group.
        read : float64 array of shape (n, k)
            Those of categories without their mean.
        """
        moving = x.std(axis=0) > 0
        shares = np.zeros(self.width)
        for begin, end in self.groups:
            shares[begin:end] = x[:, begin:end].mean(axis=0)
            # The others say when it was this one; the most frequent leaves most to say.
            moving[begin + int(shares[begin:end].argmax())] = False
        chosen = np.flatnonzero(moving)
        return chosen, x[:, chosen] - shares[chosen]

    def effects(self, x: np.ndarray, chosen: np.ndarray, estimated: np.ndarray) -> np.ndarray:
        """Return the effects of all columns, shape (K,), from those that were estimated."""
        effects = np.zeros(self.width)
        effects[chosen] = estimated
        for begin, end in self.groups:
            shares = x[:, begin:end].mean(axis=0)
            effects[begin:end] -= np.where(shares > 0, shares @ effects[begin:end], 0.0)
        return effects

    def n_estimated(self, effects: np.ndarray) -> int:
        """Return how many of the effects of a series (K,) were estimated."""
        count = int(np.count_nonzero(effects))
        return count - sum(bool(effects[begin:end].any()) for begin, end in self.groups)

    def after_format_1(self, effects: np.ndarray) -> np.ndarray:
        """Return effects in which the first category, and what was unknown, was the reference.

        Models were saved so before; theirs stay as they are.
        """
        for begin, _ in self.groups:
            effects = np.insert(effects, begin, 0.0)
        return effects
