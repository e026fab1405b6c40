"""Forecasters whose tokens are variates: what iTransformer and its kin share.

A whole variate is one token, and an encoder mixes variates instead of time steps. A model
of this kind gives the mixer and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from tsar.core.block import Block, Encoder
from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.mixers import MIXERS, Mixer, check_heads
from tsar.core.mlp import MLP
from tsar.core.norm import make_norm
from tsar.data.windows import Batch, Inputs
from tsar.forecasting.layers.covariates import CovariateEncoder, CovariateSpec
from tsar.forecasting.layers.embedding import ColumnTokens, VariateEmbedding
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.objective import Compared, ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval, check_choice

__all__ = ["VariateTokenForecaster", "VariateTokenNetwork"]

NO_COVARIATES = CovariateSpec()

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]


class CovariateTokens(nn.Module):
    """Covariates of a window as tokens, those of the calendar still to be embedded.

    Parameters
    ----------
    spec : CovariateSpec
    context_length, horizon, d_model : int
    """

    def __init__(
        self, spec: CovariateSpec, context_length: int, horizon: int, d_model: int
    ) -> None:
        super().__init__()
        self.context_length = context_length
        self.encoder = CovariateEncoder(spec) if spec else None
        self.past = self.future = self.static = None
        if self.encoder is None:
            return
        self.n_future = self.encoder.n_known - spec.n_calendar
        if self.encoder.n_past:
            self.past = ColumnTokens(self.encoder.n_past, context_length, d_model)
        if self.n_future:
            self.future = ColumnTokens(self.n_future, context_length + horizon, d_model)
        if self.encoder.n_static:
            self.static = Linear(self.encoder.n_static, d_model)

    def forward(self, inputs: Inputs) -> tuple[Tensor | None, list[Tensor]]:
        """Return the calendar of the context (B, L, n), and tokens (B, any, D) of the rest."""
        if self.encoder is None:
            return None, []
        past, future, static = self.encoder(inputs)
        tokens = []
        if self.past is not None:
            tokens.append(self.past(past))
        if self.future is not None:
            tokens.append(self.future(future[..., : self.n_future]))
        if self.static is not None:
            tokens.append(self.static(static)[:, None])
        return future[:, : self.context_length, self.n_future :], tokens


class VariateTokenNetwork(ForecastNetwork):
    """Embed every variate as one token, encode the tokens, map each to the horizon.

    Windows are normalised one by one (RevIN without factors). Covariates are tokens beside
    those of the variates, and what comes out at their places is dropped. Calendar features
    are embedded by the same map as the variates and not normalised, as in the authors'
    code. Other columns have a map each: past ones of the context, future ones of the
    context and the horizon. Static ones share one token.

    A variate that is observed in parts is embedded with its gaps carried forward. One
    without any observed step is hidden from the others, and forecast from them.

    Parameters
    ----------
    context_length, horizon : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    make_mixer : callable
        Makes what mixes the variates in one block.
    n_layers, d_model, d_ff : int
    dropout : float, default 0.1
        After the embedding, inside the feed-forward parts and on the branches; blocks
        normalise after the residual sum.
    mixer_dropout : float, optional
        On the branches of the mixers; that of all branches if not given.
    covariates : CovariateSpec, optional
        The covariates that come as tokens; none by default.
    variate_share : float, default 1.0
        Share of the variates that a training step sees, see :meth:`compare`.

    References
    ----------
    Liu et al., "iTransformer: inverted transformers are effective for time series
    forecasting", ICLR 2024, section 3.
    """

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        output: Output,
        make_mixer: Callable[[], Mixer],
        n_layers: int,
        d_model: int,
        d_ff: int,
        dropout: float = 0.1,
        mixer_dropout: float | None = None,
        covariates: CovariateSpec = NO_COVARIATES,
        variate_share: float = 1.0,
    ) -> None:
        super().__init__()
        # Before the embedding: the first weights follow from the order in which they are drawn.
        blocks = [
            Block(
                make_mixer(),
                MLP(d_model, d_ff, dropout=dropout),
                d_model=d_model,
                norm="layer",
                pre_norm=False,
                dropout=dropout,
                mixer_dropout=mixer_dropout,
            )
            for _ in range(n_layers)
        ]
        self.context_length, self.horizon = context_length, horizon
        self.variate_share = variate_share
        self.revin = RevIN()
        self.embedding = VariateEmbedding(context_length, d_model)
        self.covariates = CovariateTokens(covariates, context_length, horizon, d_model)
        self.dropout = Dropout(dropout)
        self.encoder = Encoder(blocks, make_norm("layer", d_model))
        self.head = Linear(d_model, horizon * output.n_outputs)
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
        batch, _, n_variates = inputs.target.shape
        x, location, scale = self.revin(inputs.target, inputs.observed)
        calendar, others = self.covariates(inputs)
        tokens = self.embedding(torch.cat([x, calendar], dim=-1) if calendar is not None else x)
        tokens = self.dropout(torch.cat([tokens, *others], dim=1) if others else tokens)
        mask = None
        if inputs.observed is not None:
            mask = self.embedding.mask(inputs.observed)
            mask = nn.functional.pad(mask, (0, tokens.shape[1] - n_variates), value=True)
        tokens = self.encoder(tokens, mask=mask)[:, :n_variates]
        raw = self.head(tokens)  # (B, C, H * Q)
        raw = raw.view(batch, n_variates, self.horizon, -1).transpose(1, 2)
        return self.output(raw, location, scale)

    def compare(self, batch: Batch) -> Compared:
        """Forecast what a training step compares with the truth: a share of the variates.

        They are drawn anew for every batch, so that all of them are trained on in the end
        at the cost of a few: the efficient training strategy of Liu et al. 2024, section 4.

        Parameters
        ----------
        batch : Batch
            With C variates.

        Returns
        -------
        Compared
            Of K variates, ``variate_share * C``, rounded, and at least 1.
        """
        inputs, target, observed = batch.inputs, batch.target, batch.observed
        n_variates = target.shape[-1]
        n_drawn = max(round(self.variate_share * n_variates), 1)
        if n_drawn == n_variates:
            return super().compare(batch)
        # The generator is that of the training run, which continues where it was left.
        order = torch.randperm(n_variates, generator=self.dropout.generator, device=target.device)
        drawn = order[:n_drawn].sort().values
        seen = None if inputs.observed is None else inputs.observed[..., drawn]
        inputs = replace(inputs, target=inputs.target[..., drawn], observed=seen)
        observed_drawn = None if observed is None else observed[..., drawn]
        scale = None if batch.scale is None else batch.scale[:, drawn]
        shift = None if batch.shift is None else batch.shift[1][..., drawn]
        return Compared(self(inputs), target[..., drawn], observed_drawn, scale, shift)


@dataclass(kw_only=True, eq=False, repr=False)
class VariateTokenForecaster(NetworkForecaster):
    """A forecaster around a :class:`VariateTokenNetwork`.

    The variates of a frame inform each other: columns of a wide or MultiIndex frame, or
    the ``target`` columns of a long one. The series of a long frame do not; pivot them
    into columns where they should. The weights are shared over variates, so ``predict``
    takes others than the fitted ones with ``allow_new_variates=True``.

    Covariates are tokens beside the variates. As weights that all variates share cannot
    say what a covariate means for one of them, the effect of future covariates on each
    variate is also taken off its history and added to its forecast; with these, the
    variates at ``predict`` have to be the fitted ones.

    Parameters
    ----------
    calendar_features : bool, default True
        Whether the hour, weekday, day of month and day of year of the local clock are
        tokens as well, as in the authors' code.
    d_model, d_ff, n_layers : int, default 128, 128 and 2
        Width of a token, width of the feed-forward part, blocks.
    dropout : float, default 0.1
        After the embedding and inside the blocks.
    variate_share : float, default 1.0
        Share of the variates that a training step sees, drawn anew for every step; what is
        forecast are all of them. Less than 1 trains faster where there are many.
    mixer : str
        What mixes the variates, one of ``tsar.core.mixers.MIXERS``.
    n_heads : int, default 8
        Heads of a mixer that has some.
    """

    d_model: Positive = 128
    d_ff: Positive = 128
    n_layers: Positive = 2
    dropout: Share = 0.1
    variate_share: Annotated[float, Interval(0, 1, open_low=True)] = 1.0
    mixer: str = "attention"
    n_heads: Positive = 8

    calendar_features: bool = True

    channel_independent: ClassVar[bool] = False

    def _check_consistency(self) -> None:
        super()._check_consistency()
        check_choice(self.name, "mixer", self.mixer, MIXERS)
        check_heads(self.name, self.mixer, d_model=self.d_model, n_heads=self.n_heads)

    def _network_options(self, spec: NetworkSpec) -> dict[str, Any]:
        """Return what every network over variate tokens is built with."""
        return {
            "context_length": spec.context_length,
            "horizon": spec.horizon,
            "output": spec.output,
            "covariates": spec.covariates,
            **{
                name: getattr(self, name)
                for name in (
                    *("d_model", "d_ff", "n_layers", "dropout"),
                    *("variate_share", "mixer", "n_heads"),
                )
            },
        }

    def _covariates_beside(self, covariates: CovariateSpec) -> CovariateSpec:
        return CovariateSpec(future=covariates.future)
