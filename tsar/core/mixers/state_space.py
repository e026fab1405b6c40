"""State spaces whose modes are the same for every token: with a gate, or a state per channel."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import RecurrentMixer
from tsar.core.ops.diagonal_recurrence import diagonal_convolution, diagonal_recurrence
from tsar.exceptions import ParameterError

__all__ = ["GatedStateSpace", "ModalState", "StructuredStateSpace"]

_SMALLEST_STEP, _LARGEST_STEP = 1e-3, 0.1


class ModalState(NamedTuple):
    """What a state space remembers of the tokens so far, of fixed size.

    Parameters
    ----------
    modes : complex Tensor of shape (B, channels, modes)
    """

    modes: Tensor


def _rates(log_decay: Tensor, frequency: Tensor) -> Tensor:
    """Return how modes fade and turn in a unit of time, in single precision at least."""
    dtype = torch.promote_types(log_decay.dtype, torch.float32)
    return torch.complex(-log_decay.to(dtype).exp(), frequency.to(dtype))


def _first_weights(n_channels: int, n_modes: int) -> nn.Parameter:
    # So that what comes out does not grow with the number of modes.
    return nn.Parameter(torch.randn(n_channels, n_modes, 2) / n_modes**0.5)


def _weights(weight: Tensor, rate: Tensor) -> Tensor:
    return torch.view_as_complex(weight.to(rate.real.dtype))


def _shown(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return tokens (B, L, D), those that are masked as zeros."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0.0)


class GatedStateSpace(RecurrentMixer):
    """A small state space beside a wide gate: ``W_o((W_y y) * gelu(W_v x))``.

    The state space runs over ``gelu(W_u x)``, a quarter as wide as the tokens, so that its Fourier
    transforms are few. All its channels share the modes ``exp(rate t)`` and weigh them by
    themselves.

    Parameters
    ----------
    d_model : int
    d_state : int, default 64
        Modes, each a complex number remembered per channel.
    expand : int, default 4
        Width of the gate per feature of a token.
    shrink : int, default 4
        Features of a token per channel of the state space.

    Raises
    ------
    ParameterError
        If one of them is less than 1.

    References
    ----------
    Mehta et al., "Long range language modeling via gated state spaces", ICLR 2023, section 3 and
    figure 1, with the modes of Gupta et al., "Diagonal state spaces are as effective as structured
    state spaces", NeurIPS 2022. There are 512 modes there.
    """

    formula = "W (W_y (K * gelu(W_u x)) gelu(W_v x)), K of fixed modes"
    cost = "L log L D / 4 + L D^2"

    no_decay = ("log_decay", "frequency")

    def __init__(
        self, d_model: int, *, d_state: int = 64, expand: int = 4, shrink: int = 4
    ) -> None:
        super().__init__()
        if min(d_state, expand, shrink) < 1:
            raise ParameterError(
                f"GatedStateSpace: d_state, expand and shrink must be at least 1, got {d_state}, "
                f"{expand} and {shrink}"
            )
        n_channels, self.n_gates = max(1, d_model // shrink), expand * d_model
        self.input = Linear(d_model, n_channels + self.n_gates)
        self.log_decay = nn.Parameter(torch.randn(1, d_state))
        self.frequency = nn.Parameter(torch.randn(1, d_state))
        self.weight = _first_weights(n_channels, d_state)
        self.widen = Linear(n_channels, self.n_gates)
        self.output = Linear(self.n_gates, d_model)

    def init_state(self, batch: int) -> ModalState:
        """Return the state before the first token: zeros."""
        rate = _rates(self.log_decay, self.frequency)
        return ModalState(rate.new_zeros(batch, *self.weight.shape[:2]))

    def scan(
        self, x: Tensor, mask: Tensor | None, state: ModalState | None
    ) -> tuple[Tensor, ModalState]:
        """See :meth:`RecurrentMixer.scan`; time goes by with a token that is masked."""
        value, gate = self._entering(x, mask)
        before = None if state is None else state.modes
        y, modes = diagonal_recurrence(value, *self._modes(), before)
        return self.output(self.widen(y) * gate), ModalState(modes)

    def without_state(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """See :meth:`RecurrentMixer.without_state`."""
        value, gate = self._entering(x, mask)
        y: Tensor = self.output(self.widen(diagonal_convolution(value, *self._modes())) * gate)
        return y

    def _entering(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what the state space reads, (B, L, E), and the gate."""
        value, gate = F.gelu(self.input(x)).split([self.weight.shape[0], self.n_gates], dim=-1)
        return _shown(value, mask), gate

    def _modes(self) -> tuple[Tensor, Tensor]:
        """Return how modes fade and turn during a token, and their weights."""
        rate = _rates(self.log_decay, self.frequency)
        # What a constant input leaves in a mode during a token.
        held = (rate.exp() - 1) / rate
        return rate, _weights(self.weight, rate) * held


class StructuredStateSpace(RecurrentMixer):
    """Modes of a state space in every channel, from slow to fast, and a gated map.

    Parameters
    ----------
    d_model : int
    d_state : int, default 64
        Numbers remembered per channel, in pairs that are a mode and its conjugate.

    Raises
    ------
    ParameterError
        If ``d_state`` is no positive even number.

    References
    ----------
    Gu et al., "Efficiently modeling long sequences with structured state spaces", ICLR 2022, in
    the diagonal form of Gu et al., "On the parameterization and initialization of diagonal state
    space models", NeurIPS 2022, section 4 (S4D-Lin, zero-order hold).
    """

    formula = "K_d * x_d, K_d of fixed modes per channel"
    cost = "L log L D + D N L"

    no_decay = ("log_decay", "frequency")

    def __init__(self, d_model: int, *, d_state: int = 64) -> None:
        super().__init__()
        if d_state < 2 or d_state % 2:
            raise ParameterError(
                f"StructuredStateSpace: d_state must be a positive even number, got {d_state}"
            )
        n_modes = d_state // 2
        low, high = math.log(_SMALLEST_STEP), math.log(_LARGEST_STEP)
        self.log_step = nn.Parameter(torch.empty(d_model).uniform_(low, high))
        self.log_decay = nn.Parameter(torch.full((d_model, n_modes), math.log(0.5)))
        turns = math.pi * torch.arange(n_modes, dtype=torch.get_default_dtype())
        self.frequency = nn.Parameter(turns.repeat(d_model, 1))
        self.weight = _first_weights(d_model, n_modes)
        self.skip = nn.Parameter(torch.ones(d_model))
        self.output = Linear(d_model, 2 * d_model)

    def init_state(self, batch: int) -> ModalState:
        """Return the state before the first token: zeros."""
        rate = _rates(self.log_decay, self.frequency)
        return ModalState(rate.new_zeros(batch, *rate.shape))

    def scan(
        self, x: Tensor, mask: Tensor | None, state: ModalState | None
    ) -> tuple[Tensor, ModalState]:
        """See :meth:`RecurrentMixer.scan`; time goes by with a token that is masked."""
        x = _shown(x, mask)
        before = None if state is None else state.modes
        y, modes = diagonal_recurrence(x, *self._modes(), before)
        return self._leaving(y, x), ModalState(modes)

    def without_state(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """See :meth:`RecurrentMixer.without_state`."""
        x = _shown(x, mask)
        return self._leaving(diagonal_convolution(x, *self._modes()), x)

    def _modes(self) -> tuple[Tensor, Tensor]:
        """Return how modes fade and turn during a token, and their weights."""
        rate = _rates(self.log_decay, self.frequency)
        per_token = rate * self.log_step.to(rate.real.dtype).exp()[:, None]
        # What a constant input leaves in a mode during a token; twice, for the conjugates.
        held = 2 * (per_token.exp() - 1) / rate
        return per_token, _weights(self.weight, rate) * held

    def _leaving(self, y: Tensor, x: Tensor) -> Tensor:
        """Return tokens (B, L, D) from what the modes and the tokens themselves say."""
        return F.glu(self.output(F.gelu(y + self.skip * x)), dim=-1)
