"""ETSformer: level, growth and season, smoothed out of the history layer by layer."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers import MIXERS, Mixer, accepted_options, make_mixer
from tsar.core.mixers.exponential_smoothing import smooth
from tsar.core.random import Random
from tsar.core.tracing import is_traced
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.layers.extrapolation import DampedGrowth, FourierExtrapolation
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.objective import ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval, check_choice

__all__ = ["ETSformer", "ETSformerNetwork"]

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]


class Augmentation(Random):
    """Scale, shift and blur histories at random while training.

    Factors and shifts are drawn for each variate and shared by a batch, noise for each value.

    Parameters
    ----------
    deviation : float
        Of all three.
    """

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        """Change (B, L, C); the identity outside training."""
        if not (self.training and self.deviation):
            return x
        generator = None if is_traced() else self.generator
        per_variate = (1, 1, x.shape[2])
        factor, shift, noise = (
            self.deviation * torch.randn(shape, dtype=x.dtype, device=x.device, generator=generator)
            for shape in (per_variate, per_variate, x.shape)
        )
        return x * (1 + factor) + shift + noise


class Level(nn.Module):
    """The level of every variate: smoothed values without their season, moved on by the growth.

    ``l_t = (1 - a) (x_t - S s_t) + a (l_{t-1} + G g_{t-1})``, the recursion of exponential
    smoothing with an additive trend.

    Parameters
    ----------
    d_model, n_variates : int
    dropout : float
        Of the values without their season, and of the growth.
    accumulate : bool
        Whether a growth stays in the level from its step on. Without it, each step has that of the
        step before alone, times a to the power of its distance to the end of the history.

    Attributes
    ----------
    logit : nn.Parameter of shape (C,)
        Of the share a that stays from step to step.
    first : nn.Parameter of shape (C,)
        The level before the first step.
    """

    def __init__(self, d_model: int, n_variates: int, *, dropout: float, accumulate: bool) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.accumulate = accumulate
        self.season, self.growth = Linear(d_model, n_variates), Linear(d_model, n_variates)
        self.logit, self.first = (nn.Parameter(torch.randn(n_variates)) for _ in range(2))

    def forward(self, level: Tensor, growth: Tensor, season: Tensor) -> Tensor:
        """Smooth (B, L, C), given the growth up to each step and the season, each (B, L, D)."""
        added = torch.sigmoid(-self.logit) * self.dropout(level - self.season(season))
        moved = torch.sigmoid(self.logit) * self.dropout(self.growth(growth))
        before = self.first.expand(level.shape[0], -1)
        if self.accumulate:
            return smooth(added + moved, self.logit, before)
        steps = torch.arange(level.shape[1] - 1, -1, -1, device=level.device)
        fades = (F.logsigmoid(self.logit) * steps[:, None]).exp()
        return smooth(added, self.logit, before) + fades * moved


class ETSLayer(nn.Module):
    """Take season and growth out of the tokens, and smooth the level with them.

    Parameters
    ----------
    mixer : Mixer
        Gives the growth at each token.
    season : FourierExtrapolation
    level : Level
    d_model, d_ff : int
    dropout : float
    last : bool
        Whether no layer reads what is left of the tokens.
    """

    def __init__(
        self,
        mixer: Mixer,
        season: FourierExtrapolation,
        level: Level,
        *,
        d_model: int,
        d_ff: int,
        dropout: float,
        last: bool,
    ) -> None:
        super().__init__()
        self.mixer, self.season, self.level = mixer, season, level
        self.first_growth = nn.Parameter(torch.randn(d_model))
        self.dropout = Dropout(dropout)
        self.rest: nn.ModuleDict | None = None
        if not last:
            self.rest = nn.ModuleDict(
                {
                    "growth_norm": nn.LayerNorm(d_model),
                    "expand": Linear(d_model, d_ff, bias=False),
                    "contract": Linear(d_ff, d_model, bias=False),
                    "norm": nn.LayerNorm(d_model),
                }
            )

    def forward(self, tokens: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return tokens (B, L, D), the level (B, L, C), growth (B, D), season (B, H, D)."""
        length = tokens.shape[1]
        season = self.dropout(self.season(tokens))
        so_far, ahead = season.split([length, season.shape[1] - length], dim=1)
        tokens = tokens - so_far
        growth = self.dropout(self.mixer(tokens))
        first = self.first_growth.expand(tokens.shape[0], 1, -1)
        level = self.level(level, torch.cat([first, growth[:, :-1]], dim=1), so_far)
        if self.rest is not None:
            tokens = self.rest["growth_norm"](tokens - growth)
            hidden = self.dropout(torch.sigmoid(self.rest["expand"](tokens)))
            tokens = self.rest["norm"](self.dropout.add(tokens, self.rest["contract"](hidden)))
        return tokens, level, growth[:, -1], ahead


class ETSformerNetwork(ForecastNetwork):
    """Layers that each take a season and a growth out of the history.

    The forecast is the last level, and of all layers the seasons, going on as they turned, and the
    growths, fading from step to step. One linear map brings both to the variates. The variates of a
    window inform each other from the embedding on.

    Parameters
    ----------
    context_length, horizon, n_variates : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`. The last level is its location.
    n_frequencies : int, default 1
        Frequencies in the season of a feature and layer; 0 for no season.
    d_model, n_heads, d_ff, n_layers : int, default 512, 8, 2048 and 2
    dropout : float, default 0.2
    augmentation : float, default 0.2
        Deviation of random factors, shifts and noise of histories in training.
    accumulate_growth : bool, default True
        See :class:`Level`.
    mixer : str, default "exponential_smoothing"
        One of :data:`tsar.core.mixers.MIXERS`.

    References
    ----------
    Woo et al., "ETSformer: exponential smoothing transformers for time-series forecasting",
    arXiv:2202.01381; sizes and steps as in the authors' code, but that the growth before the first
    step is a vector of its own, and nothing is computed of the tokens that no layer reads.
    """

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        n_variates: int,
        output: Output,
        n_frequencies: int = 1,
        d_model: int = 512,
        n_heads: int = 8,
        d_ff: int = 2048,
        n_layers: int = 2,
        dropout: float = 0.2,
        augmentation: float = 0.2,
        accumulate_growth: bool = True,
        mixer: str = "exponential_smoothing",
    ) -> None:
        super().__init__()
        self.augmentation = Augmentation(augmentation)
        self.embedding = Linear(3 * n_variates, d_model, bias=False)
        nn.init.kaiming_normal_(self.embedding.weight)
        self.dropout = Dropout(dropout)
        season = FourierExtrapolation(context_length, horizon, n_frequencies)
        options = accepted_options(mixer, n_heads=n_heads, dropout=dropout)
        self.layers = nn.ModuleList(
            ETSLayer(
                make_mixer(mixer, d_model, **options),
                season,
                Level(d_model, n_variates, dropout=dropout, accumulate=accumulate_growth),
                d_model=d_model,
                d_ff=d_ff,
                dropout=dropout,
                last=layer == n_layers - 1,
            )
            for layer in range(n_layers)
        )
        self.damped = nn.ModuleList(
            DampedGrowth(d_model, n_heads, horizon, dropout=dropout) for _ in range(n_layers)
        )
        self.head = Linear(d_model, n_variates * output.n_outputs)
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows: (B, L, C) to (B, H, C), or (B, H, C, Q)."""
        level = self.augmentation(inputs.target)
        n_variates = level.shape[2]
        # Each step beside the two before it, which are 0 before the first.
        beside = F.pad(level, (0, 0, 2, 0)).unfold(1, 3, 1).flatten(2)
        tokens = self.dropout(self.embedding(beside))
        growths, seasons = [], []
        for layer, damped in zip(self.layers, self.damped, strict=True):
            tokens, level, growth, season = layer(tokens, level)
            growths.append(damped(growth))
            seasons.append(season)
        raw = self.head(torch.stack(growths).sum(0)) + self.head(torch.stack(seasons).sum(0))
        return self.output(raw.unflatten(2, (n_variates, -1)), level[:, -1:], 1.0)


@dataclass(kw_only=True, eq=False, repr=False)
class ETSformer(NetworkForecaster):
    """ETSformer: exponential smoothing of level, growth and season inside of a network.

    For a few columns with seasons and trends that change, and a short history. Forecasts are a
    level, waves and a fading growth, so that they go on smoothly. The variates of a frame inform
    each other. Where noise in training does harm, lower ``augmentation``.

    Parameters
    ----------
    n_frequencies : int, default 1
        Frequencies in the season of a feature and layer; 0 for no season. They are whole numbers of
        turns in the context, so it is best some seasons long.
    d_model, n_heads, d_ff, n_layers : int, default 512, 8, 2048 and 2
        Width of a token, heads, width of the feed-forward part, layers.
    dropout : float, default 0.2
        After the embedding, of seasons and growths, of what is smoothed, and of the feed-forward
        part.
    augmentation : float, default 0.2
        Deviation of random factors, shifts and noise of the scaled histories in training.
    accumulate_growth : bool, default True
        Whether growth stays in the level from its step on, as in exponential smoothing. With False
        each step has that of the step before alone, which is what the authors' code does.
    mixer : str, default "exponential_smoothing"
        What gives the growth at each step, one of ``tsar.core.mixers.MIXERS``.

    References
    ----------
    Woo et al., "ETSformer: exponential smoothing transformers for time-series forecasting",
    arXiv:2202.01381.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.ETSformer(
    ...     context_length=48, horizon=12, d_model=16, d_ff=32, max_epochs=2, random_state=0
    ... )
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    n_frequencies: Annotated[int, Interval(0)] = 1
    d_model: Positive = 512
    n_heads: Positive = 8
    d_ff: Positive = 2048
    n_layers: Positive = 2
    dropout: Share = 0.2
    augmentation: Annotated[float, Interval(0)] = 0.2
    accumulate_growth: bool = True
    mixer: str = "exponential_smoothing"

    channel_independent: ClassVar[bool] = False
    takes_any_variates: ClassVar[bool] = False

    def _check_consistency(self) -> None:
        super()._check_consistency()
        check_choice("ETSformer", "mixer", self.mixer, MIXERS)
        # Whatever mixes, growth fades by heads.
        if self.d_model % self.n_heads:
            raise ParameterError(
                f"ETSformer: d_model must be a multiple of n_heads={self.n_heads}, "
                f"got {self.d_model}"
            )

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return ETSformerNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            n_variates=spec.n_variates,
            output=spec.output,
            n_frequencies=self.n_frequencies,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_ff=self.d_ff,
            n_layers=self.n_layers,
            dropout=self.dropout,
            augmentation=self.augmentation,
            accumulate_growth=self.accumulate_growth,
            mixer=self.mixer,
        )
