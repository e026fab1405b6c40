"""Comparing models: one backtest for all, and how far their differences can be trusted.

Dimension letters: T windows, S series, M models, R resamples.
"""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsar.data.libraries import as_pandas
from tsar.evaluation.backtesting import BacktestJob, named_models
from tsar.evaluation.cells import Cells
from tsar.evaluation.latex import latex_table
from tsar.evaluation.measuring import (
    METRICS,
    Forecasts,
    Table,
    measure_model,
    series_scales,
)
from tsar.evaluation.runs import OK, PeakMemory, Run, RunFolder, fingerprint_of
from tsar.evaluation.significance import (
    CriticalDifference,
    Outcome,
    critical_difference,
    diebold_mariano,
    giacomini_white,
    model_confidence_set,
)
from tsar.exceptions import (
    DataError,
    DataWarning,
    ParameterError,
    TsarError,
    each_warning_once,
    warn,
)
from tsar.forecasting.naive import SeasonalNaive
from tsar.params.constraints import Interval, check_choice, check_count, check_value
from tsar.progress import progress

__all__ = ["Leaderboard", "compare"]

Floats = NDArray[np.float64]
# What training and forecasting run into; the other models go on without the one that fails.
FAILURES = (TsarError, ArithmeticError, LookupError, MemoryError, RuntimeError, ValueError)
CONFIDENCE = 0.95
# What a run took, at the end of a leaderboard.
TAIL = ["fit_seconds", "forecast_seconds", "peak_memory_mb", "status"]


def _ranking() -> list[str]:
    """List the metrics that models can be ranked by: means over rows, or roots of such."""
    return [
        name
        for name, metric in METRICS.items()
        if metric.needs not in ("intervals", "samples") and name not in ("owa", "rmsse")
    ]


@each_warning_once()
def compare(
    models: Any,
    df: Any,
    *,
    metrics: str | Sequence[str] = ("mase", "mae", "rmse"),
    horizon: int | None = None,
    windows: int = 10,
    step: int | None = None,
    refit: bool | int = False,
    quantiles: Sequence[float] | None = None,
    level: float | Sequence[float] | None = None,
    season_length: int | None = None,
    baseline: str = "SeasonalNaive",
    n_resamples: int = 1000,
    random_state: int | None = 0,
    folder: str | os.PathLike[str] | None = None,
    verbose: int = 0,
) -> "Leaderboard":
    """Backtest several models on the same windows, and rank them.

    A model that fails is left out of the ranking, with the reason in its ``status``; the
    others go on.

    Parameters
    ----------
    models : list or dict of forecasters
        As :func:`tsar.evaluation.backtest` takes them. ``SeasonalNaive`` is added where it is
        the baseline and not among them.
    df : DataFrame or Series
        The data, in any form and library. The tables of the leaderboard are of pandas.
    metrics : str or sequence of str
        As :func:`tsar.evaluation.measure` takes them. The first one ranks the models.
    horizon : int or None
        Steps to forecast; None takes that of the models.
    windows, step, refit
        As in :func:`tsar.evaluation.backtest`.
    quantiles, level
        The same; models that cannot give them, or have too few rows to be calibrated on, are
        measured by their point forecasts.
    season_length : int or None
        For metrics in units of the seasonal changes; None follows from the frequency.
    baseline : str
        The model that skill is measured against.
    n_resamples : int
        Draws for the intervals and the model confidence set.
    random_state : int or None
        Seed of these draws.
    folder : path or None
        Keeps the forecasts of each model as soon as it is finished, so that an interrupted
        comparison goes on where it was. A folder of other data, settings or parameters is
        refused.
    verbose : int
        1 shows a progress bar of the models.

    Returns
    -------
    Leaderboard

    Raises
    ------
    ParameterError, DataError
        An argument or the frame is not usable; found before any model is fitted.
    PersistenceError
        The folder belongs to something else, or cannot be written.

    Warns
    -----
    DataWarning
        A model failed, or a metric in units of a series leaves some out that did not change.

    Examples
    --------
    >>> import tsar
    >>> from tsar.evaluation import compare
    >>> sea = tsar.load_dataset("elnino")
    >>> board = compare([tsar.Naive(horizon=12), tsar.SeasonalNaive(horizon=12)], sea, windows=20)
    >>> board.frame[["model", "mase", "skill"]].round(3)
               model   mase  skill
    0  SeasonalNaive  0.938  0.000
    1          Naive  1.809 -0.928
    """
    named, df = named_models("compare", models), as_pandas(df)
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in names:
        check_choice("compare", "metrics", name, METRICS)
        if METRICS[name].needs == "samples":
            raise ParameterError(
                f"compare: {name!r} needs samples, which are not drawn here; use "
                f"measure(backtest(models, df, samples=100), {name!r})"
            )
    check_choice("compare", "the first metric", names[0] if names else None, _ranking())
    if METRICS[names[0]].needs == "quantiles" and quantiles is None:
        raise ParameterError(
            f"compare: ranking by {names[0]!r} needs quantiles=, such as [0.1, 0.5, 0.9], got None"
        )
    check_count("compare", "n_resamples", n_resamples)
    check_value("compare", "random_state", random_state, Annotated[int, Interval(0)] | None)
    check_value("compare", "season_length", season_length, Annotated[int, Interval(1)] | None)
    options: dict[str, Any] = {"windows": windows, "step": step, "refit": refit}
    jobs: dict[str, BacktestJob] = {}
    for name, model in named.items():
        jobs[name] = BacktestJob(
            model, df, horizon, **options, quantiles_and_level=(quantiles, level), optional=True
        )
    first = next(iter(jobs.values()))
    differing = [name for name, job in jobs.items() if job.horizon != first.horizon]
    if differing:
        raise ParameterError(
            f"compare: the models must forecast one horizon, got {first.horizon} of "
            f"{next(iter(jobs))} and {jobs[differing[0]].horizon} of {differing[0]}; pass horizon="
        )
    if baseline not in jobs:
        jobs[baseline] = _baseline(
            baseline, first, df, {**options, "quantiles_and_level": (quantiles, level)}
        )
    settings = {
        "horizon": first.horizon,
        **{name: int(value) for name, value in options.items() if value is not None},
        "quantiles": repr(quantiles),
        "level": repr(level),
    }
    with contextlib.ExitStack() as stack:
        store = None
        if folder is not None:
            store = stack.enter_context(RunFolder(folder, df, settings))
        runs = _runs(jobs, store, verbose)
    tested = _joined(jobs, runs)
    tested.attrs["reading"] = first.forecaster.reading
    return Leaderboard.of(
        tested, runs, first, names, season_length, baseline, int(n_resamples), random_state
    )


def _baseline(name: str, first: BacktestJob, df: Any, options: dict[str, Any]) -> BacktestJob:
    """Return the job of the seasonal naive forecast, which reads the frame as the models do."""
    if name != "SeasonalNaive":
        raise ParameterError(
            f"compare: baseline must be 'SeasonalNaive' or the name of a model, got {name!r}"
        )
    forecaster, names = first.forecaster, list(first.panel.variates)
    # All there are, whatever their names are.
    whole = first.panel.form.squeeze or names == list(getattr(df, "columns", ()))
    model = SeasonalNaive(
        horizon=first.horizon,
        freq=forecaster.freq,
        gaps=forecaster.gaps,
        id_column=forecaster.id_column,
        time_column=forecaster.time_column,
        target=None if whole else names,
    )
    return BacktestJob(model, df, first.horizon, **options, optional=True)


def _runs(jobs: dict[str, BacktestJob], store: RunFolder | None, verbose: int) -> dict[str, Run]:
    """Run what is not kept already."""
    prints = {name: fingerprint_of(job.model) for name, job in jobs.items()} if store else {}
    # What is kept is read first: a folder that does not fit is known before work starts.
    stored = {name: store.load(name, prints[name]) for name in jobs} if store else {}
    runs: dict[str, Run] = {}
    failed: dict[str, BaseException] = {}
    with progress(shown=verbose >= 1, total=len(jobs), desc="compare", unit="model") as bar:
        for name, job in jobs.items():
            held = stored.get(name)
            if held is None:
                begun = time.perf_counter()
                try:
                    held = _run(name, job, verbose)
                except FAILURES as error:
                    failed[name] = error
                    warn(f"compare: {name} failed and is not ranked: {error}", DataWarning)
                    spent = time.perf_counter() - begun
                    held = Run({}, spent, np.nan, np.nan, f"{type(error).__name__}: {error}")
                else:
                    if store is not None:
                        store.save(name, prints[name], held)
            runs[name] = held
            bar.update()
    if len(failed) == len(jobs):
        raise next(iter(failed.values()))
    return runs


def _run(name: str, job: BacktestJob, verbose: int) -> Run:
    with PeakMemory() as memory:
        frame = job.run(name, verbose)
    columns = {
        label: frame[label].to_numpy()
        for label in frame.columns
        if label == name or str(label).startswith(f"{name}_")
    }
    status = OK
    if job.n_replaced:
        status = f"fallback in {job.n_replaced} of {len(job.origins.rows)} windows"
    return Run(columns, job.fit_seconds, job.forecast_seconds, memory.megabytes, status)


def _joined(jobs: dict[str, BacktestJob], runs: dict[str, Run]) -> pd.DataFrame:
    """Return the backtest of all models in one frame."""
    first = next(iter(jobs))
    keys = jobs[first].keys()
    for name, job in jobs.items():
        columns = runs[name].columns
        if columns and len(next(iter(columns.values()))) != len(keys):
            raise DataError(
                f"compare: the windows of {name} differ from those of {first}; the models must "
                f"read the frame alike, and be fitted alike"
            )
        assert job.horizon == jobs[first].horizon, "checked before"
    together = {label: values for run in runs.values() for label, values in run.columns.items()}
    return pd.concat([keys, pd.DataFrame(together, index=keys.index)], axis=1)


@dataclass(frozen=True)
class Leaderboard:
    """Models in the order of their losses, as :func:`compare` finds them.

    Printed, it is a table of text.

    Attributes
    ----------
    frame : DataFrame
        A row for each model, the best first: ``model``; the metrics; ``<metric>_low`` and
        ``<metric>_high``, the bootstrap interval (95 %) of the first metric; ``skill``, by
        what share the loss is below that of the baseline, with its interval; ``p_value``
        against the baseline (:func:`tsar.evaluation.diebold_mariano`); ``set_p_value``, above
        0.1 for the models of the 90 % model confidence set; ``fit_seconds``,
        ``forecast_seconds``, ``peak_memory_mb`` and ``status``: "ok", of how many windows a
        simpler model had to stand in, or why there are no forecasts.
    backtest : DataFrame
        The forecasts of all models.
    losses : DataFrame of shape (T, M)
        Mean loss of each window, in the order of time.
    series_losses : DataFrame of shape (S, M)
        Mean loss of each series.
    metric : str
        The first metric, by which all of these are.
    baseline : str
        The model that skill is measured against.
    overlap : int
        How many windows in a row share a step.
    """

    frame: pd.DataFrame
    backtest: pd.DataFrame
    losses: pd.DataFrame
    series_losses: pd.DataFrame
    metric: str
    baseline: str
    overlap: int

    @classmethod
    def of(
        cls,
        tested: pd.DataFrame,
        runs: dict[str, Run],
        job: BacktestJob,
        metrics: list[str],
        season_length: int | None,
        baseline: str,
        n_resamples: int,
        random_state: int | None,
    ) -> "Leaderboard":
        """Rank the models of a backtest."""
        metric, overlap = metrics[0], -(-job.horizon // job.step)
        models, table = Forecasts.of(tested), Table(tested)
        scales = {
            power: series_scales(tested, job.panel, season_length, power)
            for power in {METRICS[name].scale for name in metrics}
        }
        _warn_of_unscaled(tested, scales)
        # What a model does not forecast, and what failed, is left empty.
        rows: dict[str, dict[str, float]] = {name: {} for name in runs}
        for name, model in models.items():
            usable = [
                one for one in metrics if model.gives(one) and (one != "owa" or baseline in models)
            ]
            measured = measure_model(name, models, usable, table, scales, baseline)
            rows[name] = {key: float(value[0]) for key, value in measured.items()}
        cells = Cells.of(tested, metric, scales[METRICS[metric].scale], job.horizon)
        windows, series = cells.by_window(), cells.by_series()
        draws = cells.resampled(n_resamples, overlap, random_state)
        for name in draws:
            rows[name] |= _uncertain(metric, rows, draws, name, baseline)
            if baseline in draws and name != baseline:
                pair = windows[name], windows[baseline]
                rows[name]["p_value"] = diebold_mariano(*pair, overlap=overlap).p_value
        if len(windows) > 1 and windows.shape[1] > 1:
            set_p_values = model_confidence_set(
                windows,
                block_length=max(overlap, len(windows) ** (1 / 3)),
                n_resamples=n_resamples,
                random_state=random_state,
            )
            for label, p_value in set_p_values.items():
                rows[str(label)]["set_p_value"] = p_value
        board = pd.DataFrame(list(rows.values()), index=list(rows))
        if metric not in board:
            warn(f"compare: no model gives what {metric!r} needs, nothing is ranked", DataWarning)
            board.insert(0, metric, np.nan)
        elif board[metric].isna().all():
            warn(
                f"compare: {metric!r} is NaN of all models, nothing is ranked: there are no "
                f"observed rows to judge by, or nothing to scale by before the first cutoff",
                DataWarning,
            )
        for column in TAIL:
            board[column] = [getattr(runs[name], column) for name in rows]
        board = board[_columns(metric, list(board.columns))]
        board = board.sort_values(metric, kind="stable").rename_axis("model").reset_index()
        return cls(board, tested, windows, series, metric, baseline, overlap)

    def diebold_mariano(self) -> pd.DataFrame:
        """Return the p-value of :func:`tsar.evaluation.diebold_mariano` of each pair, (M, M)."""
        return self._pairs(diebold_mariano)

    def giacomini_white(self) -> pd.DataFrame:
        """Return the p-value of :func:`tsar.evaluation.giacomini_white` of each pair, (M, M)."""
        return self._pairs(giacomini_white)

    def _pairs(self, test: Any) -> pd.DataFrame:
        self._check_judged(test.__name__)
        names = [name for name in self.frame["model"] if name in self.losses]
        table = pd.DataFrame(np.nan, index=names, columns=names)
        for one in names:
            for two in names:
                if one != two:
                    outcome: Outcome = test(
                        self.losses[one], self.losses[two], overlap=self.overlap
                    )
                    table.loc[one, two] = outcome.p_value
        return table

    def win_rates(self) -> pd.DataFrame:
        """Return how often each model has a smaller loss than each other one.

        Returns
        -------
        DataFrame of shape (M, M)
            The share of series, or of windows where there is one series, in which the model of
            the row has the smaller loss; equal losses count as half a win for both. NaN of a
            model with itself.
        """
        rows = self._rows("win_rates")
        names = [name for name in self.frame["model"] if name in rows]
        losses = rows[names].to_numpy()
        one, other = losses[:, :, None], losses[:, None]
        rates = ((one < other) + 0.5 * (one == other)).mean(axis=0)
        np.fill_diagonal(rates, np.nan)
        return pd.DataFrame(rates, index=names, columns=names)

    def to_latex(self, caption: str | None = None, label: str | None = None) -> str:
        """Return the models with their metrics as a table for LaTeX, the best in bold.

        Parameters
        ----------
        caption, label : str or None
            Of the table, as LaTeX; with neither, it is a ``tabular`` alone.

        Returns
        -------
        str
            It needs the package booktabs. Of metrics that have no best, such as the coverage,
            nothing is bold.
        """
        names = _measured(self.metric, list(self.frame.columns[1:]))
        table = self.frame[["model", *names, *(c for c in ("skill", "p_value") if c in self.frame)]]
        best = {
            name: "min"
            for name in names
            if name.startswith("interval_score")
            or (name in METRICS and METRICS[name].needs != "intervals")
        }
        return latex_table(table, best | {"skill": "max"}, caption=caption, label=label)

    def winners(self) -> pd.DataFrame:
        """Return which model was best for each series.

        Returns
        -------
        DataFrame
            A row for each series with anything to judge by: ``id`` (and ``variate``, where
            there are several), ``model``, its mean ``loss`` by the first metric, that of the
            ``baseline``, and ``skill``, by what share it is below that. Of equal losses, the
            model that is better over all series is taken. Few windows tell by luck as well.

        Examples
        --------
        >>> import pandas as pd
        >>> import tsar
        >>> from tsar.evaluation import compare
        >>> days = pd.date_range("2024-01-01", periods=60)
        >>> two = pd.DataFrame({"rising": range(60), "weekly": days.day_of_week}, index=days)
        >>> board = compare([tsar.Naive(horizon=3)], two.astype(float), metrics="mae", windows=5)
        >>> board.winners()[["variate", "model", "loss"]]
          variate          model  loss
        0  rising          Naive   2.0
        1  weekly  SeasonalNaive   0.0
        """
        self._check_judged("winners")
        losses = self.series_losses
        judged = losses[[name for name in self.frame["model"] if name in losses]].dropna(how="all")
        winners = pd.DataFrame({"model": judged.idxmin(axis=1), "loss": judged.min(axis=1)})
        if self.baseline in judged:
            winners["baseline"] = judged[self.baseline]
            with np.errstate(divide="ignore", invalid="ignore"):
                winners["skill"] = 1 - winners["loss"] / winners["baseline"]
        names = ["id", "variate"] if isinstance(losses.index, pd.MultiIndex) else ["id"]
        return winners.rename_axis(index=names).reset_index()

    def confidence_set(self, alpha: float = 0.1) -> list[str]:
        """Return the models that hold the best one with a probability of ``1 - alpha``.

        Parameters
        ----------
        alpha : float
            In (0, 1).

        Returns
        -------
        list of str
            Best first; see :func:`tsar.evaluation.model_confidence_set`. Empty where there
            are too few windows or models to tell.
        """
        if "set_p_value" not in self.frame:
            return []
        return self.frame.loc[self.frame["set_p_value"] > alpha, "model"].tolist()

    def critical_difference(self, alpha: float = 0.05) -> CriticalDifference:
        """Return the test of Friedman and Nemenyi over series; of one series, over windows.

        Parameters
        ----------
        alpha : float
            In (0, 1).

        Returns
        -------
        CriticalDifference
            See :func:`tsar.evaluation.critical_difference`. Windows that follow each other
            are no independent rows, so that of one series it tells too many models apart.

        Raises
        ------
        DataError
            If no series has a loss, such as where there was nothing to scale by.
        """
        return critical_difference(self._rows("critical_difference"), alpha=alpha)

    def _rows(self, method: str) -> pd.DataFrame:
        """Return the losses of series, or of windows where there is one series."""
        self._check_judged(method)
        return self.series_losses if len(self.series_losses) > 1 else self.losses

    def _check_judged(self, method: str) -> None:
        """Raise a DataError where there are no losses."""
        if self.losses.empty:
            raise DataError(
                f"Leaderboard.{method}: no series has a loss by {self.metric!r}, as nothing was "
                f"judged, or there was nothing to scale by; compare by another metric, such as mae"
            )

    def __str__(self) -> str:
        shown = self.frame.copy()
        for column in shown.select_dtypes("number"):
            shown[column] = shown[column].map(lambda value: f"{value:.4g}")
        if (shown["status"] == OK).all():
            shown = shown.drop(columns="status")
        n_windows, n_series = len(self.losses), len(self.series_losses)
        lines = [
            shown.to_string(index=False, na_rep="nan"),
            "",
            f"{n_windows} windows of {n_series} series, ranked by {self.metric}; skill and "
            f"p_value against {self.baseline}",
        ]
        if self.confidence_set():
            lines.append(f"90 % confidence set: {', '.join(self.confidence_set())}")
        return "\n".join(lines)


def _warn_of_unscaled(tested: pd.DataFrame, scales: dict[int, Floats | None]) -> None:
    """Warn of series that metrics in units of a series leave out, where there are others."""
    lacking = np.zeros(len(tested), dtype=bool)
    for scale in scales.values():
        lacking |= False if scale is None else ~(scale > 0)
    if lacking.any() and not lacking.all():
        keys = [name for name in ("id", "variate") if name in tested.columns]
        series = tested.loc[lacking, keys].drop_duplicates()
        shown = ", ".join(map(repr, series.head(5).agg(tuple, axis=1)))
        warn(
            f"compare: {len(series)} of {len(tested[keys].drop_duplicates())} series did not "
            f"change from season to season before the first cutoff, so that there is nothing to "
            f"scale by; metrics such as mase leave them out: {shown}"
            f"{', ...' if len(series) > 5 else ''}",
            DataWarning,
        )


def _uncertain(
    metric: str,
    rows: dict[str, dict[str, float]],
    draws: dict[str, Floats],
    name: str,
    baseline: str,
) -> dict[str, float]:
    """Return the skill of a model, and the bootstrap intervals."""
    ends = np.array([1 - CONFIDENCE, 1 + CONFIDENCE]) * 50
    low, high = np.percentile(draws[name], ends)
    content = {f"{metric}_low": float(low), f"{metric}_high": float(high)}
    if baseline in draws:
        with np.errstate(divide="ignore", invalid="ignore"):
            skill = 1 - draws[name] / draws[baseline]
            content["skill"] = float(1 - np.divide(rows[name][metric], rows[baseline][metric]))
            low, high = np.percentile(skill, ends)
        content |= {"skill_low": float(low), "skill_high": float(high)}
    return content


def _tests(ranking: str) -> list[str]:
    """Return the columns of a leaderboard that say how far it can be trusted."""
    skills = ["skill", "skill_low", "skill_high"]
    return [f"{ranking}_low", f"{ranking}_high", *skills, "p_value", "set_p_value"]


def _measured(ranking: str, columns: list[str]) -> list[str]:
    """Return the columns that hold metrics."""
    return [name for name in columns if name not in TAIL and name not in _tests(ranking)]


def _columns(ranking: str, columns: list[str]) -> list[str]:
    """Return the columns of a leaderboard in their order."""
    tests = [name for name in _tests(ranking) if name in columns]
    return [*_measured(ranking, columns), *tests, *TAIL]
