"""Forecasts of frames that lie in parts, on one machine or on many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from tsar.batch.block import Block, BlockForecaster
from tsar.batch.choosing import (
    check_counts,
    check_no_status,
    check_wanted,
    chosen_model,
    is_fitted,
    listed,
    used_columns,
)
from tsar.batch.engines.choosing import engine_of
from tsar.batch.engines.engine import FrameEngine
from tsar.batch.preparing import Preparation
from tsar.batch.source import by_series, share_of_series
from tsar.data.fileformat import Roles
from tsar.data.frames import ID, TARGET, TIME, require_columns
from tsar.data.idcolumns import key_columns
from tsar.exceptions import DataError, each_warning_once

__all__ = ["forecast_partitioned"]

# Rows that tell the columns of the forecast and their types.
HEAD_ROWS = 1_000

Frame = TypeVar("Frame")


@each_warning_once()
def forecast_partitioned(
    frame: Frame,
    *,
    model: Any = None,
    horizon: int | None = None,
    future: pd.DataFrame | None = None,
    quantiles: Sequence[float] | None = None,
    level: float | Sequence[float] | None = None,
    id_column: str | Sequence[str] | None = None,
    time_column: str | None = None,
    target: Sequence[str] | None = None,
    duplicates: str = "raise",
    gaps: str | None = None,
    params: Mapping[str, Any] | None = None,
    fit_rows: int | None = 1_000_000,
    block_rows: int = 1_000_000,
) -> Frame:
    """Forecast what comes after every series of a frame of Ray, Dask or Spark.

    The engine brings the rows of each series together, and its workers forecast the parts, each
    as :func:`forecast` does a block of a file: no series is lost, and those that cannot be
    forecast have rows without values, and a ``status`` that says why.

    Parameters
    ----------
    frame : ray.data.Dataset, dask.dataframe.DataFrame or pyspark.sql.DataFrame
        Long: a row per series and time, in any order.
    model : str, path, Forecaster or None
        As in :func:`forecast`. What is not fitted is fitted in this process, on whole series
        with ``fit_rows`` rows at most; the series are taken in the order of their ids.
    horizon : int or None
        Steps to forecast; None takes that of the model.
    future : DataFrame or None
        Future covariates, of pandas.
    quantiles, level
        As in :func:`forecast`.
    id_column : str, sequence of str or None
        None is ``unique_id``; several columns are one id.
    time_column : str or None
        None is ``ds``.
    target : sequence of str or None
        Columns to forecast; None is ``y``.
    duplicates, gaps
        What becomes of doubled and missing rows, as :func:`tsar.tidy` takes them.
    params : mapping or None
        Parameters for a model that is named.
    fit_rows : int or None
        None fits on all rows, in the memory of this process.
    block_rows : int
        About how many rows are forecast at a time by Ray and by Spark. With Dask it is the
        partitions that have to fit into the memory of a worker.

    Returns
    -------
    frame of the same engine
        Ids, times, forecasts and ``status``, in the order of the engine; it is computed when
        the engine is asked for it.

    Raises
    ------
    DataError
        It is no such frame, a column is missing, it has no rows, or no series can be fitted.
    ParameterError
        An argument is not usable.
    MissingExtraError
        A library that the engine takes is not installed.

    Examples
    --------
    >>> import dask.dataframe as dd  # doctest: +SKIP
    >>> sales = dd.read_parquet("sales/*.parquet")  # doctest: +SKIP
    >>> ahead = forecast_partitioned(sales, model="SeasonalNaive", horizon=28)  # doctest: +SKIP
    >>> ahead.to_parquet("ahead")  # doctest: +SKIP
    """
    engine = engine_of(frame)
    check_counts(block_rows=block_rows, fit_rows=fit_rows)
    own = Roles(id_column, time_column)
    chosen = chosen_model(model, params, horizon, own.id_column, own.time_name, target)
    check_wanted(chosen, horizon, quantiles, level)
    preparation = Preparation.of("batch", duplicates=duplicates, gaps=gaps)
    ids = key_columns(ID if chosen.id_column is None else chosen.id_column)
    id_name = ids if len(ids) > 1 else ids[0]
    time_name = TIME if chosen.time_column is None else chosen.time_column
    columns = pd.DataFrame(columns=engine.columns(frame))
    targets = listed(chosen.target) or [TARGET]
    roles = {"id_column": ids, "time_column": [time_name], **used_columns(chosen, [])}
    for role, names in {**roles, "target": targets}.items():
        require_columns(columns, names, role)
    check_no_status((*ids, time_name, *targets))
    head = engine.head(frame, HEAD_ROWS)
    if not len(head):
        raise DataError("batch: the frame has no rows; pass at least one observation")
    blocks = BlockForecaster(
        model=chosen,
        id_column=id_name,
        time_column=time_name,
        n_series=0,
        written=_as_it_is,
        horizon=horizon,
        outputs={"quantiles": quantiles, "level": level},
        future=future,
        preparation=preparation.with_quarantine(True),
    )
    if not is_fitted(chosen):
        chosen.set_params(id_column=id_name, time_column=time_name, target=targets)
        blocks.fit_good_series(_sample(engine, frame, ids, fit_rows))
    rows, series, counts = by_series(head, id_name)
    first = Block(rows.iloc[: counts[0]], series[:1])
    form, _ = blocks(first)
    parts = _Parts(blocks, form.iloc[:0].reset_index(drop=True))
    result: Frame = engine.mapped(frame, parts, parts.form, ids, block_rows)
    return result


def _sample(engine: FrameEngine, frame: Any, ids: list[Any], fit_rows: int | None) -> pd.DataFrame:
    """Return the rows to fit on: of whole series, chosen evenly in the order of their ids."""
    counts = engine.counts(frame, ids).sort_values(ids, ignore_index=True)
    chosen = share_of_series(counts.iloc[:, -1].to_numpy(), fit_rows)
    rows = engine.chosen(frame, counts.loc[chosen, ids])
    return rows.sort_values(ids, kind="stable", ignore_index=True)


def _as_it_is(forecast: pd.DataFrame) -> pd.DataFrame:
    return forecast


@dataclass(frozen=True)
class _Parts:
    """Forecasts rows of whole series, in any order.

    Parameters
    ----------
    blocks : BlockForecaster
    form : DataFrame
        A forecast without rows.
    """

    blocks: BlockForecaster
    form: pd.DataFrame

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        if not len(frame):
            return self.form
        rows, series, _ = by_series(frame, self.blocks.id_column)
        table, _ = self.blocks(Block(rows, series))
        return table[list(self.form.columns)].astype(self.form.dtypes).reset_index(drop=True)
