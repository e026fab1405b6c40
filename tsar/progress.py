"""Progress bars, of which nothing is there unless they are shown."""

from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

__all__ = ["progress"]


class _Hidden:
    """Stands in for a bar."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self.iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self.iterable)

    def __enter__(self) -> "_Hidden":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        pass

    def set_postfix(self, **values: Any) -> None:
        pass


def progress(iterable: Iterable[Any] | None = None, *, shown: bool, **options: Any) -> Any:
    """Return a bar of tqdm, or what takes the same calls and does nothing.

    A bar of tqdm that is disabled still takes a lock of the whole process and starts a thread
    that takes it again every ten seconds; a process that is forked in such a moment would wait
    for it for ever.

    Parameters
    ----------
    iterable : iterable, optional
    shown : bool
    **options
        Of tqdm.
    """
    return tqdm(iterable, **options) if shown else _Hidden(() if iterable is None else iterable)
