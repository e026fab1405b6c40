"""How many threads work on something, and how they wait for each other.

Threads of torch meet after each of thousands of operations, most of which take microseconds,
and wait there by spinning. On an idle machine that is the fastest way. Beside other work, the one
waited for may have lost its processor for some milliseconds, and those who wait keep theirs from
everybody meanwhile, tsar included. Two remedies, of which neither depends on a measured time in
what it makes of the numbers:

- What is too small to gain from several threads is done by one. How many numbers there are decides,
  so that the same data and model are computed in the same way, bit for bit.
- What is larger keeps its threads and waits patiently: it sleeps after some microseconds. GNU
  OpenMP does so by itself once its pools have more threads than there are processors, and a
  companion thread holds such a pool, which does nothing. Nothing else reaches the way of waiting
  in a process that has imported torch: OMP_WAIT_POLICY is read once. Other implementations of
  OpenMP are not reached. How one waits changes no number, so work goes over to it when
  the system has begun to take its processors away, and an idle machine loses nothing. What one
  piece of work has seen the next one knows: a forecast is over before it has seen anything.

A number of threads belongs to a thread, but torch also remembers the last one set for threads
that are still to begin. The companion puts that back at once.
"""

import _thread
import contextlib
import dataclasses
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Threads", "is_crowded", "largest_tensor", "settle_number", "working_threads"]

# Values of a batch times weights, which grows with the time of a step. Fits of 2e7 (NLinear) lose
# nothing with one thread instead of two, those of 2e8 (PatchTST on three variates) a tenth; those
# of 1e10 lose a third to a half.
SMALL = 1_000_000_000
# Seconds for which a thread waited for a processor in a second of work: at most .05 on an idle
# machine, spinning or patient. Beside one process more than there are processors .2 to .7, and
# beside two 1.
CROWDED = 0.2
# Seconds of work between two looks.
BETWEEN_LOOKS = 0.05

# Since Linux 2.6.24: nanoseconds at work, nanoseconds of waiting for a processor.
SCHEDULE_STATISTICS = "/proc/thread-self/schedstat"

_lock = threading.Lock()
_counted: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()


def _in_forked_process() -> None:
    """Let one thread work in a forked process: the pool of OpenMP has not come along."""
    global _lock, _crowd
    _lock, _crowd = threading.Lock(), _Crowd()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)


def _schedule() -> tuple[float, float]:
    """Return the seconds at work and those of waiting for a processor, of this thread."""
    try:
        with open(SCHEDULE_STATISTICS, "rb") as file:
            worked, waited, _ = map(int, file.read().split())
    except (OSError, ValueError):
        return 0.0, 0.0
    return worked / 1e9, waited / 1e9


class _Crowd(threading.local):
    """Whether others want the processors, as this thread has seen it last.

    Where the system does not tell, nobody does.
    """

    def __init__(self) -> None:
        self.is_there = False
        self._looked = time.thread_time()
        self._worked, self._waited = _schedule()

    def look(self) -> bool:
        """Look again if there was work enough since the last time."""
        now = time.thread_time()
        if now - self._looked >= BETWEEN_LOOKS:
            worked, waited = _schedule()
            self.is_there = waited - self._waited > CROWDED * (worked - self._worked)
            self._looked, self._worked, self._waited = now, worked, waited
        return self.is_there


_crowd = _Crowd()


def is_crowded() -> bool:
    """Whether others wanted the processors when this thread last worked."""
    return _crowd.look()


class Threads:
    """The threads of a piece of work, and how they wait.

    Parameters
    ----------
    n_threads : int
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._companion: threading.Thread | None = None
        self._done = threading.Event()

    def look(self) -> None:
        """Go over to waiting patiently if others want the processors."""
        if self.n_threads > 1 and self._companion is None and is_crowded():
            self.be_patient()

    def be_patient(self) -> None:
        """Wait without spinning from here on."""
        if self.n_threads == 1 or self._companion is not None:
            return
        # Both pools together are one more than the processors; each counts one thread, which is
        # that of Python, only once.
        size = max((os.cpu_count() or 1) - self.n_threads + 2, 2)
        settled = threading.Event()

        def stay() -> None:
            common = torch.get_num_threads()
            if common >= size:
                settled.set()
            else:
                torch.set_num_threads(size)
            # Enough numbers for every thread to be called.
            torch.zeros(size << 15).add_(1)
            if common < size:
                torch.set_num_threads(common)
                settled.set()
            self._done.wait()

        companion = threading.Thread(target=stay, daemon=True, name="tsar-companion")
        with _lock, contextlib.suppress(RuntimeError):
            # No thread can be started while the interpreter ends.
            companion.start()
            self._companion = companion
            settled.wait()

    def close(self) -> None:
        """Let go of the companion."""
        self._done.set()
        if self._companion is not None:
            self._companion.join()


@contextlib.contextmanager
def working_threads(network: nn.Module, n_values: int, device: torch.device) -> Iterator[Threads]:
    """Work on batches with as many threads as gain from it, at most those of the caller.

    Parameters
    ----------
    network : nn.Module
    n_values : int
        How many numbers a batch has, of which the size counts.
    device : torch.device

    Yields
    ------
    Threads
        Which wait patiently where the machine is crowded at the beginning, or when
        :meth:`Threads.look` sees that it has become so.
    """
    before = torch.get_num_threads()
    if before == 1 or device.type != "cpu":
        yield Threads(1)
    elif n_values * _n_weights(network) < SMALL:
        with _one_thread(before):
            yield Threads(1)
    else:
        threads = Threads(before)
        try:
            threads.look()
            yield threads
        finally:
            threads.close()


def _n_weights(network: nn.Module) -> int:
    # Counting takes a tenth of a millisecond, which short forecasts notice.
    if network not in _counted:
        _counted[network] = sum(weights.numel() for weights in network.parameters())
    return _counted[network]


def settle_number() -> None:
    """Let this thread have the number of threads that all are to have, before it computes.

    Torch gives a thread its number at its first operation. The number for threads to come is
    wrong for the instant in which another thread sets one for itself alone; a thread that began to
    compute just then would keep that.
    """
    with _lock:
        torch.get_num_threads()


def largest_tensor(batch: Any) -> Tensor | None:
    """Return the largest tensor in a batch of any kind, None where there is none."""
    if isinstance(batch, Tensor):
        return batch
    parts: Iterable[Any] = ()
    if isinstance(batch, Mapping):
        parts = batch.values()
    elif isinstance(batch, list | tuple):
        parts = batch
    elif dataclasses.is_dataclass(batch):
        parts = vars(batch).values()
    tensors = [tensor for tensor in map(largest_tensor, parts) if tensor is not None]
    return max(tensors, key=Tensor.numel, default=None)


@contextlib.contextmanager
def _one_thread(before: int) -> Iterator[None]:
    """Work with one thread; threads that begin meanwhile have what they would have had."""
    ready, go, done = (_thread.allocate_lock() for _ in range(3))
    for lock in (ready, go, done):
        lock.acquire()

    def keep() -> None:
        # A thread that begins has the number of all that are to begin.
        common = torch.get_num_threads()
        ready.release()
        for _ in range(2):
            go.acquire()
            torch.set_num_threads(common)
            done.release()

    process, settled = os.getpid(), False
    try:
        with _lock:
            # No thread can be started while the interpreter ends. This way of starting one takes
            # a third of the time of threading.Thread, which a forecast of 2 ms would notice.
            with contextlib.suppress(RuntimeError):
                _thread.start_new_thread(keep, ())
                ready.acquire()
                settled = True
            torch.set_num_threads(1)
            if settled:
                go.release()
                done.acquire()
        yield
    finally:
        # A process that was forked inside of the block stays with one thread.
        if os.getpid() == process:
            torch.set_num_threads(before)
            if settled:
                with _lock:
                    go.release()
                    done.acquire()
