import sys

import pytest
import tqdm.auto
import tqdm.std

from tsar.progress import beside_bars, in_place_of_bars, progress


@pytest.fixture
def no_bar(monkeypatch):
    """Fail where a bar of tqdm is made."""

    def fail(*args, **options):
        raise AssertionError("a bar was made")

    monkeypatch.setattr(tqdm.std.tqdm, "__init__", fail)


def test_a_hidden_bar_is_none_of_tqdm(no_bar, terminal):
    with progress(shown=False, desc="counting", total=3) as bar:
        bar.update()
        bar.set_postfix(loss="1")
    with pytest.raises(AssertionError, match="a bar was made"):
        progress(shown=True, desc="counting", total=3)


def test_without_a_terminal_nothing_is_drawn(no_bar, monkeypatch):
    for stream in (sys.stderr, None):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress(shown=True, desc="counting", total=3) as bar:
            bar.update()


def test_one_bar_at_a_time(capsys, terminal):
    options = {"total": 2, "mininterval": 0}
    with progress(shown=True, desc="outer", **options) as outer:
        for _ in range(2):
            with progress(shown=True, desc="inner", **options) as inner:
                inner.update()
                inner.set_postfix(loss="0.25")
            outer.update()
    written = capsys.readouterr().err
    lines = [line.rpartition("\r")[2] for line in written.split("\n") if line.strip()]
    # Of a second bar there would be lines of its own, and ways to move between them.
    assert len(lines) == 1 and "\x1b[A" not in written
    assert "outer: 100%" in lines[0] and "2/2" in lines[0]
    assert "inner: loss=0.25" in written and "inner:   0%" not in written
    # The next one is drawn again.
    with progress(shown=True, desc="later", **options):
        pass
    assert "later:   0%" in capsys.readouterr().err


def test_a_bar_that_ends_with_an_error_makes_room(capsys, terminal):
    with pytest.raises(KeyError), progress(shown=True, desc="first", total=2):
        raise KeyError("broken")
    with progress(shown=True, desc="second", total=2):
        pass
    assert "second:   0%" in capsys.readouterr().err


def test_something_else_shows_what_bars_would(no_bar, terminal):
    told = []
    with (
        in_place_of_bars(lambda what, values: told.append((what, values))),
        progress(shown=True, desc="training", total=3) as bar,
    ):
        bar.set_postfix(epoch=1)
    assert told == [("training", {}), ("training", {"epoch": 1})]


def test_a_widget_of_a_notebook_goes_when_it_is_done(monkeypatch):
    made = []

    class Widget:
        def __init__(self, **options):
            made.append(options)

        def close(self):
            made.append("closed")

    Widget.__module__ = "tqdm.notebook"
    monkeypatch.setattr(tqdm.auto, "tqdm", Widget)
    with progress(shown=True, desc="training", total=3):
        pass
    assert made == [{"desc": "training", "total": 3, "leave": False}, "closed"]


def test_lines_are_written_without_bars_as_they_are(capsys):
    with beside_bars():
        sys.stderr.write("line")
    assert capsys.readouterr().err == "line"
