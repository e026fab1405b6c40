"""Covariates in networks: how columns become features, and a pathway for any network.

Dimension letters: B windows in a batch, L context steps, H horizon, C variates, Q outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tsar.core.linear import Linear
from tsar.data.windows import Batch, Inputs, SeriesTensors
from tsar.forecasting.outputs.objective import Compared, ForecastNetwork, compare, measure, penalise
from tsar.forecasting.outputs.output import Output

__all__ = ["CovariateEncoder", "CovariatePathway", "CovariateSpec", "Encoded"]

# No category needs a longer embedding than this, however many there are.
LARGEST_EMBEDDING = 16
# Width of the hidden layers of the pathway.
HIDDEN = 32
# Rows from which the first estimate of an effect is taken, at most.
ESTIMATED_ROWS = 100_000


@dataclass(frozen=True)
class CovariateSpec:
    """The covariates of an estimator, as its network has to know them.

    Parameters
    ----------
    past, future, static : tuple of int
        An entry per column: 0 for a number, else how many category codes it has.
    n_calendar : int
        How many calendar features there are.
    """

    past: tuple[int, ...] = ()
    future: tuple[int, ...] = ()
    static: tuple[int, ...] = ()
    n_calendar: int = 0

    def __bool__(self) -> bool:
        return bool(self.past or self.future or self.static or self.n_calendar)


class Encoded(NamedTuple):
    """Covariates of a batch as features.

    Parameters
    ----------
    past : Tensor of shape (B, L, n_past)
        Without features where there are no past covariates.
    known_ahead : Tensor of shape (B, L + H, n_known)
        Future covariates and, after them, the calendar.
    static : Tensor of shape (B, n_static)
    """

    past: Tensor
    known_ahead: Tensor
    static: Tensor


class ColumnEmbedding(nn.Module):
    """Keep numbers, and replace category codes by learned vectors.

    Code 0, an unknown category, is the zero vector. A missing one has a code like any other where
    there was one in the fit.

    Parameters
    ----------
    columns : sequence of int
        An entry per column: 0 for a number, else its number of codes.
    """

    def __init__(self, columns: Sequence[int]) -> None:
        super().__init__()
        self.numeric = [place for place, codes in enumerate(columns) if codes == 0]
        self.categorical = [place for place, codes in enumerate(columns) if codes > 0]
        sizes = [(n, min((n + 1) // 2, LARGEST_EMBEDDING)) for n in columns if n > 0]
        self.embeddings = nn.ModuleList(nn.Embedding(*size, padding_idx=0) for size in sizes)
        widths = [width for _, width in sizes]
        self.n_features = len(self.numeric) + sum(widths)

    def forward(self, columns: Tensor | None, like: Tensor) -> Tensor:
        """Map columns (..., n) to features (..., n_features)."""
        if columns is None or not self.n_features:
            return like.new_zeros(*like.shape[:-1], 0)
        if not self.categorical:
            return columns
        parts = [columns[..., self.numeric]]
        for place, embedding in zip(self.categorical, self.embeddings, strict=True):
            parts.append(embedding(columns[..., place].long()))
        return torch.cat(parts, dim=-1)


class CovariateEncoder(nn.Module):
    """Turn the covariates of a batch into features.

    Parameters
    ----------
    spec : CovariateSpec

    Attributes
    ----------
    n_past, n_known, n_static : int
        How many features there are of each kind.
    """

    def __init__(self, spec: CovariateSpec) -> None:
        super().__init__()
        self.past = ColumnEmbedding(spec.past)
        self.future = ColumnEmbedding(spec.future)
        self.static = ColumnEmbedding(spec.static)
        self.n_calendar = spec.n_calendar
        self.n_past = self.past.n_features
        self.n_known = self.future.n_features + spec.n_calendar
        self.n_static = self.static.n_features

    def forward(self, inputs: Inputs) -> Encoded:
        """Encode the covariates of a batch; those that ``spec`` has none of are left out."""
        target = inputs.target
        ahead = inputs.future if inputs.future is not None else inputs.calendar
        known_ahead = target.new_zeros(len(target), 0, 0) if ahead is None else ahead
        future = self.future(inputs.future, known_ahead)
        if inputs.calendar is not None and self.n_calendar:
            future = torch.cat([future, inputs.calendar], dim=-1)
        return Encoded(
            self.past(inputs.past, target), future, self.static(inputs.static, target[:, 0])
        )

    def with_marks(self, inputs: Inputs, n_steps: int) -> tuple[Tensor, Tensor]:
        """Encode past covariates, and all others as marks of every step.

        Parameters
        ----------
        inputs : Inputs
        n_steps : int
            Of history and horizon.

        Returns
        -------
        past : Tensor of shape (B, L, n_past)
        marks : Tensor of shape (B, n_steps, n_known + n_static)
            Known covariates, and static ones at every step.
        """
        past, future, static = self(inputs)
        marks = static[:, None].expand(-1, n_steps, -1)
        return past, torch.cat([future, marks], dim=2) if self.n_known else marks


class CovariatePathway(ForecastNetwork):
    """Let a network forecast what the covariates do not explain.

    The effect of the known covariates on each variate is taken off the history, the
    network forecasts the rest, and the effect on the horizon is added to its forecast: a
    regression whose errors the network models, as ARIMAX has its errors modelled by
    ARIMA. Past and static covariates, which say nothing of a single step to come, add a
    correction to the horizon as a whole.

    Parameters
    ----------
    network : nn.Module
        Forecasts ``Inputs``, whether it reads the covariates in them or not.
    spec : CovariateSpec
        The covariates that act beside the network. A calendar among them is kept from the
        network.
    context_length, horizon, n_variates : int
    output : Output, optional
        The last module of the network, which knows how a forecast is moved; None for one that
        gives numbers in the units of the series.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: CovariateSpec,
        *,
        context_length: int,
        horizon: int,
        n_variates: int,
        output: Output | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.output = output
        self.context_length, self.horizon, self.n_variates = context_length, horizon, n_variates
        self.numeric_future = [place for place, codes in enumerate(spec.future) if codes == 0]
        self.encoder = CovariateEncoder(spec)
        n_known, n_static = self.encoder.n_known, self.encoder.n_static
        self.effect: nn.Linear | None = None
        if n_known:
            self.effect = _zero(Linear(n_known, n_variates, bias=False))
            self.curved_effect = _perceptron(n_known + n_static, n_variates)
        self.correction: nn.Module | None = None
        n_whole = context_length * self.encoder.n_past + n_static
        if n_whole:
            self.correction = _perceptron(n_whole, horizon * n_variates)

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows: (B, L, C) to (B, H, C), or (B, H, C, Q)."""
        rest, _, later = self._split(inputs)
        forecast: Tensor = self.network(rest)
        if self.output is not None:
            return self.output.shift(forecast, later)
        return forecast + (later if forecast.ndim == 3 else later[..., None])

    def compare(self, batch: Batch) -> Compared:
        """Return what the network compares in training, on what is left to it.

        An error does not change when the same is taken off the forecast and the truth; for one
        that does, the network is told what was taken off.
        """
        rest, before, later = self._split(batch.inputs)
        left = replace(batch, inputs=rest, target=batch.target - later, shift=(before, later))
        return compare(self.network, left)

    def measure(self, series: SeriesTensors, stop: Tensor) -> None:
        """Let the network measure what it needs to know."""
        measure(self.network, series, stop)

    def penalty(self, error: Tensor) -> Tensor | None:
        """Return the penalty of the network; effects of covariates are free."""
        return penalise(self.network, error)

    def _split(self, inputs: Inputs) -> tuple[Inputs, Tensor, Tensor]:
        """Return the inputs of the network, and the effects on the history and on the horizon."""
        past, future, static = self.encoder(inputs)
        target, horizon = inputs.target, (len(inputs.target), self.horizon, self.n_variates)
        before, later = target.new_zeros(()).expand_as(target), target.new_zeros(()).expand(horizon)
        if self.effect is not None:
            repeated = static[:, None].expand(-1, future.shape[1], -1)
            effect = self.effect(future) + self.curved_effect(torch.cat([future, repeated], dim=-1))
            before, later = effect.split([self.context_length, self.horizon], dim=1)
            # Where nothing was observed, the history holds no effect either.
            before = before if inputs.observed is None else before * inputs.observed
            target = target - before
        if self.correction is not None:
            whole = torch.cat([past.flatten(1), static], dim=-1)
            later = later + self.correction(whole).view(-1, self.horizon, self.n_variates)
        calendar = None if self.encoder.n_calendar else inputs.calendar
        return replace(inputs, target=target, calendar=calendar), before, later

    def prepare(self, series: SeriesTensors, stop: Tensor) -> None:
        """Estimate effects, and let the network prepare itself as well."""
        self.estimate_effects(series, stop)
        if isinstance(self.network, ForecastNetwork):
            self.network.prepare(series, stop)

    @torch.no_grad()
    def estimate_effects(self, series: SeriesTensors, stop: Tensor) -> None:
        """Begin with the linear effects that least squares finds.

        Steps of the targets are regressed on steps of the numeric future covariates, which
        levels and trends do not disturb; training goes on from there. Without it, an
        effect would grow from nothing by one learning rate a step.

        Parameters
        ----------
        series : SeriesTensors
            Scaled series with their covariates.
        stop : int64 Tensor of shape (S,)
            Where the training rows of each series end.
        """
        if self.effect is None or not self.numeric_future or series.covariates is None:
            return
        covariates, offsets = series.covariates, series.offsets
        lengths = (stop - offsets[:-1]).clamp(min=0)
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        begins = torch.cumsum(lengths, 0) - lengths
        rows = torch.arange(len(owner), device=owner.device) - begins[owner] + offsets[owner]
        inner = rows > offsets[owner]
        owner, rows = owner[inner][-ESTIMATED_ROWS:], rows[inner][-ESTIMATED_ROWS:]
        places = rows + covariates.known_offsets[owner] - offsets[owner]
        features = covariates.known_ahead[:, self.numeric_future]
        x = (features[places] - features[places - 1]).double()
        y = (series.values[rows] - series.values[rows - 1]).double()
        if series.observed is not None:
            seen = (series.observed[rows] & series.observed[rows - 1]).double()
        else:
            seen = torch.ones_like(y)
        ridge = 1e-3 * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        for variate in range(self.n_variates):
            weighted = x * seen[:, variate, None]
            count = seen[:, variate].sum().clamp(min=1)
            effects = torch.linalg.solve(
                weighted.mT @ x / count + ridge, weighted.mT @ y[:, variate] / count
            )
            # Numbers are the first of the features.
            self.effect.weight[variate, : len(effects)] = effects.to(self.effect.weight.dtype)


def _perceptron(n_in: int, n_out: int) -> nn.Sequential:
    """Return a network of one hidden layer that begins with 0."""
    return nn.Sequential(Linear(n_in, HIDDEN), nn.GELU(), _zero(Linear(HIDDEN, n_out)))


def _zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear
