import pytest
import torch

from tsar.core.decoder import Decoder
from tsar.core.mixers import SoftmaxAttention
from tsar.exceptions import ParameterError
from tsar.training import seeded

TOKENS, D_MODEL, N_HEADS, D_FF = 7, 12, 3, 20


@pytest.fixture
def decoder():
    with seeded(0):
        mixers = [SoftmaxAttention(D_MODEL, N_HEADS, causal=True) for _ in range(2)]
        return Decoder(mixers, d_model=D_MODEL, d_ff=D_FF, max_tokens=TOKENS).eval()


@pytest.fixture
def tokens():
    return torch.randn(5, TOKENS, D_MODEL, generator=torch.Generator().manual_seed(1))


def test_equals_the_layer_of_torch(decoder, tokens):
    """Torch's own pre-norm layers with the same weights and a causal mask."""
    x = decoder.position(tokens)
    for block in decoder.encoder.blocks:
        layer = torch.nn.TransformerEncoderLayer(
            D_MODEL, N_HEADS, D_FF, 0.0, "gelu", batch_first=True, norm_first=True
        )
        pairs = {
            layer.self_attn.in_proj_weight: block.mixer.query_key_value.weight,
            layer.self_attn.in_proj_bias: block.mixer.query_key_value.bias,
            layer.self_attn.out_proj.weight: block.mixer.output.weight,
            layer.self_attn.out_proj.bias: block.mixer.output.bias,
            layer.linear1.weight: block.mlp.expand.weight,
            layer.linear1.bias: block.mlp.expand.bias,
            layer.linear2.weight: block.mlp.contract.weight,
            layer.linear2.bias: block.mlp.contract.bias,
        }
        with torch.no_grad():
            for theirs, ours in pairs.items():
                theirs.copy_(ours)
        mask = torch.nn.Transformer.generate_square_subsequent_mask(TOKENS)
        x = layer(x, src_mask=mask, is_causal=True)
    expected = torch.nn.functional.layer_norm(x, (D_MODEL,))
    torch.testing.assert_close(decoder(tokens), expected)


@pytest.mark.parametrize("masked", [False, True])
def test_a_token_depends_on_no_later_one(decoder, tokens, masked):
    mask = None
    if masked:
        mask = torch.ones(5, TOKENS, dtype=torch.bool)
        mask[0, :3] = mask[2, 1] = mask[4] = False
    altered = tokens.clone()
    altered[:, 4:] = torch.randn(5, 3, D_MODEL, generator=torch.Generator().manual_seed(2))
    before, after = decoder(tokens, mask=mask), decoder(altered, mask=mask)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert before.isfinite().all() and not torch.allclose(after[:, 4:], before[:, 4:])


def test_masked_tokens_are_not_looked_at(decoder, tokens):
    mask = torch.ones(5, TOKENS, dtype=torch.bool)
    mask[:, 2] = False
    altered = tokens.clone()
    altered[:, 2] = torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(2))
    keep = torch.arange(TOKENS) != 2
    torch.testing.assert_close(
        decoder(altered, mask=mask)[:, keep], decoder(tokens, mask=mask)[:, keep]
    )


def test_limits(decoder, tokens):
    with pytest.raises(ParameterError, match="8 tokens are more than max_tokens=7"):
        decoder(torch.cat([tokens, tokens[:, :1]], dim=1))
    with pytest.raises(ParameterError, match="SoftmaxAttention looks ahead"):
        Decoder([SoftmaxAttention(D_MODEL, N_HEADS)], d_model=D_MODEL, d_ff=D_FF)
