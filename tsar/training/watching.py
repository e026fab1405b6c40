"""Watching a training from outside."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from tsar.exceptions import ParameterError

__all__ = ["log_to", "on_epoch", "tell"]

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


@contextlib.contextmanager
def log_to(writer: Any, prefix: str = "") -> Iterator[None]:
    """Write the record of every epoch that is trained inside of a ``with`` block to a logger.

    Parameters
    ----------
    writer : object
        Either with a method ``add_scalar(tag, value, step)``, as the ``SummaryWriter`` of
        TensorBoard has, or with a method ``log(values, step=)``, as a run of Weights & Biases.
        tsar needs neither of them to be installed, and closes nothing.
    prefix : str, default ""
        Comes before every name, such as ``"etth1/"``.

    Raises
    ------
    ParameterError
        The writer has neither method.

    Notes
    -----
    The step counts the epochs inside of the block from 1. Where several models are trained in
    it, it counts on; give each a block of its own to lay them over each other.

    Examples
    --------
    >>> import tsar
    >>> from tsar.training import log_to
    >>> class Writer:
    ...     def add_scalar(self, tag, value, step):
    ...         print(step, tag)
    >>> model = tsar.NLinear(
    ...     context_length=48, horizon=12, early_stopping=False, max_epochs=1, random_state=0
    ... )
    >>> with log_to(Writer(), "sea/"):
    ...     model = model.fit(tsar.load_dataset("elnino"))
    1 sea/train_loss
    1 sea/learning_rate
    1 sea/seconds
    """
    scalar, log = getattr(writer, "add_scalar", None), getattr(writer, "log", None)
    if not callable(scalar) and not callable(log):
        raise ParameterError(
            f"log_to: writer must have a method add_scalar(tag, value, step), as TensorBoard's "
            f"SummaryWriter, or log(values, step=), as a run of wandb, got {type(writer).__name__}"
        )
    step = 0

    def write(record: dict[str, float]) -> None:
        nonlocal step
        step += 1
        # How far it is, the step says.
        told = {name: record[name] for name in record if name not in ("epoch", "last_epoch")}
        named = {f"{prefix}{name}": value for name, value in told.items()}
        if callable(scalar):
            for name, value in named.items():
                scalar(name, value, step)
        elif callable(log):
            log(named, step=step)

    with on_epoch(write):
        yield


def tell(record: dict[str, float]) -> None:
    """Hand the record of an epoch to everyone who watches."""
    for watch in _watchers.get():
        watch(dict(record))
