"""The training loop."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tsar.core.dropout import set_generator
from tsar.exceptions import ParameterError, TrainingError
from tsar.progress import beside_bars, progress
from tsar.training.checkpoint import Checkpoint
from tsar.training.compiling import compiled_loss
from tsar.training.device import autocast
from tsar.training.evaluation import evaluate
from tsar.training.objective import DrawingSource, Objective, Source, Terms, changes, draws, size_of
from tsar.training.optim import as_optimizer
from tsar.training.options import TrainingOptions, TrainingResult
from tsar.training.processes import sharing_processes
from tsar.training.schedules import make_schedule
from tsar.training.seeding import make_generator
from tsar.training.state import (
    Snapshot,
    TrainingState,
    capture_optimizer,
    load_weights,
    restore_generator,
    restore_optimizer,
)
from tsar.training.sums import TermSums
from tsar.training.threads import Threads, largest_tensor, working_threads
from tsar.training.watching import tell

__all__ = ["train"]

logger = logging.getLogger("tsar")

# Reading a loss waits for the device, so the losses of so many steps are read together.
_STEPS_PER_READ = 16


def train(
    network: nn.Module,
    source: Source | DrawingSource,
    validation: Source | DrawingSource | None,
    objective: Objective,
    options: TrainingOptions,
    *,
    device: torch.device,
    seed: int,
    state: TrainingState | None = None,
    frozen: Sequence[str] = (),
    checkpoint: Checkpoint | None = None,
) -> TrainingResult:
    """Train a network in place.

    The network ends in evaluation mode on ``device``. With validation examples
    it holds the weights of its best validation, otherwise its last ones; with
    ``options.average``, their running means.

    Parameters
    ----------
    network : nn.Module
    source : Source or DrawingSource
        What to learn from; its batches lie on ``device``.
    validation : Source or DrawingSource, optional
        What to judge by. One that draws draws the same at every validation.
    objective : Objective
        What the two are for.
    options : TrainingOptions
    device : torch.device
    seed : int
        Of the run's own generators; unused for what ``state`` brings along.
    state : TrainingState, optional
        Continues the run that left it, in the network that run left.
    frozen : sequence of str, optional
        Modules that are left as they are, see :class:`tsar.training.Phase`.
    checkpoint : Checkpoint, optional
        Where the run leaves its state, and goes on from what is there.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ParameterError
        If there is no example to train on, or no bound on the length.
    TrainingError
        If the loss is not finite, or a state is not that of this network.
    """
    if size_of(source) == 0:
        raise ParameterError("train: there is no window to train on; pass longer series")
    if validation is not None and size_of(validation) == 0:
        validation = None
    network = network.to(device)
    still = [network.get_submodule(name) for name in frozen]
    with _without_gradients(still):
        run = _Run(network, source, validation, objective, options, device, seed)
        run.still, run.checkpoint = still, checkpoint
        try:
            run.restore(TrainingState() if state is None else state)
            return run.train()
        finally:
            set_generator(network, None)
            network.eval()


@contextlib.contextmanager
def _without_gradients(modules: list[nn.Module]) -> Iterator[None]:
    """Keep modules from being trained."""
    held = [p for part in modules for p in part.parameters() if p.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


@dataclass
class _Best:
    """The best validation so far and the weights that gave it, without one the last epoch."""

    loss: float = float("inf")
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


class _Run:
    """One call of :func:`train`."""

    def __init__(
        self,
        network: nn.Module,
        source: Source | DrawingSource,
        validation: Source | DrawingSource | None,
        objective: Objective,
        options: TrainingOptions,
        device: torch.device,
        seed: int,
    ) -> None:
        self.network = network
        self.source = source
        self.validation = validation
        self.objective = objective
        self.options = options
        self.device = device
        self.still: list[nn.Module] = []
        self.checkpoint: Checkpoint | None = None
        self.history: dict[str, list[float]] = {}
        self.epoch = self.step = self.stale = 0
        # Of the epoch that has begun: its steps, what they add up to, and the seconds they took.
        self.done, self.spent = 0, 0.0
        self.sums = TermSums(_STEPS_PER_READ)
        self.best = _Best()
        self.averaged: dict[str, Tensor] = {}
        self.threads: Threads | None = None
        self.processes = sharing_processes()
        # The order of the examples is that of all processes, what is dropped is not.
        own = 0 if self.processes is None else self.processes.rank
        noise = f"dropout {device.type}"
        self.shuffle = make_generator(seed)
        self.noise = make_generator((seed + own) % 2**63, device)
        self.generators = {"shuffle": self.shuffle, noise: self.noise}
        if changes(source):
            self.generators["source"] = source.generator
        set_generator(network, self.noise)
        self.loss = compiled_loss(objective) if options.compile else objective.loss
        self.how = as_optimizer(options.optimizer)
        self.optimizer = self.how.build(network, options.learning_rate)

    # -------------------------------------------------------------- where it begins

    def restore(self, state: TrainingState) -> None:
        """Go on from a checkpoint if there is one, otherwise from the state."""
        snapshot = None if self.checkpoint is None else self.checkpoint.take()
        if snapshot is not None:
            state = snapshot.state
        self.epoch, self.step, self.stale = state.epoch, state.step, state.stale
        self.history = {name: list(values) for name, values in state.history.items()}
        for name, generator in self.generators.items():
            if name in state.generators:
                restore_generator(generator, name, state.generators[name])
        restore_optimizer(self.optimizer, state)
        if self.options.average is not None:
            self.averaged = {
                name: tensor.to(self.device, copy=True) for name, tensor in state.averaged.items()
            }
        if snapshot is None:
            # The weights given back so far are the best yet.
            if self.validation is not None and self.epoch > 0:
                loss = self._validate()["loss"]
                self.best = _Best(loss, self._best_epoch(), self._copy_weights())
            elif self.epoch > 0:
                self.best = _Best(epoch=self.epoch, weights=self._copy_weights())
        else:
            self._restore_epoch(snapshot)
        if state.weights:
            load_weights(self.network, state.weights)
        self._plan(None if snapshot is None else snapshot.last_step)

    def _restore_epoch(self, snapshot: Snapshot) -> None:
        self.done, self.spent = snapshot.done, snapshot.seconds
        if snapshot.sums:
            self.sums.restore(snapshot.sums, snapshot.unread, self.device)
        weights = {name: tensor.to(self.device) for name, tensor in snapshot.best.items()}
        self.best = _Best(snapshot.best_loss, snapshot.best_epoch, weights)

    def _best_epoch(self) -> int:
        losses = [loss for loss in self.history.get("val_loss", ()) if not math.isnan(loss)]
        return 1 + self.history["val_loss"].index(min(losses)) if losses else self.epoch

    def _plan(self, last_step: int | None) -> None:
        """Fix how many steps there are, in an epoch and in all."""
        options = self.options
        self.steps_per_epoch = max(size_of(self.source) // options.batch_size, 1)
        bounds = []
        if options.max_epochs is not None:
            bounds.append(options.max_epochs * self.steps_per_epoch)
        if options.max_steps is not None:
            bounds.append(options.max_steps)
        if not bounds:
            raise ParameterError("train: one of max_epochs and max_steps must be given")
        self.last_step = self.step + min(bounds) if last_step is None else last_step
        self.rate = make_schedule(
            options.schedule,
            options.learning_rate,
            steps_per_epoch=self.steps_per_epoch,
            n_steps=self.last_step,
        )

    # ------------------------------------------------------------------ what it does

    def train(self) -> TrainingResult:
        interrupted = False
        with (
            progress(
                shown=self._shows,
                total=self.last_step - self.step,
                desc="training",
                unit="step",
            ) as bar,
            contextlib.ExitStack() as self.stack,
        ):
            try:
                while self.step < self.last_step and not self._stopped():
                    self._epoch(bar)
            except KeyboardInterrupt:
                interrupted = True
        return self._result(interrupted)

    @property
    def _shows(self) -> bool:
        return bool(self.options.verbose) and (self.processes is None or self.processes.is_first)

    def _stopped(self) -> bool:
        patience = self.options.patience
        return self.validation is not None and patience is not None and self.stale >= patience

    def _epoch(self, bar: Any) -> None:
        """Train on every example once, or until the last step, then validate."""
        self.started = time.perf_counter() - self.spent
        self.network.train()
        for part in self.still:
            part.eval()
        # From here the order of the epoch can be drawn again.
        self.order = self.shuffle.get_state()
        first_step = self.step - self.done
        for parts in self._batches():
            self.sums.add(self._step(parts))
            self.done += 1
            if self.threads is not None:
                self.threads.look()
            bar.update()
            self._check_sums(first_step)
            if self.step == self.last_step:
                break
            self._leave_checkpoint()
        self._end_epoch(bar, first_step)

    def _batches(self) -> Iterator[Iterator[Any]]:
        """Yield the batches of the epoch that are left, each in parts."""
        size, total = self.options.batch_size, size_of(self.source)
        several = self.processes
        if several is not None:
            several.check_batch(min(size, total))
        if draws(self.source):
            n_own = self.options.accumulate
            sizes = _divided(min(size, total), n_own * (1 if several is None else several.count))
            for _ in range(self.done, self.steps_per_epoch):
                drawn = (self.source.draw(part, self.shuffle) for part in sizes)
                # All of them draw all of it, so that the next batch is the same for all.
                yield drawn if several is None else iter(list(drawn)[several.rank :: several.count])
            return
        order = torch.randperm(total, dtype=torch.int32, generator=self.shuffle)
        source: Source = self.source  # type: ignore[assignment]
        # One slice at a time: a million examples would be thirty thousand tensors at once.
        for begin in range(self.done * size, self.steps_per_epoch * size, size):
            index = order[begin : begin + size].long()
            if several is not None:
                index = several.share(index)
            yield (source.batch(part) for part in index.chunk(self.options.accumulate))

    def _step(self, parts: Iterator[Any]) -> Terms:
        """Make one step; return its terms."""
        self.optimizer.learning_rate = self.rate(self.step)
        self.optimizer.zero_grad()
        terms = self._add_gradients(parts)
        if self.how.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.how.clip)
        self.optimizer.step()
        if self.options.average is not None:
            self._average(self.options.average)
        self.step += 1
        return terms

    def _add_gradients(self, parts: Iterator[Any]) -> Terms:
        """Compute the gradients of a batch, part by part."""
        summed: Terms = {}
        for part in parts:
            if self.threads is None:
                largest = largest_tensor(part)
                size = 0 if largest is None else largest.numel()
                n_threads = working_threads(self.network, size, self.device)
                self.threads = self.stack.enter_context(n_threads)
            with autocast(self.device, self.how.precision):
                terms = self.loss(self.network, part, self.noise)
            goal, *others = (total / count.clamp(min=1) for total, count in terms.values())
            for mean in others:
                goal = goal + mean
            if summed:
                # Gradients so far are those of a mean over fewer entries.
                before, count = summed["loss"][1], terms["loss"][1]
                share = count / (before + count).clamp(min=1)
                for parameter in self.optimizer.parameters.values():
                    if parameter.grad is not None:
                        parameter.grad.mul_(1 - share)
                goal = goal * share
            goal.backward()
            for name, (total, count) in terms.items():
                total = total.detach()
                if name in summed:
                    total, count = total + summed[name][0], count + summed[name][1]
                summed[name] = total, count
        if self.processes is not None:
            summed, share = self.processes.add_terms(summed)
            self.processes.add_gradients(list(self.optimizer.parameters.values()), share)
        return summed

    @torch.no_grad()
    def _average(self, share: float) -> None:
        """Let the averaged weights follow; what is no weight is taken as it is."""
        own = self.network.state_dict()
        if not self.averaged:
            self.averaged = {name: tensor.clone() for name, tensor in own.items()}
            return
        weights = {name for name, _ in self.network.named_parameters(remove_duplicate=False)}
        for name, tensor in own.items():
            if name in weights:
                self.averaged[name].lerp_(tensor, 1 - share)
            else:
                self.averaged[name].copy_(tensor)

    def _end_epoch(self, bar: Any, first_step: int) -> None:
        record = {f"train_{name}": mean for name, mean in self.sums.means().items()}
        self._check_sums(first_step)
        if self.processes is not None:
            self.processes.average_statistics(self.network)
        record["learning_rate"] = self.rate(self.step - 1)
        if self.validation is None:
            # What an interrupt in the next epoch gives back: no weights of half an epoch.
            with self._kept_weights():
                self.best = _Best(epoch=self.epoch + 1, weights=self._copy_weights())
        else:
            with self._kept_weights():
                means = self._validate()
                self._compare(means["loss"])
            record |= {f"val_{name}": mean for name, mean in means.items()}
        record["seconds"] = time.perf_counter() - self.started
        for name in dict.fromkeys([*self.history, *record]):
            values = self.history.setdefault(name, [])
            # Every list has an entry per epoch, also where a term comes or goes.
            values += [math.nan] * (self.epoch - len(values))
            values.append(record.get(name, math.nan))
        self.epoch += 1
        self.done, self.spent, self.sums = 0, 0.0, TermSums(_STEPS_PER_READ)
        self.started, self.order = time.perf_counter(), self.shuffle.get_state()
        self._leave_checkpoint()
        if self._shows:
            bar.set_postfix(epoch=self.epoch, train_loss=f"{record['train_loss']:.4g}")
            shown = ", ".join(f"{name} {value:.6g}" for name, value in record.items())
            # A line on the console begins where the bar ends, unless the bar steps aside.
            with beside_bars():
                logger.info("epoch %d: %s", self.epoch, shown)
        last_epoch = math.ceil(self.last_step / self.steps_per_epoch)
        tell({**record, "epoch": self.epoch, "last_epoch": max(self.epoch, last_epoch)})

    def _check_sums(self, first_step: int) -> None:
        if self.sums.fault is None:
            return
        step, name = self.sums.fault
        raise TrainingError(
            f"the training {name} is not finite in epoch {self.epoch + 1}, step "
            f"{first_step + step + 1}, at learning rate {self.rate(first_step + step):.3g}; "
            "lower learning_rate, clip gradients with optimizer=tsar.training.Adam(clip=1.0), or "
            "check the data for extreme values"
        )

    def _validate(self) -> dict[str, float]:
        assert self.validation is not None
        means = evaluate(
            self.network,
            self.validation,
            self.objective,
            batch_size=self.options.validation_batch_size or self.options.batch_size,
            device=self.device,
            precision=self.how.precision,
        )
        return means if self.processes is None else self.processes.means_of_first(means)

    def _compare(self, val_loss: float) -> None:
        if val_loss < self.best.loss:
            self.best = _Best(val_loss, self.epoch + 1, self._copy_weights())
            self.stale = 0
        else:
            self.stale += 1

    # --------------------------------------------------------------------- weights

    def _copy_weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    @contextlib.contextmanager
    def _kept_weights(self) -> Iterator[None]:
        """Let the network hold what would be given back now: the averaged weights, if any."""
        if not self.averaged:
            yield
            return
        own = self._copy_weights()
        self.network.load_state_dict(self.averaged)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    # ------------------------------------------------------------- what it leaves behind

    def _state(self) -> TrainingState:
        state = TrainingState(
            epoch=self.epoch,
            step=self.step,
            stale=self.stale,
            generators={name: g.get_state() for name, g in self.generators.items()},
            averaged=_on_cpu(self.averaged),
            history={name: list(values) for name, values in self.history.items()},
        )
        capture_optimizer(self.optimizer, state)
        return state

    def _leave_checkpoint(self) -> None:
        if self.checkpoint is None or not self.checkpoint.due:
            return
        state = self._state()
        state.weights = _on_cpu(self._copy_weights())
        if not draws(self.source):
            state.generators["shuffle"] = self.order
        sums, unread = self.sums.to_state()
        self.checkpoint.write(
            Snapshot(
                state,
                self.last_step,
                done=self.done,
                sums=sums,
                unread=unread,
                seconds=time.perf_counter() - self.started,
                best_loss=self.best.loss,
                best_epoch=self.best.epoch,
                best=_on_cpu(self.best.weights),
            )
        )

    def _result(self, interrupted: bool) -> TrainingResult:
        state = self._state()
        # A continued run is a wish to go on, so patience that ran out starts anew.
        state.stale = 0 if self._stopped() else self.stale
        best_epoch, weights = self.epoch, self.averaged
        if self.best.weights:
            best_epoch = self.best.epoch
            if best_epoch != self.epoch or interrupted or self.averaged:
                weights = self.best.weights
        if weights:
            state.weights = _on_cpu(self._copy_weights())
            self.network.load_state_dict(weights)
        return TrainingResult(self.history, best_epoch, self.epoch, state, interrupted)


def _on_cpu(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in weights.items()}


def _divided(size: int, parts: int) -> list[int]:
    """Divide a number as :meth:`torch.Tensor.chunk` divides so many entries."""
    each = -(-size // parts)
    return [min(each, size - begin) for begin in range(0, size, each)]
