import pytest
import torch
from torch import nn

from tsar.core.block import Block, Encoder
from tsar.core.decay import no_decay_names
from tsar.core.mixers import MIXERS, accepted_options, make_mixer
from tsar.core.mlp import MLP
from tsar.core.position import LearnedPosition
from tsar.exceptions import ParameterError

# Of each mixer, the weights of maps: all that decays.
DECAYED = {
    "attention": {"query_key_value.weight", "output.weight"},
    "autocorrelation": {f"{part}.weight" for part in ("query", "key", "value", "output")},
    "linear_attention": {"query_key_value.weight", "output.weight"},
    "retention": {f"{part}.weight" for part in ("query_key_value", "gate", "output")},
    "mamba2": {"conv_weight", "input.weight", "output.weight"},
    "mamba": {"conv_weight", *(f"{p}.weight" for p in ("input", "select", "step_size", "output"))},
}
DECAYED |= {
    "gated_state_space": {"weight", *(f"{p}.weight" for p in ("input", "widen", "output"))},
    "structured_state_space": {"weight", "output.weight"},
    "companion": {"enter", "leave"},
    "exponential_smoothing": {"value.weight", "output.weight"},
    "mega": {f"{part}.weight" for part in ("value", "base", "candidate")},
    "prefix_attention": {"key_value.weight", "output.weight"},
    "attention_free": {"query_key_value.weight", "output.weight"},
    "sparse_keys": {f"{part}.weight" for part in ("query_key_value", "score", "output")},
    "combiner": {"query_key_value.weight", "output.weight"},
    "routing": {"query_key_value.weight", "output.weight"},
    "fourier": set(),
    "light_convolution": {"input.weight", "output.weight"},
    "dynamic_convolution": {f"{part}.weight" for part in ("input", "kernel", "output")},
    "flow_attention": {"query_key_value.weight", "output.weight"},
    "holographic": {"query_key_value.weight", "output.weight"},
    "dual_attention": {"query_key_value.weight"},
    "landmark": {"key_value.weight", "output.weight"},
    "neighbourhood": {"query_key_value.weight", "output.weight"},
    "gated_convolution": {"conv_weight", "input.weight", "output.weight"},
    "multiresolution": {"query_key_value.weight", "output.weight"},
    "hashed_attention": {"query_key_value.weight", "output.weight"},
    "probsparse": {"query_key_value.weight", "output.weight"},
    "low_rank": {f"{part}.weight" for part in ("query", "key_value", "output")},
    "latents": {
        f"{way}.{part}.weight"
        for way in ("read", "write")
        for part in ("query_key_value", "output")
    },
}
DECAYED["gated_linear_attention"] = DECAYED["retention"] | {"forget.weight"}
DECAYED["residual_attention"] = DECAYED["attention"]
DECAYED["bidirectional_mamba"] = {
    f"{way}.{name}" for way in ("ahead", "back") for name in DECAYED["mamba"]
}


def _decayed(module):
    return {name for name, _ in module.named_parameters()} - no_decay_names(module)


@pytest.mark.parametrize("name", MIXERS)
def test_only_weights_of_maps_decay(name):
    mixer = make_mixer(name, 6, **accepted_options(name, n_heads=2))
    assert _decayed(mixer) == DECAYED[name]


@pytest.mark.parametrize("norm", ["layer", "batch", "rms"])
def test_names_are_those_of_the_whole(norm):
    mixers = make_mixer("attention", 6, n_heads=2), make_mixer("mamba", 6)
    blocks = [Block(mixer, MLP(6, 5), d_model=6, norm=norm) for mixer in mixers]
    network = nn.ModuleDict({"position": LearnedPosition(7, 6), "encoder": Encoder(blocks)})
    expected = {
        f"encoder.blocks.{k}.{name}"
        for k, kind in enumerate(("attention", "mamba"))
        for name in (
            *(f"mixer.{name}" for name in DECAYED[kind]),
            *("mlp.expand.weight", "mlp.contract.weight"),
        )
    }
    assert _decayed(network) == expected
    assert {"position.weight", "encoder.blocks.1.mixer.log_decay"} <= no_decay_names(network)


class Odd(nn.Module):
    """Parameters that have to be known by more than their shape."""

    def __init__(self, no_decay=()):
        super().__init__()
        self.no_decay = no_decay
        self.norm = nn.LayerNorm((3, 4))
        self.table = nn.Embedding(5, 3)
        self.gate_bias = nn.Parameter(torch.zeros(2, 1, 3))
        self.unbias = nn.Parameter(torch.zeros(2, 3))
        self.scale = nn.Parameter(torch.ones(()))


def test_norms_and_biases_of_any_shape_and_what_is_listed():
    assert _decayed(Odd()) == {"table.weight", "unbias"}
    assert _decayed(Odd(("table.weight",))) == {"unbias"}


def test_a_shared_parameter_is_left_alone_under_all_names():
    odd = Odd(("table.weight",))
    network = nn.ModuleDict({"head": nn.Linear(3, 5, bias=False), "body": odd})
    network["head"].weight = odd.table.weight
    assert {"head.weight", "body.table.weight"} <= no_decay_names(network)


def test_a_listed_name_has_to_be_there():
    with pytest.raises(ParameterError, match=r"Odd: no_decay lists 'tabel', .* table.weight"):
        no_decay_names(nn.Sequential(Odd(("tabel",))))
