import pytest
import torch
from torch import nn

from tsar.core.block import Block, Encoder
from tsar.core.mixers import CarryingMixer, Mamba, SoftmaxAttention
from tsar.core.mlp import MLP


class Counter(CarryingMixer):
    """Adds how many layers came before, to see that the carry arrives."""

    def mix(self, x, carry, *, mask=None):
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
    torch.testing.assert_close(block(x), block.mlp_norm(middle + block.mlp(middle)))


@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
def test_pre_norm(norm):
    block, x = _block(norm=norm, pre_norm=True).eval(), torch.randn(3, 7, 6)
    middle = x + block.mixer(block.mixer_norm(x))
    expected = middle + block.mlp(block.mlp_norm(middle))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
def test_post_norm(norm):
    block, x = _block(norm=norm, pre_norm=False).eval(), torch.randn(3, 7, 6)
    middle = block.mixer_norm(x + block.mixer(x))
    expected = block.mlp_norm(middle + block.mlp(middle))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_block_without_a_map_of_tokens(pre_norm):
    mixer, x = SoftmaxAttention(6, 2), torch.randn(3, 7, 6)
    block = Block(mixer, None, d_model=6, pre_norm=pre_norm)
    norm = nn.functional.layer_norm
    expected = x + mixer(norm(x, (6,))) if pre_norm else norm(x + mixer(x), (6,))
    torch.testing.assert_close(block(x), expected)
    assert {name.split(".")[0] for name in block.state_dict()} == {"mixer", "mixer_norm"}


def test_both_branches_are_dropped_at_their_own_rate():
    block = _block(dropout=0.25, mixer_dropout=0.5)
    assert (block.mixer_dropout.p, block.mlp_dropout.p) == (0.5, 0.25)
    assert _block(dropout=0.25).mixer_dropout.p == 0.25


@pytest.mark.parametrize("between", [False, True])
def test_encoder_hands_the_carry_from_block_to_block(between):
    """A mixer that carries nothing ends it."""
    mixers = [Counter() for _ in range(4)]
    if between:
        mixers.insert(2, Mamba(6))
    blocks = [
        Block(mixer, nn.Identity(), d_model=6, norm=lambda _: nn.Identity()) for mixer in mixers
    ]
    encoder, x = Encoder(blocks), torch.randn(2, 5, 6)
    expected, carry = x, -1
    for mixer in mixers:
        # Each block adds its number and doubles: ((x + 0) 2 + 1) 2 + ...
        carry = carry + 1 if isinstance(mixer, Counter) else -1
        expected = 2 * (expected + (carry if isinstance(mixer, Counter) else mixer(expected)))
    torch.testing.assert_close(encoder(x), expected)


@pytest.mark.parametrize("masked", [False, True])
def test_scores_add_up_over_the_layers_of_an_encoder(masked):
    """Against one softmax per layer of the sum of all scores so far, for a single head."""
    torch.manual_seed(0)
    mixers = [SoftmaxAttention(6, 1, residual_scores=True) for _ in range(3)]
    encoder = Encoder([Block(mixer, MLP(6, 5), d_model=6) for mixer in mixers])
    x, scores, seen = torch.randn(2, 5, 6), torch.zeros(2, 5, 5), torch.ones(2, 5).bool()
    seen[1, 3] = not masked
    tokens = x
    for block in encoder.blocks:
        query, key, value = block.mixer.query_key_value(block.mixer_norm(tokens)).chunk(3, dim=2)
        scores = scores + query @ key.mT / 6**0.5
        weights = scores.masked_fill(~seen[:, None], -torch.inf).softmax(2)
        tokens = tokens + block.mixer.output(weights @ value)
        tokens = tokens + block.mlp(block.mlp_norm(tokens))
    torch.testing.assert_close(encoder(x, mask=seen if masked else None), tokens)


def test_encoder_ends_in_its_norm():
    encoder = Encoder([_block()], nn.LayerNorm(6)).eval()
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(encoder(x), encoder.final_norm(encoder.blocks[0](x)))


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


def test_memory_reaches_the_mixer():
    block, x, memory = _block().eval(), torch.randn(2, 5, 6), torch.randn(2, 4, 6)
    keys = torch.tensor([[True, False, True, True], [True, True, True, False]])
    middle = x + block.mixer(block.mixer_norm(x), mask=keys, memory=memory)
    expected = middle + block.mlp(block.mlp_norm(middle))
    torch.testing.assert_close(block(x, mask=keys, memory=memory), expected)
