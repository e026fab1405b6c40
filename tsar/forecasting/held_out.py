"""Windows at the end of every series, to judge forecasters by that were fitted on what is before.

Dimension letters: S series, W windows, H horizon, C variates.
"""

from dataclasses import dataclass

import numpy as np

from tsar.data.matching import without_end
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.data.windows import number_windows
from tsar.forecasting.base import Forecaster
from tsar.forecasting.members import coded_for

__all__ = ["HeldOutWindows"]


@dataclass(frozen=True)
class HeldOutWindows:
    """Windows whose forecasts see nothing of the rows that are held out to fit on.

    Attributes
    ----------
    panel : Panel
        All rows, covariates not yet coded.
    before : Panel
        The same without the rows that are held out.
    owners, rows : int64 arrays of shape (W,)
        Series of each window, and the row of ``panel.values`` at which it begins.
    horizon : int
    """

    panel: Panel
    before: Panel
    owners: np.ndarray
    rows: np.ndarray
    horizon: int

    @classmethod
    def of(
        cls, panel: Panel, held_out: np.ndarray, horizon: int, apart: int | None = None
    ) -> "HeldOutWindows":
        """Place windows in the last rows of every series.

        Parameters
        ----------
        panel : Panel
        held_out : int64 array of shape (S,)
            How many rows, fewer than there are; a horizon or more, or 0.
        horizon : int
        apart : int or None
            Rows from one window to the next, the last one at the end; None takes the horizon.
        """
        apart = horizon if apart is None else apart
        counts = np.where(held_out >= horizon, (held_out - horizon) // apart + 1, 0)
        owners, numbers = number_windows(counts)
        from_end = horizon + (counts[owners] - 1 - numbers) * apart
        rows = panel.offsets[1:][owners] - from_end
        return cls(panel, without_end(panel, held_out), owners, rows, horizon)

    @property
    def truth(self) -> np.ndarray:
        """What happened, (W, H, C)."""
        return self.panel.values[self.rows[:, None] + np.arange(self.horizon)]

    def forecasts_of(self, fitted: Forecaster) -> np.ndarray:
        """Return the point forecasts (W, H, C) of a forecaster that was fitted on ``before``.

        Parameters
        ----------
        fitted : Forecaster
        """
        part = coded_for(fitted, self.panel)
        return fitted.forecast(part, self.owners, self.rows, self.horizon).point

    def scaled(self, values: np.ndarray, scaling: Scaling) -> np.ndarray:
        """Return values (W, H, C) in units of their series, NaN where a series never moved.

        Parameters
        ----------
        values : array of shape (W, H, C)
        scaling : Scaling
            Of each series, by the rows before.
        """
        scale = np.where(scaling.scale > 0, scaling.scale, np.nan)[self.owners][:, None]
        return np.asarray((values - scaling.mean[self.owners][:, None]) / scale)
