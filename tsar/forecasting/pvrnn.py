"""PV-RNN: a recurrent generator whose latent states are regressed to what was observed.

Dimension letters: B windows, L context steps, H horizon, T steps, C variates, D units, Z latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from tsar.core.descent import descended
from tsar.core.heads.denoiser import noise_like
from tsar.core.linear import Linear
from tsar.core.random import Random
from tsar.data.windows import Batch, Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.network import NetworkForecaster, NetworkSpec
from tsar.forecasting.outputs.objective import Compared, ForecastNetwork
from tsar.forecasting.outputs.output import Output
from tsar.params.constraints import Interval

__all__ = ["PVRNN", "PVRNNNetwork"]

Positive = Annotated[int, Interval(1)]
# Windows are regressed in multiples of so many: products round the rows of whole tiles alike.
WINDOWS_AT_ONCE = 16


class Gaussians(NamedTuple):
    """Normal densities of the latents of some steps.

    Parameters
    ----------
    mean, log_deviation : Tensor of shape (B, T, Z)
    """

    mean: Tensor
    log_deviation: Tensor


class PVRNNNetwork(ForecastNetwork, Random):
    """A recurrence that generates windows out of latents, and expects its own next latents.

    Units take up at their own pace what their fellows and the latents of a step say,

    ``h_t = (1 - 1 / tau) h_{t-1} + (W tanh(h_{t-1}) + V z_t + b) / tau``,

    and a linear map of ``tanh(h_t)`` is the step. The prior of ``z_t`` is a map of
    ``tanh(h_{t-1})``, that of the first step is N(0, 1). The posterior of the context has two free
    numbers for each step and latent, which go down the gradient of the free energy of their window:
    its squared error, and ``kl_weight`` times the divergence from the prior. Over the horizon
    latents are those of the prior. Windows are normalised by what was observed (RevIN).

    Parameters
    ----------
    horizon, n_variates : int
    output : Output
        See :mod:`tsar.forecasting.outputs.output`.
    d_model, n_latents : int, default 32 and 4
        D and Z.
    time_constants : sequence of float, default (2.0, 8.0)
        ``tau``, each for as many of the units.
    kl_weight : float, default 0.005
    n_iterations : int, default 20
        Steps of Adam that regress the latents of a window.
    regression_rate : float, default 0.09
        Its learning rate.

    References
    ----------
    Ahmadi and Tani, "A novel predictive-coding-inspired variational RNN model for online prediction
    and recognition", Neural Computation 31, 2019.
    """

    pace: Tensor

    def __init__(
        self,
        *,
        horizon: int,
        n_variates: int,
        output: Output,
        d_model: int = 32,
        n_latents: int = 4,
        time_constants: Sequence[float] = (2.0, 8.0),
        kl_weight: float = 0.005,
        n_iterations: int = 20,
        regression_rate: float = 0.09,
    ) -> None:
        super().__init__()
        self.horizon, self.n_variates, self.kl_weight = horizon, n_variates, kl_weight
        self.n_iterations, self.regression_rate = n_iterations, regression_rate
        self.revin = RevIN()
        number = torch.arange(d_model) * len(time_constants) // d_model
        paces = 1 / torch.tensor(time_constants, dtype=torch.get_default_dtype())
        self.register_buffer("pace", paces[number], persistent=False)
        self.recurrence = Linear(d_model, d_model)
        self.enter = Linear(n_latents, d_model, bias=False)
        self.prior = Linear(d_model, 2 * n_latents)
        self.head = Linear(d_model, n_variates * output.n_outputs)
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
        # What follows gradients takes no tensors that were made without.
        with torch.inference_mode(False), torch.no_grad():
            observed = None if inputs.observed is None else inputs.observed.clone()
            x, location, scale = self.revin(inputs.target.clone(), observed)
            # The last window once more, and again.
            filled = torch.arange(len(x) + -len(x) % WINDOWS_AT_ONCE).clamp(max=len(x) - 1)
            filled = filled.to(x.device)
            posterior = self.regressed(x[filled], None if observed is None else observed[filled])
            states = self.run(self.drawn(posterior))
            raw = self._raw(self.go_on(states[:, -1]))[: len(x)]
            return self.output(raw, location, scale)

    def compare(self, batch: Batch) -> Compared:
        """Compare the horizon, and the context with what the regressed latents make of it.

        The weighted divergence of these latents from the prior is the term ``divergence``.
        """
        inputs = batch.inputs
        x, location, scale = self.revin(inputs.target, inputs.observed)
        posterior = self.regressed(x, inputs.observed)
        states = self.run(self.drawn(posterior))
        diverged = divergence(posterior, self.expected(states)).mean()
        terms = {"divergence": (self.kl_weight * diverged, torch.ones_like(diverged))}
        whole = torch.cat([states, self.go_on(states[:, -1])], dim=1)
        target, observed, shift = batch.whole()
        forecast = self.output(self._raw(whole), location, scale)
        return Compared(forecast, target, observed, batch.scale, shift, terms)

    # ------------------------------------------------------------ the generator

    def run(self, latents: Tensor) -> Tensor:
        """Return the states (B, T, D) that latents (B, T, Z) lead to, from 0."""
        entering = self.enter(latents)
        state = entering.new_zeros(len(entering), entering.shape[2])
        states = []
        for step in entering.unbind(dim=1):
            state = self._after(state, step)
            states.append(state)
        return torch.stack(states, dim=1)

    def go_on(self, state: Tensor) -> Tensor:
        """Return the states (B, H, D) after one, (B, D), by latents of the prior."""
        states = []
        for _ in range(self.horizon):
            expected = self._prior(state[:, None])
            state = self._after(state, self.enter(self.drawn(expected))[:, 0])
            states.append(state)
        return torch.stack(states, dim=1)

    def _after(self, state: Tensor, entering: Tensor) -> Tensor:
        return state + self.pace * (self.recurrence(state.tanh()) + entering - state)

    def _raw(self, states: Tensor) -> Tensor:
        """Return raw outputs (B, T, C, n_outputs) of states."""
        raw: Tensor = self.head(states.tanh()).unflatten(2, (self.n_variates, -1))
        return raw

    def _prior(self, states: Tensor) -> Gaussians:
        """Return what latents are expected after each of the states."""
        mean, log_deviation = self.prior(states.tanh()).chunk(2, dim=-1)
        return Gaussians(mean.tanh(), log_deviation)

    def expected(self, states: Tensor) -> Gaussians:
        """Return the prior of the latents that led to states (B, T, D): the first is N(0, 1)."""
        later = self._prior(states[:, :-1])
        return Gaussians(*(nn.functional.pad(part, (0, 0, 1, 0)) for part in later))

    def drawn(self, gaussians: Gaussians) -> Tensor:
        """Draw latents in training; in forecasts they are the means, which repeat."""
        if not self.training:
            return gaussians.mean
        noise = noise_like(gaussians.mean, self.generator)
        return gaussians.mean + gaussians.log_deviation.exp() * noise

    # ----------------------------------------------------------- the regression

    def free_energy(self, free: Tensor, x: Tensor, observed: Tensor | None) -> Tensor:
        """Return the free energy (B,) of normalised windows, a mean over steps.

        Parameters
        ----------
        free : Tensor of shape (B, L, 2 Z)
            The free numbers of the posterior.
        x : Tensor of shape (B, L, C)
        observed : bool Tensor of shape (B, L, C) or None
        """
        posterior = _posterior(free)
        states = self.run(self.drawn(posterior))
        errors = (self.output.point(self.output(self._raw(states), 0.0, 1.0)) - x).square()
        if observed is not None:
            errors = errors * observed
        diverged = divergence(posterior, self.expected(states))
        return errors.mean(dim=(1, 2)) + self.kl_weight * diverged.mean(dim=(1, 2))

    def regressed(self, x: Tensor, observed: Tensor | None) -> Gaussians:
        """Return the posterior of normalised windows (B, L, C), without gradients.

        It begins with N(0, 1); windows do not depend on each other.
        """
        shape = (*x.shape[:2], 2 * self.enter.in_features)
        free = descended(
            lambda free: self.free_energy(free, x, observed).sum(),
            x.new_zeros(shape),
            rate=self.regression_rate,
            n_steps=self.n_iterations,
        )
        return _posterior(free)


def divergence(posterior: Gaussians, prior: Gaussians) -> Tensor:
    """Return the divergence of normal densities from others, (B, T, Z)."""
    wide, expected = posterior.log_deviation, prior.log_deviation
    squares = (2 * wide).exp() + (posterior.mean - prior.mean).square()
    return expected - wide + squares / (2 * (2 * expected).exp()) - 0.5


def _posterior(free: Tensor) -> Gaussians:
    mean, log_deviation = free.chunk(2, dim=-1)
    return Gaussians(mean.tanh(), log_deviation)


@dataclass(kw_only=True, eq=False, repr=False)
class PVRNN(NetworkForecaster):
    """PV-RNN: a recurrent generator that is regressed to the history before it goes on.

    Nothing reads the history: latent states of the generator are moved, by gradients, until what it
    generates is what was observed, with as little surprise as that takes. So a forecast takes
    ``n_iterations`` passes forth and back, and so does each step of training. Nothing has been
    published of data that are found here, and nothing is claimed of its errors. The variates of a
    frame are generated together.

    Parameters
    ----------
    d_model : int, default 32
        Units of the recurrence.
    n_latents : int, default 4
        Random latent states of a step.
    time_constants : sequence of float, default (2.0, 8.0)
        How slow units are, each number for as many of them; 1 is a plain recurrence.
    kl_weight : float, default 0.005
        Weight of the surprise beside the squared error: the larger, the less is explained by
        latent states that were not expected.
    n_iterations : int, default 20
        Steps that the latent states of a window are moved by. The authors of the method take 50
        in forecasts, and regress the latent states of a training series all along its training.
    regression_rate : float, default 0.09
        Learning rate of these steps.

    References
    ----------
    Ahmadi and Tani, "A novel predictive-coding-inspired variational RNN model for online prediction
    and recognition", Neural Computation 31, 2019.

    Examples
    --------
    >>> import tsar
    >>> sea = tsar.load_dataset("elnino")
    >>> model = tsar.PVRNN(
    ...     context_length=12, horizon=6, d_model=8, n_iterations=3, max_steps=2, random_state=0
    ... )
    >>> model.fit(sea).predict(horizon=3).shape
    (3, 1)
    """

    d_model: Positive = 32
    n_latents: Positive = 4
    time_constants: Sequence[Annotated[float, Interval(1)]] = (2.0, 8.0)
    kl_weight: Annotated[float, Interval(0)] = 0.005
    n_iterations: Positive = 20
    regression_rate: Annotated[float, Interval(0, open_low=True)] = 0.09

    channel_independent: ClassVar[bool] = False
    takes_any_variates: ClassVar[bool] = False
    _in_one_pass: ClassVar[bool] = False

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if not 1 <= len(self.time_constants) <= self.d_model:
            raise ParameterError(
                f"PVRNN: time_constants must be from 1 to d_model={self.d_model} numbers, got "
                f"{len(self.time_constants)}; name fewer, or raise d_model"
            )
        if self.compile:
            raise ParameterError(
                "PVRNN: compile must be False, as every step of its training goes down gradients "
                "of its own, got True; leave it out"
            )

    @property
    def lets_gradients_through(self) -> bool:
        # A forecast is the end of a descent, which leaves no graph behind.
        return False

    def _build_network(self, spec: NetworkSpec) -> nn.Module:
        return PVRNNNetwork(
            horizon=spec.horizon,
            n_variates=spec.n_variates,
            output=spec.output,
            d_model=self.d_model,
            n_latents=self.n_latents,
            time_constants=self.time_constants,
            kl_weight=self.kl_weight,
            n_iterations=self.n_iterations,
            regression_rate=self.regression_rate,
        )
