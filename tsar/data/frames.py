"""The frames users have, read into rows of one shape.

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

import decimal
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import pandas as pd
from pandas.api import types as dtypes

from tsar.data.dtypes import dtype_name
from tsar.data.idcolumns import factorized, key_columns, labels_of
from tsar.data.libraries import PANDAS, FrameLibrary, LibraryRecord, as_pandas, library_of
from tsar.data.timeaxis import AmbiguousDates, read_times
from tsar.exceptions import DataError

__all__ = [
    "FrameForm",
    "Rows",
    "column_values",
    "holds_times",
    "read_rows",
    "require_columns",
]

ID, TIME, TARGET = "unique_id", "ds", "y"
NAMES_SHOWN = 20
# What pandas calls objects that are numbers, some of which may be missing.
OBJECT_NUMBERS = {"boolean", "integer", "floating", "mixed-integer-float", "decimal"}


class FormRecord(TypedDict):
    """A :class:`FrameForm` as JSON; earlier versions left some of it out."""

    kind: Literal["wide", "long", "multiindex"]
    squeeze: bool
    id_name: Any
    time_name: Any
    columns_name: Any
    columns_dtype: str
    dtypes: list[str]
    freq: NotRequired[Any]
    id_dtypes: NotRequired[list[str]]
    library: NotRequired[LibraryRecord]


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
        frame holds one series and does not name it, and a list where several columns are
        the id, whose values are then tuples.
    columns_name : label or None
        Name of the column index.
    columns_dtype : str
        Its dtype.
    dtypes : tuple of str
        The dtype of each variate.
    freq : pandas offset or None
        What the index of a wide frame stated as its frequency.
    id_dtypes : tuple of str
        The dtypes of the columns of the id, where there are several.
    library : FrameLibrary
        Whose frame it was, and the types of ids and times in other libraries than pandas.
    """

    kind: Literal["wide", "long", "multiindex"]
    squeeze: bool = False
    id_name: Any = None
    time_name: Any = None
    columns_name: Any = None
    columns_dtype: str = "object"
    dtypes: tuple[str, ...] = ()
    freq: Any = None
    id_dtypes: tuple[str, ...] = ()
    library: FrameLibrary = PANDAS

    @property
    def has_ids(self) -> bool:
        """Whether several series can be told apart by their id."""
        return self.kind == "multiindex" or (self.kind == "long" and self.id_name is not None)

    @property
    def word(self) -> str:
        """What a user calls such data."""
        return "the Series" if self.squeeze else "the frame"


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
    not_numeric : dict of name to bool array of shape (rows,)
        Where a target holds something that is not a number.
    covariates : dict of role to dict of name to array of shape (rows,)
        The columns declared as past, future and static covariates.
    weight : float array of shape (rows,) or None
        How much each row counts.
    """

    form: FrameForm
    ids: pd.Index
    codes: np.ndarray
    times: pd.Index
    variates: pd.Index
    values: np.ndarray
    not_numeric: dict[Any, np.ndarray] = field(default_factory=dict)
    covariates: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    weight: np.ndarray | None = None


def read_rows(
    df: Any,
    *,
    id_column: Any = None,
    time_column: Any = None,
    target: Any = None,
    covariates: Mapping[str, Sequence[Any]] | None = None,
) -> Rows:
    """Find the form of a frame and take it apart.

    Parameters
    ----------
    df : DataFrame or Series
        In one of the four forms; of other libraries than pandas, long or with a column of times.
    id_column, time_column : label or None
        Names in a long frame; None looks for ``unique_id`` and ``ds``. A list of columns
        is one id of several parts.
    target : label, sequence of labels or None
        Columns to forecast; None takes ``y`` of a long frame and every column of a wide
        or MultiIndex frame that has no other role.
    covariates : dict of role to column names
        Roles "past", "future" and "static".

    Raises
    ------
    DataError
        The frame is in none of the forms, or a named column is missing.
    """
    roles = {} if covariates is None else dict(covariates)
    frame = as_pandas(df)
    if frame is not df:
        return _read_foreign(df, frame, id_column, time_column, target, roles)
    if isinstance(df, pd.Series):
        for role, names in roles.items():
            if names:
                raise DataError(
                    f"{role}_covariates: a Series has no column {names[0]!r}; pass a DataFrame "
                    f"with the target and the covariates"
                )
        return _read_series(df)
    if not isinstance(df, pd.DataFrame):
        raise DataError(
            f"the data must be a pandas DataFrame or Series, a polars DataFrame or a pyarrow "
            f"Table, got {type(df).__name__}; wrap it in one with a time index or column"
        )
    _check_columns(df, roles)
    if isinstance(df.index, pd.MultiIndex):
        return _read_multiindex(df, target, roles)
    named = time_column is not None and time_column not in df.columns
    if named and id_column is None and time_column == df.index.name:
        return _read_wide(df, target, roles)
    is_named = time_column is not None or id_column is not None
    if is_named or TIME in df.columns or ID in df.columns:
        return _read_long(df, id_column, time_column, target, roles)
    return _read_wide(df, target, roles)


def _read_foreign(
    df: Any,
    frame: pd.DataFrame,
    id_column: Any,
    time_column: Any,
    target: Any,
    roles: dict[str, Sequence[Any]],
) -> Rows:
    """Read a frame of another library, given as one of pandas as well; it has no index."""
    _check_columns(frame, roles)
    if time_column is None and id_column is None and not {ID, TIME} & set(frame.columns):
        raise DataError(
            f"the frame has no index, and no column {TIME!r} of times; name the column of the "
            f"times by time_column= (and of the ids, if there are several series, by id_column=). "
            f"The columns are {', '.join(map(repr, frame.columns[:NAMES_SHOWN]))}"
        )
    rows = _read_long(frame, id_column, time_column, target, roles)
    keys = [*key_columns(rows.form.id_name), rows.form.time_name]
    return replace(rows, form=replace(rows.form, library=library_of(df, keys)))


def _check_columns(df: pd.DataFrame, roles: dict[str, Sequence[Any]]) -> None:
    if isinstance(df.columns, pd.MultiIndex):
        raise DataError(
            f"the columns must have one level, got a MultiIndex of {df.columns.nlevels} levels; "
            f"join the levels into one name, or use df.stack() for a long frame"
        )
    if df.columns.has_duplicates:
        doubled = df.columns[df.columns.duplicated()][0]
        raise DataError(f"column {doubled!r} occurs more than once; rename or drop one of them")
    for role, names in roles.items():
        require_columns(df, names, f"{role}_covariates")


def _read_series(series: pd.Series) -> Rows:
    named = isinstance(series.index, pd.MultiIndex)
    frame = series.to_frame(series.name if named and series.name is not None else TARGET)
    read = _read_multiindex if named else _read_wide
    rows = read(frame, None, {})
    form = replace(rows.form, squeeze=True, columns_name=None)
    # A plain Series is one series and its name is the id: another name is another series.
    ids = rows.ids if named else pd.Index([series.name], dtype=object)
    return replace(rows, form=form, ids=ids)


def _read_wide(df: pd.DataFrame, target: Any, roles: dict[str, Sequence[Any]]) -> Rows:
    index = df.index
    if dtypes.is_float_dtype(index.dtype) or dtypes.is_bool_dtype(index.dtype):
        raise DataError(
            f"a wide frame needs a time index (DatetimeIndex, PeriodIndex, integers or text), "
            f"got an index of dtype {index.dtype}; use df.set_index(...) or convert it"
        )
    if isinstance(index, pd.RangeIndex):
        name = next((name for name in df.columns if holds_times(df[name])), None)
        if name is not None:
            raise DataError(
                f"the frame has no time index, but its column {name!r} holds times; use "
                f"df.set_index({name!r}), or pass time_column={name!r} (and id_column= for "
                f"several series)"
            )
    names, values, bad = _targets(df, target, roles, taken=[])
    return Rows(
        _form(df, "wide", names, None, index.name),
        *_one_series(df),
        index,
        names,
        values,
        bad,
        _covariates(df, roles),
    )


def holds_times(column: pd.Series) -> bool:
    """Return whether a column looks like times: text or objects that are, for the most part."""
    if isinstance(column.dtype, pd.PeriodDtype) or dtypes.is_datetime64_any_dtype(column.dtype):
        return True
    if _is_number(column.dtype) or dtypes.is_bool_dtype(column.dtype):
        return False
    some = column.dropna().iloc[:100]
    if not len(some) or isinstance(some.iloc[0], numbers.Number):
        return False
    try:
        unread = read_times(_as_index(some)).faults.get("timestamp")
    except AmbiguousDates:
        return True
    except DataError:
        return False
    return unread is None or bool(unread.mean() < 0.5)


def _read_long(
    df: pd.DataFrame,
    id_column: Any,
    time_column: Any,
    target: Any,
    roles: dict[str, Sequence[Any]],
) -> Rows:
    time_name = TIME if time_column is None else time_column
    id_name = id_column if id_column is not None else (ID if ID in df.columns else None)
    if isinstance(id_name, tuple) and id_name not in df.columns:
        id_name = list(id_name)
    id_names = key_columns(id_name)
    id_name = id_names[0] if len(id_names) == 1 else id_name
    require_columns(df, [time_name], "time_column")
    require_columns(df, id_names, "id_column")
    if id_name is None and df.index.name == ID:
        raise DataError(
            f"the ids {ID!r} are the index of the frame and the times a column; use "
            f"df.reset_index(), or df.set_index({time_name!r}, append=True)"
        )
    if time_name in id_names:
        raise DataError(
            f"column {time_name!r} cannot be both the id and the time; name another one"
        )
    taken = [*id_names, time_name]
    ids, codes = _one_series(df) if id_name is None else factorized(labels_of(df, id_name))
    if target is None:
        declared = [name for names in roles.values() for name in names]
        others = [name for name in df.columns if name not in taken and name not in declared]
        # Without ids and without "y" it is a wide frame whose time is a column.
        wide = id_name is None or len(others) == 1
        target = TARGET if TARGET in others or not wide else None
    names, values, bad = _targets(df, target, roles, taken)
    return Rows(
        _form(df, "long", names, id_name, time_name),
        ids,
        codes,
        _as_index(df[time_name]),
        names,
        values,
        bad,
        _covariates(df, roles),
    )


def _read_multiindex(df: pd.DataFrame, target: Any, roles: dict[str, Sequence[Any]]) -> Rows:
    if df.index.nlevels != 2:
        raise DataError(
            f"a MultiIndex frame needs the two levels (id, time), got {df.index.nlevels} levels; "
            f"use df.reset_index() and pass id_column= and time_column="
        )
    first, times = df.index.get_level_values(0), df.index.get_level_values(1)
    clocks = pd.DatetimeIndex | pd.PeriodIndex
    if isinstance(first, clocks) and not isinstance(times, clocks):
        raise DataError(
            f"a MultiIndex frame needs the levels (id, time), got the time in the first one, "
            f"{df.index.names[0]!r}; use df.swaplevel()"
        )
    ids, codes = factorized(first)
    names, values, bad = _targets(df, target, roles, taken=[])
    form = _form(df, "multiindex", names, df.index.names[0], df.index.names[1])
    return Rows(form, ids, codes, times, names, values, bad, _covariates(df, roles))


def _form(
    df: pd.DataFrame,
    kind: Literal["wide", "long", "multiindex"],
    names: pd.Index,
    id_name: Any,
    time_name: Any,
) -> FrameForm:
    stated = df.index.freq if isinstance(df.index, pd.DatetimeIndex) and kind == "wide" else None
    return FrameForm(
        kind,
        freq=stated,
        id_name=id_name,
        time_name=time_name,
        columns_name=df.columns.name,
        columns_dtype=dtype_name(df.columns.dtype),
        dtypes=tuple(dtype_name(df[name].dtype) for name in names),
        id_dtypes=tuple(dtype_name(df[name].dtype) for name in id_name)
        if isinstance(id_name, list)
        else (),
    )


def _as_index(column: Any) -> pd.Index:
    # Without its dtype, pandas 2 looks for another one.
    return pd.Index(column, dtype=column.dtype, tupleize_cols=False)


def _one_series(df: pd.DataFrame) -> tuple[pd.Index, np.ndarray]:
    # A million equal codes need the memory of one.
    return pd.Index([None], dtype=object), np.broadcast_to(np.int64(0), len(df))


def require_columns(df: pd.DataFrame, names: Iterable[Any], parameter: str) -> None:
    """Raise a :class:`DataError` unless a frame has the columns that a parameter names."""
    missing = [name for name in names if name not in df.columns]
    if not missing:
        return
    more = ", ..." if len(df.columns) > NAMES_SHOWN else ""
    listed = ", ".join(map(repr, df.columns[:NAMES_SHOWN])) + more
    in_index = parameter == "time_column" and isinstance(df.index, pd.DatetimeIndex)
    levels = [name for name in df.index.names if name is not None]
    repair = "use df.reset_index()" if in_index or missing[0] in levels else "name one of them"
    raise DataError(
        f"{parameter}: the frame has no column {missing[0]!r}, its columns are "
        f"{listed or 'none'}; {repair}"
    )


def _is_number(dtype: Any) -> bool:
    return (
        dtypes.is_numeric_dtype(dtype)
        and not dtypes.is_bool_dtype(dtype)
        and not dtypes.is_complex_dtype(dtype)
    )


def _targets(
    df: pd.DataFrame, target: Any, roles: dict[str, Sequence[Any]], taken: list[Any]
) -> tuple[pd.Index, np.ndarray, dict[Any, np.ndarray]]:
    """Return the names of the target columns, their values and what is not a number."""
    declared = [name for names in roles.values() for name in names]
    if target is None:
        names = [name for name in df.columns if name not in declared and name not in taken]
    else:
        label = isinstance(target, tuple) and target in df.columns
        several = isinstance(target, list | tuple | pd.Index) and not label
        names = list(target) if several else [target]
        require_columns(df, names, "target")
        twice = [name for place, name in enumerate(names) if name in names[:place]]
        if twice:
            raise DataError(f"target: column {twice[0]!r} is named twice; name it once")
        both = [name for name in names if name in declared or name in taken]
        if both:
            raise DataError(
                f"column {both[0]!r} is the target and has another role as well; name it once"
            )
    if not names:
        raise DataError("the frame has no column to forecast; add one, or name it by target=")
    whole = len(names) == len(df.columns)
    # Looked up by place, and one column as such: frames of a few columns take pandas longest.
    places: list[Any] = [] if whole else [df.columns.get_loc(name) for name in names]
    columns = df.columns if whole else df.columns.take(places)
    if len(names) == 1:
        part: Any = df[names[0]]
        kinds = [part.dtype]
    else:
        part = df if whole else df.take(places, axis=1)
        kinds = list(part.dtypes)
    if all(isinstance(dtype, np.dtype) and dtype.kind == "f" for dtype in kinds):
        values = part.to_numpy().reshape(len(df), len(names))
        return columns, values if values.itemsize > 2 else values.astype(np.float32), {}
    values, bad = np.empty((len(df), len(names))), {}
    for column, name in enumerate(names):
        values[:, column], wrong = _numbers(df[name])
        if wrong.any():
            bad[name] = wrong
    return columns, values, bad


def _numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return a column as float64 and which rows hold something that is not a number."""
    if _is_number(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), dtype=bool)
    present = column.notna().to_numpy()
    values = np.full(len(column), np.nan)
    if _is_text(column):
        # Text that reads as numbers is not converted in silence, but what does not is named.
        wrong = present & pd.to_numeric(column, errors="coerce").isna().to_numpy()
        return values, wrong if wrong.any() else present
    if not dtypes.is_object_dtype(column.dtype):
        return values, present
    held = column.to_numpy(dtype=object)
    kinds = numbers.Real | decimal.Decimal
    plain = [isinstance(v, kinds) and not isinstance(v, bool | np.bool_) for v in held]
    right = present & np.array(plain, dtype=bool)
    values[right] = held[right].astype(np.float64)
    return values, present & ~right


def _is_text(column: pd.Series) -> bool:
    """Return whether a column holds nothing but text; pandas 2 keeps that as objects."""
    if dtypes.is_object_dtype(column.dtype):
        return dtypes.infer_dtype(column, skipna=True) == "string"
    return dtypes.is_string_dtype(column.dtype)


def _covariates(
    df: pd.DataFrame, roles: dict[str, Sequence[Any]]
) -> dict[str, dict[str, np.ndarray]]:
    return {
        role: {name: column_values(df[name]) for name in names}
        for role, names in roles.items()
        if names
    }


def column_values(column: pd.Series) -> np.ndarray:
    """Return a covariate as numbers where it holds some, else as it is; NaN where missing.

    Categories that are numbers stay categories, and times of a zone are times.
    """
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return np.asarray(column.astype(object).to_numpy())
    if isinstance(dtype, pd.PeriodDtype | pd.DatetimeTZDtype):
        naive = column.dt.to_timestamp() if isinstance(dtype, pd.PeriodDtype) else column
        return naive.to_numpy(dtype="datetime64[ns]")
    number = _is_number(dtype) or dtypes.is_bool_dtype(dtype)
    # Missing values turn a column of booleans or integers into one of objects.
    held = dtypes.is_object_dtype(dtype) and dtypes.infer_dtype(column, skipna=True)
    if held in OBJECT_NUMBERS or (number and not isinstance(dtype, np.dtype)):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(column.to_numpy())
