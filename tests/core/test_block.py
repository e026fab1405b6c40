import pytest
import torch
from torch import nn

from tsar.core.block import Block, Encoder
from tsar.core.mixers import Mixer, SoftmaxAttention
from tsar.core.mlp import MLP


class Counter(Mixer):
    """Adds how many layers came before, to see that the carry arrives."""

    def mix(self, x, *, mask=None, carry=None):
        carry = 0 if carry is None else carry + 1
        return x * 0 + carry, carry


def _block(**options):
    torch.manual_seed(0)
    block = Block(SoftmaxAttention(6, 2), MLP(6, 5), d_model=6, **options)
    for norm in (block.mixer_norm, block.mlp_norm):
        nn.init.uniform_(norm.weight)
    return block


def test_mlp_is_two_maps_with_a_gelu():
    torch.manual_seed(0)
    mlp, x = MLP(6, 5), torch.randn(2, 3, 6)
    hidden = nn.functional.gelu(mlp.expand(x))
    torch.testing.assert_close(mlp(x), mlp.contract(hidden))


def test_mlp_without_biases():
    mlp, x = MLP(6, 5, bias=False), torch.randn(2, 3, 6)
    hidden = nn.functional.gelu(x @ mlp.expand.weight.T)
    torch.testing.assert_close(mlp(x), hidden @ mlp.contract.weight.T)
    assert sum(p.numel() for p in mlp.parameters()) == 2 * 6 * 5


def test_any_module_can_stand_for_the_norm():
    block = Block(
        SoftmaxAttention(6, 2), MLP(6, 5), d_model=6, norm=lambda d: nn.Linear(d, d), pre_norm=False
    )
    x = torch.randn(3, 7, 6)
    middle = block.mixer_norm(x + block.mixer(x))
    torch.testing.assert_close(block(x)[0], block.mlp_norm(middle + block.mlp(middle)))


@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
def test_pre_norm(norm):
    block, x = _block(norm=norm, pre_norm=True).eval(), torch.randn(3, 7, 6)
    middle = x + block.mixer(block.mixer_norm(x))
    expected = middle + block.mlp(block.mlp_norm(middle))
    torch.testing.assert_close(block(x)[0], expected)


@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
def test_post_norm(norm):
    block, x = _block(norm=norm, pre_norm=False).eval(), torch.randn(3, 7, 6)
    middle = block.mixer_norm(x + block.mixer(x))
    expected = block.mlp_norm(middle + block.mlp(middle))
    torch.testing.assert_close(block(x)[0], expected)


def test_both_branches_are_dropped_at_their_own_rate():
    block = _block(dropout=0.25, mixer_dropout=0.5)
    assert (block.mixer_dropout.p, block.mlp_dropout.p) == (0.5, 0.25)
    assert _block(dropout=0.25).mixer_dropout.p == 0.25


def test_encoder_hands_the_carry_from_block_to_block():
    blocks = [Block(Counter(), nn.Identity(), d_model=6, pre_norm=True) for _ in range(4)]
    encoder = Encoder(blocks)
    for block in blocks:
        block.mlp_norm = nn.Identity()
    x = torch.randn(2, 5, 6)
    for layer, block in enumerate(blocks):
        x, carry = block(x, carry=None if layer == 0 else layer - 1)
        assert carry == layer
    # Each block adds its number and doubles: ((x + 0) 2 + 1) 2 + ...
    start = torch.randn(2, 5, 6)
    expected = start
    for layer in range(4):
        expected = 2 * (expected + layer)
    torch.testing.assert_close(encoder(start), expected)


def test_encoder_ends_in_its_norm():
    encoder = Encoder([_block()], nn.LayerNorm(6)).eval()
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(encoder(x), encoder.final_norm(encoder.blocks[0](x)[0]))


def test_mask_reaches_the_mixer():
    encoder = Encoder([_block(), _block()]).eval()
    x = torch.randn(2, 5, 6)
    keys = torch.ones(2, 5).bool()
    keys[:, 3] = False
    other = x.clone()
    other[:, 3] = 9.0
    places = [0, 1, 2, 4]
    torch.testing.assert_close(
        encoder(x, mask=keys)[:, places], encoder(other, mask=keys)[:, places]
    )
