"""The base of every forecaster: frames in, frames out, and the scikit-learn contract.

Dimension letters: S series, B windows in a batch, L context steps, H horizon, C variates,
Q quantiles.
"""

import contextlib
import copy
import datetime
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from pandas.tseries.offsets import BaseOffset
from sklearn.base import BaseEstimator
from torch import Tensor

from tsar.data.covariates import CovariateCoding, covariate_tensors
from tsar.data.forecasts import short_histories
from tsar.data.future import make_future_frame, read_future
from tsar.data.matching import check_axis, check_variates, in_order
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling, series_tensors
from tsar.data.windows import Inputs, SeriesTensors
from tsar.exceptions import DataError, NotFittedError, ParameterError
from tsar.forecasting.fitted.inspection import Inspection
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.fitted.rolling import roll_windows
from tsar.forecasting.fitted.windowed import forecast_rows
from tsar.forecasting.probabilistic.asked import read_asked, write_forecast
from tsar.forecasting.probabilistic.calibration import Calibration
from tsar.forecasting.probabilistic.intervals import Intervals
from tsar.params.arguments import check_horizon, check_range, frame_first
from tsar.params.constraints import Interval, check_parameters

__all__ = ["Forecaster"]


@dataclass(kw_only=True, eq=False, repr=False)
class Forecaster(Inspection, Intervals, BaseEstimator, ABC):
    """A forecaster with the interface of scikit-learn.

    ``fit`` reads a frame, ``predict`` continues it: the forecast has the form of the
    frame (wide, long, MultiIndex or a Series), its units, its time zone and its future
    timestamps.

    Parameters
    ----------
    horizon : int, default 24
        Steps the model learns to forecast. ``predict`` takes any other number as well.
    freq : str, pandas offset, timedelta, int or None, default None
        The step between rows; None takes that of most of the data.
    gaps : {"raise", "mask"}, default "raise"
        Whether missing rows are an error, or are read as missing values.
    id_column, time_column : str, int or None, default None
        Columns of a long frame; None finds ``unique_id`` and ``ds``.
    target : str, int, sequence of them or None, default None
        Columns to forecast; None takes ``y`` of a long frame and every column of a wide
        or MultiIndex frame. Further columns of a long frame are left alone.
    output_range : pair of float or None, default None
        Lowest and highest value of a forecast, None where there is no limit: ``(0, None)``
        for what is never negative. Forecasts, quantiles, intervals and samples beyond a limit
        are moved to it, which changes neither their order nor how often intervals cover.

    Attributes
    ----------
    freq_ : str
        The frequency of the data.
    n_series_, n_variates_ : int
        How many series and variates were fitted.
    variates_ : list
        Their names.
    horizon_ : int
        The horizon that was learned.
    """

    horizon: Annotated[int, Interval(1)] = 24
    freq: str | int | BaseOffset | datetime.timedelta | np.timedelta64 | None = None
    gaps: Literal["raise", "mask"] = "raise"
    id_column: str | int | None = None
    time_column: str | int | None = None
    target: str | int | Sequence[str | int] | None = None
    output_range: Sequence[float | None] | None = None

    # Whether a variate is forecast from itself alone, and whether the variates share what is
    # learned, so that others may come at predict.
    _channel_independent: ClassVar[bool] = True
    _takes_any_variates: ClassVar[bool] = True
    # Parameters that name or hold something that is not saved with the model.
    _references: ClassVar[frozenset[str]] = frozenset()
    _dtype: ClassVar[torch.dtype] = torch.float32

    # ------------------------------------------------------------------ fit

    def fit(self, df: Any, y: None = None) -> Self:
        """Learn from a frame.

        Parameters
        ----------
        df : DataFrame or Series
            Wide, long or MultiIndex frame, or a Series; see the user guide.
        y : None
            Not used; scikit-learn's tools pass it.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            A parameter is outside its constraint.
        DataError
            The frame has faults: one error names all of them.
        """
        return self._fit(df, y, go_on=False)

    def _fit(self, df: Any, y: None, go_on: bool) -> Self:
        if y is not None:
            raise ParameterError(
                f"{self._name}: y must be None, got {type(y).__name__}; the target is part of df"
            )
        panel = self._read_training(df)
        with self._named_errors():
            # Better now than after the training.
            panel.frequency.future(panel.last.max(keepdims=True), int(self.horizon), panel.axis)
        if go_on and self.__sklearn_is_fitted__():
            panel = in_order(panel, self._end.variates)
        return self._fit_panel(panel, go_on)

    def _fit_panel(self, panel: Panel, go_on: bool) -> Self:
        """Learn from a panel that was read with these parameters."""
        learned = self._learn(panel, go_on)
        end = learned.kept(panel)
        if learned.coding:
            end = end.coded(learned.coding)
        self._remember(learned, end, int(self.horizon))
        return self

    def _read_training(self, df: Any) -> Panel:
        """Check the parameters, then read a frame to learn from."""
        check_parameters(self)
        self._check_consistency()
        panel = self._read(df, freq=self.freq)
        if np.isnan(panel.values).all():
            raise DataError(f"{self._name}: no value is observed; pass series with some history")
        return panel

    def _remember(self, learned: Learned, end: Panel, horizon: int) -> None:
        """Keep what was learned, the end of the fitted series, and what they were like."""
        self._learned, self._end, self._calibration = learned, end, None
        self._fitted_parameters = self.get_params(deep=False)
        self.freq_ = end.frequency.name
        self.n_series_, self.n_variates_ = end.n_series, end.n_variates
        self.variates_ = list(end.variates)
        self.horizon_ = horizon

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check_consistency(self) -> None:
        """Check what involves several parameters; raise a ParameterError."""
        check_range(self._name, "output_range", self.output_range)

    @abstractmethod
    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        """Learn from a checked panel; attributes are set at the end, when nothing can fail."""

    @property
    def _context_rows(self) -> int:
        return self._learned.context_rows

    @property
    @abstractmethod
    def _standardises(self) -> bool:
        """Whether series are standardised before the model reads them."""

    def _measure(self, panel: Panel, stop: np.ndarray) -> Scaling:
        """Return the scaling of the rows ``offsets[s]:stop[s]``, NaN where none is observed."""
        measured = Scaling.measure(panel.values, panel.offsets, stop)
        return measured if self._standardises else measured.without_change()

    @abstractmethod
    def _forecast_batch(self, inputs: Inputs) -> Tensor:
        """Forecast ``horizon_`` steps: (B, H, C), or (B, H, C, Q) with quantiles."""

    @property
    def _as_fitted(self) -> Self:
        """The model with the parameters it was fitted with, for what ``set_params`` changed."""
        fitted = copy.copy(self)
        fitted.__dict__.update(self._fitted_parameters)
        return fitted

    def _read(self, df: Any, freq: Any) -> Panel:
        with self._named_errors():
            return Panel.from_frame(
                df,
                freq=freq,
                gaps=self.gaps,
                id_column=self.id_column,
                time_column=self.time_column,
                target=self.target,
                **self._roles,
            )

    @property
    def _roles(self) -> dict[str, Any]:
        """The columns with a role of their own, as :meth:`Panel.from_frame` takes them."""
        return {}

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Let errors of the data layer begin with the name of the estimator."""
        try:
            yield
        except DataError as error:
            raise DataError(f"{self._name}: {error}", error.faults) from None
        except ParameterError as error:
            raise ParameterError(f"{self._name}: {error}") from None

    def _tensors(
        self,
        panel: Panel,
        scaling: Scaling,
        device: torch.device | None = None,
        coding: CovariateCoding | None = None,
        ahead: int = 0,
        future: dict[Any, np.ndarray] | None = None,
    ) -> SeriesTensors:
        """Put a panel on a device, its known covariates for ``ahead`` steps after its end."""
        device = self._forecast_device if device is None else device
        coding = self._learned.coding if coding is None else coding
        with self._named_errors():
            tensors = series_tensors(panel.values, panel.offsets, scaling, device, self._dtype)
            if not coding:
                return tensors
            assert panel.covariates is not None, "panels with covariates are coded"
            known = panel.known_ahead(coding, future or {}, ahead)
            covariates = covariate_tensors(
                panel.covariates, panel.offsets, known, device, self._dtype
            )
        return replace(tensors, covariates=covariates)

    # -------------------------------------------------------------- predict

    @frame_first
    def predict(
        self,
        horizon: int | None = None,
        df: Any = None,
        future: Any = None,
        *,
        quantiles: Sequence[float] | None = None,
        level: float | Sequence[float] | None = None,
        samples: int | None = None,
        allow_new_variates: bool = False,
    ) -> Any:
        """Forecast the steps that follow.

        Parameters
        ----------
        horizon : int or None
            How many steps; None takes the fitted ``horizon``. A shorter one gives the
            first rows of the full forecast. For a longer one the forecast is rolled
            forward: the point forecast is appended to the context as if it had been
            observed, so quantiles do not widen beyond the fitted horizon; calibrated
            intervals and samples do.
        df : DataFrame or Series, optional
            Series to forecast without fitting again, new ones included; None continues
            the fitted ones. A frame in the first place is read as ``df``, which is how
            scikit-learn's Pipeline passes it; ``horizon`` then comes after it.
        future : DataFrame, optional
            Future covariates of every step to forecast, in the form of the data; needed
            where the model was fitted with some. :meth:`make_future_frame` gives the
            frame to fill in. Where fewer steps than the fitted horizon are asked for, rows
            up to that are read if they are there: a step may depend on all of them.
        quantiles : sequence of float, optional
            Levels in (0, 1) to return beside the point forecast, in columns
            ``<variate>_q<level>``: those fitted with ``loss="quantile"``, or any with a
            distribution such as ``loss="gaussian"``.
        level : float or sequence of float, optional
            Intervals to return beside the point forecast, by the percentage of values they
            are to cover: 80 gives the columns ``<variate>_lo80`` and ``<variate>_hi80``. They
            are those of :meth:`calibrate`; without it, those of the fitted quantiles or the
            distribution.
        samples : int, optional
            Return so many samples instead, in a frame with the number of each in a column
            ``sample``; needs a distribution. They are drawn from ``random_state``: the same
            call gives the same ones. Up to the fitted horizon the steps of a sample are
            independent, given the history; beyond it, each continues what was drawn.
        allow_new_variates : bool, default False
            Whether ``df`` may lack fitted variates or bring others.

        Returns
        -------
        DataFrame or Series
            In the form of the data. With a horizon beyond the fitted one, frames have a
            column ``extrapolated`` that marks the rolled steps. ``attrs`` holds
            ``extrapolated_after`` (the fitted horizon or None) and ``short_history``
            (ids observed for less than a context; for one wide frame, such variates).

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            An argument or the frame is not usable.
        """
        self._check_fitted()
        horizon = self._check_horizon(horizon)
        asked = read_asked(self, quantiles, level, samples)
        if df is None:
            panel, scaling = self._end, self._learned.scaling.filled(self._learned.pooled)
            given = panel.variates
        else:
            panel = self._read_new(df, allow_new_variates)
            given = panel.variates
            panel = in_order(panel, self._end.variates)
            scaling = self._scaling_of(panel)
        asked = asked.of_series(self, panel, horizon)
        if df is not None:
            panel = self._learned.kept(panel)
        reach = self._reach(horizon)
        known = self._known(panel, self._future_names, future, horizon, reach)
        written = write_forecast(self, asked, panel, given, scaling, horizon, known)
        written.attrs["short_history"] = short_histories(panel, given, self._context_rows)
        return written

    def make_future_frame(self, horizon: int | None = None, df: Any = None) -> pd.DataFrame:
        """Return the frame of future covariates to fill in for :meth:`predict`.

        Parameters
        ----------
        horizon : int or None
            Steps to forecast; None takes the fitted ``horizon``.
        df : DataFrame, optional
            Series to forecast; None continues the fitted ones.

        Returns
        -------
        DataFrame
            The ids and times of the steps after each series, in the form of the data,
            and a column of NaN for every future covariate.
        """
        self._check_fitted()
        horizon = self._check_horizon(horizon)
        panel = self._end if df is None else self._read_new(df, allow_new_variates=True)
        return make_future_frame(panel, self._future_names, horizon)

    def check_future(self, df: Any, future: Any, horizon: int | None = None) -> None:
        """Check, before a long ``fit``, that ``predict(future=)`` will have what it needs.

        Parameters
        ----------
        df : DataFrame or Series
            What will be fitted.
        future : DataFrame or None
            What will be known of the steps after it.
        horizon : int or None
            Steps that will be forecast; None takes ``horizon``.

        Raises
        ------
        ParameterError, DataError
            As ``predict`` would.
        """
        check_parameters(self)
        names = self._roles.get("future_covariates", [])
        if names or future is not None:
            panel = self._read(df, freq=self.freq)
            self._known(panel, names, future, int(horizon or self.horizon))

    @property
    def _future_names(self) -> list[Any]:
        return [column.name for column in self._learned.coding.future]

    def _known(
        self, panel: Panel, names: list[Any], future: Any, horizon: int, reach: int | None = None
    ) -> dict[Any, np.ndarray]:
        """Return the future covariates after each series, (S, reach) by name."""
        if not names:
            if future is not None:
                raise ParameterError(
                    f"{self._name}: future must be None for a model without future covariates, "
                    f"got {type(future).__name__}; name them by future_covariates= before fit"
                )
            return {}
        if future is None:
            future = make_future_frame(panel, names, horizon)
        with self._named_errors():
            return read_future(future, panel, names, horizon, reach)

    def _check_fitted(self) -> None:
        if not hasattr(self, "horizon_"):
            raise NotFittedError(f"{self._name} is not fitted yet; call fit(df) first")

    def _check_horizon(self, horizon: Any) -> int:
        return self.horizon_ if horizon is None else check_horizon(self._name, horizon)

    def _read_new(self, df: Any, allow_new_variates: bool) -> Panel:
        """Read a frame to forecast, against what was fitted."""
        return self._matched(self._read_as_fitted(df), allow_new_variates)

    def _read_as_fitted(self, df: Any) -> Panel:
        """Read a frame as the fitted one was read."""
        freq = None if self._end.axis.kind == "period" else self._end.frequency
        return self._as_fitted._read(df, freq=freq)

    def _matched(self, panel: Panel, allow_new_variates: bool) -> Panel:
        """Compare a panel with what was fitted, and code its covariates."""
        with self._named_errors():
            check_axis("the time column", panel.axis, self._end.axis)
            independent = self._takes_new_variates
            if not (allow_new_variates and independent):
                check_variates(panel, self._end, others_allowed=independent)
            coding = self._learned.coding
            return panel.coded(coding) if coding else panel

    def _coded(
        self, panel: Panel, stop: np.ndarray, coding: CovariateCoding | None = None
    ) -> tuple[Panel, CovariateCoding]:
        """Code the covariates of a panel to learn from; without a coding, learn that first."""
        with self._named_errors():
            coding = panel.coding(stop) if coding is None else coding
            return panel.coded(coding) if coding else panel, coding

    @property
    def _forecasts_variates_alone(self) -> bool:
        """Whether the history of a variate moves no other one."""
        return self._channel_independent

    @property
    def _takes_new_variates(self) -> bool:
        """Whether others than the fitted variates can be forecast; covariates tie to these."""
        return self._takes_any_variates and not self._learned.coding

    # ----------------------------------------------------- the forecast itself

    def _scaling_of(self, panel: Panel) -> Scaling:
        """Return the statistics of every series of a panel.

        A fitted series keeps those of its training part, another one brings its own; one
        without any observation takes those of the fitted panel on the whole.
        """
        scaling = self._learned.scaling_of(panel, self._end)
        if not np.isnan(scaling.mean).any():
            return scaling
        scaling = scaling.filled(self._as_fitted._measure(panel, panel.offsets[1:]))
        return scaling.filled(self._learned.pooled_of(panel, self._end))

    @property
    def _forecast_device(self) -> torch.device:
        return torch.device("cpu")

    def _forecast(
        self, tail: Panel, scaling: Scaling, horizon: int, future: dict[Any, np.ndarray]
    ) -> np.ndarray:
        """Forecast the rows after each series: (S, horizon, C) or (S, horizon, C, Q)."""
        reach = self._reach(horizon)
        tensors = self._tensors(tail, scaling, ahead=reach, future=future)
        # A step may depend on what is known of later ones, which roll_windows leaves out.
        steps = reach if future else horizon
        forecast = self._forecast_windows(
            tensors, np.arange(tail.n_series), tail.offsets[1:], steps
        )[:, :horizon]
        return self._predictive.restore(forecast, scaling)

    def _reach(self, horizon: int) -> int:
        """Return the steps that forecasts of the fitted length need to cover a horizon."""
        return -(-horizon // self.horizon_) * self.horizon_

    def _forecast_windows(
        self, tensors: SeriesTensors, series: np.ndarray, cutoffs: np.ndarray, horizon: int
    ) -> np.ndarray:
        """Forecast the steps after each cutoff, in scaled units."""
        return roll_windows(
            self._forecast_batch,
            self._predictive.fed_back,
            tensors,
            series,
            cutoffs,
            context_length=self._context_rows,
            step=self.horizon_,
            horizon=horizon,
        )

    # ------------------------------------------------------------- many windows

    def _forecast_rows(
        self,
        panel: Panel,
        owners: np.ndarray,
        rows: np.ndarray,
        horizon: int,
        levels: Sequence[float] = (),
    ) -> tuple[np.ndarray, dict[float, np.ndarray]]:
        """Forecast windows of a panel, (W, H, C), and the same by level, in original units.

        Each window is a series and the row at which its forecast begins.
        """
        return forecast_rows(self, panel, owners, rows, horizon, levels)

    # ------------------------------------------------------------ persistence

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted model into a folder, to be read by :func:`tsar.load`.

        Parameters
        ----------
        folder : path
            Created, or replaced if it holds a saved model.

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        PersistenceError
            The folder holds something else or cannot be written.
        """
        # The registry of classes that can be loaded is made of the models themselves.
        from tsar.persistence import save

        save(self, folder)

    def _learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what ``fit`` learned: a record for JSON, and tensors by name."""
        self._check_fitted()
        record, arrays = self._end.to_state()
        learned, more = self._learned.to_state()
        if self._calibration is not None:
            calibrated, scores = self._calibration.to_state()
            more |= scores
        tensors = {
            f"data.{name}": torch.from_numpy(np.ascontiguousarray(array))
            for name, array in (arrays | more).items()
        }
        state = {"data": record, "fitted": {"horizon": self.horizon_, **learned}}
        if self._calibration is not None:
            state["calibration"] = calibrated
        return state, tensors

    def _restore_learned_state(self, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Undo :meth:`_learned_state`."""
        arrays = {
            name.removeprefix("data."): tensor.numpy()
            for name, tensor in tensors.items()
            if name.startswith("data.")
        }
        fitted = record["fitted"]
        end = Panel.from_state(record["data"], arrays)
        self._remember(Learned.from_state(fitted, arrays), end, fitted["horizon"])
        if "calibration" in record:
            self._calibration = Calibration.from_state(record["calibration"], arrays)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "horizon_")
