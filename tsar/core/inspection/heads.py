"""What single heads of attention do, and what a network loses without them.

Letters: B batch, N heads, L tokens, E features of a head.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tsar.core.mixers import SoftmaxAttention
from tsar.exceptions import ParameterError

__all__ = ["attention_distance", "gated_heads", "head_importance", "sink_shares"]


@contextlib.contextmanager
def gated_heads(network: nn.Module, gates: Tensor) -> Iterator[None]:
    """Multiply what each head gives by a number, inside of a ``with`` block.

    Parameters
    ----------
    network : nn.Module
    gates : Tensor of shape (n_layers, N)
        Of the attention layers in the order of ``network.modules()``; 0 prunes a head.

    Raises
    ------
    ParameterError
        The network attends in another number of layers or heads.
    """
    layers = [part for part in network.modules() if isinstance(part, SoftmaxAttention)]
    shapes = [layer.n_heads for layer in layers]
    if shapes != [gates.shape[1]] * len(gates):
        raise ParameterError(
            f"gated_heads: gates must have a row for each layer of attention and a column for "
            f"each head, which are {shapes}, got the shape {tuple(gates.shape)}"
        )
    with contextlib.ExitStack() as stack:
        for layer, row in zip(layers, gates, strict=True):

            def gated(module: nn.Module, inputs: tuple[Tensor], row: Tensor = row) -> Any:
                heads = inputs[0].unflatten(-1, (len(row), -1))
                return ((heads * row[:, None]).flatten(-2),)

            stack.callback(layer.output.register_forward_pre_hook(gated).remove)
            # The kernel for training does not call the map that the hook is on.
            stack.callback(setattr, layer, "backend", layer.backend)
            layer.backend = "sdpa"
        yield


def head_importance(network: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
    """Return how much a loss would change with the gate of each head, (n_layers, N).

    Parameters
    ----------
    network : nn.Module
    loss : function
        Runs the network and returns a number, a Tensor of shape ().

    Returns
    -------
    Tensor of shape (n_layers, N)
        The absolute derivative of the loss by the gate, where all gates are 1: the smaller, the
        less is lost without the head.

    References
    ----------
    Michel, Levy and Neubig, "Are sixteen heads really better than one?", NeurIPS 2019, eq. 2.
    """
    layers = [part for part in network.modules() if isinstance(part, SoftmaxAttention)]
    if not layers:
        raise ParameterError("head_importance: the network has no attention; nothing to measure")
    weight = layers[0].output.weight
    gates = torch.ones(len(layers), layers[0].n_heads, dtype=weight.dtype, device=weight.device)
    gates.requires_grad_()
    with torch.enable_grad(), gated_heads(network, gates):
        (slopes,) = torch.autograd.grad(loss(), gates)
    return slopes.abs()


def attention_distance(weights: Tensor) -> Tensor:
    """Return how far back or ahead a head reads on average.

    Parameters
    ----------
    weights : Tensor of shape (B, N, L, L)

    Returns
    -------
    Tensor of shape (B, N)
        In tokens.

    References
    ----------
    Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, figure 7.
    """
    places = torch.arange(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    apart = (places[:, None] - places).abs()
    return (weights * apart).sum(dim=-1).mean(dim=-1)


def sink_shares(weights: Sequence[Tensor], n_sinks: int = 1) -> Tensor:
    """Return the share of attention that goes to the first tokens, by layer and head.

    Parameters
    ----------
    weights : sequence of Tensor of shape (B, N, L, L)
        Of each layer.
    n_sinks : int, default 1
        How many tokens count as first; queries among them are left out, since they see little else.

    Returns
    -------
    Tensor of shape (n_layers, N)

    References
    ----------
    Xiao et al., "Efficient streaming language models with attention sinks", ICLR 2024; Guo et al.,
    "Active-dormant attention heads", arXiv:2410.13835.
    """
    return torch.stack(
        [layer[:, :, n_sinks:, :n_sinks].sum(dim=-1).mean(dim=(0, 2)) for layer in weights]
    )
