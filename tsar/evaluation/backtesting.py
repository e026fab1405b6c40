"""Backtests: forecasts of the past, made from nothing but what was known at the time.

Dimension letters: S series, W windows, H horizon, C variates.
"""

import contextlib
import numbers
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from tsar.data.frames import read_rows
from tsar.data.libraries import as_pandas, library_of
from tsar.data.matching import id_places, in_order
from tsar.data.panel import Panel
from tsar.data.timeaxis import read_times
from tsar.data.windows import number_windows
from tsar.exceptions import (
    DataError,
    DataWarning,
    InterruptedWarning,
    ParameterError,
    each_warning_once,
    own_warnings,
    warn,
)
from tsar.forecasting.base import Forecaster
from tsar.forecasting.fitted.windowed import KEYS, in_window_order, window_keys
from tsar.forecasting.probabilistic.output_request import (
    OutputRequest,
    answer,
    ensure_intervals,
    read_request,
    sample,
)
from tsar.params.arguments import (
    check_fractions,
    check_horizon,
    check_percentages,
    check_samples,
)
from tsar.params.constraints import check_count
from tsar.progress import progress

__all__ = ["KEYS", "BacktestJob", "backtest", "forecaster_in", "named_models"]

NAMES_SHOWN = 5
# How the columns beside the point forecast of a model end, see tsar.data.forecasts.
BESIDE = re.compile(r"(.*)_(q|lo|hi|sample)(\d+(?:\.\d+)?(?:e-\d+)?)", re.DOTALL)


@each_warning_once()
def backtest(
    model: Any,
    df: Any,
    *,
    horizon: int | None = None,
    windows: int = 5,
    step: int | None = None,
    refit: bool | int = False,
    quantiles: Sequence[float] | None = None,
    level: float | Sequence[float] | None = None,
    samples: int | None = None,
    verbose: int = 0,
) -> Any:
    """Forecast the last rows of every series from several cutoffs, and return the truth beside it.

    The cutoffs are ``step`` rows apart, and the last window ends with its series. A model
    that is not fitted is fitted on the rows before the first cutoff, and then forecasts all
    windows of all series in batched passes; a fitted one is used as it is. No forecast
    depends on a row at or after its cutoff, except future covariates of the steps that are
    forecast, which are read from ``df``.

    Parameters
    ----------
    model : forecaster, or list or dict of them
        One column of forecasts each, under the name of its class or the key of the dict.
        A search over parameters is refitted as a whole.
    df : DataFrame or Series
        The data, in any form and library. It may continue what a fitted model was fitted on.
    horizon : int or None
        Steps to forecast; None takes that of the model.
    windows : int
        Cutoffs of each series. A series that is too short for all of them has fewer.
    step : int or None
        Rows from one cutoff to the next; None takes the horizon, so that every row is
        forecast once.
    refit : bool or int
        True fits a copy of the model anew at each cutoff, a number k at every k-th one;
        False fits once, if at all. Each fit reads the rows of a series before its cutoff.
    quantiles : sequence of float or None
        Levels to return in columns ``<name>_q<level>``, as in ``predict``: also of a model that
        is calibrated because of ``level``.
    level : float, sequence of float or None
        Intervals to return, by the percentage they are to cover: 80 gives the columns
        ``<name>_lo80`` and ``<name>_hi80``, as in ``predict``. A model that is fitted here
        and has none by itself is calibrated on the rows it is fitted on, as
        ``calibrate(refit=True)`` does.
    samples : int or None
        How many samples of each window to return as well, in columns ``<name>_sample0`` and
        so on; a model that is fitted here and gives none is calibrated likewise.
    verbose : int
        1 shows a progress bar of the fits.

    Returns
    -------
    DataFrame
        One row for each series, variate, cutoff and step, in this order: ``id``,
        ``variate`` (where there are several), ``cutoff`` (the time of the first step),
        ``time``, ``step`` (from 1), ``y`` (NaN where it was not observed), and the columns
        of the models. Frames without ids have the id 0, or the name of the Series. It is of
        polars or pyarrow where the data are, and then has no ``attrs``.
        ``attrs["reading"]`` holds the parameters by which the data were read, which
        :func:`measure` and the figures read them by.

    Raises
    ------
    ParameterError
        An argument is not usable.
    DataError
        No series is long enough for the windows, or the frame has faults.

    Warns
    -----
    DataWarning
        Some series are too short for all windows, or windows lie in rows that a fitted
        model has seen, which flatters it.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> tsar.evaluation.backtest(tsar.SeasonalNaive(horizon=12), sea, windows=20).shape
    (240, 6)
    """
    models = named_models("backtest", model)
    frame = as_pandas(df)
    jobs = {
        name: BacktestJob(
            one, frame, horizon, windows, step, refit, (quantiles, level), samples=samples
        )
        for name, one in models.items()
    }
    tested: pd.DataFrame | None = None
    for name, job in jobs.items():
        columns = job.run(name, verbose)
        if tested is None:
            tested = columns
        elif not tested.iloc[:, : len(KEYS) - 1].equals(columns.iloc[:, : len(KEYS) - 1]):
            raise DataError(
                f"backtest: the windows of {name} differ from those of {next(iter(models))}; pass "
                f"horizon= and models that read the frame alike"
            )
        else:
            tested = pd.concat([tested, columns.drop(columns=list(KEYS), errors="ignore")], axis=1)
    assert tested is not None, "there is at least one model"
    tested.attrs["reading"] = next(iter(jobs.values())).forecaster.reading
    return library_of(df, ()).restored(tested)


def named_models(owner: str, model: Any) -> dict[str, Any]:
    """Return models by name: one, a list of them (their classes are the names) or a dict.

    Parameters
    ----------
    owner : str
        Who asks, for messages.
    model : forecaster, or list or dict of them

    Raises
    ------
    ParameterError
        Something is no forecaster, there are none, or two have one name.
    """
    if isinstance(model, Mapping):
        named = [(str(name), one) for name, one in model.items()]
    else:
        several = model if isinstance(model, list | tuple) else [model]
        named = [(type(forecaster_in(owner, one)).__name__, one) for one in several]
    for _, one in named:
        forecaster_in(owner, one)
    names = [name for name, _ in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice is not None:
        held = "none" if twice is None else f"two called {twice}"
        raise ParameterError(
            f"{owner}: models must be one or more with names of their own, got {held}; pass a "
            f"dict such as {{'small': model, 'large': other}}"
        )
    taken = next((name for name in names if name in KEYS), None)
    if taken is not None:
        raise ParameterError(f"{owner}: a model cannot be called {taken!r}, a column of the result")
    for name in names:
        beside = BESIDE.fullmatch(name)
        if beside and beside[1] in names:
            raise ParameterError(
                f"{owner}: a model cannot be called {name!r} beside one called {beside[1]!r}, "
                f"whose quantiles and intervals have such names"
            )
    return dict(named)


def forecaster_in(owner: str, model: Any) -> Forecaster:
    """Return the forecaster itself, or the one that a search over parameters found or varies.

    Raises
    ------
    ParameterError
        There is none.
    """
    inner = model
    while not isinstance(inner, Forecaster):
        if isinstance(inner, type) or not (hasattr(inner, "fit") and hasattr(inner, "get_params")):
            shown = inner.__name__ if isinstance(inner, type) else type(inner).__name__
            repair = f"write {shown}()" if isinstance(inner, type) else "pass an estimator of tsar"
            raise ParameterError(
                f"{owner}: models must be forecasters, got {'the class ' * isinstance(inner, type)}"
                f"{shown}; {repair}"
            )
        inner = getattr(inner, "best_estimator_", getattr(inner, "estimator", None))
    return inner


def _refit_every(refit: Any) -> int | None:
    """Return after how many windows the model is fitted again, None for never."""
    if isinstance(refit, bool | np.bool_):
        return 1 if refit else None
    if not isinstance(refit, numbers.Integral) or refit < 1:
        raise ParameterError(
            f"backtest: refit must be True, False or a number of windows in [1, inf), got {refit!r}"
        )
    return int(refit)


@dataclass(frozen=True)
class _Origins:
    """Where forecasts begin, series by series and in the order of time.

    Attributes
    ----------
    owners, rows : int64 arrays of shape (W,)
        Series of each window, and the row of the panel that is its cutoff.
    numbers : int64 array of shape (W,)
        From 0 on; the last window of every series has the same number.
    """

    owners: np.ndarray
    rows: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of(
        cls, panel: Panel, starts: np.ndarray, horizon: int, windows: int, step: int
    ) -> "_Origins":
        """Place the windows; ``starts`` says which series have a history before the panel."""
        # One row at least is known before a cutoff.
        room = panel.lengths - horizon - np.where(starts, 0, 1)
        fitting = np.where(room >= 0, room // step + 1, 0)
        if fitting.max() < windows:
            raise DataError(
                f"backtest: windows={windows} of horizon={horizon}, step={step} apart, need "
                f"{(windows - 1) * step + horizon + 1} rows of a series, the longest has "
                f"{panel.lengths.max()}; at most windows={fitting.max()} fit"
            )
        short = np.flatnonzero(fitting < windows)
        if len(short):
            shown = ", ".join(repr(panel.ids[series]) for series in short[:NAMES_SHOWN])
            warn(
                f"backtest: {len(short)} of {panel.n_series} series are too short for "
                f"windows={windows} and have fewer: {shown}"
                f"{', ...' if len(short) > NAMES_SHOWN else ''}",
                DataWarning,
            )
        counts = np.minimum(fitting, windows)
        owners, numbered = number_windows(counts)
        numbered += windows - counts[owners]
        rows = panel.offsets[owners + 1] - horizon - (windows - 1 - numbered) * step
        return cls(owners, rows, numbered)


class BacktestJob:
    """The backtest of one model; what can be checked before work starts is checked.

    Parameters
    ----------
    model, df, horizon, windows, step, refit
        As :func:`backtest` takes them.
    quantiles_and_level : pair
        Quantiles and levels.
    optional : bool
        Whether a model that cannot give them forecasts without.
    samples : int or None
        How many to draw of each window.

    Attributes
    ----------
    horizon, step : int
    panel : Panel
        The frame, as the model reads it.
    fit_seconds, forecast_seconds : float
        What :meth:`run` took.
    n_replaced : int
        Windows of it for which a simpler model stood in.
    """

    def __init__(
        self,
        model: Any,
        df: Any,
        horizon: int | None,
        windows: int,
        step: int | None,
        refit: bool | int,
        quantiles_and_level: tuple[Any, Any],
        optional: bool = False,
        samples: int | None = None,
    ) -> None:
        self.samples = None if samples is None else check_samples("backtest", samples)
        check_fractions("backtest", quantiles_and_level[0])
        check_percentages("backtest", quantiles_and_level[1])
        for name, value in (("windows", windows), ("step", 1 if step is None else step)):
            check_count("backtest", name, value)
        self.model, self.df, self.quantiles_and_level, self.optional = (
            model,
            df,
            quantiles_and_level,
            optional,
        )
        self.fit_seconds = self.forecast_seconds = 0.0
        self.n_replaced = 0
        self.forecaster = forecaster_in("backtest", model)
        self.every = every = _refit_every(refit)
        self.fitted = every is None and self.forecaster.__sklearn_is_fitted__()
        if self.fitted:
            self.panel = self.forecaster.read_new(df, allow_new_variates=False)
            self.horizon = self.forecaster.resolve_horizon(horizon)
            is_fitted = self.panel.after(self.forecaster.end_).lengths > self.panel.lengths
        else:
            self.forecaster.check()
            self.panel = self.forecaster.read(df, freq=self.forecaster.freq)
            steps = self.forecaster.horizon if horizon is None else horizon
            self.horizon = check_horizon("backtest", steps)
            is_fitted = np.zeros(self.panel.n_series, dtype=bool)
        self.step = self.horizon if step is None else int(step)
        self.stamps = self.panel.stamps()
        self.origins = _Origins.of(self.panel, is_fitted, self.horizon, int(windows), self.step)

    def run(self, name: str, verbose: int) -> pd.DataFrame:
        """Forecast all windows and write them in one frame."""
        shape = (len(self.origins.rows), self.horizon, self.panel.n_variates)
        columns: dict[str, np.ndarray] = {}
        if self.fitted:
            self._warn_of_seen_rows(name)
        total = 1 if self.fitted else len(self._begins)
        with progress(shown=verbose >= 1, total=total, desc=name, unit="fit") as bar:
            for chosen, fitted in self._fits():
                begun = time.perf_counter()
                answers = self._forecast(fitted, chosen)
                self.forecast_seconds += time.perf_counter() - begun
                for key, values in answers.items():
                    label = f"{name}_{key}" if key else name
                    columns.setdefault(label, np.empty(shape))[chosen] = values
                bar.update()
        keys, origins = self.keys(), self.origins
        written = {
            label: in_window_order(values, origins.owners, origins.rows)
            for label, values in columns.items()
        }
        # At once: with samples there are hundreds of columns.
        return pd.concat([keys, pd.DataFrame(written, index=keys.index)], axis=1)

    @property
    def _begins(self) -> range:
        """The windows before which a model is fitted."""
        stop = int(self.origins.numbers.max()) + 1
        return range(0, stop, stop if self.every is None else self.every)

    def _fits(self) -> Iterator[tuple[np.ndarray, Forecaster]]:
        """Yield windows, and a fitted forecaster for them."""
        windows = self.origins.numbers
        if self.fitted:
            yield np.arange(len(windows)), self.forecaster
            return
        every = self._begins.step
        for begin in self._begins:
            fitted = clone(self.model)
            training = self._before(begin)
            begun = time.perf_counter()
            try:
                # A model that was cut short by the keyboard is none to judge.
                with own_warnings("error", InterruptedWarning):
                    fitted.fit(training)
            except InterruptedWarning:
                raise KeyboardInterrupt from None
            except DataError as error:
                raise DataError(
                    f"backtest: {len(training)} rows lie before the first cutoff: {error}",
                    error.faults,
                ) from None
            forecaster = forecaster_in("backtest", fitted)
            self._calibrate(forecaster, training)
            self.fit_seconds += time.perf_counter() - begun
            inside = (windows >= begin) & (windows < begin + every)
            yield np.flatnonzero(inside), forecaster

    def _calibrate(self, fitted: Forecaster, training: Any) -> None:
        """Let a model give the intervals that are asked for, from what it was fitted on."""
        try:
            ensure_intervals(
                fitted, training, self.quantiles_and_level[1], self.horizon, self.samples
            )
        except (DataError, ParameterError):
            if not self.optional:
                raise

    def _before(self, begin: int) -> Any:
        """Return the rows of the frame before the window ``begin`` of their series.

        A series whose first window comes later gives its rows before that one, and a series
        without any window gives none.
        """
        later = np.flatnonzero(self.origins.numbers >= begin)
        owners, first = np.unique(self.origins.owners[later], return_index=True)
        ends = np.full(self.panel.n_series, np.iinfo(np.int64).min)
        ends[owners] = self.stamps[self.origins.rows[later[first]]]
        roles = {
            role.removesuffix("_covariates"): names
            for role, names in self.forecaster.roles.items()
            if role != "calendar"
        }
        rows = read_rows(
            self.df,
            id_column=self.forecaster.id_column,
            time_column=self.forecaster.time_column,
            target=self.forecaster.target,
            covariates=roles,
        )
        series = self.panel.ids.get_indexer(rows.ids)[rows.codes]
        keep = (series >= 0) & (read_times(rows.times).stamps < ends[series])
        n_kept = int(keep.sum())
        # The first rows as such keep what an index states of its frequency.
        return self.df.iloc[:n_kept] if keep[:n_kept].all() else self.df[keep]

    def _forecast(self, fitted: Forecaster, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Forecast some windows: (W, H, C) by the end of the name of the column."""
        outputs = self._request_of(fitted)
        panel = fitted.read_new(self.df, allow_new_variates=False)
        ordered = in_order(panel, fitted.end_.variates)
        owners, rows = self.origins.owners[chosen], self.origins.rows[chosen]
        answers = answer(fitted, outputs, ordered, owners, rows, self.horizon, after_fitted=True)
        self.n_replaced += len({window for window, _ in answers.replaced})
        if self.samples is not None:
            n, steps = self.samples, self.horizon
            read_request(fitted, None, None, n)
            drawn = sample(fitted, n, ordered, owners, rows, steps, after_fitted=True)
            answers.values.update({f"sample{place}": drawn[:, place] for place in range(n)})
        place = ordered.variates.get_indexer(self.panel.variates)
        return {key: values[:, :, place] for key, values in answers.values.items()}

    def _request_of(self, fitted: Forecaster) -> OutputRequest:
        """Return what is asked for, where that is optional without what there is not."""
        quantiles, level = self.quantiles_and_level
        try:
            return read_request(fitted, quantiles, level, None)
        except ParameterError:
            if not self.optional:
                raise
        with contextlib.suppress(ParameterError):
            return read_request(fitted, None, level, None)
        with contextlib.suppress(ParameterError):
            return read_request(fitted, quantiles, None, None)
        return read_request(fitted, None, None, None)

    def _warn_of_seen_rows(self, name: str) -> None:
        """Warn of windows that forecast rows the model was fitted on."""
        end = self.forecaster.end_
        last = self.panel.axis.stamps_of(end.last, end.axis)
        place = id_places(self.panel.ids, end.ids)[self.origins.owners]
        seen = (place >= 0) & (self.stamps[self.origins.rows] <= last[place])
        if seen.any():
            warn(
                f"{name}: {int(seen.sum())} of {len(seen)} windows of the backtest forecast rows "
                f"that the model was fitted on, which flatters it; fit it on earlier rows, or pass "
                f"clone(model), which is fitted on the rows before the first cutoff",
                DataWarning,
            )

    def keys(self) -> pd.DataFrame:
        """Return the frame without forecasts."""
        return window_keys(self.panel, self.origins.owners, self.origins.rows, self.horizon)
