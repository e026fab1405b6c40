"""Spark: a job for each block of a file, and its own data frames."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd

from tsar.batch.block import Block
from tsar.batch.engines.engine import Cluster, Function, Result, Work, in_short
from tsar.batch.engines.splitting import whole_series
from tsar.batch.engines.worker import Mapped, loaded, run_packed
from tsar.exceptions import EngineError, foreign_warnings

__all__ = ["Spark"]

# Where the environment says which cluster it is.
CONFIGURED = (
    *("SPARK_HOME", "SPARK_CONF_DIR", "SPARK_REMOTE"),
    *("PYSPARK_GATEWAY_PORT", "PYSPARK_SUBMIT_ARGS"),
)
TRIES = 4


class Spark:
    """The active session, else one as the environment configures it, by default of this machine."""

    @contextlib.contextmanager
    def started(self, n_blocks: int) -> Iterator[Work]:
        session, ours = _session()
        n_workers = _parallelism(session)
        try:
            # A job waits in its thread; Spark shares the workers among the jobs.
            with ThreadPoolExecutor(n_workers) as threads:
                try:
                    yield functools.partial(_work, session, n_workers, threads)
                finally:
                    threads.shutdown(cancel_futures=True)
        finally:
            if ours:
                # One that has ended by itself cannot be stopped.
                with contextlib.suppress(OSError):
                    session.stop()

    def holds(self, frame: Any) -> bool:
        from pyspark.sql import DataFrame

        return isinstance(frame, DataFrame)

    def columns(self, frame: Any) -> list[Any]:
        return list(frame.columns)

    def head(self, frame: Any, rows: int) -> pd.DataFrame:
        head: pd.DataFrame = frame.limit(rows).toPandas()
        return head

    def counts(self, frame: Any, ids: list[Any]) -> pd.DataFrame:
        counts: pd.DataFrame = frame.groupBy(*ids).count().toPandas()
        return counts

    def chosen(self, frame: Any, series: pd.DataFrame) -> pd.DataFrame:
        wanted = frame.sparkSession.createDataFrame(series)
        rows: pd.DataFrame = frame.join(wanted, list(series.columns), "left_semi").toPandas()
        return rows

    def mapped(
        self,
        frame: Any,
        function: Callable[[pd.DataFrame], pd.DataFrame],
        form: pd.DataFrame,
        ids: list[Any],
        block_rows: int,
    ) -> Any:
        mapped = Mapped(function)
        over = functools.partial(_forecasts, mapped.key, mapped.content, ids, block_rows)
        together = frame.repartition(*ids).sortWithinPartitions(*ids)
        return together.mapInPandas(over, _schema(frame, form))


def _schema(frame: Any, form: pd.DataFrame) -> Any:
    """Return the types of a forecast: ids and times have those of the data."""
    from pyspark.sql import types

    own = {field.name: field.dataType for field in frame.schema.fields}
    fields = []
    for name, dtype in form.dtypes.items():
        number = pd.api.types.is_numeric_dtype(dtype)
        kind = types.DoubleType() if number else own.get(name, types.StringType())
        fields.append(
            types.StructField(str(name), own[name] if name in own and not number else kind)
        )
    return types.StructType(fields)


def _forecasts(
    key: str, content: bytes, ids: list[Any], block_rows: int, frames: Iterator[pd.DataFrame]
) -> Iterator[pd.DataFrame]:
    function = loaded(key, lambda: content, one_thread=True)
    id_column = ids if len(ids) > 1 else ids[0]
    return map(function, whole_series(frames, id_column, block_rows))


def _session() -> tuple[Any, bool]:
    """Return the active session, or a new one, and whether it is new."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    try:
        session = SparkSession.getActiveSession()
        return (_new_session(), True) if session is None else (session, False)
    except (PySparkException, Py4JError, OSError, RuntimeError) as error:
        raise EngineError(
            f"batch: there is no Spark session: {in_short(error)}; Spark takes a Java runtime "
            f"(JAVA_HOME), and a cluster that runs where the environment names one"
        ) from error


def _new_session() -> Any:
    from pyspark.sql import SparkSession

    # Else Spark takes the python3 of the path, which may be another one.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("tsar")
    if not any(name in os.environ for name in CONFIGURED):
        # A lost worker is no lost job: without the number Spark tries only once on one machine.
        builder = builder.master(f"local[*, {TRIES}]")
    for name in ("spark.ui.enabled", "spark.ui.showConsoleProgress"):
        builder = builder.config(name, "false")
    with foreign_warnings("ignore", FutureWarning):
        return builder.getOrCreate()


def _parallelism(session: Any) -> int:
    """Return how many tasks run at the same time."""
    try:
        return max(int(session.sparkContext.defaultParallelism), 1)
    except AttributeError:
        return 1


def _work(
    session: Any,
    n_workers: int,
    threads: ThreadPoolExecutor,
    function: Function,
    blocks: Iterable[Block],
) -> Iterator[Result]:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    mapped = Mapped(function)
    run = functools.partial(_run, mapped.key, mapped.content)

    def job(task: bytes) -> bytes:
        # Spark warns of every pandas that is newer than itself.
        with foreign_warnings("ignore", FutureWarning):
            tasks = session.createDataFrame([(bytearray(task),)], "task binary").coalesce(1)
            (row,) = tasks.mapInPandas(run, "result binary").collect()
        return bytes(row.result)

    cluster = Cluster(
        name="Spark",
        n_workers=n_workers,
        submit=lambda task: threads.submit(job, task),
        result=lambda future: future.result(),
        failures=(PySparkException, Py4JError, OSError),
    )
    return cluster.map(blocks)


def _run(key: str, content: bytes, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    for frame in frames:
        results = [run_packed(key, lambda: content, bytes(task)) for task in frame["task"]]
        yield pd.DataFrame({"result": results})
