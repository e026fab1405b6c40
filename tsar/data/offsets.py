"""Steps of a calendar as pandas offsets: read from any spelling, and stored as JSON."""

import datetime
import re
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from tsar.exceptions import DataError, PersistenceError

__all__ = ["describe_offset", "parse_offset", "rebuild_offset"]

# pandas 3 dropped the spellings on the left, which many scripts still use.
OLD_ALIASES = {
    **{"H": "h", "BH": "bh", "CBH": "cbh", "T": "min", "t": "min", "MIN": "min"},
    **{"S": "s", "L": "ms", "U": "us", "N": "ns"},
    **{"d": "D", "b": "B", "w": "W", "c": "C"},
    **{"M": "ME", "BM": "BME", "SM": "SME", "CBM": "CBME"},
    **{"Q": "QE", "BQ": "BQE", "A": "YE", "Y": "YE", "BA": "BYE", "BY": "BYE"},
    **{"AS": "YS", "BAS": "BYS"},
}
# A whole alias, or the parts of a compound one such as 1H30T.
ANCHORED = re.compile(r"(\d*)([A-Za-z]+)(-\w+)?")
# Offsets with a calendar of their own, which their alias leaves out.
CUSTOM = {
    "CustomBusinessDay": pd.offsets.CustomBusinessDay,
    "CustomBusinessHour": pd.offsets.CustomBusinessHour,
    "CustomBusinessMonthBegin": pd.offsets.CustomBusinessMonthBegin,
    "CustomBusinessMonthEnd": pd.offsets.CustomBusinessMonthEnd,
    "BusinessHour": pd.offsets.BusinessHour,
}


def parse_offset(freq: Any) -> Any:
    """Return the pandas offset of an alias, a timedelta or an offset.

    Raises
    ------
    DataError
        ``freq`` is none of these, or does not point forward in time.
    """
    try:
        if isinstance(freq, str):
            offset = to_offset(_modern(freq.strip()))
        elif isinstance(freq, datetime.timedelta | np.timedelta64):
            length = pd.Timedelta(freq)
            whole_days = length == pd.Timedelta(days=length.days)
            offset = pd.offsets.Day(length.days) if whole_days else to_offset(length)
        else:
            offset = to_offset(freq)
    except (ValueError, TypeError):
        offset = None
    if offset is None:
        raise DataError(
            f"freq must be a pandas alias such as 'h', '15min', 'D', 'B', 'W-WED' or 'MS', "
            f"or an offset object, got {freq!r}"
        )
    if offset.n < 1:
        raise DataError(f"freq must point forward in time, got {freq!r}; use a positive step")
    return offset


def _modern(alias: str) -> str:
    """Replace the spellings that pandas 3 dropped."""

    def replaced(match: re.Match[str]) -> str:
        count, word, anchor = match.groups(default="")
        return f"{count}{OLD_ALIASES.get(word, word)}{anchor.upper()}"

    return ANCHORED.sub(replaced, alias)


def describe_offset(offset: Any) -> dict[str, Any]:
    """Return a JSON-able description of a pandas offset, its holidays included.

    Raises
    ------
    PersistenceError
        The offset has settings that are not stored.
    """
    kind = type(offset).__name__
    described: dict[str, Any] = {"freq": offset.freqstr}
    if type(offset) is pd.DateOffset:
        described = {"n": offset.n, "kwds": {name: int(v) for name, v in offset.kwds.items()}}
    elif kind in CUSTOM:
        described = {"class": kind, "n": offset.n}
        calendar = getattr(offset, "calendar", None)
        if calendar is not None:
            days = offset.weekmask
            if not isinstance(days, str):
                days = "".join(str(int(open_day)) for open_day in calendar.weekmask)
            described |= {"weekmask": days, "holidays": [str(day) for day in calendar.holidays]}
        for name in ("start", "end"):
            if hasattr(offset, name):
                described[name] = [f"{time:%H:%M}" for time in getattr(offset, name)]
    # Offsets with a calendar of their own can be compared only if it is written as text.
    if "weekmask" not in described and not _is_rebuilt(described, offset):
        raise PersistenceError(
            f"save: freq={offset!r} cannot be stored; use an offset that its alias "
            f"{offset.freqstr!r} describes"
        )
    return described


def _is_rebuilt(described: dict[str, Any], offset: Any) -> bool:
    try:
        return bool(rebuild_offset(described) == offset)
    except ValueError:
        return False


def rebuild_offset(described: dict[str, Any]) -> Any:
    """Undo :func:`describe_offset`."""
    if "freq" in described:
        return to_offset(described["freq"])
    if "kwds" in described:
        return pd.DateOffset(n=described["n"], **described["kwds"])
    fields = dict(described)
    return CUSTOM[fields.pop("class")](**fields)
