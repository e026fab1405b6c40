"""The best forecast that can be had in a given time: candidates, trials, and a selection of them.

Dimension letters: M members, S series, W windows, H horizon, C variates.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, TypedDict

import numpy as np
import pandas as pd
from torch import Tensor

from tsar.data.panel import Panel
from tsar.exceptions import (
    DataError,
    DataWarning,
    ParameterError,
    PersistenceError,
    each_warning_once,
    warn,
)
from tsar.forecasting.auto_ets import AutoETS
from tsar.forecasting.autoreg import AutoReg
from tsar.forecasting.base import Forecaster, ForecasterRecord
from tsar.forecasting.combination import Combination
from tsar.forecasting.covariate_columns import NamedCovariates
from tsar.forecasting.dlinear import DLinear
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.held_out import HeldOutWindows
from tsar.forecasting.itransformer import iTransformer
from tsar.forecasting.lag_regressor import LagRegressor
from tsar.forecasting.member_weights import selection_weights
from tsar.forecasting.members import ROLES, configured
from tsar.forecasting.mstl import MSTL
from tsar.forecasting.naive import Naive, SeasonalNaive
from tsar.forecasting.nlinear import NLinear
from tsar.forecasting.patchtst import PatchTST
from tsar.forecasting.pretrained import PretrainedForecaster
from tsar.forecasting.probabilistic.calibrating import calibration_of_errors
from tsar.forecasting.probabilistic.calibration import Calibration
from tsar.forecasting.smamba import SMamba
from tsar.forecasting.theta import Theta
from tsar.forecasting.trial_folder import TrialFolder
from tsar.forecasting.trials import Trial, Trials, place_windows
from tsar.params.constraints import Interval
from tsar.progress import progress
from tsar.training.processes import sharing_processes

__all__ = ["AutoForecaster"]

# Seconds of the clock.
TIME_LIMITS = {"fast": 60.0, "medium": 600.0, "best": 3600.0}
# Cycles beyond the first are tried where a series has so many of them.
LONG_CYCLES = 4
# Forecasts of single values from which the weights are learned at most.
MOST_VALUES = 200_000


class LeaderboardRow(TypedDict):
    """What became of a candidate."""

    model: str
    mase: float | None
    weight: Annotated[float, Interval(0, 1)]
    fit_seconds: float | None
    status: Literal["member", "tried", "left out", "failed"]
    note: str


class AutoForecasterRecord(ForecasterRecord):
    """What JSON holds of what a selection learned."""

    leaderboard: list[LeaderboardRow]


def _candidates(preset: str) -> dict[str, Forecaster]:
    """Return what a preset tries, the cheap before the costly."""
    candidates: dict[str, Forecaster] = {
        "SeasonalNaive": SeasonalNaive(),
        "Naive": Naive(),
        "PretrainedForecaster": PretrainedForecaster(),
        "Theta": Theta(),
        "AutoReg": AutoReg(),
        "AutoETS": AutoETS(),
        "LagRegressor": LagRegressor(strategy="recursive"),
        "LagRegressorDirect": LagRegressor(),
        "NLinear": NLinear(),
    }
    if preset != "fast":
        candidates |= {"PatchTST": PatchTST(), "DLinear": DLinear()}
    if preset == "best":
        # It takes a series apart again for every window.
        candidates |= {
            "MSTL": MSTL(),
            "PatchTSTMean": PatchTST(loss="mse"),
            "SMamba": SMamba(),
            "iTransformer": iTransformer(),
        }
    return candidates


@dataclass(kw_only=True, eq=False, repr=False)
class AutoForecaster(NamedCovariates, Combination):
    """The best combination of many forecasters that can be had in a given time.

    ``fit`` holds out the end of each series, fits candidates on what is before, and judges their
    forecasts of what was held out. The combination that would have had the least mean absolute
    error, in units of MASE, is fitted again on all rows. The first candidate is among those to
    choose from in any case: with the presets that is :class:`SeasonalNaive`.

    Parameters
    ----------
    preset : {"fast", "medium", "best"}, default "medium"
        What is tried, and how long it may take: naive, statistical and linear models and boosted
        trees (1 minute), PatchTST and DLinear as well (10 minutes), or further networks as well
        (1 hour).
    time_limit : float or None, default None
        Seconds that ``fit`` may take; None takes those of the preset. What does not fit in is
        left out, and networks have fewer steps where that is enough; a candidate that has
        begun is not interrupted.
    candidates : list or dict of forecasters, or None, default None
        What to try in the place of what the preset names, the first of them in any case. In a
        list they are named after their classes, in a dict by its keys.
    windows : int or None, default None
        How many horizons at the end of each series are held out, a third of it at most. None: 30
        of a single series, fewer of several, 3 of each of ten and more, and of long series up to
        30 that are a tenth of their rows.
    folder : str or None, default None
        Where to keep what the candidates forecast of the held-out windows: a later ``fit`` with the
        same data and folder, after an interrupt or with another preset, does not try them again.
    n_jobs : int or None, default None
        Processes of the candidates that have a model for each series; -1 is one per processor.
    random_state : int or None, default 0
        Seed of the candidates that have one.
    verbose : int, default 0
        1 shows a bar.

    Attributes
    ----------
    leaderboard_ : DataFrame
        A row for each candidate, the best first: ``model``, ``mase`` (mean absolute error of the
        held-out windows in units of what the seasonal naive misses before them, a mean over the
        series), ``weight``, ``fit_seconds``, ``status`` ("member", "tried", "left out" or
        "failed") and ``note``, which says why.
    models_ : dict of str to forecaster
        The members, fitted on all rows.
    weights_ : DataFrame of shape (n_models, n_variates)
        Their weights.

    Notes
    -----
    The forecasts of the held-out windows calibrate the intervals: ``predict(level=...)`` needs no
    further step. The weights were chosen on the same windows, which makes intervals a little
    narrow; :meth:`calibrate` with later rows is without that.

    How long a candidate takes is measured. Where there is time for all of them, the same data give
    the same forecasts.

    References
    ----------
    Caruana et al., "Ensemble selection from libraries of models", ICML 2004; Jamieson and
    Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
    AISTATS 2016.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> candidates = [tsar.SeasonalNaive(), tsar.Theta(), tsar.AutoReg()]
    >>> model = tsar.AutoForecaster(candidates=candidates, horizon=12).fit(sea)
    >>> sorted(model.leaderboard_["model"])
    ['AutoReg', 'SeasonalNaive', 'Theta']
    >>> model.predict(level=80).shape
    (12, 3)
    """

    parameter_group: ClassVar[str] = "model"
    other_groups: ClassVar[Mapping[str, str]] = {}

    preset: Literal["fast", "medium", "best"] = "medium"
    time_limit: Annotated[float, Interval(0, open_low=True)] | None = None
    candidates: Sequence[Forecaster] | dict | None = None
    windows: Annotated[int, Interval(1)] | None = None
    folder: str | None = None
    n_jobs: Annotated[int, Interval(1, 1024)] | Literal[-1] | None = None
    random_state: Annotated[int, Interval(0, 2**32 - 1)] | None = 0
    verbose: Annotated[int, Interval(0)] = 0

    learned_record: ClassVar[Any] = AutoForecasterRecord
    _held_in: ClassVar[str] = "candidates"

    def _default_members(self) -> Mapping[str, Forecaster]:
        return _candidates(self.preset)

    def _configured(self, member: Forecaster) -> Forecaster:
        fresh = configured(member, self)
        has = fresh.get_params(deep=False)
        # What a candidate says itself goes first.
        own = {name: getattr(self, name) for name in (*ROLES, "random_state", "n_jobs")}
        return fresh.set_params(
            **{name: value for name, value in own.items() if has.get(name, 0) is None}
        )

    # ------------------------------------------------------------------ fit

    def fit_panel(self, panel: Panel, go_on: bool) -> Self:
        super().fit_panel(panel, go_on)
        self.calibration_ = self._calibration_of_trials
        del self._calibration_of_trials
        return self

    @each_warning_once()
    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        if sharing_processes() is not None:
            raise ParameterError(
                f"{self.name}: what is tried depends on the clock, so that processes which share "
                f"trainings would not try the same; fit it outside of tsar.training.distributed()"
            )
        begun = time.monotonic()
        named = {name: self._configured(one) for name, one in self._candidates_for(panel).items()}
        windows = place_windows(panel, int(self.horizon), self.windows)
        limit = TIME_LIMITS[self.preset] if self.time_limit is None else float(self.time_limit)
        with progress(shown=self.verbose >= 1, total=limit, desc=self.name, unit="s") as bar:
            seconds = 0

            def tell(name: str) -> None:
                nonlocal seconds
                before, seconds = seconds, int(time.monotonic() - begun)
                bar.update(seconds - before)
                bar.set_postfix(now=name)

            trials, weights = self._tried(named, windows, limit, tell)
            members = self._refitted(trials, weights, panel, tell)
        weights = {name: weights.get(name, 1.0) for name in members}
        total = sum(weights.values())
        self.models_ = members
        self.weights_ = pd.DataFrame(
            {
                variate: [weight / total for weight in weights.values()]
                for variate in panel.variates
            },
            index=list(weights),
        )
        self.leaderboard_ = _leaderboard(trials, weights)
        self._warn_of_failures(trials)
        self._calibration_of_trials = (
            None if windows is None else _calibrated(windows, trials, weights)
        )
        return self._learned_from_members(panel, np.zeros(panel.n_series, dtype=np.int64))

    def _candidates_for(self, panel: Panel) -> dict[str, Forecaster]:
        """Return the candidates, and where none are given those that other cycles make."""
        first, *others = self._named().items()
        if self.candidates is not None:
            return dict([first, *others])
        cycles, longest = panel.frequency.cycles, int(panel.lengths.max())
        own: dict[str, Forecaster] = {
            f"SeasonalNaive{cycle}": SeasonalNaive(season_length=cycle)
            for cycle in cycles[1:]
            if LONG_CYCLES * cycle <= longest
        }
        # Told of all cycles, it can make too much of the longer ones.
        for cycle in dict.fromkeys((1, *cycles[:1])) if cycles else ():
            fewer = PretrainedForecaster(season_lengths=[cycle])
            own[f"PretrainedForecaster{cycle}"] = fewer
        return dict([first, *own.items(), *others])

    def _tried(
        self,
        named: Mapping[str, Forecaster],
        windows: HeldOutWindows | None,
        limit: float,
        tell: Callable[[str], None],
    ) -> tuple[list[Trial], dict[str, float]]:
        """Try the candidates; return what became of them, and the weights of those to combine."""
        if windows is None:
            warn(
                f"{self.name}: needs a series of {2 * int(self.horizon)} rows to compare "
                f"candidates on, and none is as long; {next(iter(named))} alone forecasts",
                DataWarning,
            )
            trials = [
                Trial(name, one, note="no windows to try it on") for name, one in named.items()
            ]
            return trials, {trials[0].name: 1.0}
        folder = None if self.folder is None else TrialFolder(self.name, self.folder, windows)
        contest = Trials(named, windows, self._fitted_member, limit, tell, folder)
        trials = contest.run()
        if not contest.tried:
            raise DataError(
                f"{self.name}: all candidates failed, the first with: {trials[0].note}; fit "
                f"{trials[0].name} alone to see where"
            )
        forecasts, truth, counts = contest.scaled()
        # Of many values, evenly spread ones tell as much.
        apart = -(-len(truth) // MOST_VALUES) if len(truth) else 1
        several = (forecasts[::apart], truth[::apart], counts[::apart])
        shares = selection_weights(*several) if len(truth) else np.eye(forecasts.shape[1])[0]
        names = [one.name for one in contest.tried]
        chosen = {name: float(share) for name, share in zip(names, shares, strict=True) if share}
        return trials, chosen

    def _refitted(
        self,
        trials: Sequence[Trial],
        weights: Mapping[str, float],
        panel: Panel,
        tell: Callable[[str], None],
    ) -> dict[str, Forecaster]:
        """Fit those that were chosen on all rows, or the first where all of these fail."""
        members = {}
        for trial in trials:
            if trial.name not in weights:
                continue
            tell(trial.name)
            try:
                members[trial.name] = self._fitted_member(trial.for_all_rows, panel)
            # As in the trials: what is left of the members forecasts.
            except Exception as error:
                trial.status, trial.note = "failed", f"on all rows, {type(error).__name__}: {error}"
        first = trials[0]
        return members or {first.name: self._fitted_member(first.forecaster, panel)}

    def _warn_of_failures(self, trials: Sequence[Trial]) -> None:
        failed = [one for one in trials if one.status == "failed"]
        if failed:
            warn(
                f"{self.name}: {len(failed)} of {len(trials)} candidates failed (the first: "
                f"{failed[0].name}, {failed[0].note}); leaderboard_ says which and why",
                DataWarning,
            )

    # ------------------------------------------------------------ persistence

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record, tensors = super().learned_state()
        table = self.leaderboard_.astype(object).where(self.leaderboard_.notna(), None)
        record["leaderboard"] = table.to_dict("records")
        return record, tensors

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Any],
    ) -> None:
        super().restore_learned_state(record, tensors, members)
        if self.weights_ is None:
            raise PersistenceError(f"load: the {self.name} has no weights; the model was changed")
        self.leaderboard_ = _as_leaderboard(record["leaderboard"])


def _as_leaderboard(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(LeaderboardRow.__annotations__))
    return frame.astype({"mase": float, "weight": float, "fit_seconds": float})


def _leaderboard(trials: Sequence[Trial], weights: Mapping[str, float]) -> pd.DataFrame:
    """Return a row for each candidate, the best first."""
    rows = [
        {
            "model": one.name,
            "mase": one.loss if one.is_tried else math.nan,
            "weight": weights.get(one.name, 0.0),
            "fit_seconds": one.fit_seconds,
            "status": "member" if one.name in weights else one.status,
            "note": one.note,
        }
        for one in trials
    ]
    return _as_leaderboard(rows).sort_values("mase", ignore_index=True, kind="stable")


def _calibrated(
    windows: HeldOutWindows, trials: Sequence[Trial], weights: Mapping[str, float]
) -> Calibration | None:
    """Learn the intervals from the combined forecasts of the held-out windows."""
    total = sum(weights.values())
    point = np.zeros_like(windows.truth, dtype=np.float64)
    for trial in trials:
        if trial.name in weights:
            # The first one may stand in though it failed there.
            if trial.forecasts is None:
                return None
            point += weights[trial.name] / total * trial.forecasts
    return calibration_of_errors(windows.panel, windows.owners, windows.rows, point)
