"""Small stand-ins for windows and networks, with the shapes the training loop asks for."""

import torch
from torch import nn

from tsar.data.windows import Batch, Inputs

CONTEXT, HORIZON, VARIATES = 9, 4, 2


class TensorWindows:
    """Windows held in memory, remembering in which order they were asked for."""

    def __init__(self, inputs, target, observed=None, scale=None):
        self.inputs, self.target, self.observed, self.scale = inputs, target, observed, scale
        self.asked = []

    def __len__(self):
        return len(self.target)

    def batch(self, index):
        self.asked.append(index.tolist())
        pick = (None if t is None else t[index] for t in (self.observed, self.scale))
        return Batch(Inputs(self.inputs[index]), self.target[index], *pick)


def make_windows(n, seed=0, *, observed=False, scale=False):
    """Build windows whose target is a fixed linear map of their history, and some noise."""
    generator = torch.Generator().manual_seed(100)
    truth = torch.randn(CONTEXT, HORIZON, generator=generator) / 3
    generator.manual_seed(seed)
    inputs = torch.randn(n, CONTEXT, VARIATES, generator=generator)
    noise = torch.randn(n, HORIZON, VARIATES, generator=generator)
    target = torch.einsum("blc,lh->bhc", inputs, truth) + 0.1 * noise
    seen = torch.rand(target.shape, generator=generator) > 0.3 if observed else None
    factor = torch.rand(n, VARIATES, generator=generator) + 0.5 if scale else None
    return TensorWindows(inputs, target, seen, factor)


class LinearNetwork(nn.Module):
    """One linear map over time, with dropout to use the run's generator."""

    def __init__(self, dropout=0.0):
        from tsar.core.dropout import Dropout

        super().__init__()
        self.linear = nn.Linear(CONTEXT, HORIZON)
        self.dropout = Dropout(dropout)

    def forward(self, inputs):
        return self.linear(self.dropout(inputs.target).transpose(1, 2)).transpose(1, 2)


def make_network(dropout=0.0):
    """Build the same network on every call, leaving the global generator alone."""
    from tsar.training import seeded

    with seeded(0):
        return LinearNetwork(dropout)
