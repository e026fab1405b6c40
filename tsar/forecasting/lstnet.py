"""LSTNet: a convolution over all variates, two recurrences, and an autoregression beside them."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

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
# The season and the autoregression of the authors, in steps, whatever the data.
USUAL_LENGTH = 24


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
        Steps that the second recurrence skips, at most those of the context without the kernel;
        None leaves it out.
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
        self.season_length, self.ar_length = season_length or 0, ar_length or 0
        self.n_seasons = (context_length - kernel) // season_length if season_length else 0
        self.convolution = Linear(n_variates * kernel, d_model)
        self.recurrence = GRU(d_model, d_model)
        self.skipping = GRU(d_model, d_skip) if self.season_length else None
        width = d_model + self.season_length * d_skip
        self.head = Linear(width, horizon * n_variates * output.n_outputs)
        self.autoregression = (
            Linear(self.ar_length, horizon * output.n_outputs) if self.ar_length else None
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
            recent = x[:, x.shape[1] - self.ar_length :].transpose(1, 2)
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
    season_length : int, "infer" or None, default "infer"
        Steps in a season, which the second recurrence skips: at most those of the context without
        the kernel. None leaves it out. "infer" takes the authors' 24, and leaves it out where the
        context does not hold these.
    d_model, d_skip : int, default 50 and 5
        Width of a token and of the first recurrence, and of the second one.
    ar_length : int, "infer" or None, default "infer"
        Steps of the autoregression, which all variates share: at most those of the context. None
        leaves it out. "infer" takes the authors' 24, or all of a shorter context.
    dropout : float, default 0.2
        Of the tokens and of both states.

    Attributes
    ----------
    season_length_, ar_length_ : int or None
        What was fitted, None of a part that was left out.

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
    season_length: Positive | Literal["infer"] | None = "infer"
    d_model: Positive = 50
    d_skip: Positive = 5
    ar_length: Positive | Literal["infer"] | None = "infer"
    dropout: Share = 0.2

    channel_independent: ClassVar[bool] = False
    takes_any_variates: ClassVar[bool] = False

    def _check_consistency(self) -> None:
        super()._check_consistency()
        context = self.context_length
        if context is None:
            return
        if self.kernel > context:
            raise ParameterError(
                f"LSTNet: kernel must be at most context_length={context}, got "
                f"{self.kernel}; shorten it or lengthen the context"
            )
        for name, most in (("season_length", context - self.kernel), ("ar_length", context)):
            steps = getattr(self, name)
            if isinstance(steps, int) and steps > most:
                beside = f" less kernel={self.kernel}" if most < context else ""
                raise ParameterError(
                    f"LSTNet: {name} must be at most {most} (context_length={context}{beside}), "
                    f"got {steps}; shorten it, lengthen the context, or set {name}=None to leave "
                    f"that part out"
                )

    @property
    def season_length_(self) -> int | None:
        """Steps that the second recurrence skips."""
        return self.as_fitted._fitting_season()  # noqa: SLF001  (this class)

    @property
    def ar_length_(self) -> int | None:
        """Steps of the autoregression."""
        return self.as_fitted._fitting_regression()  # noqa: SLF001  (this class)

    def _fitting_season(self) -> int | None:
        if self.season_length != "infer":
            return self.season_length
        return USUAL_LENGTH if USUAL_LENGTH <= self.context - self.kernel else None

    def _fitting_regression(self) -> int | None:
        if self.ar_length != "infer":
            return self.ar_length
        return min(USUAL_LENGTH, self.context)

    @property
    def _shortest_context(self) -> int:
        season, regression = (
            steps if isinstance(steps, int) else 0 for steps in (self.season_length, self.ar_length)
        )
        return max(self.kernel + season, regression)

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return LSTNetNetwork(
            context_length=spec.context_length,
            horizon=spec.horizon,
            n_variates=spec.n_variates,
            output=spec.output,
            kernel=self.kernel,
            season_length=self._fitting_season(),
            d_model=self.d_model,
            d_skip=self.d_skip,
            ar_length=self._fitting_regression(),
            dropout=self.dropout,
        )
