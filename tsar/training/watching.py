"""Watching a training from outside."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

__all__ = ["on_epoch", "tell"]

# What is called after each epoch. An estimator has no parameter for it: a function cannot be
# saved with a model, and who watches is often several calls above what is trained.
_watchers: ContextVar[tuple[Callable[[dict[str, float]], None], ...]] = ContextVar(
    "watchers", default=()
)


@contextlib.contextmanager
def on_epoch(function: Callable[[dict[str, float]], None]) -> Iterator[None]:
    """Call a function after every epoch of whatever is trained inside of a ``with`` block.

    Parameters
    ----------
    function : callable
        Takes the record of the epoch: ``train_loss``, ``learning_rate`` and ``seconds``, with
        validation also ``val_loss`` and ``val_mae``; further terms of what is minimised under
        their own names; and ``epoch``, of at most ``last_epoch``. What it raises ends the
        training, and comes out of ``fit``.

    Examples
    --------
    >>> import tsar
    >>> from tsar.training import on_epoch
    >>> losses = []
    >>> model = tsar.NLinear(context_length=48, horizon=12, max_epochs=3, random_state=0)
    >>> with on_epoch(lambda record: losses.append(record["val_loss"])):
    ...     model = model.fit(tsar.load_dataset("elnino"))
    >>> losses == model.history_["val_loss"]
    True
    """
    token = _watchers.set((*_watchers.get(), function))
    try:
        yield
    finally:
        _watchers.reset(token)


def tell(record: dict[str, float]) -> None:
    """Hand the record of an epoch to everyone who watches."""
    for watch in _watchers.get():
        watch(dict(record))
