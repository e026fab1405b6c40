"""A statistical model for each series and variate: what the classical baselines share.

Dimension letters: S series, C variates, W windows of one series, H horizon, n rows,
K numbers that describe the covariates of a step.
"""

import contextlib
import os
import sys
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import joblib
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsar.data.covariates import CovariateCoding
from tsar.data.matching import id_places
from tsar.data.panel import Panel
from tsar.data.scaling import ROUNDING, Scaling
from tsar.estimator.base import Estimator
from tsar.exceptions import DataWarning, foreign_warnings, warn
from tsar.forecasting.base import Forecaster
from tsar.forecasting.fitted.contract import Forecasts
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.fitted.windowed import after_fitted as join_fitted
from tsar.params.constraints import Interval

__all__ = ["LocalForecaster", "LocalModel"]

# What an estimation runs into on data that it cannot do with.
FAILURES = (ArithmeticError, LookupError, RuntimeError, ValueError)
NO_NUMBERS = np.empty(0)
# Digits after the point that the same values have in all units, once standardised.
DIGITS = 8
# Pieces of work that a process is given in all: more of them balance better, and cost more.
PIECES = 4

Job = TypeVar("Job")
Done = TypeVar("Done")


class LocalModel(ABC):
    """A model of one variate of one series, in standardised units.

    It is a frozen dataclass of plain options, so that other processes can be given it.
    """

    # Whether the values are centred before they are divided by their scale.
    centred: ClassVar[bool] = True
    # Whether it reads missing values (NaN); others read the last observation in their place.
    reads_missing: ClassVar[bool] = False

    @abstractmethod
    def needed(self, n_covariates: int) -> int:
        """Return how many observations an estimation takes at least."""

    @abstractmethod
    def estimate(self, y: np.ndarray, x: np.ndarray) -> "tuple[np.ndarray, np.ndarray, bool]":
        """Estimate the parameters.

        Parameters
        ----------
        y : float64 array of shape (n,)
            From the first observation on.
        x : float64 array of shape (n, K)
            Covariates, each of which moves.

        Returns
        -------
        parameters : float64 array of shape (any,)
        effects : float64 array of shape (K,)
            What one unit of a covariate adds.
        converged : bool
        """

    @abstractmethod
    def forecast(
        self,
        parameters: np.ndarray,
        effects: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        cutoffs: np.ndarray,
        horizon: int,
    ) -> np.ndarray:
        """Forecast from several origins with estimated parameters.

        Parameters
        ----------
        parameters, effects : float64 arrays
            What :meth:`estimate` returned.
        y : float64 array of shape (n,)
            Begins where the series began that was estimated from.
        x : float64 array of shape (n + H at least, K)
        cutoffs : int64 array of shape (W,)
            First row of each forecast, which depends on no later row of ``y``.
        horizon : int

        Returns
        -------
        float64 array of shape (W, H)
        """


@dataclass(frozen=True)
class Estimate:
    """What was estimated for one variate of one series.

    Parameters
    ----------
    mean, scale : float
        By which values are standardised; the scale of a constant is 0.
    parameters : float64 array of shape (any,)
    effects : float64 array of shape (K,)
    status : {"ok", "fallback", "unobserved"}
    message : str
    """

    mean: float
    scale: float
    parameters: np.ndarray
    effects: np.ndarray
    status: str = "ok"
    message: str = ""

    @classmethod
    def without(cls, status: str, message: str) -> "Estimate":
        """Return what stands in where nothing could be estimated."""
        return cls(0.0, 0.0, NO_NUMBERS, NO_NUMBERS, status, message)


@dataclass(frozen=True)
class Estimates:
    """All estimates, and where the series began that they were made from.

    Parameters
    ----------
    first : int64 array of shape (S,)
        First stamps.
    begins : int64 array of shape (S, C)
        First observed row, -1 where there is none.
    grid : tuple of Estimate
        Series by series, S * C of them.
    """

    first: np.ndarray
    begins: np.ndarray
    grid: tuple[Estimate, ...]

    def to_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what JSON can hold, and arrays by name."""
        record = {name: [getattr(one, name) for one in self.grid] for name in ("status", "message")}
        arrays = {"first": self.first, "begins": self.begins}
        for name in ("mean", "scale"):
            arrays[name] = np.array([getattr(one, name) for one in self.grid], dtype=np.float64)
        for name in ("parameters", "effects"):
            held = [getattr(one, name) for one in self.grid]
            arrays[name] = np.concatenate([NO_NUMBERS, *held])
            arrays[f"{name}_sizes"] = np.array([len(one) for one in held], dtype=np.int64)
        return record, arrays

    @classmethod
    def from_state(cls, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> "Estimates":
        """Undo :meth:`to_state`."""
        columns: dict[str, Sequence[Any]] = {
            **{name: arrays[name].tolist() for name in ("mean", "scale")},
            **{name: record[name] for name in ("status", "message")},
        }
        for name in ("parameters", "effects"):
            columns[name] = np.split(arrays[name], np.cumsum(arrays[f"{name}_sizes"])[:-1])
        names = [field.name for field in fields(Estimate)]
        rows = zip(*(columns[name] for name in names), strict=True)
        return cls(arrays["first"], arrays["begins"], tuple(Estimate(*row) for row in rows))


@dataclass(kw_only=True, eq=False, repr=False)
class LocalForecaster(Forecaster):
    """A forecaster that has a statistical model for each series and variate.

    ``predict(df=...)`` continues a fitted series with the parameters that ``fit`` estimated,
    where ``df`` holds it from its first observation on, and reads what was observed since.
    Any other series (a new id, a new variate, a fitted one without its beginning) is
    estimated anew from the rows of ``df``. ``forecast_windows`` and ``score`` do the same, and
    estimate from the rows before the origin only.

    Where a model cannot be estimated, :class:`SeasonalNaive` forecasts in its place, and
    ``status_`` says so. A step that was not observed is read as the last value before it.

    Parameters
    ----------
    season_length : int or None, default None
        Steps in a season; None follows from the frequency: 24 for hours, 7 for days, 52
        for weeks, 12 for months, 4 for quarters, 1 (no season) for years and integers.
    n_jobs : int or None, default None
        How many processes estimate and forecast; None is one, -1 is one per processor. The
        forecasts do not depend on it.

    Attributes
    ----------
    season_length_ : int
        The season.
    status_ : DataFrame
        A row for each series and variate, with the columns ``id``, ``variate``, ``status``
        ("ok", "fallback", or "unobserved" where all values are missing) and ``message``.
    """

    season_length: Annotated[int, Interval(1)] | None = None
    n_jobs: Annotated[int, Interval(1)] | Literal[-1] | None = None

    @abstractmethod
    def _make_model(self, season_length: int) -> LocalModel:
        """Return the model, with the options of the estimator."""

    # ------------------------------------------------------------------ fit

    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        stop = panel.offsets[1:]
        coded, coding = self._coded(panel, stop)
        season = panel.frequency.season_length if self.season_length is None else self.season_length
        model = self._make_model(int(season))
        x = _design(coded.covariates.future, coding) if coded.covariates else None
        jobs, begins = [], np.full((panel.n_series, panel.n_variates), -1)
        for series, (start, end) in enumerate(zip(panel.offsets, stop, strict=False)):
            for variate in range(panel.n_variates):
                y = panel.values[start:end, variate].astype(np.float64)
                begin = _first_observed(y)
                begins[series, variate] = begin
                rows = slice(max(begin, 0), None)
                known = np.empty((len(y), 0)) if x is None else x[start:end]
                jobs.append((model, y[rows], known[rows]))
        grid = tuple(_parallel(_estimate, jobs, self.n_jobs))
        self._warn_of_fallbacks(
            [one.message for one in grid if one.status == "fallback"], len(grid)
        )
        pooled = Scaling.measure(panel.values, panel.offsets, stop).pooled()
        self._estimates = Estimates(panel.first, begins, grid)
        self.season_length_ = int(season)
        n_covariates = 0 if x is None else x.shape[1]
        needed = model.needed(n_covariates)
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

    def _warn_of_fallbacks(self, messages: list[str], n_models: int) -> None:
        if messages:
            where = "status_ says which and why" if n_models > 1 else "status_ says why"
            warn(
                f"{self.name}: {len(messages)} of {n_models} models could not be estimated, "
                f"SeasonalNaive forecasts in their place (the first: {messages[0]}); {where}",
                DataWarning,
            )

    # -------------------------------------------------------------- predict

    def forecast(
        self,
        panel: Panel,
        owners: np.ndarray,
        rows: np.ndarray,
        horizon: int,
        known: Mapping[Any, np.ndarray] | None = None,
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
        estimates = self._estimates_of(panel)
        ahead = (
            panel.known_ahead(self.learned_.coding, dict(known or {}), steps)
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
                found = estimates[owner * panel.n_variates + variate]
                jobs.append((model, found, y, x, origins, steps, self.season_length_))
                places.append((windows, variate))
        point = np.empty((len(owners), horizon, panel.n_variates))
        failed: list[str] = []
        done = _parallel(_forecast, jobs, fitted.n_jobs)
        for (windows, variate), (forecast, messages) in zip(places, done, strict=True):
            point[windows, :, variate] = forecast[:, :horizon]
            failed += messages[:1]
        # What a variate without any observation is forecast as.
        level = self.learned_.pooled_of(panel, self.end_).mean[0]
        self._warn_of_fallbacks(failed, len(jobs))
        return Forecasts(self.in_range(np.where(np.isnan(point), level, point)))

    def _estimates_of(self, panel: Panel) -> list[Estimate | None]:
        """Return what was estimated for the series of a panel, None where it has to be.

        Series by series, S * C of them.
        """
        fitted = self._estimates
        series = id_places(panel.ids, self.end_.ids)
        variates = self.end_.variates.get_indexer(panel.variates)
        first = self.end_.axis.stamps_of(panel.first, panel.axis)
        found: list[Estimate | None] = []
        for place, owner in enumerate(series):
            rows = panel.values[panel.offsets[place] : panel.offsets[place + 1]]
            same = owner >= 0 and first[place] == fitted.first[owner]
            for column, variate in enumerate(variates):
                known = None
                if (
                    same
                    and variate >= 0
                    and _first_observed(rows[:, column]) == fitted.begins[owner, variate]
                ):
                    known = fitted.grid[owner * self.n_variates_ + variate]
                found.append(known)
        return found

    def _known_rows(
        self, panel: Panel, ahead: np.ndarray | None, owner: int, rows: int
    ) -> np.ndarray:
        """Return what is known of the first rows of a series, shape (rows, K)."""
        if ahead is None:
            return np.empty((rows, 0))
        assert panel.covariates is not None, "panels with covariates are coded"
        own = panel.covariates.future[panel.offsets[owner] : panel.offsets[owner + 1]]
        held = _design(np.concatenate([own, ahead[owner]])[:rows], self.learned_.coding)
        # Beyond what is known, the last value stays.
        return held[np.minimum(np.arange(rows), len(held) - 1)]

    # ------------------------------------------------------------ persistence

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record, tensors = super().learned_state()
        more, arrays = self._estimates.to_state()
        record["local"] = {"season_length": self.season_length_, **more}
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
        self._estimates = Estimates.from_state(record["local"], arrays)
        self.end_ = replace(self.end_, first=self._estimates.first)
        self.season_length_ = record["local"]["season_length"]


def rounded(y: np.ndarray) -> np.ndarray:
    """Return standardised values without the last digits, for an optimiser to start from.

    Where a likelihood is flat, digits that differ by rounding alone (data in other units)
    lead to other parameters. Without them the path is the same.

    Parameters
    ----------
    y : float64 array of any shape
    """
    return np.round(y, DIGITS)


def _first_observed(y: np.ndarray) -> int:
    """Return the first row that is no NaN, -1 if all are."""
    seen = ~np.isnan(y)
    return int(seen.argmax()) if seen.any() else -1


def _design(known: np.ndarray, coding: CovariateCoding) -> np.ndarray:
    """Return coded covariates as numbers that effects can be multiplied with, (rows, K).

    A category is a column of zeros and ones; the first one is what others are compared with.
    """
    columns = []
    for place, column in enumerate(coding.future):
        if column.categories is None:
            columns.append(known[:, place])
        else:
            columns += [known[:, place] == code for code in range(2, column.n_categories)]
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.empty((len(known), 0))


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


def _estimate(job: tuple[LocalModel, np.ndarray, np.ndarray]) -> Estimate:
    """Estimate a model from values (n,) that begin with an observation, and covariates (n, K)."""
    model, y, x = job
    observed = y[~np.isnan(y)]
    if not len(observed):
        return Estimate.without("unobserved", "all values are missing")
    mean, scale = float(observed.mean()), float(observed.std())
    if scale <= ROUNDING * abs(mean):
        return Estimate(mean, 0.0, NO_NUMBERS, np.zeros(x.shape[1]), message="constant")
    moving = x.std(axis=0) > 0
    needed = model.needed(int(moving.sum()))
    if len(observed) < needed:
        return Estimate.without(
            "fallback", f"{needed} observed rows are needed, there are {len(observed)}"
        )
    if not model.centred:
        mean, scale = 0.0, float(np.abs(observed).mean())
    z = ((y if model.reads_missing else _carried(y)) - mean) / scale
    try:
        with _quiet():
            parameters, some, converged = model.estimate(z, x[:, moving])
    except FAILURES as error:
        return Estimate.without("fallback", f"{type(error).__name__}: {error}")
    if not (np.isfinite(parameters).all() and np.isfinite(some).all()):
        return Estimate.without("fallback", "the estimated parameters are not finite")
    effects = np.zeros(x.shape[1])
    effects[moving] = some
    message = "" if converged else "the optimiser stopped before it converged"
    return Estimate(mean, scale, np.asarray(parameters, dtype=np.float64), effects, message=message)


def _forecast(
    job: tuple[LocalModel, Estimate | None, np.ndarray, np.ndarray, np.ndarray, int, int],
) -> tuple[np.ndarray, list[str]]:
    """Forecast a series from several origins, (W, H); say where that failed.

    NaN stands where nothing was observed before the origin.
    """
    model, known, y, x, cutoffs, horizon, season = job
    begin = _first_observed(y)
    forecast = np.full((len(cutoffs), horizon), np.nan)
    seen = cutoffs > begin if begin >= 0 else np.zeros(len(cutoffs), dtype=bool)
    if not seen.any():
        return forecast, []
    naive = _last_season(y, cutoffs[seen], horizon, season)
    if known is not None and known.status == "fallback":
        forecast[seen] = naive
        return forecast, []
    y, x, rows = y[begin:], x[begin:], cutoffs[seen] - begin
    found = np.full_like(naive, np.nan)
    messages: list[str] = []
    if known is not None and known.scale > 0:
        counts = np.concatenate([[0], np.cumsum(~np.isnan(y))])
        enough = counts[rows] >= model.needed(int((known.effects != 0).sum()))
        if enough.any():
            found[enough] = _apply(model, known, y, x, rows[enough], horizon, messages)
    else:
        for place, row in enumerate(rows):
            one = _estimate((model, y[:row], x[:row]))
            if one.status == "ok" and one.scale > 0:
                found[place] = _apply(model, one, y[:row], x, rows[[place]], horizon, messages)[0]
            elif one.status == "ok":
                found[place] = y[:row][~np.isnan(y[:row])][-1]
            elif np.count_nonzero(~np.isnan(y[:row])) >= model.needed(x.shape[1]):
                # What is too short is listed as a short history.
                messages.append(one.message)
    forecast[seen] = np.where(np.isfinite(found), found, naive)
    return forecast, messages


def _apply(
    model: LocalModel,
    estimate: Estimate,
    y: np.ndarray,
    x: np.ndarray,
    cutoffs: np.ndarray,
    horizon: int,
    messages: list[str],
) -> np.ndarray:
    """Forecast with an estimate, (W, H); NaN and a message where that fails."""
    z = ((y if model.reads_missing else _carried(y)) - estimate.mean) / estimate.scale
    try:
        with _quiet():
            found = model.forecast(estimate.parameters, estimate.effects, z, x, cutoffs, horizon)
            return found * estimate.scale + estimate.mean
    except FAILURES as error:
        messages.append(f"{type(error).__name__}: {error}")
        return np.full((len(cutoffs), horizon), np.nan)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold warnings back: statsmodels has some for each series; what matters is in the status."""
    # Its optimiser changes the filters of the process and puts back what it found, which is
    # only right for one thread at a time. It keeps Python busy, so that threads lose little.
    with _one_at_a_time:
        if "statsmodels.tools.sm_exceptions" not in sys.modules:
            # It makes filters of its own, which would go before those that are there.
            before = warnings.filters[:]
            import statsmodels.tools.sm_exceptions  # noqa: F401

            warnings.filters[:] = before  # type: ignore[index]
        with foreign_warnings("ignore", Warning), np.errstate(all="ignore"):
            yield


def _in_forked_process() -> None:
    # What held the lock has not come along.
    global _one_at_a_time
    _one_at_a_time = threading.RLock()


_one_at_a_time = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)


def _carried(y: np.ndarray) -> np.ndarray:
    """Return values whose missing ones carry the last observation forward."""
    missing = np.isnan(y)
    if not missing.any():
        return y
    return y[np.maximum.accumulate(np.where(missing, 0, np.arange(len(y))))]


def _last_season(y: np.ndarray, cutoffs: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Return what ``SeasonalNaive`` forecasts, (W, H)."""
    rows = cutoffs[:, None] - season + np.arange(horizon) % season
    held = y[np.maximum(rows, 0)]
    last = _carried(y[max(_first_observed(y), 0) :])
    last = last[cutoffs - 1 - max(_first_observed(y), 0)]
    return np.where((rows >= 0) & ~np.isnan(held), held, last[:, None])
