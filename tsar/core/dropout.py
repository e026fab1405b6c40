"""Dropout from random bytes, with a generator of its own."""

import torch
from torch import Tensor, nn

__all__ = ["Dropout", "keep_mask", "set_generator"]

# Below this, or this close to 1, a byte would round a probability too coarsely (or to nothing).
_FINEST_BYTE = 4 / 256


def keep_mask(
    shape: torch.Size, p: float, *, device: torch.device, generator: torch.Generator | None = None
) -> tuple[Tensor, float]:
    """Draw which entries stay, and the factor that keeps the expected value.

    One 64-bit draw serves eight entries (four where ``p`` is too near 0 or 1
    for a byte), so ``p`` is rounded to a multiple of 1/256 (1/65536); the
    factor is the inverse of the rounded probability and the expected value is
    exact.

    Parameters
    ----------
    shape : torch.Size
    p : float
        Probability of dropping an entry, in (0, 1).
    device : torch.device
    generator : torch.Generator, optional
        On the same device; the global one of that device by default.

    Returns
    -------
    mask : bool Tensor of the given shape
        True where an entry stays.
    factor : float
        What the kept entries are multiplied by.
    """
    coarse = _FINEST_BYTE <= p <= 1 - _FINEST_BYTE
    lane, n_bits = (torch.uint8, 8) if coarse else (torch.int16, 16)
    per_draw = 64 // n_bits
    n_levels = 2**n_bits
    n_kept = min(max(round((1 - p) * n_levels), 1), n_levels)
    n_entries = shape.numel()
    draws = torch.empty(-(-n_entries // per_draw), dtype=torch.int64, device=device)
    # The default range leaves the sign bit at 0 and one lane in eight would be biased.
    draws.random_(-(2**63), None, generator=generator)
    lanes = draws.view(lane)[:n_entries].view(shape)
    bound = n_kept if coarse else n_kept - n_levels // 2
    return lanes < bound, n_levels / n_kept


class Dropout(nn.Module):
    """Zero entries at random while training, and scale the others up.

    The mask is drawn as random bytes, several times faster on a CPU than one
    draw per entry; see :func:`keep_mask` for the rounding of ``p``.

    Parameters
    ----------
    p : float
        Probability of dropping an entry, in [0, 1).

    Attributes
    ----------
    generator : torch.Generator or None
        Where the masks come from; see :func:`set_generator`.

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15, 2014.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = float(p)
        self.generator: torch.Generator | None = None

    @property
    def active(self) -> bool:
        """Whether a forward pass would change its input now."""
        return self.training and self.p > 0.0

    def mask(self, shape: torch.Size, device: torch.device) -> tuple[Tensor, float]:
        """Draw a mask and its factor, for a caller that fuses dropout into its own pass."""
        return keep_mask(shape, self.p, device=device, generator=self.generator)

    def forward(self, x: Tensor) -> Tensor:
        """Drop entries of a tensor of any shape; the identity outside training."""
        if not self.active:
            return x
        mask, factor = self.mask(x.shape, x.device)
        return x * mask * factor

    def extra_repr(self) -> str:
        return f"p={self.p}"


def set_generator(module: nn.Module, generator: torch.Generator | None) -> None:
    """Let every :class:`Dropout` inside ``module`` draw from one generator.

    None gives them back the global generator of their device.
    """
    for part in module.modules():
        if isinstance(part, Dropout):
            part.generator = generator
