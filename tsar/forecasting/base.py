"""The base of every forecaster: frames in, frames out, and the scikit-learn contract.

Dimension letters: S series, B windows in a batch, L context steps, H horizon, C variates,
Q quantiles.
"""

import contextlib
import copy
import datetime
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Self, TypedDict

import numpy as np
import torch
from pandas.tseries.offsets import BaseOffset
from torch import Tensor

from tsar.data.continuation import check_adjoining, continued
from tsar.data.covariates import CovariateCoding
from tsar.data.forecasts import short_histories
from tsar.data.future import make_future_frame, read_future
from tsar.data.matching import check_axis, check_variates, id_places, in_order
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.data.stored_panel import PanelRecord
from tsar.data.timeaxis import TimeAxis
from tsar.estimator.base import Estimator
from tsar.exceptions import DataError, ParameterError, PersistenceError
from tsar.forecasting.fitted.inspection import Inspection
from tsar.forecasting.fitted.learned import Learned, LearnedRecord
from tsar.forecasting.fitted.rolling import steps_covering
from tsar.forecasting.outputs.predictive import PointForecasts, Predictive
from tsar.forecasting.probabilistic.calibration import Calibration, CalibrationRecord
from tsar.forecasting.probabilistic.intervals import Intervals
from tsar.forecasting.probabilistic.output_request import (
    OutputRequest,
    read_request,
    write_forecast,
)
from tsar.forecasting.run_manifest import ManifestRecord, RunManifest
from tsar.params.arguments import Frame, check_horizon, check_range, frame_first
from tsar.params.constraints import Interval

__all__ = ["Forecaster", "ForecasterRecord"]


class ForecasterRecord(TypedDict):
    """What JSON holds of what every forecaster learned."""

    data: PanelRecord
    fitted: LearnedRecord
    calibration: NotRequired[CalibrationRecord]
    manifest: NotRequired[ManifestRecord]


def _check_forecastable(end: Panel, horizon: int) -> None:
    """Find out whether the end of the fitted series can be continued, and a forecast written."""
    edges = np.array([end.last.min(), end.last.max()])
    end.frequency.future(edges, horizon, end.axis)
    one = replace(
        end,
        values=end.values[:0],
        offsets=np.zeros(2, dtype=np.int64),
        ids=end.ids[:1],
        last=end.last[:1],
        first=end.last[:1],
        moved=None if end.moved is None else end.moved[:1],
        covariates=None,
    )
    write_columns = {name: np.zeros(1) for name in end.variates}
    one.write(1, write_columns, {})


@dataclass(kw_only=True, eq=False, repr=False)
class Forecaster(Inspection, Intervals):
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
    gaps : {"raise", "mask", "zero"}, default "raise"
        Whether missing rows are an error, or are read as missing values or as zeros (no row
        means that nothing was sold). :func:`tsar.tidy` writes them into the frame.
    id_column : str, int, list of them or None, default None
        The column of the ids of a long frame; None finds ``unique_id``. Several columns, such
        as ``["store", "item"]``, are one id.
    time_column : str, int or None, default None
        The column of the times of a long frame; None finds ``ds``.
    target : str, int, sequence of them or None, default None
        Columns to forecast; None takes ``y`` of a long frame and every column of a wide
        or MultiIndex frame. Further columns of a long frame are left alone.
    output_range : pair of float, "infer" or None, default None
        Lowest and highest value of a forecast, None where there is no limit: ``(0, None)``
        for what is never negative. "infer" takes ``(0, None)`` where no observed value that
        is fitted is negative, and no limit where one is. Forecasts, quantiles, intervals and
        samples beyond a limit are moved to it, which changes neither their order nor how
        often intervals cover.

    Attributes
    ----------
    freq_ : str
        The frequency of the data.
    cycles_ : tuple of int
        Steps in a day, a week and a year at this frequency, those that are whole, the shortest
        first: what a ``season_length`` can be.
    n_series_, n_variates_ : int
        How many series and variates were fitted.
    variates_ : list
        Their names.
    horizon_ : int
        The horizon that was learned.
    output_range_ : tuple of float or None
        The limits that forecasts are moved to, as they were given or inferred.
    manifest_ : RunManifest or None
        On which data ``fit`` was called, when, by which versions, and how long it took; None for
        a model that an earlier version saved, for members of another one, and for one that is
        loaded pre-trained.
    """

    parameter_group: ClassVar[str] = "data"
    other_groups: ClassVar[Mapping[str, str]] = {"horizon": "model"}
    learned_record: ClassVar[Any] = ForecasterRecord

    horizon: Annotated[int, Interval(1)] = 24
    freq: str | int | BaseOffset | datetime.timedelta | np.timedelta64 | None = None
    gaps: Literal["raise", "mask", "zero"] = "raise"
    id_column: str | int | Sequence[str | int] | None = None
    time_column: str | int | None = None
    target: str | int | Sequence[str | int] | None = None
    output_range: Sequence[float | None] | Literal["infer"] | None = None

    # ------------------------------------------------------------------ fit

    def fit(self, df: Frame, y: None = None) -> Self:
        """Learn from a frame.

        Parameters
        ----------
        df : DataFrame or Series
            Wide, long or MultiIndex frame, or a Series; or a frame of polars or pyarrow. See
            the user guide.
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

    def _remember(self, learned: Learned, end: Panel, horizon: int) -> None:
        """Keep what was learned, the end of the fitted series, and what they were like."""
        self.learned_, self.end_, self.calibration_ = learned, end, None
        self.manifest_: RunManifest | None = None
        self.remember_parameters()
        self.freq_, self.cycles_ = end.frequency.name, end.frequency.cycles
        self.n_series_, self.n_variates_ = end.n_series, end.n_variates
        self.variates_ = list(end.variates)
        self.horizon_ = horizon

    def _fit(self, df: Any, y: None, go_on: bool, weight: Any = None) -> Self:
        if y is not None:
            raise ParameterError(
                f"{self.name}: y must be None, got {type(y).__name__}; the target is part of df"
            )
        began = time.perf_counter()
        continued = self.manifest_ if go_on and self.__sklearn_is_fitted__() else None
        panel = self.read_training(df, weight)
        with self.named_errors():
            # Better now than after the training.
            panel.frequency.future(panel.last.max(keepdims=True), int(self.horizon), panel.axis)
        if go_on and self.__sklearn_is_fitted__():
            panel = in_order(panel, self.end_.variates)
        self.fit_panel(panel, go_on)
        self.manifest_ = RunManifest.of(panel, self.learned_.held_out, began, continued)
        return self

    def fit_panel(self, panel: Panel, go_on: bool) -> Self:
        """Learn from a panel that was read with these parameters."""
        learned = self._learn(panel, go_on)
        end = learned.rows_read(panel)
        if learned.coding:
            end = end.coded(learned.coding)
        limits = self._limits(panel, go_on)
        self._remember(learned, end, int(self.horizon))
        self.output_range_ = limits
        return self

    def _limits(self, panel: Panel, go_on: bool) -> tuple[float | None, float | None] | None:
        """Return the range of forecasts, as it was given, or as the data have it."""
        if self.output_range != "infer":
            low, high = self.output_range or (None, None)
            return None if low is None and high is None else (low, high)
        earlier = go_on and self.__sklearn_is_fitted__() and self.output_range_ is None
        # Comparisons with missing values are False.
        negative = earlier or bool((panel.values < 0).any())
        return None if negative else (0.0, None)

    def read_training(self, df: Any, weight: Any = None) -> Panel:
        """Check the parameters, then read a frame to learn from, and weights of its rows."""
        self.check()
        panel = self.read(df, freq=self.freq, weight=weight)
        if np.isnan(panel.values).all():
            raise DataError(f"{self.name}: no value is observed; pass series with some history")
        return panel

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if self.output_range != "infer":
            check_range(self.name, "output_range", self.output_range)

    @abstractmethod
    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        """Learn from a checked panel; attributes are set at the end, when nothing can fail."""

    @property
    def expected_predictive(self) -> Predictive:
        return PointForecasts()

    def read(self, df: Any, freq: Any, like: TimeAxis | None = None, weight: Any = None) -> Panel:
        """Read a frame with the present parameters and a step, covariates not yet coded.

        What text leaves open of its times is settled by those that they are to be like.
        """
        with self.named_errors():
            return Panel.from_frame(
                df,
                freq=freq,
                gaps=self.gaps,
                id_column=self.id_column,
                time_column=self.time_column,
                target=self.target,
                like=like,
                weight=weight,
                **self.roles,
            )

    @property
    def roles(self) -> dict[str, Any]:
        """The columns with a role of their own, as :meth:`Panel.from_frame` takes them."""
        return {}

    @property
    def reading(self) -> dict[str, Any]:
        """The parameters by which others read the same data; JSON can hold them."""
        names = ("id_column", "time_column", "target", "gaps")
        held = {name: getattr(self, name) for name in names}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in held.items()
            if value is not None
        }

    @contextlib.contextmanager
    def named_errors(self) -> Iterator[None]:
        """Let errors of the data layer begin with the name of the estimator."""
        try:
            yield
        except DataError as error:
            raise DataError(f"{self.name}: {error}", error.faults) from None
        except ParameterError as error:
            raise ParameterError(f"{self.name}: {error}") from None

    @property
    def in_words(self) -> str:
        """What forecasts: the name, and of a combination its members with their weights."""
        return self.name

    # --------------------------------------------------------------- update

    def update(self, df: Frame) -> Self:
        """Append new rows to the fitted series, without fitting again.

        ``predict()`` then continues them from their new ends: it forecasts what
        ``predict(df=...)`` would of all rows, old and new. No parameter, weight, scaling,
        calibration or limit changes.

        Parameters
        ----------
        df : DataFrame or Series
            In the form of the data: rows that follow the last ones of each series, of all or of
            some of them. Series that were not fitted are added, unless each series has
            parameters of its own, as in the classical models: these need a fit.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        DataError
            The frame has faults, leaves a gap, holds rows that the model has, or has series that
            need a fit. The model stays as it was.
        """
        self.check_fitted()
        panel = self.read_as_fitted(df)
        with self.named_errors():
            check_axis("the time column", panel.axis, self.end_.axis)
            check_variates(panel, self.end_, others_allowed=False)
            check_adjoining(panel, self.end_)
        fresh = panel.ids[id_places(panel.ids, self.end_.ids) < 0]
        if len(fresh) and not self.takes_new_series:
            raise DataError(
                f"{self.name}: update must have the fitted series, whose parameters are their own, "
                f"got {len(fresh)} others, the first {fresh[0]!r}; fit again, or leave them out: "
                f"predict(df=...) estimates new series from the rows it is given"
            )
        with self.named_errors():
            moved = self.moved_on(in_order(panel, self.end_.variates))
        if self.manifest_ is not None:
            moved.manifest_ = self.manifest_.updated(len(panel.values), moved.end_)
        self.__dict__.update(moved.__dict__)
        return self

    @property
    def takes_new_series(self) -> bool:
        """Whether :meth:`update` adds series that were not fitted."""
        return True

    def moved_on(self, panel: Panel) -> Self:
        """Return a copy whose series go on with the rows of a panel, its covariates not coded."""
        coding = self.learned_.coding
        whole = continued(self.end_, panel.coded(coding) if coding else panel)
        n_fresh = whole.n_series - self.end_.n_series
        added = whole.lengths - np.pad(self.end_.lengths, (0, n_fresh))
        # Nothing was learned from new rows.
        held_out = np.pad(self.learned_.held_out, (0, n_fresh)) + added
        scaling = self._scaling_moved_on(whole)
        moved = copy.copy(self)
        moved.learned_ = replace(self.learned_, scaling=scaling, held_out=held_out)
        moved.end_ = moved.learned_.rows_read(whole)
        moved.n_series_ = whole.n_series
        return moved

    def _scaling_moved_on(self, whole: Panel) -> Scaling:
        """Return the scaling of the series of a panel, those that were fitted first."""
        fitted = self.learned_.scaling
        others = Scaling.identity(whole.n_series - len(fitted.mean), whole.n_variates)
        return Scaling(
            np.concatenate([fitted.mean, others.mean]), np.concatenate([fitted.scale, others.scale])
        )

    # -------------------------------------------------------------- predict

    @frame_first
    def predict(
        self,
        horizon: int | Frame | None = None,
        df: Frame | int | None = None,
        future: Frame | None = None,
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
            distribution such as ``loss="gaussian"``. Around the point forecasts of a model
            without either they come from :meth:`calibrate`, by the signed errors of a step: a
            bound of one side, so that errors need not be alike on both.
        level : float or sequence of float, optional
            Intervals to return beside the point forecast, by the percentage of values they
            are to cover: 80 gives the columns ``<variate>_lo80`` and ``<variate>_hi80``. They
            are those of :meth:`calibrate`; without it, those of the fitted quantiles or the
            distribution.
        samples : int, optional
            Return so many samples instead, in a frame with the number of each in a column
            ``sample``; needs :meth:`calibrate` or a distribution. They are drawn from
            ``random_state``: the same call gives the same ones. Of a calibrated model, the
            steps and the series of a sample belong together, so that totals of samples are
            those to expect. Of one that is not, the steps up to the fitted horizon are
            independent, given the history; beyond it, each continues what was drawn.
        allow_new_variates : bool, default False
            Whether ``df`` may lack fitted variates or bring others.

        Returns
        -------
        DataFrame or Series
            In the form of the data: of polars or pyarrow where the data are, that is ``df``
            or else what was fitted. With a horizon beyond the fitted one, frames have a
            column ``extrapolated`` that marks the rolled steps. ``attrs``, which frames of
            pandas alone have, holds
            ``extrapolated_after`` (the fitted horizon or None), ``short_history``
            (ids observed for less than a context; for one wide frame, such variates),
            ``fallback`` (why a simpler model stands in, by id or variate, where one does) and
            ``reading`` (the parameters by which the data were read).

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            An argument or the frame is not usable.
        """
        self.check_fitted()
        horizon = self.resolve_horizon(horizon)
        outputs = read_request(self, quantiles, level, samples)
        panel = self.end_ if df is None else self.read_new(df, allow_new_variates)
        return self._answer(outputs, panel, horizon, future)

    def _answer(
        self, outputs: OutputRequest, panel: Panel, horizon: int, future: Any, **how: Any
    ) -> Any:
        """Forecast what follows each series and write what was asked for in the form of the data.

        ``how`` is passed on to :meth:`forecast`.
        """
        variates = panel.variates
        panel = in_order(panel, self.end_.variates)
        reach = steps_covering(horizon, self.horizon_)
        known_ahead = self._known(panel, self.future_names, future, horizon, reach)
        written = write_forecast(self, outputs, panel, variates, horizon, known_ahead, **how)
        written.attrs["short_history"] = short_histories(panel, variates, self.context_rows)
        written.attrs["reading"] = self.as_fitted.reading
        return panel.form.library.restored(written)

    def make_future_frame(self, horizon: int | None = None, df: Any = None) -> Any:
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
        self.check_fitted()
        horizon = self.resolve_horizon(horizon)
        panel = self.end_ if df is None else self.read_new(df, allow_new_variates=True)
        written = make_future_frame(panel, self.future_names, horizon)
        return panel.form.library.restored(written)

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
        self.check()
        names = self.roles.get("future_covariates", [])
        if names or future is not None:
            panel = self.read(df, freq=self.freq)
            self._known(panel, names, future, int(horizon or self.horizon))

    def _known(
        self, panel: Panel, names: list[Any], future: Any, horizon: int, reach: int | None = None
    ) -> dict[Any, np.ndarray]:
        """Return the future covariates after each series, (S, reach) by name."""
        if not names:
            if future is not None:
                raise ParameterError(
                    f"{self.name}: future must be None for a model without future covariates, "
                    f"got {type(future).__name__}; name them by future_covariates= before fit"
                )
            return {}
        if future is None:
            future = make_future_frame(panel, names, horizon)
        with self.named_errors():
            return read_future(future, panel, names, horizon, reach)

    def resolve_horizon(self, horizon: Any) -> int:
        return self.horizon_ if horizon is None else check_horizon(self.name, horizon)

    def read_as_fitted(self, df: Any) -> Panel:
        freq = None if self.end_.axis.kind == "period" else self.end_.frequency
        return self.as_fitted.read(df, freq=freq, like=self.end_.axis)

    def matched(self, panel: Panel, allow_new_variates: bool) -> Panel:
        with self.named_errors():
            check_axis("the time column", panel.axis, self.end_.axis)
            independent = self.takes_new_variates
            if not (allow_new_variates and independent):
                check_variates(panel, self.end_, others_allowed=independent)
            coding = self.learned_.coding
            return panel.coded(coding) if coding else panel

    def _coded(
        self, panel: Panel, stop: np.ndarray, coding: CovariateCoding | None = None
    ) -> tuple[Panel, CovariateCoding]:
        """Code the covariates of a panel to learn from; without a coding, learn that first."""
        with self.named_errors():
            coding = panel.coding(stop) if coding is None else coding
            return panel.coded(coding) if coding else panel, coding

    @property
    def takes_new_variates(self) -> bool:
        # Covariates tie to the fitted ones.
        return self.takes_any_variates and not self.learned_.coding

    # ------------------------------------------------------------ persistence

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        self.check_fitted()
        record, arrays = self.end_.to_state()
        learned, more = self.learned_.to_state()
        if self.calibration_ is not None:
            calibrated, scores = self.calibration_.to_state()
            more |= scores
        tensors = {
            f"data.{name}": torch.from_numpy(np.ascontiguousarray(array))
            for name, array in (arrays | more).items()
        }
        limits = None if self.output_range_ is None else list(self.output_range_)
        fitted = {"horizon": self.horizon_, "output_range": limits, **learned}
        state = {"data": record, "fitted": fitted}
        if self.calibration_ is not None:
            state["calibration"] = calibrated
        if self.manifest_ is not None:
            state["manifest"] = self.manifest_.to_state()
        return state, tensors

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Estimator],
    ) -> None:
        arrays = {
            name.removeprefix("data."): tensor.numpy()
            for name, tensor in tensors.items()
            if name.startswith("data.")
        }
        fitted = record["fitted"]
        end = Panel.from_state(record["data"], arrays)
        self._remember(Learned.from_state(fitted, arrays, end), end, fitted["horizon"])
        # Older models have none but what was given.
        limits = fitted.get("output_range", self.output_range)
        if limits is not None and len(limits) != 2:
            raise PersistenceError(f"load: output_range must be a pair of numbers, got {limits!r}")
        self.output_range_ = None if limits is None else (limits[0], limits[1])
        _check_forecastable(end, self.horizon_)
        if "calibration" in record:
            self.calibration_ = Calibration.from_state(record["calibration"], arrays, end)
        if "manifest" in record:
            self.manifest_ = RunManifest.from_state(record["manifest"], end.n_variates)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "horizon_")
