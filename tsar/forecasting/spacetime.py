"""SpaceTime: state spaces that hold autoregressions and read their own forecasts."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.closed_loop import ClosedLoop
from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers import Mixer, accepted_options, causal_mixers, check_heads, make_mixer
from tsar.core.ops.even_products import linear
from tsar.data.windows import Batch, Inputs
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.objective import Compared, ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval, check_choice

__all__ = ["SpaceTime", "SpaceTimeNetwork"]

# Of each kind of fixed kernels: differences of order 0 to 3, and residuals of moving averages.
N_KERNELS = 4
NARROWEST, WIDEST = 4, 64

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]


class FixedFilters(nn.Module):
    """What a series is to begin with: its differences, and what moving averages leave of it.

    Averages are over past steps; their widths are drawn once, and are not learned. Steps before the
    first are 0.

    Attributes
    ----------
    taps : Tensor of shape (8, 64)
        The latest step last: differences of order 0 to 3, then four residuals.
    """

    taps: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.zeros(2 * N_KERNELS, WIDEST)
        taps[0, -1] = 1.0
        for order in range(1, N_KERNELS):
            taps[order] = taps[order - 1] - taps[order - 1].roll(-1)
        widths = torch.randint(NARROWEST, WIDEST, (N_KERNELS,)).tolist()
        for residual, width in zip(taps[N_KERNELS:], widths, strict=True):
            residual[-width:] = -1 / width
            residual[-1] += 1.0
        self.register_buffer("taps", taps)

    def forward(self, x: Tensor) -> Tensor:
        """Filter series (B, L): (B, L, 8)."""
        return linear(F.pad(x, (WIDEST - 1, 0)).unfold(1, WIDEST, 1), self.taps)


class SpaceTimeLayer(nn.Module):
    """A mixer, and beside it a linear map of what it gives.

    Parameters
    ----------
    mixer : Mixer
    d_model : int
    dropout : float
        Before the map.
    """

    def __init__(self, mixer: Mixer, *, d_model: int, dropout: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.dropout = Dropout(dropout)
        self.project = Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, L, D)."""
        mixed = self.mixer(x)
        return x + mixed + self.project(self.dropout(F.gelu(mixed)))


class SpaceTimeNetwork(ForecastNetwork):
    """Fixed filters, layers that mix the steps, and a state space per channel that goes on alone.

    Every variate is a series of its own, off which the mean of the window is taken. The forecast
    is a linear map of what the channels of the last state space give over the horizon.

    A training step has three terms of equal weight. The first two are the loss of the forecast, and
    that of forecasting each later step of the history from those before it. The third, ``inputs``,
    is the squared error with which the last state space expects the next of its own tokens; the
    tokens themselves are not moved by it.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    d_model : int, default 128
        Channels.
    n_heads : int, default 16
        State spaces of a layer, each for as many channels.
    d_state : int, default 64
        Numbers in a state, and steps of history from which on forecasts count (half of a history
        that is less than twice as long).
    n_layers : int, default 1
        Before the last state space.
    dropout : float, default 0.25
        Before the linear maps.
    mixer : str, default "companion"
        Of the layers, one of :func:`tsar.core.mixers.causal_mixers`.

    References
    ----------
    Zhang et al., "Effectively modeling time series with simple discrete state spaces", ICLR 2023;
    steps and sizes as in the authors' code, whose terms are roots of mean squares.
    """

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        output: Output,
        d_model: int = 128,
        n_heads: int = 16,
        d_state: int = 64,
        n_layers: int = 1,
        dropout: float = 0.25,
        mixer: str = "companion",
    ) -> None:
        super().__init__()
        self.horizon, self.d_model = horizon, d_model
        self.first = max(1, min(d_state, context_length // 2))
        self.revin = RevIN()
        self.filters = FixedFilters()
        options = accepted_options(mixer, n_heads=n_heads, d_state=d_state, causal=True)
        self.layers = nn.ModuleList(
            SpaceTimeLayer(make_mixer(mixer, d_model, **options), d_model=d_model, dropout=dropout)
            for _ in range(n_layers)
        )
        self.closed_loop = ClosedLoop(d_model, d_state=d_state)
        self.dropout = Dropout(dropout)
        self.head = Linear(d_model, output.n_outputs)
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows.

        Parameters
        ----------
        inputs : Inputs
            ``target`` of shape (B, L, C), and ``observed`` where values are missing.

        Returns
        -------
        Tensor of shape (B, H, C), or (B, H, C, Q) with several outputs per step
        """
        tokens, location = self._encode(inputs)
        ahead, _ = self.closed_loop(tokens, self.horizon)
        return self._decode(ahead, location)

    def compare(self, batch: Batch) -> Compared:
        """Return the forecasts of the horizon and of later steps of the history, and ``inputs``.

        Returns
        -------
        Compared
            Of K steps, the history from the step ``first`` on and then the horizon.
        """
        first, length = self.first, batch.inputs.target.shape[1]
        target, observed, shift = (
            None if part is None else part[:, first:] for part in batch.whole()
        )
        assert target is not None, "there is always one"
        tokens, location = self._encode(batch.inputs)
        ahead, expected = self.closed_loop(tokens, self.horizon, each_step=True)
        outputs, inputs = (part[:, first - 1 : length - 1] for part in expected)
        forecast = self._decode(torch.cat([outputs, ahead], dim=1), location)
        counted = torch.ones_like(target) if observed is None else observed.to(target.dtype)
        before, later = counted.split([length - first, self.horizon], dim=1)
        # Every part counts as much as the other, however many steps it has.
        if length > first:
            counted = torch.cat([before * (self.horizon / (length - first)), later], dim=1)
        error = (inputs - tokens[:, first:].detach()).square().mean(dim=2)  # (B * C, L - first)
        there = before.mT.flatten(0, 1)
        terms = {"inputs": (0.5 * (error * there).sum(), there.sum())}
        return Compared(forecast, target, counted, batch.scale, shift, terms)

    def _encode(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return the tokens of every variate (B * C, L, D), and means of windows (B, 1, C)."""
        x, location, scale = self.revin(inputs.target, inputs.observed)
        filtered = self.filters((x * scale).mT.flatten(0, 1))
        tokens = filtered.repeat(1, 1, -(-self.d_model // filtered.shape[2]))[..., : self.d_model]
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens, location

    def _decode(self, channels: Tensor, location: Tensor) -> Tensor:
        """Turn channels (B * C, K, D) into a forecast (B, K, C) or (B, K, C, Q)."""
        raw = self.head(self.dropout(F.gelu(channels)))
        raw = raw.unflatten(0, (-1, location.shape[2])).transpose(1, 2)
        return self.output(raw, location, 1.0)


@dataclass(kw_only=True, eq=False, repr=False)
class SpaceTime(NetworkForecaster):
    """SpaceTime: state spaces that can hold any autoregression, and go on by themselves.

    For long horizons of smooth series: the number of weights does not grow with the context or the
    horizon, and the time of a step grows about in proportion to them. Each variate is a series
    of its own.

    Parameters
    ----------
    d_model : int, default 128
        Channels.
    n_heads : int, default 16
        State spaces of a layer, each for as many channels.
    d_state : int, default 64
        Numbers in a state: the order of the autoregression that it can hold.
    n_layers : int, default 1
        Layers before the state space that goes on.
    dropout : float, default 0.25
        Before the linear maps.
    mixer : str, default "companion"
        What mixes the steps in the layers, one of ``tsar.core.mixers.causal_mixers()``.

    References
    ----------
    Zhang et al., "Effectively modeling time series with simple discrete state spaces", ICLR 2023.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.SpaceTime(context_length=48, horizon=12, max_epochs=2, random_state=0)
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    d_model: Positive = 128
    n_heads: Positive = 16
    d_state: Positive = 64
    n_layers: Positive = 1
    dropout: Share = 0.25
    mixer: str = "companion"

    _causal: ClassVar[bool] = True

    def _check_consistency(self) -> None:
        super()._check_consistency()
        check_choice("SpaceTime", "mixer", self.mixer, causal_mixers())
        check_heads("SpaceTime", self.mixer, d_model=self.d_model, n_heads=self.n_heads)

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return SpaceTimeNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            output=spec.output,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_state=self.d_state,
            n_layers=self.n_layers,
            dropout=self.dropout,
            mixer=self.mixer,
        )
