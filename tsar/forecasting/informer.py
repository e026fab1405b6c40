"""Informer: few queries attend, histories are halved, and all of the horizon comes at once."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.block import Block
from tsar.core.convolution import CircularConvolution
from tsar.core.linear import Linear
from tsar.core.mixers import (
    Mixer,
    SoftmaxAttention,
    accepted_options,
    make_mixer,
)
from tsar.core.mlp import MLP
from tsar.core.norm import BatchNorm
from tsar.data.windows import Inputs
from tsar.forecasting.layers.covariates import CovariateEncoder, CovariateSpec
from tsar.forecasting.layers.embedding import StepEmbedding
from tsar.forecasting.network import NetworkSpec
from tsar.forecasting.outputs.objective import ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.forecasting.start_token import StartTokenForecaster
from tsar.params.constraints import Interval

__all__ = ["Informer", "InformerNetwork"]

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]


class Distilling(nn.Module):
    """Half as many tokens: a convolution over neighbours, and the largest of every other three.

    Parameters
    ----------
    d_model : int
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.convolution = CircularConvolution(d_model, d_model)
        self.norm = BatchNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, L, D) to tokens (B, ceil(L / 2), D)."""
        features = F.elu(self.norm(self.convolution(x))).transpose(1, 2)
        return F.max_pool1d(features, kernel_size=3, stride=2, padding=1).transpose(1, 2)


class InformerNetwork(ForecastNetwork):
    """The network of Informer: an encoder that distils, and a decoder that starts from history.

    The decoder reads the last ``label_length`` steps and zeros for the horizon. Its tokens are
    mixed among themselves, then they attend to all of the encoded history. It gives the horizon
    in one pass.

    Known covariates and static ones, the latter repeated over time, are marks of a step beside the
    calendar; past covariates are read with the history.

    Parameters
    ----------
    context_length, horizon, n_variates : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`. Windows are not normalised.
    covariates : CovariateSpec, optional
    label_length : int, optional
        Steps of history that the decoder begins with; half of the context by default.
    factor : float, default 5.0
        See :class:`tsar.core.mixers.ProbSparse`.
    distilling : bool, default True
        Whether tokens are halved between the layers of the encoder.
    mixer : str, default "probsparse"
        Of the encoder, and of the decoder with itself.
    d_model, n_heads, d_ff, n_layers, n_decoder_layers : int, default 512, 8, 2048, 2 and 1
    dropout : float, default 0.05
        After the embeddings, inside the feed-forward parts and on the branches.

    References
    ----------
    Zhou et al., "Informer: beyond efficient transformer for long sequence time-series
    forecasting", AAAI 2021, sections 3 and 4. The authors' code has a bias before the batch
    normalisation and two in a row in the embedding, which change nothing; here there is one.
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
        factor: float = 5.0,
        distilling: bool = True,
        mixer: str = "probsparse",
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
        n_past = self.covariates.n_past
        n_marks = self.covariates.n_known + self.covariates.n_static

        def block(mixer: Mixer, mlp: nn.Module | None) -> Block:
            return Block(mixer, mlp, d_model=d_model, pre_norm=False, dropout=dropout)

        def own_mixer(**offered: Any) -> Mixer:
            offered = {"n_heads": n_heads, "factor": factor, **offered}
            return make_mixer(mixer, d_model, **accepted_options(mixer, **offered))

        def mlp() -> MLP:
            return MLP(d_model, d_ff, dropout=dropout)

        self.embedding = StepEmbedding(
            n_variates + n_past, n_marks, d_model, dropout, n_steps=context_length, bias=True
        )
        self.encoder = nn.ModuleList(block(own_mixer(), mlp()) for _ in range(n_layers))
        self.distilling = nn.ModuleList(
            Distilling(d_model) if distilling else nn.Identity() for _ in range(n_layers - 1)
        )
        self.encoder_norm = nn.LayerNorm(d_model)
        self.decoder_embedding = StepEmbedding(
            n_variates, n_marks, d_model, dropout, n_steps=self.label_length + horizon, bias=True
        )
        # Each layer is two blocks: tokens among themselves, and what they read of the history.
        self.decoder = nn.ModuleList(
            block(own_mixer(masked=True, causal=True), None) for _ in range(n_decoder_layers)
        )
        self.reading = nn.ModuleList(
            block(SoftmaxAttention(d_model, n_heads), mlp()) for _ in range(n_decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(d_model)
        self.head = Linear(d_model, n_variates * output.n_outputs)
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows.

        Parameters
        ----------
        inputs : Inputs
            ``target`` of shape (B, L, C) and the covariates.

        Returns
        -------
        Tensor of shape (B, H, C), or (B, H, C, Q) with several outputs per step
        """
        past, marks = self.covariates.with_marks(inputs, self.context_length + self.horizon)
        values = torch.cat([inputs.target, past], dim=2)
        memory = self.encode(values, marks[:, : self.context_length])

        begin = self.context_length - self.label_length
        start = F.pad(inputs.target[:, begin:], (0, 0, 0, self.horizon))
        x = self.decoder_embedding(start, marks[:, begin:])
        for own, reading in zip(self.decoder, self.reading, strict=True):
            x = reading(own(x), memory=memory)
        raw = self.head(self.decoder_norm(x[:, -self.horizon :]))
        return self.output(raw.unflatten(2, (inputs.target.shape[2], -1)), 0.0, 1.0)

    def encode(self, values: Tensor, marks: Tensor) -> Tensor:
        """Encode steps (B, L, n_values) with marks (B, L, n_marks), halved after each layer."""
        x = self.encoder[0](self.embedding(values, marks))
        for distilling, layer in zip(self.distilling, self.encoder[1:], strict=True):
            x = layer(distilling(x))
        return self.encoder_norm(x)


@dataclass(kw_only=True, eq=False, repr=False)
class Informer(StartTokenForecaster):
    """Informer: attention of the few queries that stand out, over histories halved on the way.

    For comparison with the papers that measure against it; on ETTh2 and exchange_rate it is worse
    than the last value repeated. The defaults are the authors' sizes; they are large for small
    data, where ``d_model=64, d_ff=256`` trains several times faster.

    The variates of a frame are read together: columns of a wide or MultiIndex frame, or the
    ``target`` columns of a long one.

    Future and static covariates are marks of a step beside the calendar, past ones are read with
    the history. The effect of future covariates at their own step is, besides, taken off the
    history and added to the forecast.

    Parameters
    ----------
    factor : float, default 5.0
        Of L tokens ``factor * ceil(ln(L))`` attend, chosen by as many sampled keys.
    distilling : bool, default True
        Whether tokens are halved between the layers of the encoder.
    mixer : str, default "probsparse"
        What mixes the steps of the history, and those of the decoder, one of
        ``tsar.core.mixers.MIXERS``. The history reaches the decoder by full attention.

    References
    ----------
    Zhou et al., "Informer: beyond efficient transformer for long sequence time-series
    forecasting", AAAI 2021.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.Informer(
    ...     context_length=48, horizon=12, d_model=16, d_ff=32, max_epochs=2, random_state=0
    ... )
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    factor: Annotated[float, Interval(0, open_low=True)] = 5.0
    distilling: bool = True
    mixer: str = "probsparse"

    _reading_mixer: ClassVar[type[Mixer]] = SoftmaxAttention

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return InformerNetwork(
            **self._network_options(spec), factor=self.factor, distilling=self.distilling
        )
