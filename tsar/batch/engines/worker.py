"""What happens in the processes of an engine."""

import hashlib
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from tsar.exceptions import EngineError, gathered_warnings, warn

__all__ = ["Mapped", "loaded", "opened", "packed", "run_packed"]

# The function that this thread has unpacked last: what a worker maps, it loads once.
_loaded = threading.local()


class Mapped:
    """A function on its way to other processes.

    Parameters
    ----------
    function : callable
        Taken along with classes that other processes cannot import, those of a script.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        import cloudpickle

        # Modules of plugins lie in places that were added to the path of this process.
        self.content = pickle.dumps((list(sys.path), cloudpickle.dumps(function)))
        self.key = hashlib.sha256(self.content).hexdigest()


def packed(task: Any) -> bytes:
    return pickle.dumps(task, protocol=pickle.HIGHEST_PROTOCOL)


def opened(result: bytes) -> Any:
    """Return what a function returned elsewhere, or raise what it raised; warn as it did."""
    value, error, warnings = pickle.loads(result)
    for message, category in warnings:
        warn(message, category)
    if error is not None:
        raise error
    return value


def run_packed(key: str, content: Callable[[], bytes], task: bytes) -> bytes:
    """Call a function with a packed task, and pack what it returns, raises and warns of.

    An error is no failure of the worker, and the engine does not try again.

    Parameters
    ----------
    key : str
        Which function it is.
    content : callable
        Returns it, if it is not loaded already.
    task : bytes
    """
    value, error = None, None
    with gathered_warnings() as warnings:
        try:
            value = loaded(key, content, one_thread=True)(pickle.loads(task))
        except Exception as raised:
            raised.add_note("".join(traceback.format_exception(raised)))
            error = raised
    return packed((value, error, warnings))


def loaded(key: str, content: Callable[[], bytes], *, one_thread: bool) -> Callable[[Any], Any]:
    """Return a function that another process has packed.

    Parameters
    ----------
    key : str
    content : callable
    one_thread : bool
        Whether this process is one of as many as there are cores, each of which computes
        with one thread.
    """
    if getattr(_loaded, "key", None) != key:
        _loaded.key = None
        paths, function = pickle.loads(content())
        sys.path.extend(path for path in paths if path not in sys.path)
        try:
            _loaded.function = pickle.loads(function)
        except ImportError as error:
            raise EngineError(
                f"batch: a worker cannot load the model: {error}; install what it needs, and the "
                f"same version of tsar, on every machine"
            ) from None
        if one_thread:
            _use_one_thread()
        _loaded.key = key
    function_loaded: Callable[[Any], Any] = _loaded.function
    return function_loaded


def _use_one_thread() -> None:
    import threadpoolctl
    import torch

    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)
