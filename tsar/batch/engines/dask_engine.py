"""Dask: the distributed scheduler for the blocks of a file, and its own data frames."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import joblib
import pandas as pd

from tsar.batch.block import Block
from tsar.batch.engines.engine import Cluster, Function, Result, Work, in_short
from tsar.batch.engines.worker import Mapped, loaded, run_packed
from tsar.exceptions import EngineError

__all__ = ["Dask"]

# Seconds until a cluster without workers counts as none, or as one that has ended.
WAIT = 30


class Dask:
    """The current client, else that of the configured address, else a cluster of this machine."""

    @contextlib.contextmanager
    def started(self, n_blocks: int) -> Iterator[Work]:
        import distributed

        try:
            client, ours = distributed.get_client(), False
        except ValueError:
            client, ours = _connect(n_blocks), True
        try:
            _wait_for_workers(client)
            yield functools.partial(_work, client)
        finally:
            if ours:
                client.close()
                if client.cluster is not None:
                    client.cluster.close()

    def holds(self, frame: Any) -> bool:
        import dask.dataframe as dd

        return isinstance(frame, dd.DataFrame)

    def columns(self, frame: Any) -> list[Any]:
        return list(frame.columns)

    def head(self, frame: Any, rows: int) -> pd.DataFrame:
        head: pd.DataFrame = frame.head(rows, npartitions=-1)
        return head

    def counts(self, frame: Any, ids: list[Any]) -> pd.DataFrame:
        counts: pd.DataFrame = frame.groupby(ids).size().compute().rename("rows").reset_index()
        return counts

    def chosen(self, frame: Any, series: pd.DataFrame) -> pd.DataFrame:
        rows: pd.DataFrame = frame.merge(series, on=list(series.columns), how="inner").compute()
        return rows

    def mapped(
        self,
        frame: Any,
        function: Callable[[pd.DataFrame], pd.DataFrame],
        form: pd.DataFrame,
        ids: list[Any],
        block_rows: int,
    ) -> Any:
        import dask

        mapped = Mapped(function)
        content = dask.delayed(mapped.content)
        return frame.shuffle(on=ids).map_partitions(_forecast, mapped.key, content, meta=form)


def _forecast(rows: pd.DataFrame, key: str, content: bytes) -> pd.DataFrame:
    import distributed

    try:
        distributed.get_worker()
        # A process among others; without a scheduler it is the process that asked.
        shared = True
    except ValueError:
        shared = False
    forecast: pd.DataFrame = loaded(key, lambda: content, one_thread=shared)(rows)
    return forecast


def _connect(n_blocks: int) -> Any:
    """Connect to the cluster that the configuration names, or start one."""
    import dask
    import distributed

    options: dict[str, Any] = {}
    if not dask.config.get("scheduler-address", None):
        options = {
            "n_workers": max(min(joblib.cpu_count(), n_blocks), 1),
            "threads_per_worker": 1,
            "dashboard_address": None,
            "silence_logs": "ERROR",
        }
    try:
        return distributed.Client(**options)
    except (OSError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"batch: there is no Dask cluster: {in_short(error)}; start one, or leave the "
            f"address of the scheduler out for one of this machine"
        ) from error


def _wait_for_workers(client: Any) -> None:
    try:
        client.wait_for_workers(1, timeout=WAIT)
    except (OSError, RuntimeError) as error:
        raise EngineError(
            f"batch: the Dask cluster has no workers: {in_short(error)}; start some, or close "
            f"the client for a cluster of this machine"
        ) from error


def _work(client: Any, function: Function, blocks: Iterable[Block]) -> Iterator[Result]:
    import dask
    import distributed

    mapped = Mapped(function)
    # As a result it is kept by the workers, and made again where the last of them is lost.
    content = client.submit(_same, mapped.content, pure=False)

    def submit(task: bytes) -> Any:
        # What is read ahead is bounded, so that there is nothing to warn of.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            return client.submit(_run, mapped.key, content, task, pure=False)

    def result(future: Any) -> bytes:
        while True:
            try:
                done: bytes = future.result(timeout=WAIT)
                return done
            except TimeoutError:
                # Dask waits for new workers without an end.
                if not client.nthreads():
                    raise TimeoutError("no workers are left") from None

    cluster = Cluster(
        name="Dask",
        n_workers=max(sum(client.nthreads().values()), 1),
        submit=submit,
        result=result,
        failures=(
            distributed.KilledWorker,
            distributed.CancelledError,
            distributed.client.FutureCancelledError,
            OSError,
            RuntimeError,
        ),
    )
    return cluster.map(blocks)


def _same(content: bytes) -> bytes:
    return content


def _run(key: str, content: bytes, task: bytes) -> bytes:
    return run_packed(key, lambda: content, task)
