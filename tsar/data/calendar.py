"""Calendar features of the local clock, each scaled to [-0.5, 0.5].

The features are those of Informer's time encoding (Zhou et al., 2021, arXiv:2012.07436,
appendix B), which Autoformer and iTransformer share.
"""

import numpy as np
import pandas as pd

__all__ = ["CALENDAR_FEATURES", "calendar_features"]

CALENDAR_FEATURES = ("hour", "weekday", "day", "day_of_year")


def calendar_features(times: pd.Index) -> np.ndarray:
    """Compute the hour, weekday, day of month and day of year of local times.

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
