"""What stacks do inside, against products, searches, differences and scans done elsewhere."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import nn

from tsar.core.block import Block, Encoder
from tsar.core.inspection import (
    attention_distance,
    attention_flow,
    attention_rollout,
    gated_heads,
    head_importance,
    implicit_attention,
    rank_residual,
    recorded,
    residuals_by_depth,
    sink_shares,
)
from tsar.core.mixers import LinearAttention, Mamba, SoftmaxAttention
from tsar.core.mlp import MLP
from tsar.core.ops.causal_conv import causal_conv
from tsar.core.ops.selective_scan import selective_scan
from tsar.exceptions import ParameterError

BATCH, N_HEADS, LENGTH, D_MODEL = 2, 2, 5, 8


def _encoder(n_layers=3, causal=True):
    torch.manual_seed(0)
    mixers = [SoftmaxAttention(D_MODEL, N_HEADS, causal=causal) for _ in range(n_layers)]
    blocks = [Block(mixer, MLP(D_MODEL, 16), d_model=D_MODEL) for mixer in mixers]
    return Encoder(blocks, nn.LayerNorm(D_MODEL)).double().eval()


def _tokens(length=LENGTH, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, length, D_MODEL, dtype=torch.float64, generator=generator)


def _weights(n_layers=3):
    encoder = _encoder(n_layers)
    with recorded(encoder, "attention") as passes, torch.no_grad():
        encoder(_tokens())
    return [own[0] for own in passes]


def test_rollout_is_the_product_by_hand():
    weights = _weights()
    rolled = attention_rollout(weights)
    for row in range(BATCH):
        product = np.eye(LENGTH)
        for layer in weights:
            product = (layer[row].numpy().mean(axis=0) + np.eye(LENGTH)) / 2 @ product
        np.testing.assert_allclose(rolled[row], product, atol=1e-12)
    torch.testing.assert_close(rolled.sum(dim=-1), torch.ones_like(rolled[..., 0]))


@pytest.mark.parametrize("token", [-1, 2])
def test_flow_is_that_of_scipy(token):
    """Scipy takes whole numbers: capacities are scaled up and rounded."""
    weights, scale = _weights(), 1_000_000
    flows = attention_flow(weights, token)
    n_nodes = (len(weights) + 1) * LENGTH
    for row in range(BATCH):
        capacities = np.zeros((n_nodes, n_nodes), dtype=np.int32)
        for number, layer in enumerate(weights):
            wide = (layer[row].numpy().mean(axis=0) + np.eye(LENGTH)) / 2
            above = slice((number + 1) * LENGTH, (number + 2) * LENGTH)
            capacities[above, number * LENGTH : (number + 1) * LENGTH] = np.round(wide * scale)
        source = len(weights) * LENGTH + token % LENGTH
        for bottom in range(LENGTH):
            expected = maximum_flow(csr_array(capacities), source, bottom).flow_value / scale
            assert flows[row, bottom] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("function", [attention_rollout, attention_flow])
def test_layers_have_one_shape(function):
    weights = _weights()
    for wrong in ([], [weights[0], weights[1][..., :-1]]):
        with pytest.raises(ParameterError, match="one tensor"):
            function(wrong)


def test_importance_is_the_slope_of_the_gate():
    encoder, x = _encoder(), _tokens()

    def loss():
        return encoder(x).pow(3).mean()

    slopes, step = head_importance(encoder, loss), 1e-5
    for layer in range(3):
        for head in range(N_HEADS):
            ends = []
            for moved in (-step, step):
                gates = torch.ones(3, N_HEADS, dtype=torch.float64)
                gates[layer, head] += moved
                with gated_heads(encoder, gates), torch.no_grad():
                    ends.append(loss().item())
            assert slopes[layer, head] == pytest.approx(
                abs(ends[1] - ends[0]) / (2 * step), rel=1e-5
            )


def test_a_pruned_head_gives_nothing():
    encoder, x = _encoder(1), _tokens()
    attention = encoder.blocks[0].mixer
    with torch.no_grad():
        before = encoder(x)
        with gated_heads(encoder, torch.tensor([[1.0, 0.0]], dtype=torch.float64)):
            pruned = encoder(x)
        torch.testing.assert_close(encoder(x), before, rtol=0, atol=0)
        attention.output.weight[:, D_MODEL // N_HEADS :] = 0.0
        torch.testing.assert_close(encoder(x), pruned)
    with pytest.raises(ParameterError, match=r"which are \[2\], got the shape \(1, 3\)"):
        with gated_heads(encoder, torch.ones(1, 3)):
            pass


def test_distance_and_sinks_of_matrices_made_by_hand():
    length = 6
    one_back = torch.diag(torch.ones(length - 1), -1)
    one_back[0, 0] = 1.0
    to_first = torch.zeros(length, length)
    to_first[:, 0] = 1.0
    weights = torch.stack([one_back, to_first])[None]
    expected = [(length - 1) / length, np.arange(length).mean()]
    np.testing.assert_allclose(attention_distance(weights)[0], expected, rtol=1e-6)
    # Of five queries behind the first, one looks one back at it.
    np.testing.assert_allclose(sink_shares([weights]), [[1 / 5, 1.0]], rtol=1e-6)


def test_pure_attention_loses_rank_and_residuals_keep_it():
    torch.manual_seed(0)
    mixers = [SoftmaxAttention(D_MODEL, N_HEADS) for _ in range(8)]
    blocks = [Block(mixer, MLP(D_MODEL, 16), d_model=D_MODEL) for mixer in mixers]
    encoder, x = Encoder(blocks).double().eval(), _tokens(20)
    pure = residuals_by_depth(encoder, x, skips=False, mlps=False).mean(dim=1)
    whole = residuals_by_depth(encoder, x).mean(dim=1)
    assert pure[2] < 0.2 * pure[0] and whole[-1] > 0.5 * whole[0]
    with torch.no_grad():
        torch.testing.assert_close(residuals_by_depth(encoder, x)[-1], rank_residual(encoder(x)))


def test_residual_of_equal_tokens_is_zero():
    same = torch.ones(1, 4, 3) * torch.tensor([1.0, 2.0, 3.0])
    assert rank_residual(same).item() == 0.0
    x = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    assert rank_residual(x).item() == pytest.approx(1.0)


@torch.no_grad()
def test_matrix_of_mamba_is_its_scan():
    torch.manual_seed(0)
    mixer, x = Mamba(D_MODEL, d_state=4).double(), _tokens(9)
    matrix = implicit_attention(mixer, x)
    value = mixer.input(x).chunk(2, dim=-1)[0]
    value = torch.nn.functional.silu(causal_conv(value, mixer.conv_weight, mixer.conv_bias)[0])
    step, b, c = mixer.select(value).split(mixer.sizes, dim=-1)
    y, _ = selective_scan(
        value,
        mixer.step_size(step) - mixer.step_size.bias,
        -mixer.log_decay.exp(),
        b,
        c,
        d=mixer.skip,
        delta_bias=mixer.step_size.bias,
        delta_softplus=True,
    )
    mixed = (matrix @ value.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
    torch.testing.assert_close(mixed, y, rtol=1e-10, atol=1e-10)
    assert not matrix.triu(1).any()


@torch.no_grad()
def test_matrix_of_linear_attention_is_what_it_mixes_by():
    torch.manual_seed(0)
    mixer, x = LinearAttention(D_MODEL, N_HEADS).double(), _tokens(7)
    matrix = implicit_attention(mixer, x)
    value = mixer.query_key_value(x)[..., 2 * D_MODEL :].unflatten(2, (N_HEADS, -1))
    mixed = mixer.output((matrix @ value.transpose(1, 2)).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, mixer(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(matrix.sum(dim=-1), torch.ones_like(matrix[..., 0]))


def test_a_mixer_without_a_matrix():
    with pytest.raises(ParameterError, match="no matrix of a SoftmaxAttention; use Mamba"):
        implicit_attention(SoftmaxAttention(D_MODEL, N_HEADS), _tokens())
