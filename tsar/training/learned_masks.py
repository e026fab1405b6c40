"""What a function reads of a window: a mask that is learned, entry by entry.

Dimension letters: B windows, L steps, C features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tsar.core.linear import Linear
from tsar.core.recurrent import GRU
from tsar.exceptions import DataError, ParameterError
from tsar.params.constraints import Interval, check_fields
from tsar.training.optim import Adam
from tsar.training.seeding import seeded

__all__ = ["LearnedMask", "Masked"]

Weight = Annotated[float, Interval(0)]


class Masked(NamedTuple):
    """Windows whose entries are hidden in part.

    Parameters
    ----------
    mask : Tensor of shape (B, L, C)
        In [0, 1]: 1 is an entry that has to stay, 0 one that can be replaced. Entries that were
        left out have 0.
    windows : Tensor of shape (B, L, C)
        What the function was shown at the end.
    """

    mask: Tensor
    windows: Tensor


class ReplacementNetwork(nn.Module):
    """Say what stands in for each entry, from the whole window.

    Parameters
    ----------
    n_features : int
        C.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.forwards, self.backwards = (GRU(n_features, n_features) for _ in range(2))
        self.output = Linear(2 * n_features, n_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, C) to the same shape."""
        before, _ = self.forwards(x)
        after, _ = self.backwards(x.flip(1))
        replacement: Tensor = self.output(torch.cat([before, after.flip(1)], dim=-1))
        return replacement


class _Perturbation(nn.Module):
    """Masks of a batch of windows, one for each, and what stands in for the masked entries."""

    def __init__(self, x: Tensor, generated: bool) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.full_like(x, 0.5))
        self.network = ReplacementNetwork(x.shape[-1]).to(x) if generated else None

    def forward(self, x: Tensor, baseline: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """Return the perturbed windows, and what was added to the baseline, (B, L, C) each."""
        added = torch.zeros_like(x) if self.network is None else self.network(x)
        mask = torch.where(where, self.mask, 1.0)
        return mask * x + (1 - mask) * (baseline + added), added

    def penalty(self, where: Tensor) -> Tensor:
        """Return the mean of the mask over the entries of each window, then over the windows."""
        share = (self.mask.abs() * where).sum(dim=(1, 2)) / where.sum(dim=(1, 2)).clamp(min=1)
        return share.mean()


@dataclass(frozen=True, kw_only=True)
class LearnedMask:
    """Learn which entries of a window a function needs, by gradients through it.

    Each window has a mask of its own, as large as the window. What the mask hides is replaced,
    and mask and replacement are learned so that the function says the same as of the whole
    window, while as little as possible is shown. The function itself stays as it is.

    Parameters
    ----------
    mask_weight : float, default 1.0
        The price of showing everything, beside the squared error. With 0 nothing need be hidden;
        the larger, the less is shown.
    replacement : {"fixed", "generated"}, default "fixed"
        Whether a masked entry becomes the baseline, or the baseline plus what a recurrent network
        makes of the whole window.
    replacement_weight : float, default 1.0
        The price of what that network adds, per unit.
    learning_rate : float, default 0.01
        Of Adam.
    n_steps : int, default 500
        Steps of Adam.
    random_state : int, default 0
        The seed of the first weights of the network; a fixed replacement draws nothing.

    References
    ----------
    Enguehard, "Learning perturbations to explain time series predictions", ICML 2023. Of the two
    objectives there it is the one that preserves the output.

    Examples
    --------
    >>> import torch
    >>> from tsar.training import LearnedMask
    >>> x = torch.randn(4, 10, 3, generator=torch.Generator().manual_seed(0))
    >>> mask, _ = LearnedMask(n_steps=100).learn(lambda x: 9 * x[:, -1, 0], x)
    >>> mask[:, -1, 0].min() > 0.8, mask.sum(dim=(1, 2)).max() < 1.1
    (tensor(True), tensor(True))
    """

    mask_weight: Weight = 1.0
    replacement: Literal["fixed", "generated"] = "fixed"
    replacement_weight: Weight = 1.0
    learning_rate: Annotated[float, Interval(0, open_low=True)] = 0.01
    n_steps: Annotated[int, Interval(1)] = 500
    random_state: Annotated[int, Interval(0)] = 0

    def __post_init__(self) -> None:
        check_fields(self)

    # The caller may have turned gradients off.
    @torch.inference_mode(False)
    @torch.enable_grad()
    def learn(
        self,
        function: Callable[[Tensor], Tensor],
        x: Tensor,
        *,
        baseline: Tensor | float = 0.0,
        where: Tensor | None = None,
    ) -> Masked:
        """Learn the masks of some windows.

        Parameters
        ----------
        function : callable
            Maps windows (B, L, C) to a Tensor of any shape (B, ...), each window by itself, and
            lets gradients through.
        x : Tensor of shape (B, L, C)
            The windows, finite.
        baseline : Tensor or float, default 0.0
            What stands in for masked entries, broadcast to the windows.
        where : bool Tensor, optional
            Entries that can be hidden at all, broadcast to the windows; None stands for all.

        Returns
        -------
        Masked
            Without gradients.

        Raises
        ------
        DataError
            The windows have another shape, or values that are not finite.
        ParameterError
            The output of the function has no gradient by the windows.
        """
        _check_windows(x)
        # A tensor that was made in inference mode takes part in no gradient.
        x = x.detach().clone()
        target = _check_function(function, x)
        base = torch.as_tensor(baseline, dtype=x.dtype, device=x.device).clone().expand_as(x)
        hideable = torch.ones_like(x, dtype=torch.bool) if where is None else where.expand_as(x)
        with seeded(self.random_state):
            perturbation = _Perturbation(x, self.replacement == "generated")
        stepper = Adam().build(perturbation, self.learning_rate)
        for _ in range(self.n_steps):
            perturbed, added = perturbation(x, base, hideable)
            loss = (function(perturbed) - target).square().mean()
            loss = loss + self.mask_weight * perturbation.penalty(hideable)
            loss = loss + self.replacement_weight * added.abs().mean()
            # Those of the function itself are not asked for.
            gradients = torch.autograd.grad(loss, list(stepper.parameters.values()))
            for parameter, gradient in zip(stepper.parameters.values(), gradients, strict=True):
                parameter.grad = gradient
            stepper.step()
            # Beyond the ends a mask would go on drifting, and come back late or never.
            with torch.no_grad():
                perturbation.mask.clamp_(0.0, 1.0)
        with torch.no_grad():
            perturbed, _ = perturbation(x, base, hideable)
            return Masked(perturbation.mask.detach() * hideable, perturbed)


def _check_windows(x: Tensor) -> None:
    if not (isinstance(x, Tensor) and x.ndim == 3 and x.is_floating_point() and x.numel()):
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise DataError(
            f"LearnedMask: x must be a floating-point Tensor of shape (windows, steps, features), "
            f"got {shape}; add the axes that it lacks"
        )
    if not bool(x.isfinite().all()):
        raise DataError(
            f"LearnedMask: x must be finite, got {int((~x.isfinite()).sum())} values that are not; "
            f"fill them, and leave them out by where="
        )


def _check_function(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return what the function says of the whole windows, if it lets gradients through."""
    trial = x.clone().requires_grad_()
    output = function(trial)
    slope = None
    if output.requires_grad:
        (slope,) = torch.autograd.grad(output.sum(), trial, allow_unused=True)
    if slope is None:
        raise ParameterError(
            "LearnedMask: function must let gradients through to x, but its output has none; "
            "compute it in torch without detach() and no_grad(), or hide inputs one by one instead"
        )
    return output.detach()
