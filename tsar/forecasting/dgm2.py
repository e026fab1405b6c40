"""DGM2: a dynamic mixture of a few patterns, for series of which much was not observed."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.ops.even_products import linear
from tsar.core.recurrent import LSTM
from tsar.data.windows import Batch, Inputs
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.objective import Compared, ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval

__all__ = ["DGM2", "DGM2Network"]

Positive = Annotated[int, Interval(1)]


class Mixtures(NamedTuple):
    """How much of each pattern there is, step by step; logarithms of shares (B, any, K).

    Parameters
    ----------
    posterior : Tensor of shape (B, L, K)
        Of the context, from what was observed up to each step.
    prior : Tensor of shape (B, L + H, K)
        From the steps before alone.
    even : Tensor of shape (B, L + H, 1)
        How much a step leans to the mean of the context, in [0, 1].
    """

    posterior: Tensor
    prior: Tensor
    even: Tensor


class DGM2Network(ForecastNetwork):
    """A state that is a mixture of patterns: inferred where there is history, continued beyond.

    Windows are normalised by what was observed (RevIN). A recurrent encoder reads at each step the
    values, zero where there is none, whether there is one, and for how long there was none. It
    gives, with the mixture before, the mixture of the step. Another one reads the mixtures alone
    and expects the next; beyond the history what it expects is what it goes on from.

    Parameters
    ----------
    horizon, n_variates : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    n_patterns : int, default 20
    d_model : int, default 32
        Width of both recurrent states.
    dropout : float, default 0.0
        Of the hidden states of the encoder.
    kl_weight : float, default 0.1
        Of the divergence of what is inferred from what was expected, beside the error.

    Attributes
    ----------
    patterns : nn.Parameter of shape (K, C * n_outputs)
        Raw outputs of a step, of each pattern.

    References
    ----------
    Wu et al., "Dynamic Gaussian mixture based deep generative model for robust forecasting on
    sparse multivariate time series", AAAI 2021.
    """

    def __init__(
        self,
        *,
        horizon: int,
        n_variates: int,
        output: Output,
        n_patterns: int = 20,
        d_model: int = 32,
        dropout: float = 0.0,
        kl_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.horizon, self.n_variates, self.kl_weight = horizon, n_variates, kl_weight
        self.revin = RevIN()
        n_raw = n_variates * output.n_outputs
        self.patterns = nn.Parameter(torch.randn(n_patterns, n_raw))
        self.encoder = LSTM(3 * n_variates, d_model)
        self.dropout = Dropout(dropout)
        self.infer = Linear(n_raw + d_model, n_patterns)
        self.transition = LSTM(n_raw, d_model)
        self.expect = Linear(d_model, n_patterns)
        self.lean = Linear(d_model, 1)
        self.least_lean = nn.Parameter(torch.zeros(()))
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
        whole, _ = self._whole(inputs)
        return whole[:, -self.horizon :]

    def compare(self, batch: Batch) -> Compared:
        """Compare the horizon, and the context with what the mixtures make of it.

        The weighted divergence of the mixtures is the term ``divergence``.
        """
        inputs = batch.inputs
        whole, mixtures = self._whole(inputs)
        diverged = self.kl_weight * divergence(mixtures.posterior, mixtures.prior)
        terms = {"divergence": (diverged, torch.ones_like(diverged))}
        target = torch.cat([inputs.target, batch.target], dim=1)
        shift = (
            None
            if batch.shift is None
            else torch.cat(
                [
                    part.expand_as(like)
                    for part, like in zip(batch.shift, (inputs.target, batch.target), strict=True)
                ],
                dim=1,
            )
        )
        seen = None
        if not (inputs.observed is None and batch.observed is None):
            before = _filled(inputs.observed, inputs.target)
            if batch.weight is not None:
                before = before * batch.weight[:, : before.shape[1]]
            seen = torch.cat([before, _filled(batch.observed, batch.target)], dim=1)
        return Compared(whole, target, seen, batch.scale, shift, terms)

    def _whole(self, inputs: Inputs) -> tuple[Tensor, Mixtures]:
        """Return what the mixtures say of context and horizon, in the units of the inputs."""
        observed = inputs.observed
        x, location, scale = self.revin(inputs.target, observed)
        seen = _filled(observed, x)
        features = torch.cat([x * seen, seen, elapsed(observed, x).log1p()], dim=-1)
        mixtures = self._mixtures(self.dropout(self.encoder(features)))
        shares = mixtures.posterior.exp()
        ahead = mixtures.prior[:, shares.shape[1] :].exp()
        mean = shares.mean(dim=1, keepdim=True)
        leaning = torch.cat([shares, ahead], dim=1).lerp(mean, mixtures.even)
        raw = self._said(leaning).unflatten(2, (self.n_variates, -1))
        return self.output(raw, location, scale), mixtures

    def _said(self, shares: Tensor) -> Tensor:
        return linear(shares, self.patterns.mT)

    def _mixtures(self, encoded: Tensor) -> Mixtures:
        """Go through the encoded history (B, L, D) and on through the horizon."""
        state = self.transition.init_state(len(encoded))
        said = self.patterns.new_zeros(len(encoded), self.patterns.shape[1])
        posterior, prior, states = [], [], []
        history = encoded.unbind(dim=1)
        for step in range(len(history) + self.horizon):
            expected = F.log_softmax(self.expect(state.hidden), dim=-1)
            prior.append(expected)
            states.append(state.hidden)
            if step < len(history):
                there = torch.cat([said, history[step]], dim=-1)
                expected = F.log_softmax(self.infer(there), dim=-1)
                posterior.append(expected)
            said = self._said(expected.exp())
            state = self.transition.step(said, state)
        even = self.lean(torch.stack(states, dim=1)).sigmoid()
        even = (even + self.least_lean.sigmoid()) / 2
        return Mixtures(torch.stack(posterior, dim=1), torch.stack(prior, dim=1), even)


def divergence(posterior: Tensor, prior: Tensor) -> Tensor:
    """Return the mean over steps of the divergence of what is inferred from what was expected.

    The first step, before which there is nothing to expect it from, counts for nothing.

    Parameters
    ----------
    posterior : Tensor of shape (B, L, K)
        Logarithms of shares.
    prior : Tensor of shape (B, any, K)
        Of at least so many steps.
    """
    after, before = posterior[:, 1:], prior[:, 1 : posterior.shape[1]]
    total = (after.exp() * (after - before)).sum()
    return total / max(after.shape[0] * after.shape[1], 1)


def elapsed(observed: Tensor | None, like: Tensor) -> Tensor:
    """Return the steps since a value was observed, or since the window began: (B, L, C).

    Parameters
    ----------
    observed : bool Tensor of shape (B, L, C) or None
        None where all values were.
    like : Tensor of shape (B, L, C)
        Of the type that is wanted.
    """
    if observed is None:
        return torch.zeros_like(like)
    steps = torch.arange(1, like.shape[1] + 1, device=like.device)[:, None]
    last = torch.where(observed, steps, 0).cummax(dim=1).values
    return (steps - last).to(like.dtype)


def _filled(observed: Tensor | None, like: Tensor) -> Tensor:
    return torch.ones_like(like) if observed is None else observed.to(like.dtype)


@dataclass(kw_only=True, eq=False, repr=False)
class DGM2(NetworkForecaster):
    """DGM2: a recurrent mixture of a few patterns, for sparse series of several columns.

    For data of which much is missing. Nothing is filled in: the network reads what was observed,
    whether it was, and for how long it was not, and learns from observed values alone, those of the
    history included. The variates of a frame inform each other; the series of a long frame do not.

    Parameters
    ----------
    n_patterns : int, default 20
        Patterns that all variates have together, of which each step is a mixture.
    d_model : int, default 32
        Width of the recurrent states; 10 in the authors' code.
    dropout : float, default 0.0
        Of what the encoder says.
    kl_weight : float, default 0.1
        Of the divergence of mixtures from what was expected, beside the error; the authors let it
        grow with the epochs.

    References
    ----------
    Wu et al., "Dynamic Gaussian mixture based deep generative model for robust forecasting on
    sparse multivariate time series", AAAI 2021. Here steps lean to the mean mixture of their own
    window, in the authors' code to that of the batch; the horizon is trained as it is forecast;
    and the terms for patterns and interpolation are left out.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.DGM2(context_length=24, horizon=6, max_epochs=1, random_state=0)
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    n_patterns: Positive = 20
    d_model: Positive = 32
    dropout: Annotated[float, Interval(0, 1, open_high=True)] = 0.0
    kl_weight: Annotated[float, Interval(0)] = 0.1

    channel_independent: ClassVar[bool] = False
    takes_any_variates: ClassVar[bool] = False

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return DGM2Network(
            horizon=spec.horizon,
            n_variates=spec.n_variates,
            output=spec.output,
            n_patterns=self.n_patterns,
            d_model=self.d_model,
            dropout=self.dropout,
            kl_weight=self.kl_weight,
        )
