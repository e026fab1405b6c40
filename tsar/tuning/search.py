"""The search for the parameters of a forecaster with Optuna."""

import gc
import itertools
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone

from tsar.data.digest import data_digest
from tsar.data.panel import Panel
from tsar.evaluation import backtest, mae, mse, rmse
from tsar.exceptions import (
    DataError,
    DataWarning,
    InterruptedWarning,
    NotFittedError,
    ParameterError,
    TrainingError,
    TsarError,
    each_warning_once,
    own_warnings,
    warn,
)
from tsar.forecasting.base import Forecaster
from tsar.params.arguments import Frame, frame_first
from tsar.params.constraints import Interval, check_parameters
from tsar.progress import beside_bars, progress
from tsar.training import on_epoch
from tsar.tuning.spaces import Space, default_space
from tsar.tuning.study import (
    ERROR,
    ask,
    import_optuna,
    is_counted,
    open_study,
    place_of,
    quiet,
    reason_of,
    release_killed,
)

__all__ = ["OptunaSearch"]

logger = logging.getLogger("tsar")

# What parameters can do to a trial, the warning where it is raised as an error. Anything else is a
# fault of the space or of ours.
FAILURES = (TsarError, DataWarning, RuntimeError, ValueError, ArithmeticError, MemoryError)
METRICS = {"mae": mae, "mse": mse, "rmse": rmse}
# What two searches of one study may differ in.
NO_MATTER = {"device", "verbose"}
# Losses are in units of these, and are compared in original ones where these are searched.
UNITS = {"loss", "quantiles", "scaler"}
LARGEST_SEED = 2**32 - 1


@dataclass(eq=False, repr=False)
class OptunaSearch(BaseEstimator):
    """Search for parameters with Optuna, then fit the best ones.

    Trials are judged in the order of time: by the validation tail that a network holds out,
    or by forecasts from rolling cutoffs at the end of the data. Nothing is ever shuffled.
    A search is an estimator itself: ``fit``, ``predict``, ``score``.

    Parameters
    ----------
    estimator : Forecaster
        What every trial is a clone of.
    space : dict or None, default None
        By parameter name: a list of choices, ``(low, high)``, ``(low, high, "log")``, or a
        function that takes the Optuna trial and returns a value. Two integers are a range of
        integers where the parameter is one. None takes :func:`~tsar.tuning.default_space`.
    n_trials : int or None, default 20
        Trials in all, those of other processes and of earlier calls included; pruned and
        failed trials count.
    windows : int or None, default None
        A number judges every trial by forecasts from so many cutoffs, one horizon apart, at
        the end of the data, as :func:`tsar.evaluation.backtest` makes them: the model is
        fitted on the rows before the first one. None judges a network by the loss on the
        validation tail that it holds out anyway.
    metric : {"mae", "mse", "rmse"} or callable, default "mae"
        The error of these forecasts; a function takes the truth and the forecast, float
        arrays of shape (n,) in original units, and smaller is better.
    timeout : float or None, default None
        Seconds after which no trial begins, and a running one is pruned at its next epoch.
    storage : path, str or None, default None
        A SQLite file or the URL of a database, such as
        ``"postgresql+psycopg://user@host/database"``, in which the study is kept. Several
        processes can share it, and one that was killed is taken up again by the next call of
        ``fit``.
    study_name : str or None, default None
        Its name there; None takes the name of the estimator's class.
    sampler, pruner : optuna sampler and pruner or None, default None
        None takes TPE, and the median rule; ``optuna.pruners.NopPruner()`` never prunes.
    random_state : int or None, default None
        Seed of the sampler, and of the trials where the estimator has none.
    verbose : int, default 0
        With 1, a progress bar, and a line per trial through the logger "tsar".

    Attributes
    ----------
    best_params_ : dict
        The parameters of the best trial.
    best_score_ : float
        Its score: its error with a minus sign, so that larger is better.
    best_seed_ : int or None
        Its ``random_state``.
    best_estimator_ : Forecaster
        Fitted with these on everything.
    trials_ : DataFrame
        A row per trial: ``number``, ``state`` (complete, pruned, failed or running),
        ``score``, ``seconds``, ``n_epochs``, its parameters, and the ``error`` of a failed one.
    study_ : optuna.Study
        For Optuna's own tools.

    Notes
    -----
    Every epoch of a trial reports its validation loss, and the pruner stops what falls
    behind. A trial that fails, be it for want of memory, is recorded with its reason and
    skipped; if all of them fail, ``fit`` does.

    References
    ----------
    Akiba et al., "Optuna: a next-generation hyperparameter optimization framework",
    KDD 2019.

    Examples
    --------
    >>> import tsar
    >>> from tsar.tuning import OptunaSearch
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.NLinear(context_length=24, horizon=12, max_epochs=2, random_state=0)
    >>> space = {"learning_rate": (1e-3, 1e-1, "log"), "context_length": [24, 48]}
    >>> search = OptunaSearch(model, space, n_trials=3, random_state=0).fit(sea)
    >>> sorted(search.best_params_)
    ['context_length', 'learning_rate']
    >>> search.predict(horizon=3).shape
    (3, 1)
    """

    estimator: Any
    space: Any = None
    _: KW_ONLY
    n_trials: Annotated[int, Interval(1)] | None = 20
    windows: Annotated[int, Interval(1)] | None = None
    metric: Literal["mae", "mse", "rmse"] | Callable = "mae"
    timeout: Annotated[float, Interval(0, open_low=True)] | None = None
    storage: str | os.PathLike | None = None
    study_name: str | None = None
    sampler: Any = None
    pruner: Any = None
    random_state: Annotated[int, Interval(0, LARGEST_SEED)] | None = None
    verbose: Annotated[int, Interval(0)] = 0

    # ------------------------------------------------------------------ fit

    @each_warning_once()
    def fit(self, df: Frame, y: None = None) -> Self:
        """Search, then fit the best parameters on the whole frame.

        Parameters
        ----------
        df : DataFrame or Series
            As the estimator takes it.
        y : None
            Not used; scikit-learn's tools pass it.

        Returns
        -------
        self

        Raises
        ------
        MissingExtraError
            Optuna is not installed.
        ParameterError, DataError
            A parameter, the space or the frame is not usable, the storage cannot be opened,
            or its study is about something else. Found before the first trial.
        TrainingError
            No trial was completed, or the storage failed during the search.
        """
        optuna = import_optuna()
        self._check(optuna)
        panel = self._panel(df)
        space = Space(self.estimator, self._space(panel))
        opened = open_study(
            optuna,
            self.storage,
            self.study_name or type(self.estimator).__name__,
            self.pruner or optuna.pruners.MedianPruner(n_warmup_steps=1),
            self._belongs(space, panel),
        )
        with quiet(optuna), opened as study:
            interrupted = _Trials(self, optuna, study, space, df).run()
            self._remember(study, space)
        if interrupted:
            warn(
                f"OptunaSearch: the search was interrupted after {len(self.trials_)} trials; the "
                f"model holds the best of them",
                InterruptedWarning,
            )
        best = self.candidate().set_params(**self.best_params_)
        if self.best_seed_ is not None:
            best.set_params(random_state=self.best_seed_)
        self.best_estimator_ = best.fit(df)
        return self

    def _check(self, optuna: Any) -> None:
        if not isinstance(self.estimator, Forecaster):
            raise ParameterError(
                f"OptunaSearch: estimator must be a forecaster of tsar, got {self.estimator!r}"
            )
        check_parameters(self)
        check_parameters(self.estimator)
        for name, kind in (
            ("sampler", optuna.samplers.BaseSampler),
            ("pruner", optuna.pruners.BasePruner),
        ):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ParameterError(
                    f"OptunaSearch: {name} must be one of optuna.{name}s or None, got {value!r}"
                )
        if self.n_trials is None and self.timeout is None:
            raise ParameterError(
                "OptunaSearch: n_trials or timeout must be given, got None for both; a search "
                "without a budget does not end"
            )
        if self.windows is None and not self._can_hold_out:
            raise ParameterError(
                f"OptunaSearch: windows must be a number for a model that holds out no validation "
                f"tail, which {type(self.estimator).__name__} does not; set windows=3, or "
                f"early_stopping=True for a network"
            )
        if self.space is not None and "horizon" in self.space:
            raise ParameterError(
                "OptunaSearch: space must leave out 'horizon', because errors at different "
                "horizons cannot be compared; set it in the estimator"
            )

    def _panel(self, df: Any) -> Panel:
        """Read the frame once, so that its faults are no failures of trials."""
        panel = clone(self.estimator).read_training(df)
        if self._held_out >= panel.lengths.max():
            raise DataError(
                f"OptunaSearch: windows={self.windows} of horizon={self.estimator.horizon} need "
                f"more than {self._held_out} rows of a series, the longest has "
                f"{panel.lengths.max()}; take fewer windows or pass longer series"
            )
        return panel

    @property
    def _can_hold_out(self) -> bool:
        """Whether the estimator holds out a validation tail, or leaves that to the data."""
        early = getattr(self.estimator, "early_stopping", False)
        return early is None or bool(early)

    def candidate(self) -> Any:
        """Return a copy of the estimator that can be judged as the search does.

        Where trials are judged by a validation tail, one that would choose by the data whether to
        hold some out does so.
        """
        model = clone(self.estimator)
        if self.windows is None and getattr(model, "early_stopping", False) is None:
            model.set_params(early_stopping=True)
        return model

    @property
    def _held_out(self) -> int:
        """Rows at the end of every series that no trial is fitted on."""
        return (self.windows or 0) * int(self.estimator.horizon)

    def _space(self, panel: Panel) -> Any:
        if self.space is not None:
            return self.space
        horizon = int(self.estimator.horizon)
        room = int(panel.lengths.max()) - self._held_out - horizon
        if self._can_hold_out:
            room -= int(self.estimator.validation_tail(np.array([room + horizon]))[0])
        return default_space(self.estimator, longest_context=room)

    def _belongs(self, space: Space, panel: Panel) -> dict[str, Any]:
        """Say what the study is about, as JSON."""
        fixed = self.estimator.get_params(deep=False)
        metric = getattr(self.metric, "__qualname__", self.metric)
        return {
            "model": type(self.estimator).__name__,
            "space": space.describe(),
            "parameters": {
                name: repr(value)
                for name, value in fixed.items()
                if name not in space.entries and name not in NO_MATTER
            },
            "score": "validation tail"
            if self.windows is None
            else f"{metric}, {self.windows} windows",
            "data": data_digest(panel),
        }

    def _remember(self, study: Any, space: Space) -> None:
        trials = study.get_trials(deepcopy=False)
        self.study_ = study
        self.trials_ = _trials_frame(trials, space)
        complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
        if not complete:
            errors = self.trials_["error"].dropna()
            first = f"; the first error was: {errors.iloc[0]}" if len(errors) else ""
            if not trials:
                first = f"; timeout={self.timeout} was over before the first one"
            raise TrainingError(
                f"OptunaSearch: none of {len(self.trials_)} trials was completed{first}"
            )
        best = max(complete, key=lambda trial: trial.value)
        self.best_params_ = space.read(best)
        self.best_score_ = float(best.value)
        self.best_seed_ = best.user_attrs.get("seed")

    # -------------------------------------------------------------- the best

    @frame_first
    def predict(
        self,
        horizon: int | Frame | None = None,
        df: Frame | int | None = None,
        future: Frame | None = None,
        **options: Any,
    ) -> Any:
        """Forecast with the best estimator; see :meth:`Forecaster.predict`.

        Parameters
        ----------
        horizon : int or None
        df : DataFrame or Series, optional
        future : DataFrame, optional
        **options
            What else the estimator takes.

        Returns
        -------
        DataFrame or Series
        """
        return self._best.predict(horizon, df, future, **options)

    def score(self, df: Any, y: None = None) -> float:
        """Return the score of the best estimator; see :meth:`Forecaster.score`.

        Parameters
        ----------
        df : DataFrame or Series
        y : None
            Not used.

        Returns
        -------
        float
        """
        return self._best.score(df)

    @property
    def _best(self) -> Forecaster:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError("OptunaSearch is not fitted yet; call fit(df) first")
        return self.best_estimator_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "best_estimator_")


class _Trials:
    """The trials of one call of ``fit``."""

    def __init__(
        self, search: OptunaSearch, optuna: Any, study: Any, space: Space, df: Any
    ) -> None:
        self.search, self.optuna, self.study, self.space, self.df = search, optuna, study, space, df
        begun = time.monotonic()
        self.deadline = math.inf if search.timeout is None else begun + search.timeout
        self.loss = "val_mae" if UNITS & set(space.entries) else "val_loss"

    def run(self) -> bool:
        """Make trials until a budget is used up; return whether that was cut short."""
        release_killed(self.optuna, self.study, redraw=self.search.sampler is None)
        if self.search.sampler is not None:
            # It is told of every trial from the first one on, and may say when it has no more.
            self.study.sampler = self.search.sampler
            self.study.stop = self._stop
        with progress(
            shown=bool(self.search.verbose),
            total=self.search.n_trials,
            initial=self._n_counted(),
            desc="tsar: search",
            unit="trial",
            leave=False,
        ) as bar:
            while self._may_begin():
                try:
                    self._trial(bar)
                except KeyboardInterrupt:
                    if not self._completed():
                        raise
                    return True
        return False

    def _stop(self) -> None:
        """Let no further trial begin; Optuna's own way is for its own loop."""
        self.deadline = -math.inf

    def _n_counted(self) -> int:
        return sum(map(is_counted, self.study.get_trials(deepcopy=False)))

    def _may_begin(self) -> bool:
        n_trials = self.search.n_trials
        if n_trials is not None and self._n_counted() >= n_trials:
            return False
        return time.monotonic() < self.deadline

    def _completed(self) -> bool:
        complete = self.optuna.trial.TrialState.COMPLETE
        return bool(self.study.get_trials(deepcopy=False, states=(complete,)))

    def _trial(self, bar: Any) -> None:
        """Make one trial, and leave it finished whatever happens."""
        begun, states = time.monotonic(), self.optuna.trial.TrialState
        trial = ask(self.study, queued=self.search.sampler is None)
        # Its place is its own among all processes that share the study: none repeats another.
        seeds = self._seeds(place_of(self.study, trial))
        if self.search.sampler is None:
            self.study.sampler = self.optuna.samplers.TPESampler(
                seed=next(seeds), multivariate=False
            )
        score, state, reason = None, states.FAIL, "interrupted"
        try:
            try:
                score, state, reason = self._outcome(trial, seeds)
            finally:
                if reason:
                    trial.set_user_attr(ERROR, reason)
                self.study.tell(trial, score, state, skip_if_finished=True)
        except RuntimeError:
            # SQLite locks no row: two processes can take one trial that waits. Both make the
            # same of it, and the other was faster.
            if not self.study.get_trials(deepcopy=False)[trial.number].state.is_finished():
                raise
            return
        if state == states.FAIL:
            # What it has left, graphs and caught errors, may hold memory of a device.
            gc.collect()
        bar.update()
        self._report(trial.number, state.name.lower(), score, reason, time.monotonic() - begun)

    def _seeds(self, place: int) -> Iterator[int]:
        """Yield seeds for what is random about a trial."""
        seed = self.search.random_state
        entropy = secrets.randbits(64) if seed is None else [seed, place]
        yield from map(int, np.random.SeedSequence(entropy).generate_state(2))

    def _outcome(self, trial: Any, seeds: Iterator[int]) -> tuple[float | None, Any, str]:
        """Return the score, the state and the reason of a failure."""
        states = self.optuna.trial.TrialState
        try:
            score = self._judge(trial, next(seeds))
        except self.optuna.TrialPruned:
            return None, states.PRUNED, ""
        except FAILURES as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            if math.isfinite(score):
                return score, states.COMPLETE, ""
            reason = f"the score is {score}"
        return None, states.FAIL, reason

    def _judge(self, trial: Any, seed: int) -> float:
        """Fit a clone with the trial's parameters; return its score."""
        model = self.search.candidate().set_params(**self.space.sample(trial))
        if "random_state" in model.get_params():
            if model.random_state is None:
                model.set_params(random_state=seed)
            trial.set_user_attr("seed", int(model.random_state))
        # A trial cut short by the keyboard is none to compare with.
        with on_epoch(self._watch(trial)), own_warnings("error", InterruptedWarning):
            try:
                return -self._error(model)
            except InterruptedWarning:
                raise KeyboardInterrupt from None

    def _error(self, model: Any) -> float:
        """Fit a model and return what is to be small."""
        search = self.search
        if search.windows is None:
            model.fit(self.df)
            losses = model.history_.get(self.loss)
            if not losses:
                raise TrainingError("there was no validation; the series are too short for it")
            return float(losses[model.best_epoch_ - 1])
        tested = backtest({"forecast": model}, self.df, windows=search.windows)
        metric = METRICS[search.metric] if isinstance(search.metric, str) else search.metric
        return float(metric(tested["y"].to_numpy(), tested["forecast"].to_numpy()))

    def _watch(self, trial: Any) -> Any:
        """Return what looks at every epoch: report it, and stop what falls behind."""

        # An estimator may train several times, each from its first epoch on.
        epochs = itertools.count(1)

        def watch(record: Mapping[str, float]) -> None:
            trial.report(-record.get(self.loss, math.inf), next(epochs))
            late = time.monotonic() > self.deadline and self._completed()
            if late or trial.should_prune():
                raise self.optuna.TrialPruned

        return watch

    def _report(
        self, number: int, state: str, score: float | None, reason: str, seconds: float
    ) -> None:
        if not self.search.verbose:
            return
        outcome = f"score {score:.6g}" if score is not None else reason.partition("\n")[0] or state
        values = ", ".join(
            f"{name}={value!r}" for name, value in self.study.trials[number].params.items()
        )
        with beside_bars():
            logger.info("trial %d: %s (%s; %.1f s)", number, outcome, values, seconds)


def _trials_frame(trials: list[Any], space: Space) -> pd.DataFrame:
    names = {"FAIL": "failed"}
    rows = []
    for trial in trials:
        rows.append(
            {
                "number": trial.number,
                "state": names.get(trial.state.name, trial.state.name.lower()),
                "score": trial.value if trial.state.name == "COMPLETE" else None,
                "seconds": trial.duration and trial.duration.total_seconds(),
                "n_epochs": trial.last_step or 0,
                **space.read(trial),
                "error": reason_of(trial),
            }
        )
    columns = ["number", "state", "score", "seconds", "n_epochs", *space.entries, "error"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype({"score": float, "seconds": float})
