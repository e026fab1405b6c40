"""Dropout from random bytes, with a generator of its own."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tsar.core.random import Random, set_generator
from tsar.core.tracing import is_traced

__all__ = ["Dropout", "KeepMask", "draw_mask", "set_generator"]

# Nearer to 0 or 1 than this, a byte would round a probability too coarsely.
_FINEST_BYTE = 4 / 256


@dataclass(frozen=True)
class KeepMask:
    """Which entries of a tensor stay, as small random integers still to be compared.

    Attributes
    ----------
    lanes : Tensor
        Random integers, one per entry, of one or two bytes.
    bound : int
        An entry stays if its integer is below this.
    factor : float
        Inverse of the probability of staying.
    """

    lanes: Tensor
    bound: int
    factor: float

    def ones(self, out: Tensor, part: slice | None = None) -> Tensor:
        """Write 1 for entries that stay and 0 for the others into ``out``, and return it.

        ``part`` takes a stretch of the first axis only.
        """
        lanes = self.lanes if part is None else self.lanes[part]
        if is_traced():
            return (lanes < self.bound).to(out.dtype)
        # Compared straight into floats: a boolean step costs more than the comparison.
        return torch.lt(lanes, self.bound, out=out)


def draw_mask(
    shape: torch.Size, p: float, *, device: torch.device, generator: torch.Generator | None = None
) -> KeepMask:
    """Draw which entries stay.

    One 64-bit draw serves eight entries (four where ``p`` is too near 0 or 1
    for a byte), so ``p`` is rounded to a multiple of 1/256 (1/65536); the
    factor belongs to the rounded probability and the expected value is exact.

    Parameters
    ----------
    shape : torch.Size
    p : float
        Probability of dropping an entry, in (0, 1).
    device : torch.device
    generator : torch.Generator, optional
        On the same device; the global one of that device by default.
    """
    in_bytes = _FINEST_BYTE <= p <= 1 - _FINEST_BYTE
    dtype, n_bits = (torch.uint8, 8) if in_bytes else (torch.int16, 16)
    n_levels = 2**n_bits
    n_kept = min(max(round((1 - p) * n_levels), 1), n_levels)
    lowest = 0 if in_bytes else -n_levels // 2
    bound, factor = lowest + n_kept, n_levels / n_kept
    if is_traced():
        # What is written down draws where it will run, from the global generator of that device.
        drawn = torch.randint(lowest, lowest + n_levels, shape, dtype=dtype, device=device)
        return KeepMask(drawn, bound, factor)
    n_entries, per_draw = shape.numel(), 64 // n_bits
    draws = torch.empty(-(-n_entries // per_draw), dtype=torch.int64, device=device)
    # The default range leaves the sign bit at 0, which would bias one lane in every draw.
    draws.random_(-(2**63), None, generator=generator)
    lanes = draws.view(dtype)[:n_entries].view(shape)
    return KeepMask(lanes, bound, factor)


class _Drop(torch.autograd.Function):
    """``x * mask * factor``, remembering a byte per entry for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lanes: Tensor, bound: int, factor: float) -> Tensor:
        ctx.save_for_backward(lanes)
        ctx.bound, ctx.factor = bound, factor
        factors = KeepMask(lanes, bound, factor).ones(torch.empty_like(x))
        return torch.addcmul(x.new_zeros(()), factors, x, value=factor, out=factors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (lanes,) = ctx.saved_tensors
        return _Drop.apply(grad, lanes, ctx.bound, ctx.factor), None, None, None


class _DropAndAdd(torch.autograd.Function):
    """``base + x * mask * factor`` in one pass."""

    @staticmethod
    def forward(
        ctx: Any, base: Tensor, x: Tensor, lanes: Tensor, bound: int, factor: float
    ) -> Tensor:
        ctx.save_for_backward(lanes)
        ctx.bound, ctx.factor = bound, factor
        factors = KeepMask(lanes, bound, factor).ones(torch.empty_like(x))
        return torch.addcmul(base, factors, x, value=factor, out=factors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (lanes,) = ctx.saved_tensors
        return grad, _Drop.apply(grad, lanes, ctx.bound, ctx.factor), None, None, None


class Dropout(Random):
    """Zero entries at random while training, and scale the others up.

    The mask is drawn as random bytes, several times faster on a CPU than one
    draw per entry; see :func:`draw_mask` for the rounding of ``p``.

    Parameters
    ----------
    p : float
        Probability of dropping an entry, in [0, 1).

    Attributes
    ----------
    generator : torch.Generator or None
        Where the masks come from; see :func:`~tsar.core.random.set_generator`.

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15, 2014.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = float(p)

    @property
    def active(self) -> bool:
        """Whether a forward pass would change its input now."""
        return self.training and self.p > 0.0

    def draw(self, shape: torch.Size, device: torch.device) -> KeepMask:
        """Draw a mask, for a caller that fuses dropout into its own pass."""
        return draw_mask(shape, self.p, device=device, generator=self.generator)

    def forward(self, x: Tensor) -> Tensor:
        """Drop entries of a tensor of any shape; the identity outside training."""
        if not self.active:
            return x
        mask = self.draw(x.shape, x.device)
        if is_traced():
            return x * mask.ones(x) * mask.factor
        return _Drop.apply(x, mask.lanes, mask.bound, mask.factor)

    def add(self, base: Tensor, x: Tensor) -> Tensor:
        """Compute ``base + self(x)``, of one shape, in fewer passes over memory."""
        if not self.active or base.dtype != x.dtype or is_traced():
            return base + self(x)
        mask = self.draw(x.shape, x.device)
        return _DropAndAdd.apply(base, x, mask.lanes, mask.bound, mask.factor)

    def extra_repr(self) -> str:
        return f"p={self.p}"
