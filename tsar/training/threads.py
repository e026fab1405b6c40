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
  OpenMP give way by themselves. How one waits changes no number, so training goes over to it when
  the system has begun to take its processors away, and an idle machine loses nothing.

A number of threads belongs to a thread, but torch also remembers the last one set for threads
that are still to begin. The companion puts that back at once.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["Threads", "working_threads"]

# Values read times weights, about the multiplications of a forward pass through linear maps.
SMALL = 1_000_000_000
# Involuntary switches in a second of processor time. Spinning beside two busy processes there
# were 265 of them, and some twenty where nobody minded.
CROWDED = 100.0
# Processor seconds between two looks.
BETWEEN_LOOKS = 0.1

_lock = threading.Lock()


def _in_forked_process() -> None:
    """Let one thread work in a forked process: the pool of OpenMP has not come along."""
    global _lock
    _lock = threading.Lock()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)


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
        self._seen = _switches()

    def look(self) -> None:
        """Go over to waiting patiently if others want the processors."""
        if self.n_threads == 1 or self._companion is not None:
            return
        count, seconds = _switches()
        before, since = self._seen
        if seconds - since < BETWEEN_LOOKS:
            return
        self._seen = count, seconds
        if count - before > CROWDED * (seconds - since):
            self.be_patient()

    def be_patient(self) -> None:
        """Wait without spinning from here on."""
        if self.n_threads == 1 or self._companion is not None:
            return
        # Both pools together are one more than the processors; each counts one thread, which is
        # that of Python, only once.
        size = max((os.cpu_count() or 1) - self.n_threads + 2, 2)
        ready = threading.Event()

        def stay() -> None:
            common = torch.get_num_threads()
            if common < size:
                torch.set_num_threads(size)
            # Enough numbers for every thread to be called.
            torch.zeros(size << 15).add_(1)
            if common < size:
                torch.set_num_threads(common)
            ready.set()
            self._done.wait()

        companion = threading.Thread(target=stay, daemon=True, name="tsar-companion")
        with _lock, contextlib.suppress(RuntimeError):
            # No thread can be started while the interpreter ends.
            companion.start()
            self._companion = companion
            ready.wait()

    def close(self) -> None:
        """Let go of the companion."""
        self._done.set()
        if self._companion is not None:
            self._companion.join()


@contextlib.contextmanager
def working_threads(
    network: nn.Module, values: Tensor, *, patient: bool = False
) -> Iterator[Threads]:
    """Work on batches with as many threads as gain from it, at most those of the caller.

    Parameters
    ----------
    network : nn.Module
    values : Tensor
        Contexts of a batch, of which the size counts.
    patient : bool, default False
        Wait patiently from the beginning; otherwise from when the machine is crowded, for which
        :meth:`Threads.look` looks.
    """
    before, process = torch.get_num_threads(), os.getpid()
    alone = before == 1 or not values.is_cpu or _work(network, values) < SMALL
    threads = Threads(1 if alone else before)
    try:
        if values.is_cpu and alone and before > 1:
            _set_threads(1)
        if patient:
            threads.be_patient()
        yield threads
    finally:
        threads.close()
        # A process that was forked inside of the block stays with one thread.
        if torch.get_num_threads() != before and os.getpid() == process:
            _set_threads(before)


def _work(network: nn.Module, values: Tensor) -> int:
    return values.numel() * sum(weights.numel() for weights in network.parameters())


def _set_threads(n_threads: int) -> None:
    """Give this thread so many, and threads that are to begin what they would have had."""
    ready, changed = threading.Event(), threading.Event()

    def restore() -> None:
        # A thread that begins has the number of all that are to begin.
        common = torch.get_num_threads()
        ready.set()
        changed.wait()
        torch.set_num_threads(common)

    helper = threading.Thread(target=restore, daemon=True, name="tsar-companion")
    try:
        with _lock, contextlib.suppress(RuntimeError):
            # No thread can be started while the interpreter ends.
            helper.start()
            try:
                ready.wait()
                torch.set_num_threads(n_threads)
            finally:
                changed.set()
                helper.join()
    finally:
        # Also if the keyboard interrupted what is above.
        if torch.get_num_threads() != n_threads:
            torch.set_num_threads(n_threads)


def _switches() -> tuple[int, float]:
    """Return how often the system took a processor away so far, and the processor seconds."""
    if resource is None:
        return 0, time.process_time()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_nivcsw, used.ru_utime + used.ru_stime
