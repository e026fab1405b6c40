"""AutoTCL: windows are known by what they share with a view that is learned, then regressed on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.ridge import RidgePath
from tsar.data.windows import Batch, Inputs
from tsar.forecasting.layers.covariates import CovariateEncoder, CovariateSpec
from tsar.forecasting.layers.learned_views import Augmenter, StepEncoder, ViewObjective
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.losses import MSELoss
from tsar.forecasting.outputs.objective import ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval
from tsar.training.objective import Source, size_of
from tsar.training.optim import Optimizer, as_optimizer
from tsar.training.options import Phase, TrainingOptions, TrainingResult

__all__ = ["AutoTCL", "AutoTCLNetwork"]

# Penalties among which validation chooses, and that without validation.
ALPHAS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
UNCHOSEN_ALPHA = 1.0
# Windows that are regressed on, at most, and how many of them are encoded at once.
REGRESSED, AT_ONCE = 100_000, 64

Positive = Annotated[int, Interval(1)]
Weight = Annotated[float, Interval(0)]


class AutoTCLNetwork(ForecastNetwork):
    """A linear map of the last of encoded steps, whose encoder knows windows by a view of them.

    All variates of a step are encoded together, with its covariates. Covariates of the horizon
    and static ones stand beside the last encoded step, where the map reads them.

    Parameters
    ----------
    context_length, horizon, n_variates : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    covariates : CovariateSpec, optional
    d_model, d_ff, n_layers : int, default 64, 320 and 10
        Width of the convolutions and of what the last of them gives, and blocks before that.

    References
    ----------
    Zheng et al., "Parametric augmentation for time series contrastive learning", ICLR 2024;
    encoder and sizes as in the authors' code.
    """

    alpha: Tensor

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        n_variates: int,
        output: Output,
        covariates: CovariateSpec | None = None,
        d_model: int = 64,
        d_ff: int = 320,
        n_layers: int = 10,
    ) -> None:
        super().__init__()
        self.context_length, self.horizon = context_length, horizon
        spec = CovariateSpec() if covariates is None else covariates
        self.covariates = CovariateEncoder(spec)
        n_static = self.covariates.n_static
        n_inputs = n_variates + self.covariates.n_past + self.covariates.n_known
        self.n_ahead = self.covariates.n_known - spec.n_calendar
        self.encoder = StepEncoder(
            context_length, n_inputs, d_model=d_model, d_ff=d_ff, n_layers=n_layers
        )
        self.augmenter = Augmenter(context_length, n_inputs)
        n_features = d_ff + horizon * self.n_ahead + n_static
        self.head = Linear(n_features, horizon * n_variates * output.n_outputs)
        # The penalty of the regression that set the head.
        self.register_buffer("alpha", torch.tensor(float("nan")))
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows.

        Parameters
        ----------
        inputs : Inputs
            ``target`` of shape (B, L, C), and the covariates.

        Returns
        -------
        Tensor of shape (B, H, C), or (B, H, C, Q) with several outputs per step
        """
        raw = self.head(self.represent(inputs))
        return self.output(raw.view(len(raw), self.horizon, inputs.target.shape[2], -1), 0.0, 1.0)

    def represent(self, inputs: Inputs) -> Tensor:
        """Return what the head reads, (B, n_features)."""
        _, ahead, static = self.covariates(inputs)
        ahead = ahead[:, self.context_length :, : self.n_ahead].flatten(1)
        return torch.cat([self.encoder.last(self.steps(inputs)), ahead, static], dim=1)

    def steps(self, inputs: Inputs) -> Tensor:
        """Return what the encoder reads, (B, L, n_inputs)."""
        past, known_ahead, _ = self.covariates(inputs)
        parts = [inputs.target, past]
        if self.covariates.n_known:
            parts.append(known_ahead[:, : self.context_length])
        return torch.cat(parts, dim=2)


@torch.no_grad()
def regress(network: AutoTCLNetwork, training: Source, validation: Source | None) -> None:
    """Set the head of a network by ridge regression.

    Its penalty is the one whose root mean squared and mean absolute error on the validation
    windows have the smallest sum. A future step that was not observed counts as what was observed
    last, and its window by the share of steps that were.

    Parameters
    ----------
    network : AutoTCLNetwork
        With one output per step.
    training : source of batches
    validation : source of batches or None
    """
    head = network.head
    path = RidgePath(head.in_features, head.out_features)
    for batch in _batches(training):
        weight = None if batch.observed is None else batch.observed.float().mean(dim=(1, 2))
        path.add(network.represent(batch.inputs), batch.target.flatten(1), weight)
    alphas = ALPHAS if validation is not None and size_of(validation) else (UNCHOSEN_ALPHA,)
    checked = []
    if len(alphas) > 1 and validation is not None:
        checked = [(network.represent(batch.inputs), batch) for batch in _batches(validation)]
    best = float("inf")
    for alpha, (weight, bias) in zip(alphas, path.solutions(alphas), strict=True):
        score = _score(checked, *(part.float().to(head.weight) for part in (weight, bias)))
        if score < best:
            best = score
            head.weight.copy_(weight)
            head.bias.copy_(bias)
            network.alpha.fill_(alpha)


def _batches(source: Source) -> Any:
    """Yield windows of a source in batches, evenly over all of it."""
    total = size_of(source)
    numbers = torch.linspace(0, total - 1, min(total, REGRESSED), dtype=torch.float64).long()
    return (source.batch(part) for part in numbers.split(AT_ONCE))


def _score(checked: Sequence[tuple[Tensor, Batch]], weight: Tensor, bias: Tensor) -> float:
    """Return the root mean squared and the mean absolute error of a head, added up."""
    squared = absolute = count = 0.0
    for features, batch in checked:
        error = F.linear(features, weight, bias) - batch.target.flatten(1)
        counted = torch.ones_like(error)
        if batch.observed is not None:
            counted = batch.observed.flatten(1).to(error.dtype)
        squared += float((error.square() * counted).sum())
        absolute += float((error.abs() * counted).sum())
        count += float(counted.sum())
    return float((squared / max(count, 1e-9)) ** 0.5 + absolute / max(count, 1e-9))


@dataclass(kw_only=True, eq=False, repr=False)
class AutoTCL(NetworkForecaster):
    """AutoTCL: an encoder that knows windows by a learned view of them, and ridge regression.

    For comparison with other representations: on ETTh1 and ETTh2 its published errors are above
    those of a linear model of the history, ``NLinear`` among them, which is to be tried first.

    Training has no regard to forecasts: the encoder learns to know windows by views of them,
    which another network learns to make. Then the last encoded step of each window is mapped to
    the horizon, by ridge regression with ``loss="mse"``, by gradients for ``max_epochs`` more
    with any other loss. ``train_loss`` and ``val_loss`` of the first part are those of the
    contrast. The variates of a frame are encoded together.

    Parameters
    ----------
    context_length : int, default 201
        Steps of history that a forecast reads.
    calendar_features : bool, default True
        Read the hour, weekday, day of the month and day of the year of every step.
    d_model, d_ff : int, default 64 and 320
        Width of the convolutions, and of what the last of them gives.
    n_layers : int, default 10
        Blocks of convolutions before the last one. Each reaches twice as far as the one before.
    augmenter_learning_rate : float, default 0.01
        Largest learning rate of the network that makes views.
    local_weight : float, default 0.3
        Weight of the contrast of parts of a window, beside that of windows.
    sparsity_weight, smoothness_weight : float, default 0.2 and 0.0
        Weights of how many steps a view has, and of how often they come and go.
    optimizer : {"adam", "adamw"} or Optimizer, default "adamw"
        As for the other models.

    Attributes
    ----------
    alpha_ : float
        The penalty of the ridge regression that the validation chose; 1 without validation, and
        NaN with another loss than "mse".

    References
    ----------
    Zheng et al., "Parametric augmentation for time series contrastive learning", ICLR 2024.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.AutoTCL(
    ...     context_length=48, horizon=12, d_model=8, d_ff=16, n_layers=3, max_epochs=2,
    ...     random_state=0,
    ... )
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    context_length: Positive = 201
    calendar_features: bool = True
    d_model: Positive = 64
    d_ff: Positive = 320
    n_layers: Positive = 10
    augmenter_learning_rate: Annotated[float, Interval(0, open_low=True)] = 0.01
    local_weight: Weight = 0.3
    sparsity_weight: Weight = 0.2
    smoothness_weight: Weight = 0.0
    optimizer: Literal["adam", "adamw"] | Optimizer = "adamw"

    channel_independent: ClassVar[bool] = False
    takes_any_variates: ClassVar[bool] = False
    _own_covariates: ClassVar[bool] = True

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return AutoTCLNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            n_variates=spec.n_variates,
            output=spec.output,
            covariates=spec.covariates,
            d_model=self.d_model,
            d_ff=self.d_ff,
            n_layers=self.n_layers,
        )

    @property
    def alpha_(self) -> float:
        """The penalty of the ridge regression."""
        # It is in single precision there.
        return float(f"{self.module_.get_buffer('alpha').item():.6g}")

    def _phases(self, network: nn.Module, options: TrainingOptions, go_on: bool) -> Sequence[Phase]:
        """Train the encoder and the augmenter, and then the head, if it is not regressed."""
        optimizer = as_optimizer(options.optimizer)
        faster = self.augmenter_learning_rate / options.learning_rate
        rates = {**optimizer.rates, "augmenter.*": faster}
        contrast = ViewObjective(self.local_weight, self.sparsity_weight, self.smoothness_weight)
        # A window is told from as many others in validation as in training.
        of_views = replace(
            options,
            optimizer=replace(optimizer, rates=rates),
            validation_batch_size=options.batch_size,
        )
        first = Phase(of_views, ("head",), contrast)
        if isinstance(self.resolve_loss(), MSELoss):
            return [first]
        head = Phase(options, ("encoder", "augmenter", "covariates"))
        return [head] if go_on else [first, head]

    def _trained_names(self, network: nn.Module) -> list[str]:
        of_head = [name for name in super()._trained_names(network) if name.startswith("head.")]
        if not isinstance(self.as_fitted.resolve_loss(), MSELoss):
            return of_head
        return [name for name in super()._trained_names(network) if name not in of_head]

    def _train(
        self, network: Any, training: Any, validation: Any, *others: Any, **how: Any
    ) -> TrainingResult:
        result = super()._train(network, training, validation, *others, **how)
        if isinstance(self.resolve_loss(), MSELoss):
            regress(network, training, validation)
        return result
