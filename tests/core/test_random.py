import torch
from torch import nn

from tsar.core.dropout import Dropout
from tsar.core.random import Random, set_generator


class Noise(Random):
    """Adds noise, as a part that is no dropout would."""

    def forward(self, x):
        return x + torch.randn(x.shape, generator=self.generator)


def test_whatever_draws_is_found():
    network = nn.Sequential(nn.Linear(3, 3), nn.Sequential(Noise(), Dropout(0.5)), Noise())
    generator = torch.Generator().manual_seed(3)
    set_generator(network, generator)
    assert all(network[1][k].generator is generator for k in range(2))
    x, before = torch.zeros(5, 3), torch.get_rng_state()
    first = network(x)
    generator.manual_seed(3)
    assert torch.equal(network(x), first)
    assert torch.equal(torch.get_rng_state(), before)
    set_generator(network, None)
    network(x)
    assert not torch.equal(torch.get_rng_state(), before)
