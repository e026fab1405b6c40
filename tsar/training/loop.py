"""The training loop."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from tsar.core.dropout import set_generator
from tsar.exceptions import ParameterError, TrainingError
from tsar.progress import progress
from tsar.training.device import autocast
from tsar.training.optim import make_optimizer, make_schedule
from tsar.training.seeding import make_generator
from tsar.training.state import TrainingState, capture_optimizer, restore_optimizer
from tsar.training.threads import Threads, working_threads

__all__ = [
    "TrainingOptions",
    "TrainingResult",
    "WindowSource",
    "compare",
    "evaluate",
    "on_epoch",
    "penalise",
    "train",
]

if TYPE_CHECKING:
    from tsar.forecasting.outputs.losses import Loss

logger = logging.getLogger("tsar")

# Reading a loss waits for the device, so the losses of so many steps are read together.
_STEPS_PER_READ = 16

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
        validation also ``val_loss`` and ``val_mae``. What it raises ends the training, and
        comes out of ``fit``.

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


class WindowSource(Protocol):
    """What the loop asks of windows; a batch is a :class:`tsar.data.windows.Batch`."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Any: ...


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes
    ----------
    max_epochs : int or None
        None trains for ``max_steps``.
    max_steps : int or None
        Stops a call after so many steps, in the middle of an epoch if need be.
    batch_size : int
        Windows in a batch; the incomplete last batch of an epoch is left out
        where there is a complete one.
    validation_batch_size : int or None
        Windows scored at a time, of which no gradients are kept; None takes ``batch_size``.
    optimizer : {"adam", "adamw"}
    learning_rate, weight_decay : float
    betas : pair of float
    schedule : str
        See :func:`tsar.training.optim.make_schedule`.
    warmup_steps : int
    patience : int or None
        Stops after so many validations without a better one; None never does.
    gradient_clip : float or None
        Largest norm of all gradients together.
    precision : {"float32", "bfloat16", "auto"}
    verbose : int
        With 1, a progress bar, and a line per epoch through the logger "tsar".
    """

    max_epochs: int | None = 10
    max_steps: int | None = None
    batch_size: int = 32
    validation_batch_size: int | None = None
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: str = "constant"
    warmup_steps: int = 0
    patience: int | None = None
    gradient_clip: float | None = None
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    verbose: int = 0


@dataclass
class TrainingResult:
    """What came out of a training run.

    Attributes
    ----------
    history : dict of str to list of float
        One entry per epoch, those of an earlier run that was continued
        included: ``train_loss``, ``learning_rate`` (of the epoch's last step)
        and ``seconds``; with validation also ``val_loss`` and ``val_mae``, the
        latter in original units.
    best_epoch : int
        The epoch, counted from 1, whose weights the network holds; 0 if none
        was completed.
    n_epochs : int
        Epochs done, those of an earlier run included.
    state : TrainingState
        For continuing.
    interrupted : bool
        Whether a keyboard interrupt ended the run.
    """

    history: dict[str, list[float]]
    best_epoch: int
    n_epochs: int
    state: TrainingState
    interrupted: bool = False


def train(
    network: nn.Module,
    windows: WindowSource,
    validation: WindowSource | None,
    loss: "Loss",
    options: TrainingOptions,
    *,
    device: torch.device,
    seed: int,
    state: TrainingState | None = None,
) -> TrainingResult:
    """Train a network in place.

    The network ends in evaluation mode on ``device``. With validation windows
    it holds the weights of its best validation, otherwise its last ones.

    Parameters
    ----------
    network : nn.Module
        Maps ``batch.inputs`` to a forecast. A training step compares it with the future,
        unless the network has a method ``compare``, see :func:`compare`, and minimises the
        mean error, plus what a method ``penalty`` returns, see :func:`penalise`.
    windows, validation : Windows
        Their batches lie on ``device``.
    loss : Loss
    options : TrainingOptions
    device : torch.device
    seed : int
        Of the run's own generators; unused for what ``state`` brings along.
    state : TrainingState, optional
        Continues the run that left it, in the network that run left.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ParameterError
        If there is no window to train on, or no bound on the length.
    TrainingError
        If the loss is not finite.
    """
    if len(windows) == 0:
        raise ParameterError("train: there is no window to train on; pass longer series")
    if validation is not None and len(validation) == 0:
        validation = None
    run = _Run(network.to(device), windows, validation, loss, options, device, seed, state)
    try:
        return run.train()
    finally:
        set_generator(network, None)
        network.eval()


def compare(network: nn.Module, batch: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return what a training step compares: a forecast, the truth, and what is known of it.

    That is the forecast of the future. A network that learns from steps of the context as
    well, by forecasting each of them from those before it, says so with a method
    ``compare(batch)`` of the same kind. Validation compares the forecast in any case, as does
    a loss of counts in original units, ``loss.needs_scale``.

    Parameters
    ----------
    network : nn.Module
    batch : Batch

    Returns
    -------
    forecast : Tensor of shape (B, K, C), or (B, K, C, Q)
    target : Tensor of shape (B, K, C)
    observed : bool Tensor of shape (B, K, C) or None
    """
    own = getattr(network, "compare", None)
    if own is not None:
        compared: tuple[Tensor, Tensor, Tensor | None] = own(batch)
        return compared
    return network(batch.inputs), batch.target, batch.observed


def penalise(network: nn.Module, error: Tensor) -> Tensor:
    """Return what a training step minimises: the mean error, plus the network's penalty.

    A network that wants its weights small, sparse or otherwise apart from what they forecast
    says so with a method ``penalty(error)`` that returns a Tensor of shape (). It is given
    the error, without gradient, as a measure of what a weight is worth. Neither
    ``train_loss`` nor validation counts the penalty.

    Parameters
    ----------
    network : nn.Module
    error : Tensor of shape ()

    Returns
    -------
    Tensor of shape ()
    """
    own = getattr(network, "penalty", None)
    if own is None:
        return error
    penalised: Tensor = error + own(error.detach())
    return penalised


def evaluate(
    network: nn.Module,
    windows: WindowSource,
    loss: "Loss",
    *,
    batch_size: int,
    device: torch.device,
    precision: str = "float32",
) -> tuple[float, float]:
    """Score a network on every window, in order.

    Parameters
    ----------
    network : nn.Module
    windows : WindowSource
    loss : Loss
    batch_size : int
        Windows at a time.
    device : torch.device
    precision : {"float32", "bfloat16", "auto"}

    Returns
    -------
    loss : float
        Mean over all observed entries, whatever the batch size.
    mae : float
        Mean absolute error of the point forecast in original units.
    """
    was_training = network.training
    network.eval()
    sums = []
    with torch.inference_mode():
        for begin in range(0, len(windows), batch_size):
            batch = windows.batch(torch.arange(begin, min(begin + batch_size, len(windows))))
            with autocast(device, precision):
                forecast = network(batch.inputs)
            total, count = loss.total(forecast, batch.target, batch.observed, batch.scale)
            error = (loss.point(forecast) - batch.target).abs()
            if batch.scale is not None:
                error = error * batch.scale.unsqueeze(1)
            if batch.observed is not None:
                error = error * batch.observed
            sums.append(torch.stack([total, error.sum(), count.to(total.dtype)]))
    network.train(was_training)
    total, error, count = torch.stack(sums).cpu().double().sum(dim=0).tolist()
    return total / max(count, 1.0), error / max(count, 1.0)


@dataclass
class _Best:
    """The best validation so far and the weights that gave it."""

    loss: float = float("inf")
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


class _Run:
    """One call of :func:`train`."""

    def __init__(
        self,
        network: nn.Module,
        windows: WindowSource,
        validation: WindowSource | None,
        loss: "Loss",
        options: TrainingOptions,
        device: torch.device,
        seed: int,
        state: TrainingState | None,
    ) -> None:
        self.network = network
        self.windows = windows
        self.validation = validation
        self.loss = loss
        self.options = options
        self.device = device
        self.state = TrainingState() if state is None else state
        self.history = {name: list(values) for name, values in self.state.history.items()}
        self.epoch, self.step = self.state.epoch, self.state.step
        self.stale = self.state.stale
        self.best = _Best()
        self.threads: Threads | None = None
        self.generators = {
            "shuffle": make_generator(seed),
            f"dropout {device.type}": make_generator(seed, device),
        }
        for name, generator in self.generators.items():
            if name in self.state.generators:
                generator.set_state(self.state.generators[name])
        set_generator(network, self.generators[f"dropout {device.type}"])
        self.optimizer = make_optimizer(
            options.optimizer,
            network.parameters(),
            options.learning_rate,
            weight_decay=options.weight_decay,
            betas=options.betas,
        )
        if self.state.optimizer:
            restore_optimizer(self.optimizer, self.state.optimizer)
        self._plan()

    def _plan(self) -> None:
        """Fix how many steps there are, in an epoch and in all."""
        options = self.options
        self.steps_per_epoch = max(len(self.windows) // options.batch_size, 1)
        bounds = []
        if options.max_epochs is not None:
            bounds.append(options.max_epochs * self.steps_per_epoch)
        if options.max_steps is not None:
            bounds.append(options.max_steps)
        if not bounds:
            raise ParameterError("train: one of max_epochs and max_steps must be given")
        self.last_step = self.step + min(bounds)
        self.rate = make_schedule(
            options.schedule,
            options.learning_rate,
            steps_per_epoch=self.steps_per_epoch,
            n_steps=self.last_step,
            warmup_steps=options.warmup_steps,
        )

    def train(self) -> TrainingResult:
        interrupted = False
        with (
            progress(
                shown=bool(self.options.verbose),
                total=self.last_step - self.step,
                desc="training",
                unit="step",
            ) as bar,
            contextlib.ExitStack() as self.stack,
        ):
            try:
                self._resume()
                while self.step < self.last_step and not self._stopped():
                    self._epoch(bar)
            except KeyboardInterrupt:
                interrupted = True
        return self._result(interrupted)

    def _resume(self) -> None:
        """Go on from the last weights, keeping the ones given back so far as the best yet."""
        if self.validation is None or self.epoch == 0:
            return
        self.best = _Best(self._validate()[0], self._best_epoch(), self._copy_weights())
        if self.state.weights:
            self.network.load_state_dict(self.state.weights)

    def _best_epoch(self) -> int:
        losses = self.history.get("val_loss")
        return 1 + losses.index(min(losses)) if losses else self.epoch

    def _stopped(self) -> bool:
        patience = self.options.patience
        return self.validation is not None and patience is not None and self.stale >= patience

    def _epoch(self, bar: Any) -> None:
        """Train on every window once, or until the last step, then validate."""
        started = time.perf_counter()
        self.network.train()
        losses = _LossRecord(self)
        for index in self._batches():
            batch = self.windows.batch(index)
            if self.threads is None:
                found = working_threads(self.network, batch.inputs.target)
                self.threads = self.stack.enter_context(found)
            losses.add(self._step(batch))
            self.threads.look()
            bar.update()
            if self.step == self.last_step:
                break
        record = {
            "train_loss": losses.mean(),
            "learning_rate": self.optimizer.learning_rate,
        }
        if self.validation is not None:
            record["val_loss"], record["val_mae"] = self._validate()
            self._compare(record["val_loss"])
        record["seconds"] = time.perf_counter() - started
        self.epoch += 1
        for name, value in record.items():
            self.history.setdefault(name, []).append(value)
        if self.options.verbose:
            bar.set_postfix(epoch=self.epoch, train_loss=f"{record['train_loss']:.4g}")
            shown = ", ".join(f"{name} {value:.6g}" for name, value in record.items())
            # A line on the console begins where the bar ends, unless the bar steps aside.
            with tqdm.external_write_mode():
                logger.info("epoch %d: %s", self.epoch, shown)
        for watch in _watchers.get():
            watch(dict(record))

    def _batches(self) -> Iterator[Tensor]:
        order = torch.randperm(
            len(self.windows), dtype=torch.int32, generator=self.generators["shuffle"]
        )
        # One slice at a time: a million windows would be thirty thousand tensors at once.
        size = self.options.batch_size
        for begin in range(0, self.steps_per_epoch * size, size):
            yield order[begin : begin + size].long()

    def _step(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Make one step; return the sum of the errors and the number of entries."""
        self.optimizer.learning_rate = self.rate(self.step)
        with autocast(self.device, self.options.precision):
            if self.loss.needs_scale:
                # It is known for the future only, and of that as it is.
                compared = self.network(batch.inputs), batch.target, batch.observed, batch.scale
            else:
                compared = *compare(self.network, batch), None
        total, count = self.loss.total(*compared)
        self.optimizer.zero_grad()
        penalise(self.network, total / count.clamp(min=1)).backward()
        if self.options.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.options.gradient_clip)
        self.optimizer.step()
        self.step += 1
        return total.detach(), count

    def _validate(self) -> tuple[float, float]:
        assert self.validation is not None
        return evaluate(
            self.network,
            self.validation,
            self.loss,
            batch_size=self.options.validation_batch_size or self.options.batch_size,
            device=self.device,
            precision=self.options.precision,
        )

    def _compare(self, val_loss: float) -> None:
        if val_loss < self.best.loss:
            self.best = _Best(val_loss, self.epoch + 1, self._copy_weights())
            self.stale = 0
        else:
            self.stale += 1

    def _copy_weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def _result(self, interrupted: bool) -> TrainingResult:
        state = TrainingState(
            epoch=self.epoch,
            step=self.step,
            # A continued run is a wish to go on, so patience that ran out starts anew.
            stale=0 if self._stopped() else self.stale,
            optimizer=capture_optimizer(self.optimizer),
            generators={name: g.get_state() for name, g in self.generators.items()},
            history={name: list(values) for name, values in self.history.items()},
        )
        best_epoch = self.epoch
        if self.best.weights:
            best_epoch = self.best.epoch
            if best_epoch != self.epoch or interrupted:
                state.weights = {name: w.cpu() for name, w in self._copy_weights().items()}
                self.network.load_state_dict(self.best.weights)
        return TrainingResult(self.history, best_epoch, self.epoch, state, interrupted)


class _LossRecord:
    """Adds up the losses of an epoch, reading them a few steps at a time."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.unread: list[Tensor] = []
        self.total = 0.0
        self.count = 0.0

    def add(self, loss: tuple[Tensor, Tensor]) -> None:
        total, count = loss
        self.unread.append(torch.stack([total, count.to(total.dtype)]))
        if len(self.unread) == _STEPS_PER_READ:
            self._read()

    def mean(self) -> float:
        self._read()
        return self.total / max(self.count, 1.0)

    def _read(self) -> None:
        if not self.unread:
            return
        read = torch.stack(self.unread).cpu().double()  # (steps, 2)
        bad = (~read[:, 0].isfinite()).nonzero()
        if len(bad):
            self._fail(self.run.step - len(read) + int(bad[0]))
        total, count = read.sum(dim=0).tolist()
        self.total += total
        self.count += count
        self.unread = []

    def _fail(self, step: int) -> None:
        raise TrainingError(
            f"the training loss is not finite in epoch {self.run.epoch + 1}, "
            f"step {step + 1}, at learning rate {self.run.rate(step):.3g}; "
            "lower learning_rate, set gradient_clip=1.0, or check the data for extreme values"
        )
