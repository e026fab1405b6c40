"""Frames of future covariates: what is known of the steps after the end of each series."""

from typing import Any

import numpy as np
import pandas as pd

from tsar.data.faults import as_python
from tsar.data.frames import FrameForm, column_values
from tsar.data.idcolumns import key_columns, labels_of
from tsar.data.libraries import as_pandas
from tsar.data.matching import check_axis, id_places
from tsar.data.panel import Panel
from tsar.data.timeaxis import TimeAxis, read_times
from tsar.exceptions import DataError

__all__ = ["make_future_frame", "read_future"]


def make_future_frame(panel: Panel, names: list[Any], horizon: int) -> pd.DataFrame:
    """Return the steps after each series with empty columns to fill in.

    Parameters
    ----------
    panel : Panel
    names : list of labels
        Columns to make; they hold NaN.
    horizon : int
        Steps after the end of each series.

    Returns
    -------
    DataFrame
        In the form of the data: ids and times, and the columns.
    """
    empty = {name: np.full(panel.n_series * horizon, np.nan) for name in names}
    frame: pd.DataFrame = panel.write(horizon, empty, {})
    return frame


def read_future(
    df: Any, panel: Panel, names: list[Any], horizon: int, reach: int | None = None
) -> dict[Any, np.ndarray]:
    """Find the values of future covariates after the end of each series.

    Parameters
    ----------
    df : DataFrame
        In the form of the data, in any order; further rows and columns are left alone.
    panel : Panel
        The series to forecast.
    names : list of labels
        The future covariates.
    horizon : int
        Steps needed of each series.
    reach : int or None, default None
        Steps read of each series, at least ``horizon``, where the frame goes on beyond it;
        where it does not, the last value stays. None reads no more than needed.

    Returns
    -------
    dict of name to array of shape (S, reach)
        As the frame held them.

    Raises
    ------
    DataError
        A value is missing: names the column, the id, the first stamp that lacks it and
        the range that is needed.
    """
    df = as_pandas(df)
    if not isinstance(df, pd.DataFrame):
        raise DataError(
            f"future must be a DataFrame with the columns {_listed(names)}, got "
            f"{type(df).__name__}; make_future_frame({horizon}) gives one to fill in"
        )
    lacking = [name for name in names if name not in df.columns]
    if lacking:
        raise DataError(
            f"future has no column {lacking[0]!r}, its columns are {_listed(list(df.columns))}; "
            f"make_future_frame({horizon}) gives a frame with the columns to fill in"
        )
    doubled = [name for name in df.columns[df.columns.duplicated()] if name in names]
    if doubled:
        raise DataError(f"future has the column {doubled[0]!r} more than once; drop one of them")
    codes, times = _keys(df, panel, horizon)
    stamps = _stamps(times, panel.axis)
    of_series = codes >= 0
    keys = pd.MultiIndex.from_arrays([codes[of_series], stamps[of_series]])
    if keys.has_duplicates:
        row = np.flatnonzero(of_series)[int(keys.duplicated().argmax())]
        raise DataError(
            f"future has two rows{_series(panel, int(codes[row]))} at "
            f"{panel.axis.show(int(stamps[row]))}; drop one of them"
        )
    steps = horizon if reach is None else reach
    wanted = panel.future_stamps(steps)
    owners = np.repeat(np.arange(panel.n_series), steps)
    place = keys.get_indexer(pd.MultiIndex.from_arrays([owners, wanted.reshape(-1)]))
    rows = np.flatnonzero(of_series)
    values = {}
    for name in names:
        column = column_values(df[name])
        taken = column[rows[np.maximum(place, 0)]] if len(rows) else column[:0]
        missing = (place < 0) | (pd.isna(taken) if len(rows) else True)
        missing = missing.reshape(wanted.shape)
        if missing[:, :horizon].any():
            _raise_missing(panel, name, missing[:, :horizon], wanted[:, :horizon])
        latest = np.maximum.accumulate(np.where(missing, 0, np.arange(steps)), axis=1)
        values[name] = np.take_along_axis(taken.reshape(wanted.shape), latest, axis=1)
    return values


def _keys(df: pd.DataFrame, panel: Panel, horizon: int) -> tuple[np.ndarray, pd.Index]:
    """Return the series of each row, -1 for one that is not forecast, and its time."""
    form: FrameForm = panel.form
    repair = f"make_future_frame({horizon}) gives a frame of the right form"
    if form.kind == "multiindex":
        if df.index.nlevels != 2:
            raise DataError(f"future must have the index (id, time) of the data; {repair}")
        return (
            id_places(df.index.get_level_values(0), panel.ids),
            df.index.get_level_values(1),
        )
    if form.kind == "wide":
        return np.zeros(len(df), dtype=np.int64), df.index
    needed = [*key_columns(form.id_name), form.time_name]
    lacking = [name for name in needed if name not in df.columns]
    if lacking:
        raise DataError(f"future has no column {lacking[0]!r}; {repair}")
    times = pd.Index(df[form.time_name], dtype=df[form.time_name].dtype)
    if form.id_name is None:
        return np.zeros(len(df), dtype=np.int64), times
    labels = labels_of(df, form.id_name)
    return id_places(pd.Index(labels, tupleize_cols=False), panel.ids), times


def _stamps(times: pd.Index, axis: TimeAxis) -> np.ndarray:
    """Read times into the stamps of an axis."""
    if not len(times):
        return np.zeros(0, dtype=np.int64)
    read = read_times(times, axis)
    if read.faults:
        kind, mask = next(iter(read.faults.items()))
        raise DataError(f"future has {int(mask.sum())} rows without a usable time ({kind})")
    check_axis("the time of future", read.axis, axis)
    return axis.stamps_of(read.stamps, read.axis)


def _raise_missing(panel: Panel, name: Any, missing: np.ndarray, wanted: np.ndarray) -> None:
    series = int(missing.any(axis=1).argmax())
    step = int(missing[series].argmax())
    ended = ""
    if panel.last[series] < panel.last.max():
        ended = (
            f"\nid {panel.ids[series]!r} ended before others: tsar.tidy(df, ended='skip') leaves "
            f"such series out"
        )
    raise DataError(
        f"the future covariate {name!r} is missing{_series(panel, series)} from "
        f"{panel.axis.show(int(wanted[series, step]))} on ({int(missing.sum())} missing in all);\n"
        f"needed are all {wanted.shape[1]} steps from {panel.axis.show(int(wanted[series, 0]))} "
        f"to {panel.axis.show(int(wanted[series, -1]))};\n"
        f"fill in the frame that make_future_frame({wanted.shape[1]}) gives and pass it as future="
        f"{ended}"
    )


def _series(panel: Panel, series: int) -> str:
    return f" for id {as_python(panel.ids[series])!r}" if panel.form.has_ids else ""


def _listed(names: list[Any]) -> str:
    return ", ".join(map(repr, names))
