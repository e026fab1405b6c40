"""AR-Net: an autoregression of any order, fitted by gradient steps, sparse if asked to be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from tsar.core.ops.even_products import linear_by_group
from tsar.data.calendar import CALENDAR_FEATURES
from tsar.data.covariates import ColumnCoding
from tsar.data.scaling import Scaling
from tsar.data.windows import Inputs
from tsar.estimator.trained import ScheduleName
from tsar.exceptions import ParameterError
from tsar.forecasting.layers.covariates import ColumnEmbedding, CovariateEncoder, CovariateSpec
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.distributions import GaussianMixture, NegativeBinomial
from tsar.forecasting.outputs.losses import distribution_of
from tsar.forecasting.outputs.objective import ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval
from tsar.training.schedules import Schedule

__all__ = ["ARNet", "ARNetNetwork", "sparsity_regulariser"]

Positive = Annotated[int, Interval(1)]

# The constants c1 and c2 of the regulariser, in the paper's experiments about 3.
STEEPNESS, ROOT = 3.0, 3.0
# A weight this near to zero counts as zero: the slope of the regulariser grows without bound
# towards it, and would shake such weights rather than hold them.
ZERO = 1e-5
NO_COVARIATES = CovariateSpec()


def sparsity_regulariser(weights: Tensor) -> Tensor:
    """Return how far weights are from being few: 0 if all of them are zero, 1 if all are large.

    Small weights pay almost as much as large ones, so that training gives up the small ones
    and leaves the large ones nearly unbiased.

    Parameters
    ----------
    weights : Tensor of any shape

    Returns
    -------
    Tensor of shape ()

    References
    ----------
    Triebe, Laptev and Rajagopal, "AR-Net", arXiv:1911.12436, section 3:
    ``mean(2 / (1 + exp(-c1 |w|^(1 / c2))) - 1)``, with ``c1 = c2 = 3``.
    """
    size = weights.abs()
    # The same function, for which no exponential can overflow.
    price = torch.tanh(0.5 * STEEPNESS * size.clamp(min=ZERO).pow(1 / ROOT))
    return torch.where(size > ZERO, price, 0.0).mean()


class VariateLinear(nn.Module):
    """A linear map of its own for every variate, all of them in one product.

    Parameters
    ----------
    n_variates, n_inputs, n_outputs : int
    from_zero : bool, default False
        Begin with zeros rather than at random.
    mask : bool Tensor of shape (n_inputs, n_outputs), optional
        Which inputs an output may depend on.
    """

    mask: Tensor | None

    def __init__(
        self,
        n_variates: int,
        n_inputs: int,
        n_outputs: int,
        *,
        from_zero: bool = False,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        # The range of torch's own linear map.
        bound = 0.0 if from_zero else n_inputs**-0.5
        weight = torch.empty(n_variates, n_inputs, n_outputs).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.empty(n_variates, 1, n_outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map (C, B, n_inputs) to (C, B, n_outputs)."""
        return linear_by_group(x, self.effective_weight, self.bias)

    @property
    def effective_weight(self) -> Tensor:
        """Weights (C, n_inputs, n_outputs), those that the mask leaves out being 0."""
        return self.weight if self.mask is None else self.weight * self.mask


class FirstStep(NamedTuple):
    """What the point forecast of the first step is a weighted sum of, in scaled units.

    Parameters
    ----------
    bias : Tensor of shape (C,)
    lags : Tensor of shape (L, C)
        Weights of the variate's own history, the latest value last.
    past : Tensor of shape (L, n_past, C)
        Of the features of past covariates.
    known_ahead : Tensor of shape (L + 1, n_known, C)
        Of those of known covariates; the last step is the one that is forecast.
    static : Tensor of shape (n_static, C)
    """

    bias: Tensor
    lags: Tensor
    past: Tensor
    known_ahead: Tensor
    static: Tensor


class ARNetNetwork(ForecastNetwork):
    """An autoregression per variate, linear or with hidden layers.

    Each variate is forecast from its own history and the covariates, by weights of its own;
    each step of the horizon directly, by weights of its own. A step reads past covariates of
    the whole context, and known ones of the context and the horizon up to itself (with
    hidden layers, of the whole horizon).

    Parameters
    ----------
    context_length, horizon, n_variates : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    hidden_layers : sequence of int, default ()
        Width of each hidden layer; none gives a linear map.
    sparsity : float, default 1.0
        Share of the lags that are expected to matter, in (0, 1].
    strength : float, default 0.01
        The penalty on a network without zeros is this, times ``1 / sparsity - 1``, times the
        root of the training error. Weights of covariates are free.
    covariates : CovariateSpec, default none

    References
    ----------
    Triebe, Laptev and Rajagopal, "AR-Net: a simple auto-regressive neural network for
    time-series", arXiv:1911.12436, sections 2 and 3.
    """

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        n_variates: int,
        output: Output,
        hidden_layers: Sequence[int] = (),
        sparsity: float = 1.0,
        strength: float = 0.01,
        covariates: CovariateSpec = NO_COVARIATES,
    ) -> None:
        super().__init__()
        self.context_length, self.horizon = context_length, horizon
        self.strength = strength * (1 / sparsity - 1)
        self.encoder = CovariateEncoder(covariates) if covariates else None
        n_past = n_known = n_static = 0
        if self.encoder is not None:
            n_past, n_known = self.encoder.n_past, self.encoder.n_known
            n_static = self.encoder.n_static
        # What each variate reads: its lags, then the features of covariates, step by step.
        self.n_read = (
            context_length,
            context_length * n_past,
            (context_length + horizon) * n_known,
            n_static,
        )
        widths = [sum(self.n_read), *hidden_layers]
        self.hidden = nn.ModuleList(
            VariateLinear(n_variates, n_in, n_out)
            for n_in, n_out in zip(widths, widths[1:], strict=False)
        )
        # From zero, a lag that nothing speaks for stays out.
        self.head = VariateLinear(
            n_variates,
            widths[-1],
            horizon * output.n_outputs,
            from_zero=True,
            mask=None if hidden_layers else self._no_later_steps(n_known, output.n_outputs),
        )
        self.output = output

    def _no_later_steps(self, n_known: int, n_outputs: int) -> Tensor | None:
        """Return which inputs a step reads: of known covariates, none that come after it."""
        if not n_known or self.horizon == 1:
            return None
        steps = torch.arange(-self.context_length, self.horizon).repeat_interleave(n_known)
        mask = torch.ones(sum(self.n_read), self.horizon, dtype=torch.bool)
        begin = sum(self.n_read[:2])
        mask[begin : begin + len(steps)] = steps[:, None] <= torch.arange(self.horizon)
        return mask.repeat_interleave(n_outputs, dim=1)

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows: (B, L, C) to (B, H, C), or (B, H, C, Q)."""
        x = inputs.target.permute(2, 0, 1)  # (C, B, L)
        if self.encoder is not None:
            past, future, static = self.encoder(inputs)
            features = torch.cat([past.flatten(1), future.flatten(1), static], dim=1)
            x = torch.cat([x, features.expand(len(x), -1, -1)], dim=-1)
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return self._in_steps(self.head(x))

    def _in_steps(self, raw: Tensor) -> Tensor:
        """Turn raw numbers (C, B, H * Q) into a forecast (B, H, C) or (B, H, C, Q)."""
        n_variates, batch, _ = raw.shape
        raw = raw.view(n_variates, batch, self.horizon, -1).permute(1, 2, 0, 3)
        return self.output(raw, 0.0, 1.0)

    def penalty(self, error: Tensor) -> Tensor | None:
        """Return the price of the weights that lags enter by, given the training error."""
        if not self.strength:
            return None
        first: Any = self.hidden[0] if self.hidden else self.head
        lags = first.weight[:, : self.context_length]
        return self.strength * error.sqrt() * sparsity_regulariser(lags)

    @torch.no_grad()
    def first_step(self) -> FirstStep:
        """Return the weights of the first step; there are such only without hidden layers."""
        # One of the raw numbers is the point forecast, and the output knows which.
        weight = self.output.point(self._in_steps(self.head.effective_weight))[:, 0]
        bias = self.output.point(self._in_steps(self.head.bias))[0, 0]
        lags, past, future, static = weight.split(self.n_read)  # each (any, C)
        length, steps = self.context_length, self.context_length + self.horizon
        past = past.reshape(length, len(past) // length, len(bias))
        future = future.reshape(steps, len(future) // steps, len(bias))[: length + 1]
        return FirstStep(bias, lags, past, future, static)


@dataclass(kw_only=True, eq=False, repr=False)
class ARNet(NetworkForecaster):
    """AR-Net: an autoregression of order ``context_length``, fitted by gradient steps.

    Every variate has a model of its own; the series of a panel share it. Without
    ``sparsity`` the coefficients are those of least squares, as ``statsmodels`` finds them,
    but the time to fit grows with the order and not with its square. With it, the lags that
    matter are found among many. With ``horizon=1``, longer horizons are rolled forward, which
    is how a classical autoregression forecasts; with a longer ``horizon`` every step has
    coefficients of its own.

    Covariates are regressors: past ones of every lag, known ones of every lag and of the step
    that is forecast, static ones once.

    The defaults suit a convex problem: 5000 steps at a rate that falls to zero, on all of the
    rows. Where neighbouring values hardly differ (a random walk, a smooth trend), forecasts
    are as good long before coefficients have settled; ``max_steps=20_000`` settles more of
    them. With ``hidden_layers``, ``early_stopping=True`` is worth a try.

    Parameters
    ----------
    sparsity : float or None, default None
        Share of the lags that are expected to matter, in (0, 1]; the smaller, the more
        coefficients are driven to zero. None, like 1, drives none.
    expected_lags : int or None, default None
        The same as a number of lags, ``sparsity * context_length``.
    sparsity_strength : float, default 0.01
        How much a share below 1 counts. More of it helps where rows are few.
    hidden_layers : sequence of int, default ()
        Width of each hidden layer. With any, the model is no longer linear and has no
        coefficients.
    batch_size : int, default 256
        Windows per step.
    max_epochs, max_steps : int, default 1000 and 5000
        Longest training; whichever is reached first ends it.
    learning_rate : float, default 0.03
        Largest learning rate of the schedule.
    learning_rate_schedule : str, default "cosine"
        As for all trained forecasters.
    early_stopping : bool, default False
        As for all trained forecasters.

    Attributes
    ----------
    coefficients_ : DataFrame of shape (context_length, n_variates)
        Weight of every lag (1 is the latest value) in the forecast of the first step, by
        variate. A coefficient has no unit, so it is the same for scaled and original
        values. For ``loss="quantile"`` they are those of the median.
    covariate_coefficients_ : DataFrame
        What one unit of a covariate adds to it, in original units, by covariate, lag and
        variate. Lag 0 is the step that is forecast; static covariates stand there as well. A
        category, as ``"<column>=<category>"`` or ``"<column> is missing"``, is compared with
        an unknown one. In data with ids, series are on scales of their own, so there are rows
        for each.
    intercept_ : Series or DataFrame
        What is added to all that, in original units, by variate; in data with ids, a row for
        each series.

    References
    ----------
    Triebe, Laptev and Rajagopal, "AR-Net: a simple auto-regressive neural network for
    time-series", arXiv:1911.12436.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.ARNet(context_length=24, horizon=12, max_steps=200, random_state=0)
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    >>> model.coefficients_.shape
    (24, 1)
    """

    sparsity: Annotated[float, Interval(0, 1, open_low=True)] | None = None
    expected_lags: Positive | None = None
    sparsity_strength: Annotated[float, Interval(0)] = 0.01
    hidden_layers: Sequence[Positive] = ()
    batch_size: Positive = 256
    max_epochs: Positive = 1000
    max_steps: Positive | None = 5000
    learning_rate: Annotated[float, Interval(0, open_low=True)] = 0.03
    learning_rate_schedule: ScheduleName | Schedule = "cosine"
    early_stopping: bool = False

    takes_any_variates: ClassVar[bool] = False
    _own_covariates: ClassVar[bool] = True

    def _check_consistency(self) -> None:
        super()._check_consistency()
        sparse = self.expected_lags is not None or (self.sparsity or 1) < 1
        if sparse and distribution_of(self.loss) is not None:
            raise ParameterError(
                f"ARNet: sparsity and expected_lags need an error to be weighed against, got "
                f"loss={self.loss!r}; take loss='mse' or loss='quantile', or leave them out"
            )
        if self.expected_lags is None:
            return
        if self.sparsity is not None:
            raise ParameterError(
                f"ARNet: sparsity and expected_lags say the same, got "
                f"sparsity={self.sparsity} and expected_lags={self.expected_lags}; give one"
            )
        if self.context_length is not None and self.expected_lags > self.context_length:
            raise ParameterError(
                f"ARNet: expected_lags must be at most context_length={self.context_length}, "
                f"got {self.expected_lags}"
            )

    @property
    def _shortest_context(self) -> int:
        return self.expected_lags or 1

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        sparsity = 1.0 if self.sparsity is None else self.sparsity
        if self.expected_lags is not None:
            sparsity = self.expected_lags / spec.context_length
        return ARNetNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            n_variates=spec.n_variates,
            output=spec.output,
            hidden_layers=self.hidden_layers,
            sparsity=sparsity,
            strength=self.sparsity_strength,
            covariates=spec.covariates,
        )

    def _first_step(self) -> FirstStep:
        self.check_fitted()
        if self.module_.hidden:
            raise AttributeError(
                "ARNet: a model with hidden_layers has no coefficients; set hidden_layers=()"
            )
        fitted = distribution_of(self.fitted_parameters_["loss"])
        if isinstance(fitted, NegativeBinomial | GaussianMixture):
            raise AttributeError(
                "ARNet: the mean of a negative binomial or a mixture is not linear in the lags, so "
                "it has no coefficients; set loss='mse', 'gaussian' or 'student_t'"
            )
        network: Any = self.module_
        step: FirstStep = network.first_step()
        return FirstStep(*(part.cpu().double() for part in step))

    @property
    def coefficients_(self) -> pd.DataFrame:
        """Weight of every lag in the forecast of the first step, by variate."""
        weights = self._first_step().lags.flip(0)
        lags = pd.RangeIndex(1, len(weights) + 1, name="lag")
        return pd.DataFrame(weights.numpy(), index=lags, columns=self._variate_names)

    @property
    def covariate_coefficients_(self) -> pd.DataFrame:
        """What one unit of a covariate adds to the forecast of the first step."""
        labels: list[Any] = []
        lags: list[int] = []
        weights: list[np.ndarray] = []
        for effect in self._effects():
            for name, per_unit in zip(effect.names, effect.per_unit, strict=True):
                labels += [name] * len(effect.lags)
                lags += effect.lags
                weights.append(per_unit)
        table = np.concatenate([np.empty((0, self.n_variates_)), *weights])  # (rows, C)
        scale = self._series_scaling().scale
        index = pd.MultiIndex.from_arrays([labels, lags], names=["covariate", "lag"])
        frames = [
            pd.DataFrame(table * row, index=index, columns=self._variate_names) for row in scale
        ]
        if not self.end_.form.has_ids:
            return frames[0]
        return pd.concat(frames, keys=self.end_.ids, names=[self.end_.form.id_name])

    @property
    def intercept_(self) -> Any:
        """What the forecast of the first step adds to all that is weighted."""
        step, scaling = self._first_step(), self._series_scaling()
        constant = step.bias.numpy()
        for effect in self._effects():
            # Covariates, too, are weighted after their mean was taken off.
            constant = constant - np.einsum("n,nlc->c", effect.means, effect.per_unit)
        level = scaling.mean * (1 - step.lags.numpy().sum(axis=0))
        intercept = level + scaling.scale * constant  # (S, C)
        if not self.end_.form.has_ids:
            return pd.Series(intercept[0], index=self._variate_names)
        ids = self.end_.ids.rename(self.end_.form.id_name)
        return pd.DataFrame(intercept, index=ids, columns=self._variate_names)

    @property
    def _variate_names(self) -> pd.Index:
        """What a user calls the variates: within, that of a plain Series is called "y"."""
        form, ids = self.end_.form, self.end_.ids
        named = form.squeeze and form.kind == "wide" and ids[0] is not None
        return ids if named else self.end_.variates

    def _series_scaling(self) -> Scaling:
        return self.learned_.scaling.filled(self.learned_.pooled)

    def _effects(self) -> list["_Effect"]:
        """Return what covariates do, by role."""
        network: Any = self.module_
        encoder: CovariateEncoder | None = network.encoder
        if encoder is None:
            return []
        step, coding = self._first_step(), self.learned_.coding
        clock = CALENDAR_FEATURES if coding.calendar else ()
        # The calendar comes last among the features of what is known.
        future, calendar = step.known_ahead.split([encoder.n_known - len(clock), len(clock)], dim=1)
        columns = tuple(ColumnCoding(f"calendar_{name}") for name in clock)
        return [
            _Effect.measure(coding.past, encoder.past, step.past, first_lag=1),
            _Effect.measure(coding.future, encoder.future, future),
            _Effect.measure(columns, None, calendar),
            _Effect.measure(coding.static, encoder.static, step.static[None]),
        ]


class _Effect(NamedTuple):
    """What columns of one role do to the first step, in scaled units of the target.

    Parameters
    ----------
    names : list
        Of each column, or of each category of a column.
    means : float64 array of shape (n,)
        What was taken off a column when it was standardised.
    lags : list of int
    per_unit : float64 array of shape (n, n_lags, C)
        By original unit of the column.
    """

    names: list[Any]
    means: np.ndarray
    lags: list[int]
    per_unit: np.ndarray

    @classmethod
    def measure(
        cls,
        columns: tuple[ColumnCoding, ...],
        embedding: ColumnEmbedding | None,
        weights: Tensor,
        first_lag: int = 0,
    ) -> "_Effect":
        """Send each column alone through its embedding, and weigh what comes out.

        Parameters
        ----------
        columns : tuple of ColumnCoding
        embedding : ColumnEmbedding or None
            None takes the columns themselves for features.
        weights : Tensor of shape (n_lags, n_features, C)
            The latest step last.
        first_lag : int, default 0
            Lag of that step.
        """
        names: list[Any] = []
        units: list[tuple[int, int]] = []  # a column, and what stands in it: 1 or a category
        for place, column in enumerate(columns):
            if column.categories is None:
                names.append(column.name)
                units.append((place, 1))
                continue
            names += [f"{column.name}={category}" for category in column.categories]
            names += [f"{column.name} is missing"] * column.missing
            units += [(place, code) for code in range(1, column.n_categories)]
        alone = torch.zeros(len(units), len(columns))
        for row, (place, value) in enumerate(units):
            alone[row, place] = value
        if embedding is not None:
            alone = alone.to(next(embedding.parameters(), alone).device)
            alone = embedding(alone, alone).detach().cpu()
        effects = torch.einsum("nf,lfc->nlc", alone.double(), weights.flip(0)).numpy()
        means, scales = (
            np.array([getattr(columns[place], name) for place, _ in units], dtype=np.float64)
            for name in ("mean", "scale")
        )
        lags = list(range(first_lag, first_lag + len(weights)))
        # What did not move in training has the scale 0, and no effect.
        scales[scales == 0] = np.inf
        return cls(names, means, lags, effects / scales[:, None, None])
