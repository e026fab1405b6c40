"""Forecasters whose weights come with tsar."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Annotated, Any, ClassVar, Literal, NotRequired, TypedDict

import numpy as np
import torch
from safetensors.torch import load
from sklearn.base import clone
from torch import Tensor

from tsar.data.covariates import CovariateCoding
from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.data.stored_panel import PanelRecord
from tsar.data.windows import Windows, training_cutoffs
from tsar.estimator.base import Estimator
from tsar.exceptions import DataError, NotFittedError, ParameterError, PersistenceError
from tsar.forecasting.fitted.learned import Learned, LearnedRecord
from tsar.forecasting.layers.cycle_patches import (
    LEVELS,
    CyclePatchForecaster,
    CyclePatchNetwork,
)
from tsar.forecasting.network_insight import NetworkInsight
from tsar.forecasting.outputs.losses import QuantileLoss
from tsar.forecasting.outputs.objective import ForecastObjective
from tsar.forecasting.outputs.predictive import Predictive, QuantileForecasts
from tsar.forecasting.probabilistic.calibration import CalibrationRecord
from tsar.forecasting.run_manifest import ManifestRecord
from tsar.params.arguments import Frame, check_horizon, frame_first
from tsar.params.constraints import Interval
from tsar.training.options import Phase, TrainingOptions
from tsar.training.phases import train_phases
from tsar.training.seeding import seeded
from tsar.training.state import load_weights, tensors_under

__all__ = ["PretrainedForecaster", "load_pretrained"]

Positive = Annotated[int, Interval(1)]

# Rows of history that the network was trained to read at most.
LONGEST_CONTEXT = 1024
# Of the steps of fine-tuning, the share in which the head alone is trained.
HEAD_SHARE = 0.25
BODY = ("patches.embed_history", "patches.embed_ahead", "patches.encoder")
# Where the weights of each name are in this package.
WEIGHTS: Mapping[str, str] = {"tiny": "weights/tiny.safetensors"}


class PretrainedFitted(LearnedRecord):
    """What JSON holds of a fit."""

    cycles: list[Positive]


class PretrainedRecord(TypedDict):
    """What JSON holds of what was learned."""

    data: PanelRecord
    fitted: PretrainedFitted
    calibration: NotRequired[CalibrationRecord]
    manifest: NotRequired[ManifestRecord]


@dataclass(kw_only=True, eq=False, repr=False)
class PretrainedForecaster(NetworkInsight):
    """A network that was trained before, on synthetic series alone; its weights come with tsar.

    For series that are new or short, and for a first answer: nothing is learned from them, so that
    ``predict(df=...)`` needs no ``fit``, and thousands of series take seconds. It is told the
    cycles of the calendar, reads up to 1,024 rows of one column at a time, and forecasts nine
    quantiles; the point forecast is the median. How it was trained is in the guide on
    pre-training.

    Parameters
    ----------
    pretrained : {"tiny"}, default "tiny"
        Which weights: "tiny" has half a million of them.
    context_length : int or None, default None
        Rows of history that a forecast reads at most. None: 1,024, or as many as the longest
        series has.
    season_lengths : sequence of int or None, default None
        Steps in one or two cycles, the shorter one first. None takes those of the calendar: the
        season that :class:`SeasonalNaive` repeats, and the next longer one that the longest series
        has twice in what is read of it. Data by number have no calendar: name theirs.
    fine_tuning_steps : int, default 0
        Steps in which ``fit`` trains the weights further, a quarter of them those of the head
        alone; 0 takes them as they are.
    batch_size : int, default 32
        Windows per step of fine-tuning.
    learning_rate : float, default 1e-4
        Of the head alone; it is halved for all weights, and falls to 0 in a cosine.
    random_state : int, default 0
        Seed of the order in which windows are seen.

    Attributes
    ----------
    season_lengths_ : tuple of int
        The cycles that were told to the network.
    module_ : nn.Module
        The network.

    References
    ----------
    Patches as tokens: Nie et al., "A time series is worth 64 words", ICLR 2023, section 3.1.
    Training on synthetic series: Dooley et al., "ForecastPFN: synthetically-trained zero-shot
    forecasting", NeurIPS 2023.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> tsar.load_pretrained("tiny").predict(horizon=12, df=sea, quantiles=[0.1, 0.9]).shape
    (12, 3)
    """

    pretrained: Literal["tiny"] = "tiny"
    context_length: Annotated[int, Interval(1, LONGEST_CONTEXT)] | None = None
    season_lengths: Sequence[Positive] | None = None
    fine_tuning_steps: Annotated[int, Interval(0)] = 0
    batch_size: Positive = 32
    learning_rate: Annotated[float, Interval(0, open_low=True)] = 1e-4
    random_state: Annotated[int, Interval(0, 2**63 - 1)] = 0

    learned_record: ClassVar[Any] = PretrainedRecord

    def _check_consistency(self) -> None:
        super()._check_consistency()
        lengths = self.season_lengths
        if lengths is not None and not (
            len(lengths) in (1, 2) and list(lengths) == sorted(set(lengths))
        ):
            raise ParameterError(
                f"{self.name}: season_lengths must be one or two increasing numbers, got "
                f"{list(lengths)}; name the two cycles that matter most, or None for the calendar's"
            )

    @property
    def _standardises(self) -> bool:
        return True

    @property
    def is_trained(self) -> bool:
        return bool(self.fitted_parameters_["fine_tuning_steps"])

    @property
    def expected_predictive(self) -> Predictive:
        return QuantileForecasts(LEVELS)

    @property
    def sampling_seed(self) -> int:
        return int(self.fitted_parameters_["random_state"])

    # ------------------------------------------------------------------ fit

    def _learn(self, panel: Panel, go_on: bool) -> Learned:
        longest = int(panel.lengths.max())
        context = min(self.context_length or LONGEST_CONTEXT, longest)
        cycles = self._cycles(panel, context)
        measured = Scaling.measure(panel.values, panel.offsets, panel.offsets[1:])
        network = self._build(cycles, int(self.horizon))
        load_weights(network.patches, _shipped_weights(self.pretrained))
        if self.fine_tuning_steps:
            self._fine_tune(network, panel, context)
        self.module_ = network.eval()
        self.season_lengths_ = cycles
        return Learned(measured, measured.pooled(), context)

    def _cycles(self, panel: Panel, context: int) -> tuple[int, int]:
        """Return the cycles to tell the network, the same twice where there is one."""
        if self.season_lengths is not None:
            lengths = [int(length) for length in self.season_lengths]
            return lengths[0], lengths[-1]
        # Of a day of minutes nothing is seen twice: it says no more than no cycle.
        short = panel.season_length if panel.season_length <= context else 1
        longer = [cycle for cycle in panel.frequency.cycles if short < cycle <= context // 2]
        return short, min(longer, default=short)

    @staticmethod
    def _build(cycles: tuple[int, int], horizon: int) -> CyclePatchForecaster:
        # What is drawn is overwritten, but may move no generator of the caller.
        with seeded(0):
            return CyclePatchForecaster(CyclePatchNetwork(), cycles, horizon)

    # The caller may have turned gradients off around the fit.
    @torch.inference_mode(False)
    @torch.enable_grad()
    def _fine_tune(self, network: CyclePatchForecaster, panel: Panel, context: int) -> None:
        """Train the head, then all weights, in units of the seasonal error of each series."""
        horizon, device = int(self.horizon), torch.device("cpu")
        season = network.cycles[0]
        scaling = Scaling.measure_seasonal(panel.values, panel.offsets, panel.offsets[1:], season)
        scaling = scaling.filled(scaling.pooled())
        tensors = self._tensors(panel, scaling, device, CovariateCoding())
        cutoffs, _ = training_cutoffs(
            panel.offsets, context, horizon, np.zeros(panel.n_series, dtype=np.int64)
        )
        windows = Windows(tensors, *cutoffs, context, horizon)
        if not len(windows):
            raise DataError(
                f"{self.name}: fine_tuning_steps={self.fine_tuning_steps} needs a series with 2 "
                f"rows or more, the longest has {panel.lengths.max()}; pass longer series, or set "
                f"fine_tuning_steps=0"
            )
        whole = TrainingOptions(
            max_epochs=None,
            max_steps=self.fine_tuning_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate / 2,
            schedule="cosine",
        )
        head = replace(
            whole,
            max_steps=round(HEAD_SHARE * self.fine_tuning_steps),
            learning_rate=self.learning_rate,
            schedule="constant",
        )
        phases = [Phase(head, BODY)] if head.max_steps else []
        train_phases(
            network,
            windows,
            None,
            ForecastObjective(QuantileLoss(LEVELS)),
            phases=[*phases, Phase(whole)],
            device=device,
            seed=int(self.random_state),
        )

    # -------------------------------------------------------------- predict

    @frame_first
    def predict(
        self,
        horizon: int | Frame | None = None,
        df: Frame | int | None = None,
        future: Frame | None = None,
        *,
        quantiles: Sequence[float] | None = None,
        level: float | Sequence[float] | None = None,
        samples: int | None = None,
        allow_new_variates: bool = False,
    ) -> Any:
        """Forecast the steps that follow, of series that need not be fitted.

        Parameters
        ----------
        horizon : int or None
            How many steps; None takes ``horizon``.
        df : DataFrame or Series, optional
            Series to forecast. Where nothing was fitted, they are read with the parameters of the
            forecaster.
        future, quantiles, level, samples, allow_new_variates
            As every forecaster takes them.

        Returns
        -------
        DataFrame or Series
            In the form of the data.

        Raises
        ------
        NotFittedError
            Nothing was fitted, and there is no ``df``, or ``fine_tuning_steps`` is above 0.
        ParameterError, DataError
            An argument or the frame is not usable.
        """
        if self.__sklearn_is_fitted__():
            model = self
        else:
            model, df = self._reading(horizon, df), None
        return super(PretrainedForecaster, model).predict(
            horizon,
            df=df,
            future=future,
            quantiles=quantiles,
            level=level,
            samples=samples,
            allow_new_variates=allow_new_variates,
        )

    def _reading(self, horizon: Any, df: Any) -> "PretrainedForecaster":
        """Return a forecaster that continues a frame, without learning from it."""
        if df is None or self.fine_tuning_steps:
            raise NotFittedError(
                f"{self.name} is not fitted yet; pass df=, with fine_tuning_steps=0, or call fit "
                f"first"
            )
        steps = self.horizon if horizon is None else check_horizon(self.name, horizon)
        return clone(self).set_params(horizon=steps).fit(df)

    # ------------------------------------------------------------ persistence

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record, tensors = super().learned_state()
        record["fitted"]["cycles"] = list(self.season_lengths_)
        weights = self.module_.state_dict()
        return record, tensors | {f"network.{name}": one for name, one in weights.items()}

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Estimator],
    ) -> None:
        super().restore_learned_state(record, tensors, members)
        cycles = record["fitted"]["cycles"]
        if len(cycles) != 2:
            raise PersistenceError(f"load: there must be two cycles, got {cycles}")
        network = self._build((cycles[0], cycles[1]), self.horizon_)
        load_weights(network, tensors_under("network.", tensors))
        self.module_ = network.eval()
        self.season_lengths_ = network.cycles


def load_pretrained(name: str = "tiny", **parameters: Any) -> PretrainedForecaster:
    """Return a forecaster whose weights come with tsar, ready to predict.

    Parameters
    ----------
    name : str, default "tiny"
        As :class:`PretrainedForecaster` names them.
    **parameters
        Its other parameters, such as ``season_lengths`` and the columns of a long frame.

    Returns
    -------
    PretrainedForecaster
        ``predict(horizon, df=...)`` needs no fit.

    Raises
    ------
    ParameterError
        There are no such weights, or a parameter is outside its constraint.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> tsar.load_pretrained("tiny").predict(6, df=sea).shape
    (6, 1)
    """
    model = PretrainedForecaster(pretrained=name, **parameters)  # type: ignore[arg-type]
    model.check()
    return model


def _shipped_weights(name: str) -> dict[str, Tensor]:
    """Read weights of half precision that lie in this package, as single ones."""
    file = resources.files("tsar.forecasting") / WEIGHTS[name]
    return {name: part.float() for name, part in load(file.read_bytes()).items()}
