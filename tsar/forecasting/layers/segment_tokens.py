"""Segments of series as tokens of a causal backbone, the network of AutoTimes."""

import datetime
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.decoder import Decoder
from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.data.windows import Batch, Inputs
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.layers.language_backbone import FrozenBackbone
from tsar.forecasting.outputs.objective import Compared, ForecastNetwork
from tsar.forecasting.outputs.output import Output

__all__ = ["AutoTimesNetwork"]

# How a segment is told to a language model: the authors' words.
SENTENCE = "This is Time Series from {} to {}"
# Days in the periods of the clock that a backbone without text is told of.
PERIODS = (1.0, 7.0, 30.436875, 365.2425)
EPOCH = datetime.datetime(1970, 1, 1)


class AutoTimesNetwork(ForecastNetwork):
    """Segments as tokens of a causal backbone that says what the next segment is.

    Every variate is a series of its own. A window is normalised as a whole and cut into
    segments that do not overlap; each becomes a token, and what the backbone makes of a
    token is projected to the segment after it. Longer forecasts append that segment,
    leave out the oldest, and normalise again.

    Parameters
    ----------
    horizon, segment_length : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    backbone : Decoder or FrozenBackbone
        Maps tokens (B, P, D) to (B, P, D), each from itself and those before it. A module
        is trained along.
    hidden_layers : int, default 0
        Hidden layers of the embedding and of the projection; 0 is one linear map.
    d_hidden : int, default 256
        Their width.
    dropout : float, default 0.0
        After each of them.
    timestamps : bool, default False
        Whether the embedding of a segment's time, see :meth:`embed_times`, is added to
        its token.

    References
    ----------
    Liu et al., "AutoTimes: autoregressive time series forecasters via large language
    models", NeurIPS 2024, section 3.
    """

    def __init__(
        self,
        *,
        horizon: int,
        segment_length: int,
        output: Output,
        backbone: Decoder | FrozenBackbone,
        hidden_layers: int = 0,
        d_hidden: int = 256,
        dropout: float = 0.0,
        timestamps: bool = False,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.segment_length = segment_length
        d_model = backbone.d_model
        self.revin = RevIN()
        self.embedding = _perceptron(segment_length, d_model, hidden_layers, d_hidden, dropout)
        # A frozen backbone is no module: it is not among the weights of this network.
        self.backbone = backbone
        self.projection = _perceptron(
            d_model, segment_length * output.n_outputs, hidden_layers, d_hidden, dropout
        )
        self.time_scale: nn.Parameter | None = None
        if timestamps:
            self.time_scale = nn.Parameter(torch.ones(()))
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows: (B, L, C) to (B, H, C), or (B, H, C, Q)."""
        n_segments = -(-self.horizon // self.segment_length)
        return self.roll(inputs, n_segments)[:, : self.horizon]

    def roll(self, inputs: Inputs, n_segments: int, n_prompt: int = 0) -> Tensor:
        """Forecast segment by segment.

        Parameters
        ----------
        inputs : Inputs
            ``target`` of shape (B, L, C), L a multiple of the segment length; its calendar
            covers every segment but the last that is forecast.
        n_segments : int
            How many are forecast.
        n_prompt : int, default 0
            Steps at the beginning that are no history but a prompt: they stay in place when
            the history moves on.

        Returns
        -------
        Tensor of shape (B, n_segments * S, C), or with a last axis Q
        """
        steps = []
        for _ in range(n_segments):
            steps.append(self.next_segments(inputs)[:, -self.segment_length :])
            inputs = self._moved_on(inputs, self.output.point(steps[-1]), n_prompt)
        return torch.cat(steps, dim=1)

    def next_segments(self, inputs: Inputs) -> Tensor:
        """Forecast the segment after each segment of a window.

        Returns
        -------
        Tensor of shape (B, L, C), or (B, L, C, Q)
            Step t is the forecast of step t + S of the window.
        """
        batch, length, n_variates = inputs.target.shape
        size = self.segment_length
        x, location, scale = self.revin(inputs.target, inputs.observed)
        tokens = self.embedding(_segments(x, size))  # (B * C, P, D)
        if self.time_scale is not None and inputs.calendar is not None:
            times = self.embed_times(inputs.calendar[:, :length])  # (B, P, D)
            times = times.repeat_interleave(n_variates, dim=0)
            tokens = _normed(tokens) + self.time_scale * times
        hidden = self.backbone(tokens, mask=self._mask(inputs.observed))
        raw = self.projection(hidden).view(batch, n_variates, length, -1)
        return self.output(raw.transpose(1, 2), location, scale)

    def compare(self, batch: Batch) -> Compared:
        """Return the forecasts of all next segments, and these segments.

        Returns
        -------
        Compared
            Of K steps, those from the second segment on; K = L where the horizon has a segment.
        """
        length, size = batch.inputs.target.shape[1], self.segment_length
        target, observed, shift = (
            None if part is None else part[:, size : length + size] for part in batch.whole()
        )
        assert target is not None, "there is always one"
        forecast = self.next_segments(batch.inputs)[:, : target.shape[1]]
        return Compared(forecast, target, observed, batch.scale, shift)

    def embed_times(self, calendar: Tensor) -> Tensor:
        """Embed the time of each segment as a vector of length 1.

        A language model reads a sentence with the first and the last time of the segment
        (section 3.2); its last hidden state is the embedding. For a backbone that reads no
        text, it is the phases of the day, the week, the month and the year at the first
        step, a sine and a cosine of each.

        Parameters
        ----------
        calendar : Tensor of shape (B, L, 2)
            See :func:`tsar.data.calendar.clock_readings`.

        Returns
        -------
        Tensor of shape (B, P, D)
        """
        size, backbone = self.segment_length, self.backbone
        first = calendar[:, ::size]
        if not isinstance(backbone, FrozenBackbone) or backbone.tokenizer is None:
            return _normed(_phases(first, backbone.d_model))
        ends = torch.cat([first, calendar[:, size - 1 :: size]], dim=-1)  # (B, P, 4)
        different, place = torch.unique(ends.flatten(0, 1), dim=0, return_inverse=True)
        read = backbone.embed_texts([_sentence(*row) for row in different.tolist()])
        return _normed(read.to(calendar)[place]).view(*first.shape[:2], -1)

    def _mask(self, observed: Tensor | None) -> Tensor | None:
        """Say which segments hold an observed step: (B, L, C) to (B * C, P); None for all."""
        if observed is None:
            return None
        seen = _segments(observed, self.segment_length).any(dim=-1)
        if seen.all():
            return None
        # A series without any observation keeps its segments, to have something to look at.
        return seen | ~seen.any(dim=-1, keepdim=True)

    def _moved_on(self, inputs: Inputs, steps: Tensor, n_prompt: int) -> Inputs:
        """Append a segment to a window and leave out the oldest one of its history."""

        def moved(values: Tensor, new: Tensor) -> Tensor:
            later = values[:, n_prompt + self.segment_length :]
            return torch.cat([values[:, :n_prompt], later, new], dim=1)

        calendar, observed = inputs.calendar, inputs.observed
        if observed is not None:
            observed = moved(observed, torch.ones_like(steps, dtype=torch.bool))
        if calendar is not None:
            calendar = moved(calendar, calendar[:, :0])
        target = moved(inputs.target, steps.to(inputs.target.dtype))
        return Inputs(target, observed, calendar=calendar)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AutoTimesNetwork":
        super()._apply(fn, recurse)
        if isinstance(self.backbone, FrozenBackbone):
            # It goes where the trained weights go, in its own precision; but not where nothing
            # has values, which would take its own.
            device = next(self.parameters()).device
            if device.type != "meta":
                self.backbone.to(device)
        return self


def _perceptron(
    n_in: int, n_out: int, hidden_layers: int, d_hidden: int, dropout: float
) -> nn.Module:
    """Return a linear map, or one with hidden layers before it."""
    widths = [n_in] + [d_hidden] * hidden_layers
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [Linear(before, after), nn.Tanh(), Dropout(dropout)]
    return nn.Sequential(*layers, Linear(widths[-1], n_out))


def _segments(x: Tensor, length: int) -> Tensor:
    """Cut windows (B, L, C) into segments (B * C, P, length)."""
    series = x.transpose(1, 2)
    return series.reshape(series.shape[0] * series.shape[1], -1, length)


def _normed(tokens: Tensor) -> Tensor:
    """Scale vectors to length 1, those of length 0 left as they are."""
    return tokens / tokens.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def _phases(clock: Tensor, d_model: int) -> Tensor:
    """Return sines and cosines of the phases of the clock and zeros: (B, P, 2) to (B, P, D)."""
    time = clock[..., :1].double() + clock[..., 1:].double() / 86_400
    turns = time / torch.tensor(PERIODS, dtype=torch.float64, device=clock.device)
    angles = 2 * torch.pi * turns.frac()  # (B, P, 4)
    # Higher harmonics would tell one day from the next, and be learned by heart.
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(2)[..., :d_model]
    return F.pad(waves, (0, d_model - waves.shape[-1])).to(clock.dtype)


def _sentence(first_day: float, first_second: float, last_day: float, last_second: float) -> str:
    first, last = (
        EPOCH + datetime.timedelta(days=day, seconds=second)
        for day, second in ((first_day, first_second), (last_day, last_second))
    )
    return SENTENCE.format(first, last)
