import pickle
import re
import threading
import warnings

import pytest

from tsar.exceptions import (
    BackendWarning,
    DataWarning,
    InterruptedWarning,
    each_warning_once,
    foreign_warnings,
    own_warnings,
    warn,
)


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


def _say(name, number, example):
    warn(f"{name}: {number} of 9 series are short (the first: {example}); see there", DataWarning)


def test_each_kind_of_warning_comes_once():
    with warnings.catch_warnings(record=True) as caught, each_warning_once():
        warnings.simplefilter("always")
        for name in ("NLinear", "DLinear"):
            _say(name, 3, "Bern")
            _say(name, 4, "Genf")
        warn("DLinear: something else", DataWarning)
        warn("DLinear: something else", BackendWarning)
    assert [str(one.message) for one in caught] == [
        "NLinear: 3 of 9 series are short (the first: Bern); see there "
        "[given 4 times by 2 models: NLinear, DLinear]",
        "DLinear: something else",
        "DLinear: something else",
    ]
    assert [one.category for one in caught] == [DataWarning, DataWarning, BackendWarning]
    # In the name of the line that led to it.
    assert {one.filename for one in caught} == {__file__}


def test_the_outermost_block_gives_the_warnings():
    @each_warning_once()
    def inner():
        _say("NLinear", 1, "Bern")

    with pytest.warns(DataWarning, match=r"\[given 2 times\]") as caught, each_warning_once():
        inner()
        inner()
    assert len(caught) == 1
    with pytest.warns(DataWarning, match="see there$"):
        inner()


def test_an_error_is_not_hidden_by_warnings_and_hides_none():
    with pytest.warns(DataWarning, match="NLinear"), pytest.raises(KeyError), each_warning_once():
        _say("NLinear", 1, "Bern")
        raise KeyError("broken")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyError), each_warning_once():
            _say("NLinear", 1, "Bern")
            raise KeyError("broken")
        with pytest.raises(DataWarning), each_warning_once():
            _say("NLinear", 1, "Bern")


def test_what_is_held_back_is_not_gathered():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with each_warning_once(), own_warnings("ignore", DataWarning):
            _say("NLinear", 1, "Bern")
    with each_warning_once(), own_warnings("error", DataWarning), pytest.raises(DataWarning):
        _say("NLinear", 1, "Bern")
