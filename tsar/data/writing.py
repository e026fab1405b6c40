"""Forecasts written in the form that the data had."""

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from pandas.arrays import NumpyExtensionArray

from tsar.data.dtypes import dtype_called
from tsar.data.frames import TARGET, FrameForm
from tsar.data.idcolumns import parts_of

__all__ = ["write_frame"]


def write_frame(
    form: FrameForm,
    ids: pd.Index,
    times: pd.Index,
    columns: dict[Any, Any],
    marks: dict[str, np.ndarray],
    may_squeeze: bool = True,
) -> Any:
    """Write forecasts in the form the data had.

    Parameters
    ----------
    form : FrameForm
        The layout.
    ids : Index of shape (S,)
        Series to write.
    times : Index of shape (S * H,)
        Stamps, series by series.
    columns : dict of name to array of shape (S * H,)
        Forecast columns in the order to write.
    marks : dict of name to array of shape (S * H,)
        Further columns; a Series, which has none, leaves them out. A mark whose name is
        taken by a column of the data gets an underscore at its end.
    may_squeeze : bool
        Whether a Series comes back where there was one.

    Returns
    -------
    DataFrame or Series
    """
    horizon = len(times) // max(len(ids), 1)
    if form.kind == "wide":
        times = _with_freq(times, form.freq)
    if form.squeeze and may_squeeze and len(columns) == 1:
        ((name, values),) = columns.items()
        if form.kind == "wide":
            return pd.Series(values, index=times.rename(form.time_name), name=ids[0])
        return pd.Series(values, index=_pairs(form, ids, times, horizon), name=name)
    content = dict(columns)
    if form.squeeze and form.kind == "wide" and isinstance(ids[0], str):
        # The only variate of a Series is called "y" within; its name is the id.
        content = {ids[0] + str(name)[len(TARGET) :]: column for name, column in columns.items()}
    keys: dict[Any, Any] = {}
    if form.kind == "long":
        if isinstance(form.id_name, list):
            keys |= parts_of(ids.repeat(horizon), form.id_name, form.id_dtypes)
        elif form.id_name is not None:
            keys[form.id_name] = ids.repeat(horizon)
        keys[form.time_name] = times.copy(deep=True)
    for name, mark in marks.items():
        while name in content or name in keys:
            name = f"{name}_"
        content[name] = mark
    if form.kind == "long":
        # Several columns may be one array, and must not be in the frame; ids and times are its own.
        content = {name: column.copy() for name, column in content.items()}
        frame = pd.DataFrame({**keys, **content}, copy=False)
    else:
        index = times if form.kind == "wide" else _pairs(form, ids, times, horizon)
        frame = _beside_each_other(content, index)
        if form.kind == "wide":
            frame.index.name = form.time_name
    labels = tuple((type(label), label) for label in (*keys, *content))
    frame.columns = _labelled(labels, form.columns_dtype).rename(form.columns_name)
    return frame


def _beside_each_other(content: dict[Any, Any], index: pd.Index) -> pd.DataFrame:
    """Return a frame of columns, which may be arrays that share their memory."""
    columns = list(content.values())
    same = all(column.dtype == columns[0].dtype for column in columns)
    if same and isinstance(columns[0], NumpyExtensionArray):
        # One block costs a sixth of what as many columns do.
        return pd.DataFrame(np.array([column.to_numpy() for column in columns]).T, index=index)
    return pd.DataFrame(content, index=index)


# The same few labels are written with every forecast; 1 and True are equal, but not of one type.
@lru_cache(maxsize=64)
def _labelled(typed_labels: tuple[tuple[type, Any], ...], dtype: str) -> pd.Index:
    """Return labels as an index of a dtype if it can hold all of them as they are, else of objects.

    New labels are text, also beside those that are numbers, times or truth values.
    """
    labels = [label for _, label in typed_labels]
    objects = pd.Index(labels, dtype=object, tupleize_cols=False)
    if dtype in ("object", "category"):
        return objects
    try:
        index = pd.Index(labels, dtype=dtype_called(dtype), tupleize_cols=False)
    except (TypeError, ValueError):
        return objects
    return index if list(index) == labels else objects


def _with_freq(times: pd.Index, freq: Any) -> pd.Index:
    """Let an index state its frequency, where pandas agrees that it has it."""
    if freq is None or not isinstance(times, pd.DatetimeIndex):
        return times
    try:
        # Half as dear as to let pandas infer the frequency and compare.
        ranged = pd.date_range(times[0], periods=len(times), freq=freq, unit=times.unit)
    except ValueError:
        return times
    # pandas 2 takes days for 24 hours, which the clock changes break.
    return ranged if np.array_equal(ranged.asi8, times.asi8) else times


def _pairs(form: FrameForm, ids: pd.Index, times: pd.Index, horizon: int) -> pd.MultiIndex:
    names = [form.id_name, form.time_name]
    return pd.MultiIndex.from_arrays([ids.repeat(horizon), times], names=names)
