import pickle
import re
import threading
import warnings

import pytest

from tsar.exceptions import DataWarning, InterruptedWarning, foreign_warnings, own_warnings, warn


class _Meeting:
    """A thread that does one thing after the other, when it is told to."""

    def __init__(self, *jobs):
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._work, args=(jobs,))
        self.thread.start()

    def _work(self, jobs):
        for job in jobs:
            self.go.acquire()
            job()
            self.done.release()

    def next(self):
        self.go.release()
        assert self.done.acquire(timeout=10)


@pytest.mark.parametrize("order", ["abab", "abba"])
def test_threads_enter_and_leave_in_any_order(order):
    before = list(warnings.filters)

    def meeting():
        block = foreign_warnings("ignore", Warning)
        return _Meeting(block.__enter__, lambda: block.__exit__(None, None, None))

    met = {name: meeting() for name in "ab"}
    for name in order:
        with pytest.warns(UserWarning, match="here"):
            warnings.warn("here", UserWarning, stacklevel=1)
        met[name].next()
    for one in met.values():
        one.thread.join()
    assert warnings.filters == before


def test_a_block_concerns_its_own_thread_only():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")

        def elsewhere():
            warnings.warn("elsewhere", UserWarning, stacklevel=1)
            warn("ours, elsewhere", DataWarning)

        with foreign_warnings("ignore", Warning), own_warnings("ignore", DataWarning):
            warnings.warn("here", UserWarning, stacklevel=1)
            warn("ours, here", DataWarning)
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
    assert [str(one.message) for one in seen] == ["elsewhere", "ours, elsewhere"]


def test_warnings_become_errors():
    with own_warnings("ignore", UserWarning), own_warnings("error", InterruptedWarning):
        warn("held back", DataWarning)
        with pytest.raises(InterruptedWarning, match="cut short"):
            warn("cut short", InterruptedWarning)
    with foreign_warnings("error", DeprecationWarning), pytest.raises(DeprecationWarning):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


def test_a_filter_goes_to_other_processes_as_a_pattern():
    with foreign_warnings("ignore", BytesWarning):
        (entry,) = (one for one in warnings.filters if one[2] is BytesWarning)
        inside = pickle.loads(pickle.dumps(entry))
    outside = pickle.loads(pickle.dumps(entry))
    assert inside[1] == re.compile("") and outside[1].match("") is None
