"""Whether new data are of the kind that was fitted."""

import pandas as pd

from tsar.data.timeaxis import TimeAxis
from tsar.exceptions import DataError

__all__ = ["check_axis", "check_variates"]


def check_axis(word: str, axis: TimeAxis, fitted: TimeAxis) -> None:
    """Refuse times of another kind, zone or period than those that were fitted.

    Parameters
    ----------
    word : str
        What to call the times.
    axis, fitted : TimeAxis

    Raises
    ------
    DataError
        Names both, and the repair.
    """
    if axis.kind != fitted.kind or str(axis.tz) != str(fitted.tz):
        raise DataError(
            f"{word} must be like the fitted one ({fitted.kind}, time zone {fitted.tz}), got "
            f"{axis.kind}, time zone {axis.tz}; use tz_convert or tz_localize first"
        )
    if axis.kind == "period" and axis.dtype != fitted.dtype:
        raise DataError(
            f"{word}: the periods must be {fitted.dtype} as fitted, got {axis.dtype}; use asfreq"
        )


def check_variates(variates: pd.Index, fitted: pd.Index, *, others_allowed: bool) -> None:
    """Refuse variates other than the fitted ones.

    Parameters
    ----------
    variates, fitted : Index
    others_allowed : bool
        Whether the caller could allow others.

    Raises
    ------
    DataError
        Names what is missing and what is new.
    """
    missing = sorted(map(str, set(fitted) - set(variates)))
    new = sorted(map(str, set(variates) - set(fitted)))
    if missing or new:
        repair = "rename them, or pass allow_new_variates=True"
        raise DataError(
            f"the variates differ from the fitted ones: missing {missing}, not fitted {new}; "
            f"{repair if others_allowed else 'pass the fitted ones'}"
        )
