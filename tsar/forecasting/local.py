"""A statistical model for each series and variate: what the classical baselines share.

Dimension letters: S series, C variates, W windows of one series, H horizon, n rows,
K numbers that describe the covariates of a step.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import joblib
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsar.data.matching import id_places
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.estimator.base import Estimator
from tsar.exceptions import DataWarning, PersistenceError, warn
from tsar.forecasting.base import Forecaster, ForecasterRecord
from tsar.forecasting.estimates import Estimate, Estimates, EstimatesRecord
from tsar.forecasting.fitted.contract import Forecasts
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.fitted.windowed import after_fitted as join_fitted
from tsar.forecasting.local_models import (
    LocalModel,
    Task,
    estimate_fitted,
    first_observed,
    forecast_windows,
)
from tsar.forecasting.regressors import Regressors
from tsar.params.constraints import Interval

__all__ = ["LocalForecaster", "LocalRecord"]

WHAT_BECAME_OF_IT = {
    "fallback": "failed, SeasonalNaive forecasts in their place",
    "reduced": "were estimated in a smaller form that the data carry",
}
# Pieces of work that a process is given in all: more of them balance better, and cost more.
PIECES = 4

# What the effects of categories are measured against, in saved models.
AGAINST_MEAN = "against the mean"

Job = TypeVar("Job")
Done = TypeVar("Done")


class LocalRecord(ForecasterRecord):
    """What JSON holds of what a local forecaster learned."""

    local: EstimatesRecord


@dataclass(kw_only=True, eq=False, repr=False)
class LocalForecaster(Forecaster):
    """A forecaster that has a statistical model for each series and variate.

    ``predict(df=...)`` continues a fitted series with the parameters that ``fit`` estimated,
    where ``df`` holds it from its first observation on, and reads what was observed since.
    Any other series (a new id, a new variate, a fitted one without its beginning) is
    estimated anew from the rows of ``df``. ``forecast_windows`` and ``score`` do the same, and
    estimate from the rows before the origin only.

    Where a model cannot be estimated, or forecasts far outside of what the history allows,
    :class:`SeasonalNaive` forecasts in its place; ``status_`` says so, and for single forecasts
    ``attrs["fallback"]`` of what ``predict`` returns. A step that was not observed is read as the
    last value before it.

    Parameters
    ----------
    season_length : int or None, default None
        Steps in a season; None takes the first of ``cycles_``: 24 for hours, 7 for days, 12 for
        months, 4 for quarters, 1 (no season) for years and integers; for weeks 52, where the
        longest series has two years of them, else 1.
    n_jobs : int or None, default None
        How many processes estimate and forecast; None is one, -1 is one per processor. The
        forecasts do not depend on it.

    Attributes
    ----------
    season_length_ : int
        The season.
    status_ : DataFrame
        A row for each series and variate, with the columns ``id``, ``variate``, ``status``
        ("ok"; "reduced" where fewer lags or fewer effects were estimated than asked for;
        "fallback"; or "unobserved" where all values are missing) and ``message``.
    """

    learned_record: ClassVar[Any] = LocalRecord

    season_length: Annotated[int, Interval(1)] | None = None
    # No more than a machine could have: a saved model is not to start them by the million.
    n_jobs: Annotated[int, Interval(1, 1024)] | Literal[-1] | None = None

    @abstractmethod
    def _make_model(self, season_length: int) -> LocalModel:
        """Return the model, with the options of the estimator."""

    def _season(self, panel: Panel) -> int:
        """Return the season, by the calendar where it is not set."""
        return int(panel.season_length if self.season_length is None else self.season_length)

    # ------------------------------------------------------------------ fit

    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        stop = panel.offsets[1:]
        coded, coding = self._coded(panel, stop)
        season = self._season(panel)
        model = self._make_model(season)
        regressors = Regressors.of(coding)
        x = regressors.columns(coded.covariates.future, coding) if coded.covariates else None
        jobs, begins = [], np.full((panel.n_series, panel.n_variates), -1)
        for series, (start, end) in enumerate(zip(panel.offsets, stop, strict=False)):
            for variate in range(panel.n_variates):
                y = panel.values[start:end, variate].astype(np.float64)
                begin = first_observed(y)
                begins[series, variate] = begin
                rows = slice(max(begin, 0), None)
                x_of_series = np.empty((len(y), 0)) if x is None else x[start:end]
                own = y[rows], x_of_series[rows]
                jobs.append((model, *own, regressors, int(self.horizon), season))
        grid = tuple(_parallel(estimate_fitted, jobs, self.n_jobs))
        for status in ("fallback", "reduced"):
            messages = [one.message for one in grid if one.status == status]
            self._warn_of(status, messages, len(grid))
        pooled = Scaling.measure(panel.values, panel.offsets, stop).pooled()
        self._estimates = Estimates(panel.first, begins, grid)
        self.season_length_ = season
        needed = model.needed(regressors.n_effects)
        # A state depends on everything before it.
        identity = Scaling.identity(panel.n_series, panel.n_variates)
        return Learned(identity, pooled, needed, coding, whole=True)

    @property
    def status_(self) -> pd.DataFrame:
        """What became of each series and variate."""
        ids, variates = self.end_.ids, self.end_.variates
        return pd.DataFrame(
            {
                "id": ids.repeat(len(variates)),
                "variate": np.tile(np.asarray(variates), len(ids)),
                "status": [one.status for one in self._estimates.grid],
                "message": [one.message for one in self._estimates.grid],
            }
        )

    def _warn_of_windows(self, messages: Sequence[str], n_series: int) -> None:
        if messages:
            warn(
                f"{self.name}: forecasts of {len(messages)} of {n_series} series failed, "
                f"SeasonalNaive forecasts in their place (the first: {messages[0]})",
                DataWarning,
            )

    def _warn_of(self, status: str, messages: Sequence[str], n_models: int) -> None:
        if messages:
            where = "status_ says which and why" if n_models > 1 else "status_ says why"
            warn(
                f"{self.name}: {len(messages)} of {n_models} models {WHAT_BECAME_OF_IT[status]} "
                f"(the first: {messages[0]}); {where}",
                DataWarning,
            )

    # -------------------------------------------------------------- predict

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
        if after_fitted:
            panel, rows = join_fitted(panel, owners, rows, self.end_)
        fitted = self.as_fitted
        model = fitted._make_model(self.season_length_)  # noqa: SLF001  (this class)
        # Of the same length whatever is asked for, so that the shorter is part of the longer.
        steps = max(horizon, self.horizon_)
        estimates, regressors = self._estimates_of(panel), Regressors.of(self.learned_.coding)
        ahead = (
            panel.known_ahead(self.learned_.coding, dict(known_ahead or {}), steps)
            if (self.learned_.coding)
            else None
        )
        jobs, places = [], []
        for owner in np.unique(owners):
            windows = np.flatnonzero(owners == owner)
            start = panel.offsets[owner]
            origins = rows[windows] - start
            x = self._known_rows(panel, ahead, int(owner), int(origins.max()) + steps)
            for variate in range(panel.n_variates):
                y = panel.values[start : start + origins.max(), variate].astype(np.float64)
                estimate = estimates[owner * panel.n_variates + variate]
                season = self.season_length_
                horizons = steps, self.horizon_
                jobs.append(Task(model, estimate, y, x, regressors, origins, *horizons, season))
                places.append((windows, variate))
        point = np.empty((len(owners), horizon, panel.n_variates))
        failed: list[str] = []
        reasons: dict[tuple[int, int], str] = {}
        done = _parallel(forecast_windows, jobs, fitted.n_jobs)
        for (windows, variate), one in zip(places, done, strict=True):
            point[windows, :, variate] = one.values[:, :horizon]
            failed += one.news[:1]
            for place, why in one.reasons.items():
                reasons[int(windows[place]), variate] = why
        # What a variate without any observation is forecast as.
        level = self.learned_.pooled_of(panel, self.end_).mean[0]
        self._warn_of_windows(failed, len(jobs))
        values = self.in_range(np.where(np.isnan(point), level, point))
        return Forecasts(values, replaced=reasons)

    @property
    def takes_new_series(self) -> bool:
        return False

    def _estimates_of(self, panel: Panel) -> list[Estimate | None]:
        """Return what was estimated for the series of a panel, None where it has to be.

        Series by series, S * C of them.
        """
        fitted = self._estimates
        series = id_places(panel.ids, self.end_.ids)
        variates = self.end_.variates.get_indexer(panel.variates)
        first = self.end_.axis.stamps_of(panel.first, panel.axis)
        estimates: list[Estimate | None] = []
        for place, owner in enumerate(series):
            rows = panel.values[panel.offsets[place] : panel.offsets[place + 1]]
            same = owner >= 0 and first[place] == fitted.first[owner]
            for column, variate in enumerate(variates):
                estimate = None
                if (
                    same
                    and variate >= 0
                    and first_observed(rows[:, column]) == fitted.begins[owner, variate]
                ):
                    estimate = fitted.grid[owner * self.n_variates_ + variate]
                estimates.append(estimate)
        return estimates

    def _known_rows(
        self, panel: Panel, ahead: np.ndarray | None, owner: int, rows: int
    ) -> np.ndarray:
        """Return what is known of the first rows of a series, shape (rows, K)."""
        if ahead is None:
            return np.empty((rows, 0))
        assert panel.covariates is not None, "panels with covariates are coded"
        own = panel.covariates.future[panel.offsets[owner] : panel.offsets[owner + 1]]
        coding = self.learned_.coding
        held = Regressors.of(coding).columns(np.concatenate([own, ahead[owner]])[:rows], coding)
        # Beyond what is known, the last value stays.
        return held[np.minimum(np.arange(rows), len(held) - 1)]

    # ------------------------------------------------------------ persistence

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record, tensors = super().learned_state()
        more, arrays = self._estimates.to_state()
        record["local"] = {"season_length": self.season_length_, "effects": AGAINST_MEAN, **more}
        tensors |= {f"local.{name}": torch.from_numpy(array) for name, array in arrays.items()}
        return record, tensors

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Estimator],
    ) -> None:
        super().restore_learned_state(record, tensors, members)
        arrays = {
            name.removeprefix("local."): tensor.numpy()
            for name, tensor in tensors.items()
            if name.startswith("local.")
        }
        estimates = Estimates.from_state(record["local"], arrays, self.end_)
        if record["local"].get("effects") != AGAINST_MEAN:
            estimates = estimates.after_format_1(Regressors.of(self.learned_.coding))
        self._estimates = estimates
        self.end_ = replace(self.end_, first=self._estimates.first)
        self.season_length_ = record["local"]["season_length"]
        self._check_estimates()

    def _check_estimates(self) -> None:
        """Raise a PersistenceError if there are estimates that the series are too short for."""
        model = self._make_model(self.season_length_)
        lengths = np.repeat(self.end_.lengths, self.n_variates_)
        for length, one in zip(lengths, self._estimates.grid, strict=True):
            if one.status == "ok" and len(one.parameters) and model.needed(0) > length:
                raise PersistenceError(
                    f"load: the parameters of the {self.name} need {model.needed(0)} rows, and "
                    f"were estimated from {length}"
                )


def _parallel(function: Callable[[Job], Done], jobs: list[Job], n_jobs: int | None) -> list[Done]:
    """Return the results of some jobs in their order."""
    n_processes = min(joblib.effective_n_jobs(n_jobs), len(jobs))
    if n_processes <= 1:
        return [function(job) for job in jobs]
    size = -(-len(jobs) // (PIECES * n_processes))
    pieces = [jobs[begin : begin + size] for begin in range(0, len(jobs), size)]
    work = joblib.Parallel(n_jobs=n_processes)
    done = work(joblib.delayed(_in_turn)(function, piece) for piece in pieces)
    return [result for piece in done for result in piece]


def _in_turn(function: Callable[[Job], Done], jobs: list[Job]) -> list[Done]:
    return [function(job) for job in jobs]
