"""What a saved model holds of the series that it was fitted on, and what has to be true of it."""

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from tsar.data.codec import IndexRecord, check_array
from tsar.data.dtypes import dtype_called
from tsar.data.frames import FormRecord
from tsar.data.frequency import FrequencyRecord
from tsar.data.timeaxis import AxisRecord
from tsar.exceptions import PersistenceError

__all__ = ["PanelRecord", "check_panel"]


class PanelRecord(TypedDict):
    """What JSON holds of a :class:`~tsar.data.panel.Panel`."""

    axis: AxisRecord
    frequency: FrequencyRecord
    form: FormRecord
    ids: IndexRecord
    variates: IndexRecord


def check_panel(
    form: Mapping[str, Any], ids: pd.Index, variates: pd.Index, arrays: Mapping[str, np.ndarray]
) -> None:
    """Raise a PersistenceError unless arrays are those of the series and variates.

    Parameters
    ----------
    form : mapping
        The layout of the frame.
    ids, variates : Index
    arrays : mapping of str to array
    """
    n_series, n_variates = len(ids), len(variates)
    values = check_array(arrays, "values", "float64", (None, n_variates))
    offsets = check_array(arrays, "offsets", "int64", (n_series + 1,))
    check_array(arrays, "last", "int64", (n_series,))
    if "moved" in arrays:
        check_array(arrays, "moved", "int64", (n_series,))
    for role in ("past", "future", "calendar"):
        if f"covariates.{role}" in arrays:
            check_array(arrays, f"covariates.{role}", "float32", (len(values), None))
    if "covariates.static" in arrays:
        check_array(arrays, "covariates.static", "float32", (n_series, None))
    ordered = offsets[0] == 0 and offsets[-1] == len(values) and (np.diff(offsets) >= 0).all()
    if not (n_series and n_variates and ordered):
        raise PersistenceError("load: the array 'offsets' does not divide the rows of the series")
    if np.isinf(values).any():
        raise PersistenceError("load: the array 'values' holds infinite values")
    for name, labels in (("ids", ids), ("variates", variates)):
        if not labels.is_unique:
            raise PersistenceError(f"load: the {name} of the series are not unique")
    if len(form["dtypes"]) != n_variates:
        raise PersistenceError(
            f"load: there are dtypes of {len(form['dtypes'])} variates, and {n_variates} variates"
        )
    if isinstance(form["id_name"], list):
        n_parts = len(form["id_name"])
        parted = all(isinstance(label, tuple) and len(label) == n_parts for label in ids)
        if not parted or len(form["id_dtypes"]) != n_parts:
            raise PersistenceError(
                f"load: the ids and their dtypes must have {n_parts} parts, as many as the columns "
                f"of the id"
            )
    for name in (*form["dtypes"], *form["id_dtypes"]):
        try:
            dtype_called(name)
        except (TypeError, ValueError, NotImplementedError):
            raise PersistenceError(f"load: {name!r} is no dtype of a column") from None
