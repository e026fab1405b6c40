"""Views of windows that a network learns to make, and an encoder that learns to know them.

Dimension letters: B windows in a batch, L steps of a window, D width of an encoded step.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tsar.core.contrast import instance_contrast, mean_discrepancy, neighbour_contrast
from tsar.core.convolution import CausalConvolutions, DilatedEncoder
from tsar.core.linear import Linear
from tsar.core.tracing import is_traced
from tsar.training.objective import Objective, Terms

__all__ = ["Augmenter", "StepEncoder", "ViewObjective", "Views"]

# Kernels after the dilated convolutions are no longer than this.
LONGEST_KERNEL = 128
# Of the network that makes views: the width of its tokens, and its blocks before the last one.
VIEW_WIDTH, VIEW_LAYERS = 16, 1
# The mask is stretched to so far beyond 0, and this share of the steps may stay for nothing.
STRETCH, FREE_SHARE = 0.05, 0.4
# How near a random number comes to 0 and 1.
MARGIN = 1e-3
# Parts of a window that are told from each other.
N_PARTS = 16


class StepEncoder(nn.Module):
    """Dilated convolutions of steps, and the mean of causal ones over what they give.

    Parameters
    ----------
    context_length, n_inputs : int
        Steps of a window, and features of a step.
    d_model, d_ff, n_layers : int
    """

    def __init__(
        self, context_length: int, n_inputs: int, *, d_model: int, d_ff: int, n_layers: int
    ) -> None:
        super().__init__()
        self.project = Linear(n_inputs, d_model)
        self.dilated = DilatedEncoder(d_model, [d_model] * n_layers + [d_ff])
        self.causal = CausalConvolutions(d_ff, min(LONGEST_KERNEL, context_length))

    def forward(self, steps: Tensor) -> Tensor:
        """Encode steps (B, L, n_inputs) as (B, L, d_ff)."""
        encoded: Tensor = self.causal(self.dilated(self.project(steps)))
        return encoded

    def last(self, steps: Tensor) -> Tensor:
        """Encode the last of steps (B, L, n_inputs) as (B, d_ff)."""
        return self.causal.last(self.dilated(self.project(steps)))


class Views(NamedTuple):
    """Views of windows, and how likely each step stays in them, (B, L, n_inputs) and (B, L, 1)."""

    steps: Tensor
    share: Tensor


class Augmenter(nn.Module):
    """Make a view of windows: some steps of them, each times a factor.

    Parameters
    ----------
    context_length, n_inputs : int

    References
    ----------
    Louizos et al., "Learning sparse neural networks through L0 regularization", ICLR 2018, for
    the mask, which is 0 or 1 here, with the gradient of what is between.
    """

    def __init__(self, context_length: int, n_inputs: int) -> None:
        super().__init__()
        self.encoder = StepEncoder(
            context_length, n_inputs, d_model=VIEW_WIDTH, d_ff=VIEW_WIDTH, n_layers=VIEW_LAYERS
        )
        self.mask, self.factor = Linear(VIEW_WIDTH, 1), Linear(VIEW_WIDTH, 1)

    def forward(self, steps: Tensor, generator: torch.Generator | None) -> Views:
        """Make views of steps (B, L, n_inputs)."""
        encoded = self.encoder(steps)
        score = self.mask(encoded)
        chance = torch.rand(score.shape, generator=generator, device=score.device)
        noise = torch.logit(chance.to(score.dtype), eps=MARGIN)
        soft = (torch.sigmoid(score + noise) * (1 + STRETCH) - STRETCH).clamp(0, 1)
        hard = (soft > 0.5).to(soft.dtype)
        mask = (hard - soft).detach() + soft
        return Views(torch.sigmoid(self.factor(encoded)) * mask * steps, torch.sigmoid(score))


class ViewObjective(Objective):
    """Know windows by a view of them, while the view comes near to the windows.

    Two networks are trained in each step, each with the other as it is: the encoder is to know
    windows by their views and parts of windows by the next ones; the augmenter is to make views
    that are encoded like windows (maximum mean discrepancy), of few steps.

    Parameters
    ----------
    local_weight : float
        Of the contrast of parts beside that of windows.
    sparsity_weight, smoothness_weight : float
        Of the share of steps in a view beyond 0.4, and of its changes from step to step.

    References
    ----------
    Zheng et al., "Parametric augmentation for time series contrastive learning", ICLR 2024.
    """

    def __init__(
        self, local_weight: float, sparsity_weight: float, smoothness_weight: float
    ) -> None:
        self.local_weight = local_weight
        self.sparsity_weight, self.smoothness_weight = sparsity_weight, smoothness_weight

    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Terms:
        """Return the contrast of a batch of windows, and what the augmenter minimises."""
        net: Any = network
        steps = net.steps(batch.inputs)
        weight = None if batch.weight is None else batch.weight.mean(dim=(1, 2))
        if weight is not None and weight.any():
            steps, weight = steps[weight > 0], weight[weight > 0]
        drawn = None if is_traced() else generator
        views = net.augmenter(steps.detach(), drawn)
        encoded = net.encoder(steps)
        errors = instance_contrast(
            encoded.amax(dim=1), net.encoder(views.steps.detach()).amax(dim=1)
        )
        if self.local_weight:
            errors = errors + self.local_weight * self._local(encoded, drawn)
        count = torch.tensor(float(len(errors)), device=errors.device)
        if weight is not None:
            errors, count = errors * weight, weight.sum()
        still = {name: p.detach() for name, p in net.encoder.named_parameters()}
        of_views = functional_call(net.encoder, still, (views.steps,)).amax(dim=1)
        made = mean_discrepancy(encoded.detach().amax(dim=1), of_views)
        made = made + self.sparsity_weight * F.relu(views.share.mean() - FREE_SHARE)
        if self.smoothness_weight and views.share.shape[1] > 1:
            made = made + self.smoothness_weight * views.share.diff(dim=1).abs().mean()
        if weight is not None:
            made = made * weight.any()
        return {"loss": (errors.sum(), count), "augmenter": (made, torch.ones_like(made))}

    @staticmethod
    def _local(encoded: Tensor, generator: torch.Generator | None) -> Tensor:
        """Contrast parts of windows (B, L, D), which begin at a random step: (B,)."""
        length = encoded.shape[1] // N_PARTS
        if not length:
            return encoded.new_zeros(len(encoded))
        rest = encoded.shape[1] - N_PARTS * length
        begin = torch.randint(rest + 1, (), generator=generator, device=encoded.device)
        places = begin + torch.arange(N_PARTS * length, device=encoded.device)
        cut = F.normalize(encoded, dim=2)[:, places]
        return neighbour_contrast(cut.unflatten(1, (N_PARTS, length)).amax(dim=2))
