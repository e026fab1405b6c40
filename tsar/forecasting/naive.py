"""The forecasts every model has to beat: the last value, and the last season."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.data.windows import Inputs
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.window_forecaster import WindowForecaster
from tsar.params.constraints import Interval

__all__ = ["Naive", "SeasonalNaive"]


@dataclass(kw_only=True, eq=False, repr=False)
class _Baseline(WindowForecaster):
    """A forecast that is read off the history."""

    _dtype = torch.float64

    @property
    def _standardises(self) -> bool:
        return False

    @property
    def is_trained(self) -> bool:
        return False

    def _season(self, panel: Panel) -> int:
        """Return how many of the last values are repeated."""
        raise NotImplementedError

    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        measured = Scaling.measure(panel.values, panel.offsets, panel.offsets[1:])
        # A series without any observation is forecast at the level of the others.
        pooled = measured.pooled()
        pooled = replace(pooled, scale=np.ones_like(pooled.scale))
        self.season_length_ = self._season(panel)
        return Learned(measured.without_change(), pooled, self.season_length_)

    def _forecast_batch(self, inputs: Inputs) -> Tensor:
        history = inputs.target
        if inputs.observed is not None:
            # A season that was not observed in full is completed by the last value.
            history = torch.where(inputs.observed, history, history[:, -1:])
        steps = torch.arange(self.horizon_, device=history.device) % history.shape[1]
        return history[:, steps]


@dataclass(kw_only=True, eq=False, repr=False)
class Naive(_Baseline):
    """Repeat the last observed value of each series.

    The optimal forecast of a random walk, and the "Repeat" row of published tables.

    Attributes
    ----------
    season_length_ : int
        Always 1.

    Examples
    --------
    >>> import pandas as pd
    >>> from tsar.forecasting import Naive
    >>> sales = pd.Series([3.0, 5.0, 4.0], index=pd.date_range("2024-01-01", periods=3))
    >>> Naive(horizon=2).fit(sales).predict().tolist()
    [4.0, 4.0]
    """

    def _season(self, panel: Panel) -> int:
        return 1


@dataclass(kw_only=True, eq=False, repr=False)
class SeasonalNaive(_Baseline):
    """Repeat the last season of each series.

    A step of the last season that was not observed is forecast by the last value.

    Parameters
    ----------
    season_length : int or None, default None
        Steps in a season; None takes the first of ``cycles_``: 24 for hours, 7 for days, 12 for
        months, 4 for quarters, 1 (no season) for years and integers; for weeks 52, where the
        longest series has two years of them, else 1.

    Attributes
    ----------
    season_length_ : int
        The season that is repeated.

    Examples
    --------
    >>> import pandas as pd
    >>> from tsar.forecasting import SeasonalNaive
    >>> sales = pd.Series([3.0, 5.0, 4.0], index=pd.date_range("2024-01-01", periods=3))
    >>> SeasonalNaive(horizon=3, season_length=2).fit(sales).predict().tolist()
    [5.0, 4.0, 5.0]
    """

    season_length: Annotated[int, Interval(1)] | None = None

    def _season(self, panel: Panel) -> int:
        if self.season_length is None:
            return panel.season_length
        return int(self.season_length)
