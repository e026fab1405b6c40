"""Events of a calendar as columns of a frame: holidays, promotions, closed days.

They are known ahead, and go as columns into the history and the future alike.
"""

from typing import Any, cast

import numpy as np
import pandas as pd

from tsar.data.frames import ID, TIME, require_columns
from tsar.data.frequency import Frequency
from tsar.data.idcolumns import key_columns, labels_of
from tsar.data.inference import infer_frequency
from tsar.data.libraries import as_pandas, library_of
from tsar.data.matching import id_places
from tsar.data.timeaxis import DAY, TimeAxis, read_times
from tsar.exceptions import DataError, DataWarning, MissingExtraError, ParameterError, warn

__all__ = ["add_events", "public_holidays", "event_names"]

# What the columns are called, of holidays and of events without a name.
HOLIDAY, EVENT = "holiday", "event"
# A longer event is a mistyped date.
LONGEST = 36_600


def add_events(
    df: Any,
    events: Any = None,
    *,
    country_holidays: str | None = None,
    id_column: Any = None,
    time_column: Any = None,
    freq: Any = None,
    like: TimeAxis | None = None,
) -> Any:
    """Add a column for each kind of event: how many days of a step it falls on.

    Parameters
    ----------
    df : DataFrame
        A history, or the frame of its future, wide, long or with a MultiIndex, of any
        library. It is left as it is.
    events : DataFrame, optional
        A row for each event: ``date``; ``end``, its last day, where it takes several;
        ``name``, whose values become columns (``event`` without one); and the column of the
        ids, where events belong to some series. An event without an id belongs to all.
    country_holidays : str, optional
        Adds the column ``holiday``: see :func:`public_holidays`.
    id_column, time_column, freq
        As a forecaster takes them. A frame of few rows does not tell its step, so that
        ``freq`` says it: ``model.freq_``.
    like : TimeAxis, optional
        See :func:`tsar.data.timeaxis.read_times`.

    Returns
    -------
    DataFrame
        With integer columns: 0 or 1 for steps of a day or shorter; of longer ones, the
        number of days. A step of weeks or months begins with its time, and ends with it
        where that is the last day of a month.

    Raises
    ------
    MissingExtraError
        The library ``holidays`` is not installed, and a country is named.
    ParameterError, DataError
        There is no such country, the events have no dates, or a column is there already.

    Examples
    --------
    >>> import pandas as pd
    >>> import tsar
    >>> days = pd.DataFrame({"sold": [3, 9, 8]}, index=pd.date_range("2024-11-28", periods=3))
    >>> sale = pd.DataFrame({"date": ["2024-11-29"], "end": ["2024-12-01"], "name": ["sale"]})
    >>> tsar.add_events(days, sale)
                sold  sale
    2024-11-28     3     0
    2024-11-29     9     1
    2024-11-30     8     1
    """
    library, df, events = library_of(df), as_pandas(df), as_pandas(events)
    owners, times = _keys(df, id_column, time_column)
    read = read_times(times, like)
    if read.faults:
        kind, mask = next(iter(read.faults.items()))
        raise DataError(f"add_events: {int(mask.sum())} rows have no usable time ({kind})")
    begin, end = _days_of_steps(owners, read.stamps, read.axis, freq)
    days = {} if events is None else _days_of_events(events, id_column, read.axis)
    if events is not None and any(owner is not None for owner in owners[:1]):
        _warn_of_other_ids(events, id_column)
    if country_holidays is not None and len(df):
        years = [int(pd.Timestamp(day, unit="D").year) for day in (begin.min(), end.max())]
        dates = public_holidays(country_holidays, years[0], years[1])["date"]
        days[HOLIDAY] = {None: [dates.to_numpy().astype("M8[D]").astype(np.int64)]}
    columns = {name: np.zeros(len(df), np.int64) for name in event_names(events, country_holidays)}
    listed_ids = {one: None for by_owner in days.values() for one in by_owner if one is not None}
    place_of = {one: place for place, one in enumerate(listed_ids)}
    codes, distinct = pd.factorize(owners)
    among = pd.Index(list(place_of), dtype=object, tupleize_cols=False)
    # Ids are the same however the files write them.
    id_place = id_places(pd.Index(distinct, dtype=object, tupleize_cols=False), among)
    places = np.append(id_place, -1)[codes]
    for name, by_owner in days.items():
        # Those of all series, and then those of a series with them.
        for owner in sorted(by_owner, key=lambda one: one is not None):
            both = by_owner[owner] + (by_owner.get(None, []) if owner is not None else [])
            listed = np.unique(np.concatenate(both))
            count = np.searchsorted(listed, end, "right") - np.searchsorted(listed, begin, "left")
            mine = np.ones(len(df), dtype=bool) if owner is None else places == place_of[owner]
            columns[name] = np.where(mine, count, columns[name])
    taken = [name for name in columns if name in df.columns]
    if taken:
        raise DataError(f"add_events: the frame has a column {taken[0]!r} already; rename one")
    return library.restored(df.assign(**columns))


def event_names(events: pd.DataFrame | None, country: str | None) -> list[str]:
    """Return the columns that :func:`add_events` adds."""
    names: list[str] = []
    if events is not None:
        names += list(dict.fromkeys(_names(events))) if "name" in events else [EVENT]
    return names + [HOLIDAY] * (country is not None)


def public_holidays(country: str, first: int, last: int) -> pd.DataFrame:
    """Return the public holidays of a country, as :func:`add_events` takes them.

    Parameters
    ----------
    country : str
        A code such as ``"DE"``, or with a part of the country, ``"DE-BY"``.
    first, last : int
        Years.

    Returns
    -------
    DataFrame
        ``date`` and ``name``, by date. Several holidays of one day are one row.

    Raises
    ------
    MissingExtraError
        The library ``holidays`` is not installed.
    ParameterError
        It has no such country.
    """
    try:
        import holidays
    except ImportError:
        raise MissingExtraError(
            "public_holidays needs holidays: pip install 'tsar[calendar]'"
        ) from None
    code, _, part = country.partition("-")
    try:
        calendar = holidays.country_holidays(
            code.upper(), subdiv=part.upper() or None, years=range(first, last + 1)
        )
    except NotImplementedError as error:
        raise ParameterError(
            f"public_holidays: country must be a code such as 'DE' or 'DE-BY', got {country!r}: "
            f"{error}"
        ) from None
    rows = sorted(calendar.items())
    dates = pd.DatetimeIndex([day for day, _ in rows])
    return pd.DataFrame({"date": dates, "name": [name for _, name in rows]})


def _keys(df: Any, id_column: Any, time_column: Any) -> tuple[np.ndarray, pd.Index]:
    """Return the id of each row, None where there are none, and its time."""
    if not isinstance(df, pd.DataFrame):
        raise DataError(f"add_events: the data must be a DataFrame, got {type(df).__name__}")
    if isinstance(df.index, pd.MultiIndex) and df.index.nlevels == 2:
        ids = df.index.get_level_values(0)
        return ids.to_numpy(dtype=object), df.index.get_level_values(1)
    if isinstance(id_column, tuple) and id_column not in df.columns:
        id_column = list(id_column)
    id_column = ID if id_column is None and ID in df.columns else id_column
    require_columns(df, key_columns(id_column), "id_column")
    owners = np.full(len(df), None, dtype=object)
    if id_column is not None:
        owners = labels_of(df, id_column).to_numpy(dtype=object)
    if time_column is None and TIME not in df.columns:
        return owners, df.index
    name = TIME if time_column is None else time_column
    require_columns(df, [name], "time_column")
    return owners, pd.Index(df[name], dtype=df[name].dtype)


def _days_of_steps(
    owners: np.ndarray, stamps: np.ndarray, axis: TimeAxis, freq: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last day of each step, in days since 1970."""
    if axis.kind == "integer":
        raise DataError("add_events: the times are integers, which have no calendar")
    if axis.kind == "period":
        periods = cast(Any, axis.times(stamps))
        ends = (periods.to_timestamp(how=how) for how in ("start", "end"))
        begin, end = (np.asarray(one.to_numpy().astype("M8[D]").astype(np.int64)) for one in ends)
        return begin, end
    day = axis.local(stamps) // axis.per_day
    frequency = _frequency(owners, stamps, axis, freq)
    if frequency.rule == "months" and frequency.day == 0:
        months = day.view("M8[D]").astype("M8[M]") - (frequency.step - 1)
        return months.astype("M8[D]").astype(np.int64), day
    whole_days = frequency.rule == "fixed" and frequency.step >= 2 * DAY
    if whole_days or frequency.rule == "months":
        following = frequency.future(stamps, 1, axis)[:, 0]
        return day, axis.local(following) // axis.per_day - 1
    return day, day


def _frequency(owners: np.ndarray, stamps: np.ndarray, axis: TimeAxis, freq: Any) -> Frequency:
    if isinstance(freq, Frequency):
        return freq
    if freq is not None:
        return Frequency.parse(freq, axis).settle(stamps, axis)
    codes = pd.factorize(owners, use_na_sentinel=False)[0]
    order = np.lexsort((stamps, codes))
    counts = np.bincount(codes)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    try:
        return infer_frequency(stamps[order], offsets, axis)
    except DataError:
        raise DataError(
            "add_events: freq cannot be told from so few rows; pass it, as model.freq_ or 'D'"
        ) from None


def _days_of_events(
    events: pd.DataFrame, id_column: Any, axis: TimeAxis
) -> dict[str, dict[Any, list[np.ndarray]]]:
    """Return the days of events, by name and by id, which is None where they are for all."""
    if not isinstance(events, pd.DataFrame):
        raise DataError(f"events: they must be a DataFrame, got {type(events).__name__}")
    require_columns(events, ["date"], "events")
    ids = key_columns(ID if id_column is None else id_column)
    begin = _days(events["date"], axis)
    end = begin.copy()
    if "end" in events:
        stated = events["end"].notna().to_numpy()
        end[stated] = _days(events["end"][stated], axis)
    wrong = np.flatnonzero((end < begin) | (end - begin > LONGEST))
    if len(wrong):
        row = events.iloc[wrong[0]]
        raise DataError(
            f"events: an event ends before it begins, or never: {row['date']} to {row['end']}; "
            f"correct its dates"
        )
    parts = [name for name in ids if name in events]
    owners = np.full(len(events), None, dtype=object)
    if parts:
        held = labels_of(events, id_column if isinstance(id_column, list) else parts[0])
        owners = held.to_numpy(dtype=object, copy=True)
        owners[held.isna().to_numpy()] = None
    days: dict[str, dict[Any, list[np.ndarray]]] = {}
    for name, owner, first, last in zip(_names(events), owners, begin, end, strict=True):
        days.setdefault(name, {}).setdefault(owner, []).append(np.arange(first, last + 1))
    return days


def _warn_of_other_ids(events: pd.DataFrame, id_column: Any) -> None:
    """Warn of ids under another name: each event is one of all series then."""
    ids = key_columns(ID if id_column is None else id_column)
    unread = [name for name in events if name not in ("date", "end", "name", *ids)]
    if unread and not any(name in events for name in ids):
        warn(
            f"events: columns {unread} are not read, and each event is one of all series; the "
            f"ids of events of some series go into {ids}",
            DataWarning,
        )


def _names(events: pd.DataFrame) -> list[str]:
    """Return what each event is called."""
    if "name" not in events:
        return [EVENT] * len(events)
    return [EVENT if pd.isna(name) else str(name) for name in events["name"]]


def _days(column: pd.Series, axis: TimeAxis) -> np.ndarray:
    if not len(column):
        return np.zeros(0, dtype=np.int64)
    read = read_times(pd.Index(column, dtype=column.dtype), axis)
    if read.faults or read.axis.kind != "timestamp":
        raise DataError(
            f"events: column {column.name!r} holds something else than dates; repair it"
        )
    return np.asarray(read.axis.local(read.stamps) // read.axis.per_day)
