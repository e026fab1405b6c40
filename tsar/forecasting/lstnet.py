"""LSTNet: a convolution over all variates, two recurrences, and an autoregression beside them."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.recurrent import GRU
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.objective import ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval

__all__ = ["LSTNet", "LSTNetNetwork"]

Positive = Annotated[int, Interval(1)]
Share = Annotated[float, Interval(0, 1, open_high=True)]


class LSTNetNetwork(ForecastNetwork):
    """The network of LSTNet.

    A convolution over ``kernel`` steps and all variates gives a token per step. One recurrence
    reads the tokens in their order; another one reads, for each phase of a season, the tokens that
    are a season apart. Their last states are mapped to the horizon. To that an autoregression of
    the last ``ar_length`` steps is added, which all variates share.

    Parameters
    ----------
    context_length, horizon, n_variates : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`. Windows are not normalised.
    kernel : int, default 6
        Steps of the convolution.
    season_length : int or None, default 24
        Steps that the second recurrence skips. None leaves it out, and so does a context that
        holds no season beside the kernel.
    d_model, d_skip : int, default 50 and 5
        Features of a token and of the first recurrence, and of the second one.
    ar_length : int or None, default 24
        Steps of the autoregression, at most those of the context; None leaves it out.
    dropout : float, default 0.2
        Of the tokens and of both states.

    References
    ----------
    Lai et al., "Modeling long- and short-term temporal patterns with deep neural networks", SIGIR
    2018, section 3. As in the authors' code, recurrences have tanh in place of ReLU; the variant
    with attention, which that code lacks, is left out. There, a network gives a single step. That
    the last map gives all steps of the horizon is an extension of ours.
    """

    def __init__(
        self,
        *,
        context_length: int,
        horizon: int,
        n_variates: int,
        output: Output,
        kernel: int = 6,
        season_length: int | None = 24,
        d_model: int = 50,
        d_skip: int = 5,
        ar_length: int | None = 24,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.horizon, self.kernel = horizon, kernel
        season = 0 if season_length is None else season_length
        self.n_seasons = (context_length - kernel) // season if season else 0
        self.season_length = season if self.n_seasons else 0
        self.ar_length = None if ar_length is None else min(ar_length, context_length)
        self.convolution = Linear(n_variates * kernel, d_model)
        self.recurrence = GRU(d_model, d_model)
        self.skipping = GRU(d_model, d_skip) if self.n_seasons else None
        width = d_model + self.season_length * d_skip
        self.head = Linear(width, horizon * n_variates * output.n_outputs)
        self.autoregression = (
            None if self.ar_length is None else Linear(self.ar_length, horizon * output.n_outputs)
        )
        self.dropout = Dropout(dropout)
        self.output = output

    def forward(self, inputs: Inputs) -> Tensor:
        """Forecast a batch of windows.

        Parameters
        ----------
        inputs : Inputs
            ``target`` of shape (B, L, C).

        Returns
        -------
        Tensor of shape (B, H, C), or (B, H, C, Q) with several outputs per step
        """
        x = inputs.target
        patches = x.unfold(1, self.kernel, 1).flatten(2)  # (B, L - kernel + 1, C * kernel)
        tokens = self.dropout(self.convolution(patches).relu())
        states = [self.dropout(self.recurrence(tokens)[1])]
        if self.skipping is not None:
            phases = self.by_phase(tokens)
            last = self.skipping(phases.flatten(0, 1))[1]
            states.append(self.dropout(last.unflatten(0, phases.shape[:2]).flatten(1)))
        raw = self.head(torch.cat(states, dim=1)).unflatten(1, (self.horizon, x.shape[2], -1))
        if self.autoregression is not None:
            recent = x[:, x.shape[1] - int(self.ar_length or 0) :].transpose(1, 2)
            steps = self.autoregression(recent).unflatten(2, (self.horizon, -1))  # (B, C, H, Q)
            raw = raw + steps.transpose(1, 2)
        return self.output(raw, 0.0, 1.0)

    def by_phase(self, tokens: Tensor) -> Tensor:
        """Lay the last whole seasons of tokens (B, T, D) out by phase, (B, season, n, D)."""
        whole = tokens[:, tokens.shape[1] - self.n_seasons * self.season_length :]
        return whole.unflatten(1, (self.n_seasons, self.season_length)).transpose(1, 2)


@dataclass(kw_only=True, eq=False, repr=False)
class LSTNet(NetworkForecaster):
    """LSTNet: short patterns by a convolution, long ones by recurrences, levels by regression.

    A small network for series with one clear season. On exchange_rate, where the paper reports it
    as well, the last value repeated is better. The defaults are the authors' settings, who take
    ``context_length=168``.

    The variates of a frame are read together: columns of a wide or MultiIndex frame, or the
    ``target`` columns of a long one.

    Parameters
    ----------
    kernel : int, default 6
        Steps of the convolution.
    season_length : int or None, default 24
        Steps in a season, which the second recurrence skips. None leaves it out, and so does a
        context shorter than a season and the kernel together.
    d_model, d_skip : int, default 50 and 5
        Width of a token and of the first recurrence, and of the second one.
    ar_length : int or None, default 24
        Steps of the autoregression, which all variates share, at most those of the context; None
        leaves it out.
    dropout : float, default 0.2
        Of the tokens and of both states.

    References
    ----------
    Lai et al., "Modeling long- and short-term temporal patterns with deep neural networks", SIGIR
    2018.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.LSTNet(
    ...     context_length=48, horizon=12, season_length=12, max_epochs=2, random_state=0
    ... )
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    kernel: Positive = 6
    season_length: Positive | None = 24
    d_model: Positive = 50
    d_skip: Positive = 5
    ar_length: Positive | None = 24
    dropout: Share = 0.2

    channel_independent: ClassVar[bool] = False
    takes_any_variates: ClassVar[bool] = False

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if self.context_length is not None and self.kernel > self.context_length:
            raise ParameterError(
                f"LSTNet: kernel must be at most context_length={self.context_length}, got "
                f"{self.kernel}; shorten it or lengthen the context"
            )

    @property
    def _shortest_context(self) -> int:
        return self.kernel

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return LSTNetNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            n_variates=spec.n_variates,
            output=spec.output,
            kernel=self.kernel,
            season_length=self.season_length,
            d_model=self.d_model,
            d_skip=self.d_skip,
            ar_length=self.ar_length,
            dropout=self.dropout,
        )
