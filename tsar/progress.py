"""Progress bars: one at a time, where somebody can see it, and nothing at all elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

__all__ = ["beside_bars", "in_place_of_bars", "on_terminal", "progress"]

# What shows how far the present work is, which takes a description and values.
Teller = Callable[[str, dict[str, Any]], None]
_shown: ContextVar[Teller | None] = ContextVar("shown", default=None)


class _Hidden:
    """Stands in for a bar."""

    def __enter__(self) -> "_Hidden":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        pass

    def set_postfix(self, **values: Any) -> None:
        pass


class _Inner(_Hidden):
    """Work inside of other work that has a bar: it is told there, as two bars tear each other."""

    def __init__(self, tell: Teller, what: str) -> None:
        self.tell, self.what = tell, what

    def __enter__(self) -> "_Inner":
        self.tell(self.what, {})
        return self

    def set_postfix(self, **values: Any) -> None:
        self.tell(self.what, values)


class _Shown(_Hidden):
    """A bar of tqdm."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def __enter__(self) -> "_Shown":
        self._token = _shown.set(self._tell)
        return self

    def __exit__(self, *error: object) -> None:
        _shown.reset(self._token)
        self.bar.close()

    def _tell(self, what: str, values: dict[str, Any]) -> None:
        told = ", ".join(f"{name}={value}" for name, value in values.items())
        self.bar.set_postfix_str(f"{what}: {told}" if told else what)

    def update(self, n: int = 1) -> None:
        self.bar.update(n)

    def set_postfix(self, **values: Any) -> None:
        self.bar.set_postfix(**values)


def on_terminal() -> bool:
    """Return whether the error output is a terminal; a program without a console has none."""
    return sys.stderr is not None and sys.stderr.isatty()


def progress(*, shown: bool, desc: str, **options: Any) -> Any:
    """Return a bar for a ``with`` statement, or what takes the same calls.

    A bar is drawn on a terminal, or as a widget of a notebook that is gone when it is done.
    Within another bar there is none: its description and values are shown by that one. A bar of
    tqdm that is disabled still takes a lock of the whole process and starts a thread that takes it
    again every ten seconds; a process that is forked in such a moment would wait for it for ever,
    so that bars which are not shown are none of tqdm.

    Parameters
    ----------
    shown : bool
        Whether one is wanted.
    desc : str
    **options
        Of tqdm.
    """
    if not shown:
        return _Hidden()
    outer = _shown.get()
    if outer is not None:
        return _Inner(outer, desc)
    # Only here: it looks for a notebook, and imports what draws in one.
    from tqdm.auto import tqdm

    if any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__):
        return _Shown(tqdm(desc=desc, **{**options, "leave": False}))
    if not on_terminal():
        return _Hidden()
    return _Shown(tqdm(desc=desc, **options))


@contextlib.contextmanager
def in_place_of_bars(tell: Teller) -> Iterator[None]:
    """Show how far work is in another way inside of a ``with`` block.

    Parameters
    ----------
    tell : callable
        Takes a description and a dict of values.
    """
    token = _shown.set(tell)
    try:
        yield
    finally:
        _shown.reset(token)


@contextlib.contextmanager
def beside_bars() -> Iterator[None]:
    """Let what is written inside of a ``with`` block begin on a line of its own."""
    if _shown.get() is None:
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode():
        yield
