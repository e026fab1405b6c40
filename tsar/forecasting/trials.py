"""Candidates for a forecast, tried on windows that are held out, within a time.

Dimension letters: S series, W windows, H horizon, C variates.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import clone

from tsar.data.matching import of_series
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.exceptions import DataError, DataWarning, own_warnings
from tsar.forecasting.base import Forecaster
from tsar.forecasting.data_driven import DataDrivenForecaster
from tsar.forecasting.held_out import HeldOutWindows
from tsar.forecasting.trial_folder import TrialFolder, TrialResult

__all__ = ["Trial", "Trials", "place_windows"]

# Horizons that are held out of all series together, and of each at least: windows of one series are
# much alike, and it takes many of them to tell candidates apart.
HORIZONS_OF_ALL, HORIZONS_OF_EACH = 30, 3
# Of long series so many, if that is not more than one row in ten.
MOST_HORIZONS, ROWS_FOR_ONE = 30, 10
# Of the rows of a series, one in so many is held out at most.
HELD_OUT = 3
# Windows by which candidates are judged, where there are fewer series; else one for each.
ENOUGH_WINDOWS = 500
# Values that are few enough to try all candidates on.
SMALL = 2000
# Series, or variates, and rows of each, by which a cost is measured where there are more, half of
# them at most; half of both are measured as well.
SAMPLE, SAMPLE_ROWS = 20, 1000
# Steps after which the seconds of a training are measured, and from where on they count.
WARM_STEPS, MEASURED_STEPS = 4, 24
# The share of the time by when costs are measured, and that of the rest for networks.
MEASURING_SHARE, NETWORK_SHARE = 0.25, 0.6
# A training of fewer steps than this share of what the data ask for is left out.
SHORTEST_SHARE = 0.15
# Of the steps that there is time for, what is run first where more than two trainings are short.
FIRST_SHARE = 0.25
# A candidate is fitted twice: without what is held out, and on all rows.
FITS = 2


def place_windows(
    panel: Panel, horizon: int, horizons: int | None = None, n_windows: int = ENOUGH_WINDOWS
) -> HeldOutWindows | None:
    """Place the windows by which candidates are judged.

    Parameters
    ----------
    panel : Panel
    horizon : int
    horizons : int or None
        How many horizons to hold out at the end of each series; None takes 30 of a single series,
        fewer of several, 3 of each of ten and more, and of long series up to 30 that are a tenth
        of their rows. A third of a series at most.
    n_windows : int, default 500
        How many of them to take at least, if there are as many; one of each series in any case.

    Returns
    -------
    HeldOutWindows or None
        None where no series is as long as it takes.
    """
    n_alike = panel.n_series * panel.n_variates
    tenth = np.minimum(panel.lengths // (ROWS_FOR_ONE * horizon), MOST_HORIZONS)
    wanted = np.maximum(tenth, max(round(HORIZONS_OF_ALL / n_alike), HORIZONS_OF_EACH))
    held_out = (
        np.minimum(wanted if horizons is None else horizons, panel.lengths // (HELD_OUT * horizon))
        * horizon
    )
    # What has two horizons can tell one from the other.
    held_out[(held_out == 0) & (panel.lengths >= 2 * horizon)] = horizon
    if not held_out.any():
        return None
    each = -(-n_windows // int((held_out > 0).sum()))
    apart = max((int(held_out.max()) - horizon) // max(each - 1, 1), 1)
    return HeldOutWindows.of(panel, held_out, horizon, apart)


@dataclass(eq=False)
class Trial:
    """What became of a candidate.

    Attributes
    ----------
    name : str
    forecaster : Forecaster
        Not fitted, with the parameters that it was tried with.
    status : {"tried", "left out", "failed"}
    note : str
        Why, where it was not tried, or how it was.
    loss : float
        Mean absolute error of the held-out windows in units of MASE, a mean over the series.
    fit_seconds : float
        Of the fit without what is held out.
    forecasts : float64 array of shape (W, H, C) or None
    best_steps : int or None
        Steps of training after which it forecast best what it held out itself, if it did.
    """

    name: str
    forecaster: Forecaster
    status: str = "left out"
    note: str = ""
    loss: float = math.nan
    fit_seconds: float = math.nan
    forecasts: np.ndarray | None = field(default=None, repr=False)
    best_steps: int | None = None

    @property
    def for_all_rows(self) -> Forecaster:
        """The forecaster to fit on all rows, not fitted.

        A training whose best length is told by now holds out nothing to find it.
        """
        if self.best_steps is None:
            return self.forecaster
        return clone(self.forecaster).set_params(early_stopping=False, max_steps=self.best_steps)

    @property
    def is_tried(self) -> bool:
        return self.status == "tried"

    def leave_out(self, why: str) -> None:
        """Say why it is not tried."""
        self.forget()
        self.note = why

    def forget(self) -> None:
        """Take back what was tried with less than all of it."""
        self.status, self.forecasts, self.fit_seconds = "left out", None, math.nan


@dataclass(frozen=True)
class _Yardstick:
    """Windows, and the units by which their errors are compared."""

    windows: HeldOutWindows
    scaling: Scaling
    truth: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, windows: HeldOutWindows) -> "_Yardstick":
        before = windows.before
        ends = before.offsets[1:]
        season = windows.panel.season_length
        scaling = Scaling.measure_seasonal(before.values, before.offsets, ends, season)
        truth = windows.scaled(windows.truth, scaling)
        # A series counts once, however many windows it has.
        n_windows = np.bincount(windows.owners, minlength=windows.panel.n_series)
        counts = np.where(np.isnan(truth), 0.0, 1.0 / n_windows[windows.owners][:, None, None])
        return cls(windows, scaling, truth, counts)

    def loss_of(self, forecasts: np.ndarray) -> float:
        """Return the mean absolute scaled error of forecasts (W, H, C)."""
        errors = np.abs(self.windows.scaled(forecasts, self.scaling) - self.truth)
        if np.isnan(errors[self.counts > 0]).any():
            raise DataError("forecasts of held-out windows are no numbers")
        total = float(self.counts.sum())
        return float((np.nan_to_num(errors) * self.counts).sum() / total) if total else 0.0


class Trials:
    """Candidates that are tried one after the other, within a time.

    Those that are fitted as they are come first. Where all of them would take too long, they are
    compared on a sample of the series, and the worst are left out until the rest fits in. Networks
    follow: where the time is short, the better half after a part of their steps goes on, and with
    fewer steps.

    Parameters
    ----------
    candidates : mapping of str to Forecaster
        The first one is tried whatever it takes.
    windows : HeldOutWindows
    fit : callable
        Fits one of them on a panel, and returns it.
    seconds : float
        Of the clock, for everything, the later fits of those that are chosen on all rows included.
    tell : callable
        Is called with the name of each when it begins.
    folder : TrialFolder or None
        What was found out there is not tried again.
    """

    def __init__(
        self,
        candidates: Mapping[str, Forecaster],
        windows: HeldOutWindows,
        fit: Callable[[Forecaster, Panel], Forecaster],
        seconds: float,
        tell: Callable[[str], None],
        folder: TrialFolder | None = None,
    ) -> None:
        self.fit, self.tell, self.folder = fit, tell, folder
        self.yardstick = _Yardstick.of(windows)
        now = time.monotonic()
        self.measured_at, self.ends_at = now + MEASURING_SHARE * seconds, now + seconds
        self.all = [Trial(name, one) for name, one in candidates.items()]

    @property
    def seconds_left(self) -> float:
        """What is left for trials, without the fits on all rows of what was tried."""
        again = sum(one.fit_seconds for one in self.all if one.is_tried)
        return self.ends_at - time.monotonic() - again

    def run(self) -> list[Trial]:
        """Try what there is time for."""
        first, *others = self.all
        self._try(first, self.yardstick)
        networks = [one for one in others if _has_open_length(one.forecaster)]
        plain = [one for one in others if one not in networks]
        waiting = self._run_plain(plain, 1 - NETWORK_SHARE if networks else 1.0)
        self._run_networks(networks)
        self._run_waiting(waiting)
        return self.all

    @property
    def tried(self) -> list[Trial]:
        """Those that can be chosen from."""
        return [one for one in self.all if one.is_tried]

    def scaled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the forecasts of those that were tried, the truth, and how errors count.

        Returns
        -------
        float64 arrays of shape (n, M), (n,) and (n,)
            In units of each series, without what was not observed.
        """
        yardstick = self.yardstick
        seen = yardstick.counts > 0
        columns = [
            yardstick.windows.scaled(one.forecasts, yardstick.scaling)[seen]
            for one in self.tried
            if one.forecasts is not None
        ]
        return np.stack(columns, axis=1), yardstick.truth[seen], yardstick.counts[seen]

    # ------------------------------------------------------------------ one

    def _try(self, trial: Trial, yardstick: _Yardstick) -> float:
        """Fit and judge a candidate; return the seconds that its forecasts took."""
        self.tell(trial.name)
        begun = time.monotonic()
        folder = self.folder if yardstick is self.yardstick else None
        try:
            result = folder.load(trial.name, trial.forecaster) if folder else None
            if result is None:
                result = self._result_of(trial.forecaster, yardstick)
                if folder:
                    folder.save(trial.name, trial.forecaster, result)
            trial.forecasts, trial.fit_seconds, trial.best_steps = result
            trial.loss = yardstick.loss_of(result.forecasts)
        # Whatever a candidate fails by, the others go on; the leaderboard says it.
        except Exception as error:
            trial.status, trial.note = "failed", f"{type(error).__name__}: {error}"
            return 0.0
        trial.status, trial.note = "tried", ""
        return max(time.monotonic() - begun - trial.fit_seconds, 0.0)

    def _result_of(self, forecaster: Forecaster, yardstick: _Yardstick) -> TrialResult:
        begun = time.monotonic()
        # What a candidate has to say of the data matters if it is chosen; it is fitted again.
        with own_warnings("ignore", DataWarning):
            fitted = self.fit(forecaster, yardstick.windows.before)
            seconds = time.monotonic() - begun
            forecasts = yardstick.windows.forecasts_of(fitted)
            return TrialResult(forecasts, seconds, _best_steps(fitted))

    # ---------------------------------------------------------------- plain

    def _run_plain(self, trials: Sequence[Trial], share: float) -> list["_Waiting"]:
        """Try candidates that are fitted as they are, in a share of the time.

        Returns those that there was no time for, the best on the sample first.
        """
        samples = _samples(self.yardstick.windows)
        if samples is None:
            for trial in trials:
                if self.seconds_left <= 0:
                    trial.leave_out("no time was left")
                else:
                    self._try(trial, self.yardstick)
            return []
        measured = [self._on_samples(trial, *samples) for trial in trials]
        waiting = sorted((one for one in measured if one), key=lambda one: one.loss)
        seconds = max(share * self.seconds_left, 0.0)
        going_on = _affordable(waiting, seconds)
        for one in waiting:
            if one in going_on:
                self._try(one.trial, self.yardstick)
        return [one for one in waiting if one not in going_on]

    def _on_samples(self, trial: Trial, few: _Yardstick, sample: _Yardstick) -> "_Waiting | None":
        """Try a candidate on few rows and on more, to know what to expect; None where it fails."""
        if time.monotonic() > self.measured_at:
            trial.leave_out("no time was left to measure what it takes")
            return None
        less, part = (Trial(trial.name, trial.forecaster) for _ in range(2))
        self._try(less, few)
        seconds = self._try(part, sample)
        if not part.is_tried:
            trial.status, trial.note = part.status, part.note
            return None
        small, large, whole = (
            one.windows.before.values.size for one in (few, sample, self.yardstick)
        )
        if less.is_tried and large > small:
            # Some read no more than so many rows.
            growth = max(part.fit_seconds - less.fit_seconds, 0.0) / (large - small)
        else:
            growth = part.fit_seconds / large
        fit_seconds = part.fit_seconds + growth * (whole - large)
        more_windows = self.yardstick.truth.size / sample.truth.size
        cost = FITS * fit_seconds + seconds * more_windows
        trial.leave_out(f"takes about {cost:.0f} s, for {part.loss:.3f} on a sample")
        return _Waiting(trial, cost, part.loss)

    def _run_waiting(self, waiting: Sequence["_Waiting"]) -> None:
        """Try what was left out, the best on the sample first, as long as there is time."""
        for one in waiting:
            left = self.seconds_left
            if one.cost <= left:
                self._try(one.trial, self.yardstick)
            else:
                one.trial.note += f"; {max(left, 0):.0f} s were left"

    # ------------------------------------------------------------- networks

    def _run_networks(self, trials: Sequence[Trial]) -> None:
        """Try candidates whose steps are chosen, as many of them as there is time for."""
        paces = {}
        for trial in trials:
            if self.seconds_left <= 0:
                trial.leave_out("no time was left")
                continue
            paces[trial.name] = self._pace(trial)
        going_on = [trial for trial in trials if trial.name in paces and trial.status != "failed"]
        # The cheap first: what they leave is for the others.
        going_on.sort(key=lambda one: paces[one.name].seconds)
        short = [one for one, share in self._shares(going_on, paces).items() if share < 1]
        if len(short) > 2:
            better = self._better_after_a_part(short, paces)
            going_on = [one for one in going_on if one not in short or one in better]
        while going_on and self._shares(going_on, paces)[going_on[-1]] < SHORTEST_SHARE:
            pace = paces[going_on[-1].name]
            going_on.pop().leave_out(
                f"{pace.steps} steps take about {FITS * pace.seconds:.0f} s, "
                f"{max(self.seconds_left, 0):.0f} s were left"
            )
        while going_on:
            share = self._shares(going_on, paces)[going_on[0]]
            trial = going_on.pop(0)
            self._try_steps(trial, paces[trial.name], share)

    def _pace(self, trial: Trial) -> "_Pace":
        """Measure the steps of a training."""
        forecaster = trial.forecaster
        assert isinstance(forecaster, DataDrivenForecaster)
        chosen = forecaster.choose(self.yardstick.windows.before)
        seconds = []
        for steps in (WARM_STEPS, MEASURED_STEPS):
            part = Trial(trial.name, clone(forecaster).set_params(**chosen | {"max_steps": steps}))
            forecast_seconds = self._try(part, self.yardstick)
            if part.status == "failed":
                trial.status, trial.note = part.status, part.note
                return _Pace(chosen, 0.0, 0.0)
            seconds.append(part.fit_seconds)
        each = max(seconds[1] - seconds[0], 0.0) / (MEASURED_STEPS - WARM_STEPS)
        return _Pace(chosen, each, forecast_seconds)

    def _shares(self, trials: Sequence[Trial], paces: Mapping[str, "_Pace"]) -> dict[Trial, float]:
        """Return the share of its steps that there is time for, of each, the cheap first.

        All have the same time, of which the cheap leave what they do not need to the others.
        """
        left = self.seconds_left - sum(paces[one.name].forecast_seconds for one in trials)
        shares = {}
        for place, trial in enumerate(trials):
            wanted = FITS * paces[trial.name].seconds
            own = min(wanted, max(left, 0.0) / (len(trials) - place))
            shares[trial] = own / wanted if wanted else 1.0
            left -= own
        return shares

    def _better_after_a_part(
        self, trials: Sequence[Trial], paces: Mapping[str, "_Pace"]
    ) -> list[Trial]:
        """Return the better half after a part of the steps, in the order they came in."""
        # Half of the time that they would have.
        part = min(self._shares(trials, paces).values()) * FITS * FIRST_SHARE
        for trial in trials:
            settings = trial.forecaster
            self._try_steps(trial, paces[trial.name], part)
            trial.forecaster = settings
        order = sorted(trials, key=lambda one: one.loss if one.is_tried else math.inf)
        better = order[: math.ceil(len(order) / 2)]
        for trial in order[len(better) :]:
            if trial.is_tried:
                trial.leave_out(f"not among the better half after {part:.0%} of its steps")
        for trial in better:
            trial.forget()
        return [trial for trial in trials if trial in better]

    def _try_steps(self, trial: Trial, pace: "_Pace", share: float) -> None:
        steps = max(int(share * pace.steps), 1)
        settings = pace.chosen | {"max_steps": steps}
        trial.forecaster = clone(trial.forecaster).set_params(**settings)
        self._try(trial, self.yardstick)
        if trial.is_tried and steps < pace.steps:
            trial.note = f"{steps} of {pace.steps} steps, for want of time"


@dataclass(frozen=True)
class _Waiting:
    """A candidate of which a sample is tried: what all of it takes, and how good it was."""

    trial: Trial
    cost: float
    loss: float


@dataclass(frozen=True)
class _Pace:
    """What the data ask of a training, and what a step of it takes."""

    chosen: dict[str, Any]
    step_seconds: float
    forecast_seconds: float

    @property
    def steps(self) -> int:
        return int(self.chosen["max_steps"])

    @property
    def seconds(self) -> float:
        return self.steps * self.step_seconds


def _has_open_length(forecaster: Forecaster) -> bool:
    """Whether the length of a training is chosen from the data."""
    return (
        isinstance(forecaster, DataDrivenForecaster)
        and forecaster.max_steps is None
        and forecaster.max_epochs is None
    )


def _best_steps(fitted: Forecaster) -> int | None:
    """Return after how many steps a training was best by what it held out; None if by nothing."""
    if not isinstance(fitted, DataDrivenForecaster) or "val_loss" not in fitted.history_:
        return None
    used = fitted.fitted_parameters_
    # One that lost its patience did not make all of its steps.
    if used["max_steps"] is None or used["patience"] <= fitted.n_epochs_:
        return None
    return max(round(used["max_steps"] * fitted.best_epoch_ / fitted.n_epochs_), 1)


def _affordable(waiting: Sequence[_Waiting], seconds: float) -> list[_Waiting]:
    """Return those that there is time for: without the last of them, one after the other."""
    going_on = [one for one in waiting if one.cost <= seconds]
    while sum(one.cost for one in going_on) > seconds:
        going_on.pop()
    return going_on


def _samples(windows: HeldOutWindows) -> tuple[_Yardstick, _Yardstick] | None:
    """Return windows of a part of the series, and of more; None where all of them are few."""
    panel = windows.panel
    if panel.values.size <= SMALL:
        return None
    # What is long enough for all windows is, cut in two, long enough for some.
    rows = max(SAMPLE_ROWS, 2 * HELD_OUT * windows.horizon)
    if panel.n_series * panel.n_variates == 1:
        rows = min(rows, int(panel.lengths.max()) // 2)
    sizes = [min(-(-n // 2), SAMPLE) for n in (panel.n_series, panel.n_variates)]
    more = _sample(windows, sizes, rows)
    few = _sample(windows, [-(-n // 2) for n in sizes], rows // 2)
    return None if few is None or more is None else (_Yardstick.of(few), _Yardstick.of(more))


def _sample(windows: HeldOutWindows, sizes: Sequence[int], rows: int) -> HeldOutWindows | None:
    """Return windows of the last rows of so many series and variates, spread evenly."""
    panel = windows.panel
    series, variates = (
        np.unique(np.linspace(0, n - 1, size).astype(np.int64))
        for n, size in zip((panel.n_series, panel.n_variates), sizes, strict=True)
    )
    part = of_series(panel, series).tail(rows)
    part = part.with_values(part.values[:, variates], part.variates[variates])
    return place_windows(part, windows.horizon, n_windows=SAMPLE)
