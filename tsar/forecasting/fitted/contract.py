"""The contract of a fitted forecaster: what everything around it may ask.

Backtests, scores, intervals, explanations and files of forecasts stand on these names alone.

Dimension letters: S series, W windows, H horizon, C variates, N samples.
"""

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.data.windows import Inputs
from tsar.estimator.base import Estimator
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.outputs.predictive import Predictive

__all__ = ["FittedForecaster", "Forecasts", "OpenWindows"]


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of some windows, in original units and inside of ``output_range``.

    Parameters
    ----------
    point : float64 array of shape (W, H, C)
    quantiles : dict of float to float64 array of shape (W, H, C)
        By level in (0, 1).
    samples : float64 array of shape (W, N, H, C) or None
    replaced : dict of pair of int to str
        Windows and variates whose model failed so that a simpler one stands in, and why.
    """

    point: np.ndarray
    quantiles: Mapping[float, np.ndarray] = field(default_factory=dict)
    samples: np.ndarray | None = None
    replaced: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def mapped(self, function: Callable[[np.ndarray], np.ndarray]) -> "Forecasts":
        """Return them with other values (any, C), and whatever else is known of them."""
        return replace(
            self,
            point=function(self.point),
            quantiles={level: function(values) for level, values in self.quantiles.items()},
            samples=None if self.samples is None else function(self.samples),
        )

    @classmethod
    def gathered(cls, parts: "Sequence[tuple[np.ndarray, Forecasts]]") -> "Forecasts":
        """Put together forecasts of parts of the windows, each with the numbers of its own."""
        if len(parts) == 1:
            return parts[0][1]
        order = np.argsort(np.concatenate([places for places, _ in parts]), kind="stable")
        several = [one for _, one in parts]

        def joined(arrays: "Sequence[np.ndarray]") -> np.ndarray:
            return np.concatenate(arrays)[order]

        samples = [one.samples for one in several if one.samples is not None]
        return cls(
            joined([one.point for one in several]),
            {
                level: joined([one.quantiles[level] for one in several])
                for level in several[0].quantiles
            },
            joined(samples) if samples else None,
            {
                (int(places[window]), variate): why
                for places, one in parts
                for (window, variate), why in one.replaced.items()
            },
        )


@dataclass(frozen=True)
class OpenWindows:
    """Some windows as a network reads them, and how it forecasts them.

    Parameters
    ----------
    inputs : Inputs
        Of W windows, known covariates over the whole horizon.
    forecast : callable
        Maps such inputs to point forecasts (W, H, C) in scaled units, with gradients.
    scaling : Scaling
        Of each window.
    """

    inputs: Inputs
    forecast: Callable[[Inputs], Tensor]
    scaling: Scaling


class FittedForecaster(Estimator):
    """What a fitted forecaster can be asked.

    Attributes
    ----------
    horizon_ : int
        The horizon that was learned.
    learned_ : Learned
        What every forecaster learns besides its own weights.
    output_range_ : pair of float or None
        The limits of forecasts, None where there are none.
    end_ : Panel
        The rows at the end of the fitted series that forecasts read.
    """

    # Whether a variate is forecast from itself alone, and whether the variates share what is
    # learned, so that others may come at predict.
    channel_independent: ClassVar[bool] = True
    takes_any_variates: ClassVar[bool] = True

    horizon_: int
    learned_: Learned
    end_: Panel
    output_range_: tuple[float | None, float | None] | None

    # ------------------------------------------------------ the one route

    @abstractmethod
    def forecast(
        self,
        panel: Panel,
        owners: np.ndarray,
        rows: np.ndarray,
        horizon: int,
        known_ahead: Mapping[Any, np.ndarray] | None = None,
        levels: Sequence[float] = (),
        samples: int | None = None,
        *,
        after_fitted: bool = False,
    ) -> Forecasts:
        """Forecast windows of a panel: the one way from series to numbers.

        ``predict`` asks for the ends of all series, a backtest for its cutoffs. Nothing at or
        after a cutoff reaches its forecast, except covariates that are known in advance: those
        of the steps up to the next multiple of the fitted horizon are read where they are
        there, and beyond what is there the last value stays.

        Parameters
        ----------
        panel : Panel
            As :meth:`read_new` gives it, with the fitted variates in their order, or
            :attr:`end_` for the fitted series themselves.
        owners, rows : int64 arrays of shape (W,)
            Series of each window, and the row of ``panel.values`` at which its forecast
            begins; the end of a series is allowed.
        horizon : int
            Steps to forecast. A shorter one gives the first steps of a longer one; beyond the
            fitted one, the point forecast is rolled forward.
        known_ahead : mapping of name to array of shape (S, any), optional
            Future covariates of the steps after the end of each series.
        levels : sequence of float
            Quantiles that are wanted as well, ones that the model can give.
        samples : int, optional
            How many paths to draw of each window, where the model can.
        after_fitted : bool, default False
            Whether the fitted rows of a series that ``panel`` continues are known as well.

        Returns
        -------
        Forecasts
        """

    def opened(
        self, panel: Panel, owners: np.ndarray, rows: np.ndarray, horizon: int
    ) -> Iterator[tuple[np.ndarray, OpenWindows]]:
        """Yield the numbers of windows and what :meth:`forecast` makes of them, in batches.

        Only where :attr:`lets_gradients_through`; the windows are those of :meth:`forecast`.
        """
        raise NotImplementedError(f"{self.name} lets no gradients through")

    # -------------------------------------------------------- what it is

    @property
    def lets_gradients_through(self) -> bool:
        """Whether a forecast can be differentiated by what is read."""
        return False

    @property
    @abstractmethod
    def expected_predictive(self) -> Predictive:
        """What the numbers of a forecast are, once fitted with the present parameters."""

    @property
    def predictive(self) -> Predictive:
        """What the numbers of a forecast are."""
        return self.as_fitted.expected_predictive

    @property
    def context_rows(self) -> int:
        """How many rows of history a forecast reads."""
        return self.learned_.context_rows

    @property
    def sampling_seed(self) -> int:
        """The seed that samples are drawn from."""
        return 0

    @property
    def is_trained(self) -> bool:
        """Whether it errs less on the rows that were fitted than on others."""
        return True

    @property
    def forecasts_variates_alone(self) -> bool:
        """Whether the history of a variate moves no other one."""
        return self.channel_independent

    @property
    @abstractmethod
    def takes_new_variates(self) -> bool:
        """Whether others than the fitted variates can be forecast."""

    @property
    def future_names(self) -> list[Any]:
        """The future covariates that were fitted."""
        return [column.name for column in self.learned_.coding.future]

    def in_range(self, values: np.ndarray) -> np.ndarray:
        """Move values beyond ``output_range_`` to its ends."""
        if self.output_range_ is None:
            return values
        low, high = (None if limit is None else float(limit) for limit in self.output_range_)
        return np.clip(values, low, high)

    def to_error_scale(self, values: np.ndarray) -> np.ndarray:
        """Bring values (..., C) to the scale on which errors are alike; here that of the data."""
        return values

    def from_error_scale(self, values: np.ndarray) -> np.ndarray:
        """Undo :meth:`to_error_scale`."""
        return values

    # ------------------------------------------------- reading and checks

    @abstractmethod
    def resolve_horizon(self, horizon: Any) -> int:
        """Return the steps that are asked for, None being the fitted horizon."""

    @abstractmethod
    def named_errors(self) -> contextlib.AbstractContextManager[None]:
        """Let errors of the data layer begin with the name of the forecaster."""

    @abstractmethod
    def read_as_fitted(self, df: Any) -> Panel:
        """Read a frame as the fitted one was read, covariates not yet coded."""

    @abstractmethod
    def matched(self, panel: Panel, allow_new_variates: bool) -> Panel:
        """Compare a panel with what was fitted, and make it one that can be forecast."""

    def read_new(self, df: Any, allow_new_variates: bool = False) -> Panel:
        """Read a frame to forecast, against what was fitted."""
        return self.matched(self.read_as_fitted(df), allow_new_variates)

    @abstractmethod
    def fit_panel(self, panel: Panel, go_on: bool) -> Self:
        """Learn from a panel that was read with the present parameters."""
