"""How an estimator trains the network that it has built."""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from tsar.data.panel import Panel
from tsar.exceptions import InterruptedWarning, ParameterError, TrainingError, warn
from tsar.forecasting.network_spec import TrainingData
from tsar.forecasting.outputs.losses import Loss, make_loss
from tsar.training.checkpoint import Checkpoint, checkpoint_folder, describe_value, digest
from tsar.training.objective import Objective, Source
from tsar.training.optim import Optimizer
from tsar.training.options import Phase, TrainingOptions, TrainingResult
from tsar.training.phases import train_phases
from tsar.training.schedules import Schedule
from tsar.training.state import TrainingState

__all__ = ["OBJECTS", "Trained"]

# Parameters that may be objects, which are not saved with a model.
OBJECTS = frozenset({"loss", "optimizer", "learning_rate_schedule"})
DEFAULT_QUANTILES = (0.1, 0.5, 0.9)


class Trained:
    """The part of an estimator that trains, apart from what it trains on.

    Its parameters are those of :class:`tsar.forecasting.network.NetworkForecaster`.
    """

    _name: str
    get_params: Callable[..., dict[str, Any]]
    loss: Any
    quantiles: Sequence[float] | None
    max_epochs: int
    max_steps: int | None
    batch_size: int
    optimizer: str | Optimizer
    learning_rate: float
    learning_rate_schedule: str | Schedule
    warmup_steps: int
    weight_decay: float
    adam_betas: Sequence[float]
    gradient_clip: float | None
    early_stopping: bool
    patience: int
    precision: Any
    random_state: int | None
    verbose: int

    # ------------------------------------------------------------- before it begins

    def _make_loss(self) -> Loss:
        levels = self.quantiles
        if levels is None and self.loss == "quantile":
            levels = DEFAULT_QUANTILES
        if levels is not None:
            levels = sorted({float(level) for level in levels} | {0.5})
        return make_loss(self.loss, levels)

    def _check_objects(self) -> None:
        """Check what is given as an object rather than by its name."""
        try:
            self._make_loss()
        except ParameterError as error:
            raise ParameterError(
                f"{self._name}: {str(error).removeprefix('make_loss: ')}"
            ) from None
        for name, flat in (
            ("optimizer", "weight_decay"),
            ("optimizer", "adam_betas"),
            ("learning_rate_schedule", "warmup_steps"),
        ):
            given, value, default = (
                getattr(self, name),
                getattr(self, flat),
                getattr(type(self), flat),
            )
            same = tuple(value) == tuple(default) if flat == "adam_betas" else value == default
            if not isinstance(given, str) and not same:
                raise ParameterError(
                    f"{self._name}: {flat}={value!r} goes with the name of one, got "
                    f"{name}={given!r}; give it to that object"
                )

    @property
    def _training_options(self) -> TrainingOptions:
        return TrainingOptions(
            max_epochs=self.max_epochs,
            max_steps=self.max_steps,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            betas=(float(self.adam_betas[0]), float(self.adam_betas[1])),
            schedule=self.learning_rate_schedule,
            warmup_steps=self.warmup_steps,
            patience=self.patience if self.early_stopping else None,
            gradient_clip=self.gradient_clip,
            precision=self.precision,
            verbose=self.verbose,
        )

    def _draw_seed(self) -> int:
        return secrets.randbits(63) if self.random_state is None else int(self.random_state)

    def _training_seed(self, checkpoint: Checkpoint | None) -> int:
        """Return the seed of a training; that of a checkpoint if any will do."""
        drawn = self._draw_seed()
        if self.random_state is None and checkpoint is not None and checkpoint.identity:
            return int(checkpoint.identity["seed"])
        return drawn

    def _checkpoint(self) -> Checkpoint | None:
        """Open the folder of checkpoints that this fit was asked to use, if it was."""
        folder = checkpoint_folder()
        with self._named_training_errors():
            return None if folder is None else Checkpoint(folder)

    def _identity(
        self,
        panel: Panel,
        data: TrainingData,
        network: nn.Module,
        state: TrainingState | None,
        seed: int,
    ) -> dict[str, str]:
        """Return all that decides what a training gives, for its checkpoints."""
        parameters = self.get_params(deep=False)
        parameters.pop("verbose")
        return {
            "class": self._name,
            **{name: describe_value(value) for name, value in parameters.items()},
            "variates": describe_value(list(panel.variates)),
            "seed": str(seed),
            "steps before": str(0 if state is None else state.step),
            "data": data.digest(),
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
            raise type(error)(f"{self._name}: {error}") from None

    def _train(
        self,
        network: nn.Module,
        training: Source,
        validation: Source | None,
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
                f"{self._name}: training was interrupted after {result.n_epochs} epochs; the "
                f"model holds the weights of epoch {result.best_epoch}",
                InterruptedWarning,
            )
        elif checkpoint is not None:
            checkpoint.remove()
        return result

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
