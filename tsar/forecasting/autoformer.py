"""Autoformer: an encoder and a decoder that take series apart on the way."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from tsar.core.block import Block, Encoder
from tsar.core.convolution import CircularConvolution
from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers import (
    AutoCorrelation,
    Mixer,
    accepted_options,
    make_mixer,
)
from tsar.core.mlp import MLP
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.layers.covariates import CovariateEncoder, CovariateSpec
from tsar.forecasting.layers.decomposition import WIDEST, Remainder, SeriesDecomposition
from tsar.forecasting.layers.embedding import StepEmbedding
from tsar.forecasting.layers.instance_norm import SeasonalNorm
from tsar.forecasting.network import NetworkSpec
from tsar.forecasting.outputs.objective import ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.forecasting.start_token import StartTokenForecaster
from tsar.params.constraints import Interval

__all__ = ["AutoformerForecaster", "AutoformerNetwork"]

# Hidden activations that forecasting holds at once. Tokens are single steps and the feed-forward
# parts are wide, so that what is a small batch to other networks would take gigabytes here.
HIDDEN_VALUES = 2**24

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]


class DecoderLayer(nn.Module):
    """A mixer, then Auto-Correlation with the encoded history, then a feed-forward part.

    After each of them the trend is taken out of the tokens. The three trends together are
    mapped to the variates.

    Parameters
    ----------
    make_mixer, make_cross_mixer : function
        Build the mixers.
    mlp : nn.Module
    d_model, n_outputs : int
        Width of a token, and of the trend.
    kernel : int
        Odd width of the moving average.
    dropout : float
        Of all three branches.
    """

    def __init__(
        self,
        make_mixer: Callable[[], Mixer],
        make_cross_mixer: Callable[[], AutoCorrelation],
        mlp: nn.Module,
        *,
        d_model: int,
        n_outputs: int,
        kernel: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.self_mixer, self.cross_mixer, self.mlp = make_mixer(), make_cross_mixer(), mlp
        self.decomposition = SeriesDecomposition(kernel)
        self.dropout = Dropout(dropout)
        self.trend = CircularConvolution(d_model, n_outputs)

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Decode tokens (B, T, D), given encoded ones; also return a trend (B, T, n_outputs)."""
        x, first = self.decomposition(x + self.dropout(self.self_mixer(x)))
        x, second = self.decomposition(x + self.dropout(self.cross_mixer(x, memory=memory)))
        x, third = self.decomposition(x + self.dropout(self.mlp(x)))
        return x, self.trend(first + second + third)


class AutoformerNetwork(ForecastNetwork):
    """The network of Autoformer: seasonal parts are refined, trends are gathered.

    The encoder reads the history and keeps what is seasonal. The decoder begins with the
    seasonal part of the last ``label_length`` steps and zeros for the horizon, and with the
    mean of the history as trend; each of its layers adds a trend. The forecast is the sum of
    both parts.

    Known covariates and static ones, the latter repeated over time, are marks of a step beside
    the calendar; past covariates are read with the history. Steps before a series began are
    level with its mean.

    Parameters
    ----------
    context_length, horizon, n_variates : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`. The mean of the history is its location.
    covariates : CovariateSpec, optional
    label_length : int, optional
        Steps of history that the decoder begins with; half of the context by default.
    kernel : int, default 25
        Odd width of the moving averages.
    factor : float, default 3.0
        There are ``floor(factor * log(steps))`` delays.
    head_delays : bool, default False
        See :class:`tsar.core.mixers.AutoCorrelation`.
    mixer : str, default "autocorrelation"
        Of the encoder, and of the decoder with itself.
    d_model, n_heads, d_ff, n_layers, n_decoder_layers : int, default 512, 8, 2048, 2 and 1
    dropout : float, default 0.05
        After the embeddings, inside the feed-forward parts and on the branches.

    References
    ----------
    Wu et al., "Autoformer: decomposition transformers with auto-correlation for long-term
    series forecasting", NeurIPS 2021, section 3. As in the authors' code, feed-forward maps
    have no biases, and :class:`~tsar.core.norm.SeasonalNorm` ends the encoder and the decoder.
    """

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        n_variates: int,
        output: Output,
        covariates: CovariateSpec | None = None,
        label_length: int | None = None,
        kernel: int = 25,
        factor: float = 3.0,
        head_delays: bool = False,
        mixer: str = "autocorrelation",
        d_model: int = 512,
        n_heads: int = 8,
        d_ff: int = 2048,
        n_layers: int = 2,
        n_decoder_layers: int = 1,
        dropout: float = 0.05,
    ) -> None:
        super().__init__()
        self.context_length, self.horizon = context_length, horizon
        self.label_length = context_length // 2 if label_length is None else label_length
        self.covariates = CovariateEncoder(CovariateSpec() if covariates is None else covariates)
        self.decomposition = SeriesDecomposition(kernel)
        n_past, n_outputs = self.covariates.n_past, n_variates * output.n_outputs
        n_marks = self.covariates.n_known + self.covariates.n_static

        options = accepted_options(mixer, n_heads=n_heads, factor=factor, head_delays=head_delays)

        make_own_mixer = partial(make_mixer, mixer, d_model, **options)
        make_cross_mixer = partial(
            AutoCorrelation, d_model, n_heads, factor=factor, head_delays=head_delays
        )
        make_mlp = partial(MLP, d_model, d_ff, dropout=dropout, bias=False)

        def make_remainder(width: int) -> Remainder:
            return Remainder(kernel)

        sizes: dict[str, Any] = {"d_model": d_model, "dropout": dropout}
        self.embedding = StepEmbedding(n_variates + n_past, n_marks, d_model, dropout)
        self.encoder = Encoder(
            [
                Block(make_own_mixer(), make_mlp(), norm=make_remainder, pre_norm=False, **sizes)
                for _ in range(n_layers)
            ],
            SeasonalNorm(d_model),
        )
        self.decoder_embedding = StepEmbedding(n_variates, n_marks, d_model, dropout)
        self.decoder_layers = nn.ModuleList(
            DecoderLayer(
                make_own_mixer,
                make_cross_mixer,
                make_mlp(),
                n_outputs=n_outputs,
                kernel=kernel,
                **sizes,
            )
            for _ in range(n_decoder_layers)
        )
        self.decoder_norm = SeasonalNorm(d_model)
        self.seasonal = Linear(d_model, n_outputs)
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows.

        Parameters
        ----------
        inputs : Inputs
            ``target`` of shape (B, L, C), ``observed`` where values are missing, and the
            covariates.

        Returns
        -------
        Tensor of shape (B, H, C), or (B, H, C, Q) with several outputs per step
        """
        past, marks = self.covariates.with_marks(inputs, self.context_length + self.horizon)
        target, mean = self._levelled(inputs)

        values = torch.cat([target, past], dim=2)
        memory = self.encoder(self.embedding(values, marks[:, : self.context_length]))

        begin = self.context_length - self.label_length
        seasonal = self.decomposition(target)[0][:, begin:]
        seasonal = nn.functional.pad(seasonal, (0, 0, 0, self.horizon))
        x = self.decoder_embedding(seasonal, marks[:, begin:])
        trends = []
        for layer in self.decoder_layers:
            x, trend = layer(x, memory)
            trends.append(trend[:, -self.horizon :])
        raw = self.seasonal(self.decoder_norm(x)[:, -self.horizon :]) + sum(trends)
        raw = raw.unflatten(2, (target.shape[2], -1))  # (B, H, C, Q)
        return self.output(raw, mean, 1.0)

    @staticmethod
    def _levelled(inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return the history (B, L, C) and the mean of what was observed of it (B, 1, C)."""
        target, observed = inputs.target, inputs.observed
        if observed is None:
            return target, target.mean(dim=1, keepdim=True)
        total = (target * observed).sum(dim=1, keepdim=True)
        mean = total / observed.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.where(observed.cummax(dim=1).values, target, mean), mean


@dataclass(kw_only=True, eq=False, repr=False)
class AutoformerForecaster(StartTokenForecaster):
    """Autoformer: seasonal patterns found by Auto-Correlation, trends by moving averages.

    For series with seasons longer than the blocks of patches that other models read, and for
    calendars that matter. The defaults are the authors' sizes; they are large for small data,
    where ``d_model=64, d_ff=256`` trains several times faster.

    The variates of a frame are read together: columns of a wide or MultiIndex frame, or the
    ``target`` columns of a long one.

    Future and static covariates are marks of a step beside the calendar, past ones are read with
    the history. The effect of future covariates at their own step is, besides, taken off the
    history and added to the forecast.

    Parameters
    ----------
    kernel : int, default 25
        Odd width of the moving averages.
    factor : float, default 3.0
        Sequences of L steps are mixed at ``floor(factor * log(L))`` delays.
    head_delays : bool, default False
        Let every head choose its delays, as in the equations of the paper. Otherwise they are
        chosen once, from the mean over all heads, as in the authors' code; the number of heads
        then changes nothing.
    mixer : str, default "autocorrelation"
        What mixes the steps of the history, and those of the decoder, one of
        ``tsar.core.mixers.MIXERS``. The history reaches the decoder by Auto-Correlation.

    References
    ----------
    Wu et al., "Autoformer: decomposition transformers with auto-correlation for long-term
    series forecasting", NeurIPS 2021.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.AutoformerForecaster(
    ...     context_length=48, horizon=12, d_model=16, d_ff=32, max_epochs=2, random_state=0
    ... )
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    kernel: Annotated[int, Interval(1, WIDEST)] = 25
    factor: Annotated[float, Interval(0, open_low=True)] = 3.0
    head_delays: bool = False
    mixer: str = "autocorrelation"

    _reading_mixer: ClassVar[type[Mixer]] = AutoCorrelation

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if self.kernel % 2 == 0:
            raise ParameterError(
                f"{self.name}: kernel must be odd so that the average is centred, got "
                f"{self.kernel}; take {self.kernel + 1}"
            )

    def _forecast_batch(self, inputs: Inputs) -> Tensor:
        n_steps = self.horizon_ + inputs.target.shape[1]
        # Parts are of nearly equal size and never small: products of few rows round otherwise.
        at_once = max(HIDDEN_VALUES // (n_steps * self.d_ff), 16)
        n_parts = max(len(inputs.target) // at_once, 1)
        tensors = {name: part for name, part in vars(inputs).items() if part is not None}
        split = {name: part.tensor_split(n_parts) for name, part in tensors.items()}
        parts = [
            Inputs(**{name: split[name][number] for name in split}) for number in range(n_parts)
        ]
        forecast = super()._forecast_batch
        return torch.cat([forecast(part) for part in parts])

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return AutoformerNetwork(
            **self._network_options(spec),
            kernel=self.kernel,
            factor=self.factor,
            head_delays=self.head_delays,
        )
