"""Convolutions along time."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsar.core.linear import Linear
from tsar.core.ops.even_products import convolution, linear

__all__ = [
    "CausalConvolutions",
    "CircularConvolution",
    "DilatedBlock",
    "DilatedConvolution",
    "DilatedEncoder",
]


class CircularConvolution(nn.Module):
    """A convolution over each step and its neighbours; first and last are neighbours, too.

    Without a bias. It is computed as a linear map of tokens, before or after they are laid
    beside their neighbours, whichever is narrower.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Features of a step before and after.

    Attributes
    ----------
    weight : nn.Parameter of shape (n_outputs, n_inputs, 3)
        For the step before, the step itself and the step after, as in ``nn.Conv1d``.

    References
    ----------
    The token embedding of Zhou et al., "Informer", AAAI 2021, and the trend of Wu et al.,
    "Autoformer", NeurIPS 2021.
    """

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_outputs, n_inputs, 3))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as convolutions of torch start

    def forward(self, x: Tensor) -> Tensor:
        """Map steps (B, L, n_inputs) to (B, L, n_outputs)."""
        n_outputs, n_inputs, _ = self.weight.shape
        if n_inputs <= n_outputs:
            beside = torch.cat([x.roll(1, dims=1), x, x.roll(-1, dims=1)], dim=2)
            return linear(beside, self.weight.transpose(1, 2).flatten(1))
        weight = self.weight.permute(2, 0, 1).flatten(0, 1)  # (3 * n_outputs, n_inputs)
        before, here, after = linear(x, weight).chunk(3, dim=2)
        return before.roll(1, dims=1) + here + after.roll(-1, dims=1)


class DilatedConvolution(nn.Module):
    """A convolution over each step and those at a distance on either side; 0 beyond the ends.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Features of a step before and after.
    dilation : int, default 1
        How far the other two steps are.

    Attributes
    ----------
    weight : nn.Parameter of shape (n_outputs, n_inputs, 3)
        For the earlier step, the step itself and the later one, as in ``nn.Conv1d``.
    bias : nn.Parameter of shape (n_outputs,)
    """

    def __init__(self, n_inputs: int, n_outputs: int, dilation: int = 1) -> None:
        super().__init__()
        self.dilation = dilation
        bound = (3 * n_inputs) ** -0.5  # as convolutions of torch start
        self.weight = nn.Parameter(torch.empty(n_outputs, n_inputs, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map steps (B, L, n_inputs) to (B, L, n_outputs)."""
        return convolution(x, self.weight, self.bias, self.dilation)


class DilatedBlock(nn.Module):
    """Two dilated convolutions, each of what GELU makes of its input, and a way around them.

    Parameters
    ----------
    n_inputs, n_outputs : int
    dilation : int
    mapped : bool, default False
        Whether the way around is a linear map in any case; it is one where widths differ.
    """

    def __init__(
        self, n_inputs: int, n_outputs: int, dilation: int, *, mapped: bool = False
    ) -> None:
        super().__init__()
        self.first = DilatedConvolution(n_inputs, n_outputs, dilation)
        self.second = DilatedConvolution(n_outputs, n_outputs, dilation)
        around = mapped or n_inputs != n_outputs
        self.around = Linear(n_inputs, n_outputs) if around else None

    def forward(self, x: Tensor) -> Tensor:
        """Map steps (B, L, n_inputs) to (B, L, n_outputs)."""
        mixed: Tensor = self.second(F.gelu(self.first(F.gelu(x))))
        return mixed + (x if self.around is None else self.around(x))


class DilatedEncoder(nn.Module):
    """Blocks of dilated convolutions that reach twice as far each time.

    Block i reads steps at a distance of 2^i, so that a step sees ``2^(n + 1) - 2`` steps on either
    side after n blocks.

    Parameters
    ----------
    n_inputs : int
        Features of a step.
    widths : sequence of int
        Features after each block. The way around the last one is a linear map.

    References
    ----------
    Yue et al., "TS2Vec: towards universal representation of time series", AAAI 2022, the encoder
    of the authors' code.
    """

    def __init__(self, n_inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        last = len(widths) - 1
        self.blocks = nn.Sequential(
            *(
                DilatedBlock(before, after, 2**place, mapped=place == last)
                for place, (before, after) in enumerate(pairwise([n_inputs, *widths]))
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode steps (B, L, n_inputs) as (B, L, widths[-1])."""
        encoded: Tensor = self.blocks(x)
        return encoded


class CausalConvolutions(nn.Module):
    """The mean of convolutions over a step and 0, 1, 3, 7, ... steps before it.

    As there is nothing between them but a sum, they are computed as one.

    Parameters
    ----------
    n_features : int
        Of a step, before and after.
    longest : int
        Kernels are as long as the powers of two up to this.

    Attributes
    ----------
    weights : nn.ParameterList
        By convolution, of shape (n_features, n_features, K), the step itself coming last.
    """

    def __init__(self, n_features: int, longest: int) -> None:
        super().__init__()
        lengths = [2**power for power in range(longest.bit_length())]
        bounds = [(length * n_features) ** -0.5 for length in lengths]  # as torch starts
        shape = (n_features, n_features)
        self.weights = nn.ParameterList(
            torch.empty(*shape, length).uniform_(-bound, bound)
            for length, bound in zip(lengths, bounds, strict=True)
        )
        self.biases = nn.ParameterList(
            torch.empty(n_features).uniform_(-bound, bound) for bound in bounds
        )

    def _mean(self) -> tuple[Tensor, Tensor]:
        """Return the kernel (N, N, K) and the bias (N,) of the mean."""
        longest = self.weights[-1].shape[2]
        weights = [F.pad(weight, (longest - weight.shape[2], 0)) for weight in self.weights]
        return torch.stack(weights).mean(dim=0), torch.stack(list(self.biases)).mean(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """Map all steps (B, L, N) to (B, L, N), through the frequency domain."""
        weight, bias = self._mean()
        length = x.shape[1]
        n_steps = length + weight.shape[2] - 1
        kernel = torch.fft.rfft(weight.flip(2), n=n_steps).permute(2, 1, 0)
        # There is no transform in half precision.
        steps = torch.fft.rfft(x.to(weight.dtype), n=n_steps, dim=1).transpose(
            0, 1
        )  # (frequencies, B, N)
        convolved = torch.fft.irfft((steps @ kernel).transpose(0, 1), n=n_steps, dim=1)
        return convolved[:, :length] + bias

    def last(self, x: Tensor) -> Tensor:
        """Map the last step of (B, L, N) to (B, N)."""
        weight, bias = self._mean()
        length = min(x.shape[1], weight.shape[2])
        kernel = weight[..., weight.shape[2] - length :].mT.flatten(1)  # (N, length * N)
        return linear(x[:, x.shape[1] - length :].flatten(1), kernel, bias)
