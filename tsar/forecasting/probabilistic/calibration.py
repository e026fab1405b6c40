"""Calibration: how wide the intervals around the forecasts of a fitted model have to be.

Dimension letters: S series, W windows, H steps, C variates, T cutoffs of one series, M order
statistics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np
import pandas as pd

from tsar.data.codec import IndexRecord, check_array, decode_index, encode_index
from tsar.data.matching import id_places
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.exceptions import (
    ParameterError,
    PersistenceError,
)
from tsar.forecasting.probabilistic.conformal import (
    fewest_scores,
    split_threshold,
)
from tsar.forecasting.probabilistic.paths import ErrorPaths, PathsRecord
from tsar.params.constraints import Interval

__all__ = ["Calibration", "CalibrationRecord", "guessed_units"]


class CalibrationRecord(TypedDict):
    """What JSON holds of a :class:`Calibration`."""

    method: Literal["split", "cqr", "aci", "pid"]
    quantiles: list[Annotated[float, Interval(0, 1)]] | None
    levels: list[Annotated[float, Interval(0, 100)]]
    ids: IndexRecord
    variates: IndexRecord
    paths: NotRequired[PathsRecord]
    on_error_scale: NotRequired[bool]


@dataclass(frozen=True)
class Calibration:
    """What a backtest said of the errors of a model.

    Attributes
    ----------
    method : {"split", "cqr", "aci", "pid"}
    quantiles : pair of float or None
        The quantiles that are moved; None for intervals around the point forecast.
    levels : tuple of float
        The levels in percent that adaptive thresholds are known of; () for any level.
    ids : Index of shape (S,)
        The series of the backtest.
    variates : Index of shape (C,)
        Theirs, as fitted.
    unit : float array of shape (S, C)
        The size of the errors of each series.
    relative, typical : float arrays of shape (C,)
        That size in deviations of a series, and in original units, for other series.
    ordered : float array of shape (M, H, C)
        Order statistics of the scores of all series, in units of each; NaN at the end.
    elsewhere : float array of shape (M, H, C)
        The same in units that the deviation of each series lets expect, for other series.
    counts : int64 array of shape (H, C)
        How many scores there were.
    reach : float array of shape (n_levels, S, H, C)
        Adaptive thresholds in original units; NaN where a series has too few scores.
    paths : ErrorPaths or None
        The errors of whole forecasts; None for a model that an earlier version saved.
    on_error_scale : bool
        Whether errors are those of values that the model brought to its scale of errors; False
        for a model that an earlier version saved.
    """

    method: str
    quantiles: tuple[float, float] | None
    levels: tuple[float, ...]
    ids: pd.Index
    variates: pd.Index
    unit: np.ndarray
    relative: np.ndarray
    typical: np.ndarray
    ordered: np.ndarray
    elsewhere: np.ndarray
    counts: np.ndarray
    reach: np.ndarray
    paths: ErrorPaths | None = None
    on_error_scale: bool = True

    @property
    def horizon(self) -> int:
        """The steps that were calibrated."""
        return len(self.counts)

    def check(self, owner: str, levels: list[float]) -> None:
        """Raise a ParameterError unless there is a threshold for each level."""
        n_scores = int(self.counts.min())
        for level in levels:
            if self.levels and level not in self.levels:
                raise ParameterError(
                    f"{owner}: level={level:g} is none of the calibrated ones, "
                    f"{', '.join(f'{one:g}' for one in self.levels)}; name it in "
                    f"calibrate(df, method={self.method!r}, level=[...])"
                )
            if fewest_scores(level) > n_scores:
                raise ParameterError(
                    f"{owner}: level={level:g} needs at least {fewest_scores(level)} windows to "
                    f"calibrate on, there were {n_scores}; call calibrate with more rows, or ask "
                    f"for a lower level"
                )

    def check_paths(self, owner: str) -> None:
        """Raise a ParameterError unless samples can be drawn."""
        if self.paths is None:
            raise ParameterError(
                f"{owner}: predict(samples=...) needs the errors of whole forecasts, which the "
                f"calibration of an earlier version does not hold; call calibrate(df) again"
            )
        if not self.paths.can_sample:
            raise ParameterError(
                f"{owner}: predict(samples=...) needs a cutoff of the calibration with all "
                f"{self.horizon} steps observed after it, there is none; call calibrate with "
                f"more rows, or a shorter horizon="
            )

    def check_quantiles(self, owner: str, shares: Sequence[float]) -> None:
        """Raise a ParameterError unless a bound on one side is known for each share."""
        if shares and self.method != "split":
            raise ParameterError(
                f"{owner}: predict(quantiles=...) of a point forecast needs the calibration "
                f"'split', got {self.method!r}, which follows intervals; call calibrate(df, "
                f"method='split'), or ask for level="
            )
        if shares and self.paths is None:
            raise ParameterError(
                f"{owner}: predict(quantiles=...) needs the errors of whole forecasts, which the "
                f"calibration of an earlier version does not hold; call calibrate(df) again"
            )
        for share in shares:
            assert self.paths is not None, "checked above"
            needed = fewest_scores(100 * max(share, 1 - share))
            n_errors = int((~np.isnan(self.paths.ordered)).sum(axis=0).min())
            if n_errors < needed:
                raise ParameterError(
                    f"{owner}: the quantile {share:g} needs at least {needed} windows to "
                    f"calibrate on, there were {n_errors}; call calibrate with more rows, or ask "
                    f"for one nearer to 0.5"
                )

    def check_reach(self, owner: str, horizon: int, variates: pd.Index) -> None:
        """Raise a ParameterError for steps or variates that were not calibrated."""
        if horizon > self.horizon:
            raise ParameterError(
                f"{owner}: intervals, quantiles and samples are calibrated for {self.horizon} "
                f"steps, got horizon={horizon}; call calibrate(df, horizon={horizon})"
            )
        unknown = [name for name in variates if name not in self.variates]
        if unknown:
            raise ParameterError(
                f"{owner}: intervals, quantiles and samples are calibrated for the fitted "
                f"variates, got {unknown[:10]} as well; leave level=, quantiles= and samples= out"
            )

    def units(self, panel: Panel) -> np.ndarray:
        """Return the size of the errors to expect of each series, shape (S, C)."""
        place = id_places(panel.ids, self.ids)
        columns = self.variates.get_indexer(panel.variates)
        fitted = place >= 0
        unit = self.unit[np.maximum(place, 0)][:, columns]
        if not fitted.all():
            deviation = Scaling.measure(panel.values, panel.offsets, panel.offsets[1:]).scale
            guessed = guessed_units(deviation, self.relative[columns], self.typical[columns])
            unit = np.where(fitted[:, None], unit, guessed)
        return unit

    def margins(self, level: float, panel: Panel, units: np.ndarray, horizon: int) -> np.ndarray:
        """Return how far intervals reach beyond the quantiles, or the point forecast.

        Parameters
        ----------
        level : float
            In percent.
        panel : Panel
            The series.
        units : float array of shape (S, C)
            As :meth:`units` gives them.
        horizon : int

        Returns
        -------
        float array of shape (S, horizon, C)
        """
        columns = self.variates.get_indexer(panel.variates)
        place = id_places(panel.ids, self.ids)
        threshold, other = (
            split_threshold(ordered, self.counts, level)[:horizon, columns]
            for ordered in (self.ordered, self.elsewhere)
        )
        margins = np.where((place >= 0)[:, None, None], threshold, other) * units[:, None]
        if self.levels:
            # A wider level never has the narrower interval.
            wider = self.reach[: self.levels.index(level) + 1].max(axis=0)
            adaptive = wider[np.maximum(place, 0)][:, :horizon, columns]
            adapted = (place >= 0)[:, None, None] & ~np.isnan(adaptive)
            margins = np.where(adapted, adaptive, margins)
        return np.asarray(margins)

    def shifts(
        self, share: float, variates: pd.Index, units: np.ndarray, horizon: int
    ) -> np.ndarray:
        """Return how far a quantile lies above the point forecast, on one side of the truth.

        The truth lies below the quantile in at least so many of the cases, and for shares below
        one half above it in at least the others, if its error could as well have come at any
        other place among those of the calibration.

        Parameters
        ----------
        share : float
            In (0, 1).
        variates : Index of shape (C,)
        units : float array of shape (S, C)
            As :meth:`units` gives them.
        horizon : int

        Returns
        -------
        float array of shape (S, horizon, C)

        References
        ----------
        Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005, section 2.2:
        conformal predictors of one side.
        """
        assert self.paths is not None, "it was checked that there are some"
        ordered = self.paths.ordered
        counts = (~np.isnan(ordered)).sum(axis=0)
        if share >= 0.5:
            shift = split_threshold(ordered, counts, 100 * share)
        else:
            shift = -split_threshold(np.sort(-ordered, axis=0), counts, 100 * (1 - share))
        shift = shift[:horizon, self.variates.get_indexer(variates)]
        return np.asarray(shift * units[:, None])

    def to_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what JSON can hold, and arrays by name."""
        record = {
            "method": self.method,
            "quantiles": self.quantiles,
            "levels": self.levels,
            "ids": encode_index(self.ids),
            "variates": encode_index(self.variates),
            "on_error_scale": self.on_error_scale,
        }
        names = ("unit", "relative", "typical", "ordered", "elsewhere", "counts", "reach")
        arrays = {f"calibration.{name}": getattr(self, name) for name in names}
        if self.paths is not None:
            record["paths"], arrays_of_paths = self.paths.to_state()
            arrays |= {f"error_paths.{name}": array for name, array in arrays_of_paths.items()}
        return record, arrays

    @classmethod
    def from_state(
        cls, record: dict[str, Any], arrays: dict[str, np.ndarray], end: Panel
    ) -> "Calibration":
        """Undo :meth:`to_state`, given the end of the fitted series.

        Raises
        ------
        PersistenceError
            Arrays are missing, or do not fit together.
        """
        pair, levels = record["quantiles"], tuple(record["levels"])
        ids, variates = decode_index(record["ids"]), decode_index(record["variates"])
        if not (variates.equals(end.variates) and ids.is_unique and len(pair or "ab") == 2):
            raise PersistenceError("load: the calibration is not one of the fitted variates")
        counts = check_array(arrays, "calibration.counts", "int64", (None, len(variates)))
        ordered = check_array(
            arrays, "calibration.ordered", "float64", (None, len(counts), len(variates))
        )
        shapes: dict[str, tuple[int, ...]] = {
            "unit": (len(ids), len(variates)),
            "relative": (len(variates),),
            "typical": (len(variates),),
            "elsewhere": ordered.shape,
            "reach": (len(levels), len(ids), len(counts), len(variates)),
        }
        for name, shape in shapes.items():
            check_array(arrays, f"calibration.{name}", "float64", shape)
        if not len(counts) or counts.min() < 0:
            raise PersistenceError("load: the calibration has no scores")
        stored = record.get("paths")
        paths = None if stored is None else ErrorPaths.from_state(stored, arrays, variates)
        return cls(
            method=record["method"],
            quantiles=None if pair is None else (pair[0], pair[1]),
            levels=levels,
            ids=ids,
            variates=variates,
            ordered=ordered,
            counts=counts,
            paths=paths,
            on_error_scale=record.get("on_error_scale", False),
            **{name: arrays[f"calibration.{name}"] for name in shapes},
        )


def guessed_units(deviation: np.ndarray, relative: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Return the size of errors (any, C) that the deviation of a history lets expect.

    Parameters
    ----------
    deviation : float array of shape (any, C)
    relative, typical : float arrays of shape (C,)
        Of the errors: in units of the deviation, and where that says nothing.
    """
    guessed = deviation * relative
    return np.where(np.isfinite(guessed) & (guessed > 0), guessed, typical)
