"""Convolutions whose kernels are weighted means: the same everywhere, or made by each token."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.mixers.base import Mixer, check_token_mask, refuse_memory
from tsar.core.mixers.heads import head_width
from tsar.exceptions import ParameterError

__all__ = ["ConvolutionState", "DynamicConvolution", "LightConvolution"]


class ConvolutionState(NamedTuple):
    """The latest tokens that a convolution still sees.

    Parameters
    ----------
    inputs : Tensor of shape (B, kernel_size - 1, D)
    """

    inputs: Tensor


class DynamicConvolution(Mixer):
    """A mean over neighbouring tokens with weights that the token itself says, one set per head.

    Tokens pass a gated map, the mean, and another map. The weights are a softmax, over distances
    and not over what is there: it costs the same however long the sequence is.

    Parameters
    ----------
    d_model : int
    n_heads : int
        Channels of a head share their weights; divides ``d_model``.
    kernel_size : int, default 15
        Tokens that are averaged; as many before as after, or only those up to the token itself.
    causal : bool, default False

    Raises
    ------
    ParameterError
        If the heads do not divide the width, or the kernel has no size, or an even one with tokens
        on both sides.

    References
    ----------
    Wu et al., "Pay less attention with lightweight and dynamic convolutions", ICLR 2019,
    sections 3 and 4.
    """

    formula = "sum_i softmax(W x_t)_i v_{t+i}"
    cost = "L K D"

    def __init__(
        self, d_model: int, n_heads: int, *, kernel_size: int = 15, causal: bool = False
    ) -> None:
        super().__init__()
        name = type(self).__name__
        head_width(name, d_model, n_heads)
        if kernel_size < 1 or (not causal and kernel_size % 2 == 0):
            raise ParameterError(
                f"{name}: kernel_size must be a positive number, and odd unless causal=True, got "
                f"{kernel_size}"
            )
        self.n_heads = n_heads
        self.kernel_size = kernel_size
        self.causal = causal
        self.input = Linear(d_model, 2 * d_model)
        self.kernel = self._make_kernel(d_model)
        self.output = Linear(d_model, d_model)

    def _make_kernel(self, d_model: int) -> nn.Module:
        """Return what makes the scores of the weights (..., N * K) of tokens."""
        return Linear(d_model, self.n_heads * self.kernel_size, bias=False)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Mix tokens (B, L, D); ``mask`` of shape (B, L).

        Raises
        ------
        ParameterError
            If a mask says something of pairs of tokens, or there is a memory.
        """
        refuse_memory(self, memory)
        check_token_mask(self, mask, x)
        n_after = 0 if self.causal else self.kernel_size // 2
        value = F.glu(self.input(x), dim=-1)
        shown = value if mask is None else value.masked_fill(~mask[..., None], 0.0)
        padded = F.pad(shown, (0, 0, self.kernel_size - 1 - n_after, n_after))
        return self._averaged(value, padded)

    def init_state(self, batch: int) -> ConvolutionState:
        """Return the state before the first token: zeros."""
        if not self.causal:
            raise NotImplementedError(
                f"{type(self).__name__} does not work piece by piece; it does only if causal=True"
            )
        weight = self.output.weight
        return ConvolutionState(weight.new_zeros(batch, self.kernel_size - 1, len(weight)))

    def extend(self, x: Tensor, state: ConvolutionState) -> tuple[Tensor, ConvolutionState]:
        """Mix more tokens (B, T, D)."""
        value = F.glu(self.input(x), dim=-1)
        padded = torch.cat([state.inputs.to(value.dtype), value], dim=1)
        # Not a view, which would keep all inputs of the piece.
        after = ConvolutionState(padded[:, x.shape[1] :].clone())
        return self._averaged(value, padded), after

    def _averaged(self, value: Tensor, padded: Tensor) -> Tensor:
        """Average tokens (B, L + K - 1, D) around each of (B, L, D)."""
        weights = self.kernel(value).unflatten(-1, (self.n_heads, -1)).softmax(dim=-1)[..., None]
        by_head = padded.unflatten(2, (self.n_heads, -1))
        mixed = torch.zeros_like(value).unflatten(2, (self.n_heads, -1))
        for tap in range(self.kernel_size):
            mixed = mixed + weights[..., tap, :] * by_head[:, tap : tap + value.shape[1]]
        return self.output(mixed.flatten(2))


class LightConvolution(DynamicConvolution):
    """A mean over neighbouring tokens with the same weights everywhere, one set per head.

    Parameters
    ----------
    d_model, n_heads, kernel_size, causal
        See :class:`DynamicConvolution`.

    References
    ----------
    Wu et al., "Pay less attention with lightweight and dynamic convolutions", ICLR 2019, section 3.
    """

    formula = "sum_i softmax(w)_i v_{t+i}"
    cost = "L K D"

    def _make_kernel(self, d_model: int) -> nn.Module:
        return _Constant(self.n_heads * self.kernel_size)


class _Constant(nn.Module):
    """The same trained numbers, whatever the token is."""

    def __init__(self, n_numbers: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(0.02 * torch.randn(n_numbers))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias
