"""Rows without values, for series that were set aside."""

import contextlib
from typing import Any

import numpy as np
import pandas as pd

from tsar.batch.report import STATUS
from tsar.data.idcolumns import key_columns, labels_of, named_parts
from tsar.data.quarantine import Bad
from tsar.data.timeaxis import read_times
from tsar.exceptions import DataError, DataWarning, ParameterError, own_warnings
from tsar.forecasting.base import Forecaster

__all__ = ["empty_rows"]

# Rows of good series that say how times are written, where few bad ones leave it open.
ROWS_READ = 10_000
# How many times of a series are tried, the last one first: it may not lie on the grid.
TIMES_TRIED = 5


def empty_rows(
    model: Forecaster,
    frame: pd.DataFrame,
    bad: Bad,
    id_column: Any,
    time_column: Any,
    template: pd.DataFrame,
    steps: int,
) -> pd.DataFrame:
    """Return the rows of series that were set aside: ids, times if they can be told.

    Parameters
    ----------
    model : Forecaster
        A fitted one.
    frame : DataFrame
        Good and bad series.
    bad : dict
    id_column : label or list of labels
    time_column : label
    template : DataFrame
        A forecast without rows.
    steps : int
        Rows of each series.

    Returns
    -------
    DataFrame
    """
    times_ahead = _future_times(model, frame, bad, id_column, time_column, steps)
    tables = []
    for name, (kind, _) in bad.items():
        empty = template.reindex(range(steps))
        for column, part in named_parts(name, id_column).items():
            empty[column] = np.full(steps, part, dtype=object)
        if name in times_ahead:
            empty[time_column] = times_ahead[name]
        tables.append(empty.assign(**{STATUS: kind}))
    whole = pd.concat(tables, ignore_index=True)
    keys = [*key_columns(id_column), time_column]
    return whole.astype({name: template[name].dtype for name in keys})


def _future_times(
    model: Forecaster,
    frame: pd.DataFrame,
    bad: Bad,
    id_column: Any,
    time_column: Any,
    steps: int,
) -> dict[Any, np.ndarray]:
    """Return the times after the last usable one of each bad series, in the form of the file."""
    ids, parts = labels_of(frame, id_column), key_columns(id_column)
    concerned = ids.isin(list(bad))
    rows, others = frame[concerned], frame[~concerned].head(ROWS_READ)
    try:
        # Whether the day or the month comes first is seen from many rows, and not from the last.
        times = pd.Index(pd.concat([rows[time_column], others[time_column]]))
        read = read_times(times, model.end_.axis)
    except DataError:
        return {}
    unusable = np.zeros(len(read.stamps), dtype=bool)
    for mask in read.faults.values():
        unusable |= mask
    usable, stamps = ~unusable[: len(rows)], read.stamps[: len(rows)]
    order = np.argsort(stamps[usable], kind="stable")
    rows = pd.DataFrame(
        {
            # What the model reads beside does not matter.
            **{name: 0.0 for name in frame.columns if name not in parts},
            **{name: rows[name].to_numpy()[usable][order] for name in parts},
            time_column: read.axis.times(stamps[usable][order]),
        }
    )[list(frame.columns)]
    stamps_of: dict[Any, np.ndarray] = {}
    owners = labels_of(rows, id_column)
    ranks = owners.groupby(owners, sort=False).cumcount(ascending=False)
    for rank in range(TIMES_TRIED):
        last = rows[(ranks == rank) & ~owners.isin(list(stamps_of))]
        for part in [last, *(last.iloc[[place]] for place in range(len(last)))]:
            # All at once, or each on its own where one of them has no usable time.
            with (
                contextlib.suppress(DataError, ParameterError),
                own_warnings("ignore", DataWarning),
            ):
                ahead = model.make_future_frame(steps, df=part)
                times_read = read_times(pd.Index(ahead[time_column]))
                written = read.axis.index(read.axis.stamps_of(times_read.stamps, times_read.axis))
                times = pd.Series(written, index=ahead.index)
                by_id = times.groupby(labels_of(ahead, id_column), sort=False)
                stamps_of |= {name: values.to_numpy() for name, values in by_id}
            if set(owners[last.index]) <= set(stamps_of):
                break
    return stamps_of
