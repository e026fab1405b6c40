"""AutoCon: windows are known by when they are, and trends are read off what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.contrast import similarity_contrast
from tsar.core.convolution import DilatedEncoder
from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.ops.even_products import linear
from tsar.core.tracing import is_traced
from tsar.data.windows import Batch, Inputs, SeriesTensors
from tsar.exceptions import ParameterError
from tsar.forecasting.layers.autocorrelation import TrainingAutocorrelation
from tsar.forecasting.layers.decomposition import moving_average
from tsar.forecasting.layers.embedding import StepEmbedding
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.objective import Compared, ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval
from tsar.training.objective import Terms

__all__ = ["AutoCon", "AutoConNetwork"]

# Of the steps of a window, contrasted with each other in a training step.
CONTRASTED_SHARE = 1 / 3

Positive = Annotated[int, Interval(1)]


class AutoConNetwork(ForecastNetwork):
    """A linear map of the history, and smooth trends of what convolutions make of it.

    Every variate is a series of its own, taken relative to its last value. In training, what the
    convolutions make of steps and of whole windows is to be the more alike, the more the series
    is like itself at their distance.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    n_calendar : int, default 0
        Calendar features of a step.
    d_model, d_ff, n_layers : int, default 16, 16 and 2
        Width of the tokens and of what the last block gives, and blocks before it.
    scales : sequence of int, optional
        Steps over which trends are smooth, a trend for each; the horizon by default.
    dropout : float, default 0.1
        After the embedding and after the convolutions.
    contrast_weight : float, default 1.0
        Weight of the contrast beside the error of the forecast.

    References
    ----------
    Park et al., "Self-supervised contrastive learning for long-term forecasting", ICLR 2024;
    steps and sizes as in the authors' code, with the calendar of every variate its own window's.
    """

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        output: Output,
        n_calendar: int = 0,
        d_model: int = 16,
        d_ff: int = 16,
        n_layers: int = 2,
        scales: Sequence[int] | None = None,
        dropout: float = 0.1,
        contrast_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.context_length, self.horizon = context_length, horizon
        self.contrast_weight = contrast_weight
        self.embedding = StepEmbedding(1, n_calendar, d_model, dropout, n_steps=context_length)
        self.encoder = DilatedEncoder(d_model, [d_model] * n_layers + [d_ff])
        self.dropout = Dropout(dropout)
        self.season = Linear(context_length, horizon * output.n_outputs)
        self.ahead = Linear(context_length, horizon)
        self.kernels = [_odd(scale) for scale in ([horizon] if scales is None else scales)]
        self.trends = nn.ModuleList(Linear(d_ff, output.n_outputs) for _ in self.kernels)
        self.autocorrelation = TrainingAutocorrelation(_odd(context_length))
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows.

        Parameters
        ----------
        inputs : Inputs
            ``target`` of shape (B, L, C), ``observed`` where values are missing, and the calendar.

        Returns
        -------
        Tensor of shape (B, H, C), or (B, H, C, Q) with several outputs per step
        """
        return self._forecast(inputs, *self._encode(inputs))

    def compare(self, batch: Batch) -> Compared:
        """Compare the forecast with the future, and windows with each other."""
        relative, tokens = self._encode(batch.inputs)
        shift = None if batch.shift is None else batch.shift[1]
        forecast = self._forecast(batch.inputs, relative, tokens)
        terms: Terms = {}
        if self.contrast_weight:
            contrast = self.contrast_weight * self.contrast(batch, tokens)
            terms["contrast"] = contrast, torch.ones_like(contrast)
        return Compared(forecast, batch.target, batch.observed, batch.scale, shift, terms)

    def measure(self, series: SeriesTensors, stop: Tensor) -> None:
        """Measure at which distances the series are like themselves."""
        if self.contrast_weight:
            self.autocorrelation.measure(series, stop)

    def contrast(self, batch: Batch, tokens: Tensor) -> Tensor:
        """Return how badly steps and windows tell which others are most like them.

        Parameters
        ----------
        batch : Batch
            Of which series and when the windows are; those without any weight are left out.
        tokens : Tensor of shape (B * C, L, D)
            What the convolutions make of each variate.

        Returns
        -------
        Tensor of shape ()
        """
        assert batch.series is not None and batch.cutoffs is not None, "windows are of series"
        tokens = tokens * tokens.square().sum(dim=2, keepdim=True).clamp(min=1e-24).rsqrt()
        batch_size, n_variates = len(batch.series), batch.target.shape[2]
        weight = tokens.new_ones(batch_size)
        if batch.weight is not None:
            weight = batch.weight.mean(dim=(1, 2))
        # Of steps, of which a part is drawn for each variate.
        n_drawn = max(int(CONTRASTED_SHARE * self.context_length), 1)
        chance = torch.rand(
            tokens.shape[:2],
            generator=None if is_traced() else self.dropout.generator,
            device=tokens.device,
        )
        steps = chance.argsort(dim=1)[:, :n_drawn]  # (B * C, K)
        drawn = tokens.gather(1, steps[..., None].expand(-1, -1, tokens.shape[2]))
        lags = (steps[:, :, None] - steps[:, None]).abs()
        all_lags = torch.arange(self.context_length, device=tokens.device)
        near = self.autocorrelation.at(batch.series, all_lags.expand(batch_size, n_variates, -1))
        alike = near.flatten(0, 1).gather(1, lags.flatten(1)).view_as(lags)
        local = similarity_contrast(drawn, alike).mean(dim=1)
        # Of windows, of each variate by itself; those of other series are like nothing.
        whole = tokens.amax(dim=1).unflatten(0, (-1, n_variates)).transpose(0, 1)  # (C, B, D)
        lags = (batch.cutoffs[:, None] - batch.cutoffs).abs()
        alike = self.autocorrelation.at(batch.series, lags[:, None].expand(-1, n_variates, -1))
        alike = alike * (batch.series[:, None] == batch.series)[:, None]
        across = similarity_contrast(
            whole, alike.transpose(0, 1), (weight > 0).expand(n_variates, -1)
        )
        both = (local.unflatten(0, (-1, n_variates)).mean(dim=1) + across.mean(dim=0)) / 2
        return (both * weight).sum() / weight.sum().clamp(min=1e-6)

    def _encode(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return the history relative to its last value, (B * C, L), and its tokens."""
        relative = inputs.target - inputs.target[:, -1:]
        if inputs.observed is not None:
            # Steps before the series began are level with its last value.
            relative = relative * inputs.observed.cummax(dim=1).values
        n_variates = relative.shape[2]
        relative = relative.transpose(1, 2).flatten(0, 1)
        marks = relative.new_zeros(len(relative), self.context_length, 0)
        if inputs.calendar is not None:
            marks = inputs.calendar[:, : self.context_length].repeat_interleave(n_variates, dim=0)
        tokens = self.encoder(self.embedding(relative[..., None], marks))
        return relative, self.dropout(tokens)

    def _forecast(self, inputs: Inputs, relative: Tensor, tokens: Tensor) -> Tensor:
        """Forecast from what :meth:`_encode` returned."""
        raw = self.season(relative).view(len(relative), self.horizon, -1)
        features = F.gelu(tokens).transpose(1, 2)  # (B * C, D, L)
        for kernel, trend in zip(self.kernels, self.trends, strict=True):
            # An average of what a linear map gives is what the averaged map gives.
            weight = moving_average(self.ahead.weight[None], kernel)[0]
            bias = moving_average(self.ahead.bias[None, :, None], kernel)[0, :, 0]
            ahead = linear(features, weight, bias).transpose(1, 2)  # (B * C, H, D)
            raw = raw + moving_average(trend(F.gelu(ahead)), kernel)
        raw = raw.unflatten(0, (len(inputs.target), -1)).transpose(1, 2)  # (B, H, C, Q)
        return self.output(raw, inputs.target[:, -1:], 1.0)


def _odd(scale: int) -> int:
    """Return the width of a moving average over a scale, which is centred."""
    return scale + 1 - scale % 2


@dataclass(kw_only=True, eq=False, repr=False)
class AutoCon(NetworkForecaster):
    """AutoCon: a linear map, and smooth trends from windows that are told apart by when they are.

    For forecasts far longer than the history that is read: what the autocorrelation of the whole
    series says beyond a window is learned by contrasting windows with each other. Each variate is
    a series of its own. The defaults are the authors' for ETTh1, where they train for ten epochs
    with ``batch_size=64``, ``learning_rate=1e-2``, ``learning_rate_schedule="halving"`` and
    ``optimizer=Adam(weight_decay=1e-5)``.

    The autocorrelation is that of the training rows, with steps that are missing filled by what
    was observed last. A contrast needs windows of the same series in a batch, so with many short
    series it says little.

    Parameters
    ----------
    calendar_features : bool, default True
        Read the hour, weekday, day of the month and day of the year of every step.
    d_model, d_ff : int, default 16
        Width of a token, and of what the last block of convolutions gives.
    n_layers : int, default 2
        Blocks of convolutions before the last one. Each reaches twice as far as the one before.
    scales : sequence of int or None, default None
        Steps over which trends are averaged, a trend for each; None takes the horizon.
    dropout : float, default 0.1
        After the embedding and after the convolutions.
    contrast_weight : float, default 1.0
        Weight of the contrast beside the error of the forecast; 0 trains by the error alone.

    References
    ----------
    Park et al., "Self-supervised contrastive learning for long-term forecasting", ICLR 2024.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.AutoCon(context_length=48, horizon=12, max_epochs=2, random_state=0)
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    calendar_features: bool = True
    d_model: Positive = 16
    d_ff: Positive = 16
    n_layers: Positive = 2
    scales: Sequence[Positive] | None = None
    dropout: Annotated[float, Interval(0, 1, open_high=True)] = 0.1
    contrast_weight: Annotated[float, Interval(0)] = 1.0

    _own_calendar: ClassVar[bool] = True

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if self.scales is not None and not len(self.scales):
            raise ParameterError(
                "AutoCon: scales must name at least one number of steps, got none; None takes the "
                "horizon"
            )

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return AutoConNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            output=spec.output,
            n_calendar=spec.covariates.n_calendar,
            d_model=self.d_model,
            d_ff=self.d_ff,
            n_layers=self.n_layers,
            scales=self.scales,
            dropout=self.dropout,
            contrast_weight=self.contrast_weight,
        )
