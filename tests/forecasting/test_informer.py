from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tsar
from tsar.data.windows import Inputs
from tsar.exceptions import ParameterError
from tsar.forecasting.informer import Distilling, InformerNetwork
from tsar.forecasting.layers.covariates import CovariateSpec
from tsar.forecasting.outputs.output import PointOutput, QuantileOutput

SMALL = {"d_model": 6, "n_heads": 2, "d_ff": 5, "n_layers": 3, "n_decoder_layers": 2}


def _network(output=None, **options):
    torch.manual_seed(0)
    settings = {"n_variates": 3, "covariates": CovariateSpec(n_calendar=4), **SMALL, **options}
    network = InformerNetwork(
        context_length=14, horizon=9, output=PointOutput() if output is None else output, **settings
    )
    return network.double().eval()


def _random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _inputs():
    return Inputs(_random(4, 14, 3).cumsum(dim=1), calendar=_random(4, 23, 4, seed=1))


# ------------------------------------------------ the network again, with the layers of torch


def _as_torch(attention):
    plain = nn.MultiheadAttention(6, 2, batch_first=True).double()
    plain.in_proj_weight.data = attention.query_key_value.weight.data
    plain.in_proj_bias.data = attention.query_key_value.bias.data
    plain.out_proj.load_state_dict(attention.output.state_dict())
    return plain


def _copy_block(layer, mlp_block):
    layer.linear1.load_state_dict(mlp_block.mlp.expand.state_dict())
    layer.linear2.load_state_dict(mlp_block.mlp.contract.state_dict())


def _encoder_layer(block):
    layer = nn.TransformerEncoderLayer(6, 2, 5, 0.0, "gelu", batch_first=True).double().eval()
    layer.self_attn = _as_torch(block.mixer)
    _copy_block(layer, block)
    layer.norm1, layer.norm2 = block.mixer_norm, block.mlp_norm
    return layer


def _decoder_layer(own, reading):
    layer = nn.TransformerDecoderLayer(6, 2, 5, 0.0, "gelu", batch_first=True).double().eval()
    layer.self_attn, layer.multihead_attn = _as_torch(own.mixer), _as_torch(reading.mixer)
    _copy_block(layer, reading)
    layer.norm1, layer.norm2, layer.norm3 = own.mixer_norm, reading.mixer_norm, reading.mlp_norm
    return layer


def _embedded(embedding, values, marks):
    around = torch.cat([values[:, -1:], values, values[:, :1]], dim=1).transpose(1, 2)
    tokens = F.conv1d(around, embedding.values.weight).transpose(1, 2)
    place = torch.arange(values.shape[1]).double()[:, None]
    angle = place / 10_000 ** (torch.tensor([0, 2, 4]).double() / 6)
    sines = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
    return tokens + marks @ embedding.marks.weight.mT + embedding.bias + sines


def test_it_is_a_transformer_where_all_queries_attend():
    """With so large a factor ProbSparse is full attention, and causal attention if masked."""
    network, inputs = _network(factor=50, label_length=5), _inputs()
    for module in network.distilling:  # statistics that are not those it begins with
        module.norm.running_mean.copy_(_random(6, seed=2))
        module.norm.running_var.copy_(_random(6, seed=3).square() + 0.1)
    for embedding in (network.embedding, network.decoder_embedding):
        embedding.bias.data.copy_(_random(6, seed=4))
    x = _embedded(network.embedding, inputs.target, inputs.calendar[:, :14])
    for number, block in enumerate(network.encoder):
        if number:
            x = network.distilling[number - 1](x)
        x = _encoder_layer(block)(x)
    memory = network.encoder_norm(x)
    assert memory.shape == (4, 4, 6)  # of 14, 7 and 4
    start = torch.cat([inputs.target[:, -5:], torch.zeros(4, 9, 3).double()], dim=1)
    x = _embedded(network.decoder_embedding, start, inputs.calendar[:, 9:])
    later = torch.ones(14, 14, dtype=torch.bool).triu(1)
    for own, reading in zip(network.decoder, network.reading, strict=True):
        x = _decoder_layer(own, reading)(x, memory, tgt_mask=later)
    expected = network.head(network.decoder_norm(x))[:, -9:]
    # Sines are rounded to single precision when the network is built.
    torch.testing.assert_close(network(inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("length", "after"), [(14, 7), (7, 4), (96, 48), (2, 1), (1, 1)])
@pytest.mark.parametrize("training", [False, True])
def test_distilling_is_that_of_torch(length, after, training):
    torch.manual_seed(0)
    layer = Distilling(5).double().train(training)
    convolution = nn.Conv1d(5, 5, 3, padding=1, padding_mode="circular", bias=False).double()
    convolution.weight.data = layer.convolution.weight.data
    norm = nn.BatchNorm1d(5).double().train(training)
    x = _random(3, length, 5)
    plain = F.elu(norm(convolution(x.transpose(1, 2))))
    expected = nn.MaxPool1d(3, stride=2, padding=1)(plain).transpose(1, 2)
    assert expected.shape == (3, after, 5)
    torch.testing.assert_close(layer(x), expected)


def test_official_sizes():
    """The published ETTh1 settings; the biases that change nothing are left out, see the class."""
    network = InformerNetwork(
        context_length=48,
        horizon=24,
        n_variates=7,
        output=PointOutput(),
        covariates=CovariateSpec(n_calendar=4),
        label_length=48,
    )
    width, hidden = 512, 2048
    attention = 4 * (width * width + width)
    mlp = 2 * width * hidden + hidden + width
    embedding = 3 * 7 * width + 4 * width + width
    distilling = 3 * width * width + 2 * width
    encoder = 2 * (attention + mlp + 2 * 2 * width) + distilling + 2 * width
    decoder = 2 * attention + mlp + 3 * 2 * width + 2 * width
    expected = 2 * embedding + encoder + decoder + 7 * width + 7
    assert sum(p.numel() for p in network.parameters()) == expected


def test_without_distilling_no_token_is_lost():
    network = _network(distilling=False)
    assert network.encode(_random(2, 14, 3), _random(2, 14, 4)).shape == (2, 14, 6)


def test_quantiles_do_not_cross():
    forecast = _network(QuantileOutput([0.1, 0.5, 0.9]))(_inputs())
    assert forecast.shape == (4, 9, 3, 3)
    assert (forecast.diff(dim=3) > 0).all()


@pytest.fixture(scope="module")
def fitted():
    index = pd.date_range("2024-01-01", periods=160, freq="h")
    steps = np.arange(160)[:, None]
    values = np.sin(2 * np.pi * steps / 24 + np.arange(3)) + 0.1 * np.arange(3)
    frame = pd.DataFrame(values, index=index, columns=list("abc"))
    model = tsar.Informer(
        context_length=40, horizon=7, factor=1, max_epochs=1, random_state=0, **SMALL
    )
    return model.fit(frame), frame


def test_forecasts_do_not_depend_on_company_or_thread(fitted):
    """Keys are drawn, yet each window has the same ones, in any batch and any thread."""
    model, frame = fitted
    cutoffs = np.arange(60, 150)
    together = model.forecast_windows(frame, cutoffs, 7)
    for place in (0, 31, 89):
        alone = model.forecast_windows(frame, cutoffs[place : place + 1], 7)
        np.testing.assert_array_equal(alone[0], together[place])
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: model.forecast_windows(frame, cutoffs, 7), range(2)))
    np.testing.assert_array_equal(both[0], together)
    np.testing.assert_array_equal(both[1], together)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mixer": "probspars"}, "Informer: mixer must be one of"),
        ({"label_length": 41}, "Informer: label_length must be at most context_length=40, got 41"),
        ({"d_model": 7}, "Informer: d_model must be a multiple of n_heads=2, got 7"),
        ({"factor": 0.0}, "Informer: factor must be"),
    ],
)
def test_errors_come_before_any_work(fitted, parameters, message):
    model, frame = fitted
    with pytest.raises(ParameterError, match=message):
        tsar.Informer(**{**model.get_params(), **parameters}).fit(frame)
