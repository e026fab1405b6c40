"""Estimators that train a network: the parameters, the run and the state of every family."""

import contextlib
import copy
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from tsar.estimator.base import Estimator
from tsar.exceptions import InterruptedWarning, ParameterError, TrainingError, warn
from tsar.params.constraints import Interval
from tsar.training.checkpoint import Checkpoint, checkpoint_folder, describe_value, digest
from tsar.training.compiling import check_compiler
from tsar.training.device import resolve_device
from tsar.training.objective import DrawingSource, Objective, Source
from tsar.training.optim import Optimizer, as_optimizer
from tsar.training.options import Phase, TrainingOptions, TrainingResult
from tsar.training.phases import train_phases
from tsar.training.processes import sharing_processes
from tsar.training.schedules import Schedule, as_schedule
from tsar.training.seeding import seeded
from tsar.training.state import (
    TrainedRecord,
    TrainingState,
    check_size,
    load_weights,
    tensors_under,
)

__all__ = ["ScheduleName", "TrainedEstimator"]

LARGEST_SEED = 2**63 - 1

Positive = Annotated[int, Interval(1)]
# What belongs to an object now, by the name that its estimator once had for it.
OPTIMIZER_OPTIONS = {
    "weight_decay": "weight_decay",
    "adam_betas": "betas",
    "gradient_clip": "clip",
    "precision": "precision",
}
SCHEDULE_OPTIONS = {"warmup_steps": "warmup_steps"}
ScheduleName: TypeAlias = Literal["constant", "halving", "type3", "cosine", "one_cycle"]


@dataclass(kw_only=True, eq=False, repr=False)
class TrainedEstimator(Estimator):
    """An estimator around a network, whatever it is trained on.

    A subclass builds its network, and hands it to :meth:`_train` with a source of batches and
    an objective; :meth:`_keep` remembers what came out, which is saved and loaded here.

    Parameters
    ----------
    max_epochs : int, default 50
        Longest training, in passes over all examples.
    max_steps : int or None, default None
        Longest training in steps, where it is shorter.
    batch_size : int, default 32
        Examples per step.
    optimizer : {"adam", "adamw"} or Optimizer, default "adam"
        By name, or an object of :mod:`tsar.training.optim` with parameters of its own: weight
        decay, the largest norm of gradients, the precision of the steps, as in
        ``AdamW(weight_decay=0.1, clip=1.0, precision="bfloat16")``, or
        ``TorchOptimizer(torch.optim.SGD, momentum=0.9)``. What is fitted answers in float32.
    learning_rate : float, default 1e-3
        Largest learning rate of the schedule.
    learning_rate_schedule : str or Schedule, default "constant"
        "constant", "halving" (halved after every epoch from the second on), "type3"
        (a tenth less after every epoch from the fourth on), "cosine" or "one_cycle", or an
        object of :mod:`tsar.training.schedules` such as
        ``Cosine(lowest=0.1, warmup_steps=100)``.
    early_stopping : bool, int or float, default True
        Hold something out, stop when it is no longer predicted better, and keep the best
        weights. A number says how much: examples, or a share of them inside (0, 1).
    patience : int, default 5
        Validations (one per epoch) without improvement before stopping.
    device : str, default "auto"
        "cpu", "cuda", "cuda:k", "mps", or "auto" for an accelerator if there is one.
    compile : bool, default False
        Whether torch compiles the training steps (:func:`torch.compile`), which takes from some
        seconds to a minute once and needs a compiler; long trainings on an accelerator gain.
        The same seed gives other numbers than without; forecasts are never compiled.
    random_state : int or None, default None
        Seed of weights, shuffling and dropout; None draws a new one (``seed_``).
    warm_start : bool, default False
        Whether ``fit`` continues from the fitted weights, as ``partial_fit`` does.
    verbose : int, default 0
        With 1, a progress bar, and a line per epoch through the logger "tsar".

    Attributes
    ----------
    module_ : nn.Module
        The trained network.
    history_ : dict of str to list of float
        One entry per epoch: ``train_loss``, with validation ``val_loss`` and what else the
        objective tells, ``learning_rate`` and ``seconds``.
    best_epoch_ : int
        The epoch (from 1) whose weights are kept.
    n_epochs_ : int
        Epochs trained.
    device_ : str
        Where the network is.
    seed_ : int
        The seed that was used.
    interrupted_ : bool
        Whether a keyboard interrupt ended the training early.
    """

    parameter_group: ClassVar[str] = "training"
    references: ClassVar[frozenset[str]] = frozenset({"optimizer", "learning_rate_schedule"})
    learned_record: ClassVar[Any] = TrainedRecord

    max_epochs: Positive = 50
    max_steps: Positive | None = None
    batch_size: Positive = 32
    optimizer: Literal["adam", "adamw"] | Optimizer = "adam"
    learning_rate: Annotated[float, Interval(0, open_low=True)] = 1e-3
    learning_rate_schedule: ScheduleName | Schedule = "constant"
    early_stopping: bool | Positive | Annotated[float, Interval(0, 1, True, True)] = True
    patience: Positive = 5
    device: str = "auto"
    compile: bool = False
    random_state: Annotated[int, Interval(0, LARGEST_SEED)] | None = None
    warm_start: bool = False
    verbose: Annotated[int, Interval(0)] = 0

    # ------------------------------------------------------------- before it begins

    def _check_consistency(self) -> None:
        super()._check_consistency()
        self._check_training_length()
        try:
            resolve_device(self.device)
        except ParameterError as error:
            raise ParameterError(f"{self.name}: {error}") from None

    def _check_training_length(self) -> None:
        """Raise a ParameterError for a training without an end."""
        if self.max_steps is None and self.max_epochs is None:
            raise ParameterError(
                f"{self.name}: one of max_steps and max_epochs must be a number, got None for both"
            )

    @classmethod
    def upgrade_parameters(cls, saved: dict[str, Any]) -> dict[str, Any]:
        """See :meth:`Estimator.upgrade_parameters`.

        What belongs to an optimiser or a schedule was a parameter of the estimator once.
        """
        parameters = super().upgrade_parameters(saved)
        parameters = _within(parameters, "optimizer", as_optimizer, OPTIMIZER_OPTIONS)
        return _within(parameters, "learning_rate_schedule", as_schedule, SCHEDULE_OPTIONS)

    def check_stored(self) -> None:
        here = copy.copy(self)
        try:
            resolve_device(self.device)
        except ParameterError:
            # The device it was trained on is not on this machine.
            here.device = "cpu"
        super(TrainedEstimator, here).check_stored()

    @property
    def _training_options(self) -> TrainingOptions:
        return TrainingOptions(
            max_epochs=self.max_epochs,
            max_steps=self.max_steps,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            schedule=self.learning_rate_schedule,
            patience=self.patience if self.early_stopping else None,
            compile=self.compile,
            verbose=self.verbose,
        )

    def _draw_seed(self) -> int:
        if self.random_state is not None:
            return int(self.random_state)
        drawn, several = secrets.randbits(63), sharing_processes()
        return drawn if several is None else several.number_of_all(drawn)

    def _training_seed(self, checkpoint: Checkpoint | None) -> int:
        """Return the seed of a training; that of a checkpoint if any will do."""
        drawn = self._draw_seed()
        if self.random_state is None and checkpoint is not None and checkpoint.identity:
            return int(checkpoint.identity["seed"])
        return drawn

    def _checkpoint(self) -> Checkpoint | None:
        """Open the folder of checkpoints that this fit was asked to use, if it was."""
        folder = checkpoint_folder()
        if folder is not None and sharing_processes() is not None:
            raise ParameterError(
                f"{self.name}: checkpoints are for a training in one process, got several that "
                f"share it; fit without checkpoint="
            )
        with self._named_training_errors():
            return None if folder is None else Checkpoint(folder)

    def _identity(
        self, data: str, network: nn.Module, state: TrainingState | None, seed: int
    ) -> dict[str, str]:
        """Return all that decides what a training gives, for its checkpoints.

        ``data`` is a digest of what it is trained on.
        """
        parameters = self.get_params(deep=False)
        parameters.pop("verbose")
        return {
            "class": self.name,
            **{name: describe_value(value) for name, value in parameters.items()},
            "seed": str(seed),
            "steps before": str(0 if state is None else state.step),
            "data": data,
            "first weights": digest(network.state_dict().values()),
        }

    # ---------------------------------------------------------------- the training

    def _phases(self, network: nn.Module, options: TrainingOptions, go_on: bool) -> Sequence[Phase]:
        """Say how a network is trained, one phase after the other."""
        return [Phase(options)]

    def _trained_names(self, network: nn.Module) -> list[str]:
        """Return the names of the parameters that the last fit moved."""
        return [name for name, _ in network.named_parameters()]

    @contextlib.contextmanager
    def _named_training_errors(self) -> Iterator[None]:
        """Let errors of the training begin with the name of the estimator."""
        try:
            yield
        except (TrainingError, ParameterError) as error:
            raise type(error)(f"{self.name}: {error}") from None

    # The caller may have turned gradients off around the fit.
    @torch.inference_mode(False)
    @torch.enable_grad()
    def _train(
        self,
        network: nn.Module,
        training: Source | DrawingSource,
        validation: Source | DrawingSource | None,
        objective: Objective,
        phases: Sequence[Phase],
        *,
        device: torch.device,
        seed: int,
        state: TrainingState | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> TrainingResult:
        """Run the training loop, naming the estimator in what it reports."""
        with self._named_training_errors():
            if self.compile:
                check_compiler(device)
            result = train_phases(
                network,
                training,
                validation,
                objective,
                phases,
                device=device,
                seed=seed,
                state=state,
                checkpoint=checkpoint,
            )
        if result.interrupted:
            if result.n_epochs == 0:
                raise KeyboardInterrupt
            warn(
                f"{self.name}: training was interrupted after {result.n_epochs} epochs; the "
                f"model holds the weights of epoch {result.best_epoch}",
                InterruptedWarning,
            )
        elif checkpoint is not None:
            checkpoint.remove()
        return result

    def _fit_network(
        self,
        make_network: Callable[[], nn.Module],
        training: Source | DrawingSource,
        validation: Source | DrawingSource | None,
        objective: Objective,
        *,
        data: Callable[[], str],
        go_on: bool,
        begin: Callable[[nn.Module], None] | None = None,
    ) -> None:
        """Build a network, train it, and keep it.

        Parameters
        ----------
        make_network : callable
            Builds it, with torch's initialisers.
        training, validation : source of batches
            On the CPU or on the device.
        objective : Objective
        data : callable
            Returns a digest of what it is trained on, which a checkpoint asks for.
        go_on : bool
            Whether to go on with the weights of the fit before.
        begin : callable, optional
            Changes the new network before its training.
        """
        device = resolve_device(self.device)
        checkpoint = self._checkpoint()
        seed = self._training_seed(checkpoint)
        with seeded(seed):
            network = make_network().to(device)
            if begin is not None:
                begin(network)
        state = None
        if go_on:
            self._continue_from(network)
            state = self._training_state.named(self._trained_names(network))
        if checkpoint is not None:
            with self._named_training_errors():
                checkpoint.claim(self._identity(data(), network, state, seed))
        result = self._train(
            network,
            training,
            validation,
            objective,
            self._phases(network, self._training_options, go_on),
            device=device,
            seed=seed,
            state=state,
            checkpoint=checkpoint,
        )
        self._keep(network, result, device, seed)

    def _continue_from(self, network: nn.Module) -> None:
        """Give a network of the same parameters the weights of the fit before."""
        fitted, fresh = self.module_.state_dict(), network.state_dict()
        if {k: v.shape for k, v in fitted.items()} != {k: v.shape for k, v in fresh.items()}:
            raise ParameterError(
                f"{self.name}: parameters of the network have changed since the last fit; restore "
                f"them, or fit with warm_start=False"
            )
        network.load_state_dict(fitted)

    def _keep(
        self, network: nn.Module, result: TrainingResult, device: torch.device, seed: int
    ) -> None:
        """Remember a trained network."""
        self._training_state: TrainingState = result.state
        self.module_ = network
        self.history_ = result.history
        self.best_epoch_, self.n_epochs_ = result.best_epoch, result.n_epochs
        self.device_, self.seed_ = str(device), seed
        self.interrupted_ = result.interrupted

    # ------------------------------------------------------------------ on disk

    @contextlib.contextmanager
    def training_finished(self) -> Iterator[None]:
        held = self.__dict__.get("_training_state")
        if held is None:
            yield
            return
        self._training_state = held.finished()
        try:
            yield
        finally:
            self._training_state = held

    def _trained_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what training left: a record for JSON, and tensors by name."""
        weights = self.module_.state_dict()
        tensors = {f"network.{name}": tensor.cpu() for name, tensor in weights.items()}
        training, progress = self._training_state.to_tensors()
        tensors |= {f"training.{name}": tensor.cpu() for name, tensor in training.items()}
        fitted = {
            "best_epoch": self.best_epoch_,
            "seed": self.seed_,
            "interrupted": self.interrupted_,
        }
        return {"training": progress, "fitted": fitted}, tensors

    def _restore_trained_state(
        self,
        build: Callable[[], nn.Module],
        record: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
    ) -> None:
        """Undo :meth:`_trained_state`, in a network of the same shape that ``build`` makes."""
        weights = tensors_under("network.", tensors)
        check_size(build, weights)
        network = build()
        load_weights(network, weights)
        self._training_state = TrainingState.from_tensors(
            tensors_under("training.", tensors), record["training"]
        )
        self.history_ = {
            name: list(values) for name, values in self._training_state.history.items()
        }
        fitted = record["fitted"]
        self.best_epoch_, self.n_epochs_ = fitted["best_epoch"], self._training_state.epoch
        self.seed_, self.interrupted_ = fitted["seed"], fitted["interrupted"]
        try:
            device = resolve_device(self.device)
        except ParameterError:
            # The device it was trained on is not on this machine.
            device = torch.device("cpu")
        self.device_ = str(device)
        self.module_ = network.to(device).eval()


def _within(
    parameters: dict[str, Any],
    owner: str,
    named: Callable[[str], Any],
    options: Mapping[str, str],
) -> dict[str, Any]:
    """Move parameters into the object that has them now; one with its defaults is its name."""
    moved = {new: parameters.pop(old) for old, new in options.items() if old in parameters}
    if moved and isinstance(parameters.get(owner), str):
        told = replace(named(parameters[owner]), **moved)
        if told != named(parameters[owner]):
            parameters[owner] = told
    return parameters
