"""Frames of Ray, Dask and Spark are forecast by their workers, into frames of their own."""

import contextlib

import pandas as pd
import pytest

from tsar.batch import forecast, forecast_partitioned
from tsar.exceptions import DataError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

OPTIONS = {
    "model": "NLinear",
    "horizon": 3,
    "params": {"context_length": 12, "max_epochs": 1, "random_state": 0},
    "level": 80,
}


@contextlib.contextmanager
def _frame_of(engine, pieces):
    """A frame of an engine with the rows of some frames, and how it becomes one of pandas."""
    if engine == "ray":
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            yield ray.data.from_pandas(pieces), lambda frame: frame.to_pandas()
        finally:
            ray.shutdown()
    elif engine == "dask":
        import dask.dataframe as dd

        frame = dd.concat([dd.from_pandas(piece, npartitions=1) for piece in pieces])
        yield frame, lambda frame: frame.compute(scheduler="synchronous")
    else:
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        session = builder.config("spark.sql.shuffle.partitions", "3").getOrCreate()
        try:
            yield session.createDataFrame(pd.concat(pieces)), lambda frame: frame.toPandas()
        finally:
            session.stop()


def test_a_frame_becomes_one_of_its_engine_with_the_forecast_of_a_file(engine, panel):
    expected = forecast("in.parquet", **OPTIONS).forecast
    mixed = panel.sample(frac=1, random_state=0)
    with _frame_of(engine, [mixed.iloc[k::5] for k in range(5)]) as (frame, as_pandas):
        ahead = forecast_partitioned(frame, block_rows=400, **OPTIONS)
        assert type(ahead).__module__.split(".")[0] == type(frame).__module__.split(".")[0]
        table = as_pandas(ahead)
    assert list(table.columns) == list(expected.columns)
    table = table.sort_values(["unique_id", "ds"], ignore_index=True)
    expected = expected.sort_values(["unique_id", "ds"], ignore_index=True)
    pd.testing.assert_frame_equal(table, expected, check_exact=True, check_dtype=False)


def test_bad_frames_are_errors_before_any_work(engine, panel):
    with _frame_of(engine, [panel]) as (frame, _):
        with pytest.raises(DataError, match="'shop'"):
            forecast_partitioned(frame, id_column="shop", **OPTIONS)
        with pytest.raises(DataError, match="'sold'"):
            forecast_partitioned(frame, target=["sold"], **OPTIONS)
