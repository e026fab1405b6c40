"""What an engine does, and the one of this process."""

import contextlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd

from tsar.batch.block import Block
from tsar.batch.engines.worker import opened, packed
from tsar.exceptions import EngineError

__all__ = ["Cluster", "Engine", "FrameEngine", "Local", "Work", "in_short"]

Result = tuple[pd.DataFrame, dict[str, Any]]
Function = Callable[[Block], Result]
# Takes what is to be done with each block, and the blocks; returns what became of them, in order.
Work = Callable[[Function, Iterable[Block]], Iterator[Result]]

# Blocks that wait for a worker, for each of them: while one is forecast, the next one is read.
BLOCKS_PER_WORKER = 2
# How a trace ends.
RAISED = re.compile(r"^\s*([\w.]+(?:Error|Exception): .*)$", re.MULTILINE)


class Engine(Protocol):
    """Something that maps a function over blocks of series."""

    def started(self, n_blocks: int) -> AbstractContextManager[Work]:
        """Connect to a cluster, or start one on this machine for as long as it is needed.

        Parameters
        ----------
        n_blocks : int
            How much there is to share.

        Raises
        ------
        EngineError
            There is no such cluster, or while it works, it ends.
        """


class FrameEngine(Engine, Protocol):
    """An engine that has frames of its own."""

    def holds(self, frame: Any) -> bool:
        """Whether a frame is one of this engine."""

    def columns(self, frame: Any) -> list[Any]:
        """The names of its columns."""

    def head(self, frame: Any, rows: int) -> pd.DataFrame:
        """Some of its rows."""

    def counts(self, frame: Any, ids: list[Any]) -> pd.DataFrame:
        """Each id, in the columns ``ids``, with its number of rows in the last column."""

    def chosen(self, frame: Any, series: pd.DataFrame) -> pd.DataFrame:
        """The rows of some series, whose ids are the rows of a frame."""

    def mapped(
        self,
        frame: Any,
        function: Callable[[pd.DataFrame], pd.DataFrame],
        form: pd.DataFrame,
        ids: list[Any],
        block_rows: int,
    ) -> Any:
        """Bring the rows of each series together, and map a function over such parts, lazily.

        Parameters
        ----------
        frame : frame of the engine
        function : callable
            Takes rows of whole series, and returns rows of ``form``.
        form : DataFrame
            What it returns, without rows.
        ids : list of labels
            The columns of the id.
        block_rows : int
            Rows of a part, if the engine leaves that open.
        """


class Local:
    """This process, one block after the other."""

    def started(self, n_blocks: int) -> AbstractContextManager[Work]:
        return contextlib.nullcontext(map)


@dataclass(frozen=True)
class Cluster:
    """Workers that are given blocks as they become free.

    Parameters
    ----------
    name : str
        Of the engine, for errors.
    n_workers : int
        A few blocks for each of them are read ahead, and no more.
    submit : callable
        Takes a packed block, and returns what stands for the result.
    result : callable
        Waits for it.
    failures : tuple of type
        What these two raise where the cluster has ended, or has tried too often.
    """

    name: str
    n_workers: int
    submit: Callable[[bytes], Any]
    result: Callable[[Any], bytes]
    failures: tuple[type[BaseException], ...]

    def map(self, blocks: Iterable[Block]) -> Iterator[Result]:
        """Return what became of the blocks, in their order.

        Raises
        ------
        EngineError
            The cluster has ended.
        """
        waiting: deque[Any] = deque()
        for block in blocks:
            if len(waiting) == BLOCKS_PER_WORKER * self.n_workers:
                yield self._next(waiting)
            with self._failing():
                waiting.append(self.submit(packed(block)))
        while waiting:
            yield self._next(waiting)

    def _next(self, waiting: deque[Any]) -> Result:
        with self._failing():
            result = self.result(waiting.popleft())
        opened_result: Result = opened(result)
        return opened_result

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except self.failures as error:
            raise EngineError(
                f"batch: {self.name} gave up a block: {in_short(error)}; call it again "
                f"when the cluster is well; with out= and resume=True it takes finished blocks as "
                f"they are"
            ) from error


def in_short(error: BaseException) -> str:
    """Say what went wrong, without the traces that engines put into their errors."""
    text = str(error).strip()
    raised = RAISED.findall(text)
    return f"{type(error).__name__}: {raised[-1] if raised else text.partition(chr(10))[0]}"
