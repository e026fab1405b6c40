"""Reconciling frames of forecasts: what is forecast of a sum becomes the sum of its parts.

Letters: n nodes, b of them at the bottom, k rows of each.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.frames import ID
from tsar.data.libraries import as_pandas, library_of
from tsar.exceptions import DataError, ParameterError
from tsar.hierarchy.projection import METHODS, NEED_ERRORS, covariance_of, projection
from tsar.hierarchy.summing import SEPARATOR, TOTAL, Hierarchy, check_groups, ids_of
from tsar.params.constraints import check_choice

__all__ = ["NodeTable", "errors_by_node", "reconcile"]

# The ids of forecasts, of backtests and fitted values, and of the variates in these.
ID_COLUMNS = (ID, "variate", "id")
INTERVAL = re.compile(r"_(?:lo|hi|q)[0-9.]+$")


def reconcile(
    forecast: Any,
    groups: Sequence[Any],
    *,
    method: str = "ols",
    errors: Any = None,
    columns: Any = None,
) -> Any:
    """Make forecasts of a hierarchy agree: those of sums become the sums of those of the parts.

    Parameters
    ----------
    forecast : DataFrame
        Forecasts of all series, in one of the forms that forecasters and backtests give: long
        with the group columns, long with ids such as ``"Victoria/Melbourne"``
        (:func:`tsar.hierarchy.aggregate` writes both), MultiIndex, or wide with such ids as
        columns. Samples, with their column ``sample``, stay joint samples.
    groups : list of column labels
        The groups, in the order in which ids name them. A series that is the sum over one
        has ``"total"`` there; those without are the bottom, which the others are sums of.
    method : {"ols", "bottom_up", "wls_struct", "wls_var", "mint_shrink"}, default "ols"
        What the errors of the forecasts are supposed to be like: "ols" all of one size and
        independent; "wls_struct" in proportion to the number of series that are summed;
        "wls_var" independent, of the size that ``errors`` have; "mint_shrink" with the
        correlations of ``errors`` as well, shrunk (MinT). "bottom_up" adds up the forecasts at
        the bottom and lets the others be.
    errors : DataFrame, optional
        For the last two: what ``fitted_values(df, horizon=1)`` of the model gives, or a
        backtest of it, with ids as above.
    columns : label or list of labels, optional
        The columns of a long frame to reconcile; None takes all with floating numbers.

    Returns
    -------
    DataFrame
        As ``forecast``, with other numbers. Those that agreed already stay as they are.

    Raises
    ------
    ParameterError, DataError
        An argument or a frame is not usable: a series lacks rows that others have, a
        forecast is missing, or a column is an end of an interval, which do not add up.

    References
    ----------
    Hyndman, Ahmed, Athanasopoulos and Shang, "Optimal combination forecasts for hierarchical
    time series", Computational Statistics & Data Analysis 55 (2011); Wickramasuriya,
    Athanasopoulos and Hyndman, JASA 114 (2019).

    Examples
    --------
    >>> import pandas as pd
    >>> import tsar
    >>> forecast = pd.DataFrame({"total": [10.0], "a": [3.0], "b": [4.0]})
    >>> tsar.reconcile(forecast, ["shop"])
       total    a    b
    0    9.0  4.0  5.0
    """
    named = check_groups("reconcile", groups)
    if named != list(groups):
        raise ParameterError(
            f"reconcile: groups must be a list of columns, got {groups!r}; the levels follow from "
            f"the frame"
        )
    check_choice("reconcile", "method", method, METHODS)
    if (errors is None) == (method in NEED_ERRORS):
        wanted = "fitted_values(df, horizon=1) of the model" if errors is None else "None"
        raise ParameterError(
            f"reconcile: errors must be {wanted} for method={method!r}, got {type(errors).__name__}"
        )
    table = NodeTable.of("reconcile", as_pandas(forecast), named, columns)
    hierarchy = Hierarchy.of("reconcile", table.labels)
    by_node = (
        None if errors is None else errors_by_node("reconcile", as_pandas(errors), named, hierarchy)
    )
    covariance = covariance_of("reconcile", hierarchy, method, by_node)
    agreed = table.reconciled(hierarchy, projection(hierarchy, covariance))
    return library_of(forecast).restored(agreed)


@dataclass(frozen=True)
class NodeTable:
    """A frame of forecasts by series.

    Attributes
    ----------
    frame : DataFrame
        As it was given, the index in columns where that is a MultiIndex.
    index : Index
        What it had.
    labels : DataFrame of shape (n, n_groups)
        Of each series, in the order of the frame.
    columns : list of label
        Those of the values; of a wide frame, one for each series.
    cells : int64 array of shape (n, k), or None for a wide frame
        The rows of each series, in one order for all.
    """

    frame: pd.DataFrame
    index: pd.Index
    labels: pd.DataFrame
    columns: list[Any]
    cells: np.ndarray | None

    @classmethod
    def of(cls, owner: str, frame: Any, groups: list[Any], columns: Any = None) -> "NodeTable":
        """Find the series and the values in a frame, and check that nothing is missing."""
        if not isinstance(frame, pd.DataFrame) or not len(frame):
            raise DataError(
                f"{owner}: forecast must be a DataFrame with forecasts, got "
                f"{'one without rows' if isinstance(frame, pd.DataFrame) else type(frame).__name__}"
            )
        index = frame.index
        if isinstance(index, pd.MultiIndex):
            frame = frame.reset_index()
        named = columns
        if columns is not None:
            named = list(columns) if isinstance(columns, list | tuple) else [columns]
        missing = [name for name in named or [] if name not in frame.columns]
        if missing or named == []:
            raise DataError(
                f"{owner}: columns must name columns of the frame, got {columns!r}; it has "
                f"{list(frame.columns)[:10]}"
            )
        floating = [name for name in frame if pd.api.types.is_float_dtype(frame[name].dtype)]
        if id_column_of(frame, groups) is None and not set(groups) <= set(frame.columns):
            values = floating if named is None else named
            ids = pd.Series(values, dtype=object)
            table = cls(frame, index, _parted(owner, ids, groups), values, None)
        else:
            labels = labels_in(owner, frame, groups)
            values = [name for name in floating if name not in groups] if named is None else named
            held = {*groups, *values, *floating, id_column_of(frame, groups)}
            keys = [name for name in frame if name not in held]
            cells, first = _cells(owner, frame, labels, keys)
            table = cls(frame, index, labels.iloc[first], values, cells)
        table._check(owner)
        return table

    def _check(self, owner: str) -> None:
        if not self.columns:
            raise DataError(
                f"{owner}: the frame has no column of floating numbers to reconcile, its columns "
                f"are {list(self.frame.columns)[:10]}; name one by columns="
            )
        for name in self.columns:
            if self.cells is not None and INTERVAL.search(str(name)):
                raise ParameterError(
                    f"{owner}: {name!r} is an end of an interval or a quantile, which do not add "
                    f"up; reconcile samples (predict(samples=1000)) and take their quantiles, or "
                    f"leave the column out by columns="
                )
            if not pd.api.types.is_numeric_dtype(self.frame[name].dtype):
                raise DataError(f"{owner}: column {name!r} must be numbers to be reconciled")
            bad = ~np.isfinite(self.frame[name].to_numpy(np.float64, na_value=np.nan))
            if bad.any():
                raise DataError(
                    f"{owner}: {name!r} must be finite to be reconciled, {int(bad.sum())} rows are "
                    f"not, the first at {self.frame.index[int(bad.argmax())]!r}; drop these times, "
                    f"or leave the column out by columns="
                )

    def reconciled(self, hierarchy: Hierarchy, mapped: np.ndarray) -> pd.DataFrame:
        """Return the frame with values that agree; ``mapped`` (b, n) gives those at the bottom."""
        written = self.frame.copy()
        if self.cells is None:
            values = written[self.columns].to_numpy(np.float64).T
            written[self.columns] = (hierarchy.summing @ (mapped @ values)).T
        else:
            for name in self.columns:
                values = written[name].to_numpy(np.float64)
                agreed = hierarchy.summing @ (mapped @ values[self.cells])
                values = np.empty_like(values)
                values[self.cells] = agreed
                written[name] = values
        if isinstance(self.index, pd.MultiIndex):
            written = written.set_index(list(self.index.names))
        written.index = self.index
        written.attrs = dict(self.frame.attrs)
        return written


def labels_in(owner: str, frame: pd.DataFrame, groups: list[Any]) -> pd.DataFrame:
    """Return the labels of every row, from the group columns or else from the ids."""
    if set(groups) <= set(frame.columns):
        return frame[groups].astype(object)
    return _parted(owner, frame[id_column_of(frame, groups)].astype(object), groups)


def id_column_of(frame: pd.DataFrame, groups: list[Any]) -> Any:
    """Return the column of ids, None where there is none."""
    return next((name for name in ID_COLUMNS if name in frame and name not in groups), None)


def _parted(owner: str, ids: pd.Series, groups: list[Any]) -> pd.DataFrame:
    """Return the labels that ids are made of."""
    distinct = pd.Series(ids.unique())
    parts = [str(one).split(SEPARATOR) for one in distinct]
    many = np.array([len(part) > len(groups) for part in parts])
    if many.any():
        raise DataError(
            f"{owner}: the id {distinct[many].iloc[0]!r} must have a label for each of the groups "
            f"{groups}, or fewer, with {SEPARATOR!r} between them"
        )
    filled = [part + [TOTAL] * (len(groups) - len(part)) for part in parts]
    labels = pd.DataFrame(filled, columns=groups, dtype=object)
    return labels.iloc[pd.Index(distinct).get_indexer(pd.Index(ids))].reset_index(drop=True)


def _cells(
    owner: str, frame: pd.DataFrame, labels: pd.DataFrame, keys: list[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (n, k) of each series in one order, and the first row of each."""
    labels = labels.reset_index(drop=True)
    nodes = labels.groupby(list(labels.columns), sort=False).ngroup().to_numpy(np.int64)
    moments: np.ndarray = np.zeros(len(frame), dtype=np.int64)
    if keys:
        times = frame[keys].reset_index(drop=True)
        moments = times.groupby(keys, sort=False, dropna=False).ngroup().to_numpy(np.int64)
    counts = np.bincount(nodes)
    width = int(moments.max()) + 1
    cells = nodes * width + moments
    if pd.Series(cells).duplicated().any() or (counts != width).any():
        wrong = int(np.flatnonzero(counts != width)[0]) if (counts != width).any() else 0
        name = ids_of(labels.iloc[[int((nodes == wrong).argmax())]])[0]
        raise DataError(
            f"{owner}: every series needs one row for the same {keys}, {name!r} has "
            f"{counts[wrong]} rows where there are {width} of them; forecast all series from the "
            f"same times on, and name the columns to reconcile by columns="
        )
    order = np.argsort(cells, kind="stable").reshape(-1, width)
    return order, np.array([int((nodes == node).argmax()) for node in range(len(counts))])


def errors_by_node(owner: str, errors: Any, groups: list[Any], hierarchy: Hierarchy) -> np.ndarray:
    """Return the errors of each series, float64 of shape (T, n), NaN where one is not known.

    Parameters
    ----------
    owner : str
        Who asks, for messages.
    errors : DataFrame
        What ``fitted_values`` or a backtest of one model gives.
    groups : list of label
    hierarchy : Hierarchy

    Raises
    ------
    DataError
        It is no such frame, or lacks a series.
    """
    columns = list(errors.columns) if isinstance(errors, pd.DataFrame) else []
    models = [
        name
        for name in columns
        if name not in ("y", *groups)
        and pd.api.types.is_float_dtype(errors[name].dtype)
        and not INTERVAL.search(str(name))
    ]
    if not {"cutoff", "step", "y"} <= set(columns) or len(models) != 1:
        raise DataError(
            f"{owner}: errors must be what fitted_values or backtest gives of one model, with the "
            f"columns cutoff, step, y and its forecasts, got {columns[:10] or type(errors)}"
        )
    nodes = hierarchy.ids.get_indexer(ids_of(labels_in(owner, errors, groups)))
    lacking = hierarchy.ids[~np.isin(np.arange(len(hierarchy.labels)), nodes)]
    if len(lacking):
        raise DataError(f"{owner}: errors must hold every series, there is none of {lacking[0]!r}")
    moments = errors.groupby(["cutoff", "step"], sort=False).ngroup().to_numpy()
    table = np.full((int(moments.max()) + 1, len(hierarchy.labels)), np.nan)
    of_hierarchy = nodes >= 0
    missed = (errors["y"] - errors[models[0]]).to_numpy(np.float64)
    table[moments[of_hierarchy], nodes[of_hierarchy]] = missed[of_hierarchy]
    return table
