"""Forecasters that train a network: the parameters and the fit that all of them share."""

import copy
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from tsar.data.covariates import CovariateCoding
from tsar.data.forecasts import check_quantile_labels
from tsar.data.matching import check_counts
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.data.windows import (
    Inputs,
    SeriesTensors,
    Windows,
    observed_on_both_sides,
    training_cutoffs,
)
from tsar.exceptions import (
    DataError,
    DataWarning,
    ParameterError,
    warn,
)
from tsar.forecasting.base import Forecaster
from tsar.forecasting.fitted.learned import Learned
from tsar.forecasting.fitted.rolling import windows_at_once
from tsar.forecasting.layers.covariates import CovariatePathway, CovariateSpec
from tsar.forecasting.network_spec import NetworkSpec, TrainingData, spec_of
from tsar.forecasting.outputs.losses import (
    Loss,
    LossName,
    QuantileLoss,
    distribution_of,
)
from tsar.forecasting.outputs.objective import ForecastObjective
from tsar.forecasting.outputs.predictive import (
    DistributionForecasts,
    PointForecasts,
    Predictive,
    QuantileForecasts,
)
from tsar.forecasting.trained import OBJECTS, Trained
from tsar.params.arguments import column_labels
from tsar.params.constraints import Interval
from tsar.training.checkpoint import (
    checkpoints_in,
)
from tsar.training.device import resolve_device
from tsar.training.optim import Optimizer
from tsar.training.schedules import Schedule
from tsar.training.seeding import seeded
from tsar.training.state import TrainingState, load_weights

__all__ = ["NetworkForecaster", "NetworkSpec"]

LARGEST_SEED = 2**63 - 1

Positive = Annotated[int, Interval(1)]
Level = Annotated[float, Interval(0, 1, open_low=True, open_high=True)]
ScheduleName: TypeAlias = Literal["constant", "halving", "type3", "cosine", "one_cycle"]


@dataclass(kw_only=True, eq=False, repr=False)
class NetworkForecaster(Trained, Forecaster):
    """A forecaster around a network.

    Parameters
    ----------
    context_length : int, default 96
        Steps of history that a forecast reads.
    scaler : {"standard"} or None, default "standard"
        Standardise each series and variate by its training part.
    past_covariates, future_covariates, static_covariates : label, sequence or None
        Columns that help to forecast the others: known up to the forecast origin, known
        over the horizon as well (``predict`` takes them as ``future=``), or constant in
        each series. Numbers are standardised, anything else is a category.
    calendar_features : bool, default False
        Whether the hour, weekday, day of month and day of year of the local clock are
        known covariates as well.
    loss : str, Loss or callable, default "mse"
        What training minimises, missing values left out: "mse", "mae", "huber", "quantile",
        or the negative log-likelihood of a distribution: "gaussian", "student_t",
        "gaussian_mixture" (of three), or "negative_binomial" for counts. The point forecast
        of quantiles and distributions is the median. A function of forecast and target that
        returns one error per entry is a loss of your own; an object is not saved with the
        model, and has to be passed to ``tsar.load`` again.
    quantiles : sequence of float or None, default None
        Levels for ``loss="quantile"``; None takes 0.1, 0.5 and 0.9. The median is always
        among them and is the point forecast. A ``QuantileLoss`` brings its own.
    max_epochs : int, default 50
        Longest training, in passes over all windows.
    max_steps : int or None, default None
        Longest training in steps, where it is shorter.
    batch_size : int, default 32
        Windows per step; each has all variates.
    optimizer : {"adam", "adamw"} or Optimizer, default "adam"
        By name, with ``weight_decay`` and ``adam_betas``, or an object of
        :mod:`tsar.training.optim` with parameters of its own, such as
        ``TorchOptimizer(torch.optim.SGD, momentum=0.9)``.
    learning_rate : float, default 1e-3
        Largest learning rate of the schedule.
    learning_rate_schedule : str or Schedule, default "constant"
        "constant", "halving" (halved after every epoch from the second on), "type3"
        (a tenth less after every epoch from the fourth on), "cosine" or "one_cycle", or an
        object of :mod:`tsar.training.schedules` such as ``Cosine(lowest=0.1)``.
    warmup_steps : int, default 0
        Steps in which the rate rises linearly to that of the schedule.
    weight_decay : float, default 0.0
        Decoupled with "adamw", an L2 penalty with "adam".
    adam_betas : sequence of two floats, default (0.9, 0.999)
        Decay rates of the moments.
    gradient_clip : float or None, default None
        Largest norm of all gradients together.
    early_stopping : bool, default True
        Hold out the end of every series that is long enough, stop when it is no longer
        forecast better, and keep the best weights.
    patience : int, default 5
        Validations (one per epoch) without improvement before stopping.
    validation_size : int or float, default 0.2
        Rows, or share of the rows, of the validation tail of each series; at least one
        horizon.
    precision : {"float32", "bfloat16", "auto"}, default "float32"
        Precision of the training steps; "auto" is bfloat16 where the hardware has it.
        Forecasts are computed in float32.
    device : str, default "auto"
        "cpu", "cuda", "cuda:k", "mps", or "auto" for an accelerator if there is one.
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
        One entry per epoch: ``train_loss`` and ``val_loss`` in standardised units,
        ``val_mae`` in original units, ``learning_rate`` and ``seconds``; ``train_penalty`` of
        a network that has one.
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

    context_length: Positive = 96
    scaler: Literal["standard"] | None = "standard"
    past_covariates: str | int | Sequence[str | int] | None = None
    future_covariates: str | int | Sequence[str | int] | None = None
    static_covariates: str | int | Sequence[str | int] | None = None
    calendar_features: bool = False
    loss: LossName | Loss | Callable = "mse"
    quantiles: Sequence[Level] | None = None
    max_epochs: Positive = 50
    max_steps: Positive | None = None
    batch_size: Positive = 32
    optimizer: Literal["adam", "adamw"] | Optimizer = "adam"
    learning_rate: Annotated[float, Interval(0, open_low=True)] = 1e-3
    learning_rate_schedule: ScheduleName | Schedule = "constant"
    warmup_steps: Annotated[int, Interval(0)] = 0
    weight_decay: Annotated[float, Interval(0)] = 0.0
    adam_betas: Sequence[Annotated[float, Interval(0, 1, open_high=True)]] = (0.9, 0.999)
    gradient_clip: Annotated[float, Interval(0, open_low=True)] | None = None
    early_stopping: bool = True
    patience: Positive = 5
    validation_size: Positive | Level = 0.2
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    device: str = "auto"
    random_state: Annotated[int, Interval(0, LARGEST_SEED)] | None = None
    warm_start: bool = False
    verbose: Annotated[int, Interval(0)] = 0

    # Whether the network reads covariates itself, rather than behind the common pathway; the
    # second is about the calendar alone.
    _own_covariates: ClassVar[bool] = False
    _own_calendar: ClassVar[bool] = False
    # Which of tsar.data.calendar.CALENDARS it reads.
    _clock: ClassVar[str] = "features"
    # Whether its mixers may look back only.
    _causal: ClassVar[bool] = False
    _references: ClassVar[frozenset[str]] = OBJECTS

    # ------------------------------------------------------------------ fit

    def fit(
        self, df: Any, y: None = None, *, checkpoint: str | os.PathLike[str] | None = None
    ) -> Self:
        """Train on a frame; afresh, unless ``warm_start`` is set.

        Parameters
        ----------
        df : DataFrame or Series
            Wide, long or MultiIndex frame, or a Series; see the user guide.
        y : None
            Not used; scikit-learn's tools pass it.
        checkpoint : path, optional
            A folder in which the training leaves its state every ten minutes. Where a fit was
            killed, the same call goes on from there, and gives the same weights as if it had
            not been. Nothing is left of a fit that ended.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            A parameter is outside its constraint.
        DataError
            The frame has faults: one error names all of them.
        TrainingError
            The loss is no longer finite, or the checkpoint is of another training.
        """
        with checkpoints_in(checkpoint):
            return self._fit(df, y, go_on=self.warm_start)

    def partial_fit(self, df: Any, y: None = None) -> Self:
        """Continue training for ``max_epochs`` more, with the optimiser as it was left.

        Parameters
        ----------
        df : DataFrame or Series
            With the fitted variates.
        y : None
            Not used.

        Returns
        -------
        self
        """
        return self._fit(df, y, go_on=True)

    @abstractmethod
    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        """Return the untrained network: ``Inputs`` to (B, H, C) or (B, H, C, Q).

        It reads the covariates of ``spec`` if the class says ``_own_covariates``, and the
        calendar if it says ``_own_calendar``.
        """

    def _covariates_beside(self, covariates: CovariateSpec) -> CovariateSpec:
        """Return those of the covariates that act beside the network, on the common pathway."""
        if self._own_covariates:
            return CovariateSpec()
        return replace(covariates, n_calendar=0) if self._own_calendar else covariates

    @property
    def _roles(self) -> dict[str, Any]:
        names = {
            role: column_labels(getattr(self, role))
            for role in ("past_covariates", "future_covariates", "static_covariates")
        }
        return {**names, "calendar": self._clock if self.calendar_features else None}

    def _check_consistency(self) -> None:
        super()._check_consistency()
        try:
            resolve_device(self.device)
        except ParameterError as error:
            raise ParameterError(f"{self._name}: {error}") from None
        if len(self.adam_betas) != 2:
            raise ParameterError(
                f"{self._name}: adam_betas must be two numbers, got {self.adam_betas!r}"
            )
        declared: dict[Any, str] = {}
        for role, names in self._roles.items():
            for name in names if role != "calendar" else ():
                if name in declared:
                    raise ParameterError(
                        f"{self._name}: {role} must have names of their own, got {name!r}, which "
                        f"is among {declared[name]}; name it once"
                    )
                declared[name] = role
        quantile = self.loss == "quantile" or isinstance(self.loss, QuantileLoss)
        if self.quantiles is not None and not quantile:
            raise ParameterError(
                f"{self._name}: quantiles={self.quantiles!r} needs loss='quantile', "
                f"got loss={self.loss!r}"
            )
        self._check_objects()
        if self.early_stopping and self._validation_rows_given < self.horizon:
            raise ParameterError(
                f"{self._name}: validation_size must be at least horizon={self.horizon} rows, "
                f"got {self.validation_size}; raise it, or give a share such as 0.2"
            )

    @property
    def _validation_rows_given(self) -> float:
        rows = self.validation_size
        return rows if isinstance(rows, int | np.integer) else np.inf

    @property
    def _standardises(self) -> bool:
        return self.scaler == "standard"

    @property
    def _predictive(self) -> Predictive:
        if self._fitted_levels:
            return QuantileForecasts(self._fitted_levels)
        fitted = distribution_of(self._fitted_parameters["loss"])
        return PointForecasts() if fitted is None else DistributionForecasts(fitted)

    @property
    def _seed(self) -> int:
        return self.seed_

    def _measure(self, panel: Panel, stop: np.ndarray) -> Scaling:
        measured = super()._measure(panel, stop)
        counts = self._standardises and self._make_loss().needs_scale
        return measured.without_moving() if counts else measured

    # The caller may have turned gradients off around the fit.
    @torch.inference_mode(False)
    @torch.enable_grad()
    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        go_on = go_on and hasattr(self, "module_")
        loss = self._make_loss()
        self._check_readable(panel, loss)
        device = resolve_device(self.device)
        data = self._training_data(panel, go_on, device)
        checkpoint = self._checkpoint()
        seed = self._training_seed(checkpoint)
        spec = NetworkSpec(
            int(self.context_length),
            int(self.horizon),
            panel.n_variates,
            loss.make_output(),
            spec_of(data.coding),
        )
        network, state = self._first_network(spec, seed, data), None
        if go_on:
            network = self._continued(network, panel)
            state = self._training_state.named(self._trained_names(network))
        if checkpoint is not None:
            with self._named_training_errors():
                checkpoint.claim(self._identity(panel, data, network, state, seed))
        at_once = windows_at_once(spec.context_length, panel.n_variates)
        options = replace(
            self._training_options, validation_batch_size=max(self.batch_size, at_once)
        )
        result = self._train(
            network,
            data.training,
            data.validation,
            ForecastObjective(loss),
            self._phases(network, options, go_on),
            device=device,
            seed=seed,
            state=state,
            checkpoint=checkpoint,
        )
        self._fitted_levels = tuple(getattr(loss, "levels", ()))
        self._keep(network, result, device, seed)
        return Learned(
            data.remembered,
            data.pooled,
            spec.context_length,
            data.coding,
            held_out=data.held_out,
        )

    def _check_readable(self, panel: Panel, loss: Loss) -> None:
        """Refuse values and names that a loss has no use for."""
        distribution = distribution_of(loss)
        with self._named_errors():
            check_quantile_labels(panel.variates, getattr(loss, "levels", ()))
            if distribution is not None and distribution.counts:
                check_counts(panel, str(self.loss))

    def _training_data(self, panel: Panel, go_on: bool, device: torch.device) -> TrainingData:
        """Divide, code, scale and cut a panel to train on."""
        held_out = self._validation_rows(panel)
        stop = panel.offsets[1:] - held_out
        if go_on:
            self._check_same_covariates(self._learned.coding)
        panel, coding = self._coded(panel, stop, self._learned.coding if go_on else None)
        scaling, remembered, pooled = self._training_scaling(panel, stop)
        series = self._tensors(panel, scaling, device, coding)
        training, validation = self._windows(series, panel, held_out)
        return TrainingData(
            series, training, validation, held_out, stop, coding, remembered, pooled
        )

    def _first_network(self, spec: NetworkSpec, seed: int, data: TrainingData) -> nn.Module:
        """Build a network, and estimate what can be before its training."""
        device = data.series.values.device
        network = self._seeded_network(spec, seed).to(device)
        if isinstance(network, CovariatePathway):
            network.estimate_effects(data.series, torch.from_numpy(data.stop).to(device))
        return network

    def _training_scaling(self, panel: Panel, stop: np.ndarray) -> tuple[Scaling, Scaling, Scaling]:
        """Measure the rows ``offsets[s]:stop[s]``: to train with, to remember, and pooled."""
        measured, whole = (
            Scaling.measure(panel.values, panel.offsets, ends) for ends in (stop, panel.offsets[1:])
        )
        if self._standardises and self._make_loss().needs_scale:
            measured, whole = measured.without_moving(), whole.without_moving()
        # What was not observed in its training part, or did not move there, is measured over
        # all of its rows, as it would be if it were a new series.
        unknown, constant = np.isnan(measured.mean), measured.scale == 0
        remembered = measured.replaced(unknown | constant, whole)
        measured = measured.replaced(unknown, whole)
        pooled = measured.pooled()
        if not self._standardises:
            pooled = replace(pooled, scale=np.ones_like(pooled.scale))
            measured, remembered = measured.without_change(), remembered.without_change()
        return measured.filled(pooled), remembered, pooled

    def _check_same_covariates(self, coding: CovariateCoding) -> None:
        """Refuse to continue with other columns than those the network was trained on."""
        fitted = {
            f"{role}_covariates": [column.name for column in getattr(coding, role)]
            for role in ("past", "future", "static")
        }
        if {**fitted, "calendar": coding.calendar} != self._roles:
            raise ParameterError(
                f"{self._name}: training cannot continue because the covariates changed since the "
                f"last fit; restore them, or fit with warm_start=False"
            )

    def _seeded_network(self, spec: NetworkSpec, seed: int) -> nn.Module:
        with seeded(seed):
            network = self._build_network(spec)
            beside = self._covariates_beside(spec.covariates)
            if beside:
                network = CovariatePathway(
                    network,
                    beside,
                    context_length=spec.context_length,
                    horizon=spec.horizon,
                    n_variates=spec.n_variates,
                    output=spec.output,
                )
            return network.to(self._dtype)

    def _validation_rows(self, panel: Panel) -> np.ndarray:
        """Return how many rows at the end of each series are held out, shape (S,)."""
        lengths = panel.lengths
        window = self.context_length + self.horizon
        if lengths.max() < window:
            raise DataError(
                f"{self._name}: context_length={self.context_length} and horizon={self.horizon} "
                f"need {window} rows, the longest series has {lengths.max()}; choose them to fit "
                f"or pass longer series"
            )
        if not self.early_stopping:
            return np.zeros_like(lengths)
        rows = self.validation_size
        tail = np.full_like(lengths, rows)
        if not isinstance(rows, int | np.integer):
            tail = np.maximum((lengths * rows).astype(np.int64), self.horizon)
        held_out = np.where(lengths - tail >= window, tail, 0)
        held_out[~observed_on_both_sides(panel.values, panel.offsets, held_out)] = 0
        if not held_out.any():
            warn(
                f"{self._name}: no series has {window} rows beside an observed validation tail, so "
                f"training runs without validation for all of max_epochs={self.max_epochs}; "
                f"shorten context_length or set early_stopping=False",
                DataWarning,
            )
        return held_out

    def _windows(
        self, tensors: SeriesTensors, panel: Panel, held_out: np.ndarray
    ) -> tuple[Windows, Windows | None]:
        context, horizon = int(self.context_length), int(self.horizon)
        training, validation = training_cutoffs(panel.offsets, context, horizon, held_out)
        windows = Windows(tensors, *training, context, horizon)
        if not held_out.any():
            return windows, None
        return windows, Windows(tensors, *validation, context, horizon)

    def _continued(self, fresh: nn.Module, panel: Panel) -> nn.Module:
        """Return the fitted network, provided that the parameters still describe it."""

        def shapes(network: nn.Module) -> dict[str, torch.Size]:
            return {name: tensor.shape for name, tensor in network.state_dict().items()}

        if shapes(fresh) != shapes(self.module_) or list(panel.variates) != self.variates_:
            raise ParameterError(
                f"{self._name}: training cannot continue because the network or the variates "
                f"changed since the last fit; restore them, or fit with warm_start=False"
            )
        # A copy: what fails on the way leaves the fitted network as it was.
        return copy.deepcopy(self.module_)

    # -------------------------------------------------------------- predict

    @property
    def _forecast_device(self) -> torch.device:
        return torch.device(self.device_)

    def _forecast_batch(self, inputs: Inputs) -> Tensor:
        forecast: Tensor = self.module_(inputs)
        return forecast

    # ------------------------------------------------------------ persistence

    def _learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record, tensors = super()._learned_state()
        weights = self.module_.state_dict()
        tensors |= {f"network.{name}": tensor.cpu() for name, tensor in weights.items()}
        training, progress = self._training_state.to_tensors()
        tensors |= {f"training.{name}": tensor.cpu() for name, tensor in training.items()}
        record["training"] = progress
        record["fitted"] |= {
            "best_epoch": self.best_epoch_,
            "seed": self.seed_,
            "interrupted": self.interrupted_,
            "levels": list(self._fitted_levels),
        }
        return record, tensors

    def _restore_learned_state(self, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super()._restore_learned_state(record, tensors)
        fitted = record["fitted"]
        spec = NetworkSpec(
            self._context_rows,
            self.horizon_,
            self.n_variates_,
            self._make_loss().make_output(),
            spec_of(self._learned.coding),
        )
        network = self._seeded_network(spec, seed=0)
        load_weights(network, _under("network.", tensors))
        self._training_state = TrainingState.from_tensors(
            _under("training.", tensors), record["training"]
        )
        self._fitted_levels = tuple(fitted["levels"])
        self.history_ = {
            name: list(values) for name, values in self._training_state.history.items()
        }
        self.best_epoch_, self.n_epochs_ = fitted["best_epoch"], self._training_state.epoch
        self.seed_, self.interrupted_ = fitted["seed"], fitted["interrupted"]
        try:
            device = resolve_device(self.device)
        except ParameterError:
            # The device it was trained on is not on this machine.
            device = torch.device("cpu")
        self.device_ = str(device)
        self.module_ = network.to(device).eval()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors below a prefix, without it."""
    return {
        name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)
    }
