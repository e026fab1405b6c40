"""Ray: tasks for the blocks of a file, and Ray Data for its own data sets."""

import contextlib
import functools
import math
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import joblib
import pandas as pd

from tsar.batch.block import Block
from tsar.batch.engines.engine import Cluster, Function, Result, Work, in_short
from tsar.batch.engines.splitting import BUCKET, rows_of_series, with_bucket
from tsar.batch.engines.worker import Mapped, loaded, run_packed
from tsar.exceptions import EngineError

__all__ = ["Ray"]

# Seconds until an address counts as one where nothing listens.
WAIT = 30


class Ray:
    """Ray as it is initialised, else the cluster of ``RAY_ADDRESS``, else one of this machine."""

    @contextlib.contextmanager
    def started(self, n_blocks: int) -> Iterator[Work]:
        import ray

        if ray.is_initialized():
            yield _work
            return
        _connect(n_blocks)
        try:
            yield _work
        finally:
            ray.shutdown()

    def holds(self, frame: Any) -> bool:
        import ray.data

        return isinstance(frame, ray.data.Dataset)

    def columns(self, frame: Any) -> list[Any]:
        return list(frame.columns() or [])

    def head(self, frame: Any, rows: int) -> pd.DataFrame:
        head: pd.DataFrame = frame.limit(rows).to_pandas()
        return head

    def counts(self, frame: Any, ids: list[Any]) -> pd.DataFrame:
        counts: pd.DataFrame = frame.groupby(ids).count().to_pandas()
        return counts

    def chosen(self, frame: Any, series: pd.DataFrame) -> pd.DataFrame:
        take = functools.partial(rows_of_series, series=series)
        rows: pd.DataFrame = frame.map_batches(take, batch_format="pandas").to_pandas()
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
        n_parts = math.ceil(frame.count() / block_rows)
        add = functools.partial(with_bucket, ids=ids, n_buckets=n_parts)
        parts = frame.map_batches(add, batch_format="pandas").groupby(BUCKET, n_parts)
        arguments = (mapped.key, mapped.content)
        return parts.map_groups(_Forecast, fn_constructor_args=arguments, batch_format="pandas")


class _Forecast:
    """What an actor does with parts; it loads the model once."""

    def __init__(self, key: str, content: bytes) -> None:
        self._function = loaded(key, lambda: content, one_thread=True)

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        forecast: pd.DataFrame = self._function(rows.drop(columns=BUCKET))
        return forecast


def _connect(n_blocks: int) -> None:
    """Connect to the cluster that the environment names, or start one."""
    import ray

    options: dict[str, Any] = {}
    if "RAY_ADDRESS" not in os.environ:
        # It is for this call alone, and reports to no one.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        n_workers = max(min(joblib.cpu_count(), n_blocks), 1)
        options = {"address": "local", "num_cpus": n_workers, "include_dashboard": False}
    try:
        _check_reached(os.environ.get("RAY_ADDRESS", ""))
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"batch: there is no Ray cluster: {in_short(error)}; start one, or unset RAY_ADDRESS "
            f"for one of this machine"
        ) from error


def _check_reached(address: str) -> None:
    """Raise an OSError where nothing listens at an address; Ray would ask for six minutes."""
    at = urlsplit(address if "://" in address else f"//{address}")
    if at.hostname is not None and at.port is not None:
        socket.create_connection((at.hostname, at.port), timeout=WAIT).close()


def _work(function: Function, blocks: Iterable[Block]) -> Iterator[Result]:
    import ray

    mapped = Mapped(function)
    content = ray.put(mapped.content)
    run = ray.remote(_run)
    cluster = Cluster(
        name="Ray",
        n_workers=max(int(ray.cluster_resources().get("CPU", 1)), 1),
        # In a list it stays a reference, which a worker follows once.
        submit=lambda task: run.remote(mapped.key, [content], task),
        result=ray.get,
        failures=(ray.exceptions.RayError, OSError),
    )
    return cluster.map(blocks)


def _run(key: str, content: list[Any], task: bytes) -> bytes:
    import ray

    return run_packed(key, lambda: ray.get(content[0]), task)
