"""Statistical models of one variate of one series: estimated, applied, and caught where they fail.

Dimension letters: S series, C variates, W windows of one series, H horizon, n rows,
K numbers that describe the covariates of a step.
"""

import contextlib
import os
import sys
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from tsar.data.scaling import ROUNDING
from tsar.exceptions import foreign_warnings
from tsar.forecasting.estimates import NO_NUMBERS, Estimate
from tsar.forecasting.plausible import first_beyond
from tsar.forecasting.regressors import Regressors

__all__ = [
    "LocalModel",
    "Task",
    "estimate_fitted",
    "first_observed",
    "forecast_windows",
    "rounded",
]

# What an estimation runs into on data that it cannot do with.
FAILURES = (ArithmeticError, LookupError, RuntimeError, ValueError)
# Digits after the point that the same values have in all units, once standardised.
DIGITS = 8
# Deviations between the lowest and the highest value of most series. Rows that did not move yet say
# less than what was estimated; factors are of the level, which is 1.
USUAL_RANGE = 4.0
# How much of its deviation a covariate has to move by itself for an effect of its own. Covariates
# are coded in float32, which leaves some 1e-7 of what follows from others.
OWN_SHARE = 1e-5


class LocalModel(ABC):
    """A model of one variate of one series, in standardised units.

    It is a frozen dataclass of plain options, so that other processes can be given it.
    """

    # Whether the values are centred before they are divided by their scale.
    centred: ClassVar[bool] = True
    # Whether it reads missing values (NaN); others read the last observation in their place.
    reads_missing: ClassVar[bool] = False

    @property
    def chosen_freely(self) -> bool:
        """Whether a smaller part of it is no less than what was asked for."""
        return False

    @abstractmethod
    def needed(self, n_covariates: int) -> int:
        """Return how many observations an estimation takes at least."""

    def carried_by(self, n_observed: int, n_covariates: int) -> Self:
        """Return the model, or the largest part of it that so many observations carry."""
        return self

    def beside(self, y: np.ndarray) -> np.ndarray:
        """Return what effects of covariates are estimated beside, (rows, any), to the last row."""
        return np.ones((len(y), 1))

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


def rounded(y: np.ndarray) -> np.ndarray:
    """Return standardised values without the last digits, for an optimiser to start from.

    Where a likelihood is flat, digits that differ by rounding alone (data in other units)
    lead to other parameters. Without them the path is the same.

    Parameters
    ----------
    y : float64 array of any shape
    """
    return np.round(y, DIGITS)


def first_observed(y: np.ndarray) -> int:
    """Return the first row that is no NaN, -1 if all are."""
    seen = ~np.isnan(y)
    return int(seen.argmax()) if seen.any() else -1


def estimate_fitted(
    job: tuple[LocalModel, np.ndarray, np.ndarray, Regressors, int, int],
) -> Estimate:
    """Estimate a model, and give it up if it cannot forecast what it was estimated from.

    The job is the model, values (n,) that begin with an observation, covariates (n, K), the
    horizon and the season.
    """
    model, y, x, regressors, horizon, season = job
    estimate = _estimate(model, y, x, regressors)
    if estimate.status in ("fallback", "unobserved") or estimate.scale == 0:
        return estimate
    # Covariates of the horizon are not known yet; at their means they add nothing unusual.
    ahead = np.broadcast_to(x.mean(axis=0), (horizon, x.shape[1]))
    x = np.concatenate([x, ahead])
    cutoffs = np.array([len(y)])
    task = Task(model, estimate, y, x, regressors, cutoffs, horizon, horizon, season)
    _, reasons = _apply(task, estimate, np.zeros((1, horizon)))
    return Estimate.without("fallback", reasons[0]) if reasons else estimate


def _estimate(model: LocalModel, y: np.ndarray, x: np.ndarray, regressors: Regressors) -> Estimate:
    """Estimate a model from values (n,) that begin with an observation, and covariates (n, K)."""
    observed = y[~np.isnan(y)]
    if not len(observed):
        return Estimate.without("unobserved", "all values are missing")
    mean, scale = float(observed.mean()), float(observed.std())
    if scale <= ROUNDING * abs(mean):
        return Estimate(mean, 0.0, NO_NUMBERS, np.zeros(x.shape[1]), message="constant")
    chosen, read = regressors.to_estimate(x)
    n_moving = len(chosen)
    needed = model.needed(n_moving)
    if len(observed) < needed:
        return Estimate.without("fallback", _too_few(needed, len(observed)))
    if not model.centred:
        mean, scale = 0.0, float(np.abs(observed).mean())
    z = ((y if model.reads_missing else _carried(y)) - mean) / scale
    carried = model.carried_by(len(observed), n_moving)
    notes = [] if carried == model else [f"{len(observed)} observed rows carry {carried}"]
    status = "reduced" if notes and not model.chosen_freely else "ok"
    try:
        with _quiet():
            own = _own_directions(read, carried.beside(z))
            if own.shape[1] < n_moving:
                status = "reduced"
                notes.append(
                    f"{n_moving - own.shape[1]} of {n_moving} covariates follow from the others, "
                    f"their effects are shared"
                )
                parameters, some, converged = carried.estimate(z, read @ own)
                some = own @ some
            else:
                parameters, some, converged = carried.estimate(z, read)
    except FAILURES as error:
        return Estimate.without("fallback", f"{type(error).__name__}: {error}")
    if not (np.isfinite(parameters).all() and np.isfinite(some).all()):
        return Estimate.without("fallback", "the estimated parameters are not finite")
    effects = regressors.effects(x, chosen, some)
    if not converged:
        notes.append("the optimiser stopped before it converged")
    parameters = np.asarray(parameters, dtype=np.float64)
    return Estimate(mean, scale, parameters, effects, status, "; ".join(notes))


def _too_few(needed: int, there: int) -> str:
    return f"{needed} observed rows are needed, there are {there}"


def _own_directions(x: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """Return the combinations of covariates (n, K) that move by themselves, shape (K, any).

    Where one follows from others, or from what is estimated beside them, all effects between
    which the data cannot decide explain them alike; the shortest, in units of the deviations of
    the covariates, is that of the combinations which remain.
    """
    n_covariates = x.shape[1]
    if not n_covariates:
        return np.empty((0, 0))
    x = x[-len(beside) :]
    size = x.std(axis=0)
    still = size <= OWN_SHARE * np.abs(x).max(axis=0)
    units = np.divide(1.0, size, out=np.zeros_like(size), where=~still)
    plain = (x - x.mean(axis=0)) * units
    rest = plain - beside @ np.linalg.lstsq(beside, plain, rcond=1e-10)[0]
    _, lengths, directions = np.linalg.svd(rest, full_matrices=False)
    own: np.ndarray = directions[lengths > OWN_SHARE * np.sqrt(len(rest))]
    return own.T * units[:, None]


@dataclass(frozen=True)
class Task:
    """Windows of one variate of one series to forecast.

    Parameters
    ----------
    model : LocalModel
    estimate : Estimate or None
        None where it is to be estimated from the rows before each cutoff.
    y : float64 array of shape (n,)
    x : float64 array of shape (n + H at least, K)
    regressors : Regressors
        What the columns of ``x`` are.
    cutoffs : int64 array of shape (W,)
        First row of each forecast.
    horizon : int
    fitted_horizon : int
        Steps that are one whole: a shorter horizon is a part of them.
    season : int
    """

    model: LocalModel
    estimate: Estimate | None
    y: np.ndarray
    x: np.ndarray
    regressors: Regressors
    cutoffs: np.ndarray
    horizon: int
    fitted_horizon: int
    season: int


@dataclass(frozen=True)
class Windows:
    """Forecasts of a :class:`Task`.

    Parameters
    ----------
    values : float64 array of shape (W, H)
        NaN where nothing was observed before the cutoff.
    reasons : dict of int to str
        Why the last season stands in, by window.
    news : list of str
        Those of them that ``fit`` and the list of short histories do not tell.
    """

    values: np.ndarray
    reasons: dict[int, str] = field(default_factory=dict)
    news: list[str] = field(default_factory=list)


def forecast_windows(task: Task) -> Windows:
    """Forecast windows, those that fail by the last season."""
    model, estimate, cutoffs = task.model, task.estimate, task.cutoffs
    begin = first_observed(task.y)
    values = np.full((len(cutoffs), task.horizon), np.nan)
    seen = np.flatnonzero(cutoffs > begin) if begin >= 0 else np.empty(0, dtype=int)
    done = Windows(values)
    if not len(seen):
        return done
    values[seen] = _last_season(task.y, cutoffs[seen], task.horizon, task.season)
    if estimate is not None and estimate.status == "fallback":
        done.reasons.update(dict.fromkeys(seen.tolist(), estimate.message))
        return done
    own = task
    if begin > 0 or len(seen) < len(cutoffs):
        own = replace(task, y=task.y[begin:], x=task.x[begin:], cutoffs=cutoffs[seen] - begin)
    counts = np.concatenate([[0], np.cumsum(~np.isnan(own.y))])[own.cutoffs]
    if estimate is not None and estimate.scale > 0:
        needed = model.needed(task.regressors.n_estimated(estimate.effects))
        part, windows = own, seen
        # Most series have enough rows for all of their windows.
        if (counts < needed).any():
            for place in np.flatnonzero(counts < needed):
                done.reasons[int(seen[place])] = _too_few(needed, int(counts[place]))
            enough = np.flatnonzero(counts >= needed)
            part, windows = replace(own, cutoffs=own.cutoffs[enough]), seen[enough]
        if len(windows):
            values[windows], reasons = _apply(part, estimate, values[windows])
            done.reasons.update({int(windows[place]): why for place, why in reasons.items()})
            done.news.extend(reasons.values())
        return done
    for number, row in enumerate(own.cutoffs.tolist()):
        window = int(seen[number])
        history = own.y[:row]
        one = _estimate(model, history, own.x[:row], own.regressors)
        if one.status in ("ok", "reduced") and one.scale > 0:
            part = replace(own, y=history, cutoffs=own.cutoffs[[number]])
            values[[window]], reasons = _apply(part, one, values[[window]])
            done.news.extend(reasons.values())
        elif one.status == "ok":
            values[window], reasons = history[~np.isnan(history)][-1], {}
        else:
            reasons = {0: one.message}
            if counts[number] >= model.needed(own.regressors.n_effects):
                # What is too short is listed as a short history.
                done.news.append(one.message)
        if reasons:
            done.reasons[window] = reasons[0]
    return done


def _apply(
    task: Task, estimate: Estimate, standing_in: np.ndarray
) -> tuple[np.ndarray, dict[int, str]]:
    """Forecast with an estimate, (W, H); where that fails take what stands in, and say why."""
    model, mean, scale = task.model, estimate.mean, estimate.scale
    plain = (_carried(task.y) - mean) / scale
    z = (task.y - mean) / scale if model.reads_missing else plain
    numbers = estimate.parameters, estimate.effects
    try:
        with _quiet():
            steps = model.forecast(*numbers, z, task.x, task.cutoffs, task.horizon)
            least = USUAL_RANGE if model.centred else 1.0
            first = first_beyond(steps, plain, task.x, task.cutoffs, task.season, least)
            values = steps * scale + mean
    except FAILURES as error:
        return standing_in, dict.fromkeys(
            range(len(standing_in)), f"{type(error).__name__}: {error}"
        )
    reasons = {}
    for place in np.flatnonzero(first < task.horizon):
        step, history = int(first[place]), plain[: task.cutoffs[place]] * scale + mean
        reasons[int(place)] = (
            f"step {step + 1} of the forecast is {values[place, step]:.4g}, far outside of the "
            f"history from {history.min():.4g} to {history.max():.4g}"
        )
        # Later steps change none of the fitted horizon, whatever is asked for.
        begin = 0 if step < task.fitted_horizon else step
        values[place, begin:] = standing_in[place, begin:]
    return values, reasons


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
    begin = max(first_observed(y), 0)
    last = _carried(y[begin:])[cutoffs - 1 - begin]
    return np.where((rows >= 0) & ~np.isnan(held), held, last[:, None])
