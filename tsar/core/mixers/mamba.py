"""Mamba: a recurrence whose step, input and output depend on the token."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import RecurrentMixer
from tsar.core.mixers.bidirectional import Bidirectional
from tsar.core.ops.causal_conv import causal_conv
from tsar.core.ops.even_products import linear
from tsar.core.ops.selective_scan import selective_scan

__all__ = ["BidirectionalMamba", "GatedConvolution", "Mamba", "MambaState"]

# Range from which the first step sizes are drawn, evenly in their logarithm.
_SMALLEST_STEP, _LARGEST_STEP = 1e-3, 1e-1
# Features of a token per number from which its step sizes are computed.
_FEATURES_PER_RANK = 16


class MambaState(NamedTuple):
    """What a token has to know of those before it.

    Parameters
    ----------
    inputs : Tensor of shape (B, d_conv - 1, E)
        The last inputs of the convolution.
    hidden : Tensor of shape (B, E, N)
        The state of the scan.
    """

    inputs: Tensor
    hidden: Tensor


class GatedConvolution(RecurrentMixer):
    """A Mamba without its scan: a short convolution beside a gate.

    A token is widened to a value and a gate; the value goes through a causal convolution of each
    channel and a SiLU, is multiplied with the SiLU of the gate, and is narrowed again. What a
    Mamba gains over it is what its scan is worth. Letters: E inner channels (``expand * d_model``).

    Parameters
    ----------
    d_model : int
    d_conv : int, default 4
        Taps of the convolution.
    expand : int, default 2
        Inner channels per feature of a token.

    References
    ----------
    Yu and Wang, "MambaOut: do we really need Mamba for vision?", CVPR 2025, section 3.
    """

    formula = "W (silu(sum_i w_i x_{t-i}) silu(W_z x_t))"
    cost = "L D^2"

    def __init__(self, d_model: int, *, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        self._build(d_model, d_conv, expand)

    def _build(self, d_model: int, d_conv: int, expand: int, **between: Any) -> None:
        """Make the weights, those of what is between convolution and output in their place."""
        width = expand * d_model
        self.input = Linear(d_model, 2 * width, bias=False)
        self.conv_weight = nn.Parameter(torch.empty(width, d_conv).uniform_(-1, 1) / d_conv**0.5)
        self.conv_bias = nn.Parameter(torch.empty(width).uniform_(-1, 1) / d_conv**0.5)
        self._build_between(d_model, width, **between)
        self.output = Linear(width, d_model, bias=False)

    def _build_between(self, d_model: int, width: int) -> None:
        """Make nothing."""

    def init_state(self, batch: int) -> MambaState:
        """Return the state before the first token: zeros."""
        width, d_conv = self.conv_weight.shape
        like = self.output.weight
        return MambaState(
            like.new_zeros(batch, d_conv - 1, width), like.new_zeros(batch, *self._hidden_shape)
        )

    @property
    def _hidden_shape(self) -> tuple[int, ...]:
        return (len(self.conv_weight), 0)

    def scan(
        self, x: Tensor, mask: Tensor | None, state: MambaState | None
    ) -> tuple[Tensor, MambaState]:
        """See :meth:`RecurrentMixer.scan`."""
        value, gate = self.input(x).chunk(2, dim=-1)  # (B, L, E) each
        if mask is not None:
            value = value.masked_fill(~mask[..., None], 0.0)
        before, hidden = (None, None) if state is None else state
        value, inputs = causal_conv(value, self.conv_weight, self.conv_bias, before=before)
        y, hidden = self._between(F.silu(value), gate, mask, hidden)
        # Not a view, which would keep all inputs of the piece.
        return self.output(y), MambaState(inputs.clone(), hidden)

    def _between(
        self, value: Tensor, gate: Tensor, mask: Tensor | None, hidden: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Gate values (B, L, E), and return what is remembered besides."""
        nothing = value.new_zeros(value.shape[0], *self._hidden_shape)
        return value * F.silu(gate), nothing


class Mamba(GatedConvolution):
    """A selective state space between a gate and a short convolution.

    A token is widened to a value and a gate; the value goes through a causal
    convolution of each channel, a SiLU and the selective scan, is multiplied
    with the SiLU of the gate, and is narrowed again. Letters: E inner channels
    (``expand * d_model``), N states per channel.

    A masked token is 0 for the convolution and leaves the state as it is.

    Parameters
    ----------
    d_model : int
    d_state : int, default 16
        States per channel.
    d_conv : int, default 4
        Taps of the convolution.
    expand : int, default 2
        Inner channels per feature of a token.
    backend : str, optional
        Forces a form of :func:`tsar.core.ops.selective_scan.selective_scan`.

    References
    ----------
    Gu and Dao, "Mamba: linear-time sequence modeling with selective state
    spaces", arXiv:2312.00752, sections 3.4 to 3.6; the first values are those
    of the authors' code.
    """

    formula = "c_t' h_t, h_t = exp(a dt_t) h_{t-1} + dt_t b_t x_t, per channel"
    cost = "L D N"

    # How fast a state forgets, and the way around it, are no weights of a map.
    no_decay = ("log_decay", "skip")

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        backend: str | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.backend = backend
        self._build(d_model, d_conv, expand, d_state=d_state)

    def _build_between(self, d_model: int, width: int, *, d_state: int) -> None:  # type: ignore[override]
        rank = math.ceil(d_model / _FEATURES_PER_RANK)
        self.sizes = [rank, d_state, d_state]
        self.select = Linear(width, sum(self.sizes), bias=False)
        self.step_size = Linear(rank, width)
        nn.init.uniform_(self.step_size.weight, -(rank**-0.5), rank**-0.5)
        low, high = math.log(_SMALLEST_STEP), math.log(_LARGEST_STEP)
        steps = torch.empty(width).uniform_(low, high).exp()
        with torch.no_grad():
            # The inverse of the softplus that makes steps of them.
            self.step_size.bias.copy_(steps + torch.log(-torch.expm1(-steps)))
        decays = torch.arange(1, d_state + 1, dtype=torch.get_default_dtype())
        self.log_decay = nn.Parameter(decays.log().repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))

    @property
    def _hidden_shape(self) -> tuple[int, ...]:
        return tuple(self.log_decay.shape)

    def _between(
        self, value: Tensor, gate: Tensor, mask: Tensor | None, hidden: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        step, b, c = self.select(value).split(self.sizes, dim=-1)
        y, hidden = selective_scan(
            value,
            linear(step, self.step_size.weight),
            -self.log_decay.exp(),
            b,
            c,
            d=self.skip,
            z=gate,
            delta_bias=self.step_size.bias,
            delta_softplus=True,
            mask=mask,
            initial_state=hidden,
            backend=self.backend if hidden is None else self._backend_from_a_state(value.shape[1]),
        )
        return y, hidden

    def _backend_from_a_state(self, n_tokens: int) -> str | None:
        """For a single token the plain form is the fastest; mamba-ssm's kernel begins anew."""
        if n_tokens < 2:
            return "reference"
        return None if self.backend == "mamba_ssm" else self.backend


class BidirectionalMamba(Bidirectional):
    """The sum of a Mamba in the order of the tokens and of another one against it.

    Parameters
    ----------
    d_model : int
    d_state, d_conv, expand : int, default 16, 4 and 2
    backend : str, optional
        As in :class:`Mamba`.

    References
    ----------
    Wang et al., "Is Mamba effective for time series forecasting?",
    arXiv:2403.11144, section 3.3.
    """

    formula = "Mamba from both ends, added"
    cost = "2 L D N"

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        backend: str | None = None,
    ) -> None:
        ahead, back = (
            Mamba(d_model, d_state=d_state, d_conv=d_conv, expand=expand, backend=backend)
            for _ in range(2)
        )
        super().__init__(ahead, back)
