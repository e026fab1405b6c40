"""Forecasts beside their truth, run by run, watched for drift.

Dimension letters: R runs.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsar.evaluation import backtest
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.base import Forecaster
from tsar.forecasting.run_manifest import RunManifest
from tsar.monitoring.inputs import population_stability
from tsar.monitoring.sequential import CoverageTest, ErrorTest

__all__ = ["DriftReport", "watch", "watch_model"]

NEEDED = ("id", "cutoff", "time", "y")
OTHERS = ("variate", "step")
INTERVAL = re.compile(r"(?P<name>.*)_lo(?P<level>\d+(?:\.\d+)?)$")
FURTHER = re.compile(r"_(?:lo|hi|q|sample)\d+(?:\.\d+)?$")
# Fewer values give an index beyond 0.25 by chance in more than one of a hundred cases.
FEWEST_VALUES = 100


@dataclass(frozen=True)
class DriftReport:
    """What was watched, and whether it drifted.

    Attributes
    ----------
    table : DataFrame
        A row for each thing that was watched: ``watch``, its name; ``observed``, the share that
        was covered, the errors of the second half of the runs in those of the first, or the
        index of the inputs; ``evidence`` and the ``limit`` that it alarms at; ``n``, the runs or
        the values; ``drift``; ``since``, the cutoff of the run of the alarm.
    """

    table: pd.DataFrame

    @property
    def drifted(self) -> bool:
        """Whether anything did."""
        return bool(self.table["drift"].any())


def watch(
    forecasts: pd.DataFrame,
    name: str | None = None,
    *,
    manifest: RunManifest | None = None,
    alarm_rate: float = 0.01,
    tolerance: float = 0.05,
    reference: int = 10,
    stability_limit: float = 0.25,
) -> DriftReport:
    """Watch forecasts beside their truth for drifts of coverage, of errors and of the inputs.

    Parameters
    ----------
    forecasts : DataFrame
        As :func:`tsar.evaluation.backtest` returns it: the columns ``id``, ``cutoff``, ``time``,
        ``y`` and those of a model, ``<name>`` and for intervals ``<name>_lo80`` and
        ``<name>_hi80``. All rows of one cutoff are a run. Of runs that overlap in time, the first
        counts: later ones are no independent news.
    name : str or None
        The column of the forecasts; None takes the only one.
    manifest : RunManifest, optional
        Of the model: what ``y`` is distributed as in the training.
    alarm_rate : float
        Of each test, see :class:`CoverageTest` and :class:`ErrorTest`.
    tolerance : float
        See :class:`CoverageTest`.
    reference : int
        Runs at the begin that say how large errors of each series are; those of later runs
        are counted in units of these, and watched.
    stability_limit : float
        The population stability index from which on the inputs have drifted.

    Returns
    -------
    DriftReport

    Raises
    ------
    DataError
        Columns are missing, or there are too few runs.
    ParameterError
        An argument is not usable.

    Examples
    --------
    >>> import tsar
    >>> from tsar.monitoring import watch
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.Drift(horizon=6).fit(sea[:360]).calibrate(sea[:360])
    >>> done = tsar.evaluation.backtest(model, sea[360:], windows=60, level=80)
    >>> watch(done, manifest=model.manifest_).drifted
    False
    """
    if type(reference) is not int or reference < 1:
        raise ParameterError(f"watch: reference must be a number of runs from 1, got {reference!r}")
    frame, name = _checked(forecasts, name)
    frame = frame[frame["y"].notna() & frame[name].notna()]
    runs = _disjoint_runs(frame)
    if len(runs) <= reference:
        raise DataError(
            f"watch: needs more than reference={reference} runs whose times do not overlap, got "
            f"{len(runs)}; wait for more, or lower reference"
        )
    rows = [_errors(runs, name, reference, alarm_rate)]
    for column in frame.columns:
        interval = INTERVAL.fullmatch(str(column))
        if interval and interval["name"] == name:
            test = CoverageTest(float(interval["level"]), alarm_rate, tolerance)
            rows.append(_coverage(runs, name, interval["level"], test))
    if manifest is not None:
        rows += _inputs(frame, manifest, stability_limit)
    return DriftReport(pd.DataFrame(rows))


def watch_model(
    model: Forecaster,
    df: Any,
    *,
    level: float | Sequence[float] | None = None,
    **options: Any,
) -> DriftReport:
    """Watch a fitted model on rows that came after its fit.

    Parameters
    ----------
    model : Forecaster
        Fitted; it is not fitted again.
    df : DataFrame or Series
        Rows after those of the fit. It forecasts them horizon by horizon.
    level : float, sequence of float or None
        Intervals whose coverage is watched, in percent.
    **options
        As :func:`watch` takes them.

    Returns
    -------
    DriftReport

    Raises
    ------
    DataError, ParameterError
        The frame or an argument is not usable.
    """
    model.check_fitted()
    longest = int(model.read_new(df, allow_new_variates=False).lengths.max())
    windows = max(1, longest // model.horizon_)
    done = backtest(model, df, windows=windows, level=level)
    return watch(done, type(model).__name__, **{"manifest": model.manifest_, **options})


def _checked(forecasts: Any, name: str | None) -> tuple[pd.DataFrame, str]:
    """Return the frame with times that can be compared, and the column of the forecasts."""
    if not isinstance(forecasts, pd.DataFrame):
        raise DataError(
            f"watch: forecasts must be a DataFrame such as backtest returns, got "
            f"{type(forecasts).__name__}"
        )
    missing = [column for column in NEEDED if column not in forecasts.columns]
    if missing:
        raise DataError(
            f"watch: forecasts must have the columns {', '.join(NEEDED)}, as backtest returns them "
            f"and `tsar backtest --out` writes them; {', '.join(missing)} missing"
        )
    names = [
        str(column)
        for column in forecasts.columns
        if column not in (*NEEDED, *OTHERS) and not FURTHER.search(str(column))
    ]
    if name is None and len(names) != 1:
        raise ParameterError(
            f"watch: name must say which column holds the forecasts, there are "
            f"{', '.join(names) or 'none'}"
        )
    name = names[0] if name is None else name
    if name not in names:
        raise ParameterError(f"watch: name must be one of {', '.join(names)}, got {name!r}")
    times = {}
    for column in ("cutoff", "time"):
        times[column] = forecasts[column]
        if not pd.api.types.is_numeric_dtype(times[column]):
            try:
                times[column] = pd.to_datetime(times[column], format="ISO8601")
            except (ValueError, TypeError) as error:
                raise DataError(
                    f"watch: the column {column!r} must hold times, or text such as 2024-01-31, "
                    f"got {forecasts[column].iloc[0]!r}: {error}"
                ) from None
    return forecasts.assign(**times), name


def _disjoint_runs(frame: pd.DataFrame) -> list[tuple[Any, pd.DataFrame]]:
    """Return runs in the order of time, cutoff and rows, none of which overlaps the one before."""
    runs: list[tuple[Any, pd.DataFrame]] = []
    end = None
    for cutoff, rows in frame.groupby("cutoff", sort=True):
        if end is None or cutoff > end:
            runs.append((cutoff, rows))
            end = rows["time"].max()
    return runs


def _errors(
    runs: list[tuple[Any, pd.DataFrame]], name: str, reference: int, alarm_rate: float
) -> dict[str, Any]:
    keys = ["id", *(["variate"] if "variate" in runs[0][1].columns else [])]
    sizes = []
    for _, rows in runs:
        sizes.append((rows[name] - rows["y"]).abs().groupby([rows[key] for key in keys]).mean())
    unit = pd.concat(sizes[:reference]).groupby(level=list(range(len(keys)))).mean()
    # A series without errors has no unit, and neither has one that came later.
    unit = unit[unit > 0]
    test = ErrorTest(alarm_rate)
    relative, cutoffs = [], []
    for (cutoff, _), size in zip(runs[reference:], sizes[reference:], strict=True):
        of_run = float((size / unit).mean())
        if math.isfinite(of_run):
            test.update(of_run)
            relative.append(of_run)
            cutoffs.append(cutoff)
    half = len(relative) // 2
    observed = np.mean(relative[half:]) / np.mean(relative[:half]) if half else math.nan
    return _row("errors", float(observed), test, cutoffs)


def _coverage(
    runs: list[tuple[Any, pd.DataFrame]], name: str, level: str, test: CoverageTest
) -> dict[str, Any]:
    low, high = f"{name}_lo{level}", f"{name}_hi{level}"
    if high not in runs[0][1].columns:
        raise DataError(f"watch: forecasts have a column {low!r} and no {high!r}; add it")
    shares, cutoffs = [], []
    for cutoff, rows in runs:
        rows = rows[rows[low].notna() & rows[high].notna()]
        if len(rows):
            covered = (rows["y"] >= rows[low]) & (rows["y"] <= rows[high])
            shares.append(float(covered.mean()))
            cutoffs.append(cutoff)
            test.update(shares[-1])
    return _row(f"coverage {level}", float(np.mean(shares)) if shares else math.nan, test, cutoffs)


def _row(
    name: str, observed: float, test: CoverageTest | ErrorTest, cutoffs: list[Any]
) -> dict[str, Any]:
    return {
        "watch": name,
        "observed": observed,
        "evidence": test.evidence,
        "limit": 1 / test.alarm_rate,
        "n": test.n_runs,
        "drift": test.alarm_at is not None,
        "since": "" if test.alarm_at is None else str(cutoffs[test.alarm_at]),
    }


def _inputs(frame: pd.DataFrame, manifest: RunManifest, limit: float) -> list[dict[str, Any]]:
    """Return a row for each variate, of values at distinct times."""
    several = "variate" in frame.columns
    keys = ["id", "time", *(["variate"] if several else [])]
    values = frame.drop_duplicates(keys)
    # In the order of the fit, which that of a backtest is.
    parts = (
        [(str(name), rows) for name, rows in values.groupby("variate", sort=False)]
        if several
        else [("y", values)]
    )
    if len(parts) != len(manifest.reference):
        raise DataError(
            f"watch: the model was fitted on {len(manifest.reference)} variates, the forecasts "
            f"have {len(parts)}; pass the manifest of the model that made them"
        )
    rows = []
    for (name, part), bins in zip(parts, manifest.reference, strict=True):
        index = population_stability(bins.shares, bins.shares_of(part["y"].to_numpy(float)))
        enough = len(part) >= FEWEST_VALUES
        rows.append(
            {
                "watch": f"inputs {name}",
                "observed": index,
                "evidence": index,
                "limit": limit,
                "n": len(part),
                "drift": enough and index > limit,
                "since": "",
            }
        )
    return rows
