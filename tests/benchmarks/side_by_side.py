"""Two environments taking turns at the same job, so that a drifting machine hits both."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["ROOT", "answer", "take_turns"]

ROOT = Path(__file__).resolve().parents[2]
# Threads that have nothing left to do spin for some milliseconds before they sleep; those of one
# side must not do so in the turn of the other.
_SECONDS_BETWEEN_TURNS = 0.1


def answer(job: Callable[[], object], *, own_clock: bool = False) -> None:
    """Run the job once for every line of the input; answer with its seconds.

    With ``own_clock`` the job returns the seconds that count, such as those of one of
    many steps; otherwise all of it counts.
    """
    for _ in sys.stdin:
        started, busy = time.perf_counter(), time.process_time()
        result = job()
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        if own_clock:
            assert isinstance(result, float)
            # The processor worked for the one as it did for the whole.
            seconds, busy = result, busy * result / seconds
        print(seconds, busy, flush=True)


class _Worker:
    """A process of one environment that does its job when asked to."""

    def __init__(self, command: list[str], checkout: Path | None) -> None:
        # The last lines of an error are shown; what toolkits print on the way is not.
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": "" if checkout is None else str(checkout)},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if checkout is None else subprocess.PIPE,
        )

    def run(self) -> tuple[float, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        while line and not _is_timing(line):
            line = self.process.stdout.readline()
        if not line:
            errors = self.process.stderr.read() if self.process.stderr else ""
            raise SystemExit(f"the worker {self.process.args} ended early\n{errors}")
        seconds, busy = line.split()
        return float(seconds), float(busy)


def _is_timing(line: str) -> bool:
    """Whether a line is an answer, and not something a toolkit prints."""
    try:
        return len([float(word) for word in line.split()]) == 2
    except ValueError:
        return False


def take_turns(
    sides: dict[str, tuple[list[str], Path | None]], *, warmup: int, repeats: int, what: str
) -> float:
    """Let two workers take turns and print their medians and the ratio.

    Parameters
    ----------
    sides : dict of str to pair of list of str and Path or None
        By name, a command that calls :func:`answer` and the checkout of tsar that it imports,
        None for another toolkit: the other side first, then this one.
    warmup, repeats : int
        Turns not counted, and counted.
    what : str
        What a turn is, for the report.

    Returns
    -------
    float
        Median over the turns of their time divided by ours.
    """
    workers = {name: _Worker(*side) for name, side in sides.items()}
    other, this = sides
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
    for turn in range(warmup + repeats):
        for name, worker in workers.items():
            time.sleep(_SECONDS_BETWEEN_TURNS)
            timing = worker.run()
            if turn >= warmup:
                times[name].append(timing)
    for worker in workers.values():
        worker.process.communicate()
    print(what)
    for name, timings in times.items():
        seconds, busy = (statistics.median(column) for column in zip(*timings, strict=True))
        fastest = min(s for s, _ in timings)
        print(
            f"  {name:>14}: {seconds * 1e3:9.2f} ms "
            f"(fastest {fastest * 1e3:.2f} ms, processor {busy * 1e3:.2f} ms)"
        )
    pairs = zip(times[other], times[this], strict=True)
    ratio = statistics.median(a / b for (a, _), (b, _) in pairs)
    print(f"  {'ratio':>14}: {ratio:9.2f} (median of {repeats} turns)", flush=True)
    return ratio
