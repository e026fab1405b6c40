"""What networks read off the local clock."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

__all__ = ["CALENDARS", "CALENDAR_FEATURES", "Calendar", "calendar_features", "clock_readings"]

CALENDAR_FEATURES = ("hour", "weekday", "day", "day_of_year")


def calendar_features(times: pd.Index) -> np.ndarray:
    """Compute the hour, weekday, day of month and day of year, each in [-0.5, 0.5].

    They are those of Informer's time encoding (Zhou et al., 2021, arXiv:2012.07436,
    appendix B), which Autoformer and iTransformer share.

    Parameters
    ----------
    times : DatetimeIndex or PeriodIndex of shape (n,)
        Aware times are read on their own wall clock.

    Returns
    -------
    float32 array of shape (n, 4)
        Columns in the order of ``CALENDAR_FEATURES``. Integer times have no calendar:
        their features are all zero.
    """
    if not isinstance(times, pd.DatetimeIndex | pd.PeriodIndex):
        return np.zeros((len(times), len(CALENDAR_FEATURES)), dtype=np.float32)
    features = (
        times.hour / 23 - 0.5,
        times.day_of_week / 6 - 0.5,
        (times.day - 1) / 30 - 0.5,
        (times.day_of_year - 1) / 365 - 0.5,
    )
    return np.stack([np.asarray(feature, dtype=np.float32) for feature in features], axis=1)


def clock_readings(times: pd.Index) -> np.ndarray:
    """Read the clock itself: what it shows can be told from the numbers.

    Parameters
    ----------
    times : DatetimeIndex or PeriodIndex of shape (n,)
        Aware times are read on their own wall clock, periods at their start.

    Returns
    -------
    float32 array of shape (n, 2)
        Days since 1970 and seconds since midnight, all zero for integer times. Seconds are
        whole ones: float32 holds both numbers exactly.
    """
    if isinstance(times, pd.PeriodIndex):
        times = times.to_timestamp()
    if not isinstance(times, pd.DatetimeIndex):
        return np.zeros((len(times), 2), dtype=np.float32)
    seconds = times.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64)
    return np.stack(np.divmod(seconds, 86_400), axis=1).astype(np.float32)


class Calendar(NamedTuple):
    """One way to read the clock.

    Attributes
    ----------
    read : function
        Times of shape (n,) to an array of shape (n, width).
    width : int
    """

    read: Callable[[pd.Index], np.ndarray]
    width: int


CALENDARS = {
    "features": Calendar(calendar_features, len(CALENDAR_FEATURES)),
    "clock": Calendar(clock_readings, 2),
}
