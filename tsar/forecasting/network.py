"""Forecasters that train a network: the parameters and the fit that all of them share."""

import copy
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Self, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from tsar.data.covariates import CovariateCoding
from tsar.data.forecasts import check_quantile_labels
from tsar.data.matching import check_counts
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.data.stored_panel import PanelRecord
from tsar.data.windows import (
    SeriesTensors,
    Windows,
    observed_on_both_sides,
    training_cutoffs,
)
from tsar.estimator.base import Estimator
from tsar.estimator.trained import TrainedEstimator
from tsar.exceptions import (
    DataError,
    DataWarning,
    ParameterError,
    PersistenceError,
    warn,
)
from tsar.forecasting.covariate_columns import CovariateColumns
from tsar.forecasting.data_driven import DataDrivenForecaster
from tsar.forecasting.fitted.learned import Learned, LearnedRecord
from tsar.forecasting.fitted.rolling import windows_at_once
from tsar.forecasting.layers.covariates import CovariatePathway, CovariateSpec
from tsar.forecasting.network_spec import NetworkSpec, TrainingData, spec_of
from tsar.forecasting.outputs.loss_parameters import loss_of, predictive_of
from tsar.forecasting.outputs.losses import Loss, QuantileLoss, distribution_of
from tsar.forecasting.outputs.objective import ForecastNetwork, ForecastObjective, measure
from tsar.forecasting.outputs.predictive import Predictive
from tsar.forecasting.probabilistic.calibration import CalibrationRecord
from tsar.forecasting.run_manifest import ManifestRecord
from tsar.params.arguments import Frame, SampleWeight
from tsar.params.constraints import Interval
from tsar.training.checkpoint import (
    checkpoints_in,
)
from tsar.training.device import resolve_device
from tsar.training.objective import Objective
from tsar.training.seeding import seeded
from tsar.training.state import TrainedFitted, TrainingRecord
from tsar.training.threads import settle_number

__all__ = ["NetworkForecaster", "NetworkSpec"]

# Of each series, held out where early stopping says no more than True.
VALIDATION_SHARE = 0.2

Level = Annotated[float, Interval(0, 1, open_low=True, open_high=True)]


class NetworkFitted(LearnedRecord, TrainedFitted):
    """What JSON holds of a fit."""

    levels: list[Annotated[float, Interval(0, 1)]]
    chosen: NotRequired[list[str]]


class NetworkRecord(TypedDict):
    """What JSON holds of what a network learned."""

    data: PanelRecord
    fitted: NetworkFitted
    training: TrainingRecord
    calibration: NotRequired[CalibrationRecord]
    manifest: NotRequired[ManifestRecord]


@dataclass(kw_only=True, eq=False, repr=False)
class NetworkForecaster(DataDrivenForecaster, CovariateColumns):
    """A forecaster around a network.

    Parameters
    ----------
    scaler : {"standard", "seasonal", "max_abs"} or None, default "standard"
        Standardise each series and variate by its training part; move it by the mean and divide
        it by the mean absolute seasonal difference there, so that errors count in the units of
        MASE; or divide it by the largest absolute value.
    loss : str, Loss or callable, default "mse"
        What training minimises, missing values left out: "mse", "mae", "decaying_mae" (divided
        by the root of the step), "huber", "quantile", or the negative log-likelihood of a
        distribution: "gaussian", "student_t", "gaussian_mixture" (of three), or
        "negative_binomial" for counts. The point forecast of quantiles and distributions is the
        median. A function of forecast and target that returns one error per entry is a loss of
        your own; an object is not saved with the model, and has to be passed to ``tsar.load``
        again.
    quantiles : sequence of float or None, default None
        Levels for ``loss="quantile"``; None takes 0.1, 0.5 and 0.9. The median is always
        among them and is the point forecast. A ``QuantileLoss`` brings its own.

    Attributes
    ----------
    history_ : dict of str to list of float
        One entry per epoch: ``train_loss`` and ``val_loss`` in standardised units,
        ``val_mae`` in original units, ``learning_rate`` and ``seconds``; ``train_penalty`` of
        a network that has one.
    """

    parameter_group: ClassVar[str] = "data"
    other_groups: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("loss", "quantiles", "scaler"), "training"),
    }

    scaler: Literal["standard", "seasonal", "max_abs"] | None = "standard"
    loss: str | Loss | Callable = "mse"
    quantiles: Sequence[Level] | None = None

    # Whether the network reads covariates itself, rather than behind the common pathway; the
    # second is about the calendar alone.
    _own_covariates: ClassVar[bool] = False
    _own_calendar: ClassVar[bool] = False
    # Whether its mixers may look back only.
    _causal: ClassVar[bool] = False
    references: ClassVar[frozenset[str]] = TrainedEstimator.references | {"loss"}
    learned_record: ClassVar[Any] = NetworkRecord

    # ------------------------------------------------------------------ fit

    def fit(
        self,
        df: Frame,
        y: None = None,
        *,
        sample_weight: SampleWeight = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on a frame; afresh, unless ``warm_start`` is set.

        Parameters
        ----------
        df : DataFrame or Series
            Wide, long or MultiIndex frame, or a Series; see the user guide.
        y : None
            Not used; scikit-learn's tools pass it.
        sample_weight : array-like of shape (rows of df,), dict, "equal_series" or None
            How much the error at each row counts, in training and in the choice of the best
            epoch: a number per row, a dict with one per id, or so that every series counts the
            same, however long it is. Their ratios matter. A row of
            weight 0 is read as history and not learned from. The scaling, and what ``calibrate``
            measures, is that of all rows.
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
            return self._fit(df, y, go_on=self.warm_start, weight=sample_weight)

    def partial_fit(self, df: Frame, y: None = None, *, sample_weight: SampleWeight = None) -> Self:
        """Continue training for ``max_epochs`` more, with the optimiser as it was left.

        Parameters
        ----------
        df : DataFrame or Series
            With the fitted variates.
        y : None
            Not used.
        sample_weight : array-like, dict or None, default None
            As :meth:`fit` takes it.

        Returns
        -------
        self
        """
        return self._fit(df, y, go_on=True, weight=sample_weight)

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

    def _check_consistency(self) -> None:
        super()._check_consistency()
        quantile = self.loss == "quantile" or isinstance(self.loss, QuantileLoss)
        if self.quantiles is not None and not quantile:
            raise ParameterError(
                f"{self.name}: quantiles={self.quantiles!r} needs loss='quantile', "
                f"got loss={self.loss!r}"
            )
        try:
            self.resolve_loss()
        except ParameterError as error:
            raise ParameterError(f"{self.name}: {str(error).removeprefix('make_loss: ')}") from None
        rows = self.early_stopping
        if not isinstance(rows, bool | float | np.bool_ | np.floating | None) and (
            rows < self.horizon
        ):
            raise ParameterError(
                f"{self.name}: early_stopping must hold out at least horizon={self.horizon} rows, "
                f"got {rows}; raise it, or give a share such as 0.2"
            )

    @classmethod
    def upgrade_parameters(cls, saved: dict[str, Any]) -> dict[str, Any]:
        parameters = super().upgrade_parameters(saved)
        # How much is held out was a parameter of its own once.
        size = parameters.pop("validation_size", VALIDATION_SHARE)
        if parameters.get("early_stopping") is True and size != VALIDATION_SHARE:
            parameters["early_stopping"] = size
        return parameters

    @property
    def _standardises(self) -> bool:
        return self.scaler is not None

    @property
    def expected_predictive(self) -> Predictive:
        return predictive_of(self.loss, self.quantiles)

    @property
    def predictive(self) -> Predictive:
        return predictive_of(self.fitted_parameters_["loss"], self.fitted_parameters_["quantiles"])

    @property
    def sampling_seed(self) -> int:
        return self.seed_

    def _measure(self, panel: Panel, stop: np.ndarray) -> Scaling:
        measured = self._statistics(panel, stop)
        return measured if self._standardises else measured.without_change()

    def _statistics(self, panel: Panel, stop: np.ndarray) -> Scaling:
        """Return what the scaler measures of the rows ``offsets[s]:stop[s]``."""
        if self.scaler == "max_abs":
            return Scaling.measure_largest(panel.values, panel.offsets, stop)
        if self.scaler == "seasonal" and not self.resolve_loss().needs_scale:
            season = min(panel.frequency.cycles, default=1)
            return Scaling.measure_seasonal(panel.values, panel.offsets, stop, season)
        measured = Scaling.measure(panel.values, panel.offsets, stop)
        counts = self._standardises and self.resolve_loss().needs_scale
        return measured.without_moving() if counts else measured

    # The caller may have turned gradients off around the fit.
    @torch.inference_mode(False)
    @torch.enable_grad()
    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        settle_number()
        go_on = go_on and hasattr(self, "module_")
        loss = self.resolve_loss()
        self._check_readable(panel, loss)
        device = resolve_device(self.device)
        data = self._training_data(panel, go_on, device)
        checkpoint = self._checkpoint()
        seed = self._training_seed(checkpoint)
        spec = NetworkSpec(
            self.context,
            int(self.horizon),
            panel.n_variates,
            loss.make_output(),
            spec_of(data.coding),
        )
        network, state = self._first_network(spec, seed, data), None
        if go_on:
            network = self._continued(network, panel)
            state = self._training_state.named(self._trained_names(network))
        measure(network, data.series, data.stop_rows)
        if checkpoint is not None:
            with self._named_training_errors():
                checkpoint.claim(self._identity(data.digest(panel), network, state, seed))
        at_once = windows_at_once(spec.context_length, panel.n_variates)
        options = replace(
            self._training_options, validation_batch_size=max(self.batch_size or 1, at_once)
        )
        result = self._train(
            network,
            data.training,
            data.validation,
            self._objective(loss),
            self._phases(network, options, go_on),
            device=device,
            seed=seed,
            state=state,
            checkpoint=checkpoint,
        )
        self._keep(network, result, device, seed)
        return Learned(
            data.remembered,
            data.pooled,
            spec.context_length,
            data.coding,
            held_out=data.held_out,
        )

    def _objective(self, loss: Loss) -> Objective:
        """Return what training minimises, and early stopping compares."""
        return ForecastObjective(loss)

    def resolve_loss(self) -> Loss:
        """Return the loss that the parameters name, or that they are given as an object."""
        return loss_of(self.loss, self.quantiles)

    def _check_readable(self, panel: Panel, loss: Loss) -> None:
        """Refuse values and names that a loss has no use for."""
        distribution = distribution_of(loss)
        with self.named_errors():
            check_quantile_labels(panel.variates, getattr(loss, "levels", ()))
            if distribution is not None and distribution.counts:
                check_counts(panel, str(self.loss))

    def _training_data(self, panel: Panel, go_on: bool, device: torch.device) -> TrainingData:
        """Divide, code, scale and cut a panel to train on."""
        held_out = self._validation_rows(panel)
        stop = panel.offsets[1:] - held_out
        if go_on:
            self._check_same_covariates(self.learned_.coding)
        panel, coding = self._coded(panel, stop, self.learned_.coding if go_on else None)
        scaling, remembered, pooled = self._training_scaling(panel, stop)
        series = self._tensors(panel, scaling, device, coding)
        if panel.weight is not None:
            series = replace(series, weight=self._weight(panel, stop).to(device))
        training, validation = self._windows(series, panel, held_out)
        return TrainingData(
            series, training, validation, held_out, stop, coding, remembered, pooled
        )

    def _weight(self, panel: Panel, stop: np.ndarray) -> Tensor:
        """Return the weights of rows, (rows, 1), whose mean over the rows to train on is 1."""
        assert panel.weight is not None, "it is asked for where there is one"
        owner = np.repeat(np.arange(panel.n_series), panel.lengths)
        mean = panel.weight[np.arange(len(owner)) < stop[owner]].mean()
        if not mean:
            raise DataError(
                f"{self.name}: sample_weight is 0 for all rows but those held out, so there is "
                f"nothing to learn from; set early_stopping=False, or weigh earlier rows"
            )
        return torch.from_numpy(panel.weight / mean).to(self._dtype)[:, None]

    def _first_network(self, spec: NetworkSpec, seed: int, data: TrainingData) -> nn.Module:
        """Build a network, and estimate what can be before its training."""
        network = self._seeded_network(spec, seed).to(data.series.values.device)
        if isinstance(network, ForecastNetwork):
            network.prepare(data.series, data.stop_rows)
        return network

    def _training_scaling(self, panel: Panel, stop: np.ndarray) -> tuple[Scaling, Scaling, Scaling]:
        """Measure the rows ``offsets[s]:stop[s]``: to train with, to remember, and pooled."""
        measured, whole = (self._statistics(panel, ends) for ends in (stop, panel.offsets[1:]))
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
        if {**fitted, "calendar": coding.calendar} != self.roles:
            raise ParameterError(
                f"{self.name}: training cannot continue because the covariates changed since the "
                f"last fit; restore them, or fit with warm_start=False"
            )

    def _seeded_network(self, spec: NetworkSpec, seed: int) -> nn.Module:
        with seeded(seed):
            network = self._build_network(spec)
            if not isinstance(network, nn.Module):
                raise ParameterError(
                    f"{self.name}: _build_network must return an nn.Module, got {network!r}; "
                    f"return the network"
                )
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

    def validation_tail(self, lengths: np.ndarray) -> np.ndarray:
        """Return how many rows of series of these lengths early stopping asks for, shape (S,)."""
        size = True if self.early_stopping is None else self.early_stopping
        if not size:
            return np.zeros_like(lengths)
        if isinstance(size, bool | np.bool_ | float | np.floating):
            share = VALIDATION_SHARE if isinstance(size, bool | np.bool_) else size
            return np.maximum((lengths * share).astype(lengths.dtype), self.horizon)
        return np.full_like(lengths, size)

    def _validation_rows(self, panel: Panel) -> np.ndarray:
        """Return how many rows at the end of each series are held out, shape (S,)."""
        lengths = panel.lengths
        window = self.context + self.horizon
        if lengths.max() < window:
            raise DataError(
                f"{self.name}: context_length={self.context_length} and horizon={self.horizon} "
                f"need {window} rows, the longest series has {lengths.max()}; choose them to fit "
                f"or pass longer series"
            )
        if not self.early_stopping:
            return np.zeros_like(lengths)
        tail = self.validation_tail(lengths)
        held_out = np.where(lengths - tail >= window, tail, 0)
        held_out[~observed_on_both_sides(panel.values, panel.offsets, held_out)] = 0
        if not held_out.any():
            warn(
                f"{self.name}: no series has {window} rows beside an observed validation tail, so "
                f"training runs without validation, to its end; "
                f"shorten context_length or set early_stopping=False",
                DataWarning,
            )
        return held_out

    def _windows(
        self, tensors: SeriesTensors, panel: Panel, held_out: np.ndarray
    ) -> tuple[Windows, Windows | None]:
        context, horizon = self.context, int(self.horizon)
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
                f"{self.name}: training cannot continue because the network or the variates "
                f"changed since the last fit; restore them, or fit with warm_start=False"
            )
        # A copy: what fails on the way leaves the fitted network as it was.
        return copy.deepcopy(self.module_)

    # -------------------------------------------------------------- predict

    @property
    def takes_new_variates(self) -> bool:
        # What acts beside the network has effects on each of the fitted ones.
        beside = self._covariates_beside(spec_of(self.learned_.coding))
        return self.takes_any_variates and not beside

    @property
    def _forecast_device(self) -> torch.device:
        return torch.device(self.device_)

    # ------------------------------------------------------------ persistence

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record, tensors = super().learned_state()
        trained, more = self._trained_state()
        fitted = {**record["fitted"], **trained["fitted"]}
        fitted["levels"] = list(getattr(self.as_fitted.resolve_loss(), "levels", ()))
        return {**record, **trained, "fitted": fitted}, tensors | more

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Estimator],
    ) -> None:
        super().restore_learned_state(record, tensors, members)
        levels = list(getattr(self.resolve_loss(), "levels", ()))
        if levels != record["fitted"]["levels"]:
            raise PersistenceError(
                f"load: the saved {self.name} forecasts the quantiles "
                f"{record['fitted']['levels']}, got loss={self.loss!r}; pass the loss it was "
                f"fitted with"
            )
        spec = NetworkSpec(
            self.context_rows,
            self.horizon_,
            self.n_variates_,
            self.resolve_loss().make_output(),
            spec_of(self.learned_.coding),
        )
        self._restore_trained_state(lambda: self._seeded_network(spec, seed=0), record, tensors)
        self.restore_choices(record["fitted"].get("chosen", ()))
