"""Learn from a backtest of a fitted model how wide its intervals are to be."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tsar.data.matching import id_places, in_order, without_end
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.data.windows import number_windows
from tsar.exceptions import (
    DataError,
    DataWarning,
    InterruptedWarning,
    ParameterError,
    own_warnings,
)
from tsar.forecasting.fitted.contract import FittedForecaster
from tsar.forecasting.fitted.windowed import first_cutoffs
from tsar.forecasting.probabilistic.calibration import Calibration, guessed_units
from tsar.forecasting.probabilistic.conformal import (
    adaptive_thresholds,
    fewest_scores,
    interval_scores,
    pid_thresholds,
    split_threshold,
)
from tsar.forecasting.probabilistic.paths import ErrorPaths
from tsar.params.arguments import check_percentages
from tsar.params.constraints import check_choice

__all__ = ["METHODS", "calibrate", "calibration_of_errors"]

METHODS = ("split", "cqr", "aci", "pid")
ADAPTIVE = ("aci", "pid")
ADAPTIVE_LEVELS = (80.0, 90.0, 95.0)
# More windows, or values of them, tell little more and take their time.
MOST_WINDOWS, MOST_VALUES = 20_000, 5_000_000
# Cutoffs of one series that adaptive intervals go through, and the fewest that teach something.
MOST_CUTOFFS, FEWEST_CUTOFFS = 500, 20
# More order statistics of the scores than this are thinned out.
MOST_KEPT = 2000
# Of the rows of a series, one in so many is held out where the errors of a copy stand in.
HELD_OUT, MOST_HELD_OUT = 5, 2


@dataclass(frozen=True)
class _Windows:
    """The windows of a backtest, in the order of time within a series.

    Attributes
    ----------
    joined : Panel
        The rows that were given, after the fitted ones where those adjoin.
    n_unseen : int64 array of shape (S,)
        How many rows of each series the model was not trained on.
    owners, rows : int64 arrays of shape (W,)
        Series of each, and its cutoff as a row of ``joined``.
    panel : Panel
        The rows that were given.
    truth : float array of shape (W, H, C)
        What happened, NaN where that is not known.
    """

    joined: Panel
    n_unseen: np.ndarray
    owners: np.ndarray
    rows: np.ndarray
    panel: Panel
    truth: np.ndarray

    @classmethod
    def of(cls, model: FittedForecaster, df: Any, horizon: int, adaptive: bool) -> "_Windows":
        """Place windows in the rows of a frame that a model was not trained on."""
        panel = in_order(model.read_new(df, allow_new_variates=False), model.end_.variates)
        joined = panel.after(model.end_)
        begins = _unseen(model, panel, joined)
        owners, rows = _cutoffs(joined, begins, horizon, adaptive)
        truth = _truth(joined, owners, rows, horizon)
        return cls(joined, joined.lengths - begins, owners, rows, panel, truth)

    def forecast(
        self, model: FittedForecaster, horizon: int, pair: tuple[float, float] | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the point forecasts (W, H, C), and the quantiles that are moved, if any."""
        rows = self.rows - (self.joined.offsets[1:] - self.panel.offsets[1:])[self.owners]
        forecasts = model.forecast(
            self.panel, self.owners, rows, horizon, levels=pair or (), after_fitted=True
        )
        low, high = (
            (forecasts.quantiles[share] for share in pair) if pair else (forecasts.point,) * 2
        )
        return forecasts.point, low, high

    def mapped(self, function: Callable[[np.ndarray], np.ndarray]) -> "_Windows":
        """Apply a function of values (..., C) to all of the data."""
        joined = replace(self.joined, values=function(self.joined.values))
        return replace(self, joined=joined, truth=function(self.truth))

    @property
    def counts(self) -> np.ndarray:
        """How many values there are to compare with at each step, int64 of shape (H, C)."""
        return np.asarray((~np.isnan(self.truth)).sum(axis=0))


def calibrate(
    model: FittedForecaster, df: Any, method: str | None, level: Any, horizon: int, refit: bool
) -> Calibration:
    """Forecast the rows that a model was not trained on, and keep how it errs.

    See :meth:`tsar.Forecaster.calibrate`.
    """
    name = model.name
    method, pair = _choose_method(model, method)
    levels = check_percentages(name, level)
    adaptive = method in ADAPTIVE
    source, windows = model, _Windows.of(model, df, horizon, adaptive)
    needed = max(map(fewest_scores, levels or ADAPTIVE_LEVELS))
    if refit and model.is_trained and windows.counts.min() < needed:
        source = _fitted_on_less(model, df, horizon, needed)
        windows = _Windows.of(source, df, horizon, adaptive)
    _check_windows(model, windows, horizon)
    point, low, high = map(model.to_error_scale, windows.forecast(source, horizon, pair))
    windows = windows.mapped(model.to_error_scale)
    errors = windows.truth - point
    scores = interval_scores(windows.truth, low, high)
    calibration = _calibration_of(windows, np.abs(errors), scores, method, pair, levels)
    calibration.check(name, levels)
    calibration = replace(calibration, paths=_paths_of(windows, errors, calibration.unit))
    return _with_adaptive_reach(calibration, windows.owners, scores) if adaptive else calibration


def calibration_of_errors(
    panel: Panel, owners: np.ndarray, rows: np.ndarray, point: np.ndarray
) -> Calibration:
    """Keep how forecasts err that were made elsewhere, for intervals of the method "split".

    Parameters
    ----------
    panel : Panel
        What happened.
    owners, rows : int64 arrays of shape (W,)
        Series of each window, and the row of ``panel.values`` at which it begins, in the order
        of time within a series.
    point : float64 array of shape (W, H, C)
        Forecasts of rows that were not learned from.
    """
    horizon = point.shape[1]
    truth = _truth(panel, owners, rows, horizon)
    n_unseen = np.zeros(panel.n_series, dtype=np.int64)
    windows = _Windows(panel, n_unseen, owners, rows, panel, truth)
    errors = truth - point
    scores = interval_scores(truth, point, point)
    calibration = _calibration_of(windows, np.abs(errors), scores, "split", None, [])
    return replace(calibration, paths=_paths_of(windows, errors, calibration.unit))


def _check_windows(model: FittedForecaster, windows: _Windows, horizon: int) -> None:
    """Raise a DataError unless every step has a truth to compare with."""
    name = model.name
    can_hold_out = "early_stopping" in model.get_params(deep=False)
    hold_out = "hold some out in fit (early_stopping=True), " if can_hold_out else ""
    if not len(windows.rows):
        raise DataError(
            f"{name}: calibrate needs rows that the model was not trained on, and there are none; "
            f"pass rows after the fitted ones, {hold_out}or let a copy be fitted without the last "
            f"rows: calibrate(df, refit=True)"
        )
    if not windows.counts.all():
        raise DataError(
            f"{name}: calibrate needs observed rows of every step, but there are only "
            f"{int(windows.n_unseen.max())} rows that the model was not trained on for "
            f"horizon={horizon}; pass more rows, or a shorter horizon="
        )


def _calibration_of(
    windows: _Windows,
    errors: np.ndarray,
    scores: np.ndarray,
    method: str,
    pair: tuple[float, float] | None,
    levels: list[float],
) -> Calibration:
    """Order the scores (W, H, C) of a backtest in units of the errors (W, H, C)."""
    joined, owners, rows = windows.joined, windows.owners, windows.rows
    counts, adaptive = windows.counts, method in ADAPTIVE
    unit, of_window, relative = _units(joined, owners, rows, errors)
    typical = np.median(unit, axis=0)
    guessed = of_window
    if joined.n_series > 1:
        guessed = guessed_units(_deviations_before(joined, owners, rows), relative, typical)
    with np.errstate(over="ignore"):
        ordered, elsewhere = (
            _thinned(np.sort(scores / size[:, None], axis=0), counts)
            for size in (of_window, guessed)
        )
    return Calibration(
        method=method,
        quantiles=pair,
        levels=tuple(sorted(levels or ADAPTIVE_LEVELS)) if adaptive else (),
        ids=joined.ids,
        variates=joined.variates,
        unit=unit,
        relative=relative,
        typical=typical,
        ordered=ordered,
        elsewhere=elsewhere,
        counts=counts,
        reach=np.empty((0, *unit.shape[:1], *counts.shape)),
    )


def _paths_of(windows: _Windows, errors: np.ndarray, unit: np.ndarray) -> ErrorPaths:
    """Line up the errors (W, H, C) of a backtest by cutoff, in the units (S, C) of the series."""
    joined, owners = windows.joined, windows.owners
    stamps = joined.stamps()[windows.rows]
    relative = errors / unit[owners][:, None]
    return ErrorPaths.of(joined.ids, joined.variates, owners, stamps, relative)


def _choose_method(
    model: FittedForecaster, method: str | None
) -> tuple[str, tuple[float, float] | None]:
    """Return the method, and the pair of quantiles that it moves, if it moves some."""
    name, pair = model.name, model.predictive.widest_pair
    if method is None:
        method = "split" if pair is None else "cqr"
    check_choice(name, "method", method, METHODS)
    if method != "cqr":
        return method, None
    if pair is None:
        raise ParameterError(
            f"{name}: method='cqr' moves quantiles on both sides of the median, which this model "
            f"does not forecast; take method='split', or fit with loss='quantile' or a distribution"
        )
    return method, pair


def _fitted_on_less(
    model: FittedForecaster, df: Any, horizon: int, needed: int
) -> FittedForecaster:
    """Fit a copy of a model without the last rows of each series of the frame it was fitted on."""
    panel = in_order(model.read_as_fitted(df), model.end_.variates)
    held_out = _rows_to_hold_out(panel, model.context_rows + model.horizon_, horizon, needed)
    try:
        # What there is to say was said of the model itself, and an unfinished copy errs more
        # than it does.
        with own_warnings("ignore", DataWarning), own_warnings("error", InterruptedWarning):
            return model.as_fitted.fit_panel(without_end(panel, held_out), go_on=False)
    except InterruptedWarning:
        raise KeyboardInterrupt from None
    except DataError as error:
        raise DataError(
            f"{model.name}: calibrate holds out {int(held_out.max())} rows to learn the intervals "
            f"from, and the rest is too little: {error}"
        ) from None


def _rows_to_hold_out(panel: Panel, window: int, horizon: int, needed: int) -> np.ndarray:
    """Return how many rows at the end of each series to hold out, (S,).

    A fifth of its rows, though a window of a context and a horizon is left where that can be; at
    least what it takes to observe so many truths of the last step in all; never more than half.
    """
    preferred = np.minimum(panel.lengths // HELD_OUT, panel.lengths - window)
    most = panel.lengths // MOST_HELD_OUT
    owner = np.repeat(np.arange(panel.n_series), panel.lengths)
    # The last row of a series is 1 from its end.
    from_end = panel.offsets[1:][owner] - np.arange(len(panel.values))
    observed, enough = ~np.isnan(panel.values), horizon
    while True:
        held_out = np.minimum(np.maximum(preferred, enough), most)
        judged = observed[from_end <= (held_out - horizon + 1)[owner]]
        lacking = needed - int(judged.sum(axis=0).min())
        if lacking <= 0 or (held_out == most).all():
            return held_out
        # One more row of each series is one more truth of each at most.
        enough += max(lacking // panel.n_series, 1)


def _unseen(model: FittedForecaster, panel: Panel, joined: Panel) -> np.ndarray:
    """Return how many rows of each series of ``joined`` a backtest must not begin before."""
    rows_before = joined.lengths - panel.lengths
    begins = first_cutoffs(model, panel, joined)
    if model.is_trained:
        end = model.end_
        place = id_places(panel.ids, end.ids)
        last = panel.axis.stamps_of(end.last, end.axis)
        fitted = np.flatnonzero((place >= 0) & (rows_before == 0) & (panel.first <= last[place]))
        if len(fitted):
            held_out = model.learned_.held_out
            stamps = panel.stamps()
            for series in fitted:
                own = stamps[panel.offsets[series] : panel.offsets[series + 1]]
                n_seen = int(np.searchsorted(own, last[place[series]], side="right"))
                begins[series] = max(n_seen - held_out[place[series]], 0)
    return np.maximum(begins, 1)


def _cutoffs(
    joined: Panel, begins: np.ndarray, horizon: int, adaptive: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the series and the row of every window, in the order of time within a series."""
    counts = np.maximum(joined.lengths - begins, 0)
    if adaptive:
        counts = np.minimum(counts, MOST_CUTOFFS)
        begins, apart = joined.lengths - counts, 1
    else:
        most = max(min(MOST_WINDOWS, MOST_VALUES // (horizon * joined.n_variates)), 1)
        apart = max(-(-int(counts.sum()) // most), 1)
        counts = -(-counts // apart)
    owners, numbers = number_windows(counts)
    return owners, joined.offsets[owners] + begins[owners] + numbers * apart


def _truth(joined: Panel, owners: np.ndarray, rows: np.ndarray, horizon: int) -> np.ndarray:
    """Return what happened, (W, H, C), NaN beyond the end of a series."""
    steps = rows[:, None] + np.arange(horizon)
    inside = steps < joined.offsets[owners + 1][:, None]
    truth = joined.values[np.minimum(steps, len(joined.values) - 1)].astype(np.float64)
    truth[~inside] = np.nan
    return truth


def _units(
    joined: Panel, owners: np.ndarray, rows: np.ndarray, errors: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the size of errors by series (S, C), by window (W, C), and in deviations (C,).

    Scores of several series are comparable in units of the errors of each. That of a window
    is made of the windows of its series that forecast other rows, as that of a forecast to
    come is. Few windows are helped out by the deviation of their series.

    With E(w) the sum of the absolute errors of window w and n(w) their number, d(s) the
    deviation of series s, and H the horizon,

        relative = sum_w E(w) / sum_s d(s) n(s)
        unit(s) = (sum_{w in s} E(w) + H relative d(s)) / (n(s) + H)
        unit(w) = the same without the windows whose rows overlap with those of w.

    Of a single series, unit is the mean absolute error, rounded to a power of two.
    """
    deviation = Scaling.measure(joined.values, joined.offsets, joined.offsets[1:]).scale
    deviation = np.nan_to_num(deviation)
    n_window = (~np.isnan(errors)).sum(axis=1).astype(np.float64)
    of_window = np.nansum(errors, axis=1)
    n_series, of_series = np.zeros_like(deviation), np.zeros_like(deviation)
    np.add.at(n_series, owners, n_window)
    np.add.at(of_series, owners, of_window)
    moved = (n_series * deviation).sum(axis=0)
    relative = of_series.sum(axis=0) / np.where(moved > 0, moved, 1.0)
    smallest = np.finfo(np.float64).tiny
    if joined.n_series == 1:
        unit = np.maximum(of_series / np.maximum(n_series, 1), smallest)
        # By a power of two nothing is rounded: the threshold is one of the errors.
        unit = np.exp2(np.round(np.log2(unit)))
        return unit, unit[owners], unit[0] / np.where(deviation[0] > 0, deviation[0], 1.0)
    helped = errors.shape[1]
    guess = relative * deviation
    unit = (of_series + helped * guess) / (n_series + helped)
    # Windows come in order, so that those which overlap with one lie around it.
    key = owners * (len(joined.values) + 2 * helped) + rows
    first = np.searchsorted(key, key - helped, side="right")
    last = np.searchsorted(key, key + helped, side="left")
    unit = np.maximum(unit, smallest)
    # In units of each series: sums over all of them would drown the small ones.
    total, number = (
        np.concatenate([np.zeros((1, part.shape[1])), np.cumsum(part, axis=0)])
        for part in (of_window / unit[owners], n_window)
    )
    rest = (of_series + helped * guess) / unit
    apart = (rest[owners] - (total[last] - total[first])) / (
        n_series[owners] - (number[last] - number[first]) + helped
    )
    return unit, np.maximum(unit[owners] * apart, smallest), relative


def _deviations_before(joined: Panel, owners: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the deviation of what precedes each window in its series, (W, C).

    That of less than half of the series would be another measure than that of a whole one.
    """
    measured = Scaling.measure(joined.values, joined.offsets, joined.offsets[1:])
    scale = np.where(measured.scale > 0, measured.scale, 1.0)
    own = np.repeat(np.arange(joined.n_series), joined.lengths)
    # In units of each series, as other sums over all of them.
    z = (joined.values - measured.mean[own]) / scale[own]
    seen = ~np.isnan(z)
    z = np.where(seen, z, 0.0)
    begins = joined.offsets[owners]
    ends = np.maximum(rows, begins + joined.lengths[owners] // 2)
    number, first, second = (
        total[ends] - total[begins]
        for total in (
            np.concatenate([np.zeros((1, z.shape[1])), np.cumsum(part, axis=0)])
            for part in (seen, z, np.square(z))
        )
    )
    number = np.maximum(number, 1)
    variance = np.maximum(second / number - np.square(first / number), 0)
    return np.asarray(np.sqrt(variance) * scale[owners])


def _thinned(ordered: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Keep order statistics (W, H, C) that are equally far apart in rank, (M, H, C)."""
    n_kept = int(min(counts.max(), MOST_KEPT))
    counts_left = np.minimum(counts, n_kept)
    numbers = np.arange(1, n_kept + 1)[:, None, None]
    rank = -(-numbers * counts // np.maximum(counts_left, 1))
    taken = np.take_along_axis(ordered, np.clip(rank, 1, len(ordered)) - 1, axis=0)
    return np.where(numbers <= counts_left, taken, np.nan)


def _with_adaptive_reach(
    calibration: Calibration, owners: np.ndarray, scores: np.ndarray
) -> Calibration:
    """Go through the scores (W, H, C) of each series in the order of time."""
    n_series, (horizon, n_variates) = len(calibration.ids), scores.shape[1:]
    reach = np.full((len(calibration.levels), n_series, horizon, n_variates), np.nan)
    counts = np.bincount(owners, minlength=n_series)
    begins = np.concatenate([[0], np.cumsum(counts)])
    delays = np.arange(horizon)
    taught = np.flatnonzero(counts >= FEWEST_CUTOFFS)
    at_once = max(MOST_VALUES // (max(int(counts.max()), 1) * horizon * n_variates), 1)
    for some in np.split(taught, range(at_once, len(taught), at_once)):
        if not len(some):
            continue
        longest = int(counts[some].max())
        # All of them end at the same time; what a series does not have comes first.
        lined_up = np.full((longest, len(some), n_variates, horizon), np.nan)
        for place, series in enumerate(some):
            own = scores[begins[series] : begins[series + 1]]
            lined_up[longest - len(own) :, place] = own.swapaxes(1, 2)
        for number, level in enumerate(calibration.levels):
            if calibration.method == "aci":
                thresholds = adaptive_thresholds(lined_up, level, delays=delays)
            else:
                split = split_threshold(calibration.ordered, calibration.counts, level)
                start = split.T * calibration.unit[some][..., None]
                start = np.where(np.isfinite(start), start, 0.0)
                thresholds = pid_thresholds(lined_up, level, start, delays=delays)
            reach[number, some] = thresholds[-1].swapaxes(1, 2)
    return replace(calibration, reach=reach)
