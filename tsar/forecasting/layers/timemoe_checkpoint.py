"""Checkpoints of Time-MoE as its authors publish them: a configuration, and weights by name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tsar.exceptions import ParameterError
from tsar.forecasting.layers.point_tokens import EPS, TimeMoENetwork

__all__ = ["load_weights", "read_sizes"]

# What the configuration of a checkpoint calls our parameters.
CONFIGURED = {
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_experts": "num_experts",
    "top_k": "num_experts_per_tok",
    "horizon_lengths": "horizon_lengths",
}
# What it may say of what is fixed here; the authors' code takes the same where it says nothing.
FIXED = {
    "input_size": 1,
    "hidden_act": "silu",
    "rms_norm_eps": EPS,
    "rope_theta": 10_000,
    "use_dense": False,
}


CONFIGURATION, WEIGHTS = "config.json", "model.safetensors"


def _missing(folder: Path, name: str) -> str:
    return (
        f"TimeMoE: pretrained must be a folder with {CONFIGURATION} and {WEIGHTS}, got "
        f"{str(folder)!r} without {name}; name the folder of a checkpoint, or set pretrained=None"
    )


def read_sizes(folder: Path) -> dict[str, Any]:
    """Read the parameters of the estimator that a checkpoint fixes.

    Parameters
    ----------
    folder : Path
        With ``config.json`` and ``model.safetensors``.

    Raises
    ------
    ParameterError
        One of the two is not there, or the configuration is of another model.
    """
    if not (folder / WEIGHTS).is_file():
        raise ParameterError(_missing(folder, WEIGHTS))
    try:
        config = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))
        sizes = {name: config[told] for name, told in CONFIGURED.items()}
    except OSError:
        raise ParameterError(_missing(folder, CONFIGURATION)) from None
    except (ValueError, TypeError, KeyError) as error:
        raise ParameterError(
            f"TimeMoE: {str(folder / CONFIGURATION)!r} must be the configuration of a Time-MoE, "
            f"got one that cannot be read: {error!r}"
        ) from None
    fixed = {**FIXED, "num_key_value_heads": sizes["n_heads"]}
    for name, value in fixed.items():
        if config.get(name) not in (None, value):
            raise ParameterError(
                f"TimeMoE: {str(folder / CONFIGURATION)!r} must have {name}={value!r}, got "
                f"{config[name]!r}; such a checkpoint cannot be read"
            )
    return sizes


def load_weights(network: TimeMoENetwork, folder: Path) -> None:
    """Copy the weights of a checkpoint, which may be in another precision, by their names.

    Parameters
    ----------
    network : TimeMoENetwork
        Of the sizes that :func:`read_sizes` returned.
    folder : Path

    Raises
    ------
    ParameterError
        The file cannot be read, or has others.
    """
    path = folder / WEIGHTS
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ParameterError(f"TimeMoE: {str(path)!r} cannot be read: {error}") from None
    taken = dict(_published_names(network))
    absent, extra = sorted(taken.keys() - weights), sorted(weights.keys() - taken)
    if absent or extra:
        raise ParameterError(
            f"TimeMoE: {str(path)!r} must hold the weights of its configuration, got one without "
            f"{len(absent)} of them, {absent[:3]}, and with {len(extra)} others, {extra[:3]}; copy "
            f"both files of one checkpoint"
        )
    for name, weight in taken.items():
        if weights[name].shape != weight.shape:
            raise ParameterError(
                f"TimeMoE: {name} in {str(path)!r} must have the shape {tuple(weight.shape)}, got "
                f"{tuple(weights[name].shape)}; copy both files of one checkpoint"
            )
        with torch.no_grad():
            weight.copy_(weights[name])


def _published_names(network: Any) -> Iterator[tuple[str, Tensor]]:
    """Pair each weight with what the authors call it; ours may be a part of a larger one."""

    def expert(name: str, mlp: Any) -> Iterator[tuple[str, Tensor]]:
        gate, value = mlp.expand.weight.chunk(2)
        yield f"{name}.gate_proj.weight", gate
        yield f"{name}.up_proj.weight", value
        yield f"{name}.down_proj.weight", mlp.contract.weight

    yield "model.embed_layer.gate_layer.weight", network.embedding.gate.weight
    yield "model.embed_layer.emb_layer.weight", network.embedding.value.weight
    for place, block in enumerate(network.encoder.blocks):
        layer = f"model.layers.{place}"
        for kind, whole in block.mixer.query_key_value.named_parameters():
            for part, weight in zip("qkv", whole.chunk(3), strict=True):
                yield f"{layer}.self_attn.{part}_proj.{kind}", weight
        yield f"{layer}.self_attn.o_proj.weight", block.mixer.output.weight
        yield f"{layer}.input_layernorm.weight", block.mixer_norm.weight
        yield f"{layer}.post_attention_layernorm.weight", block.mlp_norm.weight
        yield f"{layer}.ffn_layer.gate.weight", block.mlp.router.weight
        yield f"{layer}.ffn_layer.shared_expert_gate.weight", block.mlp.shared_gate.weight
        yield from expert(f"{layer}.ffn_layer.shared_expert", block.mlp.shared)
        for number, one in enumerate(block.mlp.experts):
            yield from expert(f"{layer}.ffn_layer.experts.{number}", one)
    yield "model.norm.weight", network.encoder.final_norm.weight
    for place, head in enumerate(network.heads):
        yield f"lm_heads.{place}.out_layer.weight", head.weight
