import pytest
import torch

from tsar.core.decoder import Decoder
from tsar.core.mixers import Mamba, SoftmaxAttention
from tsar.core.mlp import GatedMLP
from tsar.core.position import LearnedPosition
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


def _stack(**options):
    mixers = [SoftmaxAttention(D_MODEL, N_HEADS, causal=True), Mamba(D_MODEL)]
    return Decoder(mixers, d_model=D_MODEL, d_ff=D_FF, **options).eval()


@pytest.mark.parametrize("position", ["learned", None])
def test_positions_are_added_or_not(position, tokens):
    decoder = _stack(position=position)
    assert isinstance(decoder.position, LearnedPosition | None)
    placed = tokens if position is None else tokens + decoder.position.weight[:TOKENS]
    torch.testing.assert_close(decoder(tokens), decoder.encoder(placed))


def test_without_positions_there_is_no_longest_sequence(tokens):
    decoder = _stack(position=None, max_tokens=None)
    assert decoder(tokens.repeat(1, 300, 1)).shape[1] == 300 * TOKENS
    with pytest.raises(ParameterError, match="8 tokens are more than max_tokens=7"):
        _stack(position=None, max_tokens=7)(tokens.repeat(1, 2, 1)[:, :8])
    with pytest.raises(ParameterError, match="position='learned' .* pass a number"):
        _stack(position="learned", max_tokens=None)


def test_parts_by_name(tokens):
    decoder = _stack(norm="rms", mlp="swiglu")
    for block in decoder.encoder.blocks:
        assert isinstance(block.mlp, GatedMLP)
        assert isinstance(block.mixer_norm, torch.nn.RMSNorm)
        assert isinstance(block.mlp_norm, torch.nn.RMSNorm)
    assert isinstance(decoder.encoder.final_norm, torch.nn.RMSNorm)
    with pytest.raises(ParameterError, match="Decoder: norm must be one of"):
        _stack(norm="batch")
    with pytest.raises(ParameterError, match="mlp must be one of"):
        _stack(mlp="relu")
    with pytest.raises(ParameterError, match="Decoder: position must be one of"):
        _stack(position="rotary")


def test_blocks_of_a_mixer_only(tokens):
    decoder = _stack(mlp=None, position=None)
    x = tokens
    for block in decoder.encoder.blocks:
        x = x + block.mixer(block.mixer_norm(x))
    torch.testing.assert_close(decoder(tokens), decoder.encoder.final_norm(x))
    assert not any("mlp" in name for name in decoder.state_dict())


def test_names_of_weights_are_those_of_saved_models(decoder):
    names = {name.split("blocks.")[-1] for name in decoder.state_dict()}
    parts = ("mixer.query_key_value", "mixer.output", "mlp.expand", "mlp.contract")
    parts += ("mixer_norm", "mlp_norm")
    expected = {
        f"{k}.{part}.{kind}" for k in (0, 1) for part in parts for kind in ("weight", "bias")
    }
    assert names == expected | {"encoder.final_norm.weight", "encoder.final_norm.bias"}
