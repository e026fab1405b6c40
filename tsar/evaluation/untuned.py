"""Models as they come, on data of many kinds: what their defaults are worth.

Each panel has a horizon and a rolling origin: models are fitted once on what is before the first
window, with nothing set but the horizon, the columns and the seed, and forecast all windows.
Nothing of the windows enters a choice.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.datasets import load_dataset
from tsar.evaluation.comparison import compare
from tsar.exceptions import DataError
from tsar.forecasting.base import Forecaster
from tsar.forecasting.registry import forecaster_class
from tsar.params.constraints import check_choice, check_count
from tsar.progress import progress

__all__ = ["PANELS", "UntunedPanel", "relative_errors", "untuned"]

QUANTILES = (0.1, 0.5, 0.9)
METRICS = ("mase", "scaled_quantile_loss")
# Five weeks of hours.
SHORT_ROWS = 840


@dataclass(frozen=True)
class UntunedPanel:
    """Data to judge defaults by.

    Attributes
    ----------
    read : callable
        Returns a long frame with the columns ``id``, ``time`` and ``value``.
    horizon : int
    files : tuple of str
        What it reads below the folder TSAR_DATA; none for what comes with tsar.
    step : int or None
        Rows from one window to the next; None takes the horizon.
    windows : int
        Origins at the end of every series: more of them where there is one series.
    """

    read: Callable[[], pd.DataFrame]
    horizon: int
    files: tuple[str, ...] = ()
    step: int | None = None
    windows: int = 3

    @property
    def missing(self) -> list[str]:
        """Those of its files that are not on this machine."""
        return [file for file in self.files if not _path(file).is_file()]


def _path(file: str) -> Path:
    return Path(os.environ.get("TSAR_DATA", "")) / file


def _long(file: str, time: str, value: str, ids: Sequence[str] = (), **how: Any) -> pd.DataFrame:
    """Read a file of long form, several id columns as one."""
    frame = pd.read_csv(_path(file))
    names = frame[list(ids)].astype(str).agg("/".join, axis=1) if ids else "all"
    stamps: Any = frame[time]
    if how.pop("quarters", False):
        stamps = pd.PeriodIndex(stamps.str.replace(" ", ""), freq="Q").to_timestamp()
    long = pd.DataFrame(
        {"id": names, "time": pd.to_datetime(stamps, **how), "value": frame[value].astype(float)}
    )
    return long.sort_values(["id", "time"], ignore_index=True)


def _melted(name: str) -> pd.DataFrame:
    """Return a data set with a card, each of its columns as a series of its own."""
    frame = load_dataset(name).rename_axis("time").reset_index()
    return frame.melt("time", var_name="id", value_name="value")[["id", "time", "value"]]


def _short_hours() -> pd.DataFrame:
    """Return load, prices and the columns of ETT, each cut into series of five weeks of hours."""
    parts = [_melted(name).assign(source=name) for name in ("ETTh1", "ETTh2")]
    for name in ("load", "prices"):
        whole = PANELS[name].read()
        stamps = whole["time"].dt.tz_localize(None)
        parts.append(whole.assign(time=stamps, source=name))
    frame = pd.concat(parts, ignore_index=True)
    series = frame["source"] + "/" + frame["id"].astype(str)
    # Counted from the end, so that all pieces are whole.
    left = frame.groupby(series, sort=False).cumcount(ascending=False)
    pieces = series + "/" + (left // SHORT_ROWS).astype(str)
    frame = frame.assign(id=pieces)[["id", "time", "value"]]
    return frame[frame.groupby("id")["id"].transform("size") == SHORT_ROWS].reset_index(drop=True)


def _dataset(name: str, horizon: int, *files: str, windows: int = 3) -> UntunedPanel:
    return UntunedPanel(lambda: _melted(name), horizon, files, windows=windows)


def _file(
    file: str, horizon: int, *columns: Any, step: int | None = None, windows: int = 3, **how: Any
) -> UntunedPanel:
    path = f"panels/{file}"
    return UntunedPanel(lambda: _long(path, *columns, **how), horizon, (path,), step, windows)


PANELS: Mapping[str, UntunedPanel] = {
    "load": _file("pjm_load_hourly.csv", 48, "ds", "y", ["unique_id"], step=168, utc=True),
    "prices": _file("electricity_prices_hourly.csv", 24, "ds", "y", ["unique_id"], step=84),
    "sales": _file("m5_sales_small.csv", 28, "ds", "y", ["unique_id"]),
    "tourism": _file(
        "tourism.csv", 8, "Quarter", "Trips", ["Region", "State", "Purpose"], quarters=True
    ),
    "gasoline": _file(
        "us_gasoline_weekly.csv", 13, "Week", "Gasoline", windows=10, format="%m/%d/%Y"
    ),
    # Many series, each of them short.
    "short_hours": UntunedPanel(
        _short_hours,
        48,
        (
            *("ETT-small/ETTh1.csv", "ETT-small/ETTh2.csv"),
            *("panels/pjm_load_hourly.csv", "panels/electricity_prices_hourly.csv"),
        ),
        windows=1,
    ),
    "elnino": _dataset("elnino", 12, windows=10),
    "co2": _dataset("co2", 13, windows=10),
    "ETTh1": _dataset("ETTh1", 96, "ETT-small/ETTh1.csv"),
    "ETTh2": _dataset("ETTh2", 96, "ETT-small/ETTh2.csv"),
    "exchange_rate": _dataset("exchange_rate", 96, "exchange_rate/exchange_rate.csv"),
}


def untuned(
    models: Sequence[str],
    panels: Sequence[str] | None = None,
    *,
    seeds: Sequence[int] = (0,),
    windows: int | None = None,
    params: Mapping[str, Any] | None = None,
    verbose: int = 0,
) -> pd.DataFrame:
    """Fit models with their defaults, and measure their forecasts.

    Parameters
    ----------
    models : sequence of str
        Names of forecasters.
    panels : sequence of str or None
        Among :data:`PANELS`; None takes those whose files are below the folder TSAR_DATA.
    seeds : sequence of int
        One fit for each; a model without a seed is fitted once.
    windows : int or None
        Origins at the end of every series; None takes those of each panel.
    params : mapping of str to object or None
        What is set all the same, in the models that have it.
    verbose : int
        1 shows a bar.

    Returns
    -------
    DataFrame
        A row for each panel, model and seed: ``mase``, ``scaled_quantile_loss`` over the
        quantiles 0.1, 0.5 and 0.9, ``fit_seconds`` and ``status``.

    Raises
    ------
    ParameterError
        A name is none of those that there are.
    DataError
        The file of a panel that was asked for is not there.
    """
    for name in panels or ():
        check_choice("untuned", "panels", name, PANELS)
        if PANELS[name].missing:
            raise DataError(
                f"untuned: {name} is read from {PANELS[name].missing[0]} below the folder "
                f"TSAR_DATA, which has no such file; set TSAR_DATA, or leave the panel out"
            )
    if windows is not None:
        check_count("untuned", "windows", windows)
    classes, stated = {name: forecaster_class(name) for name in models}, dict(params or {})
    names = list(panels or [name for name, panel in PANELS.items() if not panel.missing])
    rows: list[pd.DataFrame] = []
    with progress(shown=verbose >= 1, total=len(names), desc="untuned", unit="panel") as bar:
        for name in names:
            panel = PANELS[name]
            frame = panel.read()
            if len(frame["id"].unique()) == 1:
                frame = frame.drop(columns="id")
            for seed in seeds:
                named = _named(classes, frame, panel.horizon, seed, first=seed == seeds[0])
                for one in named.values():
                    has = one.get_params(deep=False)
                    one.set_params(**{key: own for key, own in stated.items() if key in has})
                if named:
                    rows.append(_measured(name, named, frame, panel, seed, windows))
            bar.update()
    return pd.concat(rows, ignore_index=True)


def _named(
    classes: dict[str, Any], frame: pd.DataFrame, horizon: int, seed: int, first: bool
) -> dict[str, Forecaster]:
    """Return the models that a seed makes a difference for, all of them for the first one."""
    columns = {"time_column": "time", "target": "value"}
    if "id" in frame:
        columns["id_column"] = "id"
    made: dict[str, Forecaster] = {}
    for name, cls in classes.items():
        seeded = "random_state" in cls().get_params(deep=False)
        if first or seeded:
            own = {"random_state": seed} if seeded else {}
            made[name] = cls(horizon=horizon, **columns, **own)
    return made


def _measured(
    name: str,
    models: dict[str, Forecaster],
    frame: pd.DataFrame,
    panel: UntunedPanel,
    seed: int,
    windows: int | None,
) -> pd.DataFrame:
    board = compare(
        models,
        frame,
        metrics=list(METRICS),
        windows=windows or panel.windows,
        step=panel.step or panel.horizon,
        quantiles=list(QUANTILES),
        # Those that learn no quantiles are calibrated.
        level=80,
        n_resamples=1,
    )
    table = board.frame[["model", *METRICS, "fit_seconds", "status"]]
    table = table[table["model"].isin(models)]
    return table.assign(panel=name, seed=seed)[["panel", "model", "seed", *table.columns[1:]]]


def relative_errors(table: pd.DataFrame, baseline: str = "SeasonalNaive") -> pd.DataFrame:
    """Return errors by those of a baseline on the same panel, means over the seeds.

    Parameters
    ----------
    table : DataFrame
        As :func:`untuned` returns it.
    baseline : str
        One of its models.

    Returns
    -------
    DataFrame
        A row for each model, by its geometric mean over the panels: that mean of MASE and of the
        quantile loss, and MASE on each panel.
    """
    means = table.groupby(["model", "panel"], sort=False)[list(METRICS)].mean()
    ratios = means / means.xs(baseline, level="model").reindex(means.index, level="panel")
    logs: Any = np.log(ratios)
    overall = np.exp(logs.groupby(level="model").mean())
    wide = ratios["mase"].unstack("panel")
    wide = wide[list(dict.fromkeys(table["panel"]))]
    return overall.join(wide).sort_values("mase")
