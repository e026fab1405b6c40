"""The frames users have, read into rows of one shape and written back in their own form.

Four forms are understood, and a forecast comes back in the form the data had:

wide
    A time index and a column per variate.
long
    Columns for the series id, the time and one or more targets.
multiindex
    The same with (id, time) as the index.
series
    A ``Series`` with a time index (or an (id, time) index).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api import types as dtypes

from tsar.data.frequency import TimeAxis
from tsar.exceptions import DataError

__all__ = ["FrameForm", "Rows", "read_rows", "read_times", "write_frame"]

ID, TIME, TARGET = "unique_id", "ds", "y"


@dataclass(frozen=True)
class FrameForm:
    """How a frame was laid out.

    Parameters
    ----------
    kind : {"wide", "long", "multiindex"}
        The layout.
    squeeze : bool
        Whether it was a Series.
    id_name, time_name : label or None
        Names of the id and time columns or index levels; ``id_name`` is None where the
        frame holds one series and does not name it.
    columns_name : label or None
        Name of the column index.
    dtypes : tuple of str
        The dtype of each variate.
    """

    kind: Literal["wide", "long", "multiindex"]
    squeeze: bool = False
    id_name: Any = None
    time_name: Any = None
    columns_name: Any = None
    dtypes: tuple[str, ...] = ()

    @property
    def has_ids(self) -> bool:
        """Whether several series can be told apart by their id."""
        return self.kind == "multiindex" or (self.kind == "long" and self.id_name is not None)


@dataclass(frozen=True)
class Rows:
    """A frame taken apart, before any check of its calendar.

    Parameters
    ----------
    form : FrameForm
        What to give back.
    ids : Index of shape (S,)
        In the order of first appearance.
    codes : int64 array of shape (rows,)
        The series of each row, -1 where the id is missing.
    times : Index of shape (rows,)
        As found in the frame.
    variates : Index of shape (C,)
        Names of the targets.
    values : float array of shape (rows, C)
        NaN where missing; a view of the frame where that is possible.
    not_numeric : bool array of shape (rows,) or None
        Rows whose target is not a number.
    covariates : dict of role to dict of name to array of shape (rows,)
        The columns declared as past, future and static covariates.
    """

    form: FrameForm
    ids: pd.Index
    codes: np.ndarray
    times: pd.Index
    variates: pd.Index
    values: np.ndarray
    not_numeric: np.ndarray | None = None
    covariates: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def read_rows(
    df: Any,
    *,
    id_column: str | None,
    time_column: str | None,
    target: str | Sequence[str] | None,
    covariates: dict[str, Sequence[str]],
) -> Rows:
    """Find the form of a frame and take it apart.

    Parameters
    ----------
    df : DataFrame or Series
        In one of the four forms.
    id_column, time_column : str or None
        Names in a long frame; None looks for ``unique_id`` and ``ds``.
    target : str, sequence of str or None
        Columns to forecast; None takes ``y`` of a long frame and every column of a wide
        or MultiIndex frame that has no other role.
    covariates : dict of role to column names
        Roles "past", "future" and "static".

    Raises
    ------
    DataError
        The frame is in none of the forms, or a named column is missing.
    """
    if isinstance(df, pd.Series):
        return _read_series(df)
    if not isinstance(df, pd.DataFrame):
        raise DataError(
            f"the data must be a pandas DataFrame or Series, got {type(df).__name__}; "
            f"wrap it in one with a time index"
        )
    if df.columns.has_duplicates:
        doubled = df.columns[df.columns.duplicated()][0]
        raise DataError(f"column {doubled!r} occurs more than once; rename or drop one of them")
    if isinstance(df.index, pd.MultiIndex):
        return _read_multiindex(df, target, covariates)
    if time_column is not None or id_column is not None or TIME in df.columns:
        return _read_long(df, id_column, time_column, target, covariates)
    return _read_wide(df, target, covariates)


def _read_series(series: pd.Series) -> Rows:
    named = isinstance(series.index, pd.MultiIndex)
    frame = series.to_frame(series.name if named and series.name is not None else TARGET)
    read = _read_multiindex if named else _read_wide
    rows = read(frame, None, {})
    form = replace(rows.form, squeeze=True, columns_name=None)
    # A plain Series is one series and its name is the id: another name is another series.
    ids = rows.ids if named else pd.Index([series.name], dtype=object)
    return replace(rows, form=form, ids=ids)


def _read_wide(
    df: pd.DataFrame, target: Any, covariates: dict[str, Sequence[str]]
) -> Rows:
    index = df.index
    if isinstance(index, pd.RangeIndex) or not dtypes.is_numeric_dtype(index.dtype):
        looks_like_time = [
            name for name in df.columns if isinstance(name, str) and not _is_number(df[name].dtype)
        ]
        if isinstance(index, pd.RangeIndex) and looks_like_time:
            name = looks_like_time[0]
            raise DataError(
                f"the frame has no time index and its column {name!r} is not numeric; if that "
                f"column holds the time, use df.set_index({name!r}) or pass time_column={name!r}"
            )
    elif dtypes.is_float_dtype(index.dtype) or dtypes.is_bool_dtype(index.dtype):
        raise DataError(
            f"a wide frame needs a time index (DatetimeIndex, PeriodIndex, integers or "
            f"parsable strings), got an index of dtype {index.dtype}"
        )
    names, values, bad = _targets(df, target, covariates, taken=[])
    form = FrameForm(
        "wide",
        time_name=index.name,
        columns_name=df.columns.name,
        dtypes=tuple(str(df[name].dtype) for name in names),
    )
    return Rows(
        form,
        pd.Index([None], dtype=object),
        np.zeros(len(df), dtype=np.int64),
        index,
        names,
        values,
        bad,
        _covariates(df, covariates),
    )


def _read_long(
    df: pd.DataFrame,
    id_column: str | None,
    time_column: str | None,
    target: Any,
    covariates: dict[str, Sequence[str]],
) -> Rows:
    time_name = TIME if time_column is None else time_column
    _require(df, [time_name], "time_column")
    id_name = id_column if id_column is not None else (ID if ID in df.columns else None)
    taken = [time_name] if id_name is None else [id_name, time_name]
    if id_name is None:
        ids, codes = pd.Index([None], dtype=object), np.zeros(len(df), dtype=np.int64)
        wide = target is None and TARGET not in df.columns
    else:
        _require(df, [id_name], "id_column")
        codes, ids = _factorize(df[id_name])
        wide = False
        if target is None:
            others = [name for name in df.columns if name not in taken]
            target = TARGET if TARGET in df.columns or len(others) != 1 else others[0]
    if target is None and not wide:
        target = TARGET
    names, values, bad = _targets(df, target, covariates, taken)
    form = FrameForm(
        "long",
        id_name=id_name,
        time_name=time_name,
        columns_name=df.columns.name,
        dtypes=tuple(str(df[name].dtype) for name in names),
    )
    times = pd.Index(df[time_name])
    return Rows(form, ids, codes, times, names, values, bad, _covariates(df, covariates))


def _read_multiindex(
    df: pd.DataFrame, target: Any, covariates: dict[str, Sequence[str]]
) -> Rows:
    if df.index.nlevels != 2:
        raise DataError(
            f"a MultiIndex frame needs the two levels (id, time), got {df.index.nlevels} levels; "
            f"use df.reset_index() and pass id_column= and time_column="
        )
    codes, ids = _factorize(df.index.get_level_values(0))
    names, values, bad = _targets(df, target, covariates, taken=[])
    form = FrameForm(
        "multiindex",
        id_name=df.index.names[0],
        time_name=df.index.names[1],
        columns_name=df.columns.name,
        dtypes=tuple(str(df[name].dtype) for name in names),
    )
    times = df.index.get_level_values(1)
    return Rows(form, ids, codes, times, names, values, bad, _covariates(df, covariates))


def _factorize(ids: Any) -> tuple[np.ndarray, pd.Index]:
    codes, uniques = pd.factorize(ids)
    return codes.astype(np.int64, copy=False), pd.Index(uniques)


def _require(df: pd.DataFrame, names: Sequence[Any], parameter: str) -> None:
    missing = [name for name in names if name not in df.columns]
    if missing:
        raise DataError(
            f"{parameter}: the frame has no column {missing[0]!r}; its columns are "
            f"{', '.join(map(repr, df.columns[:20]))}"
        )


def _is_number(dtype: Any) -> bool:
    return dtypes.is_numeric_dtype(dtype) and not dtypes.is_bool_dtype(dtype)


def _targets(
    df: pd.DataFrame, target: Any, covariates: dict[str, Sequence[str]], taken: list[Any]
) -> tuple[pd.Index, np.ndarray, np.ndarray | None]:
    """Return the names of the target columns, their values and the rows without a number."""
    declared = [name for names in covariates.values() for name in names]
    if target is None:
        names = [name for name in df.columns if name not in declared and name not in taken]
        if not names:
            raise DataError("the frame has no column to forecast; add one, or name it by target=")
    else:
        names = list(target) if isinstance(target, list | tuple) else [target]
        _require(df, names, "target")
        both = [name for name in names if name in declared]
        if both:
            raise DataError(f"column {both[0]!r} is declared both as target and as covariate")
    frame = df if len(names) == len(df.columns) else df[names]
    if all(isinstance(dtype, np.dtype) and dtype.kind == "f" for dtype in frame.dtypes):
        return frame.columns, frame.to_numpy(), None
    values = np.empty((len(df), len(names)))
    bad = np.zeros(len(df), dtype=bool)
    for column, name in enumerate(names):
        values[:, column], wrong = _numbers(df[name])
        bad |= wrong
    return pd.Index(names, name=df.columns.name), values, bad if bad.any() else None


def _numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return a column as float64 and which rows hold something that is not a number."""
    if _is_number(column.dtype) and not dtypes.is_complex_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), dtype=bool)
    given = column.notna().to_numpy()
    if dtypes.is_object_dtype(column.dtype):
        plain = [isinstance(v, int | float) and not isinstance(v, bool) for v in column]
        wrong = given & ~np.array(plain, dtype=bool)
        return pd.to_numeric(column.where(~wrong), errors="coerce").to_numpy(np.float64), wrong
    return np.full(len(column), np.nan), given


def _covariates(
    df: pd.DataFrame, covariates: dict[str, Sequence[str]]
) -> dict[str, dict[str, np.ndarray]]:
    for role, names in covariates.items():
        _require(df, names, f"{role}_covariates")
    return {
        role: {name: df[name].to_numpy() for name in names}
        for role, names in covariates.items()
        if names
    }


def read_times(times: pd.Index) -> tuple[np.ndarray, np.ndarray | None, TimeAxis]:
    """Read a time column.

    Parameters
    ----------
    times : Index of shape (rows,)
        Timestamps of any resolution and zone, periods, integers, or strings.

    Returns
    -------
    stamps : int64 array of shape (rows,)
        In the unit of the axis.
    unparsable : bool array of shape (rows,) or None
        True where there is no time.
    axis : TimeAxis
        How to write such times again.

    Raises
    ------
    DataError
        The column holds something else, or several time zones.
    """
    if isinstance(times, pd.PeriodIndex):
        axis = TimeAxis("period", dtype=f"period[{times.freqstr}]")
        return np.asarray(times.asi8), _any(times.isna()), axis
    if isinstance(times, pd.DatetimeIndex):
        axis = TimeAxis("timestamp", times.unit, times.tz)
        return np.asarray(times.asi8), _any(times.isna()), axis
    if dtypes.is_integer_dtype(times.dtype) and isinstance(times.dtype, np.dtype):
        axis = TimeAxis("integer", dtype=str(times.dtype))
        return times.to_numpy().astype(np.int64, copy=False), None, axis
    text = dtypes.is_string_dtype(times.dtype) or dtypes.is_object_dtype(times.dtype)
    if isinstance(times, pd.CategoricalIndex) or not text:
        if isinstance(times, pd.CategoricalIndex):
            return read_times(times.astype(times.categories.dtype))
        raise DataError(
            f"the time column must hold timestamps, periods, integers or strings, got dtype "
            f"{times.dtype}; convert it with pd.to_datetime"
        )
    return _read_text(times)


def _read_text(times: pd.Index) -> tuple[np.ndarray, np.ndarray | None, TimeAxis]:
    given = times[times.notna()]
    first = given[0] if len(given) else None
    if isinstance(first, pd.Period):
        return read_times(pd.PeriodIndex(times))
    style = None
    if isinstance(first, str):
        style = pd.tseries.api.guess_datetime_format(first)
    try:
        parsed = pd.DatetimeIndex(pd.to_datetime(times, errors="coerce", format=style))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"the time column cannot be read: {error}. Strings or objects of several time zones "
            f"are read with df[time] = pd.to_datetime(df[time], utc=True)"
        ) from None
    if isinstance(first, str) and style is None and parsed.isna().all():
        raise DataError(
            f"the time column holds text that is no time, for example {first!r}; convert it with "
            f"pd.to_datetime(..., format=...)"
        )
    axis = TimeAxis("timestamp", parsed.unit, parsed.tz, text=style)
    return np.asarray(parsed.asi8), _any(parsed.isna()), axis


def _any(mask: np.ndarray) -> np.ndarray | None:
    return np.asarray(mask) if mask.any() else None


def write_frame(
    form: FrameForm,
    ids: pd.Index,
    times: pd.Index,
    columns: dict[Any, np.ndarray],
    marks: dict[str, np.ndarray],
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
        Further columns; a Series, which has none, leaves them out.

    Returns
    -------
    DataFrame or Series
    """
    horizon = len(times) // max(len(ids), 1)
    if form.squeeze and len(columns) == 1:
        (values,) = columns.values()
        if form.kind == "wide":
            index = times.rename(form.time_name)
            return pd.Series(values, index=index, name=ids[0])
        (name,) = columns
        return pd.Series(values, index=_pairs(form, ids, times, horizon), name=name)
    content = {**columns, **marks}
    if form.kind == "long":
        keys = {} if form.id_name is None else {form.id_name: ids.repeat(horizon)}
        frame = pd.DataFrame({**keys, form.time_name: times, **content})
    else:
        index = times if form.kind == "wide" else _pairs(form, ids, times, horizon)
        frame = pd.DataFrame(content, index=index)
        if form.kind == "wide":
            frame.index.name = form.time_name
    frame.columns.name = form.columns_name
    return frame


def _pairs(form: FrameForm, ids: pd.Index, times: pd.Index, horizon: int) -> pd.MultiIndex:
    names = [form.id_name, form.time_name]
    return pd.MultiIndex.from_arrays([ids.repeat(horizon), times], names=names)
