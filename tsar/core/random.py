"""What draws at random inside a network, and where it draws from."""

import torch
from torch import nn

__all__ = ["Random", "set_generator"]


class Random(nn.Module):
    """A part of a network that draws random numbers; whatever draws derives from it.

    Attributes
    ----------
    generator : torch.Generator or None
        Where every draw comes from; None is the global generator of the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator: torch.Generator | None = None


def set_generator(module: nn.Module, generator: torch.Generator | None) -> None:
    """Let every :class:`Random` part of ``module`` draw from one generator.

    None gives them back the global generator of their device.
    """
    for part in module.modules():
        if isinstance(part, Random):
            part.generator = generator
